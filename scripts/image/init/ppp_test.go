package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNameServers: those of wired interfaces stand before those of the modem, and go
// with their interface.
func TestNameServers(t *testing.T) {
	r := &resolvers{path: filepath.Join(t.TempDir(), "resolv.conf"), by: map[string]servers{}}
	for _, step := range []struct {
		name    string
		dialled bool
		addrs   []string
		want    string
	}{
		{"ppp0", true, []string{"10.9.0.53"}, "nameserver 10.9.0.53\n"},
		{"eth0", false, []string{"192.0.2.1", "192.0.2.2"}, "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 10.9.0.53\n"},
		{"eth0", false, []string{"192.0.2.3"}, "nameserver 192.0.2.3\nnameserver 10.9.0.53\n"},
		{"ppp0", true, nil, "nameserver 192.0.2.3\n"},
	} {
		if err := r.set(step.name, step.dialled, step.addrs); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(r.path); err != nil || string(got) != step.want {
			t.Errorf("%+v: %q %v", step, got, err)
		}
	}
}
