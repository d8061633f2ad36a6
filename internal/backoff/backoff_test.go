package backoff_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/backoff"
)

func TestPausesDoubleUpToTheMost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		random float64
		want   []time.Duration
	}{
		"shortest": {0, []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 2500 * time.Millisecond, 2500 * time.Millisecond}},
		"longest":  {1, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}},
	} {
		b := backoff.Backoff{Min: time.Second, Max: 5 * time.Second, Random: func() float64 { return c.random }}
		for range 2 {
			var got []time.Duration
			for range c.want {
				got = append(got, b.Next())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
			b.Reset()
		}
	}
}

func TestPausesDifferBetweenGateways(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 100 {
		b := backoff.Backoff{Min: time.Minute, Max: time.Hour}
		seen[b.Next()] = true
	}
	if len(seen) < 90 {
		t.Errorf("100 gateways share %d pauses", len(seen))
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := backoff.Backoff{Min: time.Hour, Max: time.Hour, Random: func() float64 { return 0 }}
		start := time.Now()
		if err := b.Wait(t.Context()); err != nil || time.Since(start) != 30*time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
