package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// updater updates a gateway again and again, and cuts its power off on the way.
type updater struct {
	*rig
	rand       *rand.Rand
	generation int
	took       map[string]time.Duration // steps, when nothing cut them
}

// filler gives a file that only its generation has, so that a slot with files of
// two is known.
func filler(generation int) []byte {
	seed := [32]byte{}
	binary.LittleEndian.PutUint64(seed[:], uint64(generation)) //nolint:gosec // counts from 0
	b := make([]byte, 2*mib)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// stage brings the next generation to the gateway.
func (u *updater) stage() []file {
	u.t.Helper()
	u.generation++
	files := u.staged(u.faulty(fmt.Sprint("generation ", u.generation)))
	more := filler(u.generation)
	if err := u.put("/data/gridgate/staged/filler", more); err != nil {
		u.t.Fatal(err)
	}
	return append(files, fileOf("filler", "/data/gridgate/staged/filler", more))
}

// step does one thing, and with cut pulls the plug while it is done. It says
// whether the gateway is dead.
func (u *updater) step(name string, cut bool, do func() error) bool {
	u.t.Helper()
	if !cut {
		began := time.Now()
		if err := do(); err != nil {
			u.t.Fatalf("%s: %v", name, err)
		}
		u.took[name] = time.Since(began)
		return false
	}
	at := time.Duration(u.rand.Float64() * 1.1 * float64(u.took[name]))
	done := make(chan error, 1)
	go func() { done <- do() }()
	timer := time.NewTimer(at)
	defer timer.Stop()
	select {
	case err := <-done:
		u.t.Logf("cut after %s (%v)", name, err)
	case <-timer.C:
		u.t.Logf("cut %s into %s", at.Round(time.Millisecond), name)
	}
	u.q.Kill()
	return true
}

// steps of an update.
var updateSteps = []string{"install", "switch", "restart", "confirm"}

// round does one update; cut says in which step the power goes, if in any.
func (u *updater) round(now self, cut string) {
	u.t.Helper()
	request := func(text string) func() error {
		return func() error {
			a, err := u.tryAsk(text)
			if err == nil && !a.OK {
				err = errors.New(a.Error)
			}
			return err
		}
	}
	want := install(u.stage()...)
	for _, s := range updateSteps {
		do := request(`{"do":"` + s + `"}`)
		switch s {
		case "install":
			do = request(want)
		case "restart": // with the start that follows
			do = func() error {
				if err := request(`{"do":"restart"}`)(); err != nil {
					return err
				}
				return u.another(now.Boot)
			}
		}
		if u.step(s, s == cut, do) {
			return
		}
	}
}

// another waits for another start than the one named, or the end of QEMU.
func (u *updater) another(boot string) error {
	for !u.q.Ended() {
		if text, err := u.do(5*time.Second, "GET", "/self", nil); err == nil && !strings.Contains(string(text), boot) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return errors.New("QEMU has ended")
}

// mixed says what is wrong with the slots of a card: one that would be started has
// to hold the files of one generation, whole.
func mixed(t *testing.T, card string) error {
	t.Helper()
	env, err := envOf(t, card)
	if err != nil {
		return err
	}
	var errs []error
	for _, slot := range []string{"a", "b"} {
		if env["gw_"+slot] == "0" {
			continue
		}
		if err := wholeSlot(t, card, slot); err != nil {
			errs = append(errs, fmt.Errorf("slot %s, which may be started (%v): %w", slot, env, err))
		}
	}
	return errors.Join(errs...)
}

func wholeSlot(t *testing.T, card, slot string) error {
	t.Helper()
	dir := t.TempDir()
	if err := run("mcopy", "-n", "-s", "-i", partitionOf(card, slot), "::*", dir); err != nil {
		return err
	}
	read := func(name string) []byte {
		b, _ := os.ReadFile(filepath.Join(dir, name)) // one that is missing compares with nothing
		return b
	}
	agent := read("gridgate")
	if len(agent) == 0 {
		return errors.New("it has no gridgate")
	}
	generation, want := 0, []string{"gridgate", "initrd.zst", "vmlinuz"}
	if i := bytes.LastIndex(agent, []byte("\nimagetest: ")); i >= len(agent)-64 {
		if _, err := fmt.Sscanf(string(agent[i+12:]), "generation %d", &generation); err != nil {
			return fmt.Errorf("gridgate ends in %q", agent[i:])
		}
		want = append(want, "filler")
		if !bytes.Equal(read("filler"), filler(generation)) {
			return fmt.Errorf("gridgate is of generation %d, and the filler is not", generation)
		}
	}
	for name, sum := range firstFiles(t, card) {
		got := read(name)
		if name == "gridgate" && generation > 0 {
			got = agent[:bytes.LastIndex(agent, []byte("\nimagetest: "))]
		}
		if sha256.Sum256(got) != sum {
			return fmt.Errorf("%s of generation %d is not as it was made", name, generation)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) {
			return fmt.Errorf("it has %s, which nobody put there", e.Name())
		}
	}
	return nil
}

// firstFiles gives the hashes of what the factory's slot has: the kernel is the
// same in every generation.
func firstFiles(t *testing.T, card string) map[string][32]byte {
	t.Helper()
	dir := t.TempDir()
	sums := map[string][32]byte{}
	for _, name := range []string{"gridgate", "vmlinuz", "initrd.zst"} {
		path := filepath.Join(dir, name)
		if err := run("mcopy", "-n", "-i", partitionOf(card, "boot"), "::factory/"+name, path); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sums[name] = sha256.Sum256(b)
	}
	return sums
}

// envOf reads gw0.env and gw1.env as U-Boot does.
func envOf(t *testing.T, card string) (map[string]string, error) {
	t.Helper()
	newest := map[string]string{"gw_a": "6", "gw_b": "0"}
	var errs []error
	for i := range 2 {
		path := filepath.Join(t.TempDir(), "env")
		if err := run("mcopy", "-n", "-i", partitionOf(card, "boot"), fmt.Sprintf("::gw%d.env", i), path); err != nil {
			continue // a card that was never started has none
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if len(b) != 512 || binary.LittleEndian.Uint32(b) != crc32.ChecksumIEEE(b[4:]) {
			errs = append(errs, fmt.Errorf("gw%d.env has a wrong checksum", i))
			continue
		}
		env := map[string]string{}
		for pair := range bytes.SplitSeq(b[4:], []byte{0}) {
			name, value, _ := strings.Cut(string(pair), "=")
			env[name] = value
		}
		order := newest["gw_seq"] + env["gw_seq"]
		if newest["gw_seq"] == "" || order == "01" || order == "12" || order == "20" {
			newest = env
		}
	}
	if len(errs) == 2 {
		return nil, errors.Join(errs...)
	}
	return newest, nil
}

// newUpdater makes a card whose slots are of generation 0, with a first process of
// its own where one is given.
func newUpdater(t *testing.T, init string) *updater {
	t.Helper()
	u := &updater{rig: newRig(t, armv7()), took: map[string]time.Duration{}}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	u.rand = rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // of a test
	if init == "" {
		return u
	}
	u.withInit("a", init)
	dir := t.TempDir()
	u.tool("mcopy", "-n", "-i", u.at("a"), "::initrd.zst", filepath.Join(dir, "initrd.zst"))
	u.tool("mcopy", "-o", "-i", u.at("boot"), filepath.Join(dir, "initrd.zst"), "::factory/initrd.zst")
	return u
}

// cuts cuts the power off a few times: the gateway always starts, and what may be
// started is always of one piece.
func (u *updater) cuts(times int) {
	u.t.Helper()
	u.round(u.boot(), "") // how long the steps take
	u.q.Kill()
	for i := range times {
		now := u.boot()
		if a := u.ask(`{"do":"state"}`); a.Trial != "" && a.Trial == a.Running {
			u.must(`{"do":"confirm"}`)
		} else if a.Trial != "" {
			u.must(`{"do":"back"}`)
		}
		if now.Slot == "f" {
			u.t.Fatalf("cut %d: both slots were given up", i)
		}
		u.round(now, updateSteps[u.rand.IntN(len(updateSteps))])
		if err := mixed(u.t, u.card); err != nil {
			u.t.Fatalf("cut %d: %v", i+1, err)
		}
	}
	u.boot()
}

// TestPowerCuts kills QEMU at random moments. What the gateway has given to the
// card then is on it, in order, and what its kernel still had in memory is lost; a
// card that loses or reorders what it was given is TestSoakCardsThatForget's.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	newUpdater(t, "").cuts(3)
}

// TestPowerCutsAreSeen: a first process that lets a slot be tried before it is
// written is found out.
func TestPowerCutsAreSeen(t *testing.T) {
	t.Parallel()
	u := newUpdater(t, faultyInit(t, armv7(), "early"))
	u.boot()
	request := install(u.stage()...)
	go func() { _, _ = u.tryAsk(request) }() // the power goes before it is answered
	within(t, 5*time.Minute, "the slot is half written", func() bool { return strings.Contains(u.q.Output(), "is half written") })
	u.q.Kill()
	if err := mixed(t, u.card); err == nil || !strings.Contains(err.Error(), "gridgate is of generation 1, and the filler is not") {
		t.Errorf("a slot that is half written: %v", err)
	}
}
