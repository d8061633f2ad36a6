package dlmstest_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/security"
)

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

// TestRefusalsOfServices looks at the octets of what a meter says in an
// association that is to be protected.
func TestRefusalsOfServices(t *testing.T) {
	t.Parallel()
	s, signing := meterSecurity(t, security.Suite0)
	m := full(dlmstest.Options{Clients: everyone(), Security: s})
	d := &datagrams{session: m.NewSession(), client: 1}
	o := dlms.Options{Mechanism: dlms.HLSGMAC, Security: clientSecurity(s, signing, security.AuthenticatedEncrypted, &security.Memory{})}
	if _, err := dlms.NewClient(d, o).Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	get := octets(t, "C001C1 0003 0100010800FF 02 00")
	sender := security.Sender{Suite: s.Suite, Policy: security.AuthenticatedEncrypted, Title: o.Security.Title, Keys: s.Keys, Counter: o.Security.Counter}
	protect := func(policy security.Policy) []byte {
		sender.Policy = policy
		b, err := sender.Protect(nil, get, security.Unicast, false)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	says := func(what string, apdu []byte, want string) {
		t.Helper()
		if out := d.session.Answer(1, apdu); len(out) != 1 || !strings.HasPrefix(fmt.Sprintf("%x", out[0]), want) {
			t.Errorf("%s: %x, want %s", what, out, want)
		}
	}
	says("in the clear", get, "d80101")
	says("authenticated only", protect(security.Authenticated), "d80101")
	altered := protect(security.AuthenticatedEncrypted)
	altered[9] ^= 1
	says("altered", altered, "d80105")
	fine := protect(security.AuthenticatedEncrypted)
	says("as it must be", fine, "cc")
	says("once more", fine, fmt.Sprintf("d80106%x", []byte{0, 0, 0, fine[6] + 1}))
	says("as it must be", protect(security.AuthenticatedEncrypted), "cc")
	says("cut short", fine[:9], "d80202")
	says("too long", make([]byte, 2000), "d80104")
	if out := d.session.Answer(2, fine); fmt.Sprintf("%x", out) != "[d80101]" {
		t.Errorf("another client: %x", out)
	}
}

// TestAssociationEndsWithTheLink has a client come back without saying who it
// is.
func TestAssociationEndsWithTheLink(t *testing.T) {
	t.Parallel()
	m := full(dlmstest.Options{Clients: everyone()})
	stream := connect(t, func(s io.ReadWriter) error { return m.ServeHDLC(s, dlmstest.Station{MaxInfo: 60, Window: 3}) })
	link := hdlc.NewLink(patient{stream}, hdlc.Config{Client: hdlc.ClientAddress(16), Server: serverOne(t)})
	c := dlms.NewClient(link, dlms.Options{Conformance: dlmstest.Everything})
	energy := dlms.Attribute{Class: 3, Code: code("1-0:1.8.0"), ID: 2}
	if err := link.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	profile, err := c.Get(t.Context(), dlms.Attribute{Class: 7, Code: code("1-0:99.1.0"), ID: 2})
	if err != nil || len(profile.Items) != 200 {
		t.Errorf("%d rows, %v", len(profile.Items), err)
	}
	if v, err := c.Get(t.Context(), energy); err != nil || v.Num != 12345 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := link.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := link.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var refused *dlms.ExceptionError
	if _, err := c.Get(t.Context(), energy); !errors.As(err, &refused) || *refused != (dlms.ExceptionError{State: 1, Service: 1}) {
		t.Errorf("without an association: %v", err)
	}
}

// patient is a stream whose deadline the test has set.
type patient struct{ io.ReadWriter }

func (patient) SetTimeout(time.Duration) error { return nil }

func serverOne(t *testing.T) hdlc.Address {
	t.Helper()
	a, err := hdlc.ServerAddress(1, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
