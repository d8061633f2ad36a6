package timesync

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"gridgate/internal/meter"
)

// MeterPolicy says what is done about the clocks of meters. The zero value
// compares and tells.
type MeterPolicy struct {
	// Set has a clock put right, by Method.
	Set    bool
	Method meter.ClockMethod
	// Threshold is what a clock must surely be off by before it is put right; 0
	// is DefaultThreshold.
	Threshold time.Duration
	// Limit is what it may perhaps be off by at most; beyond there is an event
	// only. 0 is DefaultLimit.
	Limit time.Duration
	// Guard is how far before and behind it the ends of capture periods stay
	// away; 0 is DefaultGuard.
	Guard time.Duration
	// Settle is how long after the decision is made that the clock is to be put
	// right it is surely stored; 0 is DefaultSettle.
	Settle time.Duration
}

// Defaults of a MeterPolicy.
const (
	DefaultThreshold = 5 * time.Second
	DefaultLimit     = 10 * time.Minute
	DefaultGuard     = time.Minute
	DefaultSettle    = 5 * time.Minute
)

const (
	// oncePer: a clock is put right at most once in it.
	oncePer = 24 * time.Hour
	// usualCapture is taken for the capture period while none is known: what
	// most of them are a multiple of.
	usualCapture = 5 * time.Minute
	// longestCapture bounds the capture period: meters have profiles that nobody
	// reads. It divides the offsets of all time zones, so that the ends of
	// periods are the same in all of them.
	longestCapture  = 15 * time.Minute
	shortestCapture = time.Minute
	// unsteadyDrift: a clock drifts by no more than this part of the time between
	// two comparisons, 86 s a day.
	unsteadyDrift = 1000
	// slack is what a visit is planned ahead of the last moment for a setting.
	slack = 20 * time.Second
	// lapse is how long a decision holds whose setting was not come to.
	lapse = 6 * time.Hour
	// tellEvery is how often an offset is told that stays as it was, and tellStep
	// what it changes by before it is told at once.
	tellEvery = 24 * time.Hour
	tellStep  = time.Second
)

// Why a clock is left alone.
var (
	ErrGatewayUnsure = errors.New("the gateway's own clock is not sure enough")
	ErrRightEnough   = errors.New("the meter's clock is not surely wrong by more than the threshold")
	ErrTooFarOff     = errors.New("the meter's clock is off by more than the limit")
	ErrNearCapture   = errors.New("near the end of a capture period")
	ErrSetToday      = errors.New("it was set within the last 24 hours")
	ErrUnsteady      = errors.New("it is off by another time than when that was decided")
	ErrNoMoment      = errors.New("it is off by more than fits between the ends of two capture periods")
)

// MeterClock decides about the clock of one meter: from what a visit found it
// makes what is stored beside it, and what the next visit is to do. It is not
// safe for concurrent use.
//
//	Recall ──> Took ──> reserve, rows ──> Next ──> SetClock.May at the meter ──> Took …
//
// That a clock is about to be set is stored, with the rows of the visit that
// found it wrong, before it is: so nothing that happens to the gateway has it
// set twice a day.
type MeterClock struct {
	policy MeterPolicy

	last    *meter.ClockOffset // as last compared
	told    *meter.ClockOffset // as last told in rows
	capture time.Duration      // the ends of capture periods are multiples of it, as far as is known; 0 for not
	off     bool               // it was told that it is too far off
	drifts  bool               // it was told since the last setting that it is off again

	recalled bool         // what was stored of setAt is known
	setAt    int64        // when it was set last, or about to be before a start; in ms since 1970, 0 for never
	reserved *meter.Stamp // when the decision was made; nil for none
	did      *meter.Stamp // when it was set last in this boot
	cannot   bool         // there is no way to set it
	why      error        // why it is not set now
}

// NewMeterClock begins to look after the clock of a meter.
func NewMeterClock(p MeterPolicy) *MeterClock {
	p.Threshold = cmp.Or(p.Threshold, DefaultThreshold)
	p.Limit = max(cmp.Or(p.Limit, DefaultLimit), p.Threshold)
	p.Guard = cmp.Or(p.Guard, DefaultGuard)
	p.Settle = cmp.Or(p.Settle, DefaultSettle)
	return &MeterClock{policy: p}
}

