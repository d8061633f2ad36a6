package update_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/update"
)

// release is an update of three files: one that runs already, one packed, one not.
func release(t testing.TB, p *pile) (files []update.File, contents map[string][]byte, running slot) {
	t.Helper()
	program, kernel, boot := testdata(t, "program"), noise(50_000, 1), noise(9_000, 2)
	files = []update.File{
		p.add(t, "gridgate", program, testdata(t, "program.xz"), update.PackXZ, 4096),
		p.add(t, "vmlinuz", kernel, kernel, update.PackNone, 8192),
		p.add(t, "boot.scr", boot, boot, update.PackNone, 4096),
	}
	contents = map[string][]byte{"gridgate": program, "vmlinuz": kernel, "boot.scr": boot}
	return files, contents, slot{"boot.scr": boot, "vmlinuz": noise(50_000, 3), "gridgate": noise(40_000, 4)}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	for name, from := range map[string]func(p *pile) update.Source{
		"pile": func(p *pile) update.Source { return p },
		"dir":  func(p *pile) update.Source { return update.Dir(p.lay(t)) },
	} {
		p := newPile()
		files, contents, running := release(t, p)
		dir := t.TempDir()
		s := openStore(t, dir)
		// What an earlier document left is removed.
		if err := errors.Join(os.WriteFile(filepath.Join(dir, "objects", strings.Repeat("0", 64)), []byte("old"), 0o600),
			os.WriteFile(filepath.Join(dir, "stage", "old"), []byte("old"), 0o600)); err != nil {
			t.Fatal(err)
		}
		j := begin(t, s, files, running)
		if have, need := j.Progress(); have != 0 || need != 12184+50_000 || j.Same() {
			t.Errorf("%s: have %d, need %d, same %v", name, have, need, j.Same())
		}
		took := 0
		if err := j.Fetch(t.Context(), from(p), update.Options{Took: func() { took++ }}); err != nil {
			t.Fatal(err)
		}
		if have, need := j.Progress(); have != need || took != 3+7+2 {
			t.Errorf("%s: have %d, need %d, %d parts and indexes", name, have, need, took)
		}
		staged, err := j.Stage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkStaged(t, staged, contents)
		for d, want := range map[string]int{"objects": 0, "stage": 3} {
			if in, err := os.ReadDir(filepath.Join(dir, d)); err != nil || len(in) != want {
				t.Errorf("%s: %v, %v", d, in, err)
			}
		}
		// After a restart nothing is fetched again.
		p.asked = map[string]int{}
		j = begin(t, openStore(t, dir), files, running)
		have, need := j.Progress()
		if err := j.Fetch(t.Context(), p, update.Options{}); err != nil || have != need || len(p.asked) > 0 {
			t.Errorf("%s: have %d, need %d, asked for %v, %v", name, have, need, p.asked, err)
		}
		if staged, err = j.Stage(t.Context()); err != nil {
			t.Error(err)
		}
		checkStaged(t, staged, contents)
		if err := s.Clear(); err != nil {
			t.Error(err)
		}
		// What runs already is no update.
		if j = begin(t, s, files, contents); !j.Same() {
			t.Error("the same files are an update")
		}
		if have, need := j.Progress(); have != 0 || need != 0 {
			t.Errorf("have %d, need %d", have, need)
		}
	}
}

// TestResume interrupts a fetch at every part: none is fetched twice, but for
// what was damaged.
func TestResume(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, contents, running := release(t, p)
	dir := t.TempDir()
	for n := 0; ; n++ {
		j := begin(t, openStore(t, dir), files, running)
		ctx, cancel := context.WithCancel(t.Context())
		err := j.Fetch(ctx, p, update.Options{Took: cancel})
		if cancel(); err == nil {
			if staged, err := j.Stage(t.Context()); err != nil {
				t.Error(err)
			} else {
				checkStaged(t, staged, contents)
			}
			break
		}
		if !errors.Is(err, context.Canceled) || n > 20 {
			t.Fatalf("%d: %v", n, err)
		}
	}
	if most := slices.Max(slices.Collect(maps.Values(p.asked))); most != 1 || len(p.asked) != 12 {
		t.Errorf("%v", p.asked)
	}
}

