//go:build realclock

package timesync_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"gridgate/agent/timesync"
	"gridgate/agent/timesync/timetest"
	"gridgate/internal/sys"
)

// ahead is how far the wall clock is ahead of the monotonic one: it changes by
// steps only.
func ahead() time.Duration {
	at := sys.Clock{}.Now()
	return time.Duration(at.Wall.UnixNano()) - at.Mono
}

// restore puts the clock back to where it was, and all else as it was.
func restore(t *testing.T) (before time.Duration) {
	t.Helper()
	clock := sys.Clock{}
	was, err := clock.Discipline()
	if err != nil {
		t.Fatal(err)
	}
	before = ahead()
	t.Cleanup(func() {
		if by := before - ahead(); by.Abs() > 100*time.Microsecond {
			if err := clock.Step(by); err != nil {
				t.Errorf("THE CLOCK OF THIS MACHINE IS OFF BY %v: %v", -by, err)
			}
		}
		if err := clock.SetFrequency(was.Frequency); err != nil {
			t.Error(err)
		}
		if err := clock.Vouch(was.Synchronised, was.MaxError, was.Leap); err != nil {
			t.Error(err)
		}
		t.Logf("restored to within %v", (ahead() - before).Abs())
	})
	return before
}

// TestRealClock sets the clock of this machine, by 2 s for a moment, and puts
// it back.
func TestRealClock(t *testing.T) {
	before := restore(t)
	clock := sys.Clock{}
	for _, by := range []time.Duration{2 * time.Second, -2 * time.Second, -1500 * time.Millisecond, 1500 * time.Millisecond} {
		from := ahead()
		if err := clock.Step(by); err != nil {
			t.Fatalf("%v: this takes root, or CAP_SYS_TIME", err)
		}
		if moved := ahead() - from; (moved - by).Abs() > 50*time.Millisecond {
			t.Errorf("a step by %v moved the clock by %v", by, moved)
		}
	}
	if err := clock.Slew(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	d, err := clock.Discipline()
	if err != nil || d.Slewing <= 0 || d.Slewing > time.Millisecond {
		t.Errorf("a slew of 1 ms: %+v, %v", d, err)
	}
	if err := clock.Slew(0); err != nil {
		t.Fatal(err)
	}
	if err := clock.SetFrequency(12.5e-6); err != nil {
		t.Fatal(err)
	}
	if err := clock.Vouch(true, 40*time.Millisecond, 0); err != nil {
		t.Fatal(err)
	}
	d, err = clock.Discipline()
	if err != nil || !d.Synchronised || d.Frequency < 12.4e-6 || d.Frequency > 12.6e-6 || d.MaxError < 40*time.Millisecond || d.MaxError > 50*time.Millisecond {
		t.Errorf("after setting all: %+v, %v", d, err)
	}
	if err := clock.Vouch(false, time.Second, 0); err != nil {
		t.Fatal(err)
	}
	if d, err = clock.Discipline(); err != nil || d.Synchronised {
		t.Errorf("after taking it back: %+v, %v", d, err)
	}
	t.Logf("%v off before it is restored", (ahead() - before).Abs())
}

// TestRealDiscipline has a server that is 2 s ahead set the clock of this
// machine, and puts it back.
func TestRealDiscipline(t *testing.T) {
	server := timetest.StartChrony(t, "+2s", timetest.Synchronised)
	before := restore(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stepped := make(chan timesync.Step, 8)
	c := timesync.New(timesync.Config{
		Servers: []timesync.Server{{Address: server.Address}}, Discipline: timesync.Agent, SamplePause: 20 * time.Millisecond,
		System: sys.Clock{}, Boot: func() uint32 { return 1 }, Log: slog.New(slog.DiscardHandler),
		Stepped: func(s timesync.Step) { stepped <- s },
	})
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	select {
	case s := <-stepped:
		cancel()
		moved := ahead() - before
		if !s.Ours || (s.By-2*time.Second).Abs() > 200*time.Millisecond || (moved-s.By).Abs() > 50*time.Millisecond {
			t.Errorf("%+v, and the clock moved by %v", s, moved)
		}
	case <-time.After(time.Minute):
		t.Errorf("the clock was not set: %+v", c.Status())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRealHardwareClock sets the hardware clock, where there is one, to what it
// shows plus a minute, and puts it back.
func TestRealHardwareClock(t *testing.T) {
	const device = sys.RTC("/dev/rtc0")
	if _, err := os.Stat(string(device)); err != nil {
		t.Logf("this machine has no hardware clock: %v", err)
		return
	}
	was, err := device.Read()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	t.Cleanup(func() {
		if err := device.Set(was.Add(time.Since(begin))); err != nil {
			t.Errorf("THE HARDWARE CLOCK OF THIS MACHINE IS WRONG: %v", err)
		}
	})
	if err := device.Set(was.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, err := device.Read(); err != nil || (got.Sub(was)-time.Minute).Abs() > 2*time.Second {
		t.Errorf("set to %v, it shows %v, %v", was.Add(time.Minute), got, err)
	}
}
