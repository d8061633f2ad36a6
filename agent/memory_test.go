package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"gridgate/configs"
)

// What the first process says of the data partition is among the notes of status
// and page.
func TestDataInMemoryIsNoted(t *testing.T) {
	for value, want := range map[string]bool{"": false, "1": true} {
		cfg, err := configs.Parse("test", []byte("version: 1\nsite: zone3\ngateway: gw1\nbuffer: {path: "+t.TempDir()+"}\nuplink: {broker: \"tcp://127.0.0.1:1\"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		a, err := New(cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler), Getenv: func(name string) string {
			if name == "GRIDGATE_DATA_IN_MEMORY" {
				return value
			}
			return ""
		}})
		if err != nil {
			t.Fatal(err)
		}
		notes := a.Report().Notes
		if got := slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "kept in memory only") }); got != want {
			t.Errorf("%q: %q", value, notes)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Run(ended); err != nil {
			t.Error(err)
		}
	}
}
