package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpdateAndBack: a slot is written, tried and confirmed; one that panics is
// left by itself, and the slot that runs then is told of it.
func TestUpdateAndBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, armv7())
	garble(t, r.card, (gap+bootSize+slotSize)*mib, mib) // as a cut while it is written may leave it: without its name
	a := r.boot()
	if a.Slot != "a" || a.Board != "virt-armv7" || a.Init != "/run/init.sock" || a.User == 0 {
		t.Errorf("environment: %+v", a)
	}
	r.state(answer{Running: "a", First: "a", Tries: map[string]int{"a": 5, "b": 0}})
	if err := r.put("/data/gridgate/kept", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	r.refused(`{"do":"switch"}`, "nothing was installed")
	r.update(r.faulty("second"))

	b := r.await(a.Boot)
	if b.Slot != "b" || b.Fault != "second" || string(r.get("/data/gridgate/kept")) != "kept" {
		t.Errorf("after the update: %+v", b)
	}
	r.state(answer{Running: "b", First: "b", Trial: "b", Tries: map[string]int{"a": 6, "b": 2}})
	r.refused(install(r.staged(r.faulty("third"))...), "on trial")
	r.must(`{"do":"confirm"}`)
	r.must(`{"do":"confirm"}`) // again is no error
	r.state(answer{Running: "b", First: "b", Tries: map[string]int{"a": 6, "b": 6}})

	r.try(r.withStaged(r.faulty("panic"), faultyInit(t, armv7(), "panic")))
	if b2 := r.await(b.Boot); b2.Slot != "b" || strings.Count(r.q.Output(), "sysrq triggered crash") != trialTries {
		t.Errorf("after a slot that panics: %+v", b2)
	}
	r.state(answer{Running: "b", First: "b", Trial: "a", Tries: map[string]int{"a": 0, "b": 5}})
	r.refused(`{"do":"confirm"}`, "slot a is on trial")
	r.refused(install(r.staged(r.faulty("third"))...), "go back first")
	r.must(`{"do":"back"}`)
	r.state(answer{Running: "b", First: "b", Tries: map[string]int{"a": 0, "b": 5}})

	r.q.Kill()
	r.sound("a", "panic")
	r.sound("b", "second")
}

// TestFactory: its slot is taken when gridgate asks for it, and is updated from.
func TestFactory(t *testing.T) {
	t.Parallel()
	r := newRig(t, armv7())
	a := r.boot()
	r.must(`{"do":"factory"}`)
	r.state(answer{Running: "a", First: "f", Tries: map[string]int{"a": 0, "b": 0}})
	r.must(`{"do":"restart"}`)
	f := r.await(a.Boot)
	if f.Slot != "f" {
		t.Errorf("%+v", f)
	}
	r.state(answer{Running: "f", First: "f", Dir: "/boot/factory", Tries: map[string]int{"a": 0, "b": 0}})
	r.refused(`{"do":"confirm"}`, "never confirmed")
	r.update(r.faulty("anew"))
	again := r.await(f.Boot)
	if again.Slot != "a" || again.Fault != "anew" {
		t.Errorf("%+v", again)
	}
	r.state(answer{Running: "a", First: "a", Trial: "a", Tries: map[string]int{"a": 2, "b": 0}})
	r.must(`{"do":"back"}`)
	r.state(answer{Running: "a", First: "f", Tries: map[string]int{"a": 0, "b": 0}})
}

// trialTries is how often a slot on trial is started.
const trialTries = 3

// TestHangs: a slot that does not say that it makes progress, and one that nobody
// confirms, are left by themselves. Their first process has short limits.
func TestHangs(t *testing.T) {
	t.Parallel()
	r := newRig(t, armv7())
	r.withInit("a", faultyInit(t, armv7(), ""))
	r.bOnce(r.faulty("hang"))
	again := r.boot()
	if n := strings.Count(r.q.Output(), "gridgate makes no progress"); again.Slot != "a" || n != 1 {
		t.Errorf("after %d hangs: %+v", n, again)
	}

	r.update(r.faulty("unconfirmed"))
	b := r.await(again.Boot)
	r.state(answer{Running: "b", First: "b", Trial: "b", Tries: map[string]int{"a": 6, "b": 2}})
	r.await(b.Boot)
	r.state(answer{Running: "b", First: "b", Trial: "b", Tries: map[string]int{"a": 6, "b": 1}})
	if !strings.Contains(r.q.Output(), "nobody has confirmed it") {
		t.Error("the console does not say why")
	}
}

// TestWatchdog: a first process that does not feed the watchdog is reset by it. The
// machine that QEMU is has none that Debian's kernel knows, so that it is the
// kernel's own.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	r := newRig(t, armv7())
	r.bOnce(r.faulty("never started"))
	r.withInit("b", faultyInit(t, armv7(), "blocked"))
	if s := r.boot(); s.Slot != "a" {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(r.q.Output(), "blocked, for a test") {
		t.Error("the first process was not blocked")
	}
}

// bOnce puts a program with all that slot A has beside it into slot B, which is to
// be tried first, once.
func (r *rig) bOnce(program []byte) {
	r.t.Helper()
	dir := r.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gridgate"), program, 0o600); err != nil {
		r.t.Fatal(err)
	}
	for _, name := range []string{"gridgate", "vmlinuz", "initrd.zst"} {
		path := filepath.Join(dir, name)
		if name != "gridgate" {
			r.tool("mcopy", "-n", "-i", r.at("a"), "::"+name, path)
		}
		r.tool("mcopy", "-i", r.at("b"), path, "::"+name)
	}
	r.tool("mcopy", "-i", r.at("boot"), "testdata/b-once.env", "::gw0.env")
}

// sound says what mkfs.vfat's companion thinks of a slot, and which program is in
// it.
func (r *rig) sound(slot, word string) {
	r.t.Helper()
	dir := r.t.TempDir()
	part := filepath.Join(dir, "part")
	r.tool("sh", "-c", fmt.Sprintf("dd if=%s of=%s bs=1M skip=%d count=%d status=none && fsck.vfat -n %[2]s", r.card, part,
		map[string]int{"a": gap + bootSize, "b": gap + bootSize + slotSize}[slot], slotSize))
	r.tool("mcopy", "-n", "-i", part, "::gridgate", filepath.Join(dir, "gridgate"))
	text, err := os.ReadFile(filepath.Join(dir, "gridgate"))
	if err != nil {
		r.t.Fatal(err)
	}
	if !strings.HasSuffix(string(text), "\nimagetest: "+word) {
		r.t.Errorf("slot %s has another program than %s", slot, word)
	}
}
