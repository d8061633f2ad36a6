package iec21

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"gridgate/dlms"
	"gridgate/internal/meter"
)

const (
	// maxRows is about how many rows of readings a visit takes from a profile;
	// the rest is for the next.
	maxRows = 4096
	// captures is how many captures one request asks for.
	captures = 192
	// ahead is how far behind the gateway's time is asked, in milliseconds:
	// the meter's clock may be ahead.
	ahead      = 24 * 60 * 60 * 1000
	minute     = 60 * 1000    // what times are told to, in milliseconds
	century    = 946684800000 // the year 2000, in milliseconds since 1970
	maxColumns = 64
)

// errLayout says that the answer is not a load profile.
var errLayout = errors.New("not a load profile")

// profile reads the rows of a profile that are newer than p.Since, up to p.Until.
// When a session ends before its end, p.Since is where the next goes on.
func (v *visit) profile(ctx context.Context, s *session, p *meter.Profile) error {
	code, class, attribute, ok := p.Channel.Attribute()
	if !ok || class != meter.ClassProfile || attribute != 2 || code[2] != groupProfile {
		v.failed(p.Channel, ErrNoProfile)
		return nil
	}
	p.Since = max(p.Since, century) // a year has two digits
	now := v.cfg.Now().Time
	end := max(now, p.Since) + ahead
	ends := p.Until != 0 && p.Until < end
	if ends {
		end = p.Until
	}
	t := table{zone: v.cfg.TimeZone, since: p.Since, until: end, base: meter.Row{
		Meter: v.cfg.ID, Serial: v.got.Identity.Found, Lane: p.Lane, Quality: v.quality(),
	}}
	all, err := v.follow(ctx, s, &t, p.Channel, addressOf(code), end)
	v.got.Rows = append(v.got.Rows, t.rows...)
	switch {
	case t.known:
		v.showed(p.Channel)
	case ends && isRefused(err) && v.shows[p.Channel] && !t.unsure:
		all, err = true, nil // so it says that there are no rows
	}
	if all && ends && p.Until <= now { // of the future the meter may still have rows
		t.since = max(t.since, p.Until)
	}
	if t.since > p.Since || ends && t.since == p.Until {
		p.Since = t.since
		v.reached(meter.Cursor{Meter: v.cfg.ID, Serial: v.got.Identity.Found, Profile: p.Channel, Time: p.Since})
	}
	for _, e := range t.failures {
		v.failed(p.Channel, e)
	}
	if isRefused(err) || errors.Is(err, errLayout) {
		v.failed(p.Channel, err)
		return nil
	}
	return err
}

// showed notes that a meter has a profile: when it refuses a stretch of it, there
// is nothing in it.
func (m *Meter) showed(profile meter.Channel) {
	if m.shows == nil {
		m.shows = make(map[meter.Channel]bool)
	}
	m.shows[profile] = true
}

// reached notes how far a profile was read; the session before may not have come
// as far.
func (v *visit) reached(c meter.Cursor) {
	for i := range v.got.Cursors {
		if v.got.Cursors[i].Profile == c.Profile {
			v.got.Cursors[i] = c
			return
		}
	}
	v.got.Cursors = append(v.got.Cursors, c)
}

// stretch is where a window of a profile begins.
type stretch struct {
	profile meter.Channel
	from    int64
}

// maxRefusals is how many windows are remembered that were refused.
const maxRefusals = 64

// refusedBefore notes that a window is refused, and says whether it was in an
// earlier visit: then there is nothing in it. Once may be an accident.
func (v *visit) refusedBefore(at stretch) bool {
	first, ok := v.refusals[at]
	if !ok {
		if v.refusals == nil || len(v.refusals) >= maxRefusals {
			v.refusals = map[stretch]uint64{}
		}
		v.refusals[at] = v.visits
	}
	return ok && first < v.visits
}

