package dlms

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"gridgate/dlms/security"
)

// The high-level mechanisms: both sides show that they know a secret.
const (
	HLS       Mechanism = 2 // the manufacturer's; in fact AES of the challenge
	HLSMD5    Mechanism = 3
	HLSSHA1   Mechanism = 4
	HLSGMAC   Mechanism = 5 // by the keys of Security
	HLSSHA256 Mechanism = 6
	HLSECDSA  Mechanism = 7 // by SigningKey and MeterKey of Security
)

func (m Mechanism) isHigh() bool { return m >= HLS }

// Security is how an association is protected. The zero value is not at all.
type Security struct {
	Suite security.Suite
	// Policy is what is done to each request, and the least that an answer must
	// have had done to it. With security.Unprotected nothing is ciphered;
	// mechanisms 5 to 7 take titles, keys and counter from here all the same.
	Policy security.Policy
	// Title is the client's system title, MeterTitle the meter's: an answer
	// from another is refused. Zero takes the one that the meter gives.
	Title, MeterTitle security.Title
	// Keys are the global keys. A dedicated key is not given: see Dedicated.
	Keys security.Keys
	// Counter draws the invocation counters of Title and the encryption key.
	Counter *security.Counter
	// Received remembers what was received: give the same one to all clients of
	// a meter, and answers of old associations are refused. nil remembers as
	// long as the client lives.
	Received *security.Window
	// CounterRestarts says that the meter begins its counter anew with each
	// association, as some simulators do. Its key then protects little: use it
	// on no meter that matters.
	CounterRestarts bool
	// Dedicated has the services protected by a key of this association alone,
	// which is made at random and given to the meter in the request. It needs
	// a Policy that encrypts.
	Dedicated bool
	// General has the services travel in the general form, where the meter
	// grants that: 10 octets more each way. The passes of the authentication
	// do not, as with the clients that are seen to use it.
	General bool
	// ProtectedRelease repeats the protected initiate request in the release
	// request, so that nobody else can end the association; some meters want it.
	ProtectedRelease bool
	// SigningKey is the client's, MeterKey the meter's, for HLSECDSA and Sign.
	SigningKey *ecdsa.PrivateKey
	MeterKey   *ecdsa.PublicKey
	// Certificate, if not empty, is that of SigningKey (DER), given to the meter
	// in the association request. Trust, if not nil, gives the key in the
	// meter's certificate, or says why it is not to be trusted: it is asked
	// where MeterKey is nil and the meter gives one.
	Certificate []byte
	Trust       func(certificate []byte) (*ecdsa.PublicKey, error)

	// Scheme has the services travel in general-ciphering, with keys by that
	// scheme, and Sign in general-signing; both need that the meter grants
	// GeneralProtection. What it answers in less is refused: another scheme,
	// another transaction, no signature. Experimental: see dlms/security.
	Scheme security.Scheme
	Sign   bool
	// Master wraps keys, for security.SchemeWrapped. Agreement is the client's
	// key for key agreement and MeterAgreement the meter's.
	Master         security.Key
	Agreement      *ecdh.PrivateKey
	MeterAgreement *ecdh.PublicKey
	// Random is where challenges and dedicated keys come from; nil is the
	// random numbers of the system.
	Random io.Reader
}

// exchanges says whether services are in general-ciphering or general-signing.
func (s Security) exchanges() bool { return s.Scheme != security.NoScheme || s.Sign }

func (s Security) ciphers() bool { return s.Policy != security.Unprotected }

func (s Security) random() io.Reader {
	if s.Random == nil {
		return rand.Reader
	}
	return s.Random
}

// secure is what a client keeps of an association's protection.
type secure struct {
	sender    security.Sender
	receiver  security.Receiver
	window    security.Window // if the caller gave none
	challenge []byte          // ours
	on        bool            // services are protected
	set       security.KeySet
	general   bool
	exchange  *security.Exchange // nil for none, or not yet
	meterKey  *ecdsa.PublicKey
	out, in   []byte
	signed    []byte
}

