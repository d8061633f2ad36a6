package agent

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"gridgate/agent/intake"
	"gridgate/agent/web"
	"gridgate/internal/meter"
)

// live is the newest reading of each channel, and the events that came last. It
// is there only where a page is.
type live struct {
	mu     sync.Mutex
	meters map[meter.ID][]liveRow
	events []web.Alarm // the newest last
	number uint64      // of the last event
}

// liveRow is a reading.
type liveRow struct {
	channel   meter.Channel
	serial    string
	stamp     meter.Stamp
	value     meter.Value
	period    uint32
	quality   meter.Quality
	unit      meter.Unit
	lane      meter.Lane
	unchecked bool // not yet judged and stored
}

// Bounds of what is kept in memory.
const (
	liveMeters   = 1000
	liveChannels = 64  // of one meter
	liveText     = 256 // octets of a value
	liveEvents   = 100
)

func newLive() *live { return &live{meters: map[meter.ID][]liveRow{}} }

// eventPrefix begins the channels that the gateway makes up for events.
const eventPrefix = "event."

// take notes rows. Those that were just read are unchecked; they come again when
// they are judged and stored.
func (l *live) take(rows []meter.Row, unchecked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range rows {
		r := &rows[i]
		if r.Lane == meter.Alarm && !unchecked {
			l.event(r)
		}
		if strings.HasPrefix(string(r.Channel), eventPrefix) || len(r.Value.Data) > liveText {
			continue
		}
		l.row(r, unchecked)
	}
}

// row keeps a row that is the newest of its channel. mu is held.
func (l *live) row(r *meter.Row, unchecked bool) {
	known, ok := l.meters[r.Meter]
	if !ok && len(l.meters) >= liveMeters {
		return
	}
	at := slices.IndexFunc(known, func(o liveRow) bool { return o.channel == r.Channel })
	switch {
	case at < 0 && len(known) >= liveChannels:
		return
	case at < 0:
		at = 0
		for at < len(known) && known[at].channel < r.Channel {
			at++
		}
		known = append(known, liveRow{})
		copy(known[at+1:], known[at:])
		l.meters[r.Meter] = known
	case isOlder(r.Stamp, known[at].stamp):
		return
	}
	known[at] = liveRow{r.Channel, r.Serial, r.Stamp, r.Value, r.Period, r.Quality, r.Unit, r.Lane, unchecked}
}

// isOlder says whether a was taken before b: by what the gateway has counted
// where both were read at a moment, since clocks are set.
func isOlder(a, b meter.Stamp) bool {
	if a.Source == meter.FromGateway && b.Source == meter.FromGateway && a.Boot == b.Boot {
		return a.Mono < b.Mono
	}
	return a.Time < b.Time
}

// event keeps an event. mu is held.
func (l *live) event(r *meter.Row) {
	l.number++
	v := r.Value
	if len(v.Data) > liveText {
		v.Data = strings.ToValidUTF8(v.Data[:liveText], "") + "…"
		if !utf8.ValidString(r.Value.Data) {
			v.Data = r.Value.Data[:liveText]
		}
	}
	e := web.Alarm{
		ID: strconv.FormatUint(l.number, 10), Time: web.Time(r.Stamp.UTC()), Meter: string(r.Meter), Channel: r.Channel.Short(),
		Value: v.AppendJSON(nil), Quality: quality(r.Quality),
	}
	if len(l.events) == liveEvents {
		l.events = slices.Delete(l.events, 0, 1)
	}
	l.events = append(l.events, e)
}

// quality gives nothing for good.
func quality(q meter.Quality) string {
	if q == 0 {
		return ""
	}
	return q.String()
}

// keep forgets the meters that has does not have.
func (l *live) keep(has func(meter.ID) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.meters {
		if !has(id) {
			delete(l.meters, id)
		}
	}
}

// newest gives the events, the newest first.
func (l *live) newest() []web.Alarm {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := append([]web.Alarm{}, l.events...)
	slices.Reverse(all)
	return all
}

// values gives the newest readings of a meter with that serial number, "" for
// any, in the order of their channels.
func (l *live) values(id meter.ID, serial string) []web.Value {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []web.Value
	for i := range l.meters[id] {
		r := &l.meters[id][i]
		if serial != "" && r.serial != "" && r.serial != serial {
			continue
		}
		all = append(all, web.Value{
			Channel: string(r.channel), Short: r.channel.Short(), Time: web.Time(r.stamp.UTC()), Value: r.value.AppendJSON(nil),
			Unit: r.unit.String(), Quality: r.quality.String(), Unchecked: r.unchecked, Lane: r.lane.String(), Period: r.period,
		})
	}
	return all
}

// sink is the intake as those see it who read meters: what is submitted is shown
// at once.
type sink struct {
	*intake.Intake
	a *Agent
}

// Submit is Intake.Submit.
func (s sink) Submit(rows []meter.Row, cursors []meter.Cursor, stored func()) {
	if l := s.a.live.Load(); l != nil {
		l.take(rows, true)
	}
	s.Intake.Submit(rows, cursors, stored)
}
