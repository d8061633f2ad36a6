package address

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"gridgate/internal/secret"
)

func TestSecretKinds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in                   string
		zero, literal, refer bool
		shown                string
	}{
		{"", true, false, false, ""},
		{"hunter2", false, true, false, "***"},
		{"files:x", false, true, false, "***"},
		{"file:/etc/x", false, false, true, "file:/etc/x"},
		{"env:NAME_1", false, false, true, "env:NAME_1"},
		{"secret:house-01", false, false, true, "secret:house-01"},
	}
	for _, tt := range tests {
		s := secretOf(t, tt.in)
		if s.IsZero() != tt.zero || s.IsLiteral() != tt.literal || s.IsReference() != tt.refer || s.String() != tt.shown {
			t.Errorf("%q: zero %v literal %v reference %v shown %q", tt.in, s.IsZero(), s.IsLiteral(), s.IsReference(), s)
		}
	}
	for _, bad := range []string{"file:", "file:\x00", "env:", "env:1A", "env:A B", "secret:", "secret:A", strings.Repeat("x", 1025)} {
		if s, err := ParseSecret(bad); err == nil || s != (Secret{}) {
			t.Errorf("ParseSecret(%.20q) = %v, %v; want an error", bad, s, err)
		}
	}
}

// No way of printing shows a literal, nor the bytes of it.
func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := secretOf(t, "hunter2")
	hidden := struct{ inside Secret }{s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%p"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", &s)
		fmt.Fprintf(&out, verb+"\n", hidden)
		fmt.Fprintf(&out, verb+"\n", Address{Password: s})
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "secret", s, "inside", hidden, "address", Address{Password: s})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "secret", s, "inside", hidden, "address", Address{Password: s})
	b, err := json.Marshal(Address{Password: s})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	for _, shown := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), "104 117 110 116 101 114 50"} {
		if strings.Contains(out.String(), shown) {
			t.Errorf("%q is shown in\n%s", shown, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Errorf("nothing says that there is a secret:\n%s", out.String())
	}
}

func TestSecretResolve(t *testing.T) {
	t.Parallel()
	getenv := func(name string) string {
		return map[string]string{"SET": "from env", "LONG": strings.Repeat("x", 1025)}[name]
	}
	readFile := func(name string) ([]byte, error) {
		switch name {
		case "/plain":
			return []byte("from file"), nil
		case "/line":
			return []byte(" from file\r\n"), nil
		case "/two":
			return []byte("from file\n\n"), nil
		case "/empty":
			return []byte("\n"), nil
		case "/long":
			return bytes.Repeat([]byte("x"), 1025), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	store := func(name string) (secret.Value, error) {
		if name == "b" {
			return secret.Of("from store"), nil
		}
		return secret.Value{}, fmt.Errorf("there is none here: %w", fs.ErrExist)
	}
	if _, err := secretOf(t, "secret:b").Resolve(Sources{}); !errors.Is(err, ErrSecret) || !strings.Contains(err.Error(), "secret:b: no secret to be had: there is no secret store here") {
		t.Errorf("without a store: %v", err)
	}
	long := func(string) (secret.Value, error) { return secret.Of(strings.Repeat("x", 8192)), nil }
	if v, err := secretOf(t, "secret:b").Resolve(Sources{Store: long, Most: MaxSecret}); err != nil || v.Len() != MaxSecret {
		t.Errorf("a long one: %d, %v", v.Len(), err)
	}
	for in, want := range map[string]string{
		"":            "",
		"hunter2":     "hunter2",
		"env:SET":     "from env",
		"file:/plain": "from file",
		"file:/line":  " from file",
		"file:/two":   "from file\n",
		"secret:b":    "from store",
	} {
		got, err := secretOf(t, in).Resolve(Sources{Getenv: getenv, ReadFile: readFile, Store: store})
		if err != nil || string(got.Reveal()) != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]struct {
		text string
		is   error
	}{
		"env:UNSET":   {"env:UNSET: no secret to be had: the variable is not set", ErrSecret},
		"env:LONG":    {"env:LONG: no secret to be had: 1025 bytes, want at most 1024", ErrSecret},
		"file:/none":  {"file:/none: open /none: file does not exist; put the secret", fs.ErrNotExist},
		"file:/empty": {"file:/empty: no secret to be had: the file is empty", ErrSecret},
		"file:/long":  {"file:/long: no secret to be had: 1025 bytes", ErrSecret},
		"secret:a":    {"secret:a: there is none here", fs.ErrExist},
	} {
		got, err := secretOf(t, in).Resolve(Sources{Getenv: getenv, ReadFile: readFile, Store: store})
		if err == nil || !got.IsZero() || !errors.Is(err, want.is) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want.text)
		}
	}
}
