package cosem

import (
	"context"
	"encoding/hex"
	"errors"
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

// actor is a meter that something is done to.
type actor struct {
	*rig
	*Meter
	breaker *dlmstest.Breaker
	clock   *turnable
}

// actorOptions is what it is like beside the breaker's mode.
type actorOptions struct {
	mode    byte
	serial  string // that it shows; "" is A1
	config  Config
	clock   *turnable // the gateway's and the meter's
	objects []dlmstest.Object
}

func newActor(t *testing.T, o actorOptions) actor {
	t.Helper()
	if o.clock == nil {
		o.clock = &turnable{at: start()}
	}
	a := actor{breaker: dlmstest.NewBreaker(o.mode, nil), clock: o.clock}
	if o.serial == "" {
		o.serial = "A1"
	}
	objects := append(objects(o.serial)[1:], o.objects...)
	objects = append(objects,
		dlmstest.Clock(obisOf("0-0:1.0.0"), func() time.Time { return time.UnixMilli(o.clock.now().Time).In(time.FixedZone("", 3600)) }),
		a.breaker.Object(obisOf("0-0:96.3.10")))
	a.rig = newRig(t, dlmstest.Options{Objects: objects, Clients: map[uint16]dlmstest.Login{17: {}}})
	if o.config.Client = 17; o.config.Serial == "" {
		o.config.Serial = "A1"
	}
	o.config.Now = a.clock.now
	o.config.pause = func(context.Context, time.Duration) error { return nil }
	a.Meter = a.driver(t, o.config)
	return a
}

// order has acts done, and gives what came of the first.
func (a actor) order(t *testing.T, acts ...meter.Act) (meter.Outcome, error) {
	t.Helper()
	got, err := a.Visit(t.Context(), meter.Ask{Acts: acts})
	if len(got.Done) != len(acts) {
		t.Fatalf("%d outcomes of %d acts; %v", len(got.Done), len(acts), err)
	}
	return got.Done[0], err
}

func value(facts []meter.Fact, name string) string {
	for _, f := range facts {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// begin brings a breaker into a state.
func begin(b *dlmstest.Breaker, how string) {
	switch how {
	case "disconnected":
		b.Object(obisOf("0-0:96.3.10")).Act(1, axdr.Integer(0))
	case "tripped":
		b.Trip()
	case "by hand":
		b.OpenByHand()
	}
}

// TestConnect has the rules of the control modes (IEC 62056-6-2, 4.5.8).
func TestConnect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode   byte
		before string
		direct bool
		result meter.Result
		state  string // after
		calls  int
	}{
		"mode 0 switches nobody":        {0, "connected", true, meter.Refused, "connected", 0},
		"mode 1 arms":                   {1, "disconnected", false, meter.Done, "ready for reconnection by hand", 1},
		"mode 2 energises, not allowed": {2, "disconnected", false, meter.Refused, "disconnected", 0},
		"mode 2 energises, allowed":     {2, "disconnected", true, meter.Done, "connected", 1},
		"mode 3 arms":                   {3, "disconnected", true, meter.Done, "ready for reconnection by hand", 1},
		"mode 4 energises, not allowed": {4, "disconnected", false, meter.Refused, "disconnected", 0},
		"mode 4 energises, allowed":     {4, "disconnected", true, meter.Done, "connected", 1},
		"mode 5 arms":                   {5, "disconnected", false, meter.Done, "ready for reconnection by hand", 1},
		"mode 6 arms":                   {6, "disconnected", false, meter.Done, "ready for reconnection by hand", 1},
		"it is connected":               {4, "connected", true, meter.Done, "connected", 0},
		"it is ready":                   {1, "tripped", true, meter.Done, "ready for reconnection by hand", 0},
		"tripped, mode 2":               {2, "tripped", true, meter.Refused, "ready for reconnection by hand", 0},
		"opened by hand, mode 2":        {2, "by hand", true, meter.Refused, "ready for reconnection by hand", 0},
		"no button, mode 4":             {4, "by hand", true, meter.Done, "connected", 0},
		"tripped, mode 4":               {4, "tripped", true, meter.Refused, "ready for reconnection by hand", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newActor(t, actorOptions{mode: c.mode})
			begin(a.breaker, c.before)
			o, err := a.order(t, meter.Connect{Direct: c.direct})
			if err != nil || o.Result != c.result || (o.Err != nil) != (c.result == meter.Refused) {
				t.Fatalf("%v (%v), %v", o.Result, o.Err, err)
			}
			if _, calls := a.breaker.Calls(); calls != c.calls || o.Sent != (c.calls > 0) {
				t.Errorf("reconnected %d times, want %d; sent %v", calls, c.calls, o.Sent)
			}
			facts := o.After
			if c.result == meter.Refused {
				facts = o.Before
			}
			if got := value(facts, "state"); got != c.state {
				t.Errorf("%q, want %q", got, c.state)
			}
		})
	}
}

