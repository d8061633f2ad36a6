package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/audit"
	"gridgate/buffer/state"
)

// auditEnd keeps the end of a log in a state, as the agent does.
type auditEnd struct{ s *state.State }

func (h auditEnd) AuditHead() (uint64, [32]byte, bool) {
	e, ok := h.s.AuditHead()
	return e.Number, e.Hash, ok
}

func (h auditEnd) SetAuditHead(n uint64, hash [32]byte) error {
	return h.s.SetAuditHead(state.AuditHead{Number: n, Hash: hash})
}

// TestAuditVerify: its exit codes. A log that was moved aside is told of until
// somebody takes it away, and does not hide what is wrong with the one that is
// written now.
func TestAuditVerify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	write := func(n int) {
		t.Helper()
		l, _, err := audit.Open(filepath.Join(dir, "audit"), auditEnd{s})
		for i := 0; err == nil && i < n; i++ {
			_, err = l.Add(audit.Entry{What: "config.kept", Detail: "entry"})
		}
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change := func(name, old, next string) {
		t.Helper()
		path := filepath.Join(dir, "audit", name)
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.Replace(data, []byte(old), []byte(next), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	verify := func(code int, want ...string) {
		t.Helper()
		got, out, errOut := cmdline(t, "audit", "verify", "-path", dir)
		if got != code {
			t.Errorf("exit code %d, want %d: %s%s", got, code, out, errOut)
		}
		for _, w := range want {
			if !strings.Contains(out+errOut, w) {
				t.Errorf("no word of %q in\n%s%s", w, out, errOut)
			}
		}
	}
	const first, second, third = "audit-0000000001.log", "audit-0000000004.log", "audit-0000000006.log"
	verify(1, "no log is there")
	write(3)
	verify(0, "ok: 3 entries, the last is 3")
	change(first, `"n":2`, `"n":5`)
	verify(1, first+":2: the entry was changed")
	write(2)
	verify(3, "ok: 2 entries, the last is 5", "broken-0001-*: moved aside: 1 entries are good, the last is 1; then ", first+":2: the entry was changed", "entry 4 says so", "the log is sound")
	change("broken-0001-"+first, `"n":1`, `"n":0`)
	verify(1, "CHANGED since entry 4", "broken-0001-*: changed since it was moved aside")
	if err := os.Remove(filepath.Join(dir, "audit", "broken-0001-"+first)); err != nil {
		t.Fatal(err)
	}
	verify(0, "ok: 2 entries")
	if err := os.Truncate(filepath.Join(dir, "audit", second), 0); err != nil {
		t.Fatal(err)
	}
	write(1)
	verify(3, "ok: 1 entries, the last is 6", "broken-0001-*: moved aside: 0 entries are good", "what followed was cut off", "entry 6 says so")
	change(third, "entry", "edited")
	verify(1, third+":1: the entry was changed")
}
