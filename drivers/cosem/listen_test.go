package cosem

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

// heard is a receiver whose rows and complaints a test looks at.
type heard struct {
	Receiver
	pushes []Pushed
	rows   string
	errs   []error
	refuse error
	stored func() error
}

func newHeard() *heard {
	h := &heard{}
	h.Now = func() meter.Stamp { return meter.Stamp{Time: start().UnixMilli(), Bound: 20} }
	h.Got = func(_ Sender, p Pushed) (func() error, error) {
		if h.refuse != nil {
			return nil, h.refuse
		}
		h.pushes = append(h.pushes, p)
		h.rows += printPushed(p.Rows)
		return h.stored, nil
	}
	h.Bad = func(_ Sender, err error) { h.errs = append(h.errs, err) }
	return h
}

// only says that there was one complaint, which is want; nil is none at all.
func (h *heard) only(t *testing.T, want error) {
	t.Helper()
	switch {
	case want == nil && len(h.errs) > 0, want != nil && (len(h.errs) != 1 || !errors.Is(h.errs[0], want)):
		t.Errorf("complaints %v, want %v", h.errs, want)
	}
	h.errs = nil
}

func at(s string) Sender { return Sender{Net: netip.MustParseAddrPort(s)} }

func testKey(t testing.TB, text string) security.Key {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	k, err := security.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Keys and titles of the Green Book's examples.
func testKeys(t testing.TB) security.Keys {
	t.Helper()
	return security.Keys{
		Encryption:     testKey(t, "000102030405060708090A0B0C0D0E0F"),
		Authentication: testKey(t, "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"),
	}
}

const pusher, us = "GRG00001", "GRGCLNT1"

// sealer protects as a meter does, each time with the next counter.
func sealer(t testing.TB, title string, policy security.Policy) *security.Sender {
	t.Helper()
	keys := testKeys(t)
	c := security.NewCounter(&security.Memory{}, security.Title([]byte(title)), keys.Encryption, 1)
	return &security.Sender{Policy: policy, Title: security.Title([]byte(title)), Keys: keys, Counter: c}
}

func seal(t testing.TB, s *security.Sender, apdu []byte, general bool) []byte {
	t.Helper()
	b, err := s.Protect(nil, apdu, security.Unicast, general)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func event(t *testing.T, n uint8) []byte {
	return notification(t, dlms.Notification{
		Kind: dlms.EventNotificationKind, Attribute: dlms.Attribute{Class: 1, Code: obisOf("0-0:96.11.0"), ID: 2}, Value: axdr.Unsigned(n),
	})
}

// TestCipheredInEveryForm takes events and reports in the form of their
// service, and what has none in the general ones.
func TestCipheredInEveryForm(t *testing.T) {
	t.Parallel()
	report := notification(t, dlms.Notification{
		Kind: dlms.InformationReportKind, TimeText: "20260301060000Z", Names: []uint16{0xFA00}, Values: []axdr.Value{axdr.Unsigned(5)},
	})
	for name, c := range map[string]struct {
		plain   []byte
		general bool
		tag     byte
		want    string
	}{
		"glo-event-notification":  {event(t, 7), false, 0xCA, " 03-28T12:00 gateway 0-0:96.11.0=7 identity-not-proven\n"},
		"glo-information-report":  {report, false, 0x38, " 03-01T06:00 meter name.fa00=5 identity-not-proven\n"},
		"general-glo, an event":   {event(t, 7), true, 0xDB, " 03-28T12:00 gateway 0-0:96.11.0=7 identity-not-proven\n"},
		"general-glo, by default": {data(t, axdr.Unsigned(5)), false, 0xDB, " 03-28T12:00 gateway push=5 identity-not-proven\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := seal(t, sealer(t, pusher, security.AuthenticatedEncrypted), c.plain, c.general)
			if b[0] != c.tag {
				t.Fatalf("tag %02X, want %02X", b[0], c.tag)
			}
			h := newHeard()
			h.Protection = Protection{Keys: testKeys(t), Policy: security.Authenticated}
			in := intake{Receiver: &h.Receiver}
			if b[0] != security.TagGeneralGlobal {
				in.take(at("10.0.0.7:1"), b)
				h.only(t, ErrTitleMissing)
			}
			h.MeterTitle = security.Title([]byte(pusher))
			in.take(at("10.0.0.7:1"), b)
			h.only(t, nil)
			if h.rows != c.want {
				t.Errorf("got\n%swant\n%s", h.rows, c.want)
			}
			isEvent := c.plain[0] != 0x0F
			if lane := h.pushes[0].Rows[0].Lane; (lane == meter.Alarm) != isEvent {
				t.Errorf("lane %v", lane)
			}
			for n := range b { // cut short, it is never taken
				in.take(at("10.0.0.7:1"), b[:n])
			}
			if len(h.pushes) != 1 || len(h.errs) != len(b) {
				t.Errorf("%d taken, %d complaints of %d", len(h.pushes), len(h.errs), len(b))
			}
		})
	}
}

// TestDedicatedKeys says so of what only an association could open.
func TestDedicatedKeys(t *testing.T) {
	t.Parallel()
	s := sealer(t, pusher, security.AuthenticatedEncrypted)
	s.Keys.Dedicated = testKey(t, "0F0E0D0C0B0A09080706050403020100")
	b, err := s.Protect(nil, event(t, 1), security.Dedicated, false)
	if err != nil || b[0] != 0xD2 {
		t.Fatalf("%x, %v", b, err)
	}
	h := newHeard()
	h.Protection, h.MeterTitle = Protection{Keys: testKeys(t), Policy: security.Authenticated}, security.Title([]byte(pusher))
	in := intake{Receiver: &h.Receiver}
	in.take(at("10.0.0.7:1"), b)
	h.only(t, security.ErrKey)
	h.Keys.Dedicated = s.Keys.Dedicated
	in.take(at("10.0.0.7:1"), b)
	h.only(t, nil)
	if len(h.pushes) != 1 {
		t.Error("not taken")
	}
}

// TestACipheredConfirmation answers as the meter has to have it: in the general
// form, with a counter of ours that rises.
func TestACipheredConfirmation(t *testing.T) {
	t.Parallel()
	for _, policy := range []security.Policy{security.Authenticated, security.AuthenticatedEncrypted} {
		h := newHeard()
		h.Protection = Protection{Keys: testKeys(t), Policy: security.Authenticated}
		in := intake{Receiver: &h.Receiver}
		n := dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 1<<30 | 7, Value: axdr.Unsigned(5)}
		meterSide := sealer(t, pusher, policy)
		first := seal(t, meterSide, notification(t, n), true)
		if answers := in.take(at("10.0.0.7:1"), first); len(answers) != 0 {
			t.Errorf("answered %x without a title", answers)
		}
		h.only(t, ErrUnanswered)
		h.Title, h.Counters = security.Title([]byte(us)), &knownStore{}
		opener := security.Receiver{
			Policy: policy, Title: h.Title, Keys: h.Keys, Direction: security.FromClient, Window: new(security.Window),
		}
		for i := range uint32(3) {
			n.Invoke = 1<<30 | 8 + i
			sealed := seal(t, meterSide, notification(t, n), true)
			answers := in.take(at("10.0.0.7:1"), sealed)
			h.only(t, nil)
			if len(answers) != 1 {
				t.Fatalf("answers %x", answers)
			}
			plain, err := opener.Unprotect(nil, answers[0])
			invoke, perr := dlms.ParseConfirmation(plain)
			if err != nil || perr != nil || invoke != n.Invoke {
				t.Errorf("%v: answered %x, %v, %v", policy, plain, err, perr)
			}
			// The same octets again: the same answer, and no counter is used.
			again := in.take(at("10.0.0.7:2"), sealed)
			h.only(t, ErrRepeated)
			if len(again) != 1 || !bytes.Equal(again[0], answers[0]) {
				t.Errorf("to the same again %x", again)
			}
		}
		// Repeated under a new counter: answered anew, and not handed on.
		answers := in.take(at("10.0.0.7:1"), seal(t, meterSide, notification(t, n), true))
		h.only(t, ErrRepeated)
		if _, err := opener.Unprotect(nil, answers[0]); err != nil || len(h.pushes) != 4 {
			t.Errorf("%v, %d handed on", err, len(h.pushes))
		}
		if last, ok := opener.Window.Last(h.Title, h.Keys.Encryption.ID(), security.FromClient); !ok || last < 1<<29 {
			t.Errorf("counters at %d do not begin by the time", last)
		}
	}
}

