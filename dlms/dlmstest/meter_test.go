package dlmstest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/wrapper"
)

type link struct{ conn *wrapper.Conn }

func (l link) Send(_ context.Context, apdu []byte) error { return l.conn.Send(apdu) }

func (l link) Receive(_ context.Context, b []byte) ([]byte, error) { return l.conn.Receive(b) }

// connect gives a stream to what serve serves, which ends with the test.
func connect(t *testing.T, serve func(io.ReadWriter) error) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	if err := ours.SetDeadline(time.Now().Add(time.Minute)); err != nil { // a failure, not a hang
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- serve(theirs)
		theirs.Close()
	}()
	t.Cleanup(func() {
		ours.Close()
		if err := <-done; err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("serve: %v", err)
		}
	})
	return ours
}

func client(t *testing.T, m *dlmstest.Meter, wPort uint16, o dlms.Options) *dlms.Client {
	t.Helper()
	return dlms.NewClient(link{wrapper.NewConn(connect(t, m.Serve), wPort, 1, 0)}, o)
}

func code(s string) obis.Code {
	c, err := obis.Parse(s)
	if err != nil {
		panic(err)
	}
	return c
}

func start() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.FixedZone("", 3600)) }

// meter has an object of each kind, and a profile of 200 rows.
func meter(o dlmstest.Options) *dlmstest.Meter {
	now := func() time.Time { return start().Add(50 * time.Hour) }
	o.Objects = []dlmstest.Object{
		dlmstest.Data(code("0-0:96.1.0"), dlmstest.Fixed(axdr.OctetString("GRG1"))),
		dlmstest.Register(code("1-0:1.8.0"), -1, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(12345))),
		dlmstest.ExtendedRegister(code("1-0:1.6.0"), 1, 27, dlmstest.Fixed(axdr.LongUnsigned(321)), start),
		dlmstest.Clock(code("0-0:1.0.0"), now),
		dlmstest.Profile(code("1-0:99.1.0"), []dlmstest.Column{{8, code("0-0:1.0.0"), 2}, {3, code("1-0:1.8.0"), 2}}, 900,
			func(s *dlmstest.Selection) []axdr.Value {
				var rows []axdr.Value
				for i := range 200 {
					at := start().Add(time.Duration(i) * 15 * time.Minute)
					if s == nil || !at.Before(s.From) && !at.After(s.To) {
						rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(at)), axdr.DoubleLongUnsigned(uint32(i))))
					}
				}
				return rows
			}),
	}
	return dlmstest.NewMeter(o)
}

