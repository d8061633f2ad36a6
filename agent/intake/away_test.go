package intake

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// TestCommitsAreFewWhileTheFogIsAway counts the commits of a day of quarter
// hours whose rows come evenly, with the fog and without.
func TestCommitsAreFewWhileTheFogIsAway(t *testing.T) {
	t.Parallel()
	count := func(t *testing.T, away bool) (commits int, latest time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			m := &memory{}
			in := New(Config{
				Store: m, Validator: counting{}, Log: slog.New(slog.DiscardHandler),
				Window: 4 * time.Minute, Offline: 15 * time.Minute, MaxWaiting: 1 << 20,
				Away: func() time.Duration {
					if away {
						return time.Since(start)
					}
					return 0
				},
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- in.Run(ctx) }()
			const every = 10 * time.Second
			for n := range uint64(24 * time.Hour / every) {
				in.Submit([]meter.Row{row(meter.Instant, n)}, nil, nil)
				time.Sleep(every)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got := len(m.rows()); got != int(24*time.Hour/every) {
				t.Errorf("%d rows", got)
			}
			commits = len(m.at)
			for i := 1; i < len(m.at); i++ {
				latest = max(latest, m.at[i].Sub(m.at[i-1]))
			}
		})
		return commits, latest
	}
	if n, latest := count(t, false); n < 340 || n > 361 || latest > 4*time.Minute+10*time.Second {
		t.Errorf("with the fog %d commits, %s apart at most", n, latest)
	}
	if n, latest := count(t, true); n < 90 || n > 102 || latest > 15*time.Minute+10*time.Second {
		t.Errorf("without the fog %d commits, %s apart at most", n, latest)
	}
}

// TestTheFogIsBack pins that rows that waited for a long window are committed
// with the next that comes.
func TestTheFogIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Int64
		away.Store(int64(time.Hour))
		m := &memory{}
		in := New(Config{
			Store: m, Validator: counting{}, Log: slog.New(slog.DiscardHandler), MaxWaiting: 1 << 20,
			Window: time.Minute, Offline: time.Hour, Away: func() time.Duration { return time.Duration(away.Load()) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- in.Run(ctx) }()
		in.Submit([]meter.Row{row(meter.Instant, 1)}, nil, nil)
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if n := len(m.rows()); n != 0 {
			t.Errorf("%d rows committed while the fog is away", n)
		}
		away.Store(0)
		in.Submit([]meter.Row{row(meter.Instant, 2)}, nil, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(m.rows()); n != 2 {
			t.Errorf("%d rows committed when it is back", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestHalfOfTheRoomIsCommitted pins that a long window costs no row: what fills
// half of the room is committed at once.
func TestHalfOfTheRoomIsCommitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		in := New(Config{
			Store: m, Validator: counting{}, Log: slog.New(slog.DiscardHandler), MaxWaiting: 100 * rowBytes, Window: time.Hour,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- in.Run(ctx) }()
		for n := range uint64(1000) {
			in.Submit([]meter.Row{row(meter.Instant, n)}, nil, nil)
			time.Sleep(time.Second)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if s := in.Stats(); s.Dropped != 0 || s.Stored != 1000 || s.Commits < 19 || s.Commits > 21 {
			t.Errorf("%+v", s)
		}
	})
}

// TestRowsOfAMeterStandTogether pins the order of a commit: what the store keeps
// together has few meters, and few stamps.
func TestRowsOfAMeterStandTogether(t *testing.T) {
	t.Parallel()
	var rounds []round
	for n := range uint64(2) { // visits
		for m := range 1000 {
			var rows []meter.Row
			for c := range 8 {
				rows = append(rows, meter.Row{
					Meter: meter.ID(fmt.Sprintf("m%03d", 999-m)), Channel: meter.Channel(fmt.Sprint(c)), Lane: meter.Instant,
					Stamp: meter.Stamp{Time: int64(n)*1000 + int64(m)}, Value: meter.UintValue(n, 0),
				})
			}
			rounds = append(rounds, round{rows: rows})
		}
	}
	rounds = append(rounds, round{rows: []meter.Row{{Meter: "z", Lane: meter.Alarm}}}, round{rows: []meter.Row{{Meter: "a", Lane: meter.Alarm}}})
	a := gather(rounds, nil)
	if len(a.Rows) != 16002 || a.Rows[0].Meter != "z" || a.Rows[1].Meter != "a" {
		t.Fatalf("%d rows, alarms of %s and %s first", len(a.Rows), a.Rows[0].Meter, a.Rows[1].Meter)
	}
	for i, r := range a.Rows[2:] {
		m, visit, channel := i/16, uint64(i/8%2), fmt.Sprint(i%8)
		if want := meter.ID(fmt.Sprintf("m%03d", 999-m)); r.Meter != want || r.Value.Bits != visit || string(r.Channel) != channel {
			t.Fatalf("row %d: visit %d of %s, channel %s; want visit %d of %s, channel %s", i, r.Value.Bits, r.Meter, r.Channel, visit, want, channel)
		}
	}
}
