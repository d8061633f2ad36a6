package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"gridgate/internal/sys"
)

// reserve is what an update leaves free, in octets: readings need room too.
const reserve = 8 << 20

// ErrRoom says that a disk has too little room for an update.
var ErrRoom = errors.New("too little room for the update")

// Store is a directory that firmware is fetched to:
//
//	objects/<SHA-256 of an object>   its parts, each at its place, in any order
//	objects/<SHA-256 of an index>    the hashes of an object's parts
//	stage/<name>                     an unpacked file
//
// What of it is whole is not written down: it is known by its hashes, which a
// new Job compares. So a cut costs what was not on the disk yet, and no more.
type Store struct {
	dir string
	// trusting takes what has the right size for what is wanted. Tests of tests
	// set it.
	trusting bool
	room     func(path string) (total, free int64, err error)
}

// OpenStore gives the store in a directory, and makes it where it is not there.
func OpenStore(dir string) (*Store, error) {
	for _, d := range []string{dir, filepath.Join(dir, "objects"), filepath.Join(dir, "stage")} {
		if err := sys.MakeDir(d, 0o700); err != nil {
			return nil, fmt.Errorf("firmware: %w", err)
		}
	}
	return &Store{dir: dir, room: sys.Room}, nil
}

func (s *Store) object(sum [32]byte) string {
	return filepath.Join(s.dir, "objects", hex.EncodeToString(sum[:]))
}

func (s *Store) staged(name string) string { return filepath.Join(s.dir, "stage", name) }

// Clear removes all that was fetched and unpacked.
func (s *Store) Clear() error { return s.clean(nil) }

// clean removes what does not belong to these files.
func (s *Store) clean(files []File) error {
	keep := map[string]bool{}
	for i := range files {
		keep[s.object(files[i].Object)] = true
		keep[s.object(files[i].Index)] = true
		keep[s.staged(files[i].Name)] = true
	}
	for _, d := range []string{"objects", "stage"} {
		dir := filepath.Join(s.dir, d)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("firmware: %w", err)
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); !keep[path] {
				if err := os.Remove(path); err != nil {
					return fmt.Errorf("firmware: %w", err)
				}
			}
		}
	}
	return nil
}

// is says whether a file has a hash and a size.
func (s *Store) is(ctx context.Context, path string, size int64, sum [32]byte) (bool, error) {
	if s.trusting {
		info, err := os.Stat(path)
		return err == nil && info.Size() == size, nil
	}
	return holds(ctx, func() (io.ReadCloser, error) { return os.Open(path) }, size, sum)
}

// holds says whether what is opened has a hash and a size. What is not there
// has none.
func holds(ctx context.Context, open func() (io.ReadCloser, error), size int64, sum [32]byte) (bool, error) {
	r, err := open()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close() }()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(reader{ctx, r}, size+1))
	return n == size && [32]byte(h.Sum(nil)) == sum, err
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// write makes a file of what fill writes, and has it on the disk on return.
func write(path string, fill func(w io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err = fill(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return sys.SyncDir(filepath.Dir(path))
}

// forget cuts off what of an object's or index's file is beyond its size.
func (s *Store) forget(sum [32]byte, size int64) error {
	info, err := os.Stat(s.object(sum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > size {
		err = os.Truncate(s.object(sum), size)
	}
	return err
}

// object is what has to be fetched.
type object struct {
	file  File // the first that is unpacked from it
	index []byte
	there []bool
}

// size is that of a part.
func (o *object) size(part int) int64 {
	return min(o.file.Part, o.file.Packed-int64(part)*o.file.Part)
}

// sum is the hash of a part.
func (o *object) sum(part int) [32]byte { return [32]byte(o.index[part*32:]) }

// have gives the octets of the parts that are there.
func (o *object) have() (n int64) {
	for i, there := range o.there {
		if there {
			n += o.size(i)
		}
	}
	return n
}

// load reads the object's index, where it is there, and finds out what parts are.
func (s *Store) load(ctx context.Context, o *object) error {
	o.index, o.there = nil, make([]bool, o.file.Parts())
	ok, err := s.is(ctx, s.object(o.file.Index), int64(len(o.there)*32), o.file.Index)
	if err != nil || !ok {
		return err
	}
	if o.index, err = os.ReadFile(s.object(o.file.Index)); err != nil {
		return err
	}
	if len(o.index) != len(o.there)*32 {
		o.index = nil // changed under our hands
		return nil
	}
	if err := s.forget(o.file.Object, o.file.Packed); err != nil {
		return err
	}
	f, err := os.Open(s.object(o.file.Object))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, o.file.Part)
	for i := range o.there {
		if err := ctx.Err(); err != nil {
			o.index = nil // half of it is not known
			return err
		}
		part := buf[:o.size(i)]
		if _, err := f.ReadAt(part, int64(i)*o.file.Part); err != nil {
			continue // it ends before, or the disk cannot read it: fetched again
		}
		o.there[i] = s.trusting || sha256.Sum256(part) == o.sum(i)
	}
	return nil
}

// Job is an update that is being fetched. Its methods are called one at a time,
// but for Progress.
type Job struct {
	store   *Store
	open    func(name string) (io.ReadCloser, error)
	files   []File
	here    []bool // files that the running slot has
	objects []*object
	progress
}

// Begin finds out what of the files is there: in the slot that runs, which open
// gives files of (fs.ErrNotExist: it has none of that name), and from an earlier
// attempt. What belongs to other files is removed. The error wraps ErrRoom where
// the disk has too little of it; nothing was fetched then.
func (s *Store) Begin(ctx context.Context, files []File, open func(name string) (io.ReadCloser, error)) (*Job, error) {
	if err := s.clean(files); err != nil {
		return nil, err
	}
	j := &Job{store: s, open: open, files: files, here: make([]bool, len(files))}
	var room int64
	for i, f := range files {
		same, err := holds(ctx, func() (io.ReadCloser, error) { return open(f.Name) }, f.Size, f.SHA256)
		if err != nil {
			return nil, fmt.Errorf("firmware: %s of the slot that runs: %w", f.Name, err)
		}
		staged, err := s.is(ctx, s.staged(f.Name), f.Size, f.SHA256)
		if err != nil {
			return nil, fmt.Errorf("firmware: %w", err)
		}
		if j.here[i] = same; !staged {
			room += f.Size
		}
		if same || slices.ContainsFunc(j.objects, func(o *object) bool { return o.file.Object == f.Object }) {
			continue
		}
		if j.need += f.Packed; staged {
			j.have.Add(f.Packed)
			continue
		}
		o := &object{file: f}
		if err := s.load(ctx, o); err != nil {
			return nil, fmt.Errorf("firmware: %w", err)
		}
		j.objects = append(j.objects, o)
		j.have.Add(o.have())
		room += f.Packed - o.have() + int64(f.Parts()*32)
	}
	if j.Same() {
		return j, nil
	}
	_, free, err := s.room(s.dir)
	if err != nil {
		return nil, fmt.Errorf("firmware: %w", err)
	}
	if free < room+reserve {
		return nil, fmt.Errorf("%w: %s has %d octets free, it takes %d and leaves %d", ErrRoom, s.dir, free, room, int64(reserve))
	}
	return j, nil
}

// Same says that the slot that runs has all of the files: there is nothing to do.
func (j *Job) Same() bool { return !slices.Contains(j.here, false) }