// knownStore is a store of counters that knows none.
type knownStore struct{ security.Memory }

func (*knownStore) KnownCounters(security.Title, security.KeyID) (bool, error) { return false, nil }

// TestWhatIsNotStoredIsNotConfirmed.
func TestWhatIsNotStoredIsNotConfirmed(t *testing.T) {
	t.Parallel()
	h := newHeard()
	in := intake{Receiver: &h.Receiver}
	b := notification(t, dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 1<<30 | 7, Value: axdr.Unsigned(5)})
	h.refuse = errors.New("disk full")
	if answers := in.take(at("10.0.0.7:1"), b); len(answers) != 0 {
		t.Errorf("answered %x", answers)
	}
	h.only(t, h.refuse)
	h.refuse = nil
	for i, want := range []error{nil, ErrRepeated} {
		answers := in.take(at("10.0.0.7:1"), b)
		if h.only(t, want); len(answers) != 1 || answers[0][0] != 0x10 || len(h.pushes) != 1 {
			t.Errorf("%d: %x, %d handed on", i, answers, len(h.pushes))
		}
	}
}

// TestWhatIsBeingStoredIsNotConfirmed: who sends again meanwhile is not answered
// before it is stored, and is handed on again if that fails.
func TestWhatIsBeingStoredIsNotConfirmed(t *testing.T) {
	t.Parallel()
	h := newHeard()
	in := intake{Receiver: &h.Receiver}
	b := notification(t, dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 1<<30 | 7, Value: axdr.Unsigned(5)})
	full := errors.New("disk full")
	for n, result := range []error{full, nil} {
		h.stored = func() error { return result }
		answers, first := in.begin(at("10.0.0.7:1"), b)
		if len(answers) != 0 || first == nil {
			t.Fatalf("answered %x before it is stored", answers)
		}
		if answers, second := in.begin(at("10.0.0.7:2"), b); len(answers) != 0 || second != nil || len(h.pushes) != n+1 {
			t.Errorf("sent again meanwhile: %x, handed on %d times", answers, len(h.pushes))
		}
		h.only(t, ErrRepeated)
		answers = h.finish(first, nil)
		if h.only(t, result); (len(answers) == 1) != (result == nil) {
			t.Errorf("answered %x when storing gave %v", answers, result)
		}
	}
}

