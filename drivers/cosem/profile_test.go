package cosem

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

const (
	load    = "1-0:99.1.0"
	energy  = meter.Channel("1-0:1.8.0*255/3:2")
	quarter = 15 * time.Minute
)

func columns(extra ...dlmstest.Column) []dlmstest.Column {
	return append([]dlmstest.Column{
		{Class: 8, Code: obisOf("0-0:1.0.0"), ID: 2},
		{Class: 1, Code: obisOf("0-0:96.10.1"), ID: 2},
		{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 2},
	}, extra...)
}

// when gives a date-time with some clock status.
func when(t time.Time, status byte) axdr.Value {
	s := []byte(dlmstest.DateTime(t))
	s[11] |= status
	return axdr.OctetString(string(s))
}

func row(items ...axdr.Value) axdr.Value { return axdr.Structure(items...) }

func units(n int) axdr.Value { return axdr.DoubleLongUnsigned(uint32(n)) }

// given gives rows whatever is selected.
func given(rows ...axdr.Value) func(*dlmstest.Selection) []axdr.Value {
	return func(*dlmstest.Selection) []axdr.Value { return rows }
}

// since asks for the rows of a profile after t.
func since(t *testing.T, at time.Time) meter.Ask {
	t.Helper()
	return meter.Ask{Profiles: []meter.Profile{{Channel: channel(t, load), Lane: meter.Interval, Since: at.UnixMilli()}}}
}

// short prints rows in a line each: time, occurrence, channel, value, quality, status.
func short(rows []meter.Row) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%s/%d %s=%s %v", r.Stamp.UTC().Format("01-02T15:04"), r.Occurrence, r.Channel.Short(), r.Value, r.Quality)
		if r.HasStatus {
			fmt.Fprintf(&b, " %#x", r.Status)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestProfileRows(t *testing.T) {
	t.Parallel()
	at := start().Add(-3 * time.Hour)
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns(
		dlmstest.Column{Class: 4, Code: obisOf("1-0:1.6.0"), ID: 5}), 900, given(
		row(when(at, 0), axdr.Unsigned(8), units(1000), axdr.Null()),                                 // at Since
		row(when(at.Add(quarter), 0), axdr.Unsigned(9), units(1001), when(at, 0)),                    // all there
		row(axdr.Null(), axdr.Null(), units(1002), axdr.Null()),                                      // previous + period, same status
		row(axdr.Null(), axdr.OctetString("\x01\x02"), axdr.Null(), axdr.Null()),                     // nothing captured
		row(when(at.Add(4*quarter), dlms.StatusInvalid), axdr.Unsigned(0), units(1004), axdr.Null()), // invalid clock
		row(when(at.Add(3*quarter), 0), axdr.Unsigned(0x20), units(1005), axdr.Null()),               // the clock was set back
		row(when(at.Add(4*quarter), 0), axdr.Unsigned(0), units(1006), axdr.Null()),
		row(when(at.Add(5*quarter).In(time.FixedZone("", 7200)), dlms.StatusDaylightSaving), axdr.Unsigned(0), axdr.Structure(), axdr.Null()),
	)))})
	m := r.driver(t, Config{Serial: "A1"})
	ask := since(t, at)
	got, err := m.Visit(t.Context(), ask)
	if err != nil || len(got.Failures) != 1 || !errors.Is(got.Failures[0], errNotScalar) || got.Failures[0].Channel != energy {
		t.Fatalf("%v, %s", err, describe(got))
	}
	want := `03-28T09:15/0 1-0:1.8.0=100.1 good 0x9
03-28T09:15/0 1-0:1.6.0/4:5=2026-03-28T09:00:00+00:00 good 0x9
03-28T09:30/0 1-0:1.8.0=100.2 good 0x9
03-28T09:30/0 1-0:1.6.0/4:5= interval-missing 0x9
03-28T09:45/0 1-0:1.8.0= interval-missing 0x102
03-28T09:45/0 1-0:1.6.0/4:5= interval-missing 0x102
03-28T10:00/0 1-0:1.8.0=100.4 meter-clock-invalid 0x0
03-28T10:00/0 1-0:1.6.0/4:5= meter-clock-invalid+interval-missing 0x0
03-28T09:45/1 1-0:1.8.0=100.5 good 0x20
03-28T09:45/1 1-0:1.6.0/4:5= interval-missing 0x20
03-28T10:00/1 1-0:1.8.0=100.6 good 0x0
03-28T10:00/1 1-0:1.6.0/4:5= interval-missing 0x0
03-28T10:15/0 1-0:1.8.0= daylight-saving+interval-missing 0x0
03-28T10:15/0 1-0:1.6.0/4:5= daylight-saving+interval-missing 0x0
`
	if s := short(got.Rows); s != want {
		t.Errorf("got\n%swant\n%s", s, want)
	}
	for _, r := range got.Rows {
		if r.Period != 900 || r.Lane != meter.Interval || r.Serial != "A1" || r.Meter != "m1" || r.Stamp.Source != meter.FromMeter ||
			r.Stamp.Bound != meter.UnknownBound || r.Stamp.Boot != 7 || r.Stamp.Mono == 0 || (r.Channel == energy) != (r.Unit == meter.WattHour) {
			t.Errorf("row %+v", r)
		}
	}
	cursor := meter.Cursor{Meter: "m1", Serial: "A1", Profile: ask.Profiles[0].Channel, Time: at.Add(5 * quarter).UnixMilli()}
	if !slices.Equal(got.Cursors, []meter.Cursor{cursor}) {
		t.Errorf("cursors %+v, want %+v", got.Cursors, cursor)
	}

	// From the cursor on there is nothing, and nothing but rows is asked for.
	r.asked()
	got, err = m.Visit(t.Context(), since(t, time.UnixMilli(cursor.Time)))
	if err != nil || len(got.Rows)+len(got.Cursors)+len(got.Failures) != 0 {
		t.Errorf("%v, %s", err, describe(got))
	}
	if asked := r.asked(); !isList(asked, "1-0:99.1.0*255/7:2") {
		t.Errorf("asked %q", asked)
	}
}

