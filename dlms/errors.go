package dlms

import (
	"errors"
	"fmt"
)

// The decisions that callers take on an error.
var (
	// ErrAuthentication says that the meter refused the association because
	// of the credentials. Trying again may lock the meter.
	ErrAuthentication = errors.New("authentication failed")
	// ErrDuringProof says that the association broke off when the meter had
	// been shown our proof (pass 3 of a high-level authentication). A meter
	// that hangs up or is silent then may have refused it.
	ErrDuringProof = errors.New("authentication")
	// ErrMalformed says that what came back is not an answer by the standard.
	ErrMalformed = errors.New("malformed answer")
	// ErrTooLarge says that an answer is longer than Options.MaxAnswer.
	ErrTooLarge = errors.New("answer too large")
	// ErrNotGranted says that the association has no right to the service, or
	// that the request is longer than the meter takes.
	ErrNotGranted = errors.New("not granted by the meter")
	// ErrNotAssociated says that there is no association.
	ErrNotAssociated = errors.New("not associated")
)

// Result is the result of an association request (IEC 62056-5-3, 9.5,
// Association-result).
type Result uint8

// The results.
const (
	Accepted          Result = 0
	RejectedPermanent Result = 1
	RejectedTransient Result = 2
)

func (r Result) String() string {
	switch r {
	case Accepted:
		return "accepted"
	case RejectedPermanent:
		return "rejected for good"
	case RejectedTransient:
		return "rejected for now"
	}
	return fmt.Sprintf("result %d", uint8(r))
}

// AssociationError says that the meter refused an association, and why.
type AssociationError struct {
	Result     Result
	Provider   bool  // the diagnostic is the service provider's, not the application's
	Diagnostic uint8 // Associate-source-diagnostics
	// Service is the error that the refusal carried along, nil if none.
	Service *ServiceError
}

func (e *AssociationError) Error() string {
	text := fmt.Sprintf("association %v: %s", e.Result, e.diagnostic())
	if e.Service != nil {
		text += ": " + e.Service.Error()
	}
	return text
}

// Is says that the diagnostics about credentials are ErrAuthentication.
func (e *AssociationError) Is(target error) bool {
	return target == ErrAuthentication && !e.Provider && e.Diagnostic >= 11 && e.Diagnostic <= 14
}

func (e *AssociationError) Unwrap() error {
	if e.Service == nil {
		return nil
	}
	return e.Service
}

func (e *AssociationError) diagnostic() string {
	if e.Provider {
		return word(e.Diagnostic, "diagnostic of the provider", "no diagnostic", "no reason given", "no common version of the protocol")
	}
	return word(e.Diagnostic, "diagnostic", "no diagnostic", "no reason given", "application context not supported",
		"calling title not recognised", "calling invocation id not recognised", "calling qualifier not recognised",
		"calling qualifier's invocation id not recognised", "called title not recognised", "called invocation id not recognised",
		"called qualifier not recognised", "called qualifier's invocation id not recognised",
		"authentication mechanism not recognised", "authentication mechanism required", "authentication failure", "authentication required")
}

// word gives the word with number n, or says which number it is.
func word(n uint8, what string, words ...string) string {
	if int(n) < len(words) && words[n] != "" {
		return words[n]
	}
	return fmt.Sprintf("%s %d", what, n)
}

// ExceptionError is an exception-response: the meter could not make sense of
// the request, or does not allow it (IEC 62056-5-3, 9.5, Exception-Response).
type ExceptionError struct {
	State   uint8 // state-error
	Service uint8 // service-error
	// Counter is the invocation counter that the meter expects at least, where
	// Service is InvocationCounterError and the meter gives it.
	Counter    uint32
	HasCounter bool
}

// The state-error and service-error that decisions hang on.
const (
	ServiceNotAllowed      = 1 // state: there is no association, or it does not allow the service
	PDUTooLong             = 4 // service
	DecipheringError       = 5 // service
	InvocationCounterError = 6 // service
)

func (e *ExceptionError) Error() string {
	text := "exception: " + word(e.State, "state", "", "service not allowed", "service unknown") + ": " +
		word(e.Service, "service error", "", "operation not possible", "service not supported", "other reason",
			"pdu too long", "deciphering error", "invocation counter error")
	if e.HasCounter {
		text += fmt.Sprintf(": the meter expects %d or more", e.Counter)
	}
	return text
}

