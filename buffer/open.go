package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// fileName is the store's file in its directory.
const fileName = "readings.db"

// Open opens the store in dir and makes it when there is none.
//
// A file that is damaged, cut short or not a store at all, and a directory of its
// name, is moved aside, with the date in its new name; a store with a new epoch
// begins, with whatever reads of the old one; Recovered tells. A file that may not
// be read or written, a store of a newer format (*FormatError) and a store that
// another process has open (*InUseError) are errors, and nothing is touched. A store of an older format is brought to this version's.
func Open(dir string, o Options) (*Store, error) {
	path := filepath.Join(dir, fileName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, openError(path, err)
	}
	lock, err := takeLock(path, false)
	if err != nil {
		return nil, openError(path, err)
	}
	s := &Store{path: path, opts: o.withDefaults(), lock: lock, damaged: map[chunkAt]uint64{}}
	if err = s.start(lock.deaths); err != nil {
		lock.release()
		return nil, openError(path, err)
	}
	lock.opened()
	return s, nil
}

// NotOpen gives a store that stands for one in dir that Open could not open, for
// reason: every call that could fail does, with an error that wraps ErrClosed and
// reason, and its lanes are empty. Its epoch is 0, which no store has. Close does
// nothing.
func NotOpen(dir string, o Options, reason error) *Store {
	return &Store{
		path: filepath.Join(dir, fileName), opts: o.withDefaults(), damaged: map[chunkAt]uint64{},
		broken: fmt.Errorf("not open: %w: %w", reason, ErrClosed),
	}
}

// start opens the file, or what takes its place. deaths is how many processes
// in a row died over it.
func (s *Store) start(deaths int) (err error) {
	if err = s.resume(); err != nil {
		return err
	}
	_, missing := os.Lstat(s.path)
	if err := regular(s.path); errors.Is(err, ErrDamaged) {
		return s.renew(err, false)
	} else if err != nil {
		return err
	}
	if deaths >= deathsToSalvage && missing == nil {
		err = fmt.Errorf("%w: %d processes in a row died over it", ErrDamaged, deaths)
	} else {
		err = s.open()
	}
	if !errors.Is(err, ErrDamaged) {
		return err
	}
	return s.renew(err, deaths < deathsToForsake)
}

// openError says what to do where that is not plain.
func openError(path string, err error) error {
	var inUse *InUseError
	var format *FormatError
	err = diskError(err)
	switch {
	case errors.As(err, &inUse), errors.As(err, &format):
		return err // they name the file
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("buffer %s: %w: give the agent's user the file and its directory", path, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("buffer %s: %w: mount the file system for writing", path, err)
	}
	return fmt.Errorf("buffer %s: %w", path, err)
}

// regular says whether what is there is a file: ErrDamaged when it is not.
func regular(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%w: not a file but a %s", ErrDamaged, kindOf(st.Mode()))
	}
	return nil
}

func kindOf(m fs.FileMode) string {
	if m.IsDir() {
		return "directory"
	}
	return "special file"
}

// open opens the file under the lock, and makes it when there is none. An error
// that wraps ErrDamaged says that the file is to be moved aside.
func (s *Store) open() error {
	s.unsure = unsure{open: true} // rows of this boot may be there
	s.broken, s.begun, s.lanes, s.acked = nil, false, [laneCount]laneState{}, [laneCount]uint64{}
	fresh, err := s.inspect()
	if err != nil {
		return err
	}
	if fresh {
		if err := s.build(newSuffix, nil); err != nil {
			return err
		}
		if err := os.Rename(s.path+newSuffix, s.path); err != nil {
			return err
		}
		if err := sys.SyncDir(filepath.Dir(s.path)); err != nil {
			return err
		}
	}
	if err := s.openBolt(); err != nil {
		return err
	}
	if err = guarded(func() error { return s.load() }); err != nil {
		s.abandon()
	}
	return err
}

// abandon closes the files of a store that is not to be used. After a panic in
// a write transaction bbolt's locks may never come free: the map then stays,
// and the file's lock goes with its descriptor.
func (s *Store) abandon() {
	s.state.Lock()
	broken := s.broken
	s.state.Unlock()
	if broken != nil || guarded(s.db.Close) != nil {
		_ = s.file.Close()
	}
}

// inspect looks at the file before bbolt maps it. fresh says that there is
// nothing in it.
func (s *Store) inspect() (fresh bool, err error) {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return true, err
	}
	info, err := checkTree(f, st.Size())
	switch {
	case errors.Is(err, ErrDamaged):
		return false, err
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrDamaged, err) // a sector that cannot be read
	case info.clean || s.trusted:
	default:
		if err := runChild(s.opts.Child, s.path, st.Size()); err != nil {
			return false, err
		}
	}
	s.compactAtStart(st.Size(), info)
	return false, nil
}

