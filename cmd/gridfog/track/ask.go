package track

import (
	"fmt"
	"time"

	"gridgate/agent/batch"
)

const (
	// askAfter is how long a gap may stand before its numbers are asked for.
	askAfter = 5 * time.Second
	// askAgain is when they are asked for once more.
	askAgain = 2 * time.Minute
	// maxAsk is how many numbers are asked for at a time.
	maxAsk = 10_000
)

// Ask is numbers that a gateway should send again.
type Ask struct {
	Stream
	First, Last uint64
}

// lacks notes a delta that cannot be followed. Its error comes with the first of
// several. One of rows that are here, which came twice, is no loss.
func (r *Receiver) lacks(h batch.Header, span batch.Span, err error) error {
	name := Stream{h.Site, h.Gateway, h.Epoch, h.Lane}
	var asks set
	for _, run := range span.Runs {
		for _, gap := range r.Tracker.stream(name).rows.gaps(run.First, run.First+run.Count-1) {
			asks.add(gap.first, gap.last)
		}
	}
	if len(asks) == 0 {
		for _, run := range span.Runs {
			r.Tracker.totals.Duplicates += run.Count
		}
		return nil
	}
	r.Tracker.Undecoded()
	all := r.asks[name]
	for _, a := range asks {
		all.add(a.first, a.last)
	}
	r.asks[name] = all
	if r.lost[name] {
		return nil // it goes on, and was told
	}
	r.lost[name] = true
	return fmt.Errorf("lane %s, from number %d on: %w", h.Lane, asks[0].first, err)
}

// Asks gives what gateways should send again: what came as a delta against rows
// that are not known here, at once, and the first gap of a stream once it has
// stood for a while. Numbers below the first that came are no gap, unless some were
// confirmed before or the tracker was there from the start.
func (r *Receiver) Asks(now time.Time) (asks []Ask) {
	for name, wanted := range r.asks {
		delete(r.asks, name)
		s := r.Tracker.stream(name)
		for _, w := range wanted {
			for _, gap := range s.rows.gaps(w.first, w.last) {
				asks = append(asks, Ask{name, gap.first, gap.last})
			}
		}
		s.gapSince = now // they are on their way
	}
	for name, s := range r.Tracker.streams {
		first := s.settled + 1
		switch {
		case s.last < first, s.settled == 0 && !r.Tracker.fromStart && s.first > 1:
			s.gap = 0
			continue
		case s.gap != first:
			s.gap, s.gapSince, s.gapAsked = first, now, false
			continue
		case now.Sub(s.gapSince) < askAfter, s.gapAsked && now.Sub(s.gapSince) < askAgain:
			continue
		}
		s.gapSince, s.gapAsked = now, true
		asks = append(asks, Ask{name, first, min(s.rows.next(first)-1, s.holes.next(first)-1, first+maxAsk-1, s.last)})
	}
	return asks
}

// next gives the first number of s from n on; the highest there is when none is.
func (s set) next(n uint64) uint64 {
	if i := s.at(n); i < len(s) {
		return max(s[i].first, n)
	}
	return ^uint64(0)
}
