package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// hose is one end of a line in memory as a medium.
type hose struct{ net.Conn }

func (hose) Discard() error            { return nil }
func (hose) Apply(line.Settings) error { return nil }
func (hose) Stale() bool               { return false }

// busyMeter is a meter on a line in memory, and what happens on it.
type busyMeter struct {
	line  *line.Line
	opens atomic.Int32

	mu   sync.Mutex
	said []saying
	// pause, if not nil, is how long the meter takes before it says something,
	// and whether it has said half of it by then.
	pause func(what string, nth int) (d time.Duration, half bool)
	mute  bool // it hears and says nothing
	from  int  // since when nth is counted
}

// saying is a frame on the line.
type saying struct {
	what    string // of HDLC: its control field; else the APDU's tag
	byMeter bool
	at      time.Time // when the last octet of it had passed
}

func nameFrame(b []byte) string {
	switch {
	case b[0] == '/' || b[0] == 6:
		return "mode E"
	case b[0] != 0x7E:
		return fmt.Sprintf("%02x", b[8])
	}
	f, err := hdlc.ParseFrame(b)
	if err != nil {
		return err.Error()
	}
	name := f.Control.String()
	return name[:min(4, len(name))]
}

// end is the meter's end of its line. What the client writes waits there until
// the meter reads it.
type end struct {
	net.Conn
	*busyMeter
	in   chan []byte // what the client wrote at a time
	rest []byte
}

func newEnd(conn net.Conn, b *busyMeter) *end {
	e := &end{Conn: conn, busyMeter: b, in: make(chan []byte, 64)}
	go func() {
		defer close(e.in)
		for chunk := make([]byte, 4096); ; {
			n, err := conn.Read(chunk)
			if err != nil {
				return
			}
			if b.note(chunk[:n], false) {
				e.in <- slices.Clone(chunk[:n])
			}
		}
	}()
	return e
}

// note notes what passes, unless the meter is mute.
func (b *busyMeter) note(frame []byte, byMeter bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.mute {
		b.said = append(b.said, saying{nameFrame(frame), byMeter, time.Now()})
	}
	return !b.mute
}