// TestCustomerCloses has the one who is there close what was made ready.
func TestCustomerCloses(t *testing.T) {
	t.Parallel()
	a := newActor(t, actorOptions{mode: 3})
	begin(a.breaker, "disconnected")
	if a.breaker.Close(); value(look(t, a).After, "output") != "off" {
		t.Error("the button closes what was disconnected from afar")
	}
	if o, err := a.order(t, meter.Connect{}); err != nil || o.Result != meter.Done {
		t.Fatalf("%v (%v), %v", o.Result, o.Err, err)
	}
	if a.breaker.Close(); value(look(t, a).After, "output") != "on" {
		t.Error("the button does not close what was made ready")
	}
}

func look(t *testing.T, a actor) meter.Outcome {
	t.Helper()
	o, err := a.order(t, meter.Look{At: meter.Connect{}})
	if err != nil || o.Result != meter.Done || o.Sent {
		t.Fatalf("%v (%v), %v", o.Result, o.Err, err)
	}
	return o
}

func TestDisconnect(t *testing.T) {
	t.Parallel()
	for mode := range byte(7) {
		for _, before := range []string{"connected", "disconnected", "tripped"} {
			a := newActor(t, actorOptions{mode: mode})
			begin(a.breaker, before)
			calls, _ := a.breaker.Calls()
			o, err := a.order(t, meter.Disconnect{})
			after, _ := a.breaker.Calls()
			want, sent := meter.Done, 1
			if mode == 0 {
				want, sent = meter.Refused, 0
			} else if before == "disconnected" {
				sent = 0
			}
			if err != nil || o.Result != want || after-calls != sent {
				t.Errorf("mode %d, %s: %v (%v), %d times, %v", mode, before, o.Result, o.Err, after-calls, err)
			}
			if output, state := a.breaker.State(); mode != 0 && (output || state != 0) {
				t.Errorf("mode %d, %s: it is %v, %d", mode, before, output, state)
			}
		}
	}
}

// TestStuck has a meter that says that it did it.
func TestStuck(t *testing.T) {
	t.Parallel()
	a := newActor(t, actorOptions{mode: 4})
	a.breaker.Stick()
	o, err := a.order(t, meter.Disconnect{})
	if calls, _ := a.breaker.Calls(); err != nil || o.Result != meter.Failed || calls != 1 || value(o.After, "output") != "on" {
		t.Errorf("%v (%v) after %d orders: %v; %v", o.Result, o.Err, calls, o.After, err)
	}
}

// TestTrippedByItsLog has a meter that shows a trip as disconnected from afar,
// and says better in its log.
func TestTrippedByItsLog(t *testing.T) {
	t.Parallel()
	last := map[uint64]string{62: "disconnected-remotely", 64: "disconnected-locally"}
	for number, want := range map[uint8]meter.Result{62: meter.Done, 64: meter.Refused} {
		e := Events{Codes: map[obis.Code]map[uint64]string{obisOf("0-0:96.11.2"): last}}
		a := newActor(t, actorOptions{
			mode: 4, config: Config{Events: &e},
			objects: []dlmstest.Object{dlmstest.Data(obisOf("0-0:96.11.2"), fixed(axdr.Unsigned(number)))},
		})
		begin(a.breaker, "disconnected")
		if o, err := a.order(t, meter.Connect{Direct: true}); err != nil || o.Result != want {
			t.Errorf("last event %d: %v (%v), %v", number, o.Result, o.Err, err)
		}
	}
}