// prepare gets ready for an association: a new challenge, a new dedicated key.
func (c *Client) prepare() error {
	o, s := c.options, &c.secure
	window := o.Security.Received
	if window == nil {
		window = &s.window
	}
	if old := s.receiver.Keys.Dedicated; !old.IsZero() { // never to come again
		window.Forget(s.receiver.Title, old.ID(), security.FromServer)
	}
	sec := o.Security
	sec.Keys.Dedicated = security.Key{}
	if sec.Dedicated {
		if !sec.Policy.Covers(security.Encrypted) {
			return fmt.Errorf("a dedicated key would travel in the clear: %w", security.ErrWeak)
		}
		key, err := s.newKey(sec)
		if err != nil {
			return err
		}
		sec.Keys.Dedicated = key
	}
	if sec.Scheme != security.NoScheme && !sec.ciphers() {
		return fmt.Errorf("general-ciphering: %w: %v", security.ErrWeak, sec.Policy)
	}
	s.set, s.general, s.challenge, s.exchange, s.meterKey = security.Unicast, false, nil, nil, sec.MeterKey
	s.sender = security.Sender{Suite: sec.Suite, Policy: sec.Policy, Title: sec.Title, Keys: sec.Keys, Counter: sec.Counter}
	s.receiver = security.Receiver{
		Suite: sec.Suite, Policy: sec.Policy, Title: sec.MeterTitle, Keys: sec.Keys,
		Direction: security.FromServer, Window: window,
	}
	if !o.Mechanism.isHigh() {
		return nil
	}
	s.challenge = make([]byte, security.Mechanism(o.Mechanism).ChallengeLen())
	if _, err := io.ReadFull(sec.random(), s.challenge); err != nil {
		return fmt.Errorf("challenge: %w", err)
	}
	return nil
}

func (s *secure) newKey(sec Security) (security.Key, error) {
	octets := make([]byte, sec.Suite.KeyLen())
	if _, err := io.ReadFull(sec.random(), octets); err != nil {
		return security.Key{}, fmt.Errorf("dedicated key: %w", err)
	}
	key, err := security.NewKey(octets)
	if err != nil {
		return security.Key{}, fmt.Errorf("dedicated key: %w", err)
	}
	return key, nil
}

// initiate protects the xDLMS part of the association request, if that is
// wanted: by the global key, in the form of its service.
func (s *secure) initiate(request []byte) ([]byte, error) {
	if s.sender.Policy == security.Unprotected {
		return request, nil
	}
	return s.sender.Protect(nil, request, security.Unicast, false)
}

// initiated gives the xDLMS part of the answer in the clear. One that was not
// protected as asked for is refused.
func (s *secure) initiated(info []byte) ([]byte, error) {
	switch {
	case s.receiver.Policy == security.Unprotected:
		return info, nil
	case len(info) > 0 && info[0] == tagServiceError: // grants nothing
		return info, nil
	case len(info) == 0 || !security.IsProtected(info[0]):
		return nil, fmt.Errorf("initiate response: %w: it is in the clear", security.ErrWeak)
	}
	plain, err := s.receiver.Unprotect(nil, info)
	if err != nil {
		return nil, fmt.Errorf("initiate response: %w", authentication(err))
	}
	return plain, nil
}

// meet looks at who answered, and whether with less than was asked for.
func (s *secure) meet(a aare, o Options) error {
	high := o.Mechanism.isHigh()
	switch {
	case high && len(a.challenge) == 0:
		return fmt.Errorf("%w: the meter sent no challenge, and will prove nothing", security.ErrWeak)
	case high && a.mechanism != nil && *a.mechanism != byte(o.Mechanism):
		return fmt.Errorf("%w: the meter answers with mechanism %d", security.ErrWeak, *a.mechanism)
	case o.Security.ciphers() && a.context != contextName(o):
		return fmt.Errorf("%w: the meter answers with application context %d, want %d", security.ErrWeak, a.context, contextName(o))
	}
	if !high && !o.Security.ciphers() && !o.Security.exchanges() {
		return nil
	}
	if err := s.trust(a.certificate, o.Security); err != nil {
		return err
	}
	if title, err := security.ParseTitle(a.title); err == nil {
		switch {
		case s.receiver.Title.IsZero():
			s.receiver.Title = title
		case s.receiver.Title != title:
			return fmt.Errorf("%w: the meter is %v, want %v", security.ErrTitle, title, s.receiver.Title)
		}
	}
	switch title := s.receiver.Title; {
	case title.IsZero() && (o.Security.ciphers() || o.Security.exchanges()):
		return fmt.Errorf("%w: the meter gave none", security.ErrTitle)
	case !title.IsZero() && title == o.Security.Title:
		return fmt.Errorf("title: %w", security.ErrReflected)
	case o.Security.CounterRestarts:
		s.receiver.Window.Forget(title, s.receiver.Keys.Encryption.ID(), security.FromServer)
	}
	return nil
}

