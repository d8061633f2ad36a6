package cosem

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

func always(meter.Stamp, meter.ClockOffset) error { return nil }

// TestAClockIsToldTheTimeAsItTellsIt: date-times of known meters, put right by
// some time.
func TestAClockIsToldTheTimeAsItTellsIt(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		shown string
		by    time.Duration
		want  string
	}{
		"summer, as amsreader 809 has it": {"07E8060F0614172D00FF8880", 5 * time.Second, "07E8060F0614173200FF8880"},
		"winter, no weekday":              {"07E40101FF00030000FFC400", -4 * time.Second, "07E40101FF00023800FFC400"},
		"sign turned around":              {"07EA071603101E0A00007880", 3 * time.Second, "07EA071603101E0D00007880"},
		"deviation not specified":         {"07E2020CFF00000000800000", 90 * time.Second, "07E2020CFF00011E00800000"},
		"with hundredths":                 {"07EA0716030C000019FFC400", 1250 * time.Millisecond, "07EA0716030C000132FFC400"},
		"without, rounded":                {"07EA0716030C000000FFC400", 1499 * time.Millisecond, "07EA0716030C000100FFC400"},
		"hundredths not specified":        {"07EA0716030C0000FFFFC400", 2 * time.Second, "07EA0716030C0002FFFFC400"},
		"invalid and doubtful":            {"07EA0716030C000000FFC483", 2 * time.Second, "07EA0716030C000200FFC480"},
		"no status":                       {"07EA0716030C000000FFC4FF", 2 * time.Second, "07EA0716030C000200FFC4FF"},
		"into another year":               {"07E90C1F03173B3A00FFC400", 5 * time.Second, "07EA01010400000300FFC400"},
	} {
		b, err := hex.DecodeString(c.shown)
		if err != nil {
			t.Fatal(err)
		}
		d, err := dlms.ParseDateTime(string(b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := moved(d, c.by).AppendBinary(nil)
		if want, _ := hex.DecodeString(c.want); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %s put right by %v is %X, want %s", title, c.shown, c.by, got, c.want)
		}
	}
}

// wrongClock is a meter whose clock is off, in a zone, and the bytes of what it is
// told.
func wrongClock(t *testing.T, off time.Duration, clock *turnable, o dlmstest.Options) (*rig, *dlmstest.Wrong, func() string) {
	t.Helper()
	zone := time.FixedZone("", 3600)
	wrong := &dlmstest.Wrong{}
	now := func() time.Time { return time.UnixMilli(clock.now().Time).In(zone).Add(off) }
	o.Clients = map[uint16]dlmstest.Login{16: {}}
	o.Objects = append([]dlmstest.Object{dlmstest.SettableClock(obisOf("0-0:1.0.0"), now, wrong)}, objects("A1")[1:]...)
	var told []byte
	o.Tamper = func(request, frame []byte) []byte {
		if request[0] == 0xC1 || request[0] == 0xC3 {
			told = bytes.Clone(request)
		}
		return frame
	}
	r := newRig(t, o)
	return r, wrong, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return hex.EncodeToString(told)
	}
}

func TestSetAndShift(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		method meter.ClockMethod
		off    time.Duration
		want   string // on the wire, but for the invoke id
		left   time.Duration
	}{
		"set":      {meter.WriteTime, 75 * time.Second, "c101c1000800000100 00ff0200090c07ea031c060d000000ffc400", 0},
		"set back": {meter.WriteTime, -8 * time.Second, "c101c1000800000100 00ff0200090c07ea031c060d000000ffc400", 0},
		"shift":    {meter.ShiftTime, 75 * time.Second, "c301c1000800000100 00ff060110ffb5", 0},
		"shift on": {meter.ShiftTime, -8400 * time.Millisecond, "c301c1000800000100 00ff06011000 09", 600 * time.Millisecond},
		"too far":  {meter.ShiftTime, 2 * time.Hour, "", 2 * time.Hour},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			clock := &turnable{at: start()}
			r, wrong, told := wrongClock(t, c.off, clock, dlmstest.Options{})
			m := r.driver(t, Config{Now: clock.now})
			got, err := m.Visit(t.Context(), meter.Ask{Clock: true, SetClock: &meter.SetClock{Method: c.method, May: always}})
			if err != nil || got.ClockSet == nil || (got.ClockSet.Err == nil) != (c.want != "") || got.ClockSet.Sent != (c.want != "") {
				t.Fatalf("%v, %s, %+v", err, describe(got), got.ClockSet)
			}
			want := bytes.ReplaceAll([]byte(c.want), []byte(" "), nil)
			if sent := told(); len(sent) != len(want) || len(sent) > 6 && (sent[:4] != string(want[:4]) || sent[6:] != string(want[6:])) {
				t.Errorf("told %s, want %s", sent, want)
			}
			if off := c.off + wrong.By(); off != c.left {
				t.Errorf("the clock is off by %v, want %v", off, c.left)
			}
			if c.want == "" {
				if !errors.Is(got.ClockSet.Err, meter.ErrClockMethod) {
					t.Errorf("error %v", got.ClockSet.Err)
				}
				return
			}
			if after := got.ClockSet.After; after == nil || after.Offset.Abs() > time.Second || got.ClockSet.Before.Offset.Round(time.Second) != c.off.Round(time.Second) && c.left == 0 {
				t.Errorf("read back %+v of %+v", after, got.ClockSet)
			}
		})
	}
}