// TestNotProven has nothing done to who is not proven to be the meter.
func TestNotProven(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ configured, shows, ordered string }{
		"exchanged":             {"A1", "B2", ""},
		"ordered for another":   {"A1", "A1", "B2"},
		"not to be compared":    {"-", "A1", ""},
		"ordered, and exchange": {"A1", "B2", "B2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newActor(t, actorOptions{mode: 4, serial: c.shows, config: Config{Serial: c.configured}})
			if c.configured == "-" {
				a.cfg.Serial = ""
			}
			got, err := a.Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.Disconnect{}}, Serial: c.ordered})
			o := got.Done[0]
			if calls, _ := a.breaker.Calls(); err != nil || calls != 0 || o.Result != meter.Refused || !errors.Is(o.Err, meter.ErrNotProven) || o.Sent {
				t.Errorf("%v (%v), %d times, %v", o.Result, o.Err, calls, err)
			}
		})
	}
	a := newActor(t, actorOptions{mode: 4})
	a.cfg.Serial = "" // and the order names it
	if got, err := a.Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.Disconnect{}}, Serial: "a1"}); err != nil || got.Done[0].Result != meter.Done {
		t.Errorf("%v, %v", got.Done, err)
	}
}

// TestExchangedMeanwhile has another meter at the end of an association that was
// kept: it is asked who it is again.
func TestExchangedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, clears := range map[string][]meter.Clear{"the act first": nil, "something before": {{Channel: channel(t, "0-0:97.98.0"), Bits: 1}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var exchanged atomic.Bool
			a := newActor(t, actorOptions{mode: 4, serial: "-", objects: []dlmstest.Object{
				dlmstest.Data(obisOf("0-0:42.0.0"), func() axdr.Value {
					if exchanged.Load() {
						return axdr.OctetString("B2")
					}
					return axdr.OctetString("A1")
				}),
				dlmstest.Cells(1, obisOf("0-0:97.98.0"), map[int8]axdr.Value{2: axdr.Unsigned(0)}, 2),
			}})
			if o, err := a.order(t, meter.Look{At: meter.Disconnect{}}); err != nil || o.Result != meter.Done {
				t.Fatalf("%v (%v), %v", o.Result, o.Err, err)
			}
			exchanged.Store(true)
			got, err := a.Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.Disconnect{}}, Clears: clears})
			if calls, _ := a.breaker.Calls(); err != nil || got.Done[0].Result != meter.Refused || calls != 0 {
				t.Errorf("%+v, %d times, %v", got.Done, calls, err)
			}
		})
	}
}

// isAct says whether a request changes something.
func isAct(request []byte) bool { return request[0] == 0xC1 || request[0] == 0xC3 }

// TestCutAtEveryTurn ends the conversation at each turn of it: the meter is
// silent, hangs up, or answers nonsense, from then on for a while. It is never
// ordered twice, and what is not known is not claimed.
func TestCutAtEveryTurn(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"silent", "hangs up", "garbled"} {
		for turn := 1; turn <= 7; turn++ {
			t.Run(way+strings.Repeat("+", turn), func(t *testing.T) {
				t.Parallel()
				a := newActor(t, actorOptions{mode: 4, config: Config{Timeout: 200 * time.Millisecond}})
				n, acted, was := 0, false, false
				a.spoil(func(request, frame []byte) []byte {
					n++
					acted = acted || isAct(request)
					if n != turn {
						return frame
					}
					was = isAct(request)
					switch way {
					case "silent":
						return nil
					case "garbled":
						return append(frame[:8:8], 0x5A)
					}
					go a.rig.hangUp()
					return nil
				})
				o, err := a.order(t, meter.Disconnect{})
				calls, _ := a.breaker.Calls()
				a.rig.mu.Lock()
				defer a.rig.mu.Unlock()
				if calls > 1 {
					t.Fatalf("ordered %d times", calls)
				}
				output, _ := a.breaker.State()
				switch o.Result {
				case meter.Done:
					if output || was {
						t.Errorf("done, and output is %v; its answer was spoilt: %v", output, was)
					}
				case meter.Unknown:
					if !acted || err == nil && value(o.After, "output") != "off" {
						t.Errorf("unknown, answer spoilt: %v; %v, %v", was, o.After, err)
					}
				case meter.NotTried, meter.Refused:
					if calls != 0 || acted || o.Sent {
						t.Errorf("%v (%v), and it was ordered", o.Result, o.Err)
					}
				case meter.Pending, meter.Failed:
					t.Errorf("%v (%v)", o.Result, o.Err)
				}
				if was && o.Result != meter.Unknown {
					t.Errorf("%v (%v) where the answer was lost", o.Result, o.Err)
				}
			})
		}
	}
}

