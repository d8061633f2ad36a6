package trial_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/trial"
)

func targets(t *testing.T, s *trial.Shelf) string {
	t.Helper()
	kept, err := s.Kept()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range kept {
		all = append(all, e.Target+"="+string(e.Data))
	}
	return strings.Join(all, " ")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestShelf(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "config")
	s := trial.OpenShelf(dir)
	if got := targets(t, s); got != "" {
		t.Errorf("an empty shelf has %q", got)
	}
	if _, _, ok, err := s.OnTrial(); ok || err != nil {
		t.Error(ok, err)
	}
	if _, _, err := s.Begin(trial.Health{}); err == nil {
		t.Error("nothing was tried")
	}
	keep := func(target string, version uint64, data string) {
		t.Helper()
		must(t, s.Put(target, version, []byte(data)))
		if n, _, err := s.Begin(trial.Health{}); n != 1 || err != nil {
			t.Fatalf("attempt %d, %v", n, err)
		}
		must(t, s.Keep())
		must(t, s.End(trial.Outcome{}))
	}
	keep("s/g", 1, "first")
	keep("s/_group/n", 4, "group")
	keep("s/g", 2, "second")
	if got := targets(t, trial.OpenShelf(dir)); got != "s/_group/n=group s/g=second" {
		t.Errorf("kept: %q", got)
	}
	if docs, err := filepath.Glob(filepath.Join(dir, "*.doc")); err != nil || len(docs) != 2 {
		t.Errorf("documents %q, %v", docs, err)
	}
}

// TestAttemptsAreCounted over restarts, with the health before the first.
func TestAttemptsAreCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := trial.Health{Reached: true, Meters: 5, Reading: 4}
	must(t, trial.OpenShelf(dir).Put("s/g", 1, []byte("doc")))
	for i := 1; i <= 4; i++ {
		s := trial.OpenShelf(dir)
		before := trial.Health{}
		if i == 1 {
			before = first
		}
		n, got, err := s.Begin(before)
		if n != i || got != first || err != nil {
			t.Errorf("attempt %d of %d, %+v, %v", n, i, got, err)
		}
		must(t, s.Put("s/g", 1, []byte("doc"))) // it came again
		e, attempts, ok, err := s.OnTrial()
		if !ok || err != nil || attempts != i || string(e.Data) != "doc" {
			t.Errorf("%+v, %d, %v, %v", e, attempts, ok, err)
		}
	}
	s := trial.OpenShelf(dir)
	must(t, s.Put("s/g", 2, []byte("another")))
	if n, _, err := s.Begin(trial.Health{}); n != 1 || err != nil {
		t.Errorf("another document has attempt %d, %v", n, err)
	}
}

func TestDamagedShelf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := trial.OpenShelf(dir)
	must(t, s.Put("s/g", 1, []byte("document")))
	must(t, s.Keep())
	must(t, s.End(trial.Outcome{}))
	docs, err := filepath.Glob(filepath.Join(dir, "*.doc"))
	if err != nil || len(docs) != 1 {
		t.Fatal(docs, err)
	}
	must(t, os.WriteFile(docs[0], []byte("documenT"), 0o600))
	if _, err := s.Kept(); !errors.Is(err, trial.ErrDamaged) {
		t.Errorf("a changed document: %v", err)
	}
	must(t, os.Remove(docs[0]))
	if _, err := s.Kept(); !errors.Is(err, trial.ErrDamaged) {
		t.Errorf("no document: %v", err)
	}
	for _, bad := range []string{"{", `{"documents":[{"target":"x","sha256":"../../etc/passwd"}]}`} {
		must(t, os.WriteFile(filepath.Join(dir, "kept.json"), []byte(bad), 0o600))
		if _, err := s.Kept(); !errors.Is(err, trial.ErrDamaged) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestADamagedShelfIsMended: it takes documents again.
func TestADamagedShelfIsMended(t *testing.T) {
	t.Parallel()
	for _, damage := range []func(dir string) error{
		func(dir string) error { return os.WriteFile(filepath.Join(dir, "kept.json"), []byte("{"), 0o600) },
		func(dir string) error {
			docs, err := filepath.Glob(filepath.Join(dir, "*.doc"))
			return errors.Join(err, os.Remove(docs[0]))
		},
	} {
		dir := t.TempDir()
		s := trial.OpenShelf(dir)
		must(t, s.Mend()) // nothing is there yet
		must(t, s.Put("s/g", 1, []byte("document")))
		must(t, s.Keep())
		must(t, s.End(trial.Outcome{}))
		must(t, s.Mend())
		if got := targets(t, s); got != "s/g=document" {
			t.Fatalf("mending took away what was whole: %q", got)
		}
		must(t, damage(dir))
		must(t, s.Mend())
		if got := targets(t, s); got != "" {
			t.Errorf("in effect: %q", got)
		}
		must(t, os.WriteFile(filepath.Join(dir, ".new-1"), []byte("half"), 0o600))
		must(t, s.Put("s/g", 2, []byte("another")))
		must(t, s.Keep())
		must(t, s.End(trial.Outcome{}))
		if got := targets(t, s); got != "s/g=another" {
			t.Errorf("in effect: %q", got)
		}
		if _, err := os.Stat(filepath.Join(dir, ".new-1")); err == nil {
			t.Error("what was half written stays")
		}
	}
}
