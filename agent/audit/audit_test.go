package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/audit"
)

// memory is a head in memory.
type memory struct {
	n    uint64
	hash [32]byte
	err  error
}

func (m *memory) AuditHead() (uint64, [32]byte, bool) { return m.n, m.hash, m.n > 0 }

func (m *memory) SetAuditHead(n uint64, hash [32]byte) error {
	if m.err != nil {
		return m.err
	}
	m.n, m.hash = n, hash
	return nil
}

func open(t *testing.T, dir string, head audit.Head) (*audit.Log, error) {
	t.Helper()
	l, broken, err := audit.Open(dir, head)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, broken
}

func add(t *testing.T, l *audit.Log, n int) {
	t.Helper()
	for i := range n {
		_, err := l.Add(audit.Entry{Time: time.Unix(1795362000, 0), Clock: "trusted", What: "config.kept", By: "K", Detail: fmt.Sprintf("entry %d", i)})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func numbers(t *testing.T, dir string) (all []uint64) {
	t.Helper()
	if _, err := audit.Verify(dir, func(e audit.Entry) { all = append(all, e.Number) }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestChain(t *testing.T) {
	t.Parallel()
	dir, head := t.TempDir(), &memory{}
	l, broken := open(t, dir, head)
	add(t, l, 3)
	if err := l.Close(); err != nil || broken != nil {
		t.Fatal(err, broken)
	}
	l, broken = open(t, dir, head)
	add(t, l, 2)
	if got := numbers(t, dir); fmt.Sprint(got) != "[1 2 3 4 5]" || broken != nil {
		t.Errorf("got %v, %v", got, broken)
	}
}

// TestGoldenEntry pins the format: the fog checks it with other programs.
func TestGoldenEntry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, &memory{})
	add(t, l, 1)
	got, err := os.ReadFile(filepath.Join(dir, "audit-0000000001.log"))
	if err != nil {
		t.Fatal(err)
	}
	// printf '%s' '{…}' | sha256sum gives the last word.
	want := `{"n":1,"time":"2026-11-22T15:40:00Z","clock":"trusted","what":"config.kept","by":"K","detail":"entry 0","prev":"` +
		strings.Repeat("0", 64) + `"} `
	if !strings.HasPrefix(string(got), want) {
		t.Errorf("got  %s\nwant %s…", got, want)
	}
}

// TestDamage changes, cuts, swaps and removes: each is found, and where.
func TestDamage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(lines []string) []string
		want  string
	}{
		"an entry changed":        {func(l []string) []string { l[2] = strings.Replace(l[2], "entry 2", "entry 7", 1); return l }, "audit-0000000001.log:3: the entry was changed"},
		"an entry taken out":      {func(l []string) []string { return append(l[:2:2], l[3:]...) }, ":3: entry 4 follows entry 2"},
		"two swapped":             {func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }, ":2: entry 3 follows entry 1"},
		"the first taken out":     {func(l []string) []string { return l[1:] }, ":1: entry 2 stands first"},
		"an entry twice":          {func(l []string) []string { l[2] = l[1]; return l }, ":3: entry 2 follows entry 2"},
		"an entry of another log": {func(l []string) []string { l[4] = foreign(5); return l }, ":5: entry 5 does not follow"},
		"the end cut off":         {func(l []string) []string { return l[:3] }, "it ends with entry 3, and the last one was 5"},
		"all of it gone":          {func([]string) []string { return nil }, "it ends with entry 0, and the last one was 5"},
		"no entry":                {func(l []string) []string { l[0] = "hello\n"; return l }, ":1: not an entry"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, head := t.TempDir(), &memory{}
			l, _ := open(t, dir, head)
			add(t, l, 5)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "audit-0000000001.log")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := c.spoil(strings.SplitAfter(string(data), "\n")[:5])
			if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			l, broken := open(t, dir, head)
			var p *audit.Problem
			if !errors.As(broken, &p) || !strings.Contains(broken.Error(), c.want) {
				t.Errorf("got %v; want %q", broken, c.want)
			}
			add(t, l, 1) // it goes on
			if got := numbers(t, dir); len(got) != 1 || got[0] != 6 {
				t.Errorf("it goes on with %v", got)
			}
			if kept, err := audit.SetAside(dir); err != nil || len(kept) != 1 {
				t.Errorf("set aside: %v, %v", kept, err)
			}
			if _, broken := open(t, dir, head); broken != nil {
				t.Errorf("told twice: %v", broken)
			}
		})
	}
}

