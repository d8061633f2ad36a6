package cosem

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"gridgate/dlms"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/security"
	"gridgate/dlms/wrapper"
	"gridgate/internal/meter"
)

// explain says in the vocabulary's errors, and to a technician, why a visit
// stopped.
func (m *Meter) explain(err error) error {
	var refusal *dlms.AssociationError
	if e := m.explainSecurity(err); e != nil {
		return e
	}
	switch {
	case m.mayBeTwice(err):
		return m.perhapsRefused(fmt.Errorf("the meter did not take the proof of auth=%s (%s Or did the association request come twice over this line?): %w",
			m.cfg.Auth, m.advice(err), err), true)
	case errors.Is(err, dlms.ErrAuthentication):
		return m.refused(m.advice(err), err)
	case errors.As(err, &refusal):
		e := fmt.Errorf("the meter refused client %d (%s): %w", m.cfg.Client, m.whyRefused(refusal), err)
		return m.perhapsRefused(e, m.showsSecret() && isWithoutReason(refusal))
	case errors.Is(err, dlms.ErrDuringProof) && isTimeout(err):
		return m.perhapsRefused(fmt.Errorf("%w within %s to the proof of auth=%s, and before it client %d was answered (%s Or did the line fail?): %w",
			meter.ErrNoAnswer, m.waited(err), m.cfg.Auth, m.cfg.Client, m.advice(err), err), true)
	case errors.Is(err, dlms.ErrDuringProof) && (isHangUp(err) || errors.Is(err, hdlc.ErrDisconnected)):
		return m.perhapsRefused(fmt.Errorf("the meter hung up at the proof of auth=%s, and before it client %d was answered (%s Or did the line fail?): %w",
			m.cfg.Auth, m.cfg.Client, m.advice(err), err), true)
	}
	return m.noAnswer(m.cfg.Client, err)
}

// doubtful is a failure that may be a refusal of the credentials, and may be
// another's fault. Who counts refusals asks it, and knows whether the meter took
// these credentials before.
type doubtful struct{ error }

// MayBeRefusal says that it may be one.
func (doubtful) MayBeRefusal() bool { return true }

func (d doubtful) Unwrap() error { return d.error }

func (m *Meter) perhapsRefused(err error, perhaps bool) error {
	if perhaps {
		return doubtful{err}
	}
	return err
}

// showsSecret says whether the association request has something in it that is
// made of a secret: a password, or what is ciphered.
func (m *Meter) showsSecret() bool {
	return m.cfg.Auth == AuthLLS || m.cfg.Security.Policy != security.Unprotected
}

// isWithoutReason says whether a meter refuses for good and does not say why, as
// some do to a wrong password.
func isWithoutReason(e *dlms.AssociationError) bool {
	const noReason = 1
	return e.Result == dlms.RejectedPermanent && e.Diagnostic <= noReason && e.Service == nil
}

// refused says that credentials are wrong: after two of these the meter is
// left alone.
func (m *Meter) refused(advice string, err error) error {
	return fmt.Errorf("the meter refused client %d: %w (%s): %w", m.cfg.Client, meter.ErrAuthentication, advice, err)
}

// noAnswer explains what is not of the association but of the way to it.
func (m *Meter) noAnswer(client uint16, err error) error {
	keys := ""
	if m.usesKeys() && client == m.cfg.Client {
		keys = ", are keys and title right"
	}
	if e := m.explainModeE(client, err); e != nil {
		return e
	}
	switch {
	case errors.Is(err, errPiece):
		return fmt.Errorf("%w that is whole: it stopped on its way, for %s, or takes over %d times that long (is the line slow? timeout=): %w",
			meter.ErrNoAnswer, m.waited(err), maxPieces, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w within %s (is the meter on, does it know %s%s?): %w",
			meter.ErrNoAnswer, m.waited(err), m.addressed(client), keys, err)
	case isHangUp(err):
		return fmt.Errorf("%w: the meter hung up (does it know %s%s, or does it serve another client?): %w",
			meter.ErrNoAnswer, m.addressed(client), keys, err)
	case errors.Is(err, hdlc.ErrDisconnected):
		return fmt.Errorf("the meter refused the HDLC connection (does it know client %d, or does it serve another client?): %w", client, err)
	case isReject(err):
		return fmt.Errorf("%w at the meter: it gave up the HDLC connection (is the line disturbed? Some need info=128&window=1): %w", meter.ErrGarbled, err)
	case isGarbled(err):
		return fmt.Errorf("%w: %w", meter.ErrGarbled, err)
	}
	return unreachable(err) // over UDP it shows only here
}

// addressed says whom the frames go to, as whom.
func (m *Meter) addressed(client uint16) string {
	if m.cfg.HDLC != nil && m.cfg.HDLC.Physical != 0 {
		return fmt.Sprintf("client %d, server %d and physical %d", client, m.cfg.Server, m.cfg.HDLC.Physical)
	}
	return fmt.Sprintf("client %d and server %d", client, m.cfg.Server)
}

// keyAdvice is what to look at when a meter cannot read us or we it.
const keyAdvice = "wrong ek, ak, suite or title?"