// follow asks for the rows window by window, until it has all or enough for
// one visit. A window without rows makes the next twice as long. What is behind
// one that is refused for the first time is left for the next visit: no row may
// be passed by.
func (v *visit) follow(ctx context.Context, s *session, t *table, profile meter.Channel, address string, end int64) (all bool, err error) {
	const day = 24 * 60 * 60 * 1000
	span := int64(day)
	var refused error
	some := false
	from := t.since
	for from < end && len(t.rows) < maxRows {
		to := min(from+span, end)
		before, since := len(t.rows), t.since
		err := v.window(ctx, s, t, address, from, to)
		switch {
		case isRefused(err):
			refused = err // it may mean that there are no rows
			t.unsure = !v.refusedBefore(stretch{profile, from}) || t.unsure
		case err != nil:
			return false, fmt.Errorf("%s: %w", address, err)
		case t.unsure:
			t.rows, t.since = t.rows[:before], since
			return false, fmt.Errorf("rows before others: %w", refused)
		default:
			some = true
		}
		if t.period > 0 && len(t.rows) > before {
			span = captures * int64(t.period) * 1000
		} else {
			span *= 2
		}
		from = max(to, t.since)
	}
	if !some {
		return false, refused
	}
	return from >= end && !t.unsure, nil
}

// window reads the rows in a range. The first of a meter finds out whether its
// times begin with a season.
func (v *visit) window(ctx context.Context, s *session, t *table, address string, from, to int64) error {
	err := v.captured(ctx, s, t, address, from, to)
	if isRefused(err) && !v.seasoned && !t.known {
		v.seasoned = true
		if err = v.captured(ctx, s, t, address, from, to); isRefused(err) {
			v.seasoned = false
		}
	}
	v.seasoned = v.seasoned || t.seasoned
	return err
}

func (v *visit) captured(ctx context.Context, s *session, t *table, address string, from, to int64) error {
	command := s.command
	if command == 0 {
		command = readCommands()[0]
	}
	if !v.seasoned {
		// A meter that does not tell its summer apart cannot be asked for a part
		// of the hour that comes twice.
		if begin, _, ok := dlms.Repeated(time.UnixMilli(from), v.cfg.TimeZone); ok {
			from = begin.UnixMilli()
		}
		if _, end, ok := dlms.Repeated(time.UnixMilli(to), v.cfg.TimeZone); ok {
			to = end.UnixMilli()
		}
	}
	f, err := s.request(ctx, "R"+string(rune(command)), address+"("+v.asTime(from)+";"+v.asTime(to+minute-1)+")")
	if err != nil {
		return err
	}
	t.base.Stamp = v.cfg.Now()
	return t.add(&f, address)
}

// asTime gives a time in milliseconds since 1970 as the meter writes it.
func (v *visit) asTime(ms int64) string {
	t := time.UnixMilli(ms).In(v.cfg.TimeZone)
	text := t.Format("0601021504")
	switch {
	case !v.seasoned:
		return text
	case t.IsDST():
		return "1" + text
	}
	return "0" + text
}

// column is a column of a profile.
type column struct {
	channel meter.Channel
	code    string
	unit    string
	err     error
}

// table makes rows of readings out of the blocks of a profile. Each block has a
// head and the rows that follow it, a capture period apart:
//
//	P.01(time of the first row)(status)(minutes)(columns)(code)(unit)(code)(unit)…
//	(value)(value)…
//	(value)(value)…
type table struct {
	zone  *time.Location
	base  meter.Row // what is the same in all rows; its stamp is the gateway's now
	since int64     // the newest capture time there is
	until int64     // rows after it are not taken

	rows     []meter.Row
	failures []error
	known    bool // a head was understood
	unsure   bool // a window was refused that may have rows
	seasoned bool
	period   uint32 // seconds

	columns []column
	next    int64 // capture time of the next row
	last    int64 // capture time of the row before in this answer, 0 for none
	row     meter.Row
	seen    map[int64]uint8
	told    map[string]bool // of failures
}

// add takes an answer, all of it or, with an error, nothing.
func (t *table) add(f *frame, address string) error {
	before, newest := len(t.rows), t.since
	t.columns, t.last = nil, 0
	err := t.blocks(f, address, &newest)
	if err != nil {
		t.rows = t.rows[:before]
		return err
	}
	t.since = newest
	return nil
}

func (t *table) blocks(f *frame, address string, newest *int64) error {
	want, err := parseAddress(address)
	if err != nil {
		return err
	}
	all, _ := lines(f.body)
	for _, l := range all {
		sets, err := parseLine(l.text)
		if err != nil {
			return fmt.Errorf("%w: %w", errLayout, err)
		}
		for _, set := range sets {
			values := set.values
			if isRefusal(values[0]) {
				return &refusalError{values[0]}
			}
			got, err := parseAddress(set.address)
			switch {
			case set.address != "" && (err != nil || got != want):
				return fmt.Errorf("%w: asked for %s, the answer is of %s", errGarbled, address, set.address)
			case len(values) == 1 && values[0] == "":
				continue // no rows
			case set.address != "" || t.columns == nil:
				if values, err = t.head(values); err != nil {
					return err
				}
			}
			if err := t.take(values, newest); err != nil {
				return err
			}
		}
	}
	return nil
}

