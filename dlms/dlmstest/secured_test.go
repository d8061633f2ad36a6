package dlmstest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

const gurux = "Gurux"

func keyOf(t *testing.T, suite security.Suite, first byte) security.Key {
	t.Helper()
	octets := make([]byte, suite.KeyLen())
	for i := range octets {
		octets[i] = first + byte(i)
	}
	k, err := security.NewKey(octets)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func meterSecurity(t *testing.T, suite security.Suite) (s dlmstest.Security, client *ecdsa.PrivateKey) {
	t.Helper()
	s = dlmstest.Security{
		Suite: suite, Title: security.Title([]byte("ABCDEFGH")), Master: keyOf(t, suite, 0x50),
		Keys: security.Keys{Encryption: keyOf(t, suite, 0), Authentication: keyOf(t, suite, 0xD0)},
	}
	curve := elliptic.P256()
	if suite == security.Suite2 {
		curve = elliptic.P384()
	}
	var err error
	if s.SigningKey, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if client, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
		t.Fatal(err)
	}
	s.ClientKey = &client.PublicKey
	return s, client
}

// clientSecurity is what a client of that meter needs, that protects by policy.
func clientSecurity(s dlmstest.Security, signing *ecdsa.PrivateKey, policy security.Policy, store security.Store) dlms.Security {
	title := security.Title([]byte("Gurux123"))
	return dlms.Security{
		Suite: s.Suite, Policy: policy, Title: title, MeterTitle: s.Title, Keys: s.Keys,
		Counter:    security.NewCounter(store, title, s.Keys.Encryption, 1),
		SigningKey: signing, MeterKey: &s.SigningKey.PublicKey,
	}
}

// everyone has a client of each mechanism: 16 to 23, and 1, which must protect
// all that it sends.
func everyone() map[uint16]dlmstest.Login {
	m := map[uint16]dlmstest.Login{
		1:  {Mechanism: 5, Policy: security.AuthenticatedEncrypted},
		16: {ReadOnly: true, Conformance: dlmstest.Reading},
	}
	for mechanism := uint8(1); mechanism <= 7; mechanism++ {
		m[16+uint16(mechanism)] = dlmstest.Login{Mechanism: mechanism, Secret: gurux}
	}
	return m
}

func breaker(id int8) dlms.Attribute {
	return dlms.Attribute{Class: 70, Code: code("0-0:96.3.10"), ID: id}
}

// full is a meter with an object of each kind that there is.
func full(o dlmstest.Options) *dlmstest.Meter {
	wrong := new(dlmstest.Wrong)
	now := func() time.Time { return start().Add(50 * time.Hour) }
	energy := dlmstest.Column{Class: 3, Code: code("1-0:1.8.0"), ID: 2}
	clock := dlmstest.Column{Class: 8, Code: code("0-0:1.0.0"), ID: 2}
	log := dlmstest.NewLog(10)
	run := func(id int8) []dlmstest.ScriptStep {
		return []dlmstest.ScriptStep{{Runs: true, Column: dlmstest.Column{Class: 70, Code: code("0-0:96.3.10"), ID: id}, Argument: axdr.Integer(0)}}
	}
	loop := []dlmstest.ScriptStep{{Runs: true, Column: dlmstest.Column{Class: 9, Code: code("0-0:10.0.106"), ID: 1}, Argument: axdr.LongUnsigned(3)}}
	o.Name = "GRG0000000000001"
	o.Objects = []dlmstest.Object{
		dlmstest.Data(code("0-0:96.1.0"), dlmstest.Fixed(axdr.OctetString("GRG1"))),
		dlmstest.Register(energy.Code, -1, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(12345))),
		dlmstest.SettableClock(clock.Code, now, wrong),
		dlmstest.Profile(code("1-0:99.1.0"), []dlmstest.Column{clock, energy}, 900, func(s *dlmstest.Selection) []axdr.Value {
			var rows []axdr.Value
			for i := range 200 {
				at := start().Add(time.Duration(i) * 15 * time.Minute)
				if s == nil || !at.Before(s.From) && !at.After(s.To) {
					rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(at)), axdr.DoubleLongUnsigned(uint32(i))))
				}
			}
			return rows
		}),
		log.Object(code("0-0:98.1.0"), []dlmstest.Column{clock, energy}, 0, func() axdr.Value {
			return axdr.Structure(axdr.OctetString(dlmstest.DateTime(now())), axdr.DoubleLongUnsigned(12345))
		}),
		dlmstest.Disconnector(code("0-0:96.3.10"), nil),
		dlmstest.Limiter(code("0-0:17.0.0"), dlmstest.Column{Class: 3, Code: code("1-0:1.7.0"), ID: 2}, axdr.DoubleLongUnsigned(5000)),
		dlmstest.Scripts(code("0-0:10.0.106"), run(1), run(2), loop),
		dlmstest.Cells(1, code("0-0:96.13.0"), map[int8]axdr.Value{2: axdr.OctetString("")}, 2),
	}
	return dlmstest.NewMeter(o)
}

