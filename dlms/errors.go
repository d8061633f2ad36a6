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
}

func (e *ExceptionError) Error() string {
	return "exception: " + word(e.State, "state", "", "service not allowed", "service unknown") + ": " +
		word(e.Service, "service error", "", "operation not possible", "service not supported", "other reason",
			"pdu too long", "deciphering error", "invocation counter error")
}

// ServiceError is a confirmed-service-error (IEC 62056-5-3, 9.5,
// ConfirmedServiceError).
type ServiceError struct {
	Service uint8 // the service it is about: 1 initiate, 5 read, 6 write, …
	Kind    uint8 // the choice of ServiceError
	Code    uint8 // what is wrong, by Kind
}

func (e *ServiceError) Error() string {
	service := word(e.Service, "service", "", "initiate", "get status", "get name list", "get variable attribute", "read", "write")
	if e.Kind == 6 {
		return service + ": " + word(e.Code, "initiate error", "other reason", "dlms version too low",
			"incompatible conformance", "pdu size too short", "refused by the VDE handler")
	}
	kind := word(e.Kind, "error kind", "application reference", "hardware resource", "vde state", "service", "definition",
		"access", "", "load data set", "", "task", "other")
	return fmt.Sprintf("%s: %s error %d", service, kind, e.Code)
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
