package address

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unique"

	"gridgate/internal/secret"
)

// redacted stands for a secret wherever one is printed.
const redacted = secret.Redacted

// maxSecret bounds a secret in bytes, where Sources say nothing else, and
// MaxSecret any: the longest are private keys of certificates.
const (
	maxSecret = 1024
	MaxSecret = 8192
)

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
			if !IsName(rest) {
				return Secret{}, errors.New("names no entry after secret:; want secret:NAME, 1 to 64 characters of a-z, 0-9 and '-'")
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

// Sources are where references lead.
type Sources struct {
	Getenv   func(string) string                     // os.Getenv outside tests
	ReadFile func(path string) ([]byte, error)       // os.ReadFile outside tests
	Store    func(name string) (secret.Value, error) // the gateway's store; nil: there is none
	// Most bounds a secret in bytes; 0 is 1024.
	Most int
}

// Resolve gives the secret itself, none where there is none. The error names the
// reference and says what to do; it wraps ErrSecret, or what the source said.
func (s Secret) Resolve(from Sources) (secret.Value, error) {
	switch s.kind {
	case noSecret:
		return secret.Value{}, nil
	case literal:
		return secret.Of(s.text.Value()), nil
	case inEnv:
		v := from.Getenv(s.text.Value())
		if v == "" {
			return secret.Value{}, fmt.Errorf("%s: %w: the variable is not set; set it in the environment of the service", s, ErrSecret)
		}
		return from.bounded(s, secret.Of(v))
	case inFile:
		b, err := from.ReadFile(s.text.Value())
		if err != nil {
			return secret.Value{}, fmt.Errorf("%s: %w; put the secret into that file, readable by the service only", s, err)
		}
		b = trimLineEnd(b)
		if len(b) == 0 {
			return secret.Value{}, fmt.Errorf("%s: %w: the file is empty; put the secret into it", s, ErrSecret)
		}
		return from.bounded(s, secret.Of(b))
	case inStore:
		if from.Store == nil {
			return secret.Value{}, fmt.Errorf("%s: %w: there is no secret store here; use file:/PATH or env:NAME", s, ErrSecret)
		}
		v, err := from.Store(s.text.Value())
		if err != nil {
			return secret.Value{}, fmt.Errorf("%s: %w", s, err)
		}
		return from.bounded(s, v)
	}
	return secret.Value{}, fmt.Errorf("%w: unknown kind %d", ErrSecret, s.kind)
}

// InStore gives the name under which the gateway's store has the secret; ok is
// false for one that is kept elsewhere.
func (s Secret) InStore() (name string, ok bool) {
	if s.kind != inStore {
		return "", false
	}
	return s.text.Value(), true
}

// InFile gives the path of the file that has the secret; ok is false for one
// that is kept elsewhere.
func (s Secret) InFile() (path string, ok bool) {
	if s.kind != inFile {
		return "", false
	}
	return s.text.Value(), true
}

func (f Sources) bounded(s Secret, v secret.Value) (secret.Value, error) {
	if most := cmp.Or(f.Most, maxSecret); v.Len() > most {
		return secret.Value{}, fmt.Errorf("%s: %w: %d bytes, want at most %d", s, ErrSecret, v.Len(), most)
	}
	return v, nil
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

// IsName says whether the gateway's store may have a secret of that name: 1 to 64
// characters of a-z, 0-9 and '-'.
func IsName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
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
