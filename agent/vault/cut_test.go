package vault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gridgate/internal/cuttest"
	"gridgate/internal/secret"
)

// Set in the environment, these make the test binary a process that sets secrets
// in a directory and says so; killAt ends it at a step.
const (
	vaultDir = "VAULT_TEST_DIR"
	killAt   = "VAULT_TEST_KILL_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(vaultDir); dir != "" {
		if err := setAll(dir, os.Getenv(killAt)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const rounds = 10

// textOf is long enough that a torn file shows.
func textOf(name string, n int) string {
	return strings.Repeat(fmt.Sprintf("%s %d\n", name, n), 100) + "."
}

// setAll makes a key, and sets a and b together, round after round.
func setAll(dir, step string) error {
	v := Open(dir, nil)
	done := 0
	v.at = func(at string) {
		if at == step && done > 0 || at == step && at == "identity" {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it is delivered
		}
	}
	recipient, err := v.Ensure()
	if err != nil {
		return err
	}
	fmt.Println("key", recipient)
	for n := 1; n <= rounds; n++ {
		sealed := map[string][]byte{}
		for _, name := range []string{"a", "b"} {
			if sealed[name], err = Seal(secret.Of(textOf(name, n)), recipient); err != nil {
				return err
			}
		}
		fmt.Println("begin", n)
		if err := v.Take(sealed); err != nil {
			return err
		}
		fmt.Println("done", n)
		done = n
	}
	return nil
}

// judge says what is wrong with a vault after a cut, of which lines were said
// before it. Both secrets are of a round, whole, and none older than what was done.
func judge(dir string, lines []string) error {
	var key string
	var begun, done int
	for _, l := range lines {
		_, _ = fmt.Sscanf(l, "key %s", &key)
		_, _ = fmt.Sscanf(l, "begin %d", &begun)
		_, _ = fmt.Sscanf(l, "done %d", &done)
	}
	v := Open(dir, nil)
	got, err := v.Recipient()
	if key != "" && (err != nil || got != key) {
		return fmt.Errorf("the key was %s and is %q, %w", key, got, err)
	}
	for _, name := range []string{"a", "b"} {
		value, err := v.Get(name)
		if done == 0 && (errors.Is(err, ErrUnknown) || errors.Is(err, ErrNoIdentity)) {
			continue
		}
		if err != nil {
			return err
		}
		var n int
		_, _ = fmt.Sscanf(string(value.Reveal()), name+" %d", &n)
		if n < done || n > begun || string(value.Reveal()) != textOf(name, n) {
			return fmt.Errorf("%s is of round %d (%d octets); %d was done, %d begun", name, n, value.Len(), done, begun)
		}
	}
	// It goes on.
	if _, err := v.Ensure(); err != nil {
		return err
	}
	if err := errors.Join(v.Sweep(), v.Set("a", secret.Of("next"))); err != nil {
		return err
	}
	if value, err := v.Get("a"); err != nil || string(value.Reveal()) != "next" {
		return fmt.Errorf("it does not go on: %w", err)
	}
	if torn, err := filepath.Glob(filepath.Join(dir, freshPrefix+"*")); err != nil || len(torn) > 0 {
		return fmt.Errorf("left behind: %q, %w", torn, err)
	}
	return nil
}

func cut(t *testing.T, n int, noSync bool) (bad int) {
	t.Helper()
	disk := cuttest.Mount(t)
	out, err := os.Create(disk.Path("said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), vaultDir+"="+disk.Dir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		t.Fatalf("child: %v\n%s", err, stderr.String())
	}
	log, root := disk.Log(), t.TempDir()
	for i := range n {
		dir := filepath.Join(root, fmt.Sprint(i))
		at, seed := rand.IntN(log.Len()+1), rand.Uint64()
		if err := errors.Join(os.Mkdir(dir, 0o700), log.Cut(at, rand.New(rand.NewPCG(seed, 0)), noSync, dir)); err != nil {
			t.Fatal(err)
		}
		if err := judge(dir, log.Lines("said", at)); err != nil {
			if bad++; !noSync {
				t.Errorf("event %d of %d, seed %d: %v", at, log.Len(), seed, err)
			}
		}
	}
	return bad
}

// TestPowerCut: after a cut at any moment each secret is whole, and no older than
// what was said to be set.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cut(t, 200, false)
}

// TestPowerCutControl shows that the judge sees what is lost: the disk takes no
// notice of syncs.
func TestPowerCutControl(t *testing.T) {
	t.Parallel()
	bad := cut(t, 100, true)
	if t.Logf("%d of 100 states broke a promise", bad); bad < 10 {
		t.Errorf("without syncs only %d of 100 states broke a promise", bad)
	}
}

// TestKilledAtEveryStep of setting secrets.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for step, round := range map[string]int{"identity": 0, "staged": 1, "moved": 1, "synced": 1, "": rounds} {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), vaultDir+"="+dir, killAt+"="+step)
		out, err := cmd.Output()
		if (err == nil) != (step == "") {
			t.Errorf("%q: %v", step, err)
		}
		lines := slices.Collect(strings.Lines(string(out)))
		if want := fmt.Sprintf("done %d\n", round); round > 0 && !slices.Contains(lines, want) || slices.Contains(lines, fmt.Sprintf("done %d\n", round+1)) {
			t.Errorf("%q: killed elsewhere: %q", step, lines)
		}
		if err := judge(dir, lines); err != nil {
			t.Errorf("%q: %v", step, err)
		}
	}
}
