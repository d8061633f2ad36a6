package dlmstest

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"errors"

	"gridgate/dlms/security"
)

// The general forms that have no counter in common with the services.
const (
	generalCiphering = 0xDD
	generalSigning   = 0xDF
)

// Agreement is what a Meter has for key agreement and for certificates: part of
// Security. The zero value has none.
type Agreement struct {
	// AgreementKey is the meter's key for key agreement, ClientAgreement the
	// clients'.
	AgreementKey    *ecdh.PrivateKey
	ClientAgreement *ecdh.PublicKey
	// Certificate, if not nil, is given to clients that authenticate by
	// mechanism 7. Trust gives the key in a client's certificate, nil for one
	// that is not trusted; it goes before ClientKey.
	Certificate []byte
	Trust       func(certificate []byte) *ecdsa.PublicKey
}

// signer gives the key that a client signs with.
func (k Security) signer(certificate []byte) *ecdsa.PublicKey {
	if k.Trust != nil && len(certificate) > 0 {
		return k.Trust(certificate)
	}
	return k.ClientKey
}

// errSeen says that a transaction came before.
var errSeen = errors.New("a transaction that came before")

// exchange gives the meter's side of general-ciphering and general-signing.
func (a *association) exchange(k Security) *security.Exchange {
	return &security.Exchange{
		Sender: &a.sender, Receiver: &a.receiver, Master: k.Master,
		Agreement: k.AgreementKey, PeerKey: k.ClientAgreement, SigningKey: k.SigningKey, PeerSigning: a.handshake.PeerKey,
	}
}

// begin takes the id of a transaction, which must not have come before: those of
// both general forms are in one request alike.
func (s *Session) begin(how *protection, envelope security.Envelope) error {
	id := string(envelope.TransactionID)
	if how.transaction == id && id != "" {
		return nil
	}
	if how.transaction != "" || id == "" || s.meter.seen[id] {
		return errSeen
	}
	if s.meter.seen == nil {
		s.meter.seen = map[string]bool{}
	}
	s.meter.seen[id], how.transaction = true, id
	return nil
}

// openExchange gives what is in general-ciphering.
func (s *Session) openExchange(apdu []byte, how *protection) ([]byte, error) {
	g, err := security.ParseGeneralCiphering(apdu)
	if err != nil {
		return nil, err
	}
	x := s.a.exchange(s.meter.keys)
	x.Scheme = security.SchemeOf(g.Key)
	plain, err := x.Opened(nil, apdu)
	if err != nil {
		return nil, err
	}
	s.note()
	how.protected, how.scheme, how.policy = true, x.Scheme, g.Control.Policy()|s.a.receiver.Policy
	return plain, s.begin(how, g.Envelope)
}

// verify gives what is in general-signing.
func (s *Session) verify(apdu []byte, how *protection) ([]byte, error) {
	g, err := security.ParseGeneralSigning(apdu)
	if err != nil {
		return nil, err
	}
	plain, err := s.a.exchange(s.meter.keys).Verified(apdu)
	if err != nil {
		return nil, err
	}
	how.protected, how.signed = true, true
	return plain, s.begin(how, g.Envelope)
}

// sealExchange signs and ciphers an answer as its request was; done is false
// where it is to be ciphered in another form.
func (s *Session) sealExchange(answer []byte, how protection) (out []byte, done bool, err error) {
	x := s.a.exchange(s.meter.keys)
	x.Scheme, x.Transaction = how.scheme, []byte(how.transaction)
	if how.signed {
		if answer, err = x.AppendSigned(nil, answer); err != nil {
			return nil, true, err
		}
	}
	if how.scheme == security.NoScheme {
		return answer, how.policy == security.Unprotected, nil
	}
	out, err = x.AppendCiphered(nil, answer)
	return out, true, err
}