// datagrams is a Transport to a Meter without a line: all APDUs go to a
// session, and what it answers waits.
type datagrams struct {
	session *dlmstest.Session
	client  uint16
	waiting [][]byte
	lose    func(n int) bool // of what the meter sends, if not nil
	n       int
}

func (d *datagrams) Send(_ context.Context, apdu []byte) error {
	for _, out := range d.session.Answer(d.client, apdu) {
		if d.n++; d.lose == nil || !d.lose(d.n) {
			d.waiting = append(d.waiting, out)
		}
	}
	return nil
}

type lost struct{}

func (lost) Error() string { return "nothing came" }
func (lost) Timeout() bool { return true }

func (d *datagrams) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(d.waiting) == 0 {
		return nil, lost{}
	}
	b = append(b, d.waiting[0]...)
	d.waiting = d.waiting[1:]
	return b, nil
}

func connectTo(m *dlmstest.Meter, client uint16, o dlms.Options) *dlms.Client {
	return dlms.NewClient(&datagrams{session: m.NewSession(), client: client}, o)
}

// exercise uses every service on a meter made by full.
func exercise(t *testing.T, c *dlms.Client) {
	t.Helper()
	ctx := t.Context()
	check := func(what string, v axdr.Value, err error, want axdr.Value) {
		t.Helper()
		if err != nil || !v.Equal(want) {
			t.Errorf("%s: %+v, %v, want %+v", what, v, err, want)
		}
	}
	get := func(what string, a dlms.Attribute, want axdr.Value) {
		t.Helper()
		v, err := c.Get(ctx, a)
		check(what, v, err, want)
	}
	energy := dlms.Attribute{Class: 3, Code: code("1-0:1.8.0"), ID: 2}
	get("register", energy, axdr.DoubleLongUnsigned(12345))
	_, err := c.Action(ctx, breaker(1), ptr(axdr.Integer(0)))
	check("disconnect", axdr.Null(), err, axdr.Null())
	get("output", breaker(2), axdr.Boolean(false))
	get("state", breaker(3), axdr.Enum(0))
	_, err = c.Action(ctx, dlms.Attribute{Class: 9, Code: code("0-0:10.0.106"), ID: 1}, ptr(axdr.LongUnsigned(2)))
	check("script", axdr.Null(), err, axdr.Null())
	get("output", breaker(2), axdr.Boolean(true))
	for number, want := range map[uint16]dlms.AccessError{3: dlms.OtherReason, 9: dlms.ObjectUndefined} {
		if _, err := c.Action(ctx, dlms.Attribute{Class: 9, Code: code("0-0:10.0.106"), ID: 1}, ptr(axdr.LongUnsigned(number))); !errors.Is(err, want) {
			t.Errorf("script %d: %v, want %v", number, err, want)
		}
	}
	text := dlms.Attribute{Class: 1, Code: code("0-0:96.13.0"), ID: 2}
	for _, n := range []int{3, 700} { // whole, and in blocks where the PDU is short
		want := axdr.OctetString(strings.Repeat("ab", n))
		if err := c.Set(ctx, text, want); err != nil {
			t.Errorf("set %d octets: %v", 2*n, err)
		}
		get("what was set", text, want)
	}
	results, err := c.SetList(ctx, []dlms.Assignment{{Attribute: text, Value: axdr.OctetString("x")}, {Attribute: energy, Value: axdr.Unsigned(1)}, {Attribute: text, Value: axdr.Unsigned(1)}})
	if err != nil || fmt.Sprint(results) != fmt.Sprint([]error{nil, dlms.ReadWriteDenied, dlms.TypeUnmatched}) {
		t.Errorf("set list: %v, %v", results, err)
	}
	all, err := c.Get(ctx, dlms.Attribute{Class: 7, Code: code("1-0:99.1.0"), ID: 2})
	if err != nil || len(all.Items) != 200 {
		t.Errorf("profile: %d rows, %v", len(all.Items), err)
	}
	some, err := c.GetEntries(ctx, dlms.Attribute{Class: 7, Code: code("1-0:99.1.0"), ID: 2}, dlms.Entries{From: 3, To: 5, FirstColumn: 2, LastColumn: 2})
	check("entries", some, err, axdr.Array(axdr.Structure(axdr.DoubleLongUnsigned(2)), axdr.Structure(axdr.DoubleLongUnsigned(3)), axdr.Structure(axdr.DoubleLongUnsigned(4))))
	items, err := c.ReadList(ctx, []dlms.Attribute{energy, {Class: 7, Code: code("1-0:99.1.0"), ID: 2}, {Class: 3, Code: code("1-0:9.9.9"), ID: 2}})
	if err != nil || len(items) != 3 || len(items[1].Value.Items) != 200 || !errors.Is(items[2].Err, dlms.ObjectUndefined) {
		t.Errorf("list: %d, %v", len(items), err)
	}
	items, err = c.ActionList(ctx, []dlms.Call{{Method: breaker(1), Argument: ptr(axdr.Integer(0))}, {Method: breaker(9), Argument: nil}, {Method: breaker(2), Argument: ptr(axdr.Integer(0))}})
	if err != nil || len(items) != 3 || items[0].Err != nil || !errors.Is(items[1].Err, dlms.ReadWriteDenied) {
		t.Errorf("action list: %v, %v", items, err)
	}
	if c.Granted().Conformance.Has(dlms.Access) {
		items, err = c.Access(ctx, []dlms.AccessItem{{Kind: dlms.AccessGet, Attribute: energy}, {Kind: dlms.AccessSet, Attribute: text, Value: axdr.OctetString("y")}, {Kind: dlms.AccessAction, Attribute: breaker(9)}})
		if err != nil || len(items) != 3 || items[0].Value.Num != 12345 || items[1].Err != nil || !errors.Is(items[2].Err, dlms.ReadWriteDenied) {
			t.Errorf("access: %v, %v", items, err)
		}
	}
	list, err := c.Get(ctx, dlms.Attribute{Class: 15, Code: code("0-0:40.0.0"), ID: 2})
	if err != nil || len(list.Items) < 10 {
		t.Errorf("object list: %d, %v", len(list.Items), err)
	}
	for _, o := range list.Items { // what the list says can be read can be read
		for _, a := range o.Items[3].Items[0].Items {
			var name obis.Code
			copy(name[:], o.Items[2].Str)
			at := dlms.Attribute{Class: uint16(o.Items[0].Num), Code: name, ID: int8(a.Items[0].Num)}
			if _, err := c.Get(ctx, at); (err == nil) != (a.Items[1].Num&1 == 1) {
				t.Errorf("%v: %v, and access %d", at, err, a.Items[1].Num)
			}
		}
	}
	if err := c.Release(ctx); err != nil {
		t.Error(err)
	}
}

