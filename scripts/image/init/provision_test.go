package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bench is a boot partition and data in folders.
type bench struct {
	provisioning
	t     *testing.T
	asked []string
	fail  string // what gridgate refuses
}

func newBench(t *testing.T, files map[string]string) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t}
	b.provisioning = provisioning{
		from: filepath.Join(dir, "provision"), to: filepath.Join(dir, "etc"), fallback: filepath.Join(dir, "none.yaml"),
		write: func(do func() error) error { return do() },
		gridgate: func(args ...string) (string, error) {
			b.asked = append(b.asked, strings.ReplaceAll(strings.Join(args, " "), dir, ""))
			if b.fail != "" {
				return "", errors.New(b.fail)
			}
			if args[0] == "provision" {
				return "", os.WriteFile(b.config(), []byte("signed"), 0o600)
			}
			return "", nil
		},
	}
	if err := os.WriteFile(b.fallback, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.put(files)
	return b
}

func (b *bench) put(files map[string]string) {
	b.t.Helper()
	if err := os.MkdirAll(b.from, 0o700); err != nil {
		b.t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(b.from, name), []byte(text), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) holds(dir string, want map[string]string) {
	b.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			b.t.Fatal(err)
		}
		got[e.Name()] = string(text)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s has %v; want %v", filepath.Base(dir), got, want)
	}
}

const certificate = "-----BEGIN CERTIFICATE-----"

// A first start takes over what is on the boot partition, and leaves no secret
// there; later ones take over nothing.
func TestProvision(t *testing.T) {
	files := map[string]string{
		"gridgate.yaml": "first", "ca.pem": certificate, "key.pem": certificate + "-----BEGIN PRIVATE KEY-----", "house-01": "password",
	}
	b := newBench(t, files)
	b.run()
	b.holds(b.to, files)
	b.holds(b.from, map[string]string{"gridgate.yaml": "first", "ca.pem": certificate})
	if fmt.Sprint(b.asked) != "[check -config /provision/gridgate.yaml]" {
		t.Errorf("asked %q", b.asked)
	}
	b.put(map[string]string{"gridgate.yaml": "second", "house-02": "not taken over"})
	b.run()
	b.holds(b.to, files)
	b.holds(b.from, map[string]string{"gridgate.yaml": "second", "ca.pem": certificate, "house-02": "not taken over"})
}

// Nothing is removed when a restart would lose it.
func TestProvisionIntoMemory(t *testing.T) {
	files := map[string]string{"gridgate.yaml": "first", "house-01": "password"}
	b := newBench(t, files)
	b.write = nil
	b.run()
	b.holds(b.to, files)
	b.holds(b.from, files)
}

// Without a folder the gateway starts without meters, and takes over one that comes
// later; one with a mistake too, once it is mended.
func TestProvisionLater(t *testing.T) {
	b := newBench(t, nil)
	b.run()
	b.holds(b.to, map[string]string{"gridgate.yaml": "none"})
	for _, files := range []map[string]string{{"gridgate.yaml": "wrong"}, {"configuration": "wrong", "trust": "keys"}} {
		b.put(files)
		b.fail = "a mistake"
		b.run()
		if got, err := os.ReadFile(b.config()); err != nil || string(got) != "none" {
			t.Errorf("after a mistake: %q %v", got, err)
		}
	}
	b.fail, b.asked = "", nil
	b.run()
	b.holds(b.to, map[string]string{"gridgate.yaml": "signed"})
	b.holds(b.from, map[string]string{"gridgate.yaml": "wrong", "configuration": "wrong", "trust": "keys"})
	if fmt.Sprint(b.asked) != "[provision from /provision]" {
		t.Errorf("asked %q", b.asked)
	}
}