// stored gives a profile of energy at every quarter hour in [from, to).
func stored(from, to time.Time, asked *[]dlmstest.Selection) func(*dlmstest.Selection) []axdr.Value {
	return func(s *dlmstest.Selection) []axdr.Value {
		if asked != nil && s != nil {
			*asked = append(*asked, *s)
		}
		var rows []axdr.Value
		for at := from; at.Before(to); at = at.Add(quarter) {
			if s == nil || !at.Before(s.From) && !at.After(s.To) {
				rows = append(rows, row(when(at, 0), axdr.Unsigned(0), units(int(at.Sub(from)/quarter))))
			}
		}
		return rows
	}
}

// TestProfileIsReadInWindows follows a profile of 40 days, and one that has
// nothing for years: every row once, in few requests.
func TestProfileIsReadInWindows(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		since    time.Duration // before now
		stored   time.Duration
		requests int
	}{
		"caught up":  {20 * time.Minute, 40 * 24 * time.Hour, 1},
		"one day":    {24 * time.Hour, 40 * 24 * time.Hour, 1},
		"forty days": {40 * 24 * time.Hour, 41 * 24 * time.Hour, 11},
		"new meter":  {40 * 24 * time.Hour, 24 * time.Hour, 4},
		"since 1970": {start().Sub(time.Unix(0, 0)), 24 * time.Hour, 13},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			var windows []dlmstest.Selection
			from := start().Add(-c.stored)
			r := newRig(t, dlmstest.Options{Objects: append(objects("A1"),
				dlmstest.Profile(obisOf(load), columns(), 900, stored(from, start(), &windows)))})
			m := r.driver(t, Config{})
			got, err := m.Visit(t.Context(), since(t, start().Add(-c.since)))
			if err != nil || len(got.Failures) != 0 || len(got.Cursors) != 1 || got.Cursors[0].Time != start().Add(-quarter).UnixMilli() {
				t.Fatalf("%v, cursors %+v, failures %v", err, got.Cursors, got.Failures)
			}
			next := from
			if begin := start().Add(-c.since); begin.After(from) {
				next = begin.Truncate(quarter).Add(quarter)
			}
			for i, r := range got.Rows {
				if !r.Stamp.UTC().Equal(next) || r.Occurrence != 0 {
					t.Fatalf("row %d is of %v, want %v", i, r.Stamp.UTC(), next)
				}
				next = next.Add(quarter)
			}
			if !next.Equal(start()) || len(windows) > c.requests {
				t.Errorf("rows up to %v, want %v; in %d requests, want at most %d", next, start(), len(windows), c.requests)
			}
		})
	}
}

