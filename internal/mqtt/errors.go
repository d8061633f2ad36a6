package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// The decisions that callers of Dial and Publish take on an error.
var (
	// ErrUnreachable says that nothing answered at the broker's address.
	ErrUnreachable = errors.New("unreachable")
	// ErrTLS says that the connection could not be secured.
	ErrTLS = errors.New("TLS")
	// ErrRefused says that the broker answered and refused.
	ErrRefused = errors.New("refused")
	// ErrLost says that the connection was there and is gone.
	ErrLost = errors.New("connection lost")
)

// brokerError is an error with the broker's address before it. Its kind is one
// of the sentinels above; detail is for people, cause for errors.Is.
type brokerError struct {
	address string
	kind    error
	detail  string
	cause   error
}

func (e *brokerError) Error() string {
	return fmt.Sprintf("broker %s: %v: %s", e.address, e.kind, e.detail)
}

func (e *brokerError) Unwrap() []error { return []error{e.kind, e.cause} }

// unreachable says in words why a connection could not be opened.
func unreachable(address string, err error) error {
	detail := err.Error()
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		detail = "connection refused: does the broker run, and is the port right?"
	case errors.As(err, &dns):
		detail = fmt.Sprintf("the name %s does not resolve: %s", dns.Name, dns.Err)
	case errors.Is(err, syscall.ENODEV):
		detail = "no such network interface: is the modem there, and its name right?"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		detail = "the gateway has no such address: is the interface up?"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		detail = "no route: is the modem up?"
	case timedOut(err):
		detail = "no answer: is the address right, and does a firewall let it through?"
	}
	return &brokerError{address, ErrUnreachable, detail, err}
}

// insecure says in words why a TLS handshake failed.
func insecure(address string, err error, ours *tls.Config) error {
	detail := err.Error()
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &authority):
		detail = "certificate signed by unknown authority: is the right CA file configured?"
	case errors.As(err, &name):
		detail = fmt.Sprintf("wrong name: %v", name)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		detail = expired(invalid)
	case errors.As(err, &record):
		detail = "the broker does not speak TLS on this port"
	case alert(err) != "":
		detail = alerted(alert(err), ours)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		detail = "the broker closed the connection during the handshake: does it speak TLS on this port?"
		if !shows(ours) {
			detail += " Or it may want a client certificate, and none is configured"
		}
	case timedOut(err):
		detail = "no answer during the handshake"
	}
	return &brokerError{address, ErrTLS, detail, err}
}

// alert gives the alert that the broker sent, "" when it sent none. (The type
// of the error inside is not exported.)
func alert(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return op.Err.Error()
	}
	return ""
}

// alerted says what the broker did not like about us.
func alerted(alert string, ours *tls.Config) string {
	said := fmt.Sprintf("the broker refused the handshake (%s): ", alert)
	if !shows(ours) {
		return said + "it may want a client certificate, and none is configured"
	}
	pair, err := ours.GetClientCertificate(nil)
	if err == nil && pair.Leaf != nil {
		switch now := time.Now(); {
		case now.Before(pair.Leaf.NotBefore):
			return fmt.Sprintf("%sthe gateway's own certificate is not valid before %s: is the gateway's clock right?", said, pair.Leaf.NotBefore.UTC().Format(time.RFC3339))
		case now.After(pair.Leaf.NotAfter):
			return fmt.Sprintf("%sthe gateway's own certificate expired on %s", said, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if strings.Contains(alert, "authority") {
		return said + "it does not know who signed the gateway's certificate"
	}
	return said + "does it accept this client certificate?"
}

// shows says whether we have a client certificate to show.
func shows(ours *tls.Config) bool { return ours != nil && ours.GetClientCertificate != nil }

// expired tells a certificate that is over from one that is not yet valid,
// which mostly means that the gateway's clock is behind.
func expired(e x509.CertificateInvalidError) string {
	if e.Cert != nil && time.Now().Before(e.Cert.NotBefore) {
		return fmt.Sprintf("certificate is not valid before %s: is the gateway's clock right?", e.Cert.NotBefore.UTC().Format(time.RFC3339))
	}
	if e.Cert != nil {
		return fmt.Sprintf("certificate expired on %s", e.Cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return e.Error()
}

// refused says in words why the broker did not accept a CONNECT.
func refused(address string, code byte, err error, ours *tls.Config) error {
	if said := alert(err); said != "" { // of TLS 1.3: the handshake is over for us before the broker has looked at our certificate
		return &brokerError{address, ErrTLS, alerted(said, ours), err}
	}
	switch code {
	case packets.ErrRefusedBadUsernameOrPassword:
		return &brokerError{address, ErrRefused, "bad user name or password", err}
	case packets.ErrRefusedNotAuthorised:
		// Brokers answer so to a wrong password too.
		return &brokerError{address, ErrRefused, "not authorised: check user name, password and client id", err}
	case packets.ErrRefusedIDRejected:
		return &brokerError{address, ErrRefused, "it does not accept the client id", err}
	case packets.ErrRefusedServerUnavailable:
		return &brokerError{address, ErrRefused, "it is not available now", err}
	case packets.ErrRefusedBadProtocolVersion:
		return &brokerError{address, ErrRefused, "it does not speak MQTT 3.1.1", err}
	}
	detail := err.Error()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		// The alert that says why is lost when the connection is reset behind it.
		detail = "it closed the connection instead of answering: "
		switch {
		case ours == nil:
			detail += "does it want TLS on this port?"
		case !shows(ours):
			return &brokerError{address, ErrTLS, detail + "it may want a client certificate, and none is configured", err}
		default:
			detail += "does it accept this client certificate?"
		}
	case timedOut(err):
		detail = "it took the connection and did not answer"
	}
	return &brokerError{address, ErrUnreachable, detail, err}
}

// lost says why a connection ended. An error that says so already stays.
func lost(address string, err error) error {
	if errors.Is(err, ErrLost) {
		return err
	}
	detail := err.Error()
	switch {
	case errors.Is(err, io.EOF):
		detail = "the broker closed it"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		detail = "it was reset"
	case timedOut(err):
		detail = "the network takes no data"
	}
	return &brokerError{address, ErrLost, detail, err}
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}