// TestATimeThatCameLate: what the meter was told when a frame was lost and
// repeated was old by then; it is told once more, and no more than that.
func TestATimeThatCameLate(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		after time.Duration // on the way
		left  time.Duration
	}{
		"late": {10 * time.Second, 0},
		"not":  {4 * time.Second, -4 * time.Second},
		"long": {2 * time.Minute, -2 * time.Minute},
	} {
		clock := &turnable{at: start()}
		r, wrong, _ := wrongClock(t, 75*time.Second, clock, dlmstest.Options{})
		m := r.driver(t, Config{Timeout: 5 * time.Second, Now: func() meter.Stamp {
			now := clock.now()
			now.Mono = now.Time // all that passes counts
			return now
		}})
		asked := 0
		got, err := m.Visit(t.Context(), meter.Ask{SetClock: &meter.SetClock{May: func(meter.Stamp, meter.ClockOffset) error {
			asked++
			clock.turn(c.after)
			return nil
		}}})
		set := got.ClockSet
		if err != nil || set == nil || set.Err != nil || !set.Sent || set.After == nil || asked != 1 {
			t.Fatalf("%s: %v, %+v, asked %d times", title, err, set, asked)
		}
		if left := 75*time.Second + wrong.By(); left != c.left || set.After.Offset != c.left || set.Before.Offset != 75*time.Second {
			t.Errorf("%s: the clock is off by %v, want %v; told as %+v", title, left, c.left, set)
		}
	}
}

// TestAClockThatMayNotBeSet: nothing is sent that order does not let, or to another
// meter, or twice.
func TestAClockThatMayNotBeSet(t *testing.T) {
	t.Parallel()
	clock := &turnable{at: start()}
	r, wrong, told := wrongClock(t, time.Minute, clock, dlmstest.Options{})
	no := errors.New("no")
	var asked meter.ClockOffset
	order := &meter.SetClock{May: func(_ meter.Stamp, found meter.ClockOffset) error { asked = found; return no }}
	got, err := r.driver(t, Config{Now: clock.now}).Visit(t.Context(), meter.Ask{SetClock: order})
	if err != nil || got.ClockSet == nil || !errors.Is(got.ClockSet.Err, no) || got.ClockSet.Sent || asked.Offset != time.Minute || told() != "" {
		t.Errorf("%v, %+v, asked with %+v, told %s", err, got.ClockSet, asked, told())
	}
	got, err = r.driver(t, Config{Now: clock.now, Serial: "B2"}).Visit(t.Context(), meter.Ask{SetClock: &meter.SetClock{May: always}})
	if err != nil || got.ClockSet == nil || got.ClockSet.Err == nil || got.ClockSet.Sent || told() != "" || wrong.By() != 0 {
		t.Errorf("another meter: %v, %+v, told %s", err, got.ClockSet, told())
	}
}

// TestAMeterThatDoesNotLetItsClockBeSet says so, and is read on.
func TestAMeterThatDoesNotLetItsClockBeSet(t *testing.T) {
	t.Parallel()
	clock := &turnable{at: start()}
	o := dlmstest.Options{Objects: objects("A1"), Clients: map[uint16]dlmstest.Login{16: {}}} // with a clock that cannot be set
	r := newRig(t, o)
	m := r.driver(t, Config{Now: clock.now})
	ask := registers(t, "1-0:1.8.0")
	ask.SetClock = &meter.SetClock{May: always}
	got, err := m.Visit(t.Context(), ask)
	var refusal dlms.AccessError
	if err != nil || got.ClockSet == nil || !got.ClockSet.Sent || !errors.As(got.ClockSet.Err, &refusal) || len(got.Rows) != 1 {
		t.Errorf("%v, %+v, %s", err, got.ClockSet, describe(got))
	}
}