func TestMeterServes(t *testing.T) {
	t.Parallel()
	c := client(t, meter(dlmstest.Options{MaxPDU: 256}), 16, dlms.Options{})
	granted, err := c.Associate(t.Context())
	if err != nil || granted != (dlms.Association{Conformance: dlms.Get | dlms.BlockTransferGet | dlms.SelectiveAccess, MaxPDU: 256, VAA: 7}) {
		t.Fatalf("granted %+v, %v", granted, err)
	}
	date := axdr.OctetString("\x07\xEA\x03\x01\x07\x00\x00\x00\x00\xFF\xC4\x00")
	for _, w := range []struct {
		class uint16
		code  string
		id    int8
		want  axdr.Value
	}{
		{1, "0-0:96.1.0", 2, axdr.OctetString("GRG1")},
		{1, "0-0:96.1.0", 1, axdr.OctetString("\x00\x00\x60\x01\x00\xFF")},
		{3, "1-0:1.8.0", 2, axdr.DoubleLongUnsigned(12345)},
		{3, "1-0:1.8.0", 3, axdr.Structure(axdr.Integer(-1), axdr.Enum(30))},
		{4, "1-0:1.6.0", 3, axdr.Structure(axdr.Integer(1), axdr.Enum(27))},
		{4, "1-0:1.6.0", 5, date},
		{8, "0-0:1.0.0", 2, axdr.OctetString("\x07\xEA\x03\x03\x02\x02\x00\x00\x00\xFF\xC4\x00")},
		{7, "1-0:99.1.0", 4, axdr.DoubleLongUnsigned(900)},
	} {
		if got, err := c.Get(t.Context(), dlms.Attribute{Class: w.class, Code: code(w.code), ID: w.id}); err != nil || !got.Equal(w.want) {
			t.Errorf("%s/%d:%d: %+v, %v", w.code, w.class, w.id, got, err)
		}
	}
	for attribute, want := range map[dlms.Attribute]dlms.AccessError{
		{Class: 3, Code: code("1-0:2.8.0"), ID: 2}: dlms.ObjectUndefined,
		{Class: 4, Code: code("1-0:1.8.0"), ID: 2}: dlms.ObjectUndefined,
		{Class: 3, Code: code("1-0:1.8.0"), ID: 9}: dlms.ReadWriteDenied,
	} {
		if v, err := c.Get(t.Context(), attribute); !errors.Is(err, want) {
			t.Errorf("%v: %+v, %v, want %v", attribute, v, err, want)
		}
	}
	var exception *dlms.ExceptionError
	if _, err := c.Action(t.Context(), dlms.Attribute{Class: 70, Code: code("0-0:96.3.10"), ID: 1}, nil); !errors.As(err, &exception) ||
		*exception != (dlms.ExceptionError{State: 2, Service: 2}) {
		t.Errorf("action: %v", err)
	}
	if err := c.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMeterSendsProfilesInBlocks(t *testing.T) {
	t.Parallel()
	profile := dlms.Attribute{Class: 7, Code: code("1-0:99.1.0"), ID: 2}
	for _, pdu := range []uint16{64, 128, 4000, 5000} { // 200 rows are 4203 octets: in 81 blocks, 37, 2 and whole
		c := client(t, meter(dlmstest.Options{MaxPDU: 0xFFFF}), 16, dlms.Options{MaxPDU: pdu})
		if _, err := c.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, err := c.Get(t.Context(), profile)
		if err != nil || len(all.Items) != 200 {
			t.Fatalf("PDU of %d: %d rows, %v", pdu, len(all.Items), err)
		}
		for i, row := range all.Items {
			if row.Items[1].Num != uint64(i) {
				t.Errorf("row %d is %+v", i, row)
			}
		}
		at := func(minutes int) dlms.DateTime {
			return dlms.DateTimeOf(start().Add(time.Duration(minutes) * time.Minute).UTC())
		}
		some, err := c.GetRange(t.Context(), profile, dlms.Range{From: at(15 * 3), To: at(15*100 + 14)})
		if err != nil || len(some.Items) != 98 || some.Items[0].Items[1].Num != 3 || some.Items[97].Items[1].Num != 100 {
			t.Errorf("PDU of %d: range of %d rows, %v", pdu, len(some.Items), err)
		}
	}
}

func TestMeterChecksPasswords(t *testing.T) {
	t.Parallel()
	m := meter(dlmstest.Options{Logins: map[uint16]string{16: "", 17: "12345678"}})
	for name, c := range map[string]struct {
		wPort          uint16
		o              dlms.Options
		ok             bool
		authentication bool
	}{
		"public":           {16, dlms.Options{}, true, false},
		"password":         {17, dlms.Options{Mechanism: dlms.LLS, Password: []byte("12345678")}, true, false},
		"wrong password":   {17, dlms.Options{Mechanism: dlms.LLS, Password: []byte("12345679")}, false, true},
		"no password":      {17, dlms.Options{}, false, true},
		"client not known": {18, dlms.Options{}, false, false},
	} {
		c2 := client(t, m, c.wPort, c.o)
		_, err := c2.Associate(t.Context())
		if (err == nil) != c.ok || errors.Is(err, dlms.ErrAuthentication) != c.authentication {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if _, err := c2.Get(t.Context(), dlms.Attribute{Class: 1, Code: code("0-0:96.1.0"), ID: 2}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMeterByOctets pins what the meter says without the client's decoders.
func TestMeterByOctets(t *testing.T) {
	t.Parallel()
	m := meter(dlmstest.Options{Logins: map[uint16]string{17: "12345678"}})
	stream := connect(t, m.Serve)
	for _, c := range [][2]string{
		{ // a GET before the association
			"\x00\x01\x00\x11\x00\x01\x00\x0D\xC0\x01\xC1\x00\x03\x01\x00\x01\x08\x00\xFF\x02\x00",
			"\x00\x01\x00\x01\x00\x11\x00\x03\xD8\x01\x01",
		},
		{ // the wrong password
			"\x00\x01\x00\x11\x00\x01\x00\x31\x60\x2F\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\x8A\x02\x07\x80\x8B\x07\x60\x85\x74\x05\x08\x02\x01\xAC\x03\x80\x01x\xBE\x10\x04\x0E\x01\x00\x00\x00\x06\x5F\x1F\x04\x00\x00\x7E\x1F\x04\xB0",
			"\x00\x01\x00\x01\x00\x11\x00\x19\x61\x17\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\xA2\x03\x02\x01\x01\xA3\x05\xA1\x03\x02\x01\x0D",
		},
		{ // the right one
			"\x00\x01\x00\x11\x00\x01\x00\x38\x60\x36\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\x8A\x02\x07\x80\x8B\x07\x60\x85\x74\x05\x08\x02\x01\xAC\x0A\x80\x0812345678\xBE\x10\x04\x0E\x01\x00\x00\x00\x06\x5F\x1F\x04\x00\x00\x7E\x1F\x04\xB0",
			"\x00\x01\x00\x01\x00\x11\x00\x2B\x61\x29\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\xA2\x03\x02\x01\x00\xA3\x05\xA1\x03\x02\x01\x00\xBE\x10\x04\x0E\x08\x00\x06\x5F\x1F\x04\x00\x00\x10\x14\x04\x00\x00\x07",
		},
		{
			"\x00\x01\x00\x11\x00\x01\x00\x0D\xC0\x01\xC5\x00\x03\x01\x00\x01\x08\x00\xFF\x02\x00",
			"\x00\x01\x00\x01\x00\x11\x00\x09\xC4\x01\xC5\x00\x06\x00\x00\x30\x39",
		},
		{
			"\x00\x01\x00\x11\x00\x01\x00\x0D\xC0\x01\xC1\x00\x03\x01\x00\x09\x09\x09\xFF\x02\x00",
			"\x00\x01\x00\x01\x00\x11\x00\x05\xC4\x01\xC1\x01\x04",
		},
		{
			"\x00\x01\x00\x11\x00\x01\x00\x0F\xC3\x01\xC1\x00\x46\x00\x00\x60\x03\x0A\xFF\x01\x01\x0F\x00",
			"\x00\x01\x00\x01\x00\x11\x00\x03\xD8\x02\x02",
		},
		{
			"\x00\x01\x00\x11\x00\x01\x00\x05\x62\x03\x80\x01\x00",
			"\x00\x01\x00\x01\x00\x11\x00\x05\x63\x03\x80\x01\x00",
		},
	} {
		if _, err := stream.Write([]byte(c[0])); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(c[1]))
		if _, err := io.ReadFull(stream, got); err != nil || string(got) != c[1] {
			t.Fatalf("%x: answered\n%x, %v, want\n%x", c[0], got, err, c[1])
		}
	}
}

const short = `# a note
TX: 08:40:23	00 01 00 10 00 01 00 0D C0 01 C1 00 03 01 01 15 19 00 FF 02 00
RX: 08:40:23	00 01 00 01 00 10 00 07 C4 01 C1 00 12 00 19
`

func TestTraceAnswersInAnyOrder(t *testing.T) {
	t.Parallel()
	tr, err := dlmstest.ParseTrace(strings.NewReader(short +
		"TX: 0\t0001 0010 0001 0005 6001020304\nRX: 0\t0001 0001 0010 0019 6117 A109060760857405080101 A203020100 A305A103020100\n"))
	if err != nil {
		t.Fatal(err)
	}
	var missed []string
	stream := connect(t, func(s io.ReadWriter) error {
		return tr.Answer(s, func(request []byte) { missed = append(missed, dlmstest.Describe(request)) })
	})
	c := dlms.NewClient(link{wrapper.NewConn(stream, 99, 1, 0)}, dlms.Options{})
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 { // each with an invoke id of its own
		if v, err := c.Get(t.Context(), dlms.Attribute{Class: 3, Code: code("1-1:21.25.0"), ID: 2}); err != nil || v.Num != 25 {
			t.Errorf("got %+v, %v", v, err)
		}
	}
	if _, err := c.Get(t.Context(), dlms.Attribute{Class: 3, Code: code("1-0:9.9.9"), ID: 2}); !errors.Is(err, dlms.ObjectUndefined) {
		t.Errorf("not in the trace: %v", err)
	}
	if len(missed) != 1 || missed[0] != "get 1-0:9.9.9*255/3:2" {
		t.Errorf("missed %q", missed)
	}
}

func TestTraceServes(t *testing.T) {
	t.Parallel()
	tr, err := dlmstest.ParseTrace(strings.NewReader(short))
	if err != nil {
		t.Fatal(err)
	}
	stream := connect(t, tr.Serve)
	if _, err := stream.Write(tr[0].Bytes); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(tr[1].Bytes))
	if _, err := io.ReadFull(stream, got); err != nil || string(got) != string(tr[1].Bytes) {
		t.Errorf("got %x, %v", got, err)
	}
	for _, wrong := range []string{"short", "twenty-one octets too"} {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- tr.Serve(theirs) }()
		if _, err := ours.Write([]byte(wrong)); err != nil {
			t.Fatal(err)
		}
		ours.Close()
		if err := <-done; !errors.Is(err, dlmstest.ErrScript) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestReplayFailsOnAnUnreadScript(t *testing.T) {
	t.Parallel()
	tr, err := dlmstest.ParseTrace(strings.NewReader(short))
	if err != nil {
		t.Fatal(err)
	}
	r := dlmstest.NewReplay(tr)
	if _, err := r.Read(make([]byte, 9)); err == nil {
		t.Error("the meter spoke first")
	}
	if _, err := r.Write(tr[0].Bytes); err != nil {
		t.Error(err)
	}
	if err := r.Close(); !errors.Is(err, dlmstest.ErrScript) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("closed before the end: %v", err)
	}
	for _, bad := range []string{"", "# nothing", "TX: 0 00 01", "TX: 0\tXY", "RX: 0\t"} {
		if tr, err := dlmstest.ParseTrace(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken for %v", bad, tr)
		}
	}
}