func TestRepeated(t *testing.T) {
	t.Parallel()
	num := func(invoke uint32, v uint8, dated bool) []byte {
		return notification(t, dlms.Notification{
			Kind: dlms.DataNotificationKind, Invoke: invoke, HasTime: dated, Time: dlms.DateTimeOf(start()), Value: axdr.Unsigned(v),
		})
	}
	for name, c := range map[string]struct {
		first, second []byte
		from          string
		want          error
	}{
		"with a number":            {num(7, 1, false), num(7, 1, false), "10.0.0.7:2", ErrRepeated},
		"with a time":              {num(0, 1, true), num(0, 1, true), "10.0.0.7:2", ErrRepeated},
		"with neither":             {num(0, 1, false), num(0, 1, false), "10.0.0.7:1", nil},
		"another value":            {num(7, 1, true), num(7, 2, true), "10.0.0.7:1", nil},
		"another number":           {num(7, 1, true), num(8, 1, true), "10.0.0.7:1", nil},
		"another meter's the same": {num(7, 1, true), num(7, 1, true), "10.0.0.8:1", nil},
	} {
		h := newHeard()
		in := intake{Receiver: &h.Receiver}
		in.take(at("10.0.0.7:1"), c.first)
		h.only(t, nil)
		in.take(at(c.from), c.second)
		if (len(h.errs) == 1) != (c.want != nil) || c.want != nil && !errors.Is(h.errs[0], c.want) {
			t.Errorf("%s: %v", name, h.errs)
		}
	}
	// Memory is bounded: what is old enough is forgotten.
	h := newHeard()
	in := intake{Receiver: &h.Receiver}
	for i := range uint32(3 * maxRecent) {
		in.take(at("10.0.0.7:1"), num(i+1, 1, false))
	}
	if h.only(t, nil); len(h.recent.ring) != maxRecent || len(h.recent.answers) != maxRecent {
		t.Errorf("%d and %d remembered", len(h.recent.ring), len(h.recent.answers))
	}
}

// block is one of general block transfer.
func block(control byte, n uint16, octets []byte) []byte {
	return append([]byte{0xE0, control, byte(n >> 8), byte(n), 0, 0, byte(len(octets))}, octets...)
}

