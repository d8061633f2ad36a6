package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gridgate/agent/update"
)

// linkSite is a package's slots on a disk, and what its launcher does there.
type linkSite struct {
	t   *testing.T
	dir string
	log bytes.Buffer
}

func newLinkSite(t *testing.T) *linkSite {
	t.Helper()
	return &linkSite{t: t, dir: filepath.Join(t.TempDir(), "firmware", "slots")}
}

func (s *linkSite) slots(running string) *update.LinkSlots {
	return update.NewLinkSlots(s.dir, running, func() {})
}

// linkStaged is a program that lies ready.
func linkStaged(t *testing.T, name, content string) update.Staged {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return update.Staged{Name: name, Path: path, Size: int64(len(content)), SHA256: sha256.Sum256([]byte(content))}
}

func (s *linkSite) install(running, content string) {
	s.t.Helper()
	if err := s.slots(running).Install(s.t.Context(), []update.Staged{linkStaged(s.t, "gridgate", content)}); err != nil {
		s.t.Fatal(err)
	}
}

// launch gives what starts: the slot, and its program; f where nothing is launched.
func (s *linkSite) launch() (slot, program string) {
	s.t.Helper()
	slot, program, env := launchIn(s.t.Context(), s.dir, &s.log, nil)
	if slot != "f" && !slices.Contains(env, "GRIDGATE_LAUNCHER=/usr/bin/gridgate") {
		s.t.Errorf("started with %q", env)
	}
	return slot, program
}

var errLinkExec = errors.New("exec format error")