// trust takes the meter's key out of its certificate, where that is wanted.
func (s *secure) trust(certificate []byte, o Security) error {
	if s.meterKey != nil || o.Trust == nil || len(certificate) == 0 {
		return nil
	}
	key, err := o.Trust(certificate)
	if err != nil {
		return fmt.Errorf("%w: the meter's certificate: %w", ErrAuthentication, err)
	}
	s.meterKey = key
	return nil
}

// proved has the services protected as they are from now on.
func (s *secure) proved(granted Association, o Security) error {
	s.general = o.General && granted.Conformance.Has(GeneralProtection)
	if o.Dedicated {
		s.set = security.Dedicated
	}
	if !o.exchanges() {
		return nil
	}
	if !granted.Conformance.Has(GeneralProtection) {
		return fmt.Errorf("general protection is %w: %w", ErrNotGranted, security.ErrWeak)
	}
	s.on = true
	s.exchange = &security.Exchange{
		Sender: &s.sender, Receiver: &s.receiver, Scheme: o.Scheme, Sign: o.Sign, Master: o.Master,
		Agreement: o.Agreement, PeerKey: o.MeterAgreement, SigningKey: o.SigningKey, PeerSigning: s.meterKey, Random: o.Random,
	}
	return nil
}

// seal gives an APDU as it is sent: protected, if the association is. It is
// good until the next call. This and unseal are the only places that cipher
// services; blocks of general block transfer carry what they give.
func (c *Client) seal(apdu []byte) ([]byte, error) {
	s := &c.secure
	if !s.on || len(apdu) == 0 || apdu[0] == tagAARQ || apdu[0] == tagRLRQ {
		return apdu, nil
	}
	x := s.exchange
	if x != nil {
		if err := x.Begin(); err != nil {
			return nil, err
		}
	}
	var err error
	if x != nil && x.Sign {
		if s.signed, err = x.AppendSigned(s.signed[:0], apdu); err != nil {
			return nil, err
		}
		apdu = s.signed
	}
	var out []byte
	switch {
	case x != nil && x.Scheme != security.NoScheme:
		out, err = x.AppendCiphered(s.out[:0], apdu)
	case s.sender.Policy == security.Unprotected:
		return apdu, nil
	default:
		out, err = s.sender.Protect(s.out[:0], apdu, s.set, s.general)
	}
	if err != nil {
		return nil, err
	}
	s.out = out
	return out, nil
}

// unseal gives the APDU that was received, good until the next call. In an
// association that is protected, what is in the clear may end or refuse
// something, which anybody can do who holds the line, and say nothing else: a
// notification is passed over (nil), an answer refused. The answer to another
// transaction is passed over too.
func (c *Client) unseal(apdu []byte) ([]byte, error) {
	s := &c.secure
	if !s.on {
		return apdu, nil
	}
	switch tag := apdu[0]; {
	case tag == tagAARE, tag == tagRLRE, tag == tagException, tag == tagServiceError:
		return apdu, nil
	case isNotification(tag):
		return nil, nil
	}
	in, err := s.opened(apdu)
	if x := s.exchange; err == nil && x != nil && x.Sign {
		in, err = x.Verified(in)
	}
	switch {
	case errors.Is(err, security.ErrTransaction):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return in, nil
}

// opened undoes the ciphering of an APDU.
func (s *secure) opened(apdu []byte) ([]byte, error) {
	x := s.exchange
	var in []byte
	var err error
	switch {
	case x != nil && x.Scheme != security.NoScheme:
		in, err = x.Opened(s.in[:0], apdu)
	case s.receiver.Policy == security.Unprotected:
		return apdu, nil
	case !security.IsProtected(apdu[0]):
		return nil, fmt.Errorf("%w: an answer in the clear (tag %02X)", security.ErrWeak, apdu[0])
	default:
		in, err = s.receiver.Unprotect(s.in[:0], apdu)
	}
	if err != nil {
		return nil, err
	}
	s.in = in
	return in, nil
}

// Secret is a password. However it is printed or marshalled it says only that
// it is a secret.
type Secret = security.Secret

// Format says that it is a client, whatever the verb: fmt cannot ask a Secret
// within it, of a field that is not exported, how it is to be printed.
func (c *Client) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "dlms.Client") }