func TestProfileIsAskedInTheMetersOwnTime(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	// Rows through the night in which daylight saving ends, in local time
	// without a deviation: 02:00 to 02:45 comes twice.
	night := time.Date(2026, 10, 25, 0, 0, 0, 0, zone)
	local := func(at time.Time) axdr.Value {
		v := when(at.In(zone), 0)
		return axdr.OctetString(v.Str[:9] + "\x80\x00" + v.Str[11:])
	}
	var rows []axdr.Value
	for i := range 20 {
		rows = append(rows, row(local(night.Add(time.Duration(i)*quarter)), axdr.Unsigned(0), units(i)))
	}
	r := newRig(t, dlmstest.Options{Objects: append([]dlmstest.Object{
		dlmstest.Attributes(8, obisOf("0-0:1.0.0"), map[int8]func() axdr.Value{2: fixed(local(night.Add(6 * time.Hour)))}),
		dlmstest.Profile(obisOf(load), columns(), 900, given(rows...)),
	}, objects("A1")...)})
	var request atomic.Pointer[string]
	r.spoil(func(b, frame []byte) []byte {
		if name(b) == "1-0:99.1.0*255/7:2" {
			s := string(b)
			request.Store(&s)
		}
		return frame
	})
	clock := &turnable{at: night.Add(5 * time.Hour)}
	got, err := r.driver(t, Config{Now: clock.now, TimeZone: zone}).Visit(t.Context(), since(t, night.Add(-time.Second)))
	if err != nil || len(got.Rows) != 20 {
		t.Fatalf("%v, %s", err, describe(got))
	}
	for i, row := range got.Rows {
		summer := row.Quality&meter.DaylightSaving != 0
		if want := night.Add(time.Duration(i) * quarter); !row.Stamp.UTC().Equal(want) || row.Occurrence != 0 || summer != want.IsDST() {
			t.Errorf("row %d: %+v, want %v", i, row, want)
		}
	}
	// 24 October 23:59:59, weekday and deviation open, in daylight saving time.
	if s := request.Load(); s == nil || !strings.Contains(*s, "\x07\xEA\x0A\x18\xFF\x17\x3B\x3B\x00\x80\x00\x80") {
		t.Errorf("asked %x", *s)
	}
}

func TestProfileOfAMeterWithoutSelectiveAccess(t *testing.T) {
	t.Parallel()
	whole := dlmstest.Profile(obisOf(load), columns(), 900, stored(start().Add(-5*time.Hour), start(), nil))
	plain := whole
	plain.Read = func(id int8, rows *dlmstest.Selection) (axdr.Value, bool) {
		if rows != nil {
			return axdr.Value{}, false
		}
		return whole.Read(id, nil)
	}
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), plain)})
	r.spoil(func(request, frame []byte) []byte {
		if name(request) == "associate" {
			frame[len(frame)-5] &^= 0x04 // not granted either
		}
		return frame
	})
	m := r.driver(t, Config{})
	for visits, want := range []int{8, 4} {
		got, err := m.Visit(t.Context(), since(t, start().Add(-time.Duration(2-visits)*time.Hour-time.Minute)))
		if err != nil || len(got.Rows) != want || len(got.Failures) != 0 {
			t.Errorf("%v, %s", err, describe(got))
		}
	}
	asked := strings.Join(r.asked(), " ")
	if n := strings.Count(asked, "99.1.0*255/7:2"); n != 4 {
		t.Errorf("the buffer was asked for %d times, want once by time, once by number and twice whole: %s", n, asked)
	}
}

