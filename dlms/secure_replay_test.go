package dlms_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
)

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// apduLink is a Transport that plays the APDUs of a trace without the link
// below them: those of I frames of HDLC, with addresses of one octet.
type apduLink struct {
	t    *testing.T
	rest []dlmstest.Step
}

func hdlcAPDUs(t *testing.T, name string) *apduLink {
	t.Helper()
	l := &apduLink{t: t}
	var whole []byte
	for _, step := range trace(t, name) {
		b := step.Bytes
		if len(b) < 12 || b[5]&1 != 0 {
			continue // not an I frame
		}
		whole = append(whole, b[8:len(b)-3]...)
		if b[1]&0x08 == 0 { // the last segment
			step.Bytes = whole[3:] // after the LLC
			l.rest, whole = append(l.rest, step), nil
		}
	}
	return l
}

func (l *apduLink) Send(_ context.Context, apdu []byte) error {
	if len(l.rest) == 0 || l.rest[0].FromMeter || !bytes.Equal(l.rest[0].Bytes, apdu) {
		l.t.Errorf("the client sent\n\t%X, the trace has\n\t%+v", apdu, l.rest)
		return dlmstest.ErrScript
	}
	l.rest = l.rest[1:]
	return nil
}

func (l *apduLink) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(l.rest) == 0 || !l.rest[0].FromMeter {
		return nil, os.ErrDeadlineExceeded
	}
	step := l.rest[0]
	l.rest = l.rest[1:]
	return append(b, step.Bytes...), nil
}

// gurux is how the meter of traces 06 and 07 is spoken to: the challenge and
// the counter are the choices of then.
func gurux(t *testing.T, challenge string, counter uint32) dlms.Options {
	t.Helper()
	newKey := func(s string) security.Key { return must[security.Key](t)(security.NewKey(octets(t, s))) }
	s := dlms.Security{
		Policy: security.AuthenticatedEncrypted, Title: security.Title(octets(t, "4775727578313233")),
		Keys: security.Keys{
			Encryption:     newKey("000102030405060708090A0B0C0D0E0F"),
			Authentication: newKey("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"),
		},
		General: true, Random: bytes.NewReader(octets(t, challenge)),
	}
	s.Counter = security.NewCounter(new(security.Memory), s.Title, s.Keys.Encryption, 1)
	if err := s.Counter.Anchor(counter); err != nil {
		t.Fatal(err)
	}
	return captured(dlms.Options{Mechanism: dlms.HLSGMAC, Security: s})
}

// publicCounter reads the invocation counter as anybody may.
func publicCounter(t *testing.T, l dlms.Transport) uint32 {
	t.Helper()
	c := dlms.NewClient(l, captured(dlms.Options{}))
	must[dlms.Association](t)(c.Associate(t.Context()))
	v := must[axdr.Value](t)(c.Get(t.Context(), attribute(t, 1, "0-0:43.1.0", 2)))
	n, ok := v.Uint64()
	if !ok {
		t.Fatalf("invocation counter %+v", v)
	}
	return uint32(n)
}