func ptr(v axdr.Value) *axdr.Value { return &v }

func TestEveryAuthentication(t *testing.T) {
	t.Parallel()
	for suite := range security.Suite(3) {
		for mechanism := range dlms.Mechanism(8) {
			if mechanism == dlms.HLSECDSA && suite == security.Suite0 || mechanism == 0 {
				continue
			}
			for _, policy := range []security.Policy{0, security.Authenticated, security.Encrypted, security.AuthenticatedEncrypted} {
				for _, form := range []string{"glo", "ded", "general", "gbt"} {
					if form == "ded" && !policy.Covers(security.Encrypted) || form == "general" && policy == 0 {
						continue
					}
					t.Run(fmt.Sprintf("%d/%d/%v/%s", suite, mechanism, policy, form), func(t *testing.T) {
						t.Parallel()
						s, signing := meterSecurity(t, suite)
						m := full(dlmstest.Options{Clients: everyone(), Security: s, MaxPDU: 300})
						o := dlms.Options{
							Mechanism: mechanism, Password: []byte(gurux), Conformance: dlmstest.Everything &^ 0x200000, Window: 3,
							Security: clientSecurity(s, signing, policy, &security.Memory{}),
						}
						o.Security.Dedicated, o.Security.General, o.Security.ProtectedRelease = form == "ded", form == "general", true
						if form == "gbt" {
							o.Conformance = dlmstest.Everything
						}
						c := connectTo(m, 16+uint16(mechanism), o)
						if _, err := c.Associate(t.Context()); err != nil {
							t.Fatal(err)
						}
						exercise(t, c)
					})
				}
			}
		}
	}
}

