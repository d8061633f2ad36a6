package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rig is the two slots of a gateway that has folders instead of partitions.
type rig struct {
	*slots
	t         *testing.T
	restarted int
}

func newRig(t *testing.T, running string) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t}
	r.slots = &slots{
		boot: filepath.Join(dir, "boot"), board: "virt-armv7", running: running, dir: filepath.Join(dir, "slot"), seeds: filepath.Join(dir, "seeds"),
		roots: []string{filepath.Join(dir, "data"), filepath.Join(dir, "slot")},
		write: func(do func() error) error { return do() }, restart: func() { r.restarted++ },
	}
	for _, d := range append(r.roots, r.boot, r.seeds) {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) set(first, trial string, a, b int) {
	r.t.Helper()
	if err := writeTries(r.boot, func(t *tries) error {
		t.first, t.trial, t.left = first, trial, map[string]int{"a": a, "b": b}
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) ask(do string) string {
	r.t.Helper()
	answer, restart := r.answer(fmt.Appendf(nil, `{"do":%q}`, do))
	if restart {
		r.restart()
	}
	if answer.OK == (answer.Error != "") {
		r.t.Errorf("%s: %+v", do, answer)
	}
	return answer.Error
}

func (r *rig) is(what, first, trial string, a, b int) {
	r.t.Helper()
	s := r.state()
	if s.First != first || s.Trial != trial || s.Tries["a"] != a || s.Tries["b"] != b {
		r.t.Errorf("%s: %+v; want first %s, trial %s, tries %d and %d", what, s, first, trial, a, b)
	}
}

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		running, first, trial string
		a, b                  int
		do, refused           string

		wantFirst, wantTrial string
		wantA, wantB         int
	}{
		{"a", "a", "", 5, 0, "switch", "", "b", "b", 6, 3},
		{"f", "a", "", 0, 0, "switch", "", "a", "a", 3, 0},
		{"b", "b", "b", 6, 2, "confirm", "", "b", "", 6, 6},
		{"b", "b", "", 6, 5, "confirm", "", "b", "", 6, 6},
		{"a", "b", "b", 5, 0, "confirm", "slot b is on trial", "a", "b", 5, 0},
		{"f", "a", "a", 0, 0, "confirm", "never confirmed", "f", "a", 0, 0},
		{"b", "b", "b", 6, 2, "back", "", "a", "", 6, 0},
		{"a", "b", "b", 5, 0, "back", "", "a", "", 5, 0},
		{"f", "a", "a", 0, 0, "back", "", "f", "", 0, 0},
		{"a", "a", "", 5, 6, "back", "", "a", "", 5, 6},
		{"b", "b", "b", 6, 2, "factory", "", "f", "", 0, 0},
		{"b", "b", "", 6, 2, "restart", "", "b", "", 6, 2},
		{"b", "b", "", 6, 2, "reboot", "want state, install", "b", "", 6, 2},
	} {
		r := newRig(t, c.running)
		r.set(c.first, c.trial, c.a, c.b)
		r.installed = c.do == "switch"
		if err := r.ask(c.do); !strings.Contains(err, c.refused) || (err == "") != (c.refused == "") {
			t.Errorf("%+v: %q", c, err)
		}
		r.is(fmt.Sprintf("%+v", c), c.wantFirst, c.wantTrial, c.wantA, c.wantB)
		if (r.restarted == 1) != (c.do == "restart") {
			t.Errorf("%+v: restarted %d times", c, r.restarted)
		}
	}
	r := newRig(t, "a")
	if err := r.ask("switch"); !strings.Contains(err, "nothing was installed") {
		t.Errorf("switch without a slot: %q", err)
	}
}

// A minute of running well gives tries back, but not to a slot on trial, and not
// to one that is to have none.
func TestProven(t *testing.T) {
	r := newRig(t, "a")
	r.set("a", "", 2, 0)
	r.proven()
	r.is("running well", "a", "", 6, 0)
	r.set("a", "", 2, 0)
	r.proven()
	r.is("once", "a", "", 2, 0)

	r = newRig(t, "b")
	r.set("b", "b", 6, 1)
	if !r.onTrial() {
		t.Error("it is on trial")
	}
	r.proven()
	r.is("on trial", "b", "b", 6, 1)

	r = newRig(t, "a") // a request is carried out: the supervisor has to go on
	r.set("a", "a", 2, 0)
	r.mu.Lock()
	r.proven()
	if r.onTrial() {
		t.Error("it is given up while something is done with it")
	}
	r.ask("state") // is answered all the same
	r.mu.Unlock()

	for _, do := range []string{"factory", "back"} {
		r = newRig(t, "b")
		r.set("b", "b", 0, 1)
		r.ask(do)
		r.proven()
		r.is(do, "f", "", 0, 0)
	}
}