// TestDeadAfterAct has a meter that acts and is never heard of again.
func TestDeadAfterAct(t *testing.T) {
	t.Parallel()
	a := newActor(t, actorOptions{mode: 4})
	dead := false
	a.spoil(func(request, frame []byte) []byte {
		if dead = dead || isAct(request); dead {
			go a.rig.hangUp()
			return nil
		}
		return frame
	})
	o, err := a.order(t, meter.Disconnect{}, meter.Connect{Direct: true})
	if calls, again := a.breaker.Calls(); err == nil || o.Result != meter.Unknown || calls != 1 || again != 0 || !o.Sent || o.Err == nil {
		t.Fatalf("%v (%v), %d times, %v", o.Result, o.Err, calls, err)
	}
	a.spoil(nil)
	look, err := a.order(t, meter.Look{At: meter.Disconnect{}})
	if err != nil || look.Result != meter.Done || value(look.After, "state") != "disconnected" {
		t.Errorf("%+v, %v", look, err)
	}
}

// golden are the octets of orders, written by hand from the structures of IEC
// 62056-6-2 and the APDUs of IEC 62056-5-3, 9.5: C3 01 invoke-id class name
// method 01 data; C1 01 invoke-id class name attribute 00 data. The invoke-id
// and priority, which counts, is XX.
func golden() map[string]struct {
	act  meter.Act
	want []string
} {
	at := start().Add(time.Hour) // 2026-03-28 12:00 UTC: the meter is at UTC+1
	return map[string]struct {
		act  meter.Act
		want []string
	}{
		"disconnect": {meter.Disconnect{}, []string{"C301XX 0046 0000600 30AFF 01 01 0F00"}},
		"limit": {meter.Limit{
			Threshold: meter.UintValue(23, 2), Unit: meter.Watt, Emergency: &meter.Emergency{Profile: 7, Start: at, Length: time.Hour},
		}, []string{
			"C101XX 0047 0000110000FF 09 00  01 01 12 0007",
			"C101XX 0047 0000110000FF 05 00  06 000008FC",
			// 2026-03-28 is a Saturday; 14:00:00.00, UTC+1 is -60, status 0
			"C101XX 0047 0000110000FF 08 00  02 03 12 0007 090C 07EA031C060E000000FFC400 06 00000E10",
		}},
		"special day": {meter.SpecialDays{Days: []meter.SpecialDay{{Index: 3, Year: 0xFFFF, Month: 12, Day: 26, Profile: 2}}}, []string{
			"C301XX 000B 00000B0000FF 01 01  02 03 12 0003 0905 FFFF0C1AFF 11 02",
		}},
		"special days": {meter.SpecialDays{Replace: true, Days: []meter.SpecialDay{{Index: 1, Year: 2026, Month: 5, Day: 1, Profile: 2}}}, []string{
			"C101XX 000B 00000B0000FF 02 00  01 01 02 03 12 0001 0905 07EA0501FF 11 02",
		}},
		"demand reset": {meter.Script{Selector: 1}, []string{"C301XX 0009 00000A0001FF 01 01 12 0001"}},
		"calendar": {meter.Calendar{
			CalName: "C27", Seasons: []meter.Season{{Name: "S", Year: 0xFFFF, Month: 1, Day: 1, Week: "W"}},
			Weeks: []meter.Week{{Name: "W", Days: [7]uint8{1, 1, 1, 1, 1, 2, 2}}},
			Days:  []meter.DayProfile{{ID: 1, Switches: []meter.TariffSwitch{{Hour: 6, Minute: 30, Script: 2}}}, {ID: 2}},
		}, []string{
			"C101XX 0014 00000D0000FF 0A 00  090C FFFFFFFFFFFFFFFFFF8000FF",
			"C101XX 0014 00000D0000FF 09 00  01 02 0202 1101 0101 0203 0904 061E0000 0906 00000A0064FF 120002  0202 1102 0100",
			"C101XX 0014 00000D0000FF 08 00  01 01 0208 0901 57 1101 1101 1101 1101 1101 1102 1102",
			"C101XX 0014 00000D0000FF 07 00  01 01 0203 0901 53 090C FFFF0101FF000000008000FF 0901 57",
			"C101XX 0014 00000D0000FF 06 00  0903 433237",
			"C301XX 0014 00000D0000FF 01 01 0F00",
		}},
		"image": {meter.Image{Identifier: "FW2", Size: 5, Octets: strings.NewReader("abcde"), Activate: true}, []string{
			"C301XX 0012 00002C0000FF 01 01  0202 0903 465732 06 00000005",
			"C301XX 0012 00002C0000FF 02 01  0202 06 00000000 0904 61626364",
			"C301XX 0012 00002C0000FF 02 01  0202 06 00000001 0901 65",
			"C301XX 0012 00002C0000FF 03 01  0F00",
			"C301XX 0012 00002C0000FF 04 01  0F00",
		}},
		"image, later": {meter.Image{Identifier: "F", Size: 1, Octets: strings.NewReader("a"), Activate: true, At: at}, []string{
			"C301XX 0012 00002C0000FF 01 01  0202 0901 46 06 00000001",
			"C301XX 0012 00002C0000FF 02 01  0202 06 00000000 0901 61",
			"C301XX 0012 00002C0000FF 03 01  0F00",
			"C101XX 0016 00000F0002FF 04 00  0101 0202 0904 0E000000 0905 07EA031CFF",
		}},
	}
}