func TestProfileThatWasSetUpAnew(t *testing.T) {
	t.Parallel()
	before := dlmstest.Profile(obisOf(load), columns(), 900, stored(start().Add(-2*time.Hour), start(), nil))
	after := dlmstest.Profile(obisOf(load), columns(dlmstest.Column{Class: 3, Code: obisOf("1-0:16.7.0"), ID: 2}), 900,
		given(row(when(start(), 0), axdr.Unsigned(0), units(77), axdr.DoubleLong(-5))))
	var anew atomic.Bool
	either := dlmstest.Object{Class: 7, Code: obisOf(load), Read: func(id int8, rows *dlmstest.Selection) (axdr.Value, bool) {
		if anew.Load() {
			return after.Read(id, rows)
		}
		return before.Read(id, rows)
	}}
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), either)})
	m := r.driver(t, Config{})
	if got, err := m.Visit(t.Context(), since(t, start().Add(-time.Hour))); err != nil || len(got.Rows) != 3 {
		t.Fatalf("%v, %s", err, describe(got))
	}
	anew.Store(true)
	got, err := m.Visit(t.Context(), since(t, start().Add(-quarter)))
	if err != nil || len(got.Failures) != 0 || short(got.Rows) != "03-28T12:00/0 1-0:1.8.0=7.7 good 0x0\n03-28T12:00/0 1-0:16.7.0=-0.05 good 0x0\n" {
		t.Errorf("%v, %s", err, describe(got))
	}
}

func TestProfileFailures(t *testing.T) {
	t.Parallel()
	profile := func(cols []dlmstest.Column, rows ...axdr.Value) dlmstest.Object {
		return dlmstest.Profile(obisOf(load), cols, 900, given(rows...))
	}
	good := row(when(start(), 0), axdr.Unsigned(0), units(1))
	open := axdr.OctetString(strings.Repeat("\xFF", 9) + "\x80\x00\xFF")
	for title, c := range map[string]struct {
		profile dlmstest.Object
		rows    int
		is      error
		words   string
	}{
		"no such profile":      {dlmstest.Profile(obis.Code{}, nil, 0, given()), 0, dlms.ObjectUndefined, "1-0:99.1.0: get 1-0:99.1.0*255/7:3: object undefined"},
		"no clock":             {profile(columns()[1:]), 0, errNoClock, "garbled"},
		"columns do not fit":   {profile(columns(), good, row(when(start(), 0), axdr.Unsigned(0))), 0, dlms.ErrLayout, "row 1 is structure of 2, want a structure of 3"},
		"row is no structure":  {profile(columns(), good, axdr.Unsigned(0)), 0, dlms.ErrLayout, "row 1 is unsigned"},
		"short date-time":      {profile(columns(), good, row(axdr.OctetString("\x07\xEA"), axdr.Unsigned(0), units(1))), 0, meter.ErrGarbled, "date-time of 2 octets"},
		"time left open":       {profile(columns(), good, row(open, axdr.Unsigned(0), units(1)), row(axdr.Null(), axdr.Null(), units(1))), 1, dlms.ErrNoMoment, "2 rows without a time"},
		"null at first":        {profile(columns(), row(axdr.Null(), axdr.Null(), units(1)), good), 1, dlms.ErrNoMoment, "1 rows without a time"},
		"dated in 2099":        {profile(columns(), good, row(when(start().AddDate(73, 0, 0), 0), axdr.Unsigned(0), units(1))), 1, errFuture, "1 rows left out"},
		"a column's unit":      {profile(columns(dlmstest.Column{Class: 3, Code: obisOf("1-0:9.9.9"), ID: 2}), row(when(start(), 0), axdr.Unsigned(0), units(1), units(2))), 1, dlms.ObjectUndefined, "1-0:9.9.9: get 1-0:9.9.9*255/3:3"},
		"not a profile at all": {dlmstest.Attributes(7, obisOf(load), map[int8]func() axdr.Value{2: fixed(axdr.Array()), 3: fixed(axdr.Unsigned(1)), 4: fixed(units(900))}), 0, meter.ErrGarbled, "capture_objects"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), c.profile)})
			ask := since(t, start().Add(-time.Hour))
			ask.Clock = true // what comes after it is done
			got, err := r.driver(t, Config{}).Visit(t.Context(), ask)
			if err != nil || len(got.Rows) != c.rows || len(got.Cursors) != c.rows || got.Clock == nil || len(got.Failures) != 1 ||
				!errors.Is(got.Failures[0], c.is) || !strings.Contains(got.Failures[0].Error(), c.words) {
				t.Errorf("%v, %s", err, describe(got))
			}
		})
	}
	r := newRig(t, dlmstest.Options{Objects: objects("A1")})
	got, err := r.driver(t, Config{}).Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{{Channel: energy}, {Channel: "thd"}}})
	if err != nil || len(got.Failures) != 2 || !errors.Is(got.Failures[0], ErrNotCOSEM) || !errors.Is(got.Failures[1], ErrNotCOSEM) {
		t.Errorf("%v, %s", err, describe(got))
	}
}