func (e *end) Read(b []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = <-e.in
	}
	if len(e.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func (e *end) Write(b []byte) (int, error) {
	what, d, half, nth := nameFrame(b), time.Duration(0), false, 0
	e.mu.Lock()
	for _, s := range e.said[min(e.from, len(e.said)):] {
		if s.byMeter && s.what == what {
			nth++
		}
	}
	if e.pause != nil {
		d, half = e.pause(what, nth)
	}
	e.mu.Unlock()
	first := 0
	if half {
		first = len(b) / 2
		if _, err := e.Conn.Write(b[:first]); err != nil {
			return 0, err
		}
	}
	if d > 0 {
		<-time.NewTimer(d).C
	}
	if !e.note(b, true) {
		return len(b), nil
	}
	n, err := e.Conn.Write(b[first:])
	return first + n, err
}

func newBusyMeter(t *testing.T, overHDLC bool) *busyMeter {
	t.Helper()
	b := &busyMeter{}
	simulated := dlmstest.NewMeter(dlmstest.Options{Objects: objects("A1")})
	served := make(chan error, 8)
	b.line = line.Of("wire", func(context.Context, line.Settings) (line.Medium, error) {
		here, there := net.Pipe()
		b.opens.Add(1)
		go func() {
			if overHDLC {
				served <- simulated.ServeHDLC(newEnd(there, b), dlmstest.Station{})
			} else {
				served <- simulated.Serve(newEnd(there, b))
			}
			there.Close()
		}()
		return hose{here}, nil
	})
	t.Cleanup(func() {
		if err := b.line.Close(); err != nil {
			t.Error(err)
		}
		for range b.opens.Load() {
			if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}
	})
	return b
}

// behave changes what the meter does from now on.
func (b *busyMeter) behave(mute bool, pause func(string, int) (time.Duration, bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute, b.pause, b.from = mute, pause, len(b.said)
}

func (b *busyMeter) hear() []saying {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

// tookLeave says what is wrong with a line that goes to the next at a time:
// the meter was to be told goodbye, and to have answered; with HDLC, when it had
// said what it had to say.
func (b *busyMeter) tookLeave(word, answer string, next time.Time) error {
	said := b.hear()
	at := slices.IndexFunc(said, func(s saying) bool { return !s.byMeter && s.what == word })
	switch {
	case at < 0:
		return fmt.Errorf("no %s: %v", word, said)
	case word == "DISC" && at > 0 && !said[at-1].byMeter:
		return fmt.Errorf("the meter was told goodbye before it had answered: %v", said)
	}
	last := said[len(said)-1]
	if last.what != answer || !last.byMeter || last.at.After(next) {
		return fmt.Errorf("the line went on at %v, and %s was not answered with %s: %v", next, word, answer, said[at:])
	}
	return nil
}

// next is when another exchange gets the line.
func (b *busyMeter) next(t *testing.T) (at time.Time) {
	t.Helper()
	err := b.line.Do(t.Context(), line.Settings{}, func(context.Context, line.Port) error {
		at = time.Now()
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return at
}

var errEnough = errors.New("enough")

// cancelled visits, and has enough after a second.
func cancelled(t *testing.T, m *Meter, ask meter.Ask) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errEnough)
	defer cancel()
	begin := time.Now()
	if _, err := m.Visit(ctx, ask); !errors.Is(err, errEnough) || time.Since(begin) != time.Second {
		t.Errorf("cancelled after %v, back after %v: %v", time.Second, time.Since(begin), err)
	}
}

// slowAt is a pause of three seconds before one thing that the meter says.
func slowAt(what string, nth int, half bool) func(string, int) (time.Duration, bool) {
	return func(w string, n int) (time.Duration, bool) {
		if w == what && n == nth {
			return 3 * time.Second, half
		}
		return 0, false
	}
}

// TestCancelledVisit: who cancels a visit has the control back at once, at
// whatever point of the conversation. The line goes to the next only when the
// meter has said what it had to say and answered the goodbye; and then it is
// read again, on the port that was open.
func TestCancelledVisit(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		hdlc         *HDLC
		fresh        bool // no visit goes before
		what         string
		nth          int
		half         bool
		word, answer string
	}{
		"SNRM":                             {&HDLC{Info: 128, Window: 1}, true, "UA P", 0, false, "DISC", "UA P"},
		"SNRM with parameters":             {&HDLC{}, true, "UA P", 0, false, "DISC", "UA P"},
		"AARQ":                             {&HDLC{}, true, "I N(", 0, false, "DISC", "UA P"},
		"GET":                              {&HDLC{}, false, "I N(", 0, false, "DISC", "UA P"},
		"GET, within a frame":              {&HDLC{}, false, "I N(", 0, true, "DISC", "UA P"},
		"a later GET":                      {&HDLC{}, true, "I N(", 3, false, "DISC", "UA P"},
		"a segmented answer":               {&HDLC{Info: 32, Window: 1}, true, "I N(", 1, false, "DISC", "UA P"},
		"a segmented answer, within one":   {&HDLC{Info: 32, Window: 1}, true, "I N(", 1, true, "DISC", "UA P"},
		"wrapper, GET":                     {nil, false, "c4", 0, false, "62", "63"},
		"wrapper, GET, within a frame":     {nil, false, "c4", 0, true, "62", "63"},
		"wrapper, GET of the first visit":  {nil, true, "c4", 2, false, "62", "63"},
		"wrapper, within its second frame": {nil, true, "c4", 1, true, "62", "63"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBusyMeter(t, c.hdlc != nil)
				m := New(Config{ID: "m1", HDLC: c.hdlc, Timeout: 8 * time.Second, Now: (&turnable{at: start()}).now}, b.line)
				ask := registers(t, "1-0:1.8.0")
				if !c.fresh {
					if got, err := m.Visit(t.Context(), ask); err != nil || len(got.Rows) != 1 {
						t.Fatalf("%v, %s", err, describe(got))
					}
				}
				b.behave(false, slowAt(c.what, c.nth, c.half))
				begin := time.Now()
				cancelled(t, m, ask)
				next := b.next(t)
				if err := b.tookLeave(c.word, c.answer, next); err != nil || next.Sub(begin) < 3*time.Second {
					t.Errorf("the line went on after %v: %v", next.Sub(begin), err)
				}
				b.behave(false, nil)
				begin = time.Now()
				got, err := m.Visit(t.Context(), ask)
				if err != nil || len(got.Rows) != 1 || got.Rows[0].Value.String() != "1234.5" || time.Since(begin) != 0 {
					t.Errorf("after %v: %v, %s", time.Since(begin), err, describe(got))
				}
				if err := m.Close(); err != nil || b.opens.Load() != 1 {
					t.Errorf("%d times opened, %v", b.opens.Load(), err)
				}
			})
		})
	}
}

