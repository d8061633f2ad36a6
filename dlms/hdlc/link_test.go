package hdlc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/dlmstest"
)

// patient is a stream that keeps no time: it times out when it has nothing.
type patient struct{ io.ReadWriter }

func (patient) SetTimeout(time.Duration) error { return nil }

func trace(t testing.TB, name string) dlmstest.Trace {
	t.Helper()
	found, err := filepath.Glob("../testdata/" + name + "-*.txt")
	found = slices.DeleteFunc(found, func(s string) bool { return strings.Contains(s, "plaintext") })
	if err != nil || len(found) != 1 {
		t.Fatalf("trace %s: %q, %v", name, found, err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// turn is what the application had to do with a step of a trace.
type turn struct {
	control Control // SNRM, DISC, or kindI for a request and its answer
	client  Address
	request []byte
	answer  []byte
}

// turns takes a trace apart, with slices and not with Link: the APDUs in it,
// put together from their segments.
func turns(t testing.TB, tr dlmstest.Trace) (all []turn) {
	t.Helper()
	for _, step := range tr {
		f, err := ParseFrame(step.Bytes)
		if err != nil {
			t.Fatalf("line %d: %v", step.Line, err)
		}
		if again, err := f.AppendBinary(nil); err != nil || !bytes.Equal(again, step.Bytes) {
			t.Fatalf("line %d is encoded %x, %v", step.Line, again, err)
		}
		kind := f.Control.kind()
		switch {
		case step.FromMeter && kind == kindI:
			last := &all[len(all)-1]
			last.answer = append(last.answer, f.Info...)
		case step.FromMeter || kind == kindRR:
		case kind == kindI:
			all = append(all, turn{kindI, f.Source, f.Info[3:], nil})
		default:
			all = append(all, turn{kind, f.Source, nil, nil})
		}
	}
	return all
}

// TestTraces has the conversations again: each octet that the link sends is
// compared with the trace.
func TestTraces(t *testing.T) {
	t.Parallel()
	for name, apdus := range map[string]int{"02": 9, "06": 24, "10": 1, "15": 3, "16": 3, "17": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := trace(t, name)
			replay := dlmstest.NewReplay(tr)
			var l *Link
			for _, turn := range turns(t, tr) {
				var err error
				switch turn.control {
				case SNRM:
					l = NewLink(patient{replay}, Config{Client: turn.client, Server: one(1)})
					err = l.Connect(t.Context())
				case DISC:
					err = l.Disconnect(t.Context())
				default:
					apdus--
					var got []byte
					if err = l.Send(t.Context(), turn.request); err == nil {
						got, err = l.Receive(t.Context(), []byte{9})
					}
					if want := append([]byte{9}, turn.answer[3:]...); err == nil && !bytes.Equal(got, want) {
						t.Fatalf("%x was answered\n\t%x, not\n\t%x", turn.request, got, want)
					}
				}
				if err != nil {
					t.Fatalf("%v %x: %v", turn.control, turn.request, err)
				}
			}
			if err := replay.Close(); err != nil {
				t.Error(err)
			}
			if apdus != 0 {
				t.Errorf("%d more APDUs expected", apdus)
			}
		})
	}
}

// script is a meter that says what stands in it: after the nth Write the nth
// answer. It times out when it has nothing.
type script struct {
	answers []string // hexadecimal
	wrote   []string
	in      []byte
}

func (s *script) Write(b []byte) (int, error) {
	s.wrote = append(s.wrote, strings.ToUpper(hexOf(b)))
	if len(s.answers) > 0 {
		s.in = append(s.in, unhexOf(s.answers[0])...)
		s.answers = s.answers[1:]
	}
	return len(b), nil
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) SetTimeout(time.Duration) error { return nil }

func hexOf(b []byte) string { const h = "0123456789ABCDEF"; return string(appendHex(nil, b, h)) }

func appendHex(out, b []byte, h string) []byte {
	for _, o := range b {
		out = append(out, h[o>>4], h[o&15])
	}
	return out
}

func unhexOf(s string) (b []byte) {
	s = strings.ReplaceAll(s, " ", "")
	for i := 0; i+1 < len(s); i += 2 {
		digit := func(c byte) byte { return byte(strings.IndexByte("0123456789ABCDEF", c)) }
		b = append(b, digit(s[i])<<4|digit(s[i+1]))
	}
	return b
}

// meter gives a frame of the meter with the address 1 to client 16.
func meter(c Control, info string) string { return frameOf(16, 1, c, false, info) }

func frameOf(to, from uint16, c Control, segmented bool, info string) string {
	b, err := Frame{Segmented: segmented, Destination: one(to), Source: one(from), Control: c, Info: unhexOf(info)}.AppendBinary(nil)
	if err != nil {
		panic(err)
	}
	return hexOf(b)
}

func client(c Control, info string) string { return frameOf(1, 16, c, false, info) }

const request, answer = "C001C1", "C401C100"

// TestConversation is what a link does with what meters say: what it writes,
// frame by frame, and how one request ends.
func TestConversation(t *testing.T) {
	t.Parallel()
	snrm, ua := client(SNRM, ""), meter(UA, "")
	i0 := client(Information(0, 0, true), "E6E600"+request)
	good := meter(Information(0, 1, true), "E6E700"+answer)
	rr0, rr1 := client(ReceiveReady(0, true), ""), client(ReceiveReady(1, true), "")
	was := func(c Control) string { return meter(c, "") }
	for name, c := range map[string]struct {
		says, hears []string // of the meter
		config      Config
		want        error
		words       string
	}{
		"plain":                               {[]string{ua, good}, []string{snrm, i0}, Config{}, nil, ""},
		"SNRM lost":                           {[]string{"", ua, good}, []string{snrm, snrm, i0}, Config{}, nil, ""},
		"no answer to SNRM":                   {nil, []string{snrm, snrm, snrm, snrm}, Config{}, os.ErrDeadlineExceeded, "connect: no answer to 4 attempts"},
		"no second try":                       {nil, []string{snrm}, Config{Retries: -1}, os.ErrDeadlineExceeded, "no answer to 1 attempts"},
		"DM to SNRM":                          {[]string{was(DM)}, []string{snrm}, Config{}, ErrDisconnected, "connect: the meter is disconnected (DM)"},
		"UA with the rest of an earlier talk": {[]string{good + was(ReceiveReady(3, true)) + ua, good}, []string{snrm, i0}, Config{}, nil, ""},
		"answer lost":                         {[]string{ua, "", good}, []string{snrm, i0, rr0}, Config{}, nil, ""},
		"request lost":                        {[]string{ua, "", was(ReceiveReady(0, true)), good}, []string{snrm, i0, rr0, i0}, Config{}, nil, ""},
		"deaf to RR":                          {[]string{ua, "", "", good}, []string{snrm, i0, rr0, i0}, Config{}, nil, ""},
		"gone":                                {[]string{ua}, []string{snrm, i0, rr0, i0, rr0}, Config{}, os.ErrDeadlineExceeded, "no answer to 4 attempts"},
		"busy":                                {[]string{ua, was(ReceiveReady(1, true)), was(ReceiveReady(1, true)), good}, []string{snrm, i0, rr0, rr0}, Config{}, nil, ""},
		"not ready":                           {[]string{ua, was(0x35), was(0x35), good}, []string{snrm, i0, rr0, rr0}, Config{}, nil, ""},
		"not ready for request":               {[]string{ua, was(0x15), was(0x11), good}, []string{snrm, i0, rr0, i0}, Config{}, nil, ""},
		"REJ":                                 {[]string{ua, was(0x19), good}, []string{snrm, i0, i0}, Config{}, nil, ""},
		"REJ for ever":                        {slices.Concat([]string{ua}, slices.Repeat([]string{was(0x19)}, 17)), slices.Concat([]string{snrm}, slices.Repeat([]string{i0}, 17)), Config{}, ErrSequence, "the same frame"},
		"FRMR":                                {[]string{ua, meter(FRMR, "100001")}, []string{snrm, i0}, Config{}, nil, "FRMR"},
		"DM":                                  {[]string{ua, was(DM)}, []string{snrm, i0}, Config{}, ErrDisconnected, ""},
		"an old RR first":                     {[]string{ua, was(ReceiveReady(0, true)) + good}, []string{snrm, i0}, Config{}, nil, ""},
		"a second UA":                         {[]string{ua, ua + good}, []string{snrm, i0}, Config{}, nil, ""},
		"N(R) never sent":                     {[]string{ua, meter(Information(0, 5, true), "E6E700BAD0") + good}, []string{snrm, i0}, Config{}, nil, ""},
		"the answer twice":                    {[]string{ua, good + good}, []string{snrm, i0}, Config{}, nil, ""},
		"N(S) of long ago":                    {[]string{ua, meter(Information(7, 1, true), "E6E700BAD0") + good}, []string{snrm, i0}, Config{}, nil, ""},
		"of others": {
			[]string{ua, frameOf(17, 1, Information(0, 1, true), false, "E6E700BAD0") + frameOf(16, 2, Information(0, 1, true), false, "E6E700BAD0") + good},
			[]string{snrm, i0},
			Config{},
			nil, "",
		},
		"echo":                         {[]string{snrm + ua, i0 + good}, []string{snrm, i0}, Config{}, nil, ""},
		"echo, spoiled":                {[]string{snrm[4:] + ua, i0[:20] + i0[24:] + good}, []string{snrm, i0}, Config{}, nil, ""},
		"noise":                        {[]string{"FF7EA0" + ua, "7EA7FF0321937E" + good}, []string{snrm, i0}, Config{}, nil, ""},
		"last octet of the check lost": {[]string{ua, good[:len(good)-4] + "7E", good}, []string{snrm, i0, rr0}, Config{}, nil, ""},
		"no flag at its end":           {[]string{ua, good[:len(good)-2], good}, []string{snrm, i0, rr0}, Config{}, nil, ""},
		"segments": {
			[]string{ua, frameOf(16, 1, Information(0, 1, true), true, "E6E700C4"), meter(Information(1, 1, true), "01C100")},
			[]string{snrm, i0, rr1},
			Config{},
			nil, "",
		},
		"a segment lost": {
			[]string{ua, frameOf(16, 1, Information(0, 1, true), true, "E6E700C4"), "", meter(Information(1, 1, true), "01C100")},
			[]string{snrm, i0, rr1, rr1},
			Config{},
			nil, "",
		},
		"a segment twice": {
			[]string{ua, frameOf(16, 1, Information(0, 1, true), true, "E6E700C4"), frameOf(16, 1, Information(0, 1, true), true, "E6E700C4") + meter(Information(1, 1, true), "01C100")},
			[]string{snrm, i0, rr1},
			Config{},
			nil, "",
		},
		"a segment missing in a window": {
			[]string{
				meter(UA, "818012050180060180070400000003080400000003"),
				frameOf(16, 1, Information(0, 1, false), true, "E6E700C4") + meter(Information(2, 1, true), "C100"),
				frameOf(16, 1, Information(1, 1, false), true, "01") + meter(Information(2, 1, true), "C100"),
			},
			[]string{client(SNRM, "818012050180060180070400000001080400000003"), i0, rr1},
			Config{Propose: Parameters{WindowRx: 3}},
			nil, "",
		},
		"no LLC header":    {[]string{ua, meter(Information(0, 1, true), "C401C100")}, []string{snrm, i0}, Config{}, ErrLLC, "starts c4 01 c1"},
		"our LLC header":   {[]string{ua, meter(Information(0, 1, true), "E6E600"+answer)}, []string{snrm, i0}, Config{}, ErrLLC, ""},
		"too long":         {[]string{ua, meter(Information(0, 1, true), "E6E7000102030405")}, []string{snrm, i0}, Config{MaxAPDU: 4}, ErrTooLong, "5 octets"},
		"bad parameters":   {[]string{meter(UA, "81800501")}, []string{snrm}, Config{}, ErrParameters, ""},
		"UA with length 0": {[]string{meter(UA, "818000"), good}, []string{snrm, i0}, Config{}, nil, ""},
		"only others": {
			[]string{ua, strings.Repeat(frameOf(17, 1, Information(0, 1, true), false, "AA"), 65)},
			[]string{snrm, i0},
			Config{},
			ErrSequence, "none of the meter",
		},
	} {
		s := &script{answers: c.says}
		c.config.Client, c.config.Server = one(16), one(1)
		got, err := exchange(t, NewLink(s, c.config))
		if reject := (*RejectError)(nil); name == "FRMR" && (!errors.As(err, &reject) || reject.Rejected != 0x10 || reject.Why != RejectControl) {
			t.Errorf("%s: %v", name, err)
		}
		switch {
		case c.want == nil && c.words == "" && (err != nil || hexOf(got) != answer):
			t.Errorf("%s: got %x, %v", name, got, err)
		case c.want != nil && !errors.Is(err, c.want), err != nil && !strings.Contains(err.Error(), c.words):
			t.Errorf("%s: %v, want %v with %q", name, err, c.want, c.words)
		}
		if !slices.Equal(s.wrote, c.hears) {
			t.Errorf("%s: wrote\n\t%s, want\n\t%s", name, strings.Join(s.wrote, "\n\t"), strings.Join(c.hears, "\n\t"))
		}
	}
}

func exchange(t *testing.T, l *Link) ([]byte, error) {
	if err := l.Connect(t.Context()); err != nil {
		return nil, err
	}
	if err := l.Send(t.Context(), unhexOf(request)); err != nil {
		return nil, err
	}
	got, err := l.Receive(t.Context(), nil)
	if err != nil {
		// The connection is in doubt, and nothing is written before it is made anew.
		if err := l.Send(t.Context(), nil); !errors.Is(err, ErrNotConnected) {
			t.Errorf("Send after an error: %v", err)
		}
		if _, err := l.Receive(t.Context(), nil); !errors.Is(err, ErrNotConnected) {
			t.Errorf("Receive after an error: %v", err)
		}
	}
	return got, err
}

// TestRecovery goes on after FRMR: SNRM makes both sides count from 0.
func TestRecovery(t *testing.T) {
	t.Parallel()
	s := &script{answers: []string{
		meter(UA, ""), meter(Information(0, 1, true), "E6E700"+answer), meter(FRMR, "320008"),
		meter(UA, ""), meter(Information(0, 1, true), "E6E700"+answer), meter(DM, ""), meter(UA, ""),
	}}
	l := NewLink(s, Config{Client: one(16), Server: one(1)})
	if _, err := exchange(t, l); err != nil {
		t.Fatal(err)
	}
	if err := l.Send(t.Context(), unhexOf(request)); err != nil {
		t.Fatal(err)
	}
	var reject *RejectError
	if _, err := l.Receive(t.Context(), nil); !errors.As(err, &reject) || reject.Rejected != Information(1, 1, true) {
		t.Fatalf("FRMR: %v", err)
	}
	if got, err := exchange(t, l); err != nil || hexOf(got) != answer {
		t.Fatalf("after SNRM: %x, %v", got, err)
	}
	if err := l.Disconnect(t.Context()); err != nil { // DM
		t.Fatal(err)
	}
	if err := l.Disconnect(t.Context()); err != nil { // UA
		t.Fatal(err)
	}
	if i0 := client(Information(0, 0, true), "E6E600"+request); s.wrote[4] != i0 || s.wrote[5] != client(DISC, "") {
		t.Errorf("wrote %q", s.wrote)
	}
}

// TestEchoOfEqualAddresses: client 1 and meter 1 have one address on the line,
// and an RR that comes back may be the meter's own.
func TestEchoOfEqualAddresses(t *testing.T) {
	t.Parallel()
	f := func(c Control, info string) string { return frameOf(1, 1, c, false, info) }
	i0, good := f(Information(0, 0, true), "E6E600"+request), f(Information(0, 1, true), "E6E700"+answer)
	rr0, was := f(ReceiveReady(0, true), ""), f(ReceiveReady(1, true), "")
	for name, says := range map[string][]string{
		"no echo":                  {f(UA, ""), was, good},
		"no echo, an equal RR":     {f(UA, ""), "", rr0, good},
		"an echo":                  {f(SNRM, "") + f(UA, ""), i0 + was, rr0 + good},
		"an echo, and an equal RR": {f(SNRM, "") + f(UA, ""), i0, rr0 + rr0, i0 + good},
	} {
		s := &script{answers: says}
		got, err := exchange(t, NewLink(s, Config{Client: one(1), Server: one(1)}))
		if err != nil || hexOf(got) != answer || len(s.wrote) != len(says) {
			t.Errorf("%s: %x, %v; wrote %q", name, got, err, s.wrote)
		}
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	var pushed []string
	s := &script{answers: []string{
		meter(0x03, "E6E7000F01") + meter(UA, ""),
		meter(0x03, "AABBCC0F02") + frameOf(16, 1, UI, true, "E6E7000F") + meter(UI, "0304") +
			frameOf(17, 1, UI, false, "E6E7000F05") + meter(Information(0, 1, true), "E6E700"+answer) + meter(UI, "E6E7000F06"),
	}}
	l := NewLink(s, Config{Client: one(16), Server: one(1), Notify: func(apdu []byte) { pushed = append(pushed, hexOf(apdu)) }})
	if got, err := exchange(t, l); err != nil || hexOf(got) != answer {
		t.Errorf("%x, %v", got, err)
	}
	if want := []string{"0F01", "0F0304"}; !slices.Equal(pushed, want) {
		t.Errorf("notified of %q, want %q", pushed, want)
	}
	if _, err := l.Receive(t.Context(), nil); !errors.Is(err, os.ErrDeadlineExceeded) || len(pushed) != 3 {
		t.Errorf("%v; notified of %q", err, pushed)
	}
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		propose  Parameters
		snrm, ua string
		want     Parameters
	}{
		"defaults":    {Parameters{}, "", "", Default()},
		"meter less":  {Parameters{2030, 2030, 7, 7}, "818014050207EE060207EE070400000007080400000007", "818014050201000602020007040000000208040000 0003", Parameters{512, 256, 3, 2}},
		"meter more":  {Parameters{200, 300, 2, 3}, "8180130501C80602012C070400000002080400000003", "818014050207EE060207EE070400000007080400000007", Parameters{200, 300, 2, 3}},
		"tells none":  {Parameters{2030, 2030, 7, 7}, "818014050207EE060207EE070400000007080400000007", "", Default()},
		"over limits": {Parameters{65535, 65535, 255, 255}, "818014050207EE060207EE070400000007080400000007", "8180160504FFFFFFFF0602FFFF0704FFFFFFFF080400000099", Parameters{2030, 2030, 7, 7}},
	} {
		s := &script{answers: []string{meter(UA, c.ua)}}
		l := NewLink(s, Config{Client: one(16), Server: one(1), Propose: c.propose})
		if err := l.Connect(t.Context()); err != nil || l.Granted() != c.want {
			t.Errorf("%s: granted %+v, %v, want %+v", name, l.Granted(), err, c.want)
		}
		if s.wrote[0] != client(SNRM, c.snrm) {
			t.Errorf("%s: sent %s", name, s.wrote[0])
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	s := &script{answers: []string{meter(UA, "")}}
	l := NewLink(s, Config{Client: one(16), Server: one(1)})
	if err := errors.Join(l.Connect(ctx), l.Send(ctx, unhexOf(request))); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	cancel(enough)
	if _, err := l.Receive(ctx, nil); !errors.Is(err, enough) || len(s.wrote) != 2 {
		t.Errorf("%v; wrote %q", err, s.wrote)
	}
	if err := l.Connect(ctx); !errors.Is(err, enough) || len(s.wrote) != 2 {
		t.Errorf("%v; wrote %q", err, s.wrote)
	}
}

func TestEndOfStream(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]error{"": io.EOF, "7EA01E": io.ErrUnexpectedEOF, meter(UA, ""): nil} {
		stream := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(unhexOf(in)), io.Discard}
		if err := NewLink(patient{stream}, Config{Client: one(16), Server: one(1)}).Connect(t.Context()); !errors.Is(err, want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// TestSendTooLong keeps the connection: nothing was sent.
func TestSendTooLong(t *testing.T) {
	t.Parallel()
	s := &script{answers: []string{meter(UA, ""), meter(Information(0, 1, true), "E6E700"+answer)}}
	l := NewLink(s, Config{Client: one(16), Server: one(1), MaxAPDU: 4})
	if err := l.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Send(t.Context(), make([]byte, 5)); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
	if err := l.Send(t.Context(), make([]byte, 4)); err != nil {
		t.Error(err)
	}
}

type sink struct{}

func (sink) Write(b []byte) (int, error)    { return len(b), nil }
func (sink) Read([]byte) (int, error)       { return 0, os.ErrDeadlineExceeded }
func (sink) SetTimeout(time.Duration) error { return nil }

// TestSendAllocates nothing once the buffer is there.
func TestSendAllocates(t *testing.T) {
	l := NewLink(sink{}, Config{Client: one(16), Server: one(1)})
	ctx, apdu := t.Context(), make([]byte, 100)
	n := testing.AllocsPerRun(100, func() {
		l.connected, l.va = true, l.vs // as if it had been acknowledged
		if err := l.Send(ctx, apdu); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
