package dlms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
)

// keeper is a meter that protects what it says, and what a test lets it do
// wrong. It knows one register.
type keeper struct {
	t      *testing.T
	o      Options // the client's, whose secrets it shares
	title  security.Title
	signer *ecdsa.PrivateKey
	policy security.Policy // of its answers
	deaf   bool            // it is not to complain of what it gets

	// What goes wrong, nil or zero for nothing.
	greet  func(*greeting)           // in the association response
	proof  func(reply []byte) []byte // in what it makes of the client's challenge
	answer func(plain []byte) []byte // in an answer, before it is protected
	wire   func(apdu []byte) []byte  // after
	form   func(general bool) bool   // of answers
	refuse []byte                    // in place of the answer to the proof

	challenge []byte
	handshake *security.Handshake
	since     security.Mark
	sender    security.Sender
	receiver  security.Receiver
	counters  security.Memory
	proved    bool
	out       [][]byte
	requests  []byte // the tags of the services as they came
	last      []byte
}

type greeting struct {
	context   byte
	title     []byte
	mechanism byte
	challenge []byte
	info      []byte // as it is sent
	plain     []byte
}

func (m *keeper) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(m.out) == 0 {
		return nil, errSilence
	}
	apdu := m.out[0]
	m.out = m.out[1:]
	return append(b, apdu...), nil
}

func (m *keeper) Send(_ context.Context, apdu []byte) error {
	apdu = bytes.Clone(apdu)
	switch apdu[0] {
	case tagAARQ:
		m.associate(apdu)
	case tagRLRQ:
		m.last = apdu
		m.out = append(m.out, []byte{tagRLRE, 3, 0x80, 1, 0})
	default:
		m.requests = append(m.requests, apdu[0])
		m.serve(apdu)
	}
	return nil
}

func (m *keeper) associate(apdu []byte) {
	outer := reader{b: apdu}
	_, body := outer.element()
	r, g, info := reader{b: body}, greeting{context: contextName(m.o), mechanism: byte(m.o.Mechanism)}, []byte(nil)
	for len(r.b) > 0 {
		tag, contents := r.element()
		inner := reader{b: contents}
		switch tag {
		case tagAuthValue:
			_, m.challenge = inner.element()
		case tagUserInfo:
			_, info = inner.element()
		}
	}
	s := m.o.Security
	m.sender = security.Sender{Suite: s.Suite, Policy: m.policy, Title: m.title, Keys: s.Keys, Counter: security.NewCounter(&m.counters, m.title, s.Keys.Encryption, 1)}
	m.receiver = security.Receiver{Suite: s.Suite, Policy: s.Policy, Title: s.Title, Keys: s.Keys, Direction: security.FromClient, Window: new(security.Window)}
	if s.ciphers() {
		plain := m.must(m.receiver.Unprotect(nil, info))
		if _, err := m.receiver.Unprotect(nil, info); !m.deaf && !errors.Is(err, security.ErrReplay) {
			m.t.Errorf("the same request again: %v", err)
		}
		if plain[1] == 1 {
			key, err := security.NewKey(plain[3 : 3+plain[2]])
			if err != nil {
				m.t.Error(err)
			}
			m.sender.Keys.Dedicated, m.receiver.Keys.Dedicated = key, key
		}
	}
	g.title, g.challenge = m.title[:], bytes.Repeat([]byte{0x5A}, 16)
	g.plain = []byte{8, 0, 6, 0x5F, 0x1F, 4, 0, 0x40, 0x1E, 0x5D, 4, 0, 0, 7}
	if m.o.Mechanism.isHigh() {
		m.handshake = &security.Handshake{
			Mechanism: security.Mechanism(m.o.Mechanism), Own: m.title, Peer: s.Title, OwnChallenge: g.challenge, PeerChallenge: m.challenge,
			Secret: m.o.Password, SigningKey: m.signer, Random: rand.Reader, Sender: &m.sender, Receiver: &m.receiver,
		}
		if s.SigningKey != nil {
			m.handshake.PeerKey = &s.SigningKey.PublicKey
		}
		m.since = m.handshake.Mark()
	}
	if m.greet != nil {
		m.greet(&g)
	}
	if g.info == nil && g.plain != nil {
		g.info = g.plain
		if s.ciphers() {
			g.info = m.must(m.sender.Protect(nil, g.plain, security.Unicast, false))
		}
	}
	b := appendElement(nil, tagContextName, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, g.context)
	b = append(b, unhex(m.t, "A203020100A305A10302010E")...)
	if g.title != nil {
		b = appendElement(b, tagRespondingTitle, appendElement(nil, 4, g.title...)...)
	}
	b = append(b, unhex(m.t, "88020780")...)
	b = appendElement(b, tagRespondingMechanism, 0x60, 0x85, 0x74, 5, 8, 2, g.mechanism)
	if g.challenge != nil {
		b = appendElement(b, tagRespondingValue, appendElement(nil, 0x80, g.challenge...)...)
	}
	if g.info != nil {
		b = appendUserInfo(b, g.info)
	}
	m.out = append(m.out, appendElement(nil, tagAARE, b...))
}