// head takes a block's head and gives what is behind it.
func (t *table) head(values []string) (rest []string, err error) {
	const fixed = 4
	wrong := func(what string) ([]string, error) {
		return nil, fmt.Errorf("%w: %s in %q", errLayout, what, strings.Join(values[:min(len(values), fixed)], ")("))
	}
	if len(values) < fixed {
		return wrong("too little")
	}
	at, ok := parseTime(values[0])
	if !ok {
		return wrong("no time")
	}
	minutes, err := strconv.ParseUint(values[2], 10, 16)
	if err != nil || minutes == 0 {
		return wrong("no period")
	}
	count, err := strconv.ParseUint(values[3], 10, 16)
	if err != nil || count == 0 || count > maxColumns || len(values) < fixed+2*int(count) {
		return wrong("no columns")
	}
	t.columns = t.columns[:0]
	for i := range int(count) {
		c := column{code: values[fixed+2*i], unit: values[fixed+2*i+1]}
		code, err := parseAddress(c.code)
		if err == nil {
			c.channel = valueChannel(code)
		}
		if _, _, ok := parseUnit(c.unit); err == nil && !ok {
			err = fmt.Errorf("%w: %q", errUnit, c.unit)
		}
		if c.err = err; err != nil && !t.told[c.code] {
			if t.told == nil {
				t.told = map[string]bool{}
			}
			t.told[c.code] = true
			t.failures = append(t.failures, fmt.Errorf("column %s: %w", c.code, err))
		}
		t.columns = append(t.columns, c)
	}
	t.known, t.seasoned = true, t.seasoned || isSeasoned(values[0])
	t.period = uint32(minutes) * 60
	first := at.in(t.zone)
	if at.season == noSeason {
		first = dlms.Behind(first, time.UnixMilli(t.last), t.zone)
	}
	t.next = first.UnixMilli()
	t.row = t.base
	t.row.Period = t.period
	t.row.Status, t.row.HasStatus = parseStatus(values[1])
	if at.season == summer {
		t.row.Quality |= meter.DaylightSaving
	}
	return values[fixed+2*int(count):], nil
}

// isSeasoned says whether the season stands before a time.
func isSeasoned(s string) bool {
	return strings.Trim(s, "0123456789") == "" && (len(s) == 11 || len(s) == 13)
}

// parseStatus reads a status word, in hexadecimal.
func parseStatus(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil
}

// take makes rows of readings of the values of rows.
func (t *table) take(values []string, newest *int64) error {
	if len(values)%len(t.columns) != 0 {
		return fmt.Errorf("%w: %d values in %d columns", errLayout, len(values), len(t.columns))
	}
	for ; len(values) > 0; values = values[len(t.columns):] {
		at := t.next
		t.last, t.next = at, at+int64(t.period)*1000
		if at <= t.since || at > t.until {
			continue
		}
		*newest = max(*newest, at)
		r := t.row
		r.Stamp.Time, r.Stamp.Source, r.Stamp.Bound = at, meter.FromMeter, meter.UnknownBound
		if t.seen == nil {
			t.seen = map[int64]uint8{}
		}
		if r.Occurrence = t.seen[at]; r.Occurrence < math.MaxUint8 {
			t.seen[at]++
		}
		for i, c := range t.columns {
			if c.err == nil {
				t.rows = append(t.rows, c.read(r, values[i]))
			}
		}
	}
	return nil
}

// read gives the row of a value. What is no number has no value in that row.
func (c column) read(r meter.Row, text string) meter.Row {
	unit, prefix, _ := parseUnit(c.unit)
	value, _, _ := strings.Cut(text, "*")
	v, q, ok := parseNumber(strings.TrimSpace(value), prefix)
	if !ok {
		v, q = meter.Value{}, meter.IntervalMissing
	}
	r.Channel, r.Value, r.Unit = c.channel, v, unit
	r.Quality |= q
	return r
}
