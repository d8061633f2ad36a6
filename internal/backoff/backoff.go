// Package backoff gives the pauses between attempts at something that fails:
// growing, bounded, and jittered, so that a thousand gateways that lost one
// broker do not come back in step.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is a growing pause. Set Min and Max; the zero value otherwise stands
// before the first attempt. It is not safe for concurrent use.
type Backoff struct {
	Min, Max time.Duration
	// Random gives numbers in [0, 1); nil is the process's own source.
	Random func() float64

	step time.Duration // the last upper bound, 0 before the first
}

// Next gives the next pause: between half of the current step and the whole of
// it, where the step starts at Min and doubles up to Max.
func (b *Backoff) Next() time.Duration {
	switch {
	case b.step == 0:
		b.step = b.Min
	case b.step > b.Max/2:
		b.step = b.Max
	default:
		b.step *= 2
	}
	random := b.Random
	if random == nil {
		random = rand.Float64
	}
	half := b.step / 2
	return half + time.Duration(random()*float64(b.step-half))
}

// Reset makes the next pause the shortest again.
func (b *Backoff) Reset() { b.step = 0 }

// Wait pauses for Next. It returns early with ctx's error.
func (b *Backoff) Wait(ctx context.Context) error {
	pause := time.NewTimer(b.Next())
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