func (m *keeper) must(b []byte, err error) []byte {
	m.t.Helper()
	if err != nil {
		if !m.deaf {
			m.t.Error(err)
		}
		return make([]byte, 64)
	}
	return b
}

func (m *keeper) serve(apdu []byte) {
	set, general, plain := security.Unicast, false, apdu
	ciphered := m.o.Security.ciphers()
	if ciphered {
		p, err := security.Parse(apdu)
		if err != nil {
			m.t.Errorf("the client sent %X: %v", apdu, err)
			return
		}
		set, general = p.Set, p.IsGeneral()
		plain = m.must(m.receiver.Unprotect(nil, apdu))
	}
	var out []byte
	switch {
	case plain[0] == tagActionRequest && !m.proved && m.refuse != nil:
		out = append([]byte{tagActionResponse, 1, plain[2]}, m.refuse...)
	case plain[0] == tagActionRequest && !m.proved:
		v, err := parseData(plain[13:])
		if err == nil {
			err = m.handshake.Verify([]byte(v.Str), m.since)
		}
		if err != nil {
			m.t.Errorf("the client's proof: %v", err)
		}
		reply := m.must(m.handshake.Reply(nil))
		if m.proof != nil {
			reply = m.proof(reply)
		}
		out = append([]byte{tagActionResponse, 1, plain[2], 0, 1, 0, byte(axdr.TagOctetString)}, axdr.AppendLength(nil, len(reply))...)
		out, m.proved = append(out, reply...), true
	default:
		out = []byte{tagGetResponse, 1, plain[2], 0, byte(axdr.TagDoubleLongUnsigned), 0, 0, 4, 0xD2}
	}
	if m.answer != nil {
		out = m.answer(out)
	}
	if m.form != nil {
		general = m.form(general)
	}
	if ciphered {
		out = m.must(m.sender.Protect(nil, out, set, general))
	}
	if m.wire != nil {
		out = m.wire(out)
	}
	m.out = append(m.out, out)
}

