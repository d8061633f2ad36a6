package cosem

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// udpRig is a meter at a UDP port. edit gives the datagrams that become of an
// answer.
type udpRig struct {
	conn *net.UDPConn

	mu   sync.Mutex
	edit func(nth int, answer []byte) [][]byte
	got  int // requests
}

func newUDPRig(t *testing.T, edit func(nth int, answer []byte) [][]byte) *udpRig {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &udpRig{conn: conn, edit: edit}
	session := dlmstest.NewMeter(dlmstest.Options{Objects: objects("A1")}).NewSession()
	var tasks sync.WaitGroup
	tasks.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.got++
			nth, edit := r.got, r.edit
			r.mu.Unlock()
			for _, answer := range session.Frame(b[:n]) {
				out := [][]byte{answer}
				if edit != nil {
					out = edit(nth, answer)
				}
				for _, d := range out {
					if _, err := conn.WriteToUDPAddrPort(d, from); err != nil {
						return
					}
				}
			}
		}
	})
	t.Cleanup(func() { conn.Close(); tasks.Wait() })
	return r
}

func (r *udpRig) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

func (r *udpRig) driver(t *testing.T, timeout time.Duration) *Meter {
	t.Helper()
	l := line.UDP(r.conn.LocalAddr().String(), line.Options{})
	m := New(Config{ID: "m1", Datagrams: true, Timeout: timeout, Now: (&turnable{at: start()}).now}, l)
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// TestUDP: whatever else comes, what is read is the answer to what was asked.
func TestUDP(t *testing.T) {
	t.Parallel()
	var before []byte
	for title, edit := range map[string]func(int, []byte) [][]byte{
		"well": nil,
		"all twice": func(_ int, a []byte) [][]byte {
			return [][]byte{a, a}
		},
		"the one before first": func(_ int, a []byte) [][]byte {
			out := [][]byte{a}
			if before != nil {
				out = [][]byte{before, a}
			}
			before = slices.Clone(a)
			return out
		},
		"what is none": func(_ int, a []byte) [][]byte {
			long := append(slices.Clone(a), 0)
			return [][]byte{{}, {0}, a[:7], a[:len(a)-1], long, []byte("no wrapper at all"), a}
		},
	} {
		t.Run(title, func(t *testing.T) {
			m := newUDPRig(t, edit).driver(t, time.Minute)
			for range 3 {
				got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0", "1-0:16.7.0", "1-0:1.8.0"))
				if err != nil || len(got.Failures) > 0 {
					t.Fatalf("%v, %s", err, describe(got))
				}
				var values []string
				for _, row := range got.Rows {
					values = append(values, row.Value.String())
				}
				if want := "1234.5 -43.21 1234.5"; strings.Join(values, " ") != want {
					t.Errorf("got %s, want %s", values, want)
				}
			}
		})
	}
}

// TestUDPLost: an answer that is lost is asked for again, within one time-out.
func TestUDPLost(t *testing.T) {
	t.Parallel()
	r := newUDPRig(t, func(nth int, a []byte) [][]byte {
		if nth == 1 || nth == 4 {
			return nil
		}
		return [][]byte{a}
	})
	got, err := r.driver(t, 200*time.Millisecond).Visit(t.Context(), registers(t, "1-0:1.8.0"))
	if err != nil || len(got.Rows) != 1 {
		t.Errorf("%v, %s", err, describe(got))
	}
}

// TestUDPNobody: a port where nobody listens, and one that keeps silent.
func TestUDPNobody(t *testing.T) {
	t.Parallel()
	r := newUDPRig(t, func(int, []byte) [][]byte { return nil })
	m := r.driver(t, 50*time.Millisecond)
	_, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
	if !errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), "no answer within 50ms (is the meter on") || r.asked() != 2 {
		t.Errorf("asked %d times: %v", r.asked(), err)
	}
	r.conn.Close()
	_, err = m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
	if !errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), "is the port number right, and does the device listen?") {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestUDPSilence: a meter that keeps silent costs the line one time-out,
// whoever asks, and whether it asks once or twice.
func TestUDPSilence(t *testing.T) {
	t.Parallel()
	plain := Config{}
	first := securedConfig(t) // the counter is read first, as the public client
	known := secured(t, func(c *Config) { c.Counters = &store{known: true} })
	later := secured(t, func(c *Config) { c.Counters = &store{known: true} })
	for title, c := range map[string]struct {
		cfg   Config
		tries int
		heard int // requests that are answered before it is silent
	}{
		"public": {plain, 2, 0}, "counter": {first, 2, 0}, "with keys": {known, 1, 0}, "ciphered GET": {later, 2, 2},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var served sync.WaitGroup
				asked := 0
				var last time.Time
				l := line.Of("silent", func(context.Context, line.Settings) (line.Medium, error) {
					here, there := net.Pipe()
					served.Go(func() {
						session := dlmstest.NewMeter(securedMeter(t)).NewSession()
						b := make([]byte, 1<<16)
						for {
							n, err := there.Read(b)
							if err != nil {
								return
							}
							if asked++; asked > c.heard {
								continue
							}
							for _, out := range session.Frame(b[:n]) {
								last = time.Now()
								if _, err := there.Write(out); err != nil {
									return
								}
							}
						}
					})
					return hose{here}, nil
				})
				c.cfg.ID, c.cfg.Datagrams, c.cfg.Timeout, c.cfg.Now = "m1", true, 6*time.Second, (&turnable{at: start()}).now
				last = time.Now()
				c.cfg.CounterObjects = c.cfg.CounterObjects[:min(len(c.cfg.CounterObjects), c.tries-1)] // asked for no counter after a refusal
				_, err := New(c.cfg, l).Visit(t.Context(), registers(t, "1-0:1.8.0"))
				ended := time.Now()
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				served.Wait()
				if took := ended.Sub(last); took != 6*time.Second || asked != c.heard+c.tries || !strings.Contains(err.Error(), "within 6s") {
					t.Errorf("after %v, asked %d times: %v", took, asked, err)
				}
			})
		})
	}
}