// AppendBinary appends the exception-response:
//
//	D8 state service  counter 4, with the invocation counter error
func (e *ExceptionError) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, tagException, e.State, e.Service)
	if e.Service == InvocationCounterError && e.HasCounter {
		b = append(b, byte(e.Counter>>24), byte(e.Counter>>16), byte(e.Counter>>8), byte(e.Counter))
	}
	return b, nil
}

// parseException decodes an exception-response. Meters that speak an older
// version give no counter.
func parseException(apdu []byte) (*ExceptionError, error) {
	r := reader{b: apdu}
	r.u8()
	e := &ExceptionError{State: r.u8(), Service: r.u8()}
	if e.Service == InvocationCounterError && len(r.b) > 0 {
		e.Counter, e.HasCounter = r.u32(), true
	}
	if r.short {
		return nil, malformed("exception response cut short: %x", apdu)
	}
	return e, nil
}

// ServiceError is a confirmed-service-error (IEC 62056-5-3, 9.5,
// ConfirmedServiceError).
type ServiceError struct {
	Service uint8 // the service it is about: 1 initiate, 5 read, 6 write, …
	Kind    uint8 // the choice of ServiceError
	Code    uint8 // what is wrong, by Kind
}

func (e *ServiceError) Error() string {
	return word(e.Service, "service", "", "initiate", "get status", "get name list", "get variable attribute", "read", "write",
		"get data set attribute", "get ti attribute", "change scope", "start", "stop", "resume", "make usable",
		"initiate load", "load segment", "terminate load", "initiate up-load", "up-load segment", "terminate up-load") +
		": " + e.reason()
}

// reason gives the choice of ServiceError and what is wrong, in words.
func (e *ServiceError) reason() string {
	switch e.Kind {
	case 0:
		return word(e.Code, "application reference error", "application reference: other", "time elapsed", "application unreachable",
			"application reference invalid", "application context unsupported", "provider communication error", "deciphering error")
	case 1:
		return word(e.Code, "hardware resource error", "hardware resource: other", "memory unavailable",
			"processor resource unavailable", "mass storage unavailable", "other resource unavailable")
	case 2:
		return word(e.Code, "vde state error", "vde state: other", "no dlms context", "loading data set", "status no change", "status inoperable")
	case 3:
		return word(e.Code, "service error", "service: other", "pdu size too long", "service unsupported")
	case 4:
		return word(e.Code, "definition error", "definition: other", "object undefined", "object class inconsistent", "object attribute inconsistent")
	case 5:
		return word(e.Code, "access error", "access: other", "scope of access violated", "object access violated", "hardware fault", "object unavailable")
	case 6:
		return word(e.Code, "initiate error", "other reason", "dlms version too low",
			"incompatible conformance", "pdu size too short", "refused by the VDE handler")
	case 7:
		return word(e.Code, "load data set error", "load data set: other", "primitive out of sequence", "not loadable",
			"data set too large", "segment not awaited", "interpretation failure", "storage failure", "data set not ready")
	case 9:
		return word(e.Code, "task error", "task: other", "no remote control", "stopped", "running", "unusable")
	}
	return fmt.Sprintf("error kind %d: error %d", e.Kind, e.Code)
}

// AccessError is the reason why an attribute was not given or a method was
// not run: a Data-Access-Result or Action-Result (IEC 62056-5-3, 9.5). Compare
// with errors.Is.
type AccessError uint8

// The reasons; the two lists share their numbers where they mean the same.
const (
	HardwareFault           AccessError = 1
	TemporaryFailure        AccessError = 2
	ReadWriteDenied         AccessError = 3
	ObjectUndefined         AccessError = 4
	ObjectClassInconsistent AccessError = 9
	ObjectUnavailable       AccessError = 11
	TypeUnmatched           AccessError = 12
	ScopeViolated           AccessError = 13
	BlockUnavailable        AccessError = 14
	LongGetAborted          AccessError = 15
	NoLongGet               AccessError = 16
	LongSetAborted          AccessError = 17
	NoLongSet               AccessError = 18
	BlockNumberInvalid      AccessError = 19
	OtherReason             AccessError = 250
)

func (e AccessError) Error() string {
	if e == OtherReason {
		return "refused for another reason"
	}
	return word(uint8(e), "refused with result", "", "hardware fault", "temporary failure", "read or write denied",
		"object undefined", "", "", "", "", "object class inconsistent", "", "object unavailable", "type unmatched",
		"scope of access violated", "data block unavailable", "long get or action aborted", "no long get or action in progress",
		"long set aborted", "no long set in progress", "data block number invalid")
}

// malformed says what about an answer is not by the standard.
func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}