// TestDamage turns over octets of what was fetched: before a restart, and under
// the hands of a job.
func TestDamage(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, contents, running := release(t, p)
	dir := t.TempDir()
	j := begin(t, openStore(t, dir), files, running)
	if err := j.Fetch(t.Context(), p, update.Options{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "objects", fmt.Sprintf("%x", files[1].Object))
	turn := func(path string, at int64) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var one [1]byte
		_, err = f.ReadAt(one[:], at)
		one[0] ^= 0x10
		_, err2 := f.WriteAt(one[:], at)
		if err := errors.Join(err, err2, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	turn(path, 20_000)
	p.asked = map[string]int{}
	j = begin(t, openStore(t, dir), files, running)
	if err := j.Fetch(t.Context(), p, update.Options{}); err != nil || len(p.asked) != 1 {
		t.Errorf("%v, %v", p.asked, err)
	}
	turn(path, 40_000)
	if _, err := j.Stage(t.Context()); !errors.Is(err, update.ErrDamaged) {
		t.Fatal(err)
	}
	if have, need := j.Progress(); have != need-8192 {
		t.Errorf("have %d, need %d", have, need)
	}
	p.asked = map[string]int{}
	if err := j.Fetch(t.Context(), p, update.Options{}); err != nil || len(p.asked) != 1 {
		t.Errorf("%v, %v", p.asked, err)
	}
	staged, err := j.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkStaged(t, staged, contents)
	// A damaged file of the stage is not installed.
	turn(filepath.Join(dir, "stage", "gridgate"), 7)
	turn(filepath.Join(dir, "stage", "boot.scr"), 7)
	if _, err := j.Stage(t.Context()); !errors.Is(err, update.ErrDamaged) {
		t.Fatal(err)
	}
	p.asked = map[string]int{}
	if err := j.Fetch(t.Context(), p, update.Options{}); err != nil || len(p.asked) != 4 {
		t.Errorf("%v, %v", p.asked, err)
	}
	if staged, err = j.Stage(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkStaged(t, staged, contents)
}

// TestLongFiles: files that have more than belongs there are no trouble.
func TestLongFiles(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, contents, running := release(t, p)
	dir := t.TempDir()
	s := openStore(t, dir)
	for sum, data := range map[[32]byte][]byte{
		files[0].Index: noise(70_000, 1), files[1].Index: append(bytes.Clone(p.things[files[1].Index]), 0),
		files[0].Object: append(bytes.Clone(p.things[files[0].Object]), "more"...), files[1].Object: noise(60_000, 2),
	} {
		if err := os.WriteFile(filepath.Join(dir, "objects", fmt.Sprintf("%x", sum)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := begin(t, s, files, running)
	if err := j.Fetch(t.Context(), p, update.Options{}); err != nil {
		t.Fatal(err)
	}
	if len(p.asked) != 2+files[1].Parts() { // all parts of the first are there
		t.Errorf("%v", p.asked)
	}
	staged, err := j.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkStaged(t, staged, contents)
}

// TestWrongPart: a part that comes wrong is asked for again, three times.
func TestWrongPart(t *testing.T) {
	t.Parallel()
	for wrong, want := range map[int]error{2: nil, 3: update.ErrBroken} {
		synctest.Test(t, func(t *testing.T) {
			p := newPile()
			files, _, running := release(t, p)
			n := 0
			p.fail = func(w update.Want, data []byte) ([]byte, error) {
				if w.Object == files[0].Object && w.Offset == 4096 && n < wrong {
					n++
					data[17] ^= 1
				}
				return data, nil
			}
			told := 0
			err := begin(t, openStore(t, t.TempDir()), files, running).Fetch(t.Context(), p, update.Options{Tell: func(why error, _ time.Duration) {
				if why != nil {
					told++
				}
			}})
			if !errors.Is(err, want) || (err == nil) != (want == nil) || n != wrong || told != 2 {
				t.Errorf("%d wrong, told %d: %v", n, told, err)
			}
			if want != nil && !strings.Contains(err.Error(), "gridgate: the part with the SHA-256 ") {
				t.Error(err)
			}
		})
	}
}

// TestWrongIndex: the list of parts is compared with what is signed.
func TestWrongIndex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPile()
		files, _, running := release(t, p)
		p.fail = func(w update.Want, data []byte) ([]byte, error) {
			if w.Object == files[1].Index {
				data[3] ^= 1
			}
			return data, nil
		}
		if err := begin(t, openStore(t, t.TempDir()), files, running).Fetch(t.Context(), p, update.Options{}); !errors.Is(err, update.ErrBroken) {
			t.Error(err)
		}
	})
}

// TestWrongManifest: parts that are those of the index and make no object, and an
// object that unpacks to another file.
func TestWrongManifest(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(p *pile, f []update.File){
		"object": func(p *pile, f []update.File) {
			whole := p.things[f[1].Object]
			f[1].Object[0] ^= 1
			f[1].SHA256[0] ^= 1
			p.things[f[1].Object] = whole
		},
		"file": func(_ *pile, f []update.File) { f[0].SHA256[0] ^= 1 },
		"size": func(_ *pile, f []update.File) { f[0].Size++ },
		"pack": func(_ *pile, f []update.File) { f[1].Pack = update.PackXZ },
	} {
		p := newPile()
		files, _, running := release(t, p)
		change(p, files)
		dir := t.TempDir()
		j := begin(t, openStore(t, dir), files, running)
		if err := j.Fetch(t.Context(), p, update.Options{}); err != nil {
			t.Fatal(name, err)
		}
		staged, err := j.Stage(t.Context())
		if !errors.Is(err, update.ErrBroken) || staged != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, f := range files {
			if data, err := os.ReadFile(filepath.Join(dir, "stage", f.Name)); err == nil && bytes.Equal(data, nil) {
				t.Errorf("%s: %s is left half", name, f.Name)
			}
		}
	}
}

// TestBackOff: a source that fails is asked again after 5 s to an hour, and at
// once at its best when it works again.
func TestBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPile()
		files, contents, running := release(t, p)
		until := time.Now().Add(72 * time.Hour)
		p.fail = func(_ update.Want, data []byte) ([]byte, error) {
			if time.Now().Before(until) {
				return nil, errors.New("out of order")
			}
			return data, nil
		}
		var pauses []time.Duration
		again := 0
		j := begin(t, openStore(t, t.TempDir()), files, running)
		err := j.Fetch(t.Context(), p, update.Options{Tell: func(why error, pause time.Duration) {
			if why == nil {
				again++
				return
			}
			if !strings.Contains(why.Error(), "out of order") {
				t.Error(why)
			}
			pauses = append(pauses, pause)
		}})
		if err != nil || again != 1 {
			t.Errorf("%d, %v", again, err)
		}
		if n := len(pauses); n < 72 || n > 170 || slices.Min(pauses) < 5*time.Second || pauses[0] > 10*time.Second || slices.Max(pauses) > time.Hour || pauses[20] < 30*time.Minute {
			t.Errorf("%v", pauses)
		}
		if time.Since(until) > time.Hour {
			t.Errorf("%v late", time.Since(until))
		}
		staged, err := j.Stage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkStaged(t, staged, contents)
	})
}
