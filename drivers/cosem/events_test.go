package cosem

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// names are those of a model.
func names() *Events {
	return &Events{
		Codes: map[obis.Code]map[uint64]string{{0, 0, 96, 11, 1, 255}: {40: "terminal-cover-opened", 41: "terminal-cover-closed"}},
		Bits:  map[obis.Code]map[uint8]string{{0, 0, 97, 98, 0, 255}: {0: "clock-invalid", 13: "fraud-attempt"}},
	}
}

const alarmRegister = "0-0:97.98.0"

// alarmed is a client that may set.
func alarmed(o ...dlmstest.Object) dlmstest.Options {
	return dlmstest.Options{
		Clients: map[uint16]dlmstest.Login{16: {}},
		Objects: append(objects("A1"), o...),
	}
}

// What is stored is taken out of an alarm register, and a bit that came
// meanwhile stays: it is read after, and before everything else.
func TestClears(t *testing.T) {
	t.Parallel()
	register := dlmstest.Cells(1, obisOf(alarmRegister), map[int8]axdr.Value{2: axdr.DoubleLongUnsigned(0x2001)}, 2)
	r := newRig(t, alarmed(register))
	m := r.driver(t, Config{Serial: "A1"})
	c := channel(t, alarmRegister)
	ask := meter.Ask{Groups: []meter.Group{
		{Lane: meter.Instant, Channels: []meter.Channel{energy}}, {Lane: meter.Alarm, Channels: []meter.Channel{c}},
	}}
	got, err := m.Visit(t.Context(), ask)
	if err != nil || len(got.Rows) != 2 || got.Rows[0].Channel != c || got.Rows[0].Value.Bits != 0x2001 {
		t.Fatalf("%v, %s", err, describe(got))
	}
	if register.Write(2, axdr.DoubleLongUnsigned(0x2101)) != dlmstest.Success {
		t.Fatal("the meter has no new alarm")
	}
	ask.Clears = []meter.Clear{{Channel: c, Bits: 0x2001}}
	got, err = m.Visit(t.Context(), ask)
	if err != nil || len(got.Failures) != 0 || got.Rows[0].Value.Bits != 0x100 {
		t.Errorf("%v, %s", err, describe(got))
	}
	// What is not set any more needs no request.
	r.asked()
	if got, err = m.Visit(t.Context(), ask); err != nil || len(got.Failures) != 0 || got.Rows[0].Value.Bits != 0x100 {
		t.Errorf("%v, %s", err, describe(got))
	}
	for _, request := range r.asked() {
		if strings.Contains(request, "set") {
			t.Errorf("asked %s", request)
		}
	}
}

func TestClearsThatFail(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		object dlmstest.Object
		serial string
		is     error
		kept   bool
	}{
		"refused":       {dlmstest.Cells(1, obisOf(alarmRegister), map[int8]axdr.Value{2: axdr.DoubleLongUnsigned(3)}), "A1", dlms.ReadWriteDenied, true},
		"no number":     {dlmstest.Cells(1, obisOf(alarmRegister), map[int8]axdr.Value{2: axdr.OctetString("\x03")}, 2), "A1", errNotBits, false},
		"not there":     {dlmstest.Data(obisOf("0-0:97.98.1"), fixed(axdr.Unsigned(0))), "A1", dlms.ObjectUndefined, false},
		"another meter": {dlmstest.Cells(1, obisOf(alarmRegister), map[int8]axdr.Value{2: axdr.DoubleLongUnsigned(3)}, 2), "B2", errExchange, true},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			m := newRig(t, alarmed(c.object)).driver(t, Config{Serial: c.serial})
			ch := channel(t, alarmRegister)
			got, err := m.Visit(t.Context(), meter.Ask{
				Clears: []meter.Clear{{Channel: ch, Bits: 1}},
				Groups: []meter.Group{{Lane: meter.Alarm, Channels: []meter.Channel{ch, energy}}},
			})
			if err != nil || len(got.Failures) == 0 || got.Failures[0].Channel != ch || !errors.Is(got.Failures[0], c.is) {
				t.Fatalf("%v, %s", err, describe(got))
			}
			has := slices.ContainsFunc(got.Rows, func(r meter.Row) bool { return r.Channel == ch && r.Value.Bits == 3 })
			if has != c.kept {
				t.Errorf("%s", describe(got))
			}
		})
	}
}

