package uplink

import (
	"testing"
	"time"
)

// run sends messages of size over a link of rate bytes a second and a round
// trip, as much as the window lets, and gives pace after the last PUBACK and
// the longest queue before the link, as a time.
func run(p *pace, rate float64, trip time.Duration, size, messages int) (queue time.Duration) {
	now := time.Unix(1000, 0)
	free := now // when the link is free
	type ack struct {
		at   time.Time
		mark mark
	}
	var acks []ack
	for sent := 0; sent < messages || len(acks) > 0; {
		if sent < messages && (p.flight < p.window() || p.flight == 0) {
			if free.Before(now) {
				free = now
			}
			queue = max(queue, free.Sub(now))
			free = free.Add(time.Duration(float64(size) / rate * float64(time.Second)))
			acks = append(acks, ack{free.Add(trip), p.sent(now, size)})
			sent++
			continue
		}
		now = acks[0].at
		p.acked(now, acks[0].mark)
		acks = acks[1:]
	}
	return queue
}

func TestPaceFindsTheLink(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rate float64 // bytes a second
		trip time.Duration
	}{
		"GPRS":      {2_500, 600 * time.Millisecond},
		"EDGE":      {15_000, 400 * time.Millisecond},
		"LTE":       {100_000, 60 * time.Millisecond},
		"satellite": {60_000, 700 * time.Millisecond},
	} {
		var p pace
		queue := run(&p, c.rate, c.trip, minMessage, 2000)
		if got := p.rate(); got < 0.9*c.rate || got > 1.1*c.rate {
			t.Errorf("%s: %.0f bytes a second, it has %.0f", name, got, c.rate)
		}
		// DESIGN.md: bandwidth-delay product and one second.
		if limit := c.rate * (c.trip.Seconds() + 1); float64(p.window()) > limit || float64(p.window()) < c.rate*c.trip.Seconds() {
			t.Errorf("%s: a window of %d, the limit is %.0f", name, p.window(), limit)
		}
		if queue > time.Second {
			t.Errorf("%s: %v of data stood before the link", name, queue)
		}
		if p.flight != 0 {
			t.Errorf("%s: %d bytes under way at the end", name, p.flight)
		}
	}
}

func TestPaceFollowsALinkThatGetsSlower(t *testing.T) {
	t.Parallel()
	var p pace
	run(&p, 100_000, 100*time.Millisecond, minMessage, 1000)
	if p.message(16<<10) != 16<<10 {
		t.Errorf("messages of %d bytes on a fast link", p.message(16<<10))
	}
	run(&p, 2_500, 600*time.Millisecond, minMessage, 100)
	if p.message(16<<10) != minMessage || p.rate() > 3000 {
		t.Errorf("on a slow one %d bytes, at %.0f bytes a second", p.message(16<<10), p.rate())
	}
}

// Sparse traffic says little about a link, and must not make it look slow.
func TestPaceKeepsItsEstimateWhenThereIsLittleToSend(t *testing.T) {
	t.Parallel()
	var p pace
	run(&p, 100_000, 100*time.Millisecond, minMessage, 1000)
	before := p.rate()
	for range 100 {
		run(&p, 100_000, 100*time.Millisecond, 200, 1)
	}
	if p.rate() != before {
		t.Errorf("%.0f bytes a second, before %.0f", p.rate(), before)
	}
}

func TestPatienceIsBounded(t *testing.T) {
	t.Parallel()
	var p pace
	if p.patience() != 20*time.Second {
		t.Errorf("at first %v", p.patience())
	}
	p.smoothed = 10 * time.Second
	if p.patience() != 40*time.Second {
		t.Errorf("at 10 s a PUBACK %v", p.patience())
	}
	p.smoothed = time.Hour
	if p.patience() != 120*time.Second {
		t.Errorf("at most %v", p.patience())
	}
	p.smoothed = 0
	p.sent(time.Unix(1000, 0), 16<<10)
	if got := p.patience(); got < 60*time.Second || got > 70*time.Second {
		t.Errorf("with 16 KiB over an unknown link %v", got)
	}
}
