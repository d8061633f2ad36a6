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

// TestAlarmsThatAreNoNumbersAreToldOnce: registers that are bit strings, and
// states, are alarms when they change.
func TestAlarmsThatAreNoNumbersAreToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		octets := func(b ...byte) meter.Value { return meter.OctetsValue(b) }
		says := []meter.Value{octets(0, 0), octets(0, 0), octets(0, 1), octets(0, 1), octets(2, 1), octets(0, 0), meter.BoolValue(true), meter.BoolValue(true), meter.BoolValue(false)}
		n := 0
		v := visitorFunc(func(context.Context, meter.Ask) (got meter.Got, err error) {
			got.Identity.Found = "1"
			got.Rows = []meter.Row{{Meter: "m", Serial: "1", Channel: alarmRegister, Lane: meter.Alarm, Value: says[min(n, len(says)-1)]}}
			n++
			return got, nil
		})
		sink := &sinkhole{}
		p := pollerOf(Config{Sink: sink, Meters: []Meter{{ID: "m", Visitor: v, Groups: []Group{group(meter.Alarm, time.Minute)}}}})
		runFor(t, p, time.Hour, nil)
		var told []string
		for _, r := range sink.rows {
			told = append(told, r.Value.String())
		}
		if want := []string{"0001", "0201", "0000", "true", "false"}; !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

// TestAClearingThatFailsIsTriedAgain: else the register would hide all alarms
// of the same kind from then on. What was told is not told again for that.
func TestAClearingThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, sink := &alarming{bits: 1, refuse: true}, &sinkhole{}
			v := visitorFunc(func(ctx context.Context, ask meter.Ask) (meter.Got, error) {
				a.mu.Lock()
				refuse := a.refuse
				a.mu.Unlock()
				if silent && refuse && len(ask.Clears) > 0 {
					return meter.Got{}, meter.ErrNoAnswer
				}
				return a.Visit(ctx, ask)
			})
			g := group(meter.Alarm, time.Minute)
			g.Channels, g.Clear = []meter.Channel{alarmRegister}, true
			p := pollerOf(Config{Sink: sink, Meters: []Meter{{ID: "m", Serial: "1", Visitor: v, Groups: []Group{g}}}})
			runFor(t, p, time.Second, func() {
				time.Sleep(time.Minute)
				a.mu.Lock()
				tries := len(a.clears)
				a.refuse = false
				a.mu.Unlock()
				if tries > 3 {
					t.Errorf("%d tries in a minute", tries)
				}
				time.Sleep(2 * time.Hour)
			})
			if a.bits != 0 || len(sink.rows) != 1 {
				t.Errorf("silent %v: the register is %b, %d alarms, cleared %v", silent, a.bits, len(sink.rows), a.clears)
			}
		})
	}
}
