package poll

import (
	"context"
	"errors"
	"time"
)

// discoverEvery is the period of looking for what a meter has to be read, as
// far as that is late; what fails is tried again by the meter's pauses.
const discoverEvery = time.Hour

// discovery is the one job of a meter that says itself what is to be read of it.
func discovery() []job {
	return []job{{class: instant, Group: Group{Name: "objects", Every: discoverEvery}}}
}

// discover asks a meter what it has to be read, and makes its jobs of that.
func (p *Poller) discover(ctx context.Context, m *meterState) {
	limited, cancel := context.WithTimeoutCause(ctx, p.cfg.VisitLimit, errLong)
	defer cancel()
	groups, err := m.Discover(limited)
	switch {
	case ctx.Err() != nil: // a stop is no failure of the meter
		return
	case err != nil:
		if limited.Err() != nil {
			err = errors.Join(errLong, err)
		}
		p.failed(m, err)
		return
	}
	p.accepted(m)
	m.pause, m.notBefore, m.failed = 0, time.Time{}, time.Time{}
	m.Discover, m.Groups = nil, groups
	m.jobs = jobsOf(m.Meter)
	p.begin(m, p.now())
	if len(groups) == 0 {
		p.become(m, Partial, "its list of objects has nothing that is read unasked: name groups in the configuration")
		return
	}
	p.cfg.Log.Info("meter says what it has", "line", p.cfg.Line, "meter", string(m.ID), "groups", len(groups))
}
