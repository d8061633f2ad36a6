package cosem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/obis"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// head is an optical head in memory: it has a rate, and the meter hears only
// what is sent at its own.
type head struct {
	line *line.Line

	mu       sync.Mutex
	settings []line.Settings // that the line was brought to
	signOns  int
	deaf     bool // the meter is with HDLC, and hears no sign-on before a DISC
	off      bool
	opens    int
}

type headPort struct {
	hose
	*head
}

func (p headPort) Apply(s line.Settings) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settings = append(p.settings, s)
	return nil
}

func (p headPort) Write(b []byte) (int, error) {
	p.mu.Lock()
	off := p.off || p.deaf && bytes.HasPrefix(b, []byte("/?"))
	if f, err := hdlc.ParseFrame(b); err == nil && f.Control == hdlc.DISC {
		p.deaf = false
	}
	if bytes.HasPrefix(b, []byte("/?")) {
		p.signOns++
	}
	p.mu.Unlock()
	if off {
		return len(b), nil
	}
	return p.hose.Write(b)
}

func (h *head) rate() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.settings[len(h.settings)-1].Baud
}

func newHead(t *testing.T, e dlmstest.ModeE) *head {
	t.Helper()
	h := &head{}
	e.Rate = h.rate
	e.Settle = func(int) { <-time.NewTimer(100 * time.Millisecond).C }
	var served sync.WaitGroup
	h.line = line.Of("head", func(_ context.Context, s line.Settings) (line.Medium, error) {
		here, there := net.Pipe()
		h.mu.Lock()
		h.opens++
		h.settings = append(h.settings, s)
		h.mu.Unlock()
		station := dlmstest.NewMeter(dlmstest.Options{Objects: objects("A1")}).Station(dlmstest.Station{})
		served.Go(func() {
			err := dlmstest.ServeModeE(newEnd(there, &busyMeter{}), e, station)
			if err != nil && !errors.Is(err, io.ErrClosedPipe) {
				t.Error(err)
			}
		})
		return headPort{hose{here}, h}, nil
	})
	t.Cleanup(func() {
		if err := h.line.Close(); err != nil {
			t.Error(err)
		}
		served.Wait()
	})
	return h
}

func (h *head) set(off, deaf bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off, h.deaf = off, deaf
}

func (h *head) driver(e ModeE) *Meter {
	return New(Config{
		ID: "m1", HDLC: &HDLC{}, ModeE: &e, Timeout: 6 * time.Second, Now: (&turnable{at: start()}).now,
		Settings: line.Settings{Baud: 300, DataBits: 7, Parity: 'E'},
	}, h.line)
}

// TestModeE: the meter is signed on to once while it stays with HDLC, and again
// when it went to sleep, whatever the rate of the line was last.
func TestModeE(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHead(t, dlmstest.ModeE{Baud: 19200, Address: "12345678"})
		m := h.driver(ModeE{Address: "12345678", MaxBaud: 9600})
		for i, step := range []struct {
			pause     time.Duration
			deaf      bool
			signOns   int
			otherRate bool
		}{
			{0, false, 1, false},
			{90 * time.Second, false, 1, false},
			{90 * time.Second, false, 1, true},   // somebody else had the line
			{130 * time.Second, false, 2, false}, // it sleeps
			{130 * time.Second, true, 4, false},  // it stays awake for longer than others
		} {
			<-time.NewTimer(step.pause).C
			h.set(false, step.deaf)
			if step.otherRate {
				err := h.line.Do(t.Context(), line.Settings{Baud: 2400}, func(context.Context, line.Port) error { return nil })
				if err != nil {
					t.Error(err)
				}
			}
			got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if err != nil || len(got.Rows) != 1 || h.signOns != step.signOns || h.rate() != 9600 {
				t.Fatalf("step %d: %v, %d sign-ons, at %d bit/s, %s", i, err, h.signOns, h.rate(), describe(got))
			}
		}
		if err := m.Close(); err != nil || h.opens != 1 {
			t.Errorf("%d times opened, %v", h.opens, err)
		}
	})
}