// TestLostBlocks loses one answer in so many; general block transfer gets them
// again.
func TestLostBlocks(t *testing.T) {
	t.Parallel()
	for _, window := range []uint8{1, 3} {
		m := full(dlmstest.Options{Clients: everyone()})
		d := &datagrams{session: m.NewSession(), client: 16, lose: func(n int) bool { return n > 3 && n%5 == 0 }}
		c := dlms.NewClient(d, dlms.Options{Conformance: dlmstest.Everything, MaxPDU: 128, Window: window})
		if _, err := c.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, err := c.Get(t.Context(), dlms.Attribute{Class: 7, Code: code("1-0:99.1.0"), ID: 2})
		if err != nil || len(all.Items) != 200 || d.n < 36 {
			t.Errorf("window %d: %d rows in %d, %v", window, len(all.Items), d.n, err)
		}
	}
}

func TestWrongKeysAndCounters(t *testing.T) {
	t.Parallel()
	s, signing := meterSecurity(t, security.Suite0)
	m := full(dlmstest.Options{Clients: everyone(), Security: s})
	store := &security.Memory{}
	options := func() dlms.Options {
		return dlms.Options{Mechanism: dlms.HLSGMAC, Security: clientSecurity(s, signing, security.AuthenticatedEncrypted, store)}
	}
	counter := dlms.Attribute{Class: 1, Code: code("0-0:43.1.0"), ID: 2}

	o := options()
	o.Security.Keys.Encryption = keyOf(t, security.Suite0, 9)
	o.Security.Counter = security.NewCounter(store, o.Security.Title, o.Security.Keys.Encryption, 1)
	var refused *dlms.AssociationError
	if _, err := connectTo(m, 1, o).Associate(t.Context()); !errors.Is(err, dlms.ErrAuthentication) || !errors.As(err, &refused) ||
		refused.Service == nil || *refused.Service != (dlms.ServiceError{Service: 1, Kind: 0, Code: 6}) {
		t.Errorf("wrong key: %v", err)
	}

	c := connectTo(m, 1, options())
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	public := connectTo(m, 16, dlms.Options{})
	if _, err := public.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown := func() uint64 {
		t.Helper()
		v, err := public.Get(t.Context(), counter)
		if err != nil {
			t.Fatal(err)
		}
		return v.Num
	}
	before := shown()
	if _, err := c.Get(t.Context(), counter); err != nil || shown() != before+1 {
		t.Errorf("%d after %d, %v", shown(), before, err)
	}

	// Another client with that title begins at 0 again.
	o = options()
	o.Security.Counter = security.NewCounter(&security.Memory{}, o.Security.Title, s.Keys.Encryption, 1)
	var exception *dlms.ExceptionError
	if _, err := connectTo(m, 1, o).Associate(t.Context()); !errors.As(err, &exception) ||
		*exception != (dlms.ExceptionError{State: 1, Service: 6, Counter: uint32(before) + 2, HasCounter: true}) {
		t.Errorf("counter began anew: %v, %d was the last", err, before+1)
	}
	if err := o.Security.Counter.Resync(exception.Counter - 1); err != nil {
		t.Fatal(err)
	}
	if _, err := connectTo(m, 1, o).Associate(t.Context()); err != nil {
		t.Errorf("resynchronised: %v", err)
	}

	// Clients that do less than they must.
	o = options()
	o.Security.Counter, o.Security.Policy = security.NewCounter(store, o.Security.Title, s.Keys.Encryption, 1), security.Authenticated
	if err := o.Security.Counter.Resync(uint32(shown())); err != nil {
		t.Fatal(err)
	}
	if _, err := connectTo(m, 1, o).Associate(t.Context()); !errors.Is(err, dlms.ErrAuthentication) {
		t.Errorf("authenticated only: %v", err)
	}
	o.Security.Policy = security.Unprotected
	if _, err := connectTo(m, 1, o).Associate(t.Context()); !errors.As(err, &refused) || refused.Diagnostic != 2 {
		t.Errorf("in the clear: %v", err)
	}
	for _, mechanism := range []dlms.Mechanism{dlms.HLS, dlms.HLSMD5, dlms.HLSSHA1, dlms.HLSSHA256} {
		o := options()
		o.Mechanism, o.Password, o.Security.Policy = mechanism, []byte("Guruy"), 0
		c := connectTo(m, 16+uint16(mechanism), o)
		if _, err := c.Associate(t.Context()); !errors.Is(err, dlms.ErrAuthentication) {
			t.Errorf("mechanism %d with a wrong secret: %v", mechanism, err)
		}
	}
}

