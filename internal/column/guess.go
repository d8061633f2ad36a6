package column

import "gridgate/internal/meter"

// guess foretells stamps; times and monos are what the truth differs by.
//
// While the meter is the same as at the stamp before, the time is foretold to
// step on as it did last: the rows of a profile have an even step, and the
// difference is a delta of delta. At another meter it is foretold to be what it
// was at the first stamp of the meter before: it was read just now too, or its
// profile starts at the same hour. The last step is kept, since that profile
// will have the same.
//
// Mono is foretold to advance with the time for stamps of the gateway's clock,
// and to stand still for the meter's: all rows of a profile come at once.
type guess struct {
	begun       bool
	meter       uint32
	start, step int64
	time, mono  int64
	foretold    bool // the time is of the same meter as the one before
}

// next foretells the time of a stamp of meter m, and gives the rule for mono.
func (g *guess) next(m uint32, source meter.Source) (time int64, mono func(time int64) int64) {
	g.foretold = g.begun && m == g.meter
	g.begun, g.meter = true, m
	time = g.start
	if g.foretold {
		time = g.time + g.step
	}
	last, was := g.time, g.mono
	return time, func(time int64) int64 {
		if source == meter.FromGateway {
			return was + (time - last)
		}
		return was
	}
}

// was says what the stamp turned out to be.
func (g *guess) was(time, mono int64) {
	if g.foretold {
		g.step = time - g.time
	} else {
		g.start = time
	}
	g.time, g.mono = time, mono
}
