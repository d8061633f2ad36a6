package dlms

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
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

// prove looks at the client's proof, and gives its own.
func (m *keeper) prove(data []byte) []byte {
	v, err := parseData(data)
	if err == nil {
		err = m.handshake.Verify([]byte(v.Str), m.since)
	}
	if err != nil {
		m.t.Errorf("the client's proof: %v", err)
	}
	m.proved = true
	reply := m.must(m.handshake.Reply(nil))
	if m.proof != nil {
		reply = m.proof(reply)
	}
	return reply
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
	case plain[0] == tagReadRequest && !m.proved:
		if !bytes.HasPrefix(plain, []byte{tagReadRequest, 1, 4, 0xFA, 0x58, 1}) {
			m.t.Errorf("the client's proof came as %X", plain)
		}
		reply := m.prove(plain[6:])
		out = append(append([]byte{tagReadResponse, 1, 0, byte(axdr.TagOctetString)}, axdr.AppendLength(nil, len(reply))...), reply...)
	case plain[0] == tagReadRequest:
		out = []byte{tagReadResponse, 1, 0, byte(axdr.TagDoubleLongUnsigned), 0, 0, 4, 0xD2}
	case plain[0] == tagActionRequest && !m.proved:
		reply := m.prove(plain[13:])
		out = append([]byte{tagActionResponse, 1, plain[2], 0, 1, 0, byte(axdr.TagOctetString)}, axdr.AppendLength(nil, len(reply))...)
		out = append(out, reply...)
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

// protectedBy gives options, and a meter that agrees with them.
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
