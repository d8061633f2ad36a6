package dlms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/wrapper"
)

type stream struct{ conn *wrapper.Conn }

func (s stream) Send(_ context.Context, apdu []byte) error { return s.conn.Send(apdu) }

func (s stream) Receive(_ context.Context, b []byte) ([]byte, error) { return s.conn.Receive(b) }

// replayed gives a client in the middle of a captured conversation, after its
// first steps, with an association of these services.
func replayed(t *testing.T, name string, skip int, client uint16, services Conformance, pdu uint16) (*Client, *dlmstest.Replay) {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	replay := dlmstest.NewReplay(tr[skip:])
	c := NewClient(stream{wrapper.NewConn(io.ReadWriter(replay), client, 1, 0)}, Options{InvokeID: 1})
	c.open, c.granted = true, Association{Conformance: services, MaxPDU: pdu, VAA: 7}
	return c, replay
}

// TestTrace12 has the conversation of 12 again, from where the association
// stands: an access of three attributes, and a week of a load profile by
// general block transfer. Every octet sent is compared with the trace.
func TestTrace12(t *testing.T) {
	t.Parallel()
	c, replay := replayed(t, "12-wrapper-ln-hls2-gbt-access.txt", 4, 18, 0x601E5D, 1024)
	ctx := t.Context()
	register := Attribute{Class: 3, Code: obis.Code{1, 1, 21, 25, 0, 255}, ID: 2}
	scale := register
	scale.ID = 3
	items, err := c.Access(ctx, []AccessItem{
		{Kind: AccessGet, Attribute: register}, {Kind: AccessGet, Attribute: scale}, {Kind: AccessGet, Attribute: clockObject()},
	})
	now := axdr.OctetString("\x07\xEA\x0B\x16\x07\x08\x33\x35\x37\x00\x00\x00")
	want := []Item{{Value: axdr.DoubleLong(307)}, {Value: axdr.Structure(axdr.Integer(0), axdr.Enum(0))}, {Value: now}}
	if err != nil || fmt.Sprint(items) != fmt.Sprint(want) {
		t.Errorf("access: %v, %v; want %v", items, err, want)
	}
	if v, err := c.Get(ctx, clockObject()); err != nil || !v.Equal(now) {
		t.Errorf("clock: %+v, %v", v, err)
	}
	profile := Attribute{Class: 7, Code: obis.Code{1, 0, 99, 1, 0, 255}, ID: 3}
	v, err := c.Get(ctx, profile)
	if err != nil {
		t.Fatal(err)
	}
	if columns, err := ParseColumns(v); err != nil || len(columns) != 2 || columns[1].Attribute != register {
		t.Errorf("columns: %+v, %v", columns, err)
	}
	profile.ID = 2
	rows, err := c.GetRange(ctx, profile, Range{
		From: DateTime{Year: 2026, Month: 11, Day: 15, Weekday: 0xFF, Hour: 16, Minute: 51, Second: 53},
		To:   DateTime{Year: 2026, Month: 11, Day: 22, Weekday: 0xFF, Hour: 8, Minute: 51, Second: 53},
	})
	if err != nil || len(rows.Items) != 162 {
		t.Fatalf("%d rows, %v; want 162", len(rows.Items), err)
	}
	first := time.Date(2026, 11, 15, 17, 0, 0, 0, time.UTC)
	for i, row := range rows.Items {
		d, err := ParseDateTime(row.Items[0].Str)
		if err != nil {
			t.Fatal(err)
		}
		at, err := d.Time(nil)
		want := first.Add(time.Duration(i) * time.Hour)
		if i >= 160 { // the two that the meter captured when it was asked
			want = time.Date(2026, 11, 22, 8, 51, 0, 0, time.UTC)
		}
		if err != nil || !at.Equal(want) || !row.Items[1].Equal(axdr.DoubleLong(int32(9841+i))) {
			t.Errorf("row %d: %v at %v, want %d at %v, %v", i, row.Items[1], at, 9841+i, want, err)
		}
	}
	if err := c.Release(ctx); err != nil {
		t.Error(err)
	}
	if err := replay.Close(); err != nil {
		t.Error(err)
	}
}