// Beside the meter's own code stands what the model calls it.
func TestEventLogIsNamed(t *testing.T) {
	t.Parallel()
	const log = "0-0:99.98.1"
	at := start().Add(-time.Hour)
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(log), []dlmstest.Column{
		{Class: 8, Code: obisOf("0-0:1.0.0"), ID: 2}, {Class: 1, Code: obisOf("0-0:96.11.1"), ID: 2},
	}, 0, given(
		row(when(at, 0), axdr.Unsigned(40)), row(when(at.Add(time.Minute), 0), axdr.Unsigned(41)),
		row(when(at.Add(2*time.Minute), 0), axdr.Unsigned(99)), row(when(at.Add(2*time.Minute), 0), axdr.Unsigned(40)),
	)))})
	m := r.driver(t, Config{Serial: "A1", Events: names()})
	got, err := m.Visit(t.Context(), meter.Ask{Profiles: []meter.Profile{{
		Channel: channel(t, log), Lane: meter.Alarm, Since: at.Add(-time.Minute).UnixMilli(),
	}}})
	want := `03-28T11:00/0 0-0:96.11.1=40 good
03-28T11:00/0 event.terminal-cover-opened=40 good
03-28T11:01/0 0-0:96.11.1=41 good
03-28T11:01/0 event.terminal-cover-closed=41 good
03-28T11:02/0 0-0:96.11.1=99 good
03-28T11:02/1 0-0:96.11.1=40 good
03-28T11:02/1 event.terminal-cover-opened=40 good
`
	if s := short(got.Rows); err != nil || s != want {
		t.Errorf("%v, got\n%swant\n%s", err, s, want)
	}
	for _, r := range got.Rows {
		if r.Lane != meter.Alarm {
			t.Errorf("%+v", r)
		}
	}
}

func TestEventsBeside(t *testing.T) {
	t.Parallel()
	rows := []meter.Row{
		{Channel: channel(t, alarmRegister), Value: meter.UintValue(0x2003, 0), Lane: meter.Alarm, Unit: meter.NoUnit},
		{Channel: energy, Value: meter.UintValue(40, 0), Unit: meter.WattHour},
		{Channel: "0-0:96.11.1*255/1:2", Value: meter.TextValue("40")},
		{Channel: "0-0:96.11.1*255/1:2", Value: meter.UintValue(41, 0), Lane: meter.Instant},
	}
	got := names().beside(rows)
	var channels []string
	for _, r := range got {
		channels = append(channels, string(r.Channel)+"="+r.Value.String()+" "+r.Lane.String())
	}
	want := []string{
		"0-0:97.98.0*255/1:2=8195 alarm", "event.clock-invalid=0 alarm", "event.fraud-attempt=13 alarm",
		"1-0:1.8.0*255/3:2=40 alarm", "0-0:96.11.1*255/1:2=40 alarm", "0-0:96.11.1*255/1:2=41 instant", "event.terminal-cover-closed=41 alarm",
	}
	if !slices.Equal(channels, want) {
		t.Errorf("got %q\nwant %q", channels, want)
	}
	var none *Events
	if got := none.beside(rows); len(got) != len(rows) {
		t.Errorf("without names: %v", got)
	}
}

