package dlmstest_test

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
)

// agreeing gives both sides keys for key agreement.
func agreeing(t *testing.T, s *dlmstest.Security, o *dlms.Security) {
	t.Helper()
	if s.Suite == security.Suite0 {
		return
	}
	curve := ecdh.P256()
	if s.Suite == security.Suite2 {
		curve = ecdh.P384()
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = curve.GenerateKey(rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	s.AgreementKey, s.ClientAgreement = keys[0], keys[1].PublicKey()
	o.Agreement, o.MeterAgreement, o.Master = keys[1], keys[0].PublicKey(), s.Master
}

func TestGeneralForms(t *testing.T) {
	t.Parallel()
	for suite := range security.Suite(3) {
		for scheme := security.NoScheme; scheme <= security.SchemeStatic; scheme++ {
			for _, policy := range []security.Policy{0, security.Authenticated, security.AuthenticatedEncrypted} {
				for _, sign := range []bool{false, true} {
					asymmetric := sign || scheme >= security.SchemeOnePass
					switch {
					case suite == security.Suite2 && (!sign || scheme < security.SchemeOnePass), policy == security.Authenticated && scheme != security.SchemeIdentified:
						continue // the others differ in nothing that is not above
					case suite == security.Suite0 && asymmetric, scheme != security.NoScheme && policy == 0, scheme == security.NoScheme && !sign:
						continue
					}
					t.Run(fmt.Sprintf("%d/%v/%v/%v", suite, scheme, policy, sign), func(t *testing.T) {
						t.Parallel()
						s, signing := meterSecurity(t, suite)
						o := dlms.Options{
							Mechanism: dlms.HLSMD5, Password: []byte(gurux), Window: 3,
							Security: clientSecurity(s, signing, policy, &security.Memory{}),
						}
						o.Security.Scheme, o.Security.Sign = scheme, sign
						o.Security.Master = s.Master
						agreeing(t, &s, &o.Security)
						for _, without := range []dlms.Conformance{0, dlms.GeneralBlockTransfer} {
							if without != 0 && suite == security.Suite2 {
								continue // many a block, and each is signed
							}
							m := full(dlmstest.Options{Clients: everyone(), Security: s, MaxPDU: 1100})
							o.Conformance = dlmstest.Everything &^ without
							c := connectTo(m, 16+3, o)
							if _, err := c.Associate(t.Context()); err != nil {
								t.Fatal(err)
							}
							exercise(t, c)
						}
					})
				}
			}
		}
	}
}

// meddler is a Transport to a meter with somebody on the line.
type meddler struct {
	session *dlmstest.Session
	client  uint16
	in      [][]byte
	answer  func([]byte) []byte
}

func (m *meddler) Send(_ context.Context, apdu []byte) error {
	for _, answer := range m.session.Answer(m.client, apdu) {
		if m.answer != nil {
			answer = m.answer(answer)
		}
		m.in = append(m.in, answer)
	}
	return nil
}

func (m *meddler) Receive(_ context.Context, b []byte) ([]byte, error) {
	if len(m.in) == 0 {
		return nil, lost{}
	}
	b, m.in = append(b, m.in[0]...), m.in[1:]
	return b, nil
}

// TestGeneralFormsRefuse has answers that are less than was asked for, and
// answers to other requests.
func TestGeneralFormsRefuse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		scheme security.Scheme
		sign   bool
		answer func(x *security.Exchange, plain []byte) ([]byte, error)
		is     error
	}{
		"as it should be":    {security.SchemeStatic, true, both, nil},
		"not signed":         {security.SchemeStatic, true, ciphered, security.ErrWeak},
		"not ciphered":       {security.SchemeStatic, true, func(x *security.Exchange, p []byte) ([]byte, error) { return x.AppendSigned(nil, p) }, security.ErrWeak},
		"in the clear":       {security.SchemeOnePass, false, func(_ *security.Exchange, p []byte) ([]byte, error) { return p, nil }, security.ErrWeak},
		"by the global key":  {security.SchemeOnePass, false, as(security.SchemeIdentified), security.ErrWeak},
		"by the static keys": {security.SchemeOnePass, false, as(security.SchemeStatic), security.ErrWeak},
		"by a wrapped key":   {security.SchemeIdentified, false, as(security.SchemeWrapped), security.ErrWeak},
		"named or not":       {security.SchemeIdentified, false, as(security.SchemeUnnamed), nil},
		"in another form": {security.SchemeIdentified, false, func(x *security.Exchange, p []byte) ([]byte, error) {
			return x.Sender.Protect(nil, p, security.Unicast, true)
		}, security.ErrWeak},
		"authenticated only": {security.SchemeStatic, false, func(x *security.Exchange, p []byte) ([]byte, error) {
			x.Sender.Policy = security.Authenticated
			return ciphered(x, p)
		}, security.ErrWeak},
		"from another": {security.SchemeStatic, false, func(x *security.Exchange, p []byte) ([]byte, error) {
			x.Sender.Title[0]++
			x.Sender.Counter = security.NewCounter(&security.Memory{}, x.Sender.Title, x.Sender.Keys.Encryption, 1)
			return ciphered(x, p)
		}, security.ErrTitle},
		"for another":        {security.SchemeStatic, false, func(x *security.Exchange, p []byte) ([]byte, error) { x.Receiver.Title[0]++; return ciphered(x, p) }, security.ErrTitle},
		"of another request": {security.SchemeStatic, false, func(x *security.Exchange, p []byte) ([]byte, error) { x.Transaction[0]++; return ciphered(x, p) }, lost{}},
		"signed of another": {security.NoScheme, true, func(x *security.Exchange, p []byte) ([]byte, error) {
			signed, err := x.AppendSigned(nil, p)
			if err != nil {
				return nil, err
			}
			return x.Sender.Protect(nil, signed, security.Unicast, true)
		}, lost{}},
		"signed by another": {security.SchemeStatic, true, func(x *security.Exchange, p []byte) ([]byte, error) {
			x.SigningKey = stranger(x.SigningKey)
			return both(x, p)
		}, security.ErrProof},
		"agreed with another": {security.SchemeOnePass, false, func(x *security.Exchange, p []byte) ([]byte, error) {
			x.SigningKey = stranger(x.SigningKey)
			return ciphered(x, p)
		}, security.ErrProof},
		"altered on the way": {security.SchemeWrapped, false, func(x *security.Exchange, p []byte) ([]byte, error) {
			b, err := ciphered(x, p)
			b[len(b)-1]++
			return b, err
		}, security.ErrTag},
		"another transaction": {security.SchemeIdentified, false, func(x *security.Exchange, p []byte) ([]byte, error) { b, err := ciphered(x, p); b[5]++; return b, err }, lost{}},
		"a counter from before": {security.SchemeIdentified, false, func(x *security.Exchange, p []byte) ([]byte, error) {
			x.Sender.Counter = security.NewCounter(&security.Memory{}, x.Sender.Title, x.Sender.Keys.Encryption, 1)
			return ciphered(x, p)
		}, security.ErrReplay},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, signing := meterSecurity(t, security.Suite1)
			o := dlms.Options{
				Mechanism: dlms.HLSMD5, Password: []byte(gurux), Conformance: dlmstest.Everything, InvokeID: 1,
				Security: clientSecurity(s, signing, security.AuthenticatedEncrypted, &security.Memory{}),
			}
			o.Security.Scheme, o.Security.Sign = c.scheme, c.sign
			agreeing(t, &s, &o.Security)
			line := &meddler{session: full(dlmstest.Options{Clients: everyone(), Security: s}).NewSession(), client: 19}
			client := dlms.NewClient(line, o)
			if _, err := client.Associate(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The meter's own side of it, at a counter of a later day.
			sender := security.Sender{
				Suite: s.Suite, Policy: security.AuthenticatedEncrypted, Title: s.Title, Keys: s.Keys,
				Counter: security.NewCounter(&security.Memory{}, s.Title, s.Keys.Encryption, 1),
			}
			if err := sender.Counter.Resync(1000); err != nil {
				t.Fatal(err)
			}
			receiver := security.Receiver{Suite: s.Suite, Title: o.Security.Title, Keys: s.Keys, Direction: security.FromClient, Window: &security.Window{}}
			x := security.Exchange{
				Sender: &sender, Receiver: &receiver, Scheme: c.scheme, Sign: c.sign, Master: s.Master, Agreement: s.AgreementKey,
				PeerKey: s.ClientAgreement, SigningKey: s.SigningKey, PeerSigning: s.ClientKey,
			}
			line.answer = func(answer []byte) []byte {
				x.Transaction = transactionOf(t, answer)
				out, err := c.answer(&x, []byte{0xC4, 1, 0xC1, 0, 0x11, 7})
				if err != nil {
					t.Error(err)
				}
				return out
			}
			v, err := client.Get(t.Context(), dlms.Attribute{Class: 1, Code: code("0-0:43.1.0"), ID: 2})
			switch {
			case c.is == nil && (err != nil || v.Num != 7):
				t.Errorf("%v, %v", v, err)
			case c.is != nil && !errors.Is(err, c.is):
				t.Errorf("%v, want %v", err, c.is)
			}
		})
	}
}

