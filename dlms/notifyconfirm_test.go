package dlms

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"gridgate/dlms/axdr"
)

func TestConfirmation(t *testing.T) {
	t.Parallel()
	at := DateTime{Year: 2024, Month: 6, Day: 15, Weekday: 6, Hour: 20, Minute: 23, Second: 45, Hundredths: 1, Deviation: -120, Status: 0x80}
	for want, n := range map[string]Notification{
		"10 4000ABCD 00": {Kind: DataNotificationKind, Invoke: 0x4000ABCD, Value: axdr.Null()},
		"10 C1000001 0C 07E8060F0614172D01FF8880": {Kind: DataNotificationKind, Invoke: 0xC1000001, HasTime: true, Time: at, Value: axdr.Null()},
	} {
		b := n.AppendConfirmation([]byte{0xEE})[1:]
		if !n.Confirmed() || !bytes.Equal(b, unhex(t, want)) {
			t.Errorf("%x, want %s", b, want)
		}
		if invoke, err := ParseConfirmation(b); err != nil || invoke != n.Invoke {
			t.Errorf("%x, %v", invoke, err)
		}
		for i := range b {
			if _, err := ParseConfirmation(b[:i]); !errors.Is(err, ErrMalformed) {
				t.Errorf("cut at %d: %v", i, err)
			}
		}
	}
	for _, n := range []Notification{{Kind: DataNotificationKind, Invoke: 0xBFFFFFFF}, {Kind: EventNotificationKind, Invoke: 1 << 30}} {
		if n.Confirmed() {
			t.Errorf("%+v waits", n)
		}
	}
	if n := (Notification{Invoke: 0xC1000001}); n.Number() != 1 {
		t.Errorf("number %d", n.Number())
	}
}

func TestTextTime(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 2*60*60)
	for text, want := range map[string]string{
		"20240615202345Z":       "2024-06-15T20:23:45Z",
		"20240615202345.5Z":     "2024-06-15T20:23:45.5Z",
		"20240615202345,5+0200": "2024-06-15T18:23:45.5Z",
		"20240615202345-03":     "2024-06-15T23:23:45Z",
		"20240615202345":        "2024-06-15T18:23:45Z",
		"202406152023":          "2024-06-15T18:23:00Z",
		"2024061520":            "2024-06-15T18:00:00Z",
		"":                      "", "yesterday": "", "20241399000000Z": "",
	} {
		at, ok := Notification{TimeText: text}.TextTime(zone)
		if ok != (want != "") || ok && at.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %v, %v", text, at, ok)
		}
	}
}