// Recall has when the clock was set last, or about to be, read from where it was
// stored, in milliseconds since 1970, if that is not known yet; ok is false
// where nothing was stored. Until it has been read nothing is set.
func (c *MeterClock) Recall(read func() (at int64, ok bool, err error)) {
	if c.recalled {
		return
	}
	at, ok, err := read()
	if c.recalled = err == nil; c.recalled && ok && c.setAt == 0 {
		c.setAt = at
	}
}

// Forget forgets the meter: another one answers.
func (c *MeterClock) Forget() { *c = MeterClock{policy: c.policy} }

// Took takes what a visit found, and flags rows whose interval the clock was set
// in. It gives rows to be stored beside them, without the meter's names, and
// when the clock was set or is about to be, to be stored in the same
// transaction and given to Recall; 0 is nothing.
func (c *MeterClock) Took(now meter.Stamp, got *meter.Got) (rows []meter.Row, keep int64) {
	c.learnCapture(got.Rows)
	if got.Clock != nil {
		rows = append(rows, c.compared(*got.Clock)...)
	}
	if s := got.ClockSet; s != nil {
		more := c.tried(*s)
		if rows = append(rows, more...); s.Sent {
			keep = c.setAt
		}
	}
	c.flag(got.Rows)
	if c.decide(now) {
		c.reserved = &now
		keep = now.Time
	}
	return rows, keep
}

// compared notes an offset and tells it.
func (c *MeterClock) compared(o meter.ClockOffset) (rows []meter.Row) {
	c.last = &o
	if c.tells(o) {
		rows = append(rows, c.tell(o)...)
	}
	if o.At.Bound == meter.UnknownBound {
		return rows // by a clock that nobody vouches for no other is judged
	}
	sure := Sure(o)
	if sure > c.policy.Limit && !c.off {
		c.off = true
		rows = append(rows, event(meter.ClockOffChannel, meter.Alarm, o.At, "off by "+offsetText(o)+", which is beyond the limit of "+c.policy.Limit.String()+": it is left alone"))
	}
	c.off = c.off && sure > c.policy.Threshold
	if c.did != nil && !c.drifts && sure > c.policy.Threshold && o.At.Boot == c.did.Boot &&
		time.Duration(o.At.Mono-c.did.Mono)*time.Millisecond < oncePer {
		c.drifts = true
		rows = append(rows, event(meter.ClockDriftsChannel, meter.Interval, o.At, "off again by "+offsetText(o)+" within a day of being set"))
	}
	return rows
}

// tells says whether an offset is news.
func (c *MeterClock) tells(o meter.ClockOffset) bool {
	t := c.told
	if t == nil || o.At.Boot != t.At.Boot || time.Duration(o.At.Mono-t.At.Mono)*time.Millisecond >= tellEvery || o.Valid != t.Valid {
		return true
	}
	return (o.Offset - t.Offset).Abs() > max(tellStep, o.Uncertainty, t.Uncertainty)
}

func (c *MeterClock) tell(o meter.ClockOffset) []meter.Row {
	c.told = &o
	row := meter.Row{Channel: meter.ClockOffsetChannel, Lane: meter.Interval, Stamp: o.At, Unit: meter.Second}
	row.Value = meter.IntValue(o.Offset.Milliseconds(), -3)
	if !o.Valid {
		row.Quality = meter.MeterClockInvalid
	}
	beside := row
	beside.Channel = meter.ClockUncertaintyChannel
	if beside.Value = meter.UintValue(uint64(Uncertainty(o).Milliseconds()), -3); o.At.Bound == meter.UnknownBound {
		beside.Value, beside.Quality = meter.Value{}, row.Quality|meter.ClockUnsynchronised
		row.Quality |= meter.ClockUnsynchronised
	}
	return []meter.Row{row, beside}
}

