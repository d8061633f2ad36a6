package mqtt

import (
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
)

// TestAClosedConnectionSaysWhatItMayWant: the alert that would tell may be lost.
func TestAClosedConnectionSaysWhatItMayWant(t *testing.T) {
	t.Parallel()
	mine := &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nil, io.EOF }}
	for _, c := range []struct {
		ours *tls.Config
		kind error
		want string
	}{
		{nil, ErrUnreachable, "does it want TLS on this port?"},
		{&tls.Config{}, ErrTLS, "it may want a client certificate, and none is configured"},
		{mine, ErrUnreachable, "does it accept this client certificate?"},
	} {
		for _, cause := range []error{io.EOF, syscall.ECONNRESET} {
			if err := refused("b:1", 0xFE, cause, c.ours); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		}
	}
	if err := insecure("b:1", io.EOF, &tls.Config{}); !strings.Contains(err.Error(), "none is configured") {
		t.Error(err)
	}
}
