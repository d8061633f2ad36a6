package timesync

import (
	"fmt"
	"time"
)

// candidate is what one server says of true − Raw.
type candidate struct {
	server int // its place in Config.Servers
	best   time.Duration
	is     interval // where the true value is, if the server is honest
}

// choice is what servers agree on.
type choice struct {
	ok     bool
	reason string // why not
	is     interval
	best   time.Duration
	chosen []int // places in Config.Servers
}

// choose finds what a majority of so many configured servers agrees on: the
// clock selection of RFC 5905, 11.2.1, with a bound that is safe. Of n
// configured servers at most f = (n−1)/2 are taken to be wrong, so that n−f
// have to agree, and the truth is where at least (answers − f) intervals
// overlap.
//
// witness is where this clock itself takes the truth to be, before the poll. It
// has no vote, but when the majority contradicts it and one of the others
// agrees with it, that other counts twice: two false tickers of three that are
// off together are no majority against the third and the past.
func choose(configured int, candidates []candidate, witness interval) choice {
	wrong := (configured - 1) / 2
	needed := configured - wrong
	if len(candidates) == 0 {
		return choice{reason: fmt.Sprintf("none of %s answers with a valid time", plural(configured, "server"))}
	}
	agree := deepest(candidates)
	if agree < needed {
		return choice{reason: fmt.Sprintf("no majority: %d of %d agree, %d are needed (%d answer with a valid time)",
			agree, configured, needed, len(candidates))}
	}
	is := hull(candidates, max(1, len(candidates)-wrong))
	c := choice{is: is}
	shortest := time.Duration(-1)
	others, vouched := 0, false
	for _, one := range candidates {
		if !one.is.overlaps(is) {
			others++
			vouched = vouched || one.is.overlaps(witness)
			continue
		}
		c.chosen = append(c.chosen, one.server)
		if width := one.is.hi - one.is.lo; shortest < 0 || width < shortest {
			shortest, c.best = width, one.best
		}
	}
	if vouched && !is.overlaps(witness) && agree <= others+1 {
		return choice{reason: fmt.Sprintf("no majority: %d of %d agree, but another agrees with this clock", agree, configured)}
	}
	c.ok, c.best = true, is.clamp(c.best)
	return c
}

// deepest gives how many intervals overlap at most.
func deepest(candidates []candidate) (most int) {
	for _, c := range candidates { // it is so where one begins
		count := 0
		for _, o := range candidates {
			if o.is.lo <= c.is.lo && c.is.lo <= o.is.hi {
				count++
			}
		}
		most = max(most, count)
	}
	return most
}

// hull gives the stretch from the lowest to the highest place in which so many
// intervals overlap.
func hull(candidates []candidate, least int) (is interval) {
	found := false
	depth := func(at time.Duration) (n int) {
		for _, c := range candidates {
			if c.is.lo <= at && at <= c.is.hi {
				n++
			}
		}
		return n
	}
	for _, c := range candidates { // it begins where one begins, and ends where one ends
		if depth(c.is.lo) >= least && (!found || c.is.lo < is.lo) {
			is.lo, found = c.is.lo, true
		}
	}
	is.hi = is.lo
	for _, c := range candidates {
		if depth(c.is.hi) >= least {
			is.hi = max(is.hi, c.is.hi)
		}
	}
	return is
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