// TestModeEForgotten: a meter that is gone from HDLC though it should not be is
// signed on to anew in the same visit.
func TestModeEForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHead(t, dlmstest.ModeE{})
		m := h.driver(ModeE{})
		for want := range 2 {
			got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if err != nil || len(got.Rows) != 1 || h.signOns != want+1 {
				t.Fatalf("%v, %d sign-ons, %s", err, h.signOns, describe(got))
			}
			// Another client signs on: the meter waits for its choice.
			err = h.line.Do(t.Context(), line.Settings{Baud: 300, DataBits: 7, Parity: 'E'}, func(_ context.Context, p line.Port) error {
				h.mu.Lock()
				h.signOns--
				h.mu.Unlock()
				if _, err := p.Write([]byte("/?!\r\n")); err != nil {
					return err
				}
				_, err := io.ReadFull(p, make([]byte, len("/GRX5\\2\r\n")))
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestModeEFailures: what a technician is told, and for how long the line is
// held by a meter that is off.
func TestModeEFailures(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		e     ModeE
		off   bool
		words string
		most  time.Duration
	}{
		"off":           {ModeE{}, true, "no answer to the sign-on at 300 baud 7E1: is the head on the meter", 7 * time.Second},
		"other address": {ModeE{Address: "999"}, false, `is its device address "999"`, 7 * time.Second},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHead(t, dlmstest.ModeE{Address: "1"})
				h.set(c.off, false)
				begin := time.Now()
				_, err := h.driver(c.e).Visit(t.Context(), registers(t, "1-0:1.8.0"))
				if took := time.Since(begin); !errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), c.words) || took > c.most {
					t.Errorf("after %v: %v", took, err)
				}
			})
		})
	}
}

// TestModeESilentInHDLC: whom the meter did not answer in HDLC is told by all of
// the address, and as whom it was asked.
func TestModeESilentInHDLC(t *testing.T) {
	t.Parallel()
	for words, cfg := range map[string]Config{
		"Does the meter know client 17, server 1 and physical 99?": {Client: 17},
		"Does the meter know client 16, server 1 and physical 99?": securedConfig(t), // the counter is read first
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHead(t, dlmstest.ModeE{})
			cfg.HDLC, cfg.ModeE, cfg.Timeout, cfg.Now = &HDLC{Physical: 99}, &ModeE{}, 6*time.Second, (&turnable{at: start()}).now
			_, err := New(cfg, h.line).Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if !errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "at 9600 baud 8N1") {
				t.Errorf("%v, want %q", err, words)
			}
		})
	}
}

// says is a port at which every request is answered with the next of answers.
type says struct {
	hose
	answers []string
}

func (s *says) Write(b []byte) (int, error) { return len(b), nil }

func (s *says) SetDeadline(time.Time) error { return nil }

func (s *says) Read(b []byte) (int, error) {
	if len(s.answers) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, s.answers[0])
	if s.answers[0] = s.answers[0][n:]; s.answers[0] == "" {
		s.answers = s.answers[1:]
		return n, nil
	}
	return n, nil
}

func (s *says) Close() error { return nil }

func TestModeEOfOtherMeters(t *testing.T) {
	t.Parallel()
	for said, words := range map[string]string{
		"/LGZ4\\2ZMD\r\n|\x02F.F(00)\r\n!\r\n\x03\x11": "the meter offers mode C, not E",
		"/LGZ4\\2ZMD\r\n|\x15":                         "the meter refused to go over to HDLC",
		"/ABB 1234\r\n":                                "the meter cannot go over to HDLC",
		"/1\r\n":                                       "no meter's identification",
	} {
		synctest.Test(t, func(t *testing.T) {
			l := line.Of("x", func(context.Context, line.Settings) (line.Medium, error) {
				return &pausing{says{answers: strings.Split(said, "|")}, false}, nil
			})
			m := New(Config{ID: "m1", HDLC: &HDLC{}, ModeE: &ModeE{}, Now: (&turnable{at: start()}).now}, l)
			if _, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("%q: %v", said, err)
			}
		})
	}
}

// pausing gives an answer only after the next Write.
type pausing struct {
	says
	asked bool
}

func (p *pausing) Write(b []byte) (int, error) { p.asked = true; return len(b), nil }

func (p *pausing) Read(b []byte) (int, error) {
	if !p.asked {
		return 0, os.ErrDeadlineExceeded
	}
	left := len(p.answers)
	n, err := p.says.Read(b)
	if len(p.answers) != left {
		p.asked = false
	}
	return n, err
}