// A stretch with an end gives a cursor at its end when all of it came, also
// when there is nothing in it.
func TestProfileUntil(t *testing.T) {
	t.Parallel()
	at := start().Add(-10 * time.Hour)
	var rows []axdr.Value
	for i := range 12 {
		rows = append(rows, row(when(at.Add(time.Duration(i)*quarter), 0), axdr.Unsigned(0), units(1000+i)))
	}
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns(), 900, given(rows...)))})
	m := r.driver(t, Config{Serial: "A1"})
	for title, c := range map[string]struct {
		since, until time.Time
		rows         int
		cursor       time.Time
	}{
		"some":             {at.Add(quarter), at.Add(5*quarter + 7*time.Second), 4, at.Add(5*quarter + 7*time.Second)},
		"to a row":         {at, at.Add(2 * quarter), 2, at.Add(2 * quarter)},
		"none":             {at.Add(-10 * time.Hour), at.Add(-5 * time.Hour), 0, at.Add(-5 * time.Hour)},
		"behind the last":  {at, at.Add(5 * time.Hour), 11, at.Add(5 * time.Hour)},
		"into the future":  {at, start().Add(time.Hour), 11, at.Add(11 * quarter)},
		"parts of seconds": {at, at.Add(quarter + time.Millisecond), 1, at.Add(quarter + time.Millisecond)},
		"empty":            {at, at, 0, at},
		"backwards":        {at.Add(quarter), at, 0, time.Time{}},
	} {
		ask := since(t, c.since)
		ask.Profiles[0].Until = c.until.UnixMilli()
		got, err := m.Visit(t.Context(), ask)
		if err != nil || len(got.Failures) != 0 || len(got.Rows) != c.rows {
			t.Errorf("%s: %v, %s", title, err, describe(got))
			continue
		}
		if c.cursor.IsZero() != (len(got.Cursors) == 0) || len(got.Cursors) == 1 && got.Cursors[0].Time != c.cursor.UnixMilli() {
			t.Errorf("%s: cursors %+v, want %v", title, got.Cursors, c.cursor)
		}
	}
}

// What a meter pushes is named as what is read of it.
func TestPushedEventsAreNamed(t *testing.T) {
	t.Parallel()
	var rows []meter.Row
	r := &Receiver{
		Now: (&turnable{at: start()}).now, Strict: true, Meters: []Known{{ID: "m1", Serial: "A1", Events: names()}},
		Got: func(_ Sender, p Pushed) (func() error, error) {
			rows = p.Rows
			return nil, nil
		},
	}
	apdu := []byte{0x0F, 0, 0, 0, 7, 0, 2, 6, 9, 6, 0, 0, 96, 1, 0, 255, 10, 2, 'A', '1'}
	apdu = append(apdu, 9, 6, 0, 0, 97, 98, 0, 255, 6, 0, 0, 0x20, 0x02, 9, 6, 0, 0, 96, 11, 1, 255, 17, 40)
	if _, _, err := r.take(Sender{}, apdu); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, r.Channel.Short()+"="+r.Value.String()+" "+r.Lane.String()+" "+r.Serial)
	}
	want := []string{
		"0-0:96.1.0=A1 instant A1", "0-0:97.98.0=8194 alarm A1", "event.fraud-attempt=13 alarm A1",
		"0-0:96.11.1=40 alarm A1", "event.terminal-cover-opened=40 alarm A1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// A stretch with more rows than a visit takes is read on from where it was left.
func TestProfileUntilInParts(t *testing.T) {
	t.Parallel()
	at := start().Add(-100 * time.Hour)
	var rows []axdr.Value
	for i := range maxRows + 700 {
		rows = append(rows, row(when(at.Add(time.Duration(i)*time.Minute), 0), axdr.Unsigned(0), units(i)))
	}
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns(), 60,
		func(s *dlmstest.Selection) (picked []axdr.Value) {
			for i, v := range rows {
				if when := at.Add(time.Duration(i) * time.Minute); s == nil || !when.Before(s.From) && !when.After(s.To) {
					picked = append(picked, v)
				}
			}
			return picked
		}))})
	m := r.driver(t, Config{Serial: "A1"})
	ask := since(t, at.Add(-time.Second))
	ask.Profiles[0].Until = at.Add(90 * time.Hour).UnixMilli()
	first, err := m.Visit(t.Context(), ask)
	if err != nil || len(first.Cursors) != 1 || first.Cursors[0].Time >= ask.Profiles[0].Until || len(first.Rows) < maxRows ||
		first.Cursors[0].Time != first.Rows[len(first.Rows)-1].Stamp.Time {
		t.Fatalf("%v, %d rows, %+v", err, len(first.Rows), first.Cursors)
	}
	ask.Profiles[0].Since = first.Cursors[0].Time
	rest, err := m.Visit(t.Context(), ask)
	if err != nil || len(first.Rows)+len(rest.Rows) != len(rows) || len(rest.Cursors) != 1 || rest.Cursors[0].Time != ask.Profiles[0].Until {
		t.Errorf("%v, %d and %d rows of %d, %+v", err, len(first.Rows), len(rest.Rows), len(rows), rest.Cursors)
	}
}