// talkToGurux has the conversation of traces 06 and 07, from the association
// to the last action.
func talkToGurux(t *testing.T, c *dlms.Client, register uint16, second byte) {
	t.Helper()
	ctx, value := t.Context(), must[axdr.Value](t)
	granted := must[dlms.Association](t)(c.Associate(ctx))
	want := dlms.Association{Conformance: 0x401E1D, MaxPDU: 512, VAA: 7, MeterTitle: security.Title(octets(t, "4142434445464748"))}
	if granted != want {
		t.Errorf("granted %+v, want %+v", granted, want)
	}
	clock := dlms.DateTime{Year: 2026, Month: 11, Day: 22, Weekday: 7, Hour: 8, Minute: 40, Second: second}
	if d := must[dlms.DateTime](t)(dlms.ParseDateTime(value(c.Get(ctx, attribute(t, 8, "0-0:1.0.0", 2))).Str)); d != clock {
		t.Errorf("clock %+v, want %+v", d, clock)
	}
	scaler, energy := attribute(t, 3, "1-1:21.25.0", 3), attribute(t, 3, "1-1:21.25.0", 2)
	if v := must[dlms.ScalerUnit](t)(dlms.ParseScalerUnit(value(c.Get(ctx, scaler)))); v != (dlms.ScalerUnit{Scaler: -2, Unit: 30}) {
		t.Errorf("scaler and unit %+v", v)
	}
	if v := value(c.Get(ctx, energy)); !v.Equal(axdr.LongUnsigned(register)) {
		t.Errorf("register %+v, want %d", v, register)
	}
	items := must[[]dlms.Item](t)(c.GetList(ctx, []dlms.Attribute{energy, scaler, attribute(t, 8, "0-0:1.0.0", 2)}))
	if len(items) != 3 || !items[0].Value.Equal(axdr.LongUnsigned(register+1)) {
		t.Errorf("list %+v", items)
	}
	profile := attribute(t, 7, "1-0:99.1.0", 3)
	if v := must[[]dlms.Column](t)(dlms.ParseColumns(value(c.Get(ctx, profile)))); len(v) != 2 {
		t.Errorf("columns %+v", v)
	}
	profile.ID = 2
	day := func(of uint8) dlms.DateTime {
		d := clock
		d.Day, d.Weekday = of, 0xFF
		return d
	}
	rows := value(c.GetRange(ctx, profile, dlms.Range{From: day(21), To: day(22)}))
	if len(rows.Items) != 96 || !rows.Items[0].Items[1].Equal(axdr.LongUnsigned(1000)) || !rows.Items[95].Items[1].Equal(axdr.LongUnsigned(1665)) {
		t.Errorf("%d rows, want 96", len(rows.Items))
	}
	zero := axdr.Integer(0)
	for i, state := range []bool{false, true} {
		value(c.Action(ctx, attribute(t, 70, "0-0:96.3.10", int8(i+1)), &zero))
		if v := value(c.Get(ctx, attribute(t, 70, "0-0:96.3.10", 2))); !v.Equal(axdr.Boolean(state)) {
			t.Errorf("output state %+v, want %v", v, state)
		}
		if v := value(c.Get(ctx, attribute(t, 70, "0-0:96.3.10", 3))); !v.Equal(axdr.Enum(uint8(i))) {
			t.Errorf("control state %+v, want %d", v, i)
		}
	}
}

// TestTrace07 has the conversation of 07 again, over the wrapper: the counter
// read as anybody, mechanism 5, all services ciphered in the general form.
func TestTrace07(t *testing.T) {
	t.Parallel()
	replay := dlmstest.NewReplay(trace(t, "07-wrapper-ln-hls5-gmac.txt"))
	public := over(replay, 16)
	c := dlms.NewClient(public, captured(dlms.Options{}))
	must[dlms.Association](t)(c.Associate(t.Context()))
	v := must[axdr.Value](t)(c.Get(t.Context(), attribute(t, 1, "0-0:43.1.0", 2)))
	if err := c.Release(t.Context()); err != nil || !v.Equal(axdr.DoubleLongUnsigned(23)) {
		t.Errorf("counter %+v, %v", v, err)
	}
	o := gurux(t, "6A7FF6B0E318E3CC5B3B3A6C649B7A5A", 0)
	if err := o.Security.Counter.Resync(uint32(v.Num)); err != nil {
		t.Fatal(err)
	}
	c = dlms.NewClient(over(replay, 1), o)
	talkToGurux(t, c, 98, 40)
	// This meter cannot be told that the association is over.
	var exception *dlms.ExceptionError
	if err := c.Release(t.Context()); !errors.As(err, &exception) || exception.State != 1 || exception.Service != 2 {
		t.Errorf("release: %v", err)
	}
	if err := replay.Close(); err != nil {
		t.Error(err)
	}
}

