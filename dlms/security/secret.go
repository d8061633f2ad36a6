package security

import (
	"fmt"
	"io"
)

// Secret is a password. However it is printed or marshalled it says only that
// it is a secret.
type Secret []byte

// String says that it is a secret.
func (s Secret) String() string { return redacted }

// Format says that it is a secret, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText says that it is a secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
