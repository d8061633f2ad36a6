package cosem

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/hdlc"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// TestDeadHDLCMeter: a meter that is off costs its line one time-out a visit,
// whether it was read before or not; and when it is there again it is read.
func TestDeadHDLCMeter(t *testing.T) {
	t.Parallel()
	for title, first := range map[string]bool{"never heard of": false, "read before": true} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBusyMeter(t, true)
				m := New(Config{ID: "m1", HDLC: &HDLC{}, Timeout: 8 * time.Second, Release: true, Now: (&turnable{at: start()}).now}, b.line)
				ask := registers(t, "1-0:1.8.0")
				if first {
					if _, err := m.Visit(t.Context(), ask); err != nil {
						t.Fatal(err)
					}
				}
				b.behave(true, nil)
				for range 4 {
					begin := time.Now()
					_, err := m.Visit(t.Context(), ask)
					took := time.Since(begin)
					if !errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), "no answer within 8s (") || took < 8*time.Second || took > 8200*time.Millisecond {
						t.Errorf("after %v: %v", took, err)
					}
				}
				b.behave(false, nil)
				if got, err := m.Visit(t.Context(), ask); err != nil || len(got.Rows) != 1 {
					t.Errorf("%v, %s", err, describe(got))
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestKeptConnectionOfADeadMeter: it is asked once on the connection of before,
// and once for a new one.
func TestKeptConnectionOfADeadMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusyMeter(t, true)
		m := New(Config{ID: "m1", HDLC: &HDLC{}, Timeout: 8 * time.Second, Now: (&turnable{at: start()}).now}, b.line)
		ask := registers(t, "1-0:1.8.0")
		if _, err := m.Visit(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		b.behave(true, nil)
		for _, want := range []time.Duration{16 * time.Second, 8 * time.Second, 8 * time.Second} {
			begin := time.Now()
			_, err := m.Visit(t.Context(), ask)
			if took := time.Since(begin); !errors.Is(err, meter.ErrNoAnswer) || took < want || took > want+200*time.Millisecond {
				t.Errorf("after %v, want %v: %v", took, want, err)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// pipe is a line to a station of the test's.
func pipe(t *testing.T, serve func(f hdlc.Frame) (answer *hdlc.Frame)) *line.Line {
	t.Helper()
	l := line.Of("wire", func(context.Context, line.Settings) (line.Medium, error) {
		return &stub{serve: serve}, nil
	})
	return l
}

// stub answers frames at once.
type stub struct {
	says
	serve func(hdlc.Frame) *hdlc.Frame
	until time.Time
}

func (s *stub) SetDeadline(at time.Time) error {
	s.until = at
	return nil
}

func (s *stub) Write(b []byte) (int, error) {
	f, err := hdlc.ParseFrame(b)
	if err != nil {
		return 0, err
	}
	if answer := s.serve(f); answer != nil {
		answer.Destination, answer.Source = f.Source, f.Destination
		out, err := answer.AppendBinary(nil)
		if err != nil {
			return 0, err
		}
		s.answers = append(s.answers, string(out))
	}
	return len(b), nil
}

func (s *stub) Read(b []byte) (int, error) {
	if len(s.answers) == 0 {
		<-time.NewTimer(time.Until(s.until)).C
	}
	return s.says.Read(b)
}

// TestTerms: what is proposed, what is done where the meter does not like that,
// and what is remembered.
func TestTerms(t *testing.T) {
	t.Parallel()
	const half = 4 * time.Second
	likes := func(told bool, f hdlc.Frame) *hdlc.Frame {
		info, _ := hdlc.Parameters{MaxInfoTx: 512, MaxInfoRx: 256, WindowTx: 3, WindowRx: 2}.AppendBinary(nil)
		if !told && len(f.Info) > 0 {
			return nil
		}
		return &hdlc.Frame{Control: hdlc.UA, Info: info}
	}
	for title, c := range map[string]struct {
		own   HDLC
		serve func(hdlc.Frame) *hdlc.Frame
		want  []string // the SNRMs of each connection: told or plain
		took  []time.Duration
		grant hdlc.Parameters
	}{
		"agrees": {
			HDLC{},
			func(f hdlc.Frame) *hdlc.Frame { return likes(true, f) },
			[]string{"told", "told"},
			[]time.Duration{0, 0},
			hdlc.Parameters{MaxInfoTx: 256, MaxInfoRx: 512, WindowTx: 2, WindowRx: 3},
		},
		"less is asked for": {
			HDLC{Info: 200, Window: 1},
			func(f hdlc.Frame) *hdlc.Frame { return likes(true, f) },
			[]string{"told"},
			[]time.Duration{0},
			hdlc.Parameters{MaxInfoTx: 200, MaxInfoRx: 200, WindowTx: 1, WindowRx: 1},
		},
		"nothing is asked for": {
			HDLC{Info: 128, Window: 1},
			func(f hdlc.Frame) *hdlc.Frame { return likes(false, f) },
			[]string{"plain", "plain"},
			[]time.Duration{0, 0},
			hdlc.Default(),
		},
		"silent": {
			HDLC{},
			func(f hdlc.Frame) *hdlc.Frame { return likes(false, f) },
			[]string{"told plain", "told plain", "plain", "plain"},
			[]time.Duration{half, half, 0, 0},
			hdlc.Default(),
		},
		"DM": {HDLC{}, func(f hdlc.Frame) *hdlc.Frame {
			if a := likes(false, f); a != nil {
				return a
			}
			return &hdlc.Frame{Control: hdlc.DM}
		}, []string{"told plain", "plain"}, []time.Duration{0, 0}, hdlc.Default()},
		"FRMR": {HDLC{}, func(f hdlc.Frame) *hdlc.Frame {
			if a := likes(false, f); a != nil {
				return a
			}
			return &hdlc.Frame{Control: hdlc.FRMR, Info: []byte{0x93, 0, 2}}
		}, []string{"told plain", "plain"}, []time.Duration{0, 0}, hdlc.Default()},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var asked []string
				l := pipe(t, func(f hdlc.Frame) *hdlc.Frame {
					if f.Control != hdlc.SNRM {
						return &hdlc.Frame{Control: hdlc.UA}
					}
					how := "plain"
					if len(f.Info) > 0 {
						how = "told"
					}
					asked = append(asked, how)
					return c.serve(f)
				})
				m := New(Config{ID: "m1", HDLC: &c.own, Timeout: 2 * half, Now: (&turnable{at: start()}).now}, l)
				for i, want := range c.want {
					asked = nil
					begin := time.Now()
					err := l.Do(t.Context(), line.Settings{}, func(ctx context.Context, p line.Port) error {
						way := m.connect(p, 16)
						if err := way.dial(ctx); err != nil {
							return err
						}
						if got := way.hdlc.Granted(); got != c.grant {
							t.Errorf("granted %+v, want %+v", got, c.grant)
						}
						return way.release(ctx, nil)
					})
					took := time.Since(begin).Truncate(500 * time.Millisecond)
					if got := strings.Join(asked, " "); err != nil || got != want || took != c.took[i] {
						t.Errorf("connection %d: asked %s after %v, want %s after %v: %v", i, got, took, want, c.took[i], err)
					}
				}
			})
		})
	}
}

// TestProposal: what is proposed is on the line for half a time-out.
func TestProposal(t *testing.T) {
	t.Parallel()
	for baud, want := range map[int]uint16{300: 128, 2400: 600, 9600: 2030, 115200: 2030} {
		l := line.Of("x", func(context.Context, line.Settings) (line.Medium, error) { return &says{}, nil })
		m := New(Config{HDLC: &HDLC{}}, l)
		err := l.Do(t.Context(), line.Settings{Baud: baud}, func(_ context.Context, p line.Port) error {
			if got := m.connect(p, 16).propose(); got.MaxInfoRx != want || got.WindowRx != 7 {
				t.Errorf("%d baud: %+v, want %d", baud, got, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
