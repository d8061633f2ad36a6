// Package secret has the type of what must not be shown: passwords and keys, on
// their way from where they are kept to where they are used. No way of printing,
// logging or encoding a Value shows it; who needs it calls Reveal, which is easy
// to search for.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted stands for a secret wherever one is printed.
const Redacted = "***"

// Value is a secret. The zero value is none. It is not changed once made, and
// may be read from many goroutines.
//
// The secret stands behind a pointer: a formatter that walks fields which are
// not exported cannot ask a Value how it is to be printed, and finds an address.
type Value struct{ text *string }

// Of makes a secret of what was read; of nothing it makes none.
func Of[T ~string | ~[]byte](what T) Value {
	if len(what) == 0 {
		return Value{}
	}
	text := string(what)
	return Value{&text}
}

// Reveal gives the secret itself, a copy; nil where there is none. What is made
// of it must not outlive its use: no field, no error, no log.
func (v Value) Reveal() []byte {
	if v.text == nil {
		return nil
	}
	return []byte(*v.text)
}

// IsZero says that there is no secret.
func (v Value) IsZero() bool { return v.text == nil }

// Len gives its length in octets.
func (v Value) Len() int {
	if v.text == nil {
		return 0
	}
	return len(*v.text)
}

// String says that it is a secret; "" where there is none.
func (v Value) String() string {
	if v.text == nil {
		return ""
	}
	return Redacted
}

// GoString is String, quoted.
func (v Value) GoString() string { return fmt.Sprintf("secret.Value(%q)", v.String()) }

// Format is String, whatever the verb: %x and %d show nothing either.
func (v Value) Format(f fmt.State, verb rune) {
	text := v.String()
	if verb == 'v' && f.Flag('#') {
		text = v.GoString()
	}
	_, _ = io.WriteString(f, text) // a fmt.State keeps its own error
}

// LogValue is String.
func (v Value) LogValue() slog.Value { return slog.StringValue(v.String()) }

// MarshalText is String: encoders show nothing.
func (v Value) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// MarshalJSON is String, quoted.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + v.String() + `"`), nil }