func TestInstallRefuses(t *testing.T) {
	r := newRig(t, "a")
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("text")))
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data := r.roots[0]
	put(filepath.Join(data, "x"), "text")
	outside := filepath.Join(t.TempDir(), "outside")
	put(outside, "text")
	for link, to := range map[string]string{"link": outside, "pipe": "/dev/zero"} {
		if err := os.Symlink(to, filepath.Join(data, link)); err != nil {
			t.Fatal(err)
		}
	}
	good := func(name string) slotFile {
		return slotFile{Name: name, Size: 4, SHA256: sum, Path: filepath.Join(data, "x")}
	}
	with := func(change func(f *slotFile)) []slotFile {
		f := good("extra")
		change(&f)
		return []slotFile{good("gridgate"), good("vmlinuz"), good("initrd.zst"), f}
	}
	many := []slotFile{good("gridgate"), good("vmlinuz"), good("initrd.zst")}
	for i := range 14 {
		many = append(many, good(fmt.Sprint("f", i)))
	}
	const room = 1 << 20
	if err := r.check(many[:16], room); err != nil {
		t.Errorf("16 files: %v", err)
	}
	for want, files := range map[string][]slotFile{
		"17 files":               many,
		"without gridgate":       {good("vmlinuz"), good("initrd.zst")},
		"vmlinuz, initrd.zst":    {good("gridgate")},
		"name \"\"":              with(func(f *slotFile) { f.Name = "" }),
		"name \"..\"":            with(func(f *slotFile) { f.Name = ".." }),
		"name \"a/b\"":           with(func(f *slotFile) { f.Name = "a/b" }),
		"name \"A\"":             with(func(f *slotFile) { f.Name = "A" }),
		"name \"gridgate.\"":     with(func(f *slotFile) { f.Name = "gridgate." }),
		"name \"xxx":             with(func(f *slotFile) { f.Name = strings.Repeat("x", 33) }),
		"is there twice":         with(func(f *slotFile) { f.Name = "vmlinuz" }),
		"extra: 0 octets":        with(func(f *slotFile) { f.Size = 0 }),
		"extra: -1 octets":       with(func(f *slotFile) { f.Size = -1 }),
		"extra: 67108865 octets": with(func(f *slotFile) { f.Size = 64<<20 + 1 }),
		"has 4 octets; want 5":   with(func(f *slotFile) { f.Size = 5 }),
		"sha256 \"00\"":          with(func(f *slotFile) { f.SHA256 = "00" }),
		"no such file":           with(func(f *slotFile) { f.Path = filepath.Join(data, "no") }),
		"is not below":           with(func(f *slotFile) { f.Path = outside }),
		"/link: is not below":    with(func(f *slotFile) { f.Path = filepath.Join(data, "link") }),
		"/pipe: is not below":    with(func(f *slotFile) { f.Path = filepath.Join(data, "pipe") }),
	} {
		if err := r.check(files, room); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if err := r.check(many[:4], 3*512); err == nil || !strings.Contains(err.Error(), "a slot holds 1536") {
		t.Errorf("too much: %v", err)
	}
	put(filepath.Join(r.dir, "board.dtb"), "dtb")
	if err := r.check(many[:4], room); err == nil || !strings.Contains(err.Error(), "without board.dtb") {
		t.Errorf("without its device tree: %v", err)
	}
	for _, c := range []struct{ running, first, trial, want string }{
		{"b", "b", "b", "is what it goes back to"}, {"a", "b", "b", "slot b is on trial"}, {"a", "b", "", "what the next start takes"},
	} {
		r := newRig(t, c.running)
		r.set(c.first, c.trial, 3, 3)
		if err := r.ask("install"); !strings.Contains(err, c.want) {
			t.Errorf("%+v: %s", c, err)
		}
	}
}