// FuzzTable feeds any data to the table: it gives rows only of times that were
// asked for, only with values where the data has one, and the cursor never
// leaves the rows.
func FuzzTable(f *testing.F) {
	for _, v := range []axdr.Value{
		axdr.Array(row(when(start(), 0), axdr.Unsigned(3), units(1)), row(axdr.Null(), axdr.Null(), axdr.Null())),
		axdr.Array(row(when(start(), 0x81), axdr.OctetString("123"), axdr.Float32(1))),
		axdr.Array(axdr.Null()),
	} {
		b, err := v.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		data, _, err := axdr.Parse(b)
		if err != nil {
			return
		}
		l := &layout{Layout: dlms.NewLayout(dlms.Attribute{}, []dlms.Column{
			{Attribute: clockTime()},
			{Attribute: dlms.Attribute{Class: 1, Code: obisOf("0-0:96.10.1"), ID: 2}},
			{Attribute: dlms.Attribute{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 2}},
		}, quarter), columns: []column{{}, {}, {channel: energy}}}
		rows, err := l.Parse(data, dlms.Quirks{}, nil)
		if err != nil {
			return
		}
		from, until := start().Add(-time.Hour).UnixMilli(), start().Add(time.Hour).UnixMilli()
		tab := table{since: from, until: until, layout: l}
		tab.add(rows)
		newest := from
		for _, r := range tab.rows {
			newest = max(newest, r.Stamp.Time)
			if r.Stamp.Time <= from || r.Stamp.Time > until || r.Channel != energy ||
				(r.Value.Kind == meter.None) != (r.Quality&(meter.IntervalMissing|meter.Overflow) != 0) {
				t.Fatalf("%x: row %+v", b, r)
			}
		}
		if tab.since != newest || len(tab.rows) > len(rows) {
			t.Fatalf("%x: %d rows, cursor %d, newest %d", b, len(tab.rows), tab.since, newest)
		}
	})
}

