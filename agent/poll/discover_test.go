package poll

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// A meter that has no groups is asked what it has, until it tells; then that is
// read.
func TestDiscover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := answer("1", "1")
		var asked []time.Time
		discover := func(context.Context) ([]Group, error) {
			if asked = append(asked, time.Now()); len(asked) < 3 {
				return nil, fmt.Errorf("objects: %w", meter.ErrNoAnswer)
			}
			return []Group{registers(10*time.Minute, false)}, nil
		}
		b := run(t, Meter{ID: "m", Serial: "1", Visitor: v, Discover: discover})
		time.Sleep(time.Second)
		if s := b.poller.Status()[0]; s.State != Failing || s.Visits != 0 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour)
		status := b.poller.Status()[0]
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		if len(asked) != 3 || asked[2].Sub(asked[0]) != 15*time.Second {
			t.Errorf("asked at %v", asked)
		}
		if len(v.at) < 6 || !v.at[0].Equal(asked[2]) || status.State != OK || len(v.asks[0].Groups) != 1 {
			t.Errorf("visited at %v, %+v", v.at, status)
		}
	})
}

func TestDiscoverNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := answer("1", "1")
		b := run(t, Meter{ID: "m", Serial: "1", Visitor: v, Discover: func(context.Context) ([]Group, error) { return nil, nil }})
		time.Sleep(time.Hour)
		if s := b.poller.Status()[0]; s.State != Partial || s.Err == "" || s.Visits != 0 {
			t.Errorf("%+v", s)
		}
		_ = b.stop()
	})
}

// Beside what is new in an alarm register stands what its bits mean, once.
func TestAlarmBitsAreNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, sink := &alarming{bits: 0b1}, &slowSink{}
		g := group(meter.Alarm, time.Minute)
		g.Channels, g.Clear = []meter.Channel{alarmRegister}, true
		p := pollerOf(Config{Sink: sink, Meters: []Meter{{ID: "m", Visitor: a, Groups: []Group{g}, EventOf: func(c meter.Channel, bit uint8) (meter.Channel, bool) {
			return meter.Channel(fmt.Sprint("event.bit-", bit)), c == alarmRegister && bit != 1
		}}}})
		rows := func() (all []string) {
			sink.mu.Lock()
			defer sink.mu.Unlock()
			for _, r := range sink.rows {
				if r.Lane != meter.Alarm || r.Serial != "1" {
					t.Errorf("%+v", r)
				}
				all = append(all, fmt.Sprint(r.Channel.Short(), "=", r.Value))
			}
			return all
		}
		runFor(t, p, time.Second, func() {
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			want := []string{"0-0:97.98.0=1", "event.bit-0=0"}
			if got := rows(); !slices.Equal(got, want) {
				t.Errorf("stored %v, want %v", got, want)
			}
			a.mu.Lock()
			a.bits = 0b10111
			a.mu.Unlock()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			want = append(want, "0-0:97.98.0=23", "event.bit-2=2", "event.bit-4=4")
			if got := rows(); !slices.Equal(got, want) {
				t.Errorf("stored %v, want %v", got, want)
			}
			sink.stored[1]()
			synctest.Wait()
			if len(a.clears) != 1 || a.clears[0] != (meter.Clear{Channel: alarmRegister, Bits: 23}) {
				t.Errorf("cleared %v", a.clears)
			}
			a.mu.Lock()
			a.bits = 1 // again
			a.mu.Unlock()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			want = append(want, "0-0:97.98.0=1", "event.bit-0=0")
			if got := rows(); !slices.Equal(got, want) {
				t.Errorf("stored %v, want %v", got, want)
			}
		})
	})
}