func TestKeysChange(t *testing.T) {
	t.Parallel()
	s, signing := meterSecurity(t, security.Suite1)
	m := full(dlmstest.Options{Clients: everyone(), Security: s})
	options := func(keys security.Keys) dlms.Options {
		s.Keys = keys
		return dlms.Options{Mechanism: dlms.HLSGMAC, Security: clientSecurity(s, signing, security.AuthenticatedEncrypted, &security.Memory{})}
	}
	old := s.Keys
	next := security.Keys{Encryption: keyOf(t, s.Suite, 0x31), Authentication: keyOf(t, s.Suite, 0x41)}
	c := connectTo(m, 1, options(old))
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	transfer := axdr.Array()
	for id, key := range map[uint8]security.Key{0: next.Encryption, 2: next.Authentication} {
		wrapped, err := security.Wrap(nil, s.Master, key)
		if err != nil {
			t.Fatal(err)
		}
		transfer.Items = append(transfer.Items, axdr.Structure(axdr.Enum(id), axdr.OctetString(string(wrapped))))
	}
	setup := dlms.Attribute{Class: 64, Code: code("0-0:43.0.0"), ID: 2}
	if v, err := c.Get(t.Context(), setup); err != nil || v.Num != 0x6C {
		t.Errorf("policy %+v, %v", v, err)
	}
	if _, err := c.Action(t.Context(), setup, &transfer); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), setup); err != nil {
		t.Errorf("after the change: %v", err)
	}
	if _, err := connectTo(m, 1, options(old)).Associate(t.Context()); !errors.Is(err, dlms.ErrAuthentication) {
		t.Errorf("the old keys: %v", err)
	}
	if _, err := connectTo(m, 1, options(next)).Associate(t.Context()); err != nil {
		t.Errorf("the new keys: %v", err)
	}
}