func testKey(t testing.TB, s security.Suite, first byte) security.Key {
	t.Helper()
	b := make([]byte, s.KeyLen())
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := security.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// protected gives options, and a meter that agrees with them.
func protectedBy(t *testing.T, m Mechanism, suite security.Suite, p security.Policy) (Options, *keeper) {
	t.Helper()
	o := Options{Mechanism: m, Password: []byte("a secret"), Security: Security{
		Suite: suite, Policy: p, Title: security.Title{'C', 'L', 'I', 0, 0, 0, 0, 1},
		Keys: security.Keys{Encryption: testKey(t, suite, 0), Authentication: testKey(t, suite, 0xD0)},
	}}
	o.Security.Counter = security.NewCounter(new(security.Memory), o.Security.Title, o.Security.Keys.Encryption, 8)
	k := &keeper{t: t, title: security.Title{'M', 'T', 'R', 0, 0, 0, 0, 9}, policy: p}
	if m == HLSECDSA {
		curve := elliptic.P256()
		if suite == security.Suite2 {
			curve = elliptic.P384()
		}
		for _, into := range []**ecdsa.PrivateKey{&o.Security.SigningKey, &k.signer} {
			key, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			*into = key
		}
		o.Security.MeterKey = &k.signer.PublicKey
	}
	k.o = o
	return o, k
}

// TestProtected has associations by every mechanism, suite and policy.
func TestProtected(t *testing.T) {
	t.Parallel()
	for m := HLS; m <= HLSECDSA; m++ {
		for suite := range security.Suite(3) {
			for _, p := range []security.Policy{security.Unprotected, security.Authenticated, security.Encrypted, security.AuthenticatedEncrypted} {
				if m == HLSECDSA && suite == security.Suite0 {
					continue
				}
				name := fmt.Sprintf("mechanism %d, suite %d, %v", m, suite, p)
				o, k := protectedBy(t, m, suite, p)
				c := NewClient(k, o)
				for round := range 2 { // the second finds all of the first in the window
					k.proved = false
					granted, err := c.Associate(t.Context())
					if err != nil || granted.MeterTitle != k.title || granted.MaxPDU != 1024 {
						t.Fatalf("%s, round %d: %+v, %v", name, round, granted, err)
					}
					if v, err := c.Get(t.Context(), energy()); err != nil || !v.Equal(axdr.DoubleLongUnsigned(1234)) {
						t.Errorf("%s: %+v, %v", name, v, err)
					}
					if err := c.Release(t.Context()); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
		}
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		alter func(*Options)
		want  string // tags of the requests
	}{
		"glo":                     {func(*Options) {}, "CBC8"},
		"general-glo":             {func(o *Options) { o.Security.General = true }, "CBDB"},
		"ded":                     {func(o *Options) { o.Security.Dedicated = true }, "CBD0"},
		"general-ded":             {func(o *Options) { o.Security.Dedicated, o.Security.General = true, true }, "CBDC"},
		"ded, without mechanism":  {func(o *Options) { o.Security.Dedicated, o.Mechanism = true, LLS }, "D0"},
		"glo, no authentication":  {func(o *Options) { o.Mechanism = NoAuthentication }, "C8"},
		"in the clear":            {func(o *Options) { o.Security.Policy, o.Security.General = security.Unprotected, true }, "C3C0"},
		"general-glo, both sides": {func(o *Options) { o.Security.General = true }, "CBDB"},
	} {
		o, k := protectedBy(t, HLSGMAC, security.Suite1, security.AuthenticatedEncrypted)
		c.alter(&o)
		k.o = o
		client := NewClient(k, o)
		if _, err := client.Associate(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		k.proved = true
		if v, err := client.Get(t.Context(), energy()); err != nil || !v.Equal(axdr.DoubleLongUnsigned(1234)) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		if got := strings.ToUpper(hex.EncodeToString(k.requests)); got != c.want {
			t.Errorf("%s: requests %s, want %s", name, got, c.want)
		}
	}
}

// TestDedicatedKeysDiffer: each association has its own.
func TestDedicatedKeysDiffer(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, LLS, security.Suite0, security.AuthenticatedEncrypted)
	o.Security.Dedicated = true
	k.o = o
	c := NewClient(k, o)
	seen := map[security.KeyID]bool{}
	for range 3 {
		if _, err := c.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen[k.sender.Keys.Dedicated.ID()] = true
	}
	if len(seen) != 3 || seen[security.KeyID{}] {
		t.Errorf("keys %v", seen)
	}
	o.Security.Policy = security.Authenticated
	if _, err := NewClient(k, o).Associate(t.Context()); !errors.Is(err, security.ErrWeak) {
		t.Errorf("a dedicated key in the clear: %v", err)
	}
}

// TestMeterRefused has meters that are not who they should be, or do less.
func TestMeterRefused(t *testing.T) {
	t.Parallel()
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	stranger := security.Title{'E', 'V', 'I', 'L'}
	for name, c := range map[string]struct {
		alter          func(*Options, *keeper)
		is             error
		authentication bool
	}{
		"our own challenge":       {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.challenge = k.challenge } }, security.ErrReflected, false},
		"our own title":           {func(o *Options, k *keeper) { k.greet = func(g *greeting) { g.title = o.Security.Title[:] } }, security.ErrReflected, false},
		"no challenge":            {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.challenge = nil } }, security.ErrWeak, false},
		"a short challenge":       {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.challenge = g.challenge[:7] } }, security.ErrMalformed, false},
		"another mechanism":       {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.mechanism = 1 } }, security.ErrWeak, false},
		"context without ciphers": {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.context = 1 } }, security.ErrWeak, false},
		"initiate in the clear":   {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.info = g.plain } }, security.ErrWeak, false},
		"no initiate":             {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.plain = nil } }, security.ErrWeak, false},
		"no title":                {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.title = nil } }, security.ErrTitle, false},
		"title known, and not it": {func(o *Options, _ *keeper) { o.Security.MeterTitle = stranger }, security.ErrTitle, false},
		"authenticated only":      {func(_ *Options, k *keeper) { k.policy = security.Authenticated }, security.ErrWeak, false},
		"another encryption key":  {func(o *Options, k *keeper) { k.o.Security.Keys.Encryption = testKey(t, 0, 9) }, nil, true},
		"another authentication": {func(o *Options, k *keeper) {
			k.greet = func(*greeting) { k.sender.Keys.Authentication = testKey(t, 0, 9) }
		}, security.ErrTag, true},
		"a wrong proof":          {func(_ *Options, k *keeper) { k.proof = flip }, security.ErrProof, true},
		"a short proof":          {func(_ *Options, k *keeper) { k.proof = func(b []byte) []byte { return b[:16] } }, security.ErrProof, true},
		"no proof":               {func(_ *Options, k *keeper) { k.proof = func([]byte) []byte { return nil } }, security.ErrProof, true},
		"proof refused":          {func(_ *Options, k *keeper) { k.refuse = []byte{3, 0} }, ReadWriteDenied, true},
		"nothing for a proof":    {func(_ *Options, k *keeper) { k.refuse = []byte{0, 0} }, ErrAuthentication, true},
		"answer altered":         {func(_ *Options, k *keeper) { k.wire = flip }, security.ErrTag, true},
		"answer in the clear":    {func(_ *Options, k *keeper) { k.wire = func([]byte) []byte { return unhex(t, "C701C1000100090100") } }, security.ErrWeak, false},
		"answer of another kind": {func(_ *Options, k *keeper) { k.wire = func(b []byte) []byte { b[0] = 0xCC; return b } }, security.ErrMalformed, false},
		"an exception":           {func(_ *Options, k *keeper) { k.wire = func([]byte) []byte { return []byte{0xD8, 1, 5} } }, nil, false},
		"no counter of ours":     {func(o *Options, _ *keeper) { o.Security.Counter = nil }, nil, false},
		"no title of ours":       {func(o *Options, _ *keeper) { o.Security.Title = security.Title{} }, security.ErrTitle, false},
		"no random numbers":      {func(o *Options, _ *keeper) { o.Security.Random = strings.NewReader("short") }, nil, false},
	} {
		o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
		c.alter(&o, k)
		if name == "another encryption key" { // the meter cannot open the request either
			k.greet = func(g *greeting) { g.title = k.title[:] }
			k.deaf = true
		}
		client := NewClient(k, o)
		granted, err := client.Associate(t.Context())
		if err == nil || c.is != nil && !errors.Is(err, c.is) || errors.Is(err, ErrAuthentication) != c.authentication || granted != (Association{}) {
			t.Errorf("%s: %+v, %v", name, granted, err)
		}
		if client.Associated() || client.secure.on {
			t.Errorf("%s: the association is taken to be open", name)
		}
		if _, err := client.Get(t.Context(), energy()); !errors.Is(err, ErrNotAssociated) {
			t.Errorf("%s: read all the same: %v", name, err)
		}
	}
}

