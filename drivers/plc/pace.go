package plc

import "time"

const (
	// firstWait is how long an answer may take on a line of which nothing is
	// known.
	firstWait = 20 * time.Second
	leastWait = 3 * time.Second
	mostWait  = time.Minute
	// leastSpread is added to the mean at least: a few answers alike say little.
	leastSpread = 2 * time.Second
	// enough is how many answers say how fast a node is.
	enough = 16
)

// pace is how fast answers come, as TCP learns it (RFC 6298, 2): a mean and a
// mean deviation, and a wait that doubles with what is lost, until an answer to
// what was sent once is measured (5.5, and Karn's rule). But a power line loses
// frames as it is: the first that is lost doubles nothing.
type pace struct {
	mean, spread time.Duration
	known        bool
	count        int // answers measured, up to enough
	doubled      int
}

func (p *pace) measure(rtt time.Duration) {
	p.doubled = 0
	p.count = min(p.count+1, enough)
	if !p.known {
		p.mean, p.spread, p.known = rtt, rtt/2, true
		return
	}
	p.spread += ((rtt - p.mean).Abs() - p.spread) / 4
	p.mean += (rtt - p.mean) / 8
}

func (p *pace) lost() {
	if p.doubled < 4 {
		p.doubled++
	}
}

// wait gives how long an answer may take; first is where nothing is known.
func (p *pace) wait(first time.Duration) time.Duration {
	w := first
	if p.known {
		w = p.mean + max(4*p.spread, leastSpread)
	}
	return min(max(w<<max(0, p.doubled-1), leastWait), max(mostWait, first))
}