// TestTrace06 has the same conversation over HDLC, and reads the security
// setup; the link is not in it.
func TestTrace06(t *testing.T) {
	t.Parallel()
	l := hdlcAPDUs(t, "06-hdlc-ln-hls5-gmac.txt")
	if n := publicCounter(t, l); n != 0 {
		t.Errorf("counter %d", n)
	}
	c := dlms.NewClient(l, gurux(t, "F60FEC4AF672BF15F74693F74549998E", 1))
	talkToGurux(t, c, 88, 37)
	for id, want := range []axdr.Value{axdr.Enum(3), axdr.Enum(0), axdr.OctetString("\x00\x00\x00\x00\x00\x00\x00\x00"), axdr.OctetString("GRX\x00\x00\x00\x00\x01")} {
		if v := must[axdr.Value](t)(c.Get(t.Context(), attribute(t, 64, "0-0:43.0.2", int8(id+2)))); !v.Equal(want) {
			t.Errorf("security setup %d: %+v", id+2, v)
		}
	}
	if err := c.Release(t.Context()); err == nil || len(l.rest) != 0 {
		t.Errorf("release: %v, %d steps left", err, len(l.rest))
	}
}

// TestTraces15To17 has the conversations with mechanisms 3, 4 and 6.
func TestTraces15To17(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mechanism        dlms.Mechanism
		challenge, title string
		clock            string
	}{
		"15-hdlc-ln-hls3-md5.txt":    {dlms.HLSMD5, "980DD050EB963233F9D6A0B833037049", "", "07EA0B160708333754000000"},
		"16-hdlc-ln-hls4-sha1.txt":   {dlms.HLSSHA1, "060004695371CBF5CEB1C133679B347A", "", "07EA0B16070833383B000000"},
		"17-hdlc-ln-hls6-sha256.txt": {dlms.HLSSHA256, "E29E5FBDEDDEC6F0FD215FA81EBA89D3", "4142434445464748", "07EA0B160708333926000000"},
	} {
		l := hdlcAPDUs(t, name)
		o := dlms.Options{Mechanism: c.mechanism, Password: []byte("Gurux"), Security: dlms.Security{Random: bytes.NewReader(octets(t, c.challenge))}}
		copy(o.Security.Title[:], octets(t, c.title))
		client := dlms.NewClient(l, captured(o))
		granted, err := client.Associate(t.Context())
		if err != nil || granted.Conformance != 0x401E5D || granted.MaxPDU != 1024 {
			t.Errorf("%s: %+v, %v", name, granted, err)
			continue
		}
		if v := must[axdr.Value](t)(client.Get(t.Context(), attribute(t, 8, "0-0:1.0.0", 2))); v.Str != string(octets(t, c.clock)) {
			t.Errorf("%s: clock %X", name, v.Str)
		}
		if len(l.rest) != 0 {
			t.Errorf("%s: %d steps left", name, len(l.rest))
		}
	}
}

// TestTrace12 has the association by mechanism 2 of the conversation of 12.
func TestTrace12(t *testing.T) {
	t.Parallel()
	replay := dlmstest.NewReplay(trace(t, "12-wrapper-ln-hls2-gbt-access.txt")[:4])
	o := captured(dlms.Options{
		Mechanism: dlms.HLS, Password: []byte("Gurux"),
		Security: dlms.Security{Random: bytes.NewReader(octets(t, "762A91D88B6DF4FEFEFCFBEEA1B645B4"))},
	})
	o.Conformance = 0x601E5D
	c := dlms.NewClient(over(replay, 18), o)
	if granted, err := c.Associate(t.Context()); err != nil || granted.Conformance != 0x601E5D {
		t.Errorf("%+v, %v", granted, err)
	}
	if err := replay.Close(); err != nil {
		t.Error(err)
	}
}
