package address

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unique"
)

// redacted stands for a secret wherever one is printed.
const redacted = "***"

// maxSecret bounds a secret and the file that holds one, in bytes.
const maxSecret = 1024

// ErrSecret says that a secret reference does not lead to a secret.
var ErrSecret = errors.New("no secret to be had")

// Secret is a password, or a reference to where one is kept:
//
//	file:PATH    the content of a file, without the line end that closes it
//	env:NAME     an environment variable
//	secret:NAME  the gateway's secret store
//
// Anything else is the secret itself, a literal. The zero value is no secret.
// Secrets compare with ==. No way of printing one shows a literal; a reference
// is shown, since it is what an operator has to look at.
type Secret struct {
	kind secretKind
	// text is a handle, so that the bytes do not stand in the struct: a
	// formatter that walks unexported fields finds a pointer.
	text unique.Handle[string]
}

type secretKind uint8

const (
	noSecret secretKind = iota
	literal
	inFile
	inEnv
	inStore
)

// ParseSecret reads a literal or a reference; "" is no secret. The error names
// what is wrong with a reference and never quotes s.
func ParseSecret(s string) (Secret, error) {
	if s == "" {
		return Secret{}, nil
	}
	if len(s) > maxSecret {
		return Secret{}, fmt.Errorf("is longer than %d bytes", maxSecret)
	}
	kind, rest := literal, s
	if scheme, after, ok := strings.Cut(s, ":"); ok {
		switch scheme {
		case "file":
			kind, rest = inFile, after
			if rest == "" || !printable(rest) {
				return Secret{}, errors.New("names no file after file:; want file:/PATH")
			}
		case "env":
			kind, rest = inEnv, after
			if !isEnvName(rest) {
				return Secret{}, errors.New("names no environment variable after env:; want env:NAME")
			}
		case "secret":
			kind, rest = inStore, after
			if rest == "" || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
				return Secret{}, errors.New("names no entry after secret:; want secret:NAME in a-z, 0-9 and '-'")
			}
		}
	}
	return Secret{kind: kind, text: unique.Make(rest)}, nil
}

// IsZero says that there is no secret.
func (s Secret) IsZero() bool { return s.kind == noSecret }

// IsLiteral says that s is the secret itself.
func (s Secret) IsLiteral() bool { return s.kind == literal }

// IsReference says that s tells where the secret is kept.
func (s Secret) IsReference() bool { return s.kind > literal }

// String gives a reference as it was written, and *** for a literal.
func (s Secret) String() string {
	switch s.kind {
	case noSecret:
		return ""
	case literal:
		return redacted
	case inFile:
		return "file:" + s.text.Value()
	case inEnv:
		return "env:" + s.text.Value()
	case inStore:
		return "secret:" + s.text.Value()
	}
	return redacted
}

// GoString is String, so that %#v does not show a literal either.
func (s Secret) GoString() string { return fmt.Sprintf("address.Secret(%q)", s.String()) }

// Format prints String whatever the verb, so that %d or %x shows no literal.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'v' && f.Flag('#') {
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text) // a fmt.State keeps its own error
}

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String: encoders redact as well.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Resolve gives the secret itself, nil when there is none. getenv and readFile
// are os.Getenv and os.ReadFile outside tests. The error names the reference
// and says what to do; it wraps ErrSecret, or what readFile said.
func (s Secret) Resolve(getenv func(string) string, readFile func(string) ([]byte, error)) ([]byte, error) {
	switch s.kind {
	case noSecret:
		return nil, nil
	case literal:
		return []byte(s.text.Value()), nil
	case inEnv:
		v := getenv(s.text.Value())
		if v == "" {
			return nil, fmt.Errorf("%s: %w: the variable is not set; set it in the environment of the service", s, ErrSecret)
		}
		return bounded(s, []byte(v))
	case inFile:
		b, err := readFile(s.text.Value())
		if err != nil {
			return nil, fmt.Errorf("%s: %w; put the secret into that file, readable by the service only", s, err)
		}
		b = trimLineEnd(b)
		if len(b) == 0 {
			return nil, fmt.Errorf("%s: %w: the file is empty; put the secret into it", s, ErrSecret)
		}
		return bounded(s, b)
	case inStore:
		return nil, fmt.Errorf("%s: %w: this version has no secret store; use file:/PATH or env:NAME", s, ErrSecret)
	}
	return nil, fmt.Errorf("%w: unknown kind %d", ErrSecret, s.kind)
}

func bounded(s Secret, b []byte) ([]byte, error) {
	if len(b) > maxSecret {
		return nil, fmt.Errorf("%s: %w: %d bytes, want at most %d", s, ErrSecret, len(b), maxSecret)
	}
	return b, nil
}

// trimLineEnd takes off the one line end that editors and echo put there.
func trimLineEnd(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n := len(b); n > 0 && b[n-1] == '\r' {
			b = b[:n-1]
		}
	}
	return b
}

func isEnvName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
