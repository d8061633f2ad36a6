package poll

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

const alarmRegister meter.Channel = "0-0:97.98.0*255/1:2"

// alarming is a meter with an alarm register.
type alarming struct {
	mu     sync.Mutex
	bits   uint64
	clears []meter.Clear
	refuse bool
}

func (a *alarming) Visit(_ context.Context, ask meter.Ask) (got meter.Got, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	got.Identity = meter.Identity{Found: "1"}
	for _, c := range ask.Clears {
		a.clears = append(a.clears, c)
		if a.refuse {
			got.Failures = append(got.Failures, meter.Failure{Channel: c.Channel})
			continue
		}
		a.bits &^= c.Bits
	}
	for _, g := range ask.Groups {
		got.Rows = append(got.Rows, meter.Row{Meter: "m", Serial: "1", Channel: g.Channels[0], Lane: g.Lane, Value: meter.UintValue(a.bits, 0)})
	}
	return got, nil
}

func (a *alarming) Close() error { return nil }

// slowSink stores when told to.
type slowSink struct {
	sinkhole
	stored []func()
}

func (s *slowSink) Submit(rows []meter.Row, cursors []meter.Cursor, stored func()) {
	s.sinkhole.Submit(rows, cursors, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	if stored != nil {
		s.stored = append(s.stored, stored)
	}
}

func TestAlarmBitsAreClearedOnceTheyAreStored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, sink := &alarming{}, &slowSink{}
		g := group(meter.Alarm, time.Minute)
		g.Channels, g.Clear = []meter.Channel{alarmRegister}, true
		p := pollerOf(Config{Sink: sink, Meters: []Meter{{ID: "m", Visitor: a, Groups: []Group{g}}}})
		set := func(change func()) {
			a.mu.Lock()
			defer a.mu.Unlock()
			change()
		}
		values := func() (v []uint64) {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			for _, r := range sink.rows {
				v = append(v, r.Value.Bits)
			}
			return v
		}
		runFor(t, p, time.Second, func() {
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if len(values()) != 0 {
				t.Errorf("a register without a bit was stored: %v", values())
			}
			set(func() { a.bits = 0b101 })
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if v := values(); !slices.Equal(v, []uint64{0b101}) || len(a.clears) != 0 {
				t.Errorf("stored %b; cleared before it was durable: %v", v, a.clears)
			}
			set(func() { a.bits |= 0b10 }) // between the read and the clearing
			sink.stored[0]()
			synctest.Wait()
			if len(a.clears) != 1 || a.clears[0] != (meter.Clear{Channel: alarmRegister, Bits: 0b101}) {
				t.Fatalf("cleared %v", a.clears)
			}
			if v := values(); !slices.Equal(v, []uint64{0b101, 0b10}) {
				t.Errorf("stored %b", v)
			}
			set(func() { a.refuse = true })
			sink.stored[1]()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if v := values(); len(v) != 2 {
				t.Errorf("a meter that does not let its register be cleared: %b", v)
			}
		})
	})
}