func fullObjects(now func() time.Time) []dlmstest.Object {
	objects := []dlmstest.Object{
		dlmstest.Register(obisOf("1-0:1.7.0"), 0, 27, fixed(axdr.DoubleLongUnsigned(800))),
		dlmstest.Limiter(obisOf("0-0:17.0.0"), dlmstest.Column{Class: 3, Code: obisOf("1-0:1.7.0"), ID: 2}, axdr.DoubleLongUnsigned(9000), now),
		dlmstest.ImageTransfer(obisOf("0-0:44.0.0"), 4, nil),
		dlmstest.Scripts(obisOf("0-0:10.0.1"), []dlmstest.ScriptStep{}),
	}
	return append(objects, dlmstest.Calendar(obisOf("0-0:10.0.100"), obisOf("0-0:10.0.1"), now)...)
}

func TestGoldenOrders(t *testing.T) {
	t.Parallel()
	for name, c := range golden() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := &turnable{at: start()}
			a := newActor(t, actorOptions{mode: 4, clock: clock, objects: fullObjects(func() time.Time { return clock.at })})
			var sent []string
			a.spoil(func(request, frame []byte) []byte {
				if isAct(request) {
					s := hex.EncodeToString(request)
					sent = append(sent, s[:4]+"xx"+s[6:])
				}
				return frame
			})
			o, err := a.order(t, c.act)
			if err != nil || o.Result != meter.Done {
				t.Fatalf("%v (%v), %v", o.Result, o.Err, err)
			}
			for i, want := range c.want {
				want = strings.ToLower(strings.ReplaceAll(want, " ", ""))
				if i >= len(sent) || sent[i] != want {
					t.Errorf("sent\n\t%s, want\n\t%s", strings.Join(sent, "\n\t"), want)
					break
				}
			}
			if len(sent) != len(c.want) {
				t.Errorf("sent %d requests, want %d", len(sent), len(c.want))
			}
		})
	}
}

// TestRefusedByMeter has an association that may not do anything.
func TestRefusedByMeter(t *testing.T) {
	t.Parallel()
	a := newActor(t, actorOptions{mode: 4})
	a.spoil(func(request, frame []byte) []byte {
		if request[0] == 0xC3 {
			return append(frame[:6:6], 0, 5, 0xC7, 1, request[2], byte(dlms.ReadWriteDenied), 0)
		}
		return frame
	})
	o, err := a.order(t, meter.Disconnect{})
	if err != nil || o.Result != meter.Refused || !errors.Is(o.Err, dlms.ReadWriteDenied) || o.Sent {
		t.Errorf("%v (%v), %v", o.Result, o.Err, err)
	}
	if o, err := a.order(t, meter.Limit{}); err != nil || o.Result != meter.Refused || !errors.Is(o.Err, meter.ErrCannotAct) {
		t.Errorf("%v (%v), %v", o.Result, o.Err, err)
	}
}
