package update_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gridgate/agent/update"
	"gridgate/internal/cuttest"
	"gridgate/internal/sys"
)

// Set in the environment, these make TestLinkCutChild a process that updates from
// one program to the next and says so; linkCutWrong has it switch to a slot before
// that is whole.
const (
	linkCutDir   = "UPDATE_TEST_LINK_DIR"
	linkCutWrong = "UPDATE_TEST_LINK_WRONG"
)

const linkRounds = 9

// linkProgram is long enough that a torn file shows.
func linkProgram(n int) string { return strings.Repeat(fmt.Sprintf("program %d\n", n), 800) }

// TestLinkCutChild is no test, but the process under test.
func TestLinkCutChild(t *testing.T) {
	dir := os.Getenv(linkCutDir)
	if dir == "" {
		return
	}
	out, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		t.Fatal(err)
	}
	if err := linkUpdates(t, filepath.Join(dir, "firmware", "slots"), out, os.Getenv(linkCutWrong) != ""); err != nil {
		t.Fatal(err)
	}
}

// linkUpdates installs one program after another; each third is given up.
func linkUpdates(t *testing.T, dir string, out io.Writer, wrong bool) error {
	running := "f"
	if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	for n := 1; n <= linkRounds; n++ {
		fmt.Fprintf(out, "begin %d\n", n)
		slots := update.NewLinkSlots(dir, running, func() {})
		err := error(nil)
		if wrong {
			err = linkWrong(dir, map[string]string{"a": "b", "b": "a", "f": "a"}[running], n)
		} else if err = slots.Install(t.Context(), []update.Staged{linkStaged(t, "gridgate", linkProgram(n))}); err == nil {
			err = slots.Switch()
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "switched %d\n", n)
		was := running
		slot, _, _ := launchIn(t.Context(), dir, io.Discard, nil)
		if slot == was || slot == "f" {
			return fmt.Errorf("%s starts after %s", slot, was)
		}
		running = slot
		slots = update.NewLinkSlots(dir, running, func() {})
		if n%3 == 0 {
			fmt.Fprintf(out, "leave %d\n", n)
			if err := slots.Back(); err != nil {
				return err
			}
			fmt.Fprintf(out, "left %d\n", n)
			running = was
			continue
		}
		if err := slots.Confirm(); err != nil {
			return err
		}
		fmt.Fprintf(out, "confirmed %d\n", n)
	}
	return nil
}

// linkWrong does what Install and Switch do, each step durably, in the wrong order: the
// link leads to a slot that is not whole yet.
func linkWrong(dir, slot string, n int) error {
	write := func(name, content string) error {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		_, err = f.WriteString(content)
		return errors.Join(err, f.Sync(), f.Close(), sys.SyncDir(filepath.Dir(f.Name())))
	}
	for _, d := range []string{dir, filepath.Join(dir, slot)} {
		if err := sys.MakeDir(d, 0o700); err != nil {
			return err
		}
	}
	return errors.Join(
		write("tries", "3\n"), os.Symlink(slot, filepath.Join(dir, "trial")), sys.SyncDir(dir),
		write(slot+"/gridgate", linkProgram(n)),
		write(slot+"/slot.json", fmt.Sprintf(`{"files":[{"name":"gridgate","size":%d,"sha256":"%x"}]}`, len(linkProgram(n)), sha256.Sum256([]byte(linkProgram(n))))),
	)
}

// judgeLink says what is wrong with slots after a cut, of which lines were said before
// it. What starts is whole; it is the program that was said to, or one of the two
// between which a change was under way; and what a link leads to can start.
func judgeLink(t *testing.T, root string, lines []string) error {
	var begun, switched, leave, left, confirmed int
	for _, l := range lines {
		for word, into := range map[string]*int{"begin": &begun, "switched": &switched, "leave": &leave, "left": &left, "confirmed": &confirmed} {
			_, _ = fmt.Sscanf(l, word+" %d", into)
		}
	}
	may := []int{confirmed}
	switch {
	case begun == confirmed || begun == left:
	case switched == begun && leave != begun:
		may = []int{begun}
	default:
		may = append(may, begun)
	}
	dir := filepath.Join(root, "firmware", "slots")
	state, err := update.NewLinkSlots(dir, "", func() {}).State()
	if err != nil {
		return err
	}
	slot, program, _ := launchIn(t.Context(), dir, io.Discard, nil)
	if slot != state.First {
		return fmt.Errorf("the next start should take %s and takes %s", state.First, slot)
	}
	n := 0
	if slot != "f" {
		_, _ = fmt.Sscanf(program, "program %d", &n)
		if program != linkProgram(n) {
			return fmt.Errorf("%s is not whole: %d octets of program %d", slot, len(program), n)
		}
	}
	if !slices.Contains(may, n) {
		return fmt.Errorf("program %d starts, of %v", n, may)
	}
	// It goes on.
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	slots := update.NewLinkSlots(dir, slot, func() {})
	if state.OnTrial == slot {
		if err := slots.Confirm(); err != nil {
			return err
		}
	}
	if err := slots.Install(t.Context(), []update.Staged{linkStaged(t, "gridgate", linkProgram(99))}); err != nil {
		return err
	}
	if err := slots.Switch(); err != nil {
		return err
	}
	if slot, program, _ = launchIn(t.Context(), dir, io.Discard, nil); program != linkProgram(99) {
		return fmt.Errorf("it does not go on: %s starts", slot)
	}
	return nil
}

func linkCuts(t *testing.T, n int, noSync bool, env ...string) (bad int) {
	t.Helper()
	disk := cuttest.Mount(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLinkCutChild$", "-test.v")
	cmd.Env = append(append(os.Environ(), linkCutDir+"="+disk.Dir()), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestLinkCutChild") {
		t.Fatalf("child: %v\n%s", err, out)
	}
	log, root := disk.Log(), t.TempDir()
	if lines := log.Lines("said", log.Len()); len(lines) != linkRounds*3+linkRounds/3 {
		t.Fatalf("the child said %q", lines)
	}
	for i := range n {
		dir := filepath.Join(root, fmt.Sprint(i))
		at, seed := rand.IntN(log.Len()+1), rand.Uint64()
		if err := errors.Join(os.Mkdir(dir, 0o700), log.Cut(at, rand.New(rand.NewPCG(seed, 0)), noSync, dir)); err != nil {
			t.Fatal(err)
		}
		if err := judgeLink(t, dir, log.Lines("said", at)); err != nil {
			if bad++; !noSync && len(env) == 0 {
				t.Errorf("event %d of %d, seed %d: %v", at, log.Len(), seed, err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	return bad
}

// TestLinkPowerCut: after a cut at any moment what starts is whole, and the one that
// was said.
func TestLinkPowerCut(t *testing.T) {
	t.Parallel()
	linkCuts(t, 300, false)
}

// TestLinkPowerCutControl shows that the judge sees what is wrong: on a disk that
// takes no notice of syncs, and where links lead to slots that are not whole yet.
func TestLinkPowerCutControl(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		noSync bool
		env    []string
	}{"no syncs": {true, nil}, "wrong order": {false, []string{linkCutWrong + "=1"}}} {
		bad := linkCuts(t, 100, c.noSync, c.env...)
		if t.Logf("%s: %d of 100 states broke a promise", name, bad); bad < 10 {
			t.Errorf("%s: only %d of 100 states broke a promise", name, bad)
		}
	}
}