func transactionOf(t *testing.T, apdu []byte) []byte {
	t.Helper()
	if g, err := security.ParseGeneralCiphering(apdu); err == nil {
		return append([]byte(nil), g.TransactionID...)
	}
	p := apdu
	g, err := security.ParseGeneralSigning(p)
	if err != nil { // ciphered in another form: the test makes its own
		return make([]byte, 16)
	}
	return append([]byte(nil), g.TransactionID...)
}

func ciphered(x *security.Exchange, plain []byte) ([]byte, error) {
	return x.AppendCiphered(nil, plain)
}

func both(x *security.Exchange, plain []byte) ([]byte, error) {
	signed, err := x.AppendSigned(nil, plain)
	if err != nil {
		return nil, err
	}
	return x.AppendCiphered(nil, signed)
}

func as(scheme security.Scheme) func(*security.Exchange, []byte) ([]byte, error) {
	return func(x *security.Exchange, plain []byte) ([]byte, error) {
		x.Scheme = scheme
		return x.AppendCiphered(nil, plain)
	}
}

func stranger(key *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	other, err := ecdsa.GenerateKey(key.Curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return other
}

// TestReplayedRequest sends a request of general-ciphering to the meter twice.
func TestReplayedRequest(t *testing.T) {
	t.Parallel()
	for _, scheme := range []security.Scheme{security.SchemeIdentified, security.SchemeWrapped, security.SchemeOnePass, security.SchemeStatic, security.NoScheme} {
		s, signing := meterSecurity(t, security.Suite1)
		o := dlms.Options{
			Mechanism: dlms.HLSMD5, Password: []byte(gurux), Conformance: dlmstest.Everything,
			Security: clientSecurity(s, signing, security.AuthenticatedEncrypted, &security.Memory{}),
		}
		if o.Security.Scheme = scheme; scheme == security.NoScheme {
			o.Security.Policy, o.Security.Sign = security.Unprotected, true
		}
		agreeing(t, &s, &o.Security)
		line := &recorder{meddler: meddler{session: full(dlmstest.Options{Clients: everyone(), Security: s}).NewSession(), client: 19}}
		client := dlms.NewClient(line, o)
		if _, err := client.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Get(t.Context(), dlms.Attribute{Class: 1, Code: code("0-0:43.1.0"), ID: 2}); err != nil {
			t.Fatal(err)
		}
		again := line.session.Answer(19, line.last)
		if len(again) != 1 || again[0][0] != 0xD8 {
			t.Errorf("%v: %X", scheme, again)
		}
	}
}

type recorder struct {
	meddler
	last []byte
}

func (r *recorder) Send(ctx context.Context, apdu []byte) error {
	r.last = append([]byte(nil), apdu...)
	return r.meddler.Send(ctx, apdu)
}

// TestCertificates has both sides give their certificates, and take the keys
// from them.
func TestCertificates(t *testing.T) {
	t.Parallel()
	s, signing := meterSecurity(t, security.Suite1)
	wanted := *s.ClientKey
	s.ClientKey = &stranger(signing).PublicKey
	s.Certificate = make([]byte, 300)
	s.Trust = func(certificate []byte) *ecdsa.PublicKey {
		if string(certificate) == "the client's" {
			return &wanted
		}
		return nil
	}
	errUnknown := errors.New("unknown issuer")
	for name, c := range map[string]struct {
		certificate string
		trust       func([]byte) (*ecdsa.PublicKey, error)
		is          error
	}{
		"both":          {"the client's", func([]byte) (*ecdsa.PublicKey, error) { return &s.SigningKey.PublicKey, nil }, nil},
		"not trusted":   {"the client's", func([]byte) (*ecdsa.PublicKey, error) { return nil, errUnknown }, errUnknown},
		"another key":   {"the client's", func([]byte) (*ecdsa.PublicKey, error) { return &wanted, nil }, dlms.ErrAuthentication},
		"no key at all": {"the client's", nil, security.ErrKey},
		"another's":     {"somebody's", func([]byte) (*ecdsa.PublicKey, error) { return &s.SigningKey.PublicKey, nil }, dlms.ErrAuthentication},
		"none":          {"", func([]byte) (*ecdsa.PublicKey, error) { return &s.SigningKey.PublicKey, nil }, dlms.ErrAuthentication},
	} {
		o := dlms.Options{Mechanism: dlms.HLSECDSA, Security: clientSecurity(s, signing, 0, &security.Memory{})}
		o.Security.MeterKey, o.Security.Certificate, o.Security.Trust = nil, []byte(c.certificate), c.trust
		granted, err := connectTo(full(dlmstest.Options{Clients: everyone(), Security: s}), 16+7, o).Associate(t.Context())
		if c.is == nil && (err != nil || granted.MeterCertificate != string(s.Certificate)) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzSession has a meter take any two APDUs: it answers each, if at all, with
// something, by logical and by short names.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"C001C1000701006301 00FF02 0102 0204 0600000001 0600000002 120001 120000", "06 01 07 00 0001 01 09 03 010212", "16 01 02 0108 01 1105",
		"05 01 06 01 0001 04 01020108", "D9 F0000001 00 01 01 0003 0100010800FF 02 01 00", "E0 83 0001 0000 0D C001C100030100010800FF0200", "05 01 05 0001",
		"DD 01 07 08 4142434445464748 08 4142434445464748 00 00 00 12 30 00000001 00000000000000000000000000", "DF 01 07 00 00 00 00 01 C0 01 00",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(seed, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(true, b, b)
		f.Add(false, b, b)
	}
	f.Fuzz(func(t *testing.T, short bool, first, second []byte) {
		o := dlms.Options{ShortNames: short}
		grants := uint32(dlmstest.Everything)
		if short {
			grants = dlmstest.ShortNames
		}
		line := &meddler{client: 16, session: full(dlmstest.Options{Clients: map[uint16]dlmstest.Login{16: {Conformance: grants}}}).NewSession()}
		if _, err := dlms.NewClient(line, o).Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, apdu := range [][]byte{first, second} {
			for _, answer := range line.session.Answer(16, apdu) {
				if len(answer) == 0 {
					t.Fatalf("%x is answered with nothing", apdu)
				}
			}
		}
	})
}
