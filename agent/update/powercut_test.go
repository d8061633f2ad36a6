package update

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gridgate/internal/cuttest"
)

// updateDir, when set in the environment, makes the test binary a process that
// does an update there, and says what it has done.
const updateDir = "UPDATE_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(updateDir); dir != "" {
		// The program that is being updated has no test to tell.
		if _, err := updateIn(context.Background(), filepath.Join(dir, "firmware"), false, &cutSource{}, func(what string) { fmt.Println(what) }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// cutSource has the files of cutFiles, and counts what it gives.
type cutSource struct{ octets int64 }

func (c *cutSource) Fetch(_ context.Context, wants []Want, take func(w Want, data []byte)) error {
	files, objects := cutFiles()
	for _, w := range wants {
		for i, f := range files {
			_, _, index, err := Divide(bytes.NewReader(objects[i]), f.Part)
			if err != nil {
				return err
			}
			switch w.Object {
			case f.Index:
				take(w, index)
			case f.Object:
				c.octets += w.Size
				take(w, objects[i][w.Offset:][:w.Size])
			}
		}
	}
	return nil
}

// cutFiles gives a packed file and one that is not, from testdata and made up.
func cutFiles() (files []File, objects [][]byte) {
	program, err := os.ReadFile("testdata/program")
	packed, err2 := os.ReadFile("testdata/program.xz")
	if err := errors.Join(err, err2); err != nil {
		panic(err) // of a test
	}
	kernel := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(kernel)
	for i, content := range [][]byte{program, kernel} {
		f := File{Name: []string{"gridgate", "vmlinuz"}[i], Size: int64(len(content)), SHA256: sha256.Sum256(content), Pack: PackXZ, Part: 4096}
		object := packed
		if i > 0 {
			f.Pack, f.Part, object = PackNone, 16384, content
		}
		var index []byte
		f.Packed, f.Object, index, _ = Divide(bytes.NewReader(object), f.Part)
		f.Index = sha256.Sum256(index)
		files, objects = append(files, f), append(objects, object)
	}
	return files, objects
}

// updateIn does an update in a directory: as far as staging.
func updateIn(ctx context.Context, dir string, trusting bool, from Source, say func(string)) ([]Staged, error) {
	s, err := OpenStore(dir)
	if err != nil {
		return nil, err
	}
	s.trusting = trusting
	files, _ := cutFiles()
	j, err := s.Begin(ctx, files, func(string) (io.ReadCloser, error) { return nil, fs.ErrNotExist })
	if err != nil {
		return nil, err
	}
	have, _ := j.Progress()
	say(fmt.Sprintf("begun %d", have))
	for range 3 {
		if err := j.Fetch(ctx, from, Options{}); err != nil {
			return nil, err
		}
		say("fetched")
		staged, err := j.Stage(ctx)
		if !errors.Is(err, ErrDamaged) {
			say("staged")
			return staged, err
		}
	}
	return nil, ErrDamaged
}

// judgeUpdate says what is wrong with an update after a cut, of which lines were
// said before it.
func judgeUpdate(t *testing.T, dir string, trusting bool, lines []string) error {
	from := &cutSource{}
	staged, err := updateIn(t.Context(), filepath.Join(dir, "firmware"), trusting, from, func(string) {})
	if err != nil {
		return err
	}
	files, _ := cutFiles()
	if len(staged) != len(files) {
		return fmt.Errorf("%d files", len(staged))
	}
	for i, f := range staged {
		data, err := os.ReadFile(f.Path)
		if err != nil {
			return err
		}
		if f.Name != files[i].Name || sha256.Sum256(data) != files[i].SHA256 {
			return fmt.Errorf("%s is not what is wanted", f.Name)
		}
	}
	// What was said to be there is not fetched again.
	for _, l := range lines {
		if (l == "fetched" || l == "staged") && from.octets > 0 {
			return fmt.Errorf("%s, and %d octets again", l, from.octets)
		}
	}
	return nil
}

// cutUpdate judges at most n states, until enough of them broke a promise; 0: all.
func cutUpdate(t *testing.T, n, enough int, noSync, trusting bool) (bad, states int) {
	t.Helper()
	disk := cuttest.Mount(t)
	out, err := os.Create(disk.Path("said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), updateDir+"="+disk.Dir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		t.Fatalf("child: %v\n%s", err, stderr.String())
	}
	log, root := disk.Log(), inMemory(t)
	for i := range n {
		dir := filepath.Join(root, fmt.Sprint(i))
		at, seed := rand.IntN(log.Len()+1), rand.Uint64()
		if err := errors.Join(os.Mkdir(dir, 0o700), log.Cut(at, rand.New(rand.NewPCG(seed, 0)), noSync, dir)); err != nil {
			t.Fatal(err)
		}
		if err := judgeUpdate(t, dir, trusting, log.Lines("said", at)); err != nil {
			if bad++; !noSync && !trusting {
				t.Errorf("event %d of %d, seed %d: %v", at, log.Len(), seed, err)
			}
		}
		_ = os.RemoveAll(dir)
		if states++; bad == enough && enough > 0 {
			break
		}
	}
	return bad, states
}

// inMemory gives a directory where syncs take no time: what is laid there is what
// a disk has after a cut, and is not cut again.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cut-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestPowerCut: whatever is cut while firmware is fetched and unpacked, what is
// staged in the end is what is wanted, and what was there is not fetched again.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cutUpdate(t, 60, 0, false, false)
}

// TestPowerCutControls show that the judge sees it: on a disk that takes no
// notice of syncs, and with a store that takes what has the right size.
func TestPowerCutControls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ noSync, trusting bool }{"no syncs": {true, false}, "sizes": {false, true}} {
		bad, states := cutUpdate(t, 400, 4, c.noSync, c.trusting)
		if t.Logf("%s: %d of %d states broke a promise", name, bad, states); bad < 4 {
			t.Errorf("%s: only %d of %d states broke a promise", name, bad, states)
		}
	}
}
