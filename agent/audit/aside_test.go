package audit_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/audit"
)

// spoil changes a log's file.
func spoil(t *testing.T, path, old, next string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil && !strings.Contains(string(data), old) {
		err = fmt.Errorf("%s has no %q", path, old)
	}
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(data), old, next, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func moved(t *testing.T, dir string, n int) []audit.Moved {
	t.Helper()
	all, err := audit.VerifyAside(dir)
	if err != nil || len(all) != n {
		t.Fatalf("%d logs were moved aside, %v; want %d", len(all), err, n)
	}
	return all
}

// TestMovedAsideIsNamed: the first entry of the log after it says what was moved
// aside and where that ends; what is changed later is found out.
func TestMovedAsideIsNamed(t *testing.T) {
	t.Parallel()
	dir, head := t.TempDir(), &memory{}
	var hashes []string
	l, _ := open(t, dir, head)
	for range 5 {
		e, err := l.Add(audit.Entry{What: "a", Detail: "entry"})
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, e.Hash)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	spoil(t, filepath.Join(dir, "audit-0000000001.log"), `"n":3`, `"n":7`)
	l, broken := open(t, dir, head)
	if broken == nil {
		t.Fatal("it was not found out")
	}
	if all := moved(t, dir, 1); all[0].Named != 0 || all[0].Changed {
		t.Errorf("before an entry: %+v", all[0])
	}
	if err := l.Close(); err != nil { // a cut before the entry that names it
		t.Fatal(err)
	}
	l, broken = open(t, dir, head)
	if broken == nil {
		t.Error("all entries are gone, and nobody is told")
	}
	add(t, l, 2)
	var first *audit.Aside
	if _, err := audit.Verify(dir, func(e audit.Entry) {
		if e.Number == 6 {
			first = e.Aside
		} else if e.Aside != nil {
			t.Errorf("entry %d names %+v", e.Number, e.Aside)
		}
	}); err != nil {
		t.Error(err)
	}
	if want := (audit.Aside{Log: "broken-0001-", Last: 2, Hash: hashes[1]}); first == nil || *first != want {
		t.Errorf("named is %+v, want %+v", first, want)
	}
	var p *audit.Problem
	if m := moved(t, dir, 1)[0]; m.Named != 6 || m.Changed || m.Entries != 2 || !errors.As(m.Why, &p) || p.Line != 3 {
		t.Errorf("%+v", m)
	}
	spoil(t, filepath.Join(dir, "broken-0001-audit-0000000001.log"), `"n":2`, `"n":4`)
	if m := moved(t, dir, 1)[0]; !m.Changed {
		t.Errorf("what was moved aside was changed since: %+v", m)
	}
	if err := os.Remove(filepath.Join(dir, "broken-0001-audit-0000000001.log")); err != nil {
		t.Fatal(err)
	}
	moved(t, dir, 0) // kept elsewhere by somebody
	if _, err := audit.Verify(dir, nil); err != nil {
		t.Error(err)
	}
}

// TestMovedAsideTwice: with the state gone both begin with entry 1, and neither
// takes the other's place.
func TestMovedAsideTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 3 {
		l, _ := open(t, dir, &memory{})
		add(t, l, 2)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all := moved(t, dir, 2)
	if a, b := all[0], all[1]; a.Log != "broken-0001-" || b.Log != "broken-0002-" || a.Named != 1 || b.Named != 1 ||
		a.Changed || b.Changed || a.Entries != 2 || b.Entries != 2 || a.Why != nil || a.Hash == b.Hash {
		t.Errorf("%+v", all)
	}
}

// TestACutAmidMoving: what a cut left behind follows to the same place.
func TestACutAmidMoving(t *testing.T) {
	t.Parallel()
	dir, head := t.TempDir(), &memory{}
	l, _ := open(t, dir, head)
	for range 200 {
		if _, err := l.Add(audit.Entry{What: "x", Detail: strings.Repeat("d", 4000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "audit-*"))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	last := names[len(names)-1]
	if err := os.Rename(last, filepath.Join(dir, "broken-0001-"+filepath.Base(last))); err != nil {
		t.Fatal(err)
	}
	if _, broken := open(t, dir, head); broken == nil {
		t.Error("nobody is told")
	}
	if m := moved(t, dir, 1)[0]; m.Why != nil || m.Last != 200 || m.Entries != 200 {
		t.Errorf("%+v", m)
	}
}

// TestAfter gives what comes after a number, over files.
func TestAfter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, &memory{})
	if got, err := l.After(0, 5); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
	const all = 1400 // of which some were given up
	for range all {
		if _, err := l.Add(audit.Entry{What: "x", Detail: strings.Repeat("d", 4000)}); err != nil {
			t.Fatal(err)
		}
	}
	oldest := numbers(t, dir)[0]
	var got []uint64
	for at := uint64(0); ; {
		some, err := l.After(at, 7)
		if err != nil || len(some) > 7 {
			t.Fatal(len(some), err)
		}
		if len(some) == 0 {
			break
		}
		for _, e := range some {
			got = append(got, e.Number)
		}
		at = got[len(got)-1]
	}
	for i, n := range got {
		if n != oldest+uint64(i) {
			t.Fatalf("entry %d at place %d after %d", n, i, oldest)
		}
	}
	if oldest == 1 || got[len(got)-1] != all {
		t.Errorf("from %d to %d", oldest, got[len(got)-1])
	}
}