// explainSecurity explains what is wrong with the protection, nil when it is
// something else.
func (m *Meter) explainSecurity(err error) error {
	var exception *dlms.ExceptionError
	var refusal *dlms.AssociationError
	var jump *security.ReceivedJumpError
	own := m.cfg.Security
	switch {
	case errors.Is(err, security.ErrProof) && m.cfg.Auth == AuthECDSA:
		return m.refused("it does not prove that it is the meter of that key: wrong pk or title?", err)
	case errors.Is(err, security.ErrProof) && m.cfg.Auth != AuthGMAC:
		return m.refused("it does not prove that it knows the password: wrong password?", err)
	case errors.Is(err, security.ErrProof), errors.Is(err, security.ErrTag):
		return m.refused("its answer was not made with our keys: "+keyAdvice, err)
	case errors.Is(err, security.ErrWeak):
		return fmt.Errorf("the meter protects less than auth=%s and security=%s ask for; who answers may be anybody (does it have this security for client %d?): %w",
			m.cfg.Auth, policyName(own.Policy), m.cfg.Client, err)
	case errors.Is(err, security.ErrReplay):
		return fmt.Errorf("the meter's invocation counter does not rise (does somebody repeat its answers? If it was reset, "+
			"`gridgate counters accept -received` for this meter): %w", err)
	case errors.As(err, &jump):
		return fmt.Errorf("the meter's invocation counter is far ahead of the last (does somebody else answer? If all is well with the meter, "+
			"`gridgate counters accept -received` for this meter): %w", err)
	case errors.Is(err, security.ErrReceivedStore):
		return fmt.Errorf("nothing of the meter is taken while it cannot be told what was received before: %w", err)
	case errors.Is(err, ErrCounter):
		return err
	case errors.Is(err, security.ErrReflected):
		return fmt.Errorf("the answer is made of our own request (does somebody else answer, or do meter and client have the title %v?): %w", own.Title, err)
	case errors.Is(err, security.ErrSuite):
		return fmt.Errorf("the meter uses another security suite (is suite=%d right?): %w", uint8(own.Suite), err)
	case errors.Is(err, security.ErrTitle):
		return fmt.Errorf("the meter's system title: %w", err)
	case errors.Is(err, security.ErrExhausted):
		return fmt.Errorf("no invocation counter is left for this key; change the key of the meter: %w", err)
	case errors.As(err, &exception) && exception.Service == dlms.InvocationCounterError:
		return fmt.Errorf("the meter refused the invocation counter (does another program use title %v and this ek?): %w", own.Title, err)
	case errors.As(err, &exception) && exception.Service == dlms.DecipheringError,
		errors.As(err, &refusal) && isDeciphering(refusal.Service):
		return m.refused("it cannot decipher: "+keyAdvice, err)
	}
	return nil
}

func isDeciphering(e *dlms.ServiceError) bool {
	const applicationReference, decipheringError = 0, 6
	return e != nil && e.Kind == applicationReference && e.Code == decipheringError
}

func isCipherException(e *dlms.ExceptionError) bool {
	return e.Service == dlms.DecipheringError || e.Service == dlms.InvocationCounterError
}

func policyName(p security.Policy) string {
	switch p {
	case security.Unprotected:
		return "none"
	case security.Authenticated:
		return "auth"
	case security.Encrypted:
		return "enc"
	case security.AuthenticatedEncrypted:
		return "authenc"
	}
	return p.String()
}

// Diagnostics of a refusal.
const (
	contextNotSupported = 2
	titleNotRecognised  = 3
	mechanismNotKnown   = 11
	proofRequired       = 14
)

// whyRefused says what to try when the meter refuses the client.
func (m *Meter) whyRefused(refusal *dlms.AssociationError) string {
	switch {
	case refusal.Provider:
	case refusal.Diagnostic == contextNotSupported && m.cfg.Security.Policy != security.Unprotected:
		return "it does not take security=" + policyName(m.cfg.Security.Policy) + " from this client"
	case refusal.Diagnostic == contextNotSupported:
		return "does it want security=auth, enc or authenc from this client?"
	case refusal.Diagnostic == titleNotRecognised:
		return "it does not know the title " + m.cfg.Security.Title.String()
	}
	if m.usesKeys() {
		return "does it know this client, are keys and title right?"
	}
	if m.cfg.Auth == AuthLLS {
		return "does it know this client, is the password right?"
	}
	return "does it know this client?"
}

// advice says what to try when the meter refuses the credentials.
func (m *Meter) advice(err error) string {
	var refusal *dlms.AssociationError
	isRefusal := errors.As(err, &refusal)
	switch {
	case m.cfg.Auth == AuthNone && m.usesKeys() && isRefusal && refusal.Diagnostic == proofRequired:
		return "it wants a proof: auth=gmac?"
	case m.cfg.Auth == AuthNone && m.usesKeys():
		return "it wants a proof (auth=gmac?), or " + keyAdvice
	case m.cfg.Auth == AuthNone:
		return "it wants a password: auth=lls?"
	case isRefusal && refusal.Diagnostic == mechanismNotKnown:
		return "it does not take auth=" + m.cfg.Auth + " from this client"
	case m.cfg.Auth == AuthGMAC:
		return keyAdvice
	case m.cfg.Auth == AuthECDSA:
		return "wrong signing key sk, or title?"
	case !isRefusal && m.cfg.Auth == AuthSHA256: // it is made of both
		return "wrong password or title?"
	case !isRefusal: // where there are keys, it had deciphered the request
		return "wrong password?"
	case m.usesKeys():
		return "wrong password, ek, ak, suite or title?"
	}
	return "wrong password?"
}

func isGarbled(err error) bool {
	return errors.Is(err, dlms.ErrMalformed) || errors.Is(err, dlms.ErrTooLarge) ||
		errors.Is(err, wrapper.ErrVersion) || errors.Is(err, wrapper.ErrTooLong) || isGarbledHDLC(err)
}

// unreachable says of a connection that did not come about that nobody
// answered, where that is what happened.
func unreachable(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", meter.ErrNoAnswer, err)
	}
	for _, e := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ETIMEDOUT, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", meter.ErrNoAnswer, err)
		}
	}
	return err
}
