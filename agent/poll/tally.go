package poll

import (
	"errors"
	"math/bits"
	"net"

	"gridgate/internal/meter"
)

// Result is what came of a visit.
type Result uint8

// The results.
const (
	Answered Result = iota // it brought what was asked
	Partly                 // some channels could not be read
	NoAnswer               // nothing came back
	Garbled                // something came that is no answer
	Refused                // the meter refused our credentials
	NoLine                 // the port or the connection is not there
	Failed                 // anything else
	results
)

// Results lists all results.
func Results() []Result {
	return []Result{Answered, Partly, NoAnswer, Garbled, Refused, NoLine, Failed}
}

func (r Result) String() string {
	switch r {
	case Answered:
		return "ok"
	case Partly:
		return "partial"
	case NoAnswer:
		return "no-answer"
	case Garbled:
		return "garbled"
	case Refused:
		return "refused"
	case NoLine:
		return "no-line"
	case Failed, results:
	}
	return "failed"
}

// resultOf tells errors of visits apart.
func resultOf(err error) Result {
	var op *net.OpError
	switch {
	case errors.Is(err, meter.ErrAuthentication):
		return Refused
	case errors.Is(err, meter.ErrNoLine), errors.As(err, &op) && op.Op == "dial":
		return NoLine
	case errors.Is(err, meter.ErrGarbled):
		return Garbled
	case errors.Is(err, meter.ErrNoAnswer):
		return NoAnswer
	}
	return Failed
}

// History is how the last visits to a meter went. The zero value has none.
type History struct {
	bits  uint64 // of a visit that was answered 1, the last in the lowest bit
	Count int    // of visits in it, at most 64
}

func (h *History) add(answered bool) {
	h.bits <<= 1
	if answered {
		h.bits |= 1
	}
	h.Count = min(h.Count+1, 64)
}

// Answered is how many of them were answered.
func (h History) Answered() int { return bits.OnesCount64(h.bits) }

// count notes what came of a visit to m.
func (p *Poller) count(m *meterState, r Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results[r]++
	answered := r == Answered || r == Partly
	m.status.History.add(answered)
	if answered {
		m.status.Answered++
	}
}

// Counts is how many visits had each result.
type Counts [results]uint64

// Counts gives them for the meters of the line.
func (p *Poller) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.results
}