// tried takes what came of a setting.
func (c *MeterClock) tried(s meter.ClockSet) (rows []meter.Row) {
	c.reserved = nil
	if c.why = s.Err; !s.Sent {
		if errors.Is(s.Err, meter.ErrClockMethod) && !c.cannot {
			c.cannot = true
			return []meter.Row{event(meter.ClockRefusedChannel, meter.Interval, s.At, "off by "+offsetText(s.Before)+", and not set: "+s.Err.Error())}
		}
		return nil // it was left alone: another visit will
	}
	c.setAt, c.drifts = s.At.Time, false
	at := s.At
	c.did = &at
	if s.After != nil {
		rows = c.compared(*s.After)
	}
	channel, text := meter.ClockSetChannel, "set; was off by "+offsetText(s.Before)
	if s.After != nil {
		text += ", now by " + offsetText(*s.After)
	}
	if s.Err != nil {
		channel, text = meter.ClockRefusedChannel, "off by "+offsetText(s.Before)+", and not set: "+s.Err.Error()
	}
	text += fmt.Sprintf("; the meter showed %s", stampText(s.Before))
	if s.After != nil {
		text += " and then " + stampText(*s.After)
	}
	if c.told == nil || c.told.At != s.Before.At {
		last := c.told
		rows = append(c.tell(s.Before), rows...)
		if s.After != nil {
			c.told = last
		}
	}
	return append(rows, event(channel, meter.Interval, s.At, text))
}

// decide says whether the clock is to be set from now on.
func (c *MeterClock) decide(now meter.Stamp) bool {
	if c.reserved != nil && (c.reserved.Boot != now.Boot || time.Duration(now.Mono-c.reserved.Mono)*time.Millisecond > lapse) {
		c.reserved = nil
	}
	if !c.policy.Set || c.cannot || !c.recalled || c.last == nil || c.reserved != nil {
		return false
	}
	c.why = c.may(now, *c.last)
	if c.why == nil && c.moment(*c.last) < 0 {
		c.why = ErrNoMoment
	}
	return c.why == nil
}

// Next gives what the next visit is to do about the clock, and how long to wait
// for it; nil for nothing.
func (c *MeterClock) Next(now meter.Stamp) (wait time.Duration, order *meter.SetClock) {
	if c.reserved == nil || c.reserved.Boot != now.Boot || c.last == nil {
		return 0, nil
	}
	since := time.Duration(now.Mono-c.reserved.Mono) * time.Millisecond
	if since > lapse {
		return 0, nil
	}
	wait = max(0, c.policy.Settle-since)
	then := now
	then.Time += wait.Milliseconds()
	middle := c.moment(*c.last)
	if c.phase(then, *c.last, c.policy.Guard+slack) != nil {
		low := time.Duration(floorMod(min(then.Time, then.Time+c.last.Offset.Milliseconds()), c.period().Milliseconds())) * time.Millisecond
		wait += time.Duration(floorMod((middle-low).Milliseconds(), c.period().Milliseconds())) * time.Millisecond
	}
	return wait, &meter.SetClock{Method: c.policy.Method, May: c.May}
}

// May says whether the clock may be set at that moment, having been found so.
func (c *MeterClock) May(now meter.Stamp, found meter.ClockOffset) error {
	if c.reserved == nil || c.reserved.Boot != now.Boot || c.last == nil {
		return ErrSetToday
	}
	if err := c.may(now, found); err != nil {
		return err
	}
	// What comes twice, some time apart, is no damage on the line.
	drift := time.Duration(found.At.Mono-c.last.At.Mono) * time.Millisecond / unsteadyDrift
	if (found.Offset - c.last.Offset).Abs() > Uncertainty(found)+Uncertainty(*c.last)+drift.Abs() {
		return ErrUnsteady
	}
	return c.phase(now, found, c.policy.Guard)
}

// may is what holds whatever the moment.
func (c *MeterClock) may(now meter.Stamp, o meter.ClockOffset) error {
	day := oncePer.Milliseconds()
	switch sure := Sure(o); {
	case now.Bound == meter.UnknownBound, o.At.Bound == meter.UnknownBound,
		time.Duration(max(now.Bound, o.At.Bound))*time.Millisecond > c.policy.Threshold/2:
		return ErrGatewayUnsure
	case sure <= c.policy.Threshold:
		return ErrRightEnough
	case o.Offset.Abs() > c.policy.Limit-Uncertainty(o): // the sum may be more than there is
		return ErrTooFarOff
	case c.setAt != 0 && now.Time-c.setAt < day && c.setAt-now.Time < day:
		return ErrSetToday
	}
	return nil
}

