package cosem

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

func notification(t *testing.T, n dlms.Notification) []byte {
	t.Helper()
	b, err := n.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// data gives a data-notification.
func data(t *testing.T, v axdr.Value) []byte {
	t.Helper()
	return notification(t, dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 1, Value: v})
}

func octets(s string) axdr.Value {
	c := obisOf(s)
	return axdr.OctetString(string(c[:]))
}

func pushObject(class uint16, code string, id int8, index uint16, more ...axdr.Value) axdr.Value {
	return axdr.Structure(append([]axdr.Value{axdr.LongUnsigned(class), octets(code), axdr.Integer(id), axdr.LongUnsigned(index)}, more...)...)
}

func scaler(n int8, unit uint8) axdr.Value {
	return axdr.Structure(axdr.Integer(n), axdr.Enum(unit))
}

// base is what the rows of pushes begin with.
func pushBase() meter.Row {
	return meter.Row{Meter: "m1", Lane: meter.Instant, Stamp: meter.Stamp{Time: start().UnixMilli(), Bound: 20}}
}

// print prints rows in a line each: serial, time, channel, value, unit, quality.
func printPushed(rows []meter.Row) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%s %s %v %s=%s%v %v\n", r.Serial, r.Stamp.UTC().Format("01-02T15:04"), r.Stamp.Source, r.Channel.Short(), r.Value, r.Unit, r.Quality)
	}
	return b.String()
}

func TestParsePushed(t *testing.T) {
	t.Parallel()
	moment := start().Add(-time.Hour)
	for name, c := range map[string]struct {
		apdu []byte
		want string
	}{
		"push object list": {
			data(t, axdr.Structure(
				axdr.Array(pushObject(40, "0-0:25.9.0", 2, 0), pushObject(8, "0-0:1.0.0", 2, 0), pushObject(1, "0-0:96.1.0", 2, 0),
					pushObject(3, "1-0:1.8.0", 3, 0), pushObject(3, "1-0:1.8.0", 2, 0), pushObject(3, "1-0:32.7.0", 2, 0)),
				when(moment, dlms.StatusInvalid), axdr.OctetString("A1"), scaler(-1, 30), axdr.DoubleLongUnsigned(15), axdr.LongUnsigned(230))),
			"A1 03-28T11:00 meter 0-0:1.0.0=2026-03-28T11:00:00+00:00 meter-clock-invalid\n" +
				"A1 03-28T11:00 meter 0-0:96.1.0=A1 meter-clock-invalid\n" +
				"A1 03-28T11:00 meter 1-0:1.8.0=1.5Wh meter-clock-invalid\n" +
				"A1 03-28T11:00 meter 1-0:32.7.0=230 meter-clock-invalid\n",
		},
		"push object list that leaves itself out, of a newer version": {
			data(t, axdr.Structure(
				axdr.Array(pushObject(3, "1-0:1.8.0", 2, 0, axdr.Structure(axdr.Enum(0), axdr.Null())), pushObject(7, "1-0:99.1.0", 2, 0), pushObject(3, "1-0:2.8.0", 2, 1)),
				axdr.DoubleLongUnsigned(15), axdr.Array(axdr.Structure(axdr.Unsigned(1), axdr.Null())), axdr.Unsigned(9))),
			" 03-28T12:00 gateway 1-0:1.8.0=15 good\n" +
				" 03-28T12:00 gateway push.3.1.1=1 good\n" +
				" 03-28T12:00 gateway push.3.1.2= interval-missing\n" +
				" 03-28T12:00 gateway push.4=9 good\n",
		},
		"a list of another length": {
			data(t, axdr.Structure(axdr.Array(pushObject(3, "1-0:1.8.0", 2, 0)), axdr.Unsigned(1), axdr.Unsigned(2))),
			" 03-28T12:00 gateway push.1.1.1=3 good\n" +
				" 03-28T12:00 gateway push.1.1.2=0100010800ff good\n" +
				" 03-28T12:00 gateway push.1.1.3=2 good\n" + // the number of an attribute is no reading
				" 03-28T12:00 gateway push.1.1.4=0 good\n" +
				" 03-28T12:00 gateway push.2=1 good\n" +
				" 03-28T12:00 gateway push.3=2 good\n",
		},
		"codes before values": {
			data(t, axdr.Structure(axdr.VisibleString("maker"), octets("1-0:1.7.0"), axdr.DoubleLongUnsigned(321),
				octets("0-0:96.1.0"), axdr.VisibleString("A2"), octets("1-0:2.8.0"))),
			"A2 03-28T12:00 gateway push.1=maker good\n" +
				"A2 03-28T12:00 gateway 1-0:1.7.0=321 good\n" +
				"A2 03-28T12:00 gateway 0-0:96.1.0=A2 good\n" +
				"A2 03-28T12:00 gateway push.6=0100020800ff good\n",
		},
		"codes and units": {
			data(t, axdr.Array(
				axdr.Structure(octets("1-0:1.7.0"), axdr.LongUnsigned(321), scaler(1, 27)),
				axdr.Structure(octets("0-0:1.0.0"), when(moment, 0)),
				axdr.Structure(axdr.OctetString("123456"), axdr.Delta(axdr.TagDeltaLong, -3)))),
			" 03-28T11:00 meter 1-0:1.7.0=3210W good\n" +
				" 03-28T11:00 meter 0-0:1.0.0=2026-03-28T11:00:00+00:00 good\n" +
				" 03-28T11:00 meter push.3.1=313233343536 good\n" +
				" 03-28T11:00 meter push.3.2=-3 good\n",
		},
		"one value": {data(t, axdr.Unsigned(5)), " 03-28T12:00 gateway push=5 good\n"},
		"nothing":   {data(t, axdr.Structure()), ""},
		"its own time goes before a clock's": {notification(t, dlms.Notification{
			Kind: dlms.DataNotificationKind, HasTime: true, Time: dlms.DateTimeOf(moment),
			Value: axdr.Structure(octets("0-0:1.0.0"), when(start().Add(-time.Minute), 0)),
		}), " 03-28T11:00 meter 0-0:1.0.0=2026-03-28T11:59:00+00:00 good\n"},
		"event": {notification(t, dlms.Notification{
			Kind: dlms.EventNotificationKind, Attribute: dlms.Attribute{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 2}, Value: axdr.Unsigned(5),
		}), " 03-28T12:00 gateway 1-0:1.8.0=5 good\n"},
		"event of many values": {notification(t, dlms.Notification{
			Kind: dlms.EventNotificationKind, Attribute: dlms.Attribute{Class: 7, Code: obisOf("0-0:99.98.0"), ID: 2}, Value: axdr.Array(axdr.Unsigned(5)),
		}), " 03-28T12:00 gateway push.1=5 good\n"},
		"report": {notification(t, dlms.Notification{
			Kind: dlms.InformationReportKind, Names: []uint16{0xFA00, 8}, Values: []axdr.Value{axdr.Unsigned(5), axdr.Array(axdr.Unsigned(6))},
		}), " 03-28T12:00 gateway name.fa00=5 good\n 03-28T12:00 gateway name.0008.1=6 good\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := ParsePushed(c.apdu, pushBase(), time.UTC, nil)
			if got := printPushed(p.Rows); err != nil || got != c.want || p.Confirm != nil {
				t.Errorf("%v, answer %x, got\n%swant\n%s", err, p.Confirm, got, c.want)
			}
			for n := range c.apdu {
				if _, err := ParsePushed(c.apdu[:n], pushBase(), time.UTC, nil); !errors.Is(err, dlms.ErrMalformed) {
					t.Errorf("cut at %d: %v", n, err)
				}
			}
		})
	}
}

