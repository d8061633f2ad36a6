package buffer

import (
	"math"
	"math/bits"
	"time"

	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// How far a chunk's rows were thinned.
const (
	_ uint8 = iota // as they came
	hourly
	daily
)

// thinSeries bounds the channels of meters that are thinned together, and so
// the memory; rows of others stay as they are.
const thinSeries = 8192

// thinRows is how many rows a thinner hands on at a time.
const thinRows = 64

// rule is what is left of the rows of a channel in a window.
type rule uint8

const (
	ruleFirst rule = iota // the first row: of a register nothing is lost but steps between
	ruleSum               // the sum of rows that adjoin
	ruleMax               // the highest row, with its time
	ruleMin               // the lowest row, with its time
)

// ruleOf tells from the code what a channel's rows are (IEC 62056-6-1, group D
// of electricity). main is the channel whose capture time c is, or c.
func ruleOf(c meter.Channel) (r rule, main meter.Channel) {
	code, class, attribute, ok := c.Attribute()
	if !ok || code[0] != 1 || code[2] == 0 || code[2] >= 93 {
		return ruleFirst, c
	}
	main = c
	capture := class == meter.ClassExtended && attribute == 5 || class == meter.ClassDemandRegister && attribute == 6
	if capture {
		main = meter.ChannelOf(code, class, valueAttribute(class, code))
	}
	switch code[3] {
	case 29, 30: // over an interval
		if capture {
			return ruleFirst, c
		}
		return ruleSum, main
	case 2, 12, 22, 6, 16, 26, 4, 14, 24, 27, 5, 15, 25, 28: // maxima, and averages over a demand period
		return ruleMax, main
	case 1, 11, 21, 3, 13, 23:
		return ruleMin, main
	}
	return ruleFirst, c
}

// valueAttribute is the attribute whose capture time class has: the last
// average of a demand register when the code says so, else the value.
func valueAttribute(class uint16, code obis.Code) int8 {
	if d := code[3]; class == meter.ClassDemandRegister && (d == 5 || d == 15 || d == 25) {
		return 3
	}
	return 2
}

type seriesKey struct {
	id      meter.ID
	serial  string
	channel meter.Channel
}

// series is what is known of a channel of a meter.
type series struct {
	window int64
	row    *meter.Row // the sum so far, or the row that is kept so far
	seen   bool       // there was a row
	mate   *meter.Row // the row with the capture time of row
	early  *meter.Row // a row with a capture time whose row has not come
}

// thinner leaves of rows, in the order of their numbers, one for each window of
// a channel: an hour, or a day of a zone.
//
//   - of registers, and of all that is not told below, the first row stays
//   - energies of intervals (group D 29 and 30) are summed: the row of the last
//     interval, with the period of all and the quality Substituted, since it was
//     put in place by a rule. Only intervals that adjoin are summed, so that a
//     sum covers its period wholly
//   - of maxima and of averages over a demand period the highest row stays, of
//     minima the lowest, with its time; the row with its capture time stays too
type thinner struct {
	level  uint8
	zone   *time.Location
	rules  map[meter.Channel]channelRule
	known  map[seriesKey]*series
	order  []*series
	rows   []meter.Row
	output func([]meter.Row) error
	// the day of the last row, since rows of one day follow one another
	day, from, to int64
}

type channelRule struct {
	rule rule
	main meter.Channel
}

func newThinner(level uint8, zone *time.Location, output func([]meter.Row) error) *thinner {
	return &thinner{
		level: level, zone: zone, output: output,
		rules: map[meter.Channel]channelRule{}, known: map[seriesKey]*series{},
	}
}

// windowOf gives the window in which a time lies.
func (t *thinner) windowOf(ms int64) int64 {
	const hour = int64(time.Hour / time.Millisecond)
	if t.level == hourly {
		w := ms / hour
		if ms%hour < 0 {
			w--
		}
		return w
	}
	if ms < t.from || ms >= t.to {
		y, m, d := time.UnixMilli(ms).In(t.zone).Date()
		t.from = time.Date(y, m, d, 0, 0, 0, 0, t.zone).UnixMilli()
		t.to = max(ms+1, time.Date(y, m, d+1, 0, 0, 0, 0, t.zone).UnixMilli())
		t.day = time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
	}
	return t.day
}

// take takes the next row.
func (t *thinner) take(r *meter.Row) error {
	c, ok := t.rules[r.Channel]
	if !ok {
		c.rule, c.main = ruleOf(r.Channel)
		t.rules[r.Channel] = c
	}
	key := seriesKey{r.Meter, r.Serial, c.main}
	s := t.known[key]
	if s == nil {
		if len(t.known) >= thinSeries {
			return t.put(r)
		}
		s = &series{window: math.MinInt64}
		t.known[key], t.order = s, append(t.order, s)
	}
	at := r.Stamp.Time
	if c.rule != ruleFirst {
		at-- // the stamp is the end of what the value is of
	}
	window := t.windowOf(at)
	if c.main != r.Channel {
		s.pair(r)
		return nil
	}
	switch c.rule {
	case ruleFirst:
		if window == s.window {
			return nil
		}
		s.window = window
		return t.put(r)
	case ruleSum:
		if window == s.window && s.sum(r) {
			return nil
		}
	case ruleMax, ruleMin:
		if window == s.window && s.row != nil {
			s.better(r, c.rule)
			return nil
		}
	}
	if err := t.close(s); err != nil {
		return err
	}
	s.window, s.row, s.seen = window, copyRow(r), true
	s.adopt()
	return nil
}

// sum adds a row when it adjoins what was added so far.
func (s *series) sum(r *meter.Row) bool {
	a := s.row
	if a == nil {
		return false
	}
	from := r.Stamp.Time - int64(r.Period)*1000
	period := uint64(a.Period) + uint64(r.Period)
	if a.Period == 0 || r.Period == 0 || from != a.Stamp.Time || period > math.MaxUint32 || a.Unit != r.Unit {
		return false
	}
	v, ok := addValues(a.Value, r.Value)
	if !ok {
		return false
	}
	status, same := a.Status, a.HasStatus && r.HasStatus && a.Status == r.Status
	quality := a.Quality | r.Quality | meter.Substituted
	*s.row = *r
	s.row.Value, s.row.Quality, s.row.Period = v, quality, uint32(period)
	if s.row.Status, s.row.HasStatus = status, same; !same {
		s.row.Status = 0
	}
	return true
}

// addValues adds numbers of one scale, whole ones of one kind exactly, floats in
// binary64; ok is false when that cannot be, or when the sum does not fit.
func addValues(a, b meter.Value) (v meter.Value, ok bool) {
	if a.Scale != b.Scale || !a.IsNumber() || !b.IsNumber() {
		return v, false
	}
	x, xok := floatOf(a)
	y, yok := floatOf(b)
	switch {
	case xok && yok:
		v = meter.Float64Value(math.Float64bits(x+y), a.Scale)
		return v, v.IsNumber()
	case a.Kind != b.Kind:
		return v, false
	case a.Kind == meter.Uint:
		sum, carry := bits.Add64(a.Bits, b.Bits, 0)
		return meter.UintValue(sum, a.Scale), carry == 0
	}
	p, q := a.Int64(), b.Int64()
	sum := p + q
	return meter.IntValue(sum, a.Scale), (sum > p) == (q > 0)
}

func floatOf(v meter.Value) (f float64, ok bool) {
	if v.Kind == meter.Float32 {
		return float64(math.Float32frombits(uint32(v.Bits))), true
	}
	return math.Float64frombits(v.Bits), v.Kind == meter.Float64
}

// better keeps r instead of the row so far when it is higher, or lower.
func (s *series) better(r *meter.Row, by rule) {
	a, b := s.row.Value.Float64(), r.Value.Float64()
	wins := !s.row.Value.IsNumber() && r.Value.IsNumber() || by == ruleMax && b > a || by == ruleMin && b < a
	if !wins {
		return
	}
	*s.row, s.mate = *r, nil
	s.adopt()
}

// pair keeps a capture time for the row that it belongs to.
func (s *series) pair(r *meter.Row) {
	if s.row != nil && r.Stamp.Time == s.row.Stamp.Time {
		s.mate = copyRow(r)
		return
	}
	s.early = copyRow(r)
}

// adopt takes a capture time that came before its row.
func (s *series) adopt() {
	if s.early != nil && s.early.Stamp.Time == s.row.Stamp.Time {
		s.mate, s.early = s.early, nil
	}
}

func copyRow(r *meter.Row) *meter.Row {
	c := *r
	return &c
}

// close puts out what was kept of a window.
func (t *thinner) close(s *series) error {
	for _, r := range []**meter.Row{&s.row, &s.mate} {
		if *r == nil {
			continue
		}
		if err := t.put(*r); err != nil {
			return err
		}
		*r = nil
	}
	return nil
}

func (t *thinner) put(r *meter.Row) error {
	if t.rows = append(t.rows, *r); len(t.rows) < thinRows {
		return nil
	}
	return t.flush()
}

func (t *thinner) flush() error {
	err := t.output(t.rows)
	t.rows = t.rows[:0]
	return err
}

// end puts out all that is left.
func (t *thinner) end() error {
	for _, s := range t.order {
		if err := t.close(s); err != nil {
			return err
		}
		if s.early != nil && !s.seen { // a capture time of nothing that is read
			if err := t.put(s.early); err != nil {
				return err
			}
		}
	}
	if len(t.rows) == 0 {
		return nil
	}
	return t.flush()
}