// TestColumnsWaitForTheirScaler: a scaler that is not to be had at the moment
// costs no row of its column.
func TestColumnsWaitForTheirScaler(t *testing.T) {
	t.Parallel()
	at := start().Add(-3 * time.Hour)
	for title, c := range map[string]struct {
		spoilt string
		answer string // to a request for it; its third octet becomes the request's
		visits int    // that fail
	}{
		"temporary failure":        {"1-0:1.8.0*255/3:3", "\xC4\x01\x00\x01\x02", 1},
		"exception":                {"1-0:1.8.0*255/3:3", "\xD8\x02\x02", 1},
		"the register was refused": {"1-0:1.8.0*255/3:2", "\xC4\x01\x00\x01\x02", 0},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns(), 900, stored(at, start(), nil)))})
			m := r.driver(t, Config{})
			r.spoil(func(request, frame []byte) []byte {
				if name(request) == c.spoilt {
					answer := []byte(c.answer)
					if answer[0] == 0xC4 {
						answer[2] = request[2]
					}
					return append(append(frame[:6:6], 0, byte(len(answer))), answer...)
				}
				return frame
			})
			ask := since(t, at)
			ask.Groups = registers(t, "1-0:1.8.0").Groups
			ask.Groups[0].Lane = meter.Interval // before the profile
			for range c.visits {
				got, err := m.Visit(t.Context(), ask)
				if err != nil || len(got.Rows) != 0 || len(got.Cursors) != 0 || len(got.Failures) != 2 {
					t.Fatalf("%v, %s", err, describe(got))
				}
			}
			if c.visits > 0 {
				r.spoil(nil)
			}
			got, err := m.Visit(t.Context(), ask)
			got.Rows = slices.DeleteFunc(got.Rows, func(r meter.Row) bool { return r.Stamp.Source != meter.FromMeter })
			if err != nil || len(got.Rows) != 11 || got.Rows[0].Value.String() != "0.1" || len(got.Cursors) != 1 {
				t.Errorf("%v, %s", err, describe(got))
			}
		})
	}
}

// TestColumnWithoutScaler: one that never gives its scaler does not keep back
// the other columns for good.
func TestColumnWithoutScaler(t *testing.T) {
	t.Parallel()
	at := start().Add(-time.Hour)
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns(
		dlmstest.Column{Class: 3, Code: obisOf("1-0:16.7.0"), ID: 2}), 900, given(row(when(at.Add(quarter), 0), axdr.Unsigned(0), units(1), units(2)))))})
	m := r.driver(t, Config{})
	r.spoil(func(request, frame []byte) []byte {
		if name(request) == "1-0:16.7.0*255/3:3" {
			return append(frame[:6:6], 0, 3, 0xD8, 2, 2)
		}
		return frame
	})
	var rows []int
	for range 6 {
		got, err := m.Visit(t.Context(), since(t, at))
		if err != nil || len(got.Failures) != 1 {
			t.Fatalf("%v, %s", err, describe(got))
		}
		rows = append(rows, len(got.Rows))
	}
	if !slices.Equal(rows, []int{0, 0, 0, 1, 1, 1}) {
		t.Errorf("rows %v", rows)
	}
}

// TestProfileOfCutRanges: a meter that gives ten rows of a range at most loses
// none, neither up to now nor in a stretch of the past.
func TestProfileOfCutRanges(t *testing.T) {
	t.Parallel()
	from := start().AddDate(0, 0, -10)
	all := stored(from, start(), nil)
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns(), 900, func(s *dlmstest.Selection) []axdr.Value {
		rows := all(s)
		return rows[:min(10, len(rows))]
	}))})
	m := r.driver(t, Config{})
	for _, until := range []time.Time{{}, start().Add(-time.Hour)} {
		ask, want := since(t, from), 10*96-1
		if !until.IsZero() {
			ask.Profiles[0].Until = until.UnixMilli()
			want -= 3
		}
		got, err := m.Visit(t.Context(), ask)
		if err != nil || len(got.Rows) != want || len(got.Failures) != 0 {
			t.Errorf("until %v: %v, %d rows, want %d", until, err, len(got.Rows), want)
		}
	}
}