func TestAConfirmedPushIsAnswered(t *testing.T) {
	t.Parallel()
	n := dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 1<<30 | 0xABCDEF, Value: axdr.Unsigned(5)}
	p, err := ParsePushed(notification(t, n), pushBase(), time.UTC, nil)
	if err != nil || string(p.Confirm) != "\x10\x40\xAB\xCD\xEF\x00" {
		t.Errorf("%x, %v", p.Confirm, err)
	}
	n.HasTime, n.Time = true, dlms.DateTimeOf(start())
	p, err = ParsePushed(notification(t, n), pushBase(), time.UTC, nil)
	if want := "\x10\x40\xAB\xCD\xEF\x0C" + dlmstest.DateTime(start()); err != nil || string(p.Confirm) != want {
		t.Errorf("%x, %v; want %x", p.Confirm, err, want)
	}
}

// Whatever comes is refused as malformed, or gives rows that name their
// channel and are dated.
func FuzzParsePushed(f *testing.F) {
	f.Add([]byte("\x0F\x40\x00\x00\x01\x00\x02\x02\x09\x06\x01\x00\x01\x08\x00\xFF\x06\x00\x00\x04\xD2"))
	f.Add([]byte("\x0F\x00\x00\x00\x01\x00\x02\x02\x01\x01\x02\x04\x12\x00\x03\x09\x06\x01\x00\x01\x08\x00\xFF\x0F\x02\x12\x00\x00\x11\x05"))
	f.Add([]byte("\xC2\x00\x00\x03\x01\x00\x01\x08\x00\xFF\x02\x06\x00\x00\x04\xD2"))
	f.Add([]byte("\x18\x00\x02\x02\x2B\xC8\x02\xFA\x08\x02\x11\x05\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePushed(b, pushBase(), time.UTC, nil)
		if err != nil {
			if !errors.Is(err, dlms.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if len(p.Rows) > len(b) {
			t.Fatalf("%d rows of %d octets", len(p.Rows), len(b))
		}
		for _, r := range p.Rows {
			if r.Channel == "" || r.Meter != "m1" || r.Stamp.Source == meter.FromGateway && r.Stamp.Time != start().UnixMilli() {
				t.Fatalf("%+v", r)
			}
		}
	})
}

func TestMayRead(t *testing.T) {
	t.Parallel()
	for version, want := range map[uint8][]uint8{0: {1, 3, 4, 6}, 2: {1, 3, 4, 6}, 3: {1, 3, 5, 7}} {
		var got []uint8
		for mode := range uint8(8) {
			if mayRead(mode, version) {
				got = append(got, mode)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("version %d: %v, want %v", version, got, want)
		}
	}
}

func TestObjectsOfAMeter(t *testing.T) {
	t.Parallel()
	m := newRig(t, dlmstest.Options{Objects: objects("A1")}).driver(t, Config{})
	got, err := m.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(got, func(o Object) bool { return o.Class == 3 && o.Code == obisOf("1-0:1.8.0") })
	if at < 0 || !got[at].HasRights || !slices.Equal(got[at].Readable, []int8{1, 2, 3}) || got[at].ClassName() != "register" {
		t.Errorf("%+v", got)
	}
	if visited, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(visited.Rows) != 1 || visited.Identity.Found != "A1" {
		t.Errorf("a visit after it: %v, %s", err, describe(visited))
	}
}

// TestObjectsOfAnOldMeter asks a meter that has the association by short names.
func TestObjectsOfAnOldMeter(t *testing.T) {
	t.Parallel()
	old := dlmstest.Attributes(dlms.ClassAssociationSN, obisOf("0-0:40.0.0"), map[int8]func() axdr.Value{2: fixed(axdr.Array(
		axdr.Structure(axdr.Long(0x2BC8), axdr.LongUnsigned(8), axdr.Unsigned(1), octets("0-0:1.0.0")),
	))})
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), old)})
	refused := 0
	r.spoil(func(request, frame []byte) []byte {
		if request[0] == 0xC0 && request[4] == dlms.ClassAssociationLN {
			refused++
			return append(slices.Clone(frame[:6]), 0, 5, 0xC4, 1, request[2], 1, byte(dlms.ObjectUndefined))
		}
		return frame
	})
	got, err := r.driver(t, Config{}).Objects(t.Context())
	if err != nil || len(got) != 1 || got[0].Class != 8 || got[0].Version != 1 || got[0].HasRights || refused != 1 {
		t.Errorf("%+v, %v, refused %d times", got, err, refused)
	}
}

