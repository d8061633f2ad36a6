package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gridgate/buffer/state"
	"gridgate/configs"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
)

// TestCredentialsFollowWhatTheSecretIs: a variable or a file with another value
// is another password; another date of the file, another timeout and another way
// to write the same are not.
func TestCredentialsFollowWhatTheSecretIs(t *testing.T) {
	t.Parallel()
	s, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	file := filepath.Join(t.TempDir(), "password")
	value := "12345678"
	a := &Agent{state: s, log: slog.New(slog.DiscardHandler), opts: Options{Getenv: func(string) string { return value }}}
	of := func(query string) string {
		t.Helper()
		addr, err := address.Parse("dlms+wrapper://127.0.0.1:4059?client=17&auth=lls&" + query)
		if err != nil {
			t.Fatal(err)
		}
		l := drivers.OpenLine(addr, line.Options{})
		defer func() { _ = l.Close() }()
		v, credentials, err := a.openMeter(&configs.Config{}, configs.Meter{ID: "m", Address: addr}, &runningLine{single: l})
		if err != nil {
			t.Fatal(err)
		}
		_ = v.Close()
		return credentials
	}
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("12345678\n")
	first := of("password=env:P")
	for _, query := range []string{"password=file:" + file, "password=12345678", "password=env:P&timeout=9s"} {
		if got := of(query); got != first || got == "" {
			t.Errorf("%s: %q, want %q", query, got, first)
		}
	}
	if err := os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if got := of("password=file:" + file); got != first {
		t.Error("the date of the file counts")
	}
	value = "87654321"
	put(value)
	second := of("password=env:P")
	if second == first || of("password=file:"+file) != second {
		t.Errorf("%q and %q for another value, before %q", second, of("password=file:"+file), first)
	}
	if of("password=env:P&server=2") == second {
		t.Error("another logical device is the same")
	}
}
