package dlms

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

func notifications() map[string]struct {
	hex  string
	want Notification
} {
	at := DateTime{Year: 2024, Month: 6, Day: 15, Weekday: 6, Hour: 20, Minute: 23, Second: 45, Hundredths: 1, Deviation: -120, Status: 0x80}
	const atHex = "07E8060F0614172D01FF8880"
	list := axdr.Structure(axdr.OctetString("\x01\x00\x01\x08\x00\xFF"), axdr.DoubleLongUnsigned(1234))
	const listHex = "0202 0906 0100010800FF 06000004D2"
	return map[string]struct {
		hex  string
		want Notification
	}{
		"data": {"0F C0010203 00" + listHex, Notification{Kind: DataNotificationKind, Invoke: 0xC0010203, Value: list}},
		"data with time": {"0F 00000001 0C" + atHex + listHex, Notification{
			Kind: DataNotificationKind, Invoke: 1, Time: at, HasTime: true, Value: list,
		}},
		"event": {"C2 00 0003 0100010800FF 02 06000004D2", Notification{
			Kind: EventNotificationKind, Attribute: energy(), Value: axdr.DoubleLongUnsigned(1234),
		}},
		"event with time": {"C2 01 0C" + atHex + "0007 0000636200FF 02 1105", Notification{
			Kind: EventNotificationKind, Time: at, HasTime: true,
			Attribute: Attribute{Class: 7, Code: obis.Code{0, 0, 99, 98, 0, 255}, ID: 2}, Value: axdr.Unsigned(5),
		}},
		"report": {"18 00 02 02 2BC8 02 FA08 02 1105 00", Notification{
			Kind: InformationReportKind, Names: []uint16{0x2BC8, 0xFA08}, Values: []axdr.Value{axdr.Unsigned(5), axdr.Null()},
		}},
		"report with time": {"18 01 0F 32303234303631353230323334355A 01 02 2BC8 01 1203E8", Notification{
			Kind: InformationReportKind, TimeText: "20240615202345Z", Names: []uint16{0x2BC8}, Values: []axdr.Value{axdr.LongUnsigned(1000)},
		}},
	}
}

func TestNotification(t *testing.T) {
	t.Parallel()
	for name, c := range notifications() {
		b := unhex(t, c.hex)
		got, err := ParseNotification(append(bytes.Clone(b), 0xAA))
		if err != nil || fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", c.want) {
			t.Errorf("%s: %#v, %v; want %#v", name, got, err, c.want)
		}
		again, err := c.want.AppendBinary([]byte{0xEE})
		if err != nil || !bytes.Equal(again[1:], b) {
			t.Errorf("%s: encoded %x, %v; want %x", name, again, err, b)
		}
		for n := range b {
			if got, err := ParseNotification(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s cut at %d: %+v, %v", name, n, got, err)
			}
		}
	}
}

func TestNotificationsOfOtherMakes(t *testing.T) {
	t.Parallel()
	if n, err := ParseNotification(unhex(t, "0F00000001 09 0C 07E8060F0614172D01FF8880 1105")); err != nil || !n.HasTime || !n.Value.Equal(axdr.Unsigned(5)) {
		t.Errorf("a date-time with a tag: %+v, %v", n, err)
	}
	if n, err := ParseNotification(unhex(t, "0F00000001 03 414243 1105")); err != nil || n.HasTime || !n.Value.Equal(axdr.Unsigned(5)) {
		t.Errorf("a date-time that is none: %+v, %v", n, err)
	}
	for name, bad := range map[string]string{
		"not a notification":   "C401C1001105",
		"nothing":              "",
		"more names than room": "18 00 82FFFF 02 2BC8",
		"another choice":       "18 00 01 04 2BC8 01 00",
		"more values":          "18 00 01 02 2BC8 02 00 00",
		"unknown data":         "0F00000001 00 63",
	} {
		if n, err := ParseNotification(unhex(t, bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
	for name, n := range map[string]Notification{
		"another kind":    {Kind: 9},
		"names alone":     {Kind: InformationReportKind, Names: []uint16{1}},
		"data of no type": {Kind: InformationReportKind, Names: []uint16{1}, Values: []axdr.Value{{Tag: 99}}},
	} {
		if b, err := n.AppendBinary(nil); err == nil {
			t.Errorf("%s encoded as %x", name, b)
		}
	}
}

func TestNotificationsAreHandedOn(t *testing.T) {
	t.Parallel()
	client, _ := granted(t, everything, 0, "0F00000001 00 1105", "18 00 01 02 2BC8 01 1105", "C2 00 0003 0100010800FF 02 1106", "C401C1001107")
	var got []NotificationKind
	client.options.Notify = func(apdu []byte) {
		n, err := ParseNotification(apdu)
		if err != nil {
			t.Error(err)
		}
		got = append(got, n.Kind)
	}
	if v, err := client.Get(t.Context(), energy()); err != nil || !v.Equal(axdr.Unsigned(7)) {
		t.Errorf("%+v, %v", v, err)
	}
	if fmt.Sprintf("%v", got) != "[data-notification information-report event-notification]" {
		t.Errorf("handed on %v", got)
	}
}

func TestException(t *testing.T) {
	t.Parallel()
	for in, c := range map[string]struct {
		want  ExceptionError
		words string
	}{
		"D80101":         {ExceptionError{State: 1, Service: 1}, "exception: service not allowed: operation not possible"},
		"D80202":         {ExceptionError{State: 2, Service: 2}, "exception: service unknown: service not supported"},
		"D80106":         {ExceptionError{State: 1, Service: 6}, "exception: service not allowed: invocation counter error"},
		"D8010601020304": {ExceptionError{State: 1, Service: 6, Counter: 0x01020304, HasCounter: true}, "exception: service not allowed: invocation counter error: the meter expects 16909060 or more"},
	} {
		client, _ := granted(t, everything, 0, in)
		_, err := client.Get(t.Context(), energy())
		var got *ExceptionError
		if !errors.As(err, &got) || *got != c.want || got.Error() != c.words {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if b, err := got.AppendBinary(nil); err != nil || fmt.Sprintf("%X", b) != in {
			t.Errorf("%s: encoded %X, %v", in, b, err)
		}
	}
	for _, bad := range []string{"D8", "D801", "D80106010203"} {
		if e, err := parseException(unhex(t, bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", bad, e, err)
		}
	}
}

func FuzzNotification(f *testing.F) {
	for _, c := range notifications() {
		f.Add(unhex(f, c.hex))
	}
	f.Fuzz(func(t *testing.T, apdu []byte) {
		n, err := ParseNotification(apdu)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%x: %v", apdu, err)
			}
			return
		}
		out, err := n.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%x: accepted as %+v, and %v", apdu, n, err)
		}
		again, err := ParseNotification(out)
		if err != nil {
			t.Fatalf("%x: its canonical form %x: %v", apdu, out, err)
		}
		if twice, err := again.AppendBinary(nil); err != nil || !bytes.Equal(twice, out) {
			t.Fatalf("%x: the canonical form is not stable: %x, %x, %v", apdu, out, twice, err)
		}
	})
}