func TestBlock(t *testing.T) {
	t.Parallel()
	k := block{last: true, window: 5, n: 0x0102, ack: 0x0304, octets: []byte("abc")}
	want := unhex(t, "E0 85 0102 0304 03 616263")
	if got := k.append(nil); !bytes.Equal(got, want) {
		t.Errorf("encoded %x, want %x", got, want)
	}
	for n := range want {
		if got, err := parseBlock(want[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at %d: %+v, %v", n, got, err)
		}
	}
	for _, k := range []block{k, {streaming: true, window: 63, n: 1, octets: bytes.Repeat([]byte{7}, 300)}, {last: true, window: 1, ack: 9, octets: []byte{}}} {
		if got, err := parseBlock(k.append(nil)); err != nil || fmt.Sprint(got) != fmt.Sprint(k) {
			t.Errorf("%+v decoded as %+v, %v", k, got, err)
		}
	}
}

type timeout struct{}

func (timeout) Error() string { return "nothing came" }
func (timeout) Timeout() bool { return true }

// station is a Transport to a meter that speaks general block transfer as the
// standard has it, over a line that loses what lose says.
type station struct {
	t       *testing.T
	size    int    // octets of a block
	window  int    // blocks that it takes in a row
	answer  []byte // to whatever it is asked
	ackAsBN bool   // its acknowledgements carry the number acknowledged
	lose    func(up bool, k block) bool

	request []byte // as it came in blocks
	got     uint16
	sent    int // blocks of the answer
	queue   [][]byte
	log     []string
}

func (s *station) Send(_ context.Context, apdu []byte) error {
	if apdu[0] != tagGeneralBlock {
		s.request = append([]byte(nil), apdu...)
		s.give(1)
		return nil
	}
	k, err := parseBlock(apdu)
	if err != nil {
		s.t.Fatal(err)
	}
	s.log = append(s.log, fmt.Sprintf("%d/%d", k.n, k.ack))
	if s.lose != nil && s.lose(true, k) {
		return nil
	}
	if len(k.octets) == 0 {
		s.sent = int(k.ack)
		s.give(int(k.window))
		return nil
	}
	if k.n == s.got+1 {
		s.request = append(s.request, k.octets...)
		s.got++
		if k.last {
			s.give(int(k.window))
			return nil
		}
	}
	if !k.streaming {
		ack := block{last: true, window: uint8(s.window), ack: s.got}
		if s.ackAsBN {
			ack.n = s.got
		}
		s.queue = append(s.queue, ack.append(nil))
	}
	return nil
}

// give sends the next blocks of the answer.
func (s *station) give(window int) {
	if len(s.answer) <= s.size {
		s.queue = append(s.queue, s.answer)
		return
	}
	count := (len(s.answer) + s.size - 1) / s.size
	for i := 1; i <= window && s.sent < count; i++ {
		s.sent++
		k := block{
			last: s.sent == count, streaming: i < window && s.sent < count, window: uint8(s.window), n: uint16(s.sent), ack: s.got,
			octets: s.answer[(s.sent-1)*s.size : min(s.sent*s.size, len(s.answer))],
		}
		if s.lose == nil || !s.lose(false, k) {
			s.queue = append(s.queue, k.append(nil))
		}
	}
}

func (s *station) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(s.queue) == 0 {
		return nil, timeout{}
	}
	b = append(b, s.queue[0]...)
	s.queue = s.queue[1:]
	return b, nil
}

func TestGeneralBlockTransfer(t *testing.T) {
	t.Parallel()
	once := func(up bool, n uint16) func(bool, block) bool {
		lost := false
		return func(u bool, k block) bool {
			if lost || u != up || k.n != n || len(k.octets) == 0 {
				return false
			}
			lost = true
			return true
		}
	}
	lostAck := func() func(bool, block) bool {
		lost := false
		return func(up bool, k block) bool {
			if lost || !up || len(k.octets) > 0 || k.ack == 0 {
				return false
			}
			lost = true
			return true
		}
	}
	for name, c := range map[string]struct {
		window uint8 // of the client
		meter  int   // and of the meter
		lose   func() func(bool, block) bool
	}{
		"one by one":                {0, 1, nil},
		"windows of three and four": {3, 4, nil},
		"a window for all":          {63, 63, nil},
		"first block up lost":       {3, 4, func() func(bool, block) bool { return once(true, 1) }},
		"second block up lost":      {3, 4, func() func(bool, block) bool { return once(true, 3) }},
		"last block up lost":        {3, 4, func() func(bool, block) bool { return once(true, 5) }},
		"first block down lost":     {3, 4, func() func(bool, block) bool { return once(false, 1) }},
		"second block down lost":    {3, 4, func() func(bool, block) bool { return once(false, 2) }},
		"last of a window lost":     {3, 4, func() func(bool, block) bool { return once(false, 3) }},
		"last block down lost":      {3, 4, func() func(bool, block) bool { return once(false, 10) }},
		"one by one, block lost":    {1, 1, func() func(bool, block) bool { return once(false, 4) }},
		"acknowledgement lost":      {3, 4, lostAck},
	} {
		for _, ackAsBN := range []bool{false, true} {
			argument := axdr.OctetString(strings.Repeat("abcdefgh", 10))
			answer := append(unhex(t, "C701C1000100 09 50"), strings.Repeat("ABCDEFGH", 10)...)
			s := &station{t: t, size: 9, window: c.meter, answer: answer, ackAsBN: ackAsBN}
			if c.lose != nil {
				s.lose = c.lose()
			}
			client := NewClient(s, Options{Window: c.window, InvokeID: 1})
			client.open, client.granted = true, Association{Conformance: Action | GeneralBlockTransfer, MaxPDU: 30}
			v, err := client.Action(t.Context(), breaker(1), &argument)
			silent := name == "first block down lost" || name == "last block up lost" // with nothing begun, nobody knows that anything is lost
			if silent && errors.Is(err, timeout{}) {
				continue
			}
			if err != nil || !v.Equal(axdr.OctetString(strings.Repeat("ABCDEFGH", 10))) {
				t.Errorf("%s: %+v, %v; %v", name, v, err, s.log)
			}
			if want, _ := AppendAction(nil, 1, breaker(1), &argument); !bytes.Equal(s.request, want) {
				t.Errorf("%s: the meter took %x, want %x; %v", name, s.request, want, s.log)
			}
		}
	}
}