// TestAnswersRefused has answers in an association that must not be taken.
func TestAnswersRefused(t *testing.T) {
	t.Parallel()
	var old []byte
	for name, c := range map[string]struct {
		alter func(*keeper)
		is    error
	}{
		"in the clear":       {func(k *keeper) { k.wire = func([]byte) []byte { return unhex(t, "C401C10006000004D2") } }, security.ErrWeak},
		"authenticated only": {func(k *keeper) { k.sender.Policy = security.Authenticated }, security.ErrWeak},
		"sent again":         {func(k *keeper) { k.wire = func(b []byte) []byte { k.out = append(k.out, b, b); old = b; return b } }, nil},
		"an old one": {func(k *keeper) {
			k.sender.Counter = security.NewCounter(new(security.Memory), k.title, k.o.Security.Keys.Encryption, 1)
		}, security.ErrReplay},
		"general all the same": {func(k *keeper) { k.form = func(bool) bool { return true } }, nil},
		"a notification in the clear first": {func(k *keeper) {
			k.wire = func(b []byte) []byte { k.out = append(k.out, unhex(t, "0F00000001000200")); return b }
		}, nil},
	} {
		o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
		o.Notify = func(apdu []byte) { t.Errorf("%s: the notification %X was believed", name, apdu) }
		client := NewClient(k, o)
		if _, err := client.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.alter(k)
		v, err := client.Get(t.Context(), energy())
		if !errors.Is(err, c.is) || (err == nil) != v.Equal(axdr.DoubleLongUnsigned(1234)) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		if name == "sent again" {
			if _, err := client.Get(t.Context(), energy()); !errors.Is(err, security.ErrReplay) {
				t.Errorf("an answer sent twice, %X: %v", old, err)
			}
		}
	}
}