// TestNoFarewell is the control of the tests here: of an exchange that ends
// without a farewell they say so.
func TestNoFarewell(t *testing.T) {
	t.Parallel()
	for title, ending := range map[string]func(line.Port){
		"as it is": func(line.Port) {}, "dropped": func(p line.Port) { p.Drop() },
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBusyMeter(t, true)
				b.behave(false, slowAt("UA P", 0, false))
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				err := b.line.Do(ctx, line.Settings{}, func(ctx context.Context, port line.Port) error {
					defer ending(port)
					return hdlc.NewLink(&wire{line: b.line, port: port}, hdlc.Config{
						Client: hdlc.ClientAddress(16), Server: hdlc.Address{Upper: 1, Size: 1},
					}).Connect(ctx)
				})
				next := b.next(t)
				if err == nil || b.tookLeave("DISC", "UA P", next) == nil || next.Sub(begin) >= 3*time.Second {
					t.Errorf("no farewell was needed: %v", b.hear())
				}
			})
		})
	}
}

// TestFarewellToTheDead: where nobody answers the goodbye, the line goes on
// when it has timed out, on a port that is opened anew if a late answer could be
// taken for another.
func TestFarewellToTheDead(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		hdlc  *HDLC
		free  time.Duration // since the visit began
		opens int32
	}{
		// The answer may come within 8 s of the request, and the goodbye has 8 s more.
		"hdlc": {&HDLC{}, 16 * time.Second, 1}, "wrapper": {nil, 9 * time.Second, 2},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBusyMeter(t, c.hdlc != nil)
				m := New(Config{ID: "m1", HDLC: c.hdlc, Timeout: 8 * time.Second, Now: (&turnable{at: start()}).now}, b.line)
				ask := registers(t, "1-0:1.8.0")
				if _, err := m.Visit(t.Context(), ask); err != nil {
					t.Fatal(err)
				}
				b.behave(true, nil)
				begin := time.Now()
				cancelled(t, m, ask)
				free := b.next(t).Sub(begin)
				if free < c.free || free > c.free+time.Second/4 { // frames are a while on the line
					t.Errorf("the line was free after %v, want %v", free, c.free)
				}
				b.behave(false, nil)
				got, err := m.Visit(t.Context(), ask)
				if err != nil || len(got.Rows) != 1 || b.opens.Load() != c.opens {
					t.Errorf("%v, opened %d times, %s", err, b.opens.Load(), describe(got))
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestCancelledAARQ: over TCP, an association that may or may not have come
// about ends with the connection.
func TestCancelledAARQ(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBusyMeter(t, false)
		m := New(Config{ID: "m1", Now: (&turnable{at: start()}).now}, b.line)
		b.behave(false, slowAt("61", 0, false))
		cancelled(t, m, registers(t, "1-0:1.8.0"))
		b.behave(false, nil)
		if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 || b.opens.Load() != 2 {
			t.Errorf("%v, opened %d times, %s", err, b.opens.Load(), describe(got))
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseInTheFarewell: a line that is closed waits for nobody's goodbye; a
// meter that is closed gives it a second.
func TestCloseInTheFarewell(t *testing.T) {
	t.Parallel()
	for title, pause := range map[string]time.Duration{"late": 1500 * time.Millisecond, "much too late": 6 * time.Second} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBusyMeter(t, true)
				m := New(Config{ID: "m1", HDLC: &HDLC{}, Timeout: 8 * time.Second, Now: (&turnable{at: start()}).now}, b.line)
				b.behave(false, func(what string, _ int) (time.Duration, bool) {
					if what == "I N(" {
						return pause, false
					}
					return 0, false
				})
				cancelled(t, m, registers(t, "1-0:1.8.0"))
				begin := time.Now()
				if err := m.Close(); err != nil {
					t.Error(err)
				}
				want := min(pause-time.Second, closeTimeout)
				if took := time.Since(begin); took != want {
					t.Errorf("the meter was closed after %v, want %v", took, want)
				}
				begin = time.Now()
				if err := b.line.Close(); err != nil || time.Since(begin) != 0 {
					t.Errorf("the line was closed after %v, %v", time.Since(begin), err)
				}
			})
		})
	}
}