// Many blocks are streamed behind one that was lost; they are no tries.
func TestALostBlockOfALongWindow(t *testing.T) {
	t.Parallel()
	for _, window := range []uint8{15, 63} {
		for _, n := range []uint16{2, 16, 40} {
			lost := false
			s := &station{
				t: t, size: 9, window: int(window),
				answer: append(unhex(t, "C701C1000100 09 820190"), strings.Repeat("ABCDEFGH", 50)...),
				lose: func(up bool, k block) bool {
					first := !lost && !up && k.n == n
					lost = lost || first
					return first
				},
			}
			client := NewClient(s, Options{Window: window, InvokeID: 1})
			client.open, client.granted = true, Association{Conformance: Action | GeneralBlockTransfer, MaxPDU: 30}
			argument := axdr.OctetString("on")
			v, err := client.Action(t.Context(), breaker(1), &argument)
			if err != nil || !v.Equal(axdr.OctetString(strings.Repeat("ABCDEFGH", 50))) || !lost {
				t.Errorf("window %d, block %d lost (%v): %v", window, n, lost, err)
			}
		}
	}
}

// TestGeneralBlocksGolden has the blocks of both directions by the octet.
func TestGeneralBlocksGolden(t *testing.T) {
	t.Parallel()
	argument := axdr.OctetString("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	client, s := granted(t, Action|GeneralBlockTransfer, 30,
		"E0 81 0000 0001 00", // takes one in a row
		"E0 01 0001 0002 05 C701C10001",
		"0F00000001 00 1105",            // a notification in between
		"E0 81 0002 0002 04 00 1107 AA", // and octets after the answer
	)
	client.options.InvokeID = 1
	var notified string
	client.options.Notify = func(apdu []byte) { notified = fmt.Sprintf("%X", apdu) }
	v, err := client.Action(t.Context(), breaker(1), &argument)
	if err != nil || !v.Equal(axdr.Unsigned(7)) || notified != "0F00000001001105" {
		t.Errorf("%+v, %v; notified of %s", v, err, notified)
	}
	same(t, "blocks", s,
		"E0 01 0001 0000 15 C301C1 0046 000060030AFF 01 01 09 1A 414243444546",
		"E0 81 0002 0000 14 4748494A4B4C4D4E4F505152535455565758595A",
		"E0 81 0000 0001 00")
}