func TestRowsBetweenTwoTimes(t *testing.T) {
	t.Parallel()
	var rows []axdr.Value
	for i := range 8 {
		rows = append(rows, row(when(start().Add(time.Duration(i)*quarter), 0), axdr.Unsigned(0), units(i)))
	}
	for name, give := range map[string]func(*dlmstest.Selection) []axdr.Value{
		"selected": func(s *dlmstest.Selection) (some []axdr.Value) {
			for i, r := range rows {
				if at := start().Add(time.Duration(i) * quarter); s == nil || !at.Before(s.From) && !at.After(s.To) {
					some = append(some, r)
				}
			}
			return some
		},
		"all of them, whatever is asked": given(rows...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := append(objects("A1"), dlmstest.Profile(obisOf(load), columns(), 900, give))
			m := newRig(t, dlmstest.Options{Objects: o}).driver(t, Config{Now: (&turnable{at: start().Add(24 * time.Hour)}).now})
			p := meter.Profile{Channel: channel(t, load), Lane: meter.Interval, Since: start().Add(2*quarter).UnixMilli() - 1}
			var got []meter.Row
			err := m.Rows(t.Context(), p, start().Add(4*quarter).UnixMilli(), func(g meter.Got) error {
				got = append(got, g.Rows...)
				return nil
			})
			if err != nil || len(got) != 3 || got[0].Value.Bits != 2 || got[2].Value.Bits != 4 {
				t.Errorf("%v\n%s", err, short(got))
			}
			stop := errors.New("enough")
			if err := m.Rows(t.Context(), p, start().UnixMilli(), func(meter.Got) error { return stop }); !errors.Is(err, stop) {
				t.Error(err)
			}
		})
	}
}
