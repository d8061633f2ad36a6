package trial_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gridgate/agent/trial"
	"gridgate/internal/cuttest"
)

// shelfDir, when set in the environment, makes the test binary a process that
// keeps one document after another there, and says so.
const shelfDir = "TRIAL_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(shelfDir); dir != "" {
		if err := keepAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const documents = 12

func document(n int) []byte { return []byte(strings.Repeat(fmt.Sprintf("document %d\n", n), 200)) }

// keepAll keeps every document but each third, which is tried and given up.
func keepAll(dir string) error {
	s := trial.OpenShelf(dir)
	for n := 1; n <= documents; n++ {
		err := s.Put("s/g", uint64(n), document(n))
		if err == nil {
			fmt.Println("put", n)
			_, _, err = s.Begin(trial.Health{Meters: n})
		}
		if err == nil && n%3 > 0 {
			if err = s.Keep(); err == nil {
				fmt.Println("kept", n)
			}
		}
		if err = errors.Join(err, s.SetLast(fmt.Appendf(nil, "last %d", n)), s.End(trial.Outcome{})); err != nil {
			return err
		}
		fmt.Println("end", n)
	}
	return nil
}

// judgeShelf says what is wrong with a shelf after a cut, of which lines were
// said before it.
func judgeShelf(dir string, lines []string) error {
	var put, kept, end int
	for _, l := range lines {
		for word, into := range map[string]*int{"put": &put, "kept": &kept, "end": &end} {
			_, _ = fmt.Sscanf(l, word+" %d", into)
		}
	}
	s := trial.OpenShelf(dir)
	all, err := s.Kept()
	if err != nil {
		return err
	}
	var has uint64
	for _, e := range all {
		if has = e.Version; string(e.Data) != string(document(int(e.Version))) { //nolint:gosec // a small number
			return fmt.Errorf("document %d is not whole", e.Version)
		}
	}
	if has < uint64(kept) || has > uint64(put)+1 { //nolint:gosec // small numbers
		return fmt.Errorf("in effect is %d; kept was %d, put %d", has, kept, put)
	}
	on, _, ok, err := s.OnTrial()
	switch {
	case err != nil:
		return err
	case put > end && !ok && has != uint64(put) && put%3 > 0: //nolint:gosec // small numbers
		return fmt.Errorf("document %d was put on trial and is lost", put)
	case ok && on.Version <= uint64(end): //nolint:gosec // small numbers
		return fmt.Errorf("document %d is on trial again, %d had ended", on.Version, end)
	}
	var last int
	if _, _ = fmt.Sscanf(string(s.Last()), "last %d", &last); last < end {
		return fmt.Errorf("what came of %d is %q", end, s.Last())
	}
	// It goes on.
	next := uint64(put + 2) //nolint:gosec // a small number
	if err := errors.Join(s.Put("s/g", next, []byte("next")), s.Keep(), s.End(trial.Outcome{})); err != nil {
		return err
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".new-*")); err != nil || len(left) > 0 {
		return fmt.Errorf("left behind: %q, %w", left, err)
	}
	return nil
}

func cutShelf(t *testing.T, n int, noSync bool) (bad int) {
	t.Helper()
	disk := cuttest.Mount(t)
	out, err := os.Create(disk.Path("said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), shelfDir+"="+disk.Dir())
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
		if err := judgeShelf(dir, log.Lines("said", at)); err != nil {
			if bad++; !noSync {
				t.Errorf("event %d of %d, seed %d: %v", at, log.Len(), seed, err)
			}
		}
	}
	return bad
}

// TestPowerCut: what is in effect is one document, whole, and none that was put
// on trial is lost.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cutShelf(t, 200, false)
}

// TestPowerCutControl shows that the judge sees what is lost: the disk takes no
// notice of syncs.
func TestPowerCutControl(t *testing.T) {
	t.Parallel()
	bad := cutShelf(t, 100, true)
	if t.Logf("%d of 100 states broke a promise", bad); bad < 10 {
		t.Errorf("without syncs only %d of 100 states broke a promise", bad)
	}
}