func TestGeneralBlocksThatLeadNowhere(t *testing.T) {
	t.Parallel()
	const first = "E0 41 0001 0000 04 C401C100"
	for name, c := range map[string]struct {
		answers []string
		is      error
	}{
		"cut short":          {[]string{"E0 81 0001 0000 04 C401"}, ErrMalformed},
		"nothing in it":      {[]string{"E0 81 0001 0000 00", "C401C1 00 1105"}, nil},
		"acknowledges only":  {strings.Split(strings.Repeat("E081000000010 0,", 40), ","), ErrMalformed},
		"one again and on":   {strings.Split(strings.Repeat(first+",", 40), ","), ErrMalformed},
		"never the second":   {append([]string{first}, strings.Split(strings.Repeat("E001000300000155,", 40), ",")...), ErrMalformed},
		"silence midway":     {[]string{first}, errSilence},
		"too long":           {[]string{first, "E0 01 0002 0000 28" + strings.Repeat("41", 40)}, ErrTooLarge},
		"block 1 is another": {[]string{first, "E0 81 0001 0000 05 C401C1 0103"}, ReadWriteDenied},
	} {
		var answers []string
		for _, a := range c.answers {
			if a != "" {
				answers = append(answers, strings.ReplaceAll(a, " ", ""))
			}
		}
		client, _ := granted(t, Get|GeneralBlockTransfer, 0, answers...)
		client.options.MaxAnswer = 40
		if v, err := client.Get(t.Context(), energy()); !errors.Is(err, c.is) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func TestAssemblerTakesPush(t *testing.T) {
	t.Parallel()
	var a Assembler
	const push = "0F00000001 00 09 04 41424344"
	if whole, ack, err := a.Add(unhex(t, push)); err != nil || ack != nil || !bytes.Equal(whole, unhex(t, push)) || a.Started() {
		t.Errorf("no block: %x, %x, %v", whole, ack, err)
	}
	for range 2 {
		if whole, ack, err := a.Add(unhex(t, "E0 41 0001 0000 06 0F0000000100")); err != nil || whole != nil || !bytes.Equal(ack, unhex(t, "E0 81 0000 0001 00")) || !a.Started() {
			t.Errorf("first block: %x, %x, %v", whole, ack, err)
		}
	}
	if whole, ack, err := a.Add(unhex(t, "E0 81 0002 0000 06 090441424344")); err != nil || ack != nil || !bytes.Equal(whole, unhex(t, push)) || a.Started() {
		t.Errorf("last block: %x, %x, %v", whole, ack, err)
	}
	for _, bad := range []string{"", "E0", "E08100010000 05 41"} {
		if whole, ack, err := a.Add(unhex(t, bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %x, %x, %v", bad, whole, ack, err)
		}
	}
}

// FuzzAssembler cuts octets into blocks, sends each as often and in such order
// as the input says, and gets the octets, or nothing.
func FuzzAssembler(f *testing.F) {
	f.Add([]byte("0F hello, this is a push"), []byte{0, 1, 2, 3, 4}, uint8(5))
	f.Add([]byte("0F hello, this is a push"), []byte{0, 2, 1, 1, 2, 3, 9, 4}, uint8(6))
	f.Fuzz(func(t *testing.T, apdu, order []byte, size uint8) {
		if size == 0 || len(apdu) == 0 || len(apdu) > 2000 {
			return
		}
		count := (len(apdu) + int(size) - 1) / int(size)
		var a Assembler
		for _, i := range order {
			n := int(i) % count
			k := block{last: n == count-1, window: 1, n: uint16(n + 1), octets: apdu[n*int(size) : min((n+1)*int(size), len(apdu))]}
			again, err := parseBlock(k.append(nil))
			if err != nil || fmt.Sprint(again) != fmt.Sprint(k) {
				t.Fatalf("%+v decoded as %+v, %v", k, again, err)
			}
			whole, ack, err := a.Add(k.append(nil))
			if err != nil || whole != nil && !bytes.Equal(whole, apdu) || whole == nil && ack == nil {
				t.Fatalf("block %d: %x, %x, %v", n+1, whole, ack, err)
			}
		}
	})
}

// TestAsksInBlocks has a request in a general block, so that the meter knows
// the window before its first.
func TestAsksInBlocks(t *testing.T) {
	t.Parallel()
	client, s := associated(t, Options{GeneralBlocks: true, Window: 5},
		"E0 40 0001 0001 02 C401", "E0 40 0002 0001 03 C10006", "E0 80 0003 0001 04 000004D2", "6303800100")
	client.granted.Conformance |= GeneralBlockTransfer
	v, err := client.Get(t.Context(), energy())
	if err != nil || !v.Equal(axdr.DoubleLongUnsigned(1234)) {
		t.Fatalf("%v, %v", v, err)
	}
	if err := client.Release(t.Context()); err != nil {
		t.Error(err)
	}
	want := "[E085000100000DC001C100030100010800FF0200 6203800100]"
	if got := fmt.Sprint(s.sent); got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	client, s = associated(t, Options{GeneralBlocks: true}, "C401C10006000004D2")
	client.granted.Conformance &^= GeneralBlockTransfer
	if _, err := client.Get(t.Context(), energy()); err != nil || s.sent[0][:2] != "C0" {
		t.Errorf("not granted: sent %v, %v", s.sent, err)
	}
}