// served gives connections to a rig's socket.
func served(t *testing.T, r *rig) (dial func() (net.Conn, *bufio.Reader)) {
	t.Helper()
	l, err := listenControl(filepath.Join(t.TempDir(), "init.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); r.serve(l) }()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	if s, err := os.Stat(l.Addr().String()); err != nil || s.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", s.Mode(), err)
	}
	return func() (net.Conn, *bufio.Reader) {
		t.Helper()
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, bufio.NewReader(c)
	}
}

// The socket answers a line at a time, and says what is wrong with one.
func TestControlSocket(t *testing.T) {
	r := newRig(t, "a")
	dial := served(t, r)
	c, answers := dial()
	for _, step := range [][2]string{
		{`{"do":"state"}`, `{"ok":true,"board":"virt-armv7","running":"a","first":"a","trial":"","tries":{"a":6,"b":0},"dir":"` + r.dir + `"}`},
		{`{"do":"nothing"}`, `{"error":"do \"nothing\"; want state, install, switch, confirm, back, factory or restart"}`},
		{`nonsense`, `no request: invalid character`},
		{``, `no request: EOF`},
		{`{"do":"state"} {}`, `more than one object`},
		{`{"do":"state","slot":"b"}`, `unknown field`},
		{`{"do":"state","files":[]}`, `takes no files`},
		{`{"do":"factory"}`, `{"ok":true}`},
	} {
		if _, err := c.Write([]byte(step[0] + "\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := answers.ReadString('\n'); err != nil || !strings.Contains(got, step[1]) {
			t.Errorf("%s: %s %v; want %s", step[0], got, err, step[1])
		}
	}
	long, answers := dial()
	go func() { _, _ = long.Write([]byte(strings.Repeat(" ", 2*controlLine))) }() // it is closed on the way
	if got, err := answers.ReadString('\n'); err != nil || !strings.Contains(got, "at most 65536") {
		t.Errorf("a long line: %s %v", got, err)
	}
}

// One connection more than are served at once is told so.
func TestControlSocketIsFull(t *testing.T) {
	dial := served(t, newRig(t, "a"))
	for range controlClients {
		c, answers := dial()
		if _, err := c.Write([]byte("{\"do\":\"state\"}\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := answers.ReadString('\n'); err != nil || !strings.Contains(got, `"ok":true`) {
			t.Fatal(got, err)
		}
	}
	_, answers := dial()
	if got, err := answers.ReadString('\n'); err != nil || !strings.Contains(got, "too many") {
		t.Errorf("one too many: %s %v", got, err)
	}
}

// A slot that has just been emptied, or garbage where /data was, is found by where
// it is, and not what has their name on another disk.
func TestPartitions(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	fs := func(label string) []byte {
		b := make([]byte, 1024)
		copy(b[71:], label+"          ")
		copy(b[82:], "FAT32")
		return b
	}
	add := func(disk string, n int, content []byte) {
		t.Helper()
		name := fmt.Sprint(disk, n)
		dir := filepath.Join(sys, "devices", disk, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for path, b := range map[string][]byte{filepath.Join(dir, "partition"): fmt.Appendln(nil, n), filepath.Join(dev, name): content} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(dir, filepath.Join(sys, name)); err != nil {
			t.Fatal(err)
		}
	}
	add("sda", 1, fs("STICK"))
	add("sda", 2, fs("GWB"))
	add("vda", 1, fs("GWBOOT"))
	add("vda", 2, fs("GWA"))
	add("vda", 3, make([]byte, 1024))
	if got := partitions(sys, dev); len(got) != 3 {
		t.Errorf("without data: %v", got)
	}
	add("vda", 4, []byte("garbage"))
	got := partitions(sys, dev)
	for label, name := range map[string]string{"GWBOOT": "vda1", "GWA": "vda2", "GWB": "vda3", "gwdata": "vda4"} {
		if got[label] != filepath.Join(dev, name) {
			t.Errorf("%s: %s", label, got[label])
		}
	}
	if got := partitions(dev, dev); len(got) != 0 {
		t.Errorf("nowhere: %v", got)
	}
}