// The free list is written with every commit, which takes 4 KB. Without it
// bbolt finds the free pages in a goroutine of its own, at Open and whenever a
// transaction is rolled back; a page that cannot be read then kills the process
// (docs/decisions/0004-store.md).
func (s *Store) openBolt() error {
	o := &bolt.Options{
		Timeout:      s.opts.Timeout,
		FreelistType: bolt.FreelistMapType,
		PageSize:     pageSize,
		NoSync:       s.opts.scratch,
		NoGrowSync:   s.opts.scratch,
		MaxSize:      int(s.opts.MaxSize),
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, mode)
			s.file = f
			return f, err
		},
	}
	err := guarded(func() (err error) {
		s.db, err = bolt.Open(s.path, 0o600, o)
		return err
	})
	var panicked *panicError
	s.reserved = 0
	switch {
	case err == nil:
		s.db.AllocSize = allocSize
		return nil
	case errors.As(err, &panicked):
		_ = s.file.Close()
		return err
	case errors.Is(err, berrors.ErrTimeout):
		return &InUseError{Path: s.path}
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// load reads what the store starts from, brings it to this version's format,
// and marks the store as open. A full disk keeps only the mark from being
// written; the next commit writes it.
func (s *Store) load() error {
	format := uint64(0)
	err := s.db.View(func(tx *bolt.Tx) (err error) {
		format, err = s.read(tx)
		return err
	})
	if err != nil {
		return err
	}
	if format < s.newestFormat() {
		if err := s.migrate(format); err != nil {
			return err
		}
	}
	if err := s.commit(commitAlways, nil); err != nil && !errors.Is(err, ErrFull) {
		return err
	}
	return nil
}

// checkFormat says whether this version, which knows formats up to newest, may
// read the store.
func checkFormat(path string, meta *bolt.Bucket, newest uint64) (uint64, error) {
	if meta == nil {
		return 0, fmt.Errorf("%w: a database, but not of readings", ErrDamaged)
	}
	format, err := getNumber(meta, keyFormat)
	switch {
	case err != nil:
		return 0, err
	case format == 0:
		return 0, fmt.Errorf("%w: format 0", ErrDamaged)
	case format > newest:
		return 0, &FormatError{Path: path, Found: uint32(min(format, 1<<32-1)), Known: uint32(newest)}
	}
	return format, nil
}

// read takes the store's state from a file that is not new.
func (s *Store) read(tx *bolt.Tx) (format uint64, err error) {
	meta := tx.Bucket([]byte(bucketMeta))
	if format, err = checkFormat(s.path, meta, s.newestFormat()); err != nil {
		return format, err
	}
	if s.epoch, err = getNumber(meta, keyEpoch); err != nil {
		return format, err
	}
	lanes, err := readLanes(meta)
	if err != nil {
		return format, err
	}
	if _, err := getNumber(meta, keyClean); err != nil {
		return format, err
	}
	if _, err := getNumber(meta, keyCommits); err != nil {
		return format, err
	}
	for _, name := range bucketNames() {
		if tx.Bucket([]byte(name)) == nil {
			return format, fmt.Errorf("%w: no bucket %s", ErrDamaged, name)
		}
	}
	boot, _, err := findBoot(tx.Bucket([]byte(bucketBoots)), s.opts.BootID)
	if err != nil {
		return format, err
	}
	s.publish(lanes, boot)
	t := loadTimes(tx)
	t.now = boot
	s.setTimes(t)
	return format, nil
}

// bucketNames lists the buckets of the root but meta.
func bucketNames() []string {
	names := []string{bucketCursors, bucketBoots, bucketCatalogue}
	for _, lane := range meter.Lanes() {
		names = append(names, lane.String())
	}
	return names
}

func bootKey(number uint32) []byte { return binary.BigEndian.AppendUint32(nil, number) }

// findBoot gives the number of a boot: that of the last boot in the table when
// it is the same, else the next.
func findBoot(boots *bolt.Bucket, id string) (number uint32, known bool, err error) {
	k, v := boots.Cursor().Last()
	if k == nil {
		return 1, false, nil
	}
	have, ok := unseal(k, v)
	if len(k) != 4 || !ok {
		return 0, false, fmt.Errorf("%w: the table of boots", ErrDamaged)
	}
	number = binary.BigEndian.Uint32(k)
	if id != "" && string(have) == id {
		return number, true, nil
	}
	return number + 1, false, nil
}