// period is what the ends of capture periods are multiples of.
func (c *MeterClock) period() time.Duration { return cmp.Or(c.capture, usualCapture) }

// guard bounds how far the ends of capture periods must stay away.
func (c *MeterClock) guard(guard time.Duration) time.Duration { return min(guard, c.period()/4) }

// moment gives how far into a capture period the earlier one of the two clocks
// stands when both are the farthest from its ends; negative for never.
func (c *MeterClock) moment(o meter.ClockOffset) time.Duration {
	if room := c.period() - o.Offset.Abs() - 2*(c.guard(c.policy.Guard+slack)+Uncertainty(o)); room < 0 {
		return -1
	}
	return (c.period() - o.Offset.Abs()) / 2
}

// phase says whether both clocks are within the same capture period and far from
// its ends.
func (c *MeterClock) phase(now meter.Stamp, o meter.ClockOffset, guard time.Duration) error {
	// What is sent arrives within a few round trips.
	away := c.guard(guard) + Uncertainty(o)
	low := min(now.Time, now.Time+o.Offset.Milliseconds())
	into := time.Duration(floorMod(low, c.period().Milliseconds())) * time.Millisecond
	if into < away || into+o.Offset.Abs()+3*o.Uncertainty > c.period()-away {
		return ErrNearCapture
	}
	return nil
}

// learnCapture learns the capture periods of the meter's profiles.
func (c *MeterClock) learnCapture(rows []meter.Row) {
	for i := range rows {
		r := &rows[i]
		if r.Period == 0 || r.Stamp.Source != meter.FromMeter {
			continue
		}
		period := time.Duration(r.Period) * time.Second
		c.capture = max(shortestCapture, gcd(cmp.Or(c.capture, longestCapture), period))
	}
}

func gcd(a, b time.Duration) time.Duration {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// flag flags the rows of intervals that the clock was set in.
func (c *MeterClock) flag(rows []meter.Row) {
	for i := range rows {
		r := &rows[i]
		if r.Period != 0 && r.Stamp.Source == meter.FromMeter && c.did != nil &&
			c.did.Time <= r.Stamp.Time && c.did.Time > r.Stamp.Time-int64(r.Period)*1000 {
			r.Quality |= meter.MeterClockAdjusted
		}
	}
}

// Uncertainty is by how much an offset may be wrong, the gateway's own error
// included.
func Uncertainty(o meter.ClockOffset) time.Duration {
	return o.Uncertainty + time.Duration(o.At.Bound)*time.Millisecond
}

// Sure is by how much a meter's clock is off at least; 0 where it may be right.
func Sure(o meter.ClockOffset) time.Duration { return max(0, o.Offset.Abs()-Uncertainty(o)) }

func floorMod(a, b int64) int64 { return (a%b + b) % b }

func event(c meter.Channel, lane meter.Lane, at meter.Stamp, text string) meter.Row {
	return meter.Row{Channel: c, Lane: lane, Stamp: at, Value: meter.TextValue(text)}
}

func offsetText(o meter.ClockOffset) string {
	return fmt.Sprintf("%+.3f s (± %.3f s)", o.Offset.Seconds(), Uncertainty(o).Seconds())
}

// stampText gives what a meter's clock showed.
func stampText(o meter.ClockOffset) string {
	return o.At.UTC().Add(o.Offset).Format("2006-01-02T15:04:05.000Z")
}

// MeterClockStatus is how a meter's clock does.
type MeterClockStatus struct {
	Offset  *meter.ClockOffset // as last compared, nil where it was not
	Set     bool               // it is put right when need be
	Method  meter.ClockMethod
	LastSet time.Time // or about to be; zero for never
	Why     error     // why it is not put right now; nil also where it will be
	Pending bool      // it is about to be put right
}

// Status tells how the clock does.
func (c *MeterClock) Status() MeterClockStatus {
	s := MeterClockStatus{Offset: c.last, Set: c.policy.Set, Method: c.policy.Method, Pending: c.reserved != nil}
	if c.setAt != 0 {
		s.LastSet = time.UnixMilli(c.setAt).UTC()
	}
	if c.policy.Set && !s.Pending {
		s.Why = c.why
	}
	return s
}