func TestClockIsSet(t *testing.T) {
	t.Parallel()
	m := full(dlmstest.Options{Clients: everyone(), Zone: time.FixedZone("", 3600)})
	c := connectTo(m, 17, dlms.Options{Mechanism: dlms.LLS, Password: []byte(gurux)})
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock := dlms.Attribute{Class: 8, Code: code("0-0:1.0.0"), ID: 2}
	shows := func(want string) {
		t.Helper()
		if v, err := c.Get(t.Context(), clock); err != nil || fmt.Sprintf("%x", v.Str) != want {
			t.Errorf("shows %x, %v, want %s", v.Str, err, want)
		}
	}
	shows("07ea03030202000000ffc400")
	if err := c.Set(t.Context(), clock, axdr.OctetString("\x07\xEA\x03\x03\xFF\x02\x05\x07\x00\x80\x00\x00")); err != nil { // local
		t.Fatal(err)
	}
	shows("07ea03030202050700ffc400")
	if err := c.Set(t.Context(), clock, axdr.OctetString("\x07\xEA\x03\x03\xFF\x02\x05\x07\x00\x00\x00\x00")); err != nil { // UTC
		t.Fatal(err)
	}
	shows("07ea03030203050700ffc400")
	method := clock
	method.ID = 6
	if _, err := c.Action(t.Context(), method, ptr(axdr.Long(-7))); err != nil {
		t.Fatal(err)
	}
	shows("07ea03030203050000ffc400")
	method.ID = 1
	if _, err := c.Action(t.Context(), method, ptr(axdr.Integer(0))); err != nil {
		t.Fatal(err)
	}
	shows("07ea03030203000000ffc400")
	billing := dlms.Attribute{Class: 7, Code: code("0-0:98.1.0"), ID: 2}
	for _, step := range []struct {
		method int8
		rows   int
	}{{2, 1}, {2, 2}, {1, 0}} { // capture, capture, reset
		method := billing
		method.ID = step.method
		if _, err := c.Action(t.Context(), method, ptr(axdr.Integer(0))); err != nil {
			t.Fatal(err)
		}
		if v, err := c.Get(t.Context(), billing); err != nil || len(v.Items) != step.rows {
			t.Errorf("%d rows after method %d, want %d, %v", len(v.Items), step.method, step.rows, err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	m := full(dlmstest.Options{Clients: everyone()})
	session := m.NewSession()
	if out := session.Answer(16, octets(t, "601DA109060760857405080101BE10040E01000000065F1F0400FFFFFF0000")); len(out) != 1 || out[0][17] != 0 {
		t.Fatalf("%x", out)
	}
	if out := session.Answer(16, octets(t, "C101C1 0001 0000600D00FF 02 00 0900")); fmt.Sprintf("%x", out) != "[d80202]" {
		t.Errorf("set: %x", out)
	}
	if out := session.Answer(16, octets(t, "D9C000000100 02 02 0001 0000600D00FF 02 03 0046 000060030AFF 01 02 0900 0F00")); fmt.Sprintf("%x", out) != "[dac000000100000200000202030303]" {
		t.Errorf("access: %x", out)
	}
}

// TestWrapperOfDatagrams is what goes over UDP.
func TestWrapperOfDatagrams(t *testing.T) {
	t.Parallel()
	session := full(dlmstest.Options{Clients: everyone()}).NewSession()
	whole := octets(t, "0001 0010 0001 001F 601DA109060760857405080101BE10040E01000000065F1F0400007E1F04B0")
	for n := range whole {
		if out := session.Frame(whole[:n]); out != nil {
			t.Errorf("%d octets: %x", n, out)
		}
	}
	if out := session.Frame(append(whole, 0)); out != nil {
		t.Errorf("an octet more: %x", out)
	}
	if out := session.Frame(whole); len(out) != 1 || out[0][3] != 1 || out[0][5] != 0x10 {
		t.Errorf("%x", out)
	}
}

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