func launchIn(ctx context.Context, dir string, log io.Writer, refuses []string) (slot, program string, env []string) {
	slot = "f"
	l := update.Launcher{
		Dir: dir, Self: "/usr/bin/gridgate", Env: []string{"A=b", "GRIDGATE_SLOTS=" + dir, "GRIDGATE_LAUNCHER=/old"},
		Log: slog.New(slog.NewTextHandler(log, nil)),
		Exec: func(path string, with []string) error {
			at := filepath.Base(filepath.Dir(path))
			if slices.Contains(refuses, at) || slot != "f" {
				return errLinkExec
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			slot, program, env = at, string(data), with
			return nil // as if it had run, and ended
		},
	}
	l.Launch(ctx)
	return slot, program, env
}

// wants checks what the next start takes; a try is spent by it.
func (s *linkSite) wants(slot, program string) {
	s.t.Helper()
	if gotSlot, got := s.launch(); gotSlot != slot || got != program {
		s.t.Errorf("%s starts: %q; want %s: %q\n%s", gotSlot, got, slot, program, s.log.String())
	}
}

func TestLinkSlotsWayOfAnUpdate(t *testing.T) {
	t.Parallel()
	s := newLinkSite(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	state := func(running string, want update.SlotState) {
		t.Helper()
		got, err := s.slots(running).State()
		if want.Board = got.Board; err != nil || got != want || !strings.HasPrefix(got.Board, "linux-") {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	must(os.MkdirAll(filepath.Dir(filepath.Dir(s.dir)), 0o700))
	state("", update.SlotState{Running: "f", First: "f"})
	s.wants("f", "")
	s.install("", "one")
	s.wants("f", "") // installed is not switched
	must(s.slots("").Switch())
	state("", update.SlotState{Running: "f", First: "a", OnTrial: "a", Tries: 3})
	s.wants("a", "one")
	state("a", update.SlotState{Running: "a", First: "a", OnTrial: "a", Tries: 2})
	if err := s.slots("").Confirm(); err == nil {
		t.Error("a slot is confirmed that does not run")
	}
	if err := s.slots("a").Install(t.Context(), []update.Staged{linkStaged(t, "gridgate", "x")}); err == nil {
		t.Error("installed while the slot that runs is on trial")
	}
	must(s.slots("a").Confirm())
	must(s.slots("a").Confirm()) // again
	state("a", update.SlotState{Running: "a", First: "a"})
	for range 5 {
		s.wants("a", "one")
	}
	s.install("a", "two")
	must(s.slots("a").Switch())
	s.wants("b", "two")
	must(s.slots("b").Back())
	must(s.slots("b").Back())
	s.wants("a", "one")
	s.install("a", "three")
	must(s.slots("a").Switch())
	for range 3 {
		s.wants("b", "three")
	}
	s.wants("a", "one") // it was given up
	state("a", update.SlotState{Running: "a", First: "a", OnTrial: "b"})
	s.install("a", "four") // and its slot is free again
	state("a", update.SlotState{Running: "a", First: "a"})
	must(s.slots("a").Switch())
	s.wants("b", "four")
	must(s.slots("b").Confirm())
	s.wants("b", "four")
	s.install("b", "five")
	must(s.slots("b").Switch())
	s.wants("a", "five")
	must(s.slots("a").Factory())
	s.wants("f", "")
	info, err := os.Stat(filepath.Join(s.dir, "a", "gridgate"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v: the program cannot be run", info, err)
	}
}

func TestLinkSlotsOpen(t *testing.T) {
	t.Parallel()
	s := newLinkSite(t)
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o700); err != nil {
		t.Fatal(err)
	}
	s.install("", "one")
	read := func(running, name string) (string, error) {
		f, err := s.slots(running).Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		return string(data), err
	}
	if got, err := read("a", "gridgate"); got != "one" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	own, err := os.ReadFile(os.Args[0])
	if got, rerr := read("", "gridgate"); err != nil || rerr != nil || got != string(own) {
		t.Errorf("%d octets, %v, %v; want the %d of the program that runs", len(got), rerr, err, len(own))
	}
	for _, name := range []string{"vmlinuz", "../a/gridgate", "slot.json", "", "a/gridgate"} {
		for _, running := range []string{"", "a"} {
			if _, err := read(running, name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q of %q: %v", name, running, err)
			}
		}
	}
}

func TestLinkSlotsInstallRefuses(t *testing.T) {
	t.Parallel()
	s := newLinkSite(t)
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o700); err != nil {
		t.Fatal(err)
	}
	good := linkStaged(t, "gridgate", "one")
	with := func(change func(*update.Staged)) []update.Staged {
		f := good
		change(&f)
		return []update.Staged{f}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		files []update.Staged
	}{
		"no files":     {t.Context(), nil},
		"no gridgate":  {t.Context(), []update.Staged{linkStaged(t, "vmlinuz", "x")}},
		"twice":        {t.Context(), []update.Staged{good, good}},
		"a path":       {t.Context(), append(with(func(f *update.Staged) { f.Name = "../gridgate" }), good)},
		"its list":     {t.Context(), append(with(func(f *update.Staged) { f.Name = "slot.json" }), good)},
		"another hash": {t.Context(), with(func(f *update.Staged) { f.SHA256[7] ^= 1 })},
		"shorter":      {t.Context(), with(func(f *update.Staged) { f.Size++ })},
		"longer":       {t.Context(), with(func(f *update.Staged) { f.Size-- })},
		"not there":    {t.Context(), with(func(f *update.Staged) { f.Path += "x" })},
		"stopped":      {ended, []update.Staged{good}},
		"too large":    {t.Context(), with(func(f *update.Staged) { f.Size = 1 << 40 })},
	} {
		slots := s.slots("")
		if err := slots.Install(c.ctx, c.files); err == nil {
			t.Errorf("%s: installed", name)
		}
		if err := slots.Switch(); err == nil {
			t.Errorf("%s: what is not whole is to be tried", name)
		}
		if left, err := filepath.Glob(filepath.Join(s.dir, "a", "*")); err != nil || len(left) > 0 {
			t.Errorf("%s: %q is left in the slot", name, left)
		}
	}
	s.install("", "whole") // after all that
	if err := s.slots("").Switch(); err != nil {
		t.Error(err)
	}
	s.wants("a", "whole")
}

// linkBoth has a confirmed and b on trial.
func linkBoth(t *testing.T) *linkSite {
	t.Helper()
	s := newLinkSite(t)
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o700); err != nil {
		t.Fatal(err)
	}
	s.install("", "old")
	if err := s.slots("").Switch(); err != nil {
		t.Fatal(err)
	}
	if err := s.slots("a").Confirm(); err != nil {
		t.Fatal(err)
	}
	s.install("a", "new")
	if err := s.slots("a").Switch(); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLaunchDamaged: whatever is wrong with the trial, what is confirmed starts, and
// whatever is wrong with both, the packaged program.
func TestLaunchDamaged(t *testing.T) {
	t.Parallel()
	write := func(content string) func(path string) error {
		return func(path string) error { return os.WriteFile(path, []byte(content), 0o600) }
	}
	leads := func(to string) func(path string) error {
		return func(path string) error { return errors.Join(os.RemoveAll(path), os.Symlink(to, path)) }
	}
	list, err := os.ReadFile(filepath.Join(linkBoth(t).dir, "b", "slot.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]struct {
		file   string
		change func(path string) error
	}{
		"no program":       {"SLOT/gridgate", os.Remove},
		"other program":    {"SLOT/gridgate", write("bad")},
		"shorter program":  {"SLOT/gridgate", write("ne")},
		"longer program":   {"SLOT/gridgate", write("newnew")},
		"program a link":   {"SLOT/gridgate", leads("/bin/true")},
		"program a folder": {"SLOT/gridgate", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }},
		"no list":          {"SLOT/slot.json", os.Remove},
		"list truncated":   {"SLOT/slot.json", write(string(list[:len(list)/2]))},
		"list empty":       {"SLOT/slot.json", write("")},
		"list garbage":     {"SLOT/slot.json", write("\x00\xff[[[")},
		"list names none":  {"SLOT/slot.json", write(`{"files":[]}`)},
		"list too long":    {"SLOT/slot.json", write(strings.Repeat(" ", 1<<15) + string(list))},
		"list a link":      {"SLOT/slot.json", leads("/etc/passwd")},
		"no slot":          {"SLOT", os.RemoveAll},
		"slot a link":      {"SLOT", leads("../..")},
		"link elsewhere":   {"LINK", leads("../../etc")},
		"link absolute":    {"LINK", leads("/etc")},
		"link to itself":   {"LINK", leads("LINK")},
		"link c":           {"LINK", leads("c")},
		"link empty-ish":   {"LINK", leads("b/")},
		"link a file":      {"LINK", func(p string) error { return errors.Join(os.Remove(p), write("b")(p)) }},
	} {
		s := linkBoth(t)
		spoil := func(slot, link string) {
			t.Helper()
			path := strings.NewReplacer("SLOT", slot, "LINK", link).Replace(damage.file)
			if err := damage.change(filepath.Join(s.dir, path)); err != nil {
				t.Fatal(err)
			}
		}
		spoil("b", "trial")
		if slot, program := s.launch(); slot != "a" || program != "old" {
			t.Errorf("%s: %s starts: %q", name, slot, program)
		}
		if !strings.Contains(s.log.String(), "a slot is passed over") {
			t.Errorf("%s: the log does not say so: %s", name, s.log.String())
		}
		spoil("a", "current")
		if slot, program := s.launch(); slot != "f" {
			t.Errorf("%s in both: %s starts: %q", name, slot, program)
		}
		if slots := s.slots(""); slots.Factory() != nil {
			t.Errorf("%s: no way back to the packaged program", name)
		}
		if strings.HasPrefix(name, "link") { // a slot that runs, or leads elsewhere, is not replaced
			s.install("", "next")
		}
	}
}

// TestLaunchTries: a start that cannot be counted is not made.
func TestLaunchTries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tries string
		want  int // starts of the trial
	}{
		{"3\n", 3}, {"3", 3}, {"1\n", 1}, {"0\n", 0}, {"", 0}, {"4\n", 0}, {"-1", 0}, {"three", 0}, {"\x00\x00", 0}, {"99999999999999999999", 0}, {strings.Repeat("0", 100) + "3", 0},
	} {
		s := linkBoth(t)
		if err := os.WriteFile(filepath.Join(s.dir, "tries"), []byte(c.tries), 0o600); err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			want := "b"
			if n >= c.want {
				want = "a"
			}
			if slot, _ := s.launch(); slot != want {
				t.Errorf("%q: start %d is of %s, want %s", c.tries, n+1, slot, want)
			}
		}
	}
	for name, spoil := range map[string]func(path string) error{
		"not there": os.Remove,
		"a folder":  func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
		"a link":    func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/hostname", p)) },
	} {
		s := linkBoth(t)
		if err := spoil(filepath.Join(s.dir, "tries")); err != nil {
			t.Fatal(err)
		}
		if slot, _ := s.launch(); slot != "a" {
			t.Errorf("tries %s: %s starts", name, slot)
		}
	}
	// Where the new number cannot be written, as on a full disk.
	s := linkBoth(t)
	if err := os.Mkdir(filepath.Join(s.dir, ".new-tries"), 0o700); err != nil {
		t.Fatal(err)
	}
	if slot, _ := s.launch(); slot != "a" {
		t.Errorf("without counting, %s starts", slot)
	}
}

