package modbus

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// pipe is a line's end of a wire in simulated time.
type pipe struct{ net.Conn }

func (pipe) Discard() error            { return nil }
func (pipe) Apply(line.Settings) error { return nil }
func (pipe) Stale() bool               { return false }

// simulated gives a meter at g, for use in a bubble.
func simulated(t *testing.T, g *rig, cfg Config) *Meter {
	t.Helper()
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { g.serve(theirs) })
	l := line.Of("wire", func(context.Context, line.Settings) (line.Medium, error) { return pipe{ours}, nil })
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), theirs.Close()); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	cfg.ID, cfg.Unit, cfg.Transport, cfg.Now = "m", 1, RTU, clock()
	return New(cfg, l)
}

// A meter that is not there costs the silence before the request, the wire's
// time for request and answer, and the time-out.
func TestTimeOfADeadMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{spoil: func(int, []byte, []byte) [][]byte { return nil }}
		m := simulated(t, g, Config{Model: modelOf(1), Timeout: 500 * time.Millisecond, Settings: line.Settings{Baud: 9600}})
		char := line.Settings{Baud: 9600}.CharTime()
		for range 5 {
			begin := time.Now()
			if _, err := m.Visit(t.Context(), ask()); !errors.Is(err, meter.ErrNoAnswer) {
				t.Errorf("got %v", err)
			}
			asked := g.asked()
			wire := time.Duration(requestLen+answerLen(asked[len(asked)-1].count)) * char
			if got, most := time.Since(begin), 500*time.Millisecond+wire+4*char; got > most {
				t.Errorf("took %v, want at most %v", got, most)
			}
		}
	})
}

// A dead meter costs its line one time-out a visit, however often it is asked,
// and is asked for another quantity each time.
func TestADeadMeterCostsOneTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{spoil: func(int, []byte, []byte) [][]byte { return nil }}
		model := modelOf(100, 200, 300)
		model.Serial = &Register{Function: 3, Address: 0xFC00, Type: U32}
		m := simulated(t, g, Config{Model: model, Settings: settings})
		for i := range 10 {
			_, err := m.Visit(t.Context(), ask())
			if !errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), "is it unit 1 at 19200 8N1?") {
				t.Fatalf("got %v", err)
			}
			if n := len(g.asked()); n != i+1 {
				t.Fatalf("%d requests in %d visits", n, i+1)
			}
		}
		seen := map[shape]bool{}
		for _, s := range g.asked() {
			if seen[s] {
				t.Errorf("%v was asked twice while an answer may still come", s)
			}
			seen[s] = true
		}
	})
}

// A meter that is silent for long is not asked what it may still answer: when
// all that differs was asked, it is only listened to, until the oldest request
// cannot be answered any more.
func TestASilentMeterIsNotAskedTheSameTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{spoil: func(int, []byte, []byte) [][]byte { return nil }}
		m := simulated(t, g, Config{Model: modelOf(100), Settings: settings})
		for begin := time.Now(); time.Since(begin) < lateFor; {
			from := time.Now()
			if _, err := m.Visit(t.Context(), ask()); !errors.Is(err, meter.ErrNoAnswer) {
				t.Fatalf("got %v", err)
			}
			if took := time.Since(from); took > 11*defaultTimeout/10 {
				t.Errorf("a visit took %v", took)
			}
		}
		seen := map[shape]bool{}
		for _, s := range g.asked() {
			if seen[s] {
				t.Errorf("%v was asked twice while an answer may still come", s)
			}
			seen[s] = true
		}
		before := len(g.asked())
		idle(lateFor)
		if _, err := m.Visit(t.Context(), ask()); !errors.Is(err, meter.ErrNoAnswer) || len(g.asked()) != before+1 {
			t.Errorf("%d requests, %v", len(g.asked())-before, err)
		}
	})
}

// Before each request the line is silent for 3.5 characters, or for as long as
// the model asks.
func TestTurnaround(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		baud       int
		turnaround time.Duration
		want       time.Duration
	}{
		{9600, 0, 3645831}, // 3.5 × 10 bits
		{9600, 20 * time.Millisecond, 20 * time.Millisecond},
		{115200, 0, 1750 * time.Microsecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			var asked, answered []time.Time
			g := &rig{spoil: func(_ int, _, answer []byte) [][]byte {
				asked = append(asked, time.Now())
				answered = append(answered, time.Now().Add(pauseTime))
				return [][]byte{answer[:3], answer[3:]}
			}}
			model := modelOf(100, 200, 300)
			model.Turnaround = c.turnaround
			m := simulated(t, g, Config{Model: model, Settings: line.Settings{Baud: c.baud}})
			if _, err := m.Visit(t.Context(), ask()); err != nil {
				t.Error(err)
			}
			for i := range asked[1:] {
				if gap := asked[i+1].Sub(answered[i]); gap != c.want {
					t.Errorf("%d baud, %v: silent for %v, want %v", c.baud, c.turnaround, gap, c.want)
				}
			}
		})
	}
}

// A day of exchanges on a line with every fault, at once: none is wrong.
func TestADayOfFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rows := faultRows()
		var held []byte
		g := &rig{spoil: func(n int, request, answer []byte) [][]byte {
			if n%3 != 0 && held == nil {
				return [][]byte{answer}
			}
			return rows[n/3%len(rows)].spoil(5*n+1, request, answer, &held)
		}}
		model := modelOf(addresses()...)
		m := simulated(t, g, Config{Model: model, Settings: settings})
		right, wrong := 0, 0
		for begin := time.Now(); time.Since(begin) < 24*time.Hour; {
			for _, a := range addresses() {
				got, _ := m.Visit(t.Context(), ask(channelAt(a)))
				r, w := count(model, got.Rows)
				right, wrong = right+r, wrong+w
			}
			idle(time.Minute)
		}
		if wrong > 0 || right < len(g.asked())/4 {
			t.Errorf("%d right and %d wrong values in %d requests", right, wrong, len(g.asked()))
		}
		t.Logf("%d right and %d wrong values in %d requests", right, wrong, len(g.asked()))
	})
}

func idle(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}