func trace09(t *testing.T) dlmstest.Trace {
	t.Helper()
	f, err := os.Open("../../dlms/modee/testdata/09-modeE-hdlc-lls.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// replayed is a medium that has the conversation of a trace. What the driver
// chooses by itself (invoke ids, what it proposes) is brought to what the trace
// has, both ways; all else has to be as it is there, octet by octet.
type replayed struct {
	hose
	t        *testing.T
	steps    dlmstest.Trace
	out      []byte
	settings []string
	sent     int
}

func (r *replayed) Apply(s line.Settings) error {
	r.settings = append(r.settings, s.String())
	return nil
}
func (r *replayed) SetDeadline(time.Time) error { return nil }
func (r *replayed) Close() error                { return nil }

func (r *replayed) Write(b []byte) (int, error) {
	if len(r.steps) < 2 || r.steps[0].FromMeter {
		r.t.Errorf("sent beyond the trace: % x", b)
		return len(b), nil
	}
	want, answer := r.steps[0].Bytes, bytes.Clone(r.steps[1].Bytes)
	r.steps = r.steps[2:]
	r.sent++
	got, err := hdlc.ParseFrame(b)
	trace, terr := hdlc.ParseFrame(want)
	if err == nil && terr == nil && len(got.Info) > 5 && len(got.Info) == len(trace.Info) {
		switch info := bytes.Clone(got.Info); info[3] {
		case 0xC0: // a GET: the invoke id
			id := info[5]
			info[5] = trace.Info[5]
			got.Info = info
			if f, err := hdlc.ParseFrame(answer); err == nil {
				f.Info = bytes.Clone(f.Info)
				f.Info[5] = id
				answer, _ = f.AppendBinary(nil)
			}
		case 0x60: // AARQ: conformance and the longest PDU, at its end
			copy(info[len(info)-5:], trace.Info[len(info)-5:])
			got.Info = info
		}
		b, _ = got.AppendBinary(nil)
	}
	if !bytes.Equal(b, want) {
		r.t.Errorf("sent % x, want % x", b, want)
	}
	r.out = append(r.out, answer...)
	return len(b), nil
}

func (r *replayed) Read(b []byte) (int, error) {
	if len(r.out) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, r.out)
	r.out = r.out[n:]
	return n, nil
}

// TestTrace09 has the conversation of the trace with the whole driver.
func TestTrace09(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &replayed{t: t, steps: trace09(t)}
		steps := len(r.steps)
		l := line.Of("replay", func(_ context.Context, s line.Settings) (line.Medium, error) {
			r.settings = append(r.settings, s.String())
			return r, nil
		})
		m := New(Config{
			ID: "m1", Client: 17, Auth: AuthLLS, Password: dlms.Secret("Gurux"), ModeE: &ModeE{}, HDLC: &HDLC{Info: 128, Window: 1},
			Settings: line.Settings{Baud: 300, DataBits: 7, Parity: 'E'}, Now: (&turnable{at: start()}).now,
		}, l)
		m.last = t.Context()
		ctx := t.Context()
		err := l.Do(ctx, m.settings(), func(ctx context.Context, port line.Port) error {
			if _, err := m.session(ctx, port); err != nil {
				return err
			}
			for _, what := range []struct {
				channel string
				want    string
			}{{"0-0:1.0.0/8:2", ""}, {"1-1:21.25.0/3:3", ""}, {"1-1:21.25.0/3:2", "126"}} {
				code, class, id, _ := channel(t, what.channel).Attribute()
				v, err := m.client.Get(ctx, attribute(code, class, id))
				if n, _ := v.Uint64(); err != nil || what.want != "" && fmt.Sprint(n) != what.want {
					return fmt.Errorf("%s: %v, %w", what.channel, v, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := errors.Join(m.Close(), l.Close()); err != nil || len(r.steps) != 0 {
			t.Errorf("%v, %d of %d steps are left", err, len(r.steps), steps)
		}
		if got := strings.Join(r.settings, ", "); got != "300 7E1, 9600 7E1, 9600 8N1" {
			t.Errorf("settings: %s", got)
		}
	})
}

func attribute(code obis.Code, class uint16, id int8) dlms.Attribute {
	return dlms.Attribute{Class: class, Code: code, ID: id}
}