// foreign is entry n of a log that begins otherwise.
func foreign(n int) string {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, _, err := audit.Open(dir, &memory{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = l.Close() }()
	for range n {
		if _, err := l.Add(audit.Entry{What: "another"}); err != nil {
			panic(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "audit-0000000001.log"))
	if err != nil {
		panic(err)
	}
	return strings.SplitAfter(string(data), "\n")[n-1]
}

// TestCutAtEveryOctet: a power cut amid an entry loses that one, if it was not
// acknowledged, and nothing else.
func TestCutAtEveryOctet(t *testing.T) {
	t.Parallel()
	dir, head := t.TempDir(), &memory{}
	l, _ := open(t, dir, head)
	add(t, l, 2)
	before := *head
	add(t, l, 1)
	after := *head
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "audit-0000000001.log"))
	if err != nil {
		t.Fatal(err)
	}
	two := bytes.IndexByte(data[bytes.IndexByte(data, '\n')+1:], '\n') + bytes.IndexByte(data, '\n') + 2
	for size := two; size <= len(data); size++ {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "audit-0000000001.log"), data[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		head := before
		l, broken := open(t, dir, &head)
		if broken != nil {
			t.Fatalf("cut at %d: %v", size, broken)
		}
		if whole := size == len(data); whole != (head == after) {
			t.Errorf("cut at %d: the head is %d", size, head.n)
		}
		add(t, l, 1)
		numbers(t, dir)
	}
}

// TestTornEntry: of an entry that was not acknowledged the end may be on the disk
// and its middle not. It is taken off, in a file of its own too; one that was
// acknowledged is not, and neither is what follows one that the head knows.
func TestTornEntry(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before, after int // entries that were acknowledged, and that were not
		torn          int // line that is torn
		broken        bool
	}{
		"the last":             {before: 2, after: 1, torn: 2},
		"the first":            {before: 0, after: 1, torn: 0},
		"acknowledged":         {before: 3, after: 0, torn: 2, broken: true},
		"before the last":      {before: 2, after: 1, torn: 1, broken: true},
		"the head is too old":  {before: 1, after: 3, torn: 1, broken: true},
		"the head is older":    {before: 1, after: 2, torn: -1, broken: true},
		"not acknowledged yet": {before: 1, after: 1, torn: -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, head := t.TempDir(), &memory{}
			l, _ := open(t, dir, head)
			add(t, l, c.before)
			known := *head
			add(t, l, c.after)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "audit-0000000001.log")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.SplitAfter(data, []byte("\n"))
			if c.torn >= 0 {
				clear(lines[c.torn][20:90])
			}
			if err := os.WriteFile(path, bytes.Join(lines, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			l, broken := open(t, dir, &known)
			if (broken != nil) != c.broken {
				t.Errorf("broken: %v", broken)
			}
			add(t, l, 1)
			numbers(t, dir)
		})
	}
}

func TestFilesAreGivenUp(t *testing.T) {
	t.Parallel()
	dir, head := t.TempDir(), &memory{}
	l, _ := open(t, dir, head)
	for range 1400 {
		if _, err := l.Add(audit.Entry{What: "x", Detail: strings.Repeat("d", 5000)}); err != nil {
			t.Fatal(err)
		}
	}
	got := numbers(t, dir)
	if len(got) == 1400 || got[len(got)-1] != 1400 {
		t.Errorf("%d entries, the last is %d", len(got), got[len(got)-1])
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 16 {
		t.Errorf("%d files, %v", len(names), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, broken := open(t, dir, head); broken != nil {
		t.Error(broken)
	}
}

// TestNotNoted: an entry whose number cannot be kept was not added.
func TestNotNoted(t *testing.T) {
	t.Parallel()
	dir, head := t.TempDir(), &memory{}
	l, _ := open(t, dir, head)
	add(t, l, 1)
	head.err = errors.New("disk full")
	if _, err := l.Add(audit.Entry{What: "x"}); !errors.Is(err, head.err) {
		t.Error(err)
	}
	head.err = nil
	add(t, l, 1)
	if got := numbers(t, dir); fmt.Sprint(got) != "[1 2]" {
		t.Errorf("got %v", got)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(foreign(1)))
	f.Add([]byte(foreign(1) + foreign(2)))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "audit-0000000001.log"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		last, err := audit.Verify(dir, func(e audit.Entry) {
			if n++; e.Number != n {
				t.Errorf("entry %d at place %d", e.Number, n)
			}
		})
		if err == nil && last.Number != n {
			t.Errorf("the last is %d of %d", last.Number, n)
		}
	})
}

// TestALongDetailFitsALine: JSON writes '<' and control characters in six octets.
func TestALongDetailFitsALine(t *testing.T) {
	t.Parallel()
	dir, head := t.TempDir(), &memory{}
	l, _, err := audit.Open(dir, head)
	if err != nil {
		t.Fatal(err)
	}
	for _, detail := range []string{strings.Repeat("<", 10000), strings.Repeat("\x01", 10000), strings.Repeat("é", 10000)} {
		if _, err := l.Add(audit.Entry{What: "test", Detail: detail}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, broken, err := audit.Open(dir, head)
	if err != nil || broken != nil {
		t.Fatalf("opened again: %v, %v", broken, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
