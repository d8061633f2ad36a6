package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gridgate/agent/update"
)

// pile is objects and indexes by their SHA-256, and a source that counts.
type pile struct {
	things map[[32]byte][]byte
	asked  map[string]int // how often, by object and offset
	octets int64
	// fail, when set, may give an error before a part is given, or change it.
	fail func(w update.Want, data []byte) ([]byte, error)
}

func newPile() *pile { return &pile{things: map[[32]byte][]byte{}, asked: map[string]int{}} }

func (p *pile) Fetch(ctx context.Context, wants []update.Want, take func(w update.Want, data []byte)) error {
	for _, w := range wants {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.asked[fmt.Sprintf("%x %d", w.Object[:4], w.Offset)]++
		whole, ok := p.things[w.Object]
		if !ok || int64(len(whole)) != w.Whole {
			return fmt.Errorf("%s: nothing of that name, or of another size", w.Name)
		}
		data := whole[w.Offset:][:w.Size]
		if p.fail != nil {
			var err error
			if data, err = p.fail(w, bytes.Clone(data)); err != nil {
				return err
			}
		}
		p.octets += int64(len(data))
		take(w, data)
	}
	return nil
}

// add packs a file and gives what a manifest says of it.
func (p *pile) add(t testing.TB, name string, content, object []byte, how update.Pack, part int64) update.File {
	t.Helper()
	size, sum, index, err := update.Divide(bytes.NewReader(object), part)
	if err != nil {
		t.Fatal(err)
	}
	f := update.File{
		Name: name, Size: int64(len(content)), SHA256: sha256.Sum256(content), Pack: how,
		Packed: size, Object: sum, Part: part, Index: sha256.Sum256(index),
	}
	p.things[sum], p.things[f.Index] = object, index
	return f
}

// lay writes the pile into a directory, as a web server has it.
func (p *pile) lay(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for sum, data := range p.things {
		if err := os.WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:])), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// debianXZ packs with Debian's xz.
func debianXZ(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "xz", append([]string{"-c", "-T1"}, args...)...)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("xz, of the package xz-utils: %v", err)
	}
	return out
}

// noise is what cannot be packed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = random.Read(b)
	return b
}

// slot is the slot that runs.
type slot map[string][]byte

func (s slot) open(name string) (io.ReadCloser, error) {
	if data, ok := s[name]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	return nil, fs.ErrNotExist
}

func openStore(t testing.TB, dir string) *update.Store {
	t.Helper()
	s, err := update.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t testing.TB, s *update.Store, files []update.File, running slot) *update.Job {
	t.Helper()
	j, err := s.Begin(t.Context(), files, running.open)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// checkStaged fails the test when what is staged is not these contents.
func checkStaged(t testing.TB, staged []update.Staged, contents map[string][]byte) {
	t.Helper()
	if len(staged) != len(contents) {
		t.Errorf("%d files are staged, not %d", len(staged), len(contents))
	}
	for _, f := range staged {
		data, err := os.ReadFile(f.Path)
		if err != nil || !bytes.Equal(data, contents[f.Name]) || f.Size != int64(len(data)) || f.SHA256 != sha256.Sum256(data) {
			t.Errorf("%+v: %d octets, %v", f, len(data), err)
		}
	}
}