// TestClockBesideRegisters: the clock is in the list of registers, and costs no
// turn; a meter that does not like it there is read all the same.
func TestClockBesideRegisters(t *testing.T) {
	t.Parallel()
	clock := &turnable{at: start()}
	r := newRig(t, listing())
	m := r.driver(t, Config{Now: clock.now})
	ask := registers(t, "1-0:1.8.0", "1-0:2.8.0")
	if _, err := m.Visit(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	r.asked()
	ask.ClockToo = true
	got, err := m.Visit(t.Context(), ask)
	if asked := r.asked(); err != nil || got.Clock == nil || got.Clock.Offset != 5*time.Second || len(got.Rows) != 2 || len(asked) != 1 {
		t.Errorf("%v, %s, asked %v", err, describe(got), asked)
	}

	o := listing()
	o.Objects = objects("A1")[1:]
	without := newRig(t, o)
	m = without.driver(t, Config{Now: clock.now})
	for range 2 {
		got, err = m.Visit(t.Context(), ask)
		if err != nil || got.Clock != nil || len(got.Rows) != 2 || len(got.Failures) != 0 {
			t.Errorf("without a clock: %v, %s", err, describe(got))
		}
	}
	single := newRig(t, dlmstest.Options{Objects: objects("A1")})
	m = single.driver(t, Config{Now: clock.now, Quirks: dlms.Quirks{ListMax: 1}})
	if got, err = m.Visit(t.Context(), ask); err != nil || got.Clock != nil {
		t.Errorf("without lists: %v, %s", err, describe(got))
	}
	ask.Clock = true
	if got, err = m.Visit(t.Context(), ask); err != nil || got.Clock == nil {
		t.Errorf("without lists, due: %v, %s", err, describe(got))
	}
}

// TestAStepWhileTheClockIsRead makes the comparison no surer than it is.
func TestAStepWhileTheClockIsRead(t *testing.T) {
	t.Parallel()
	clock := dlmstest.Clock(obisOf("0-0:1.0.0"), func() time.Time { return start().UTC() })
	r := newRig(t, dlmstest.Options{Objects: append([]dlmstest.Object{clock}, objects("A1")[1:]...)})
	calls := 0
	now := func() meter.Stamp {
		calls++
		s := meter.Stamp{Time: start().UnixMilli(), Mono: 1000 + int64(calls), Boot: 1}
		if calls > 3 {
			s.Time += 30_000
		}
		return s
	}
	got, err := r.driver(t, Config{Now: now}).Visit(t.Context(), meter.Ask{Clock: true})
	if err != nil || got.Clock == nil || got.Clock.Offset.Abs() > got.Clock.Uncertainty {
		t.Errorf("%v, %+v", err, got.Clock)
	}
}

// TestAnHourThatComesTwice: a meter that tells neither deviation nor daylight
// saving is not an hour off in either pass.
func TestAnHourThatComesTwice(t *testing.T) {
	t.Parallel()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-07-01T10:00:00Z"} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, status := range []byte{0x00, 0x80, 0xFF} {
			clock := &turnable{at: now}
			o := listing()
			o.Objects = append([]dlmstest.Object{dlmstest.Attributes(8, obisOf("0-0:1.0.0"), map[int8]func() axdr.Value{2: func() axdr.Value {
				b := []byte(dlmstest.DateTime(now.In(zone).Add(3 * time.Second)))
				b[9], b[10], b[11] = 0x80, 0, status
				return axdr.OctetString(string(b))
			}})}, objects("A1")[1:]...)
			m := newRig(t, o).driver(t, Config{Now: clock.now, TimeZone: zone})
			got, err := m.Visit(t.Context(), meter.Ask{Clock: true})
			if err != nil || got.Clock == nil || got.Clock.Offset != 3*time.Second {
				t.Errorf("%s, status %02X: %v, %+v, %s", at, status, err, got.Clock, describe(got))
			}
		}
	}
}