func TestPushesInBlocks(t *testing.T) {
	t.Parallel()
	whole := data(t, axdr.Structure(axdr.VisibleString("0123456789"), axdr.Unsigned(5)))
	const rows = " 03-28T12:00 gateway push.1=0123456789 identity-not-proven\n 03-28T12:00 gateway push.2=5 identity-not-proven\n"
	one, two, three := block(0x40, 1, whole[:8]), block(0x40, 2, whole[8:14]), block(0xC0, 3, whole[14:])
	for name, c := range map[string]struct {
		blocks [][]byte
		oneWay bool
		want   string
		errs   int
	}{
		"in order":               {[][]byte{one, two, three}, true, rows, 0},
		"each twice":             {[][]byte{one, one, two, two, three}, true, rows, 0},
		"one lost":               {[][]byte{one, three, one, two, three}, true, rows, 1},
		"the first lost":         {[][]byte{two, three, one, two, three}, true, rows, 1},
		"the last lost":          {[][]byte{one, two, one, two, three}, true, rows, 1},
		"one lost, asked for":    {[][]byte{one, three, two, three}, false, rows, 0},
		"another in between":     {[][]byte{one, data(t, axdr.Unsigned(9)), two, three}, true, " 03-28T12:00 gateway push=9 identity-not-proven\n" + rows, 0},
		"cut off":                {[][]byte{one, two}, true, "", 1},
		"acknowledgements alone": {[][]byte{block(0x80, 0, nil), block(0x80, 1, nil)}, false, "", 0},
		"half a block":           {[][]byte{one[:5]}, false, "", 1},
	} {
		h := newHeard()
		in := intake{Receiver: &h.Receiver, oneWay: c.oneWay}
		for _, b := range c.blocks {
			in.take(at("10.0.0.7:1"), b)
		}
		in.end()
		if h.rows != c.want || len(h.errs) != c.errs || len(in.begun) != 0 {
			t.Errorf("%s: %v, %d begun, got\n%s", name, h.errs, len(in.begun), h.rows)
		}
		for _, err := range h.errs {
			if !errors.Is(err, ErrLost) && !errors.Is(err, dlms.ErrMalformed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestAStormOfBlocks has more senders than there is room for: what is given up
// is told, and memory stays bounded.
func TestAStormOfBlocks(t *testing.T) {
	t.Parallel()
	h := newHeard()
	in := intake{Receiver: &h.Receiver}
	big := bytes.Repeat([]byte{1}, 100)
	for i := range 10 * maxSenders {
		in.take(at(fmt.Sprintf("10.0.%d.%d:1", i/200, i%200)), block(0x40, 1, big))
	}
	if len(in.begun) != maxSenders || len(h.errs) != 9*maxSenders {
		t.Errorf("%d begun, %d told", len(in.begun), len(h.errs))
	}
	h.errs = nil
	for n := range uint16(1000) { // one that never ends
		in.take(at("10.1.1.1:1"), block(0x40, n+1, big))
	}
	if b := in.begun[at("10.1.1.1:1")]; b == nil || !b.lost || len(h.errs) != 2 || !errors.Is(h.errs[1], dlms.ErrTooLarge) {
		t.Errorf("%v", h.errs)
	}
}

// Whatever comes in whatever pieces, what is handed on is dated and named, and
// memory is bounded.
func FuzzIntake(f *testing.F) {
	whole, err := dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 1<<30 | 7, Value: axdr.Unsigned(5)}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, whole)
	f.Add(block(0x40, 1, whole[:4]), block(0x80, 2, whole[4:]))
	f.Add(seal(f, sealer(f, pusher, security.AuthenticatedEncrypted), whole, true), []byte{0xCA, 30, 0x30, 0, 0, 0, 1})
	keys := testKeys(f)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		h := newHeard()
		h.Protection, h.MeterTitle = Protection{Keys: keys}, security.Title([]byte(pusher))
		in := intake{Receiver: &h.Receiver}
		in.take(at("10.0.0.7:1"), a)
		in.take(at("10.0.0.7:1"), b)
		if len(h.pushes)+len(h.errs) > 2*3 || len(in.begun) > 1 {
			t.Fatalf("%d pushes, %v, %d begun", len(h.pushes), h.errs, len(in.begun))
		}
		for _, p := range h.pushes {
			if len(p.Rows) > maxPushed {
				t.Fatalf("%d rows", len(p.Rows))
			}
			for _, r := range p.Rows {
				if r.Channel == "" || r.Meter != "10.0.0.7" || (r.Serial == "") != (r.Quality&meter.IdentityNotProven != 0) {
					t.Fatalf("%+v", r)
				}
			}
		}
	})
}
