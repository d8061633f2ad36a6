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
		dlmstest.Limiter(code("0-0:17.0.0"), dlmstest.Column{Class: 3, Code: code("1-0:1.7.0"), ID: 2}, axdr.DoubleLongUnsigned(5000), nil),
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

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
