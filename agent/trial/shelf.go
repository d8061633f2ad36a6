package trial

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gridgate/internal/sortby"
	"gridgate/internal/sys"
)

// Shelf keeps documents in a directory: those that are in effect, and the one
// that is on trial with how often it was tried. It is a Journal for the latter.
//
//	kept.json         what is in effect: {"documents":[{"target":…,"version":…,"sha256":…,"file":…}]}
//	trial.json        what is on trial, with its attempts and the health before
//	last.json         what came of the trial before, for the one whose shelf it is
//	HASH.doc          a document, as it came, signatures and all
//
// Each file is written beside its place, made durable, and moved there.
type Shelf struct{ dir string }

// Entry is a document on the shelf.
type Entry struct {
	Target  string `json:"target"`
	Version uint64 `json:"version"`
	Sum     string `json:"sha256"` // of the document as it came, in hexadecimal digits
	Data    []byte `json:"-"`
}

// candidate is what is on trial.
type candidate struct {
	Entry
	Attempts int    `json:"attempts"`
	Before   Health `json:"before"`
}

type keptFile struct {
	Documents []Entry `json:"documents"`
}

// OpenShelf gives the shelf in a directory, which need not be there.
func OpenShelf(dir string) *Shelf { return &Shelf{dir} }

const docMost = 1 << 20 // octets of a file here

// ErrDamaged says that a file on the shelf is not what was put there.
var ErrDamaged = errors.New("damaged")

// Kept gives what is in effect, in the order of targets.
func (s *Shelf) Kept() ([]Entry, error) {
	var k keptFile
	if err := s.read("kept.json", &k); err != nil {
		return nil, err
	}
	for i := range k.Documents {
		if err := s.load(&k.Documents[i]); err != nil {
			return nil, err
		}
	}
	return k.Documents, nil
}

// OnTrial gives what is on trial; ok is false when nothing is.
func (s *Shelf) OnTrial() (e Entry, attempts int, ok bool, err error) {
	var c candidate
	if err := s.read("trial.json", &c); err != nil {
		return e, 0, false, err
	}
	if c.Sum == "" {
		return e, 0, false, nil
	}
	if err := s.load(&c.Entry); err != nil {
		return e, 0, false, err
	}
	return c.Entry, c.Attempts, true, nil
}

// read reads a JSON file; one that is not there leaves into as it is.
func (s *Shelf) read(name string, into any) error {
	data, err := s.file(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w: %w", filepath.Join(s.dir, name), ErrDamaged, err)
	}
	return nil
}

func (s *Shelf) file(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, docMost+1))
	return data, errors.Join(err, f.Close())
}

// load reads the document of an entry.
func (s *Shelf) load(e *Entry) error {
	if strings.Trim(e.Sum, "0123456789abcdef") != "" || len(e.Sum) != 2*sha256.Size {
		return fmt.Errorf("%s: %w: %q is no SHA-256", s.dir, ErrDamaged, e.Sum)
	}
	data, err := s.file(e.Sum + ".doc")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if sum(data) != e.Sum {
		return fmt.Errorf("%s: %w: its SHA-256 is another", filepath.Join(s.dir, e.Sum+".doc"), ErrDamaged)
	}
	e.Data = data
	return nil
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// Put puts a document on trial; it is durable on return. The same document
// again keeps the count of its attempts.
func (s *Shelf) Put(target string, version uint64, data []byte) error {
	if old, _, ok, err := s.OnTrial(); ok && err == nil && bytes.Equal(old.Data, data) {
		return nil
	}
	if err := sys.MakeDir(s.dir, 0o750); err != nil {
		return err
	}
	e := Entry{Target: target, Version: version, Sum: sum(data)}
	if err := s.write(e.Sum+".doc", data); err != nil {
		return err
	}
	return s.writeJSON("trial.json", candidate{Entry: e})
}

// Begin counts an attempt of what is on trial.
func (s *Shelf) Begin(before Health) (attempt int, first Health, err error) {
	var c candidate
	if err := s.read("trial.json", &c); err != nil {
		return 0, before, err
	}
	if c.Sum == "" {
		return 0, before, errors.New("nothing is on trial")
	}
	if c.Attempts++; c.Attempts == 1 {
		c.Before = before
	}
	return c.Attempts, c.Before, s.writeJSON("trial.json", c)
}

// Keep puts what is on trial into effect, in the place of what was for the same
// target. It is one move of a file: after a cut it is so or is not.
func (s *Shelf) Keep() error {
	e, _, ok, err := s.OnTrial()
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("nothing is on trial")
	}
	var k keptFile
	if err := s.read("kept.json", &k); err != nil {
		return err
	}
	k.Documents = slices.DeleteFunc(k.Documents, func(o Entry) bool { return o.Target == e.Target })
	k.Documents = append(k.Documents, e)
	sortby.Stable(k.Documents, func(a, b Entry) int { return strings.Compare(a.Target, b.Target) })
	return s.writeJSON("kept.json", k)
}

// SetLast keeps what came of a trial; Last gives it, nil where there is none.
func (s *Shelf) SetLast(report []byte) error { return s.write("last.json", report) }

// Last gives what SetLast was given.
func (s *Shelf) Last() []byte {
	data, err := s.file("last.json")
	if err != nil {
		return nil
	}
	return data
}

// Mend sets aside a list of what is in effect that cannot be read, or whose
// documents cannot: none of them is in effect then, and others can be.
func (s *Shelf) Mend() error {
	if _, err := s.Kept(); !errors.Is(err, ErrDamaged) {
		return err
	}
	if err := os.Rename(filepath.Join(s.dir, "kept.json"), filepath.Join(s.dir, "kept.damaged")); err != nil {
		return err
	}
	return sys.SyncDir(s.dir)
}

// End says that nothing is on trial any more, and removes documents that are
// not in effect, and what a cut left half written.
func (s *Shelf) End(Outcome) error {
	if err := os.Remove(filepath.Join(s.dir, "trial.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := sys.SyncDir(s.dir); err != nil {
		return err
	}
	var k keptFile
	if err := s.read("kept.json", &k); err != nil {
		return err
	}
	docs, err := filepath.Glob(filepath.Join(s.dir, "*.doc"))
	if err != nil {
		return err
	}
	torn, err := filepath.Glob(filepath.Join(s.dir, fresh+"*"))
	if err != nil {
		return err
	}
	for _, t := range torn {
		if err := os.Remove(t); err != nil {
			return err
		}
	}
	for _, d := range docs {
		name := strings.TrimSuffix(filepath.Base(d), ".doc")
		if !slices.ContainsFunc(k.Documents, func(e Entry) bool { return e.Sum == name }) {
			if err := os.Remove(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Shelf) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return s.write(name, append(data, '\n'))
}

// fresh is what the names of files begin with that are being written.
const fresh = ".new-"

// write replaces a file. It is durable on return.
func (s *Shelf) write(name string, data []byte) error {
	f, err := os.CreateTemp(s.dir, fresh+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return sys.SyncDir(s.dir)
}
