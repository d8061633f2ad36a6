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
// Mono is foretold to be 0 at the first stamp; then to advance with the time for
// stamps of the gateway's clock, and to stand still for the meter's: all rows of
// a profile come at once.
type guess struct {
	count              int  // stamps so far
	same               bool // this stamp is of the same meter as the one before
	meter              uint32
	start, step        int64
	lastTime, lastMono int64
}

// time foretells the time of a stamp of meter m.
func (g *guess) time(m uint32) int64 {
	g.same = g.count > 0 && m == g.meter
	g.meter = m
	if g.same {
		return g.lastTime + g.step
	}
	return g.start
}

// mono foretells mono where the time is known.
func (g *guess) mono(time int64, source meter.Source) int64 {
	if g.count > 0 && source == meter.FromGateway {
		return g.lastMono + time - g.lastTime
	}
	return g.lastMono
}

// was says what the stamp turned out to be.
func (g *guess) was(time, mono int64) {
	if g.same {
		g.step = time - g.lastTime
	} else {
		g.start = time
	}
	g.count++
	g.lastTime, g.lastMono = time, mono
}

// followers foretell the channel of a row: the one that came last after the
// channel of the row before.
type followers struct{ of []uint32 } // the follower and 1; 0 for none

func (f *followers) reset() { f.of = f.of[:0] }

func (f *followers) next(channel uint32) (uint32, bool) {
	if int(channel) >= len(f.of) || f.of[channel] == 0 {
		return 0, false
	}
	return f.of[channel] - 1, true
}

// was says that next came after channel.
func (f *followers) was(channel, next uint32) {
	for int(channel) >= len(f.of) {
		f.of = append(f.of, 0)
	}
	f.of[channel] = next + 1
}
