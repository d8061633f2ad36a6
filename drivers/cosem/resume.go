package cosem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/dlms"
	"gridgate/internal/meter"
)

// errBroken says that the association was lost within a visit by a meter that
// is there: it goes on where it was on a new one, once.
var errBroken = errors.New("the association was lost")

// errOther says that it was another meter that answered on the new one.
var errOther = errors.New("another meter answers than before")

// progress is what was done of what a visit is asked, over its associations.
type progress struct {
	began    bool // reading; what clears before is not done twice
	again    bool // it is on the second association
	known    bool // who it was on the first
	read     map[reached]bool
	profiles map[meter.Profile]bool
	since    map[meter.Profile]int64 // of those that were begun
	clock    bool
	set      bool // the clock was, or may have been
	acts     acting
}

// reached is a channel that was read or failed.
type reached struct {
	lane    meter.Lane
	channel meter.Channel
}

func newProgress() *progress {
	return &progress{read: map[reached]bool{}, profiles: map[meter.Profile]bool{}, since: map[meter.Profile]int64{}}
}

// left gives what is left to do.
func (p *progress) left(ask meter.Ask) meter.Ask {
	if !p.again {
		return ask
	}
	left := meter.Ask{Clock: ask.Clock && !p.clock, ClockToo: ask.ClockToo && !p.clock}
	if !p.set {
		left.SetClock = ask.SetClock
	}
	for _, g := range ask.Groups {
		g.Channels = slices.DeleteFunc(slices.Clone(g.Channels), func(c meter.Channel) bool { return p.read[reached{g.Lane, c}] })
		left.Groups = append(left.Groups, g)
	}
	for _, one := range ask.Profiles {
		if p.profiles[one] {
			continue
		}
		if at, ok := p.since[one]; ok {
			one.Since = at
		}
		left.Profiles = append(left.Profiles, one)
	}
	return left
}

// lost says whether err, in the middle of a visit, means that the association
// is gone, nil where it is about what was asked. That a service is not allowed
// may be either: then something is asked that was answered before.
func (v *visit) lost(ctx context.Context, err error) error {
	if v.done == nil || !v.done.began || v.done.again || ctx.Err() != nil {
		return nil //nolint:nilerr // what was asked is the caller's
	}
	switch {
	case isForgottenHDLC(err), isHangUp(err):
	case isNotAllowed(err) && !v.probed && v.good != (dlms.Attribute{}):
		v.probed = true
		_, probe := v.client.Get(ctx, v.good)
		switch {
		case probe == nil:
			return nil
		case isNotAllowed(probe), isForgottenHDLC(probe), isHangUp(probe):
		case isRefusal(probe):
			return nil
		default:
			return probe
		}
	default:
		return nil
	}
	v.done.again, v.done.known = true, v.known
	return fmt.Errorf("%w: %w", errBroken, err)
}

// isNotAllowed says whether a meter does not allow what it was asked: it may
// have forgotten the association.
func isNotAllowed(err error) bool {
	var exception *dlms.ExceptionError
	return errors.As(err, &exception) && exception.State == dlms.ServiceNotAllowed && !isCipherException(exception)
}

// renewEvery is how often a meter that allows nothing is associated with anew.
const renewEvery = time.Hour

// withholds says whether a meter that does not allow the first question on an
// association that was kept remembers it all the same. It may where it did not
// allow one on a new association either; then something is asked that was
// answered before.
func (v *visit) withholds(ctx context.Context, err error) bool {
	if !isNotAllowed(err) || v.withheld == (meter.Stamp{}) || ctx.Err() != nil {
		return false
	}
	if v.good == (dlms.Attribute{}) {
		now := v.cfg.Now()
		return now.Boot == v.withheld.Boot && now.Mono-v.withheld.Mono < renewEvery.Milliseconds()
	}
	v.probed = true
	_, probe := v.client.Get(ctx, v.good)
	return probe == nil || isRefusal(probe) && !isNotAllowed(probe)
}

// isGone says whether err is about the association.
func isGone(err error) bool { return errors.Is(err, errStale) || errors.Is(err, errBroken) }