// TestReceivedIsKept: the window of a meter outlives clients, unless the meter
// is known to begin anew.
func TestReceivedIsKept(t *testing.T) {
	t.Parallel()
	for _, restarts := range []bool{false, true} {
		o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
		o.Security.Received, o.Security.CounterRestarts = new(security.Window), restarts
		if _, err := NewClient(k, o).Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.counters, k.proved = security.Memory{}, false
		if _, err := NewClient(k, o).Associate(t.Context()); errors.Is(err, security.ErrReplay) == restarts {
			t.Errorf("restarts %v: %v", restarts, err)
		}
	}
}

func TestProtectedRelease(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
	o.Security.ProtectedRelease = true
	c := NewClient(k, o)
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(t.Context()); err != nil || c.secure.on {
		t.Error(err)
	}
	if len(k.last) < 12 || !bytes.Equal(k.last[:12], unhex(t, "6228 800100 BE23 0421 211F30")) {
		t.Fatalf("released by %X", k.last)
	}
	if plain, err := k.receiver.Unprotect(nil, k.last[9:]); err != nil || plain[0] != tagInitiateRequest {
		t.Errorf("%X, %v", plain, err)
	}
}

// TestCountersAreKept: each protected request draws one, and one for the proof.
func TestCountersAreKept(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
	c := NewClient(k, o)
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Get(t.Context(), energy()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := o.Security.Counter.Next(); n != 6 || err != nil {
		t.Errorf("counter %d, %v, want 6", n, err)
	}
}

// TestProtectedAARQ is the request of a public example, whose protected part
// independent libraries made too.
func TestProtectedAARQ(t *testing.T) {
	t.Parallel()
	title := security.Title(unhex(t, "4D4D4D0000BC614E"))
	o := Options{Mechanism: HLSGMAC, Conformance: 0x007E1F, MaxPDU: 0x04B0, Security: Security{Policy: security.AuthenticatedEncrypted, Title: title}}
	dedicated, err := security.NewKey(unhex(t, "00112233445566778899AABBCCDDEEFF"))
	if err != nil {
		t.Fatal(err)
	}
	k := security.Keys{Encryption: testKey(t, 0, 0), Authentication: testKey(t, 0, 0xD0)}
	counter := security.NewCounter(new(security.Memory), title, k.Encryption, 1)
	if err := counter.Anchor(0x01234567); err != nil {
		t.Fatal(err)
	}
	s := secure{sender: security.Sender{Policy: security.AuthenticatedEncrypted, Title: title, Keys: k, Counter: counter}}
	info, err := s.initiate(appendInitiateRequest(nil, o, dedicated))
	if err != nil {
		t.Fatal(err)
	}
	want := unhex(t, "6066A109060760857405080103A60A04084D4D4D0000BC614E8A0207808B0760857405080205AC0A80084B35366956616759BE340432"+
		"2130300123456780"+"1302FF8A7874133D414CED25B42534D28DB0047720606B175BD52211BE6841DB204D39EE6FDB8E356855")
	if got := appendAARQ(nil, o, []byte("K56iVagY"), info); !bytes.Equal(got, want) {
		t.Errorf("%X\nwant\n%X", got, want)
	}
}

func TestSecretsOfOptions(t *testing.T) {
	t.Parallel()
	o, _ := protectedBy(t, HLSMD5, security.Suite0, security.AuthenticatedEncrypted)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		got := fmt.Sprintf(verb, o)
		for _, secret := range []string{"a secret", "61207365", "97 32 115", "0x61, 0x20", "208 209 210", "d0d1d2", "0xd0, 0xd1"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s gives a secret away: %s", verb, got)
			}
		}
	}
}