func TestLaunchCannot(t *testing.T) {
	t.Parallel()
	s := linkBoth(t)
	for _, c := range []struct {
		refuses []string
		want    string
	}{{[]string{"b"}, "a"}, {[]string{"a", "b"}, "f"}} {
		if slot, _, _ := launchIn(t.Context(), s.dir, &s.log, c.refuses); slot != c.want {
			t.Errorf("%v cannot be started: %s starts", c.refuses, slot)
		}
	}
	if !strings.Contains(s.log.String(), errLinkExec.Error()) {
		t.Errorf("not logged: %s", s.log.String())
	}
	// Somebody stops the service: nothing is put in its place.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if slot, _, _ := launchIn(ctx, s.dir, &s.log, nil); slot != "f" {
		t.Errorf("stopped, %s starts", slot)
	}
	// No directory is no error, one that cannot be read is.
	var log bytes.Buffer
	if slot, _, _ := launchIn(t.Context(), filepath.Join(s.dir, "none"), &log, nil); slot != "f" || log.Len() > 0 {
		t.Errorf("without slots %s starts: %s", slot, log.String())
	}
	file := filepath.Join(s.dir, "a", "gridgate")
	if slot, _, _ := launchIn(t.Context(), file, &log, nil); slot != "f" || !strings.Contains(log.String(), "cannot be read") {
		t.Errorf("with slots that cannot be read %s starts: %s", slot, log.String())
	}
}

func TestUnlaunched(t *testing.T) {
	t.Parallel()
	env := []string{"GRIDGATE_SLOT=a", "A=b", "GRIDGATE_SLOTS=/s", "GRIDGATE_LAUNCHER=/usr/bin/gridgate"}
	if got := fmt.Sprint(update.Unlaunched(env)); got != "[A=b GRIDGATE_SLOTS=/s]" || len(env) != 4 {
		t.Errorf("%s of %q", got, env)
	}
}
