package buffer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

const (
	// compactSuffix is behind the name of the file that a compaction writes.
	compactSuffix = ".compact"
	// compactFrom is the size below which a file is left as it is.
	compactFrom = 4 << 20
	// compactStep bounds the octets of one transaction of a compaction.
	compactStep = 256 << 10
	// compactSpare is what has to be left on the disk.
	compactSpare = 1 << 20
)

// worthCompacting says whether over half of a file is free.
func worthCompacting(size int64, t treeInfo) bool {
	used := int64(t.pages-min(t.pages, t.free+t.leaks)) * pageSize
	return size >= compactFrom && used < size/2
}

// compactAtStart makes the file smaller before it is opened, when that is worth
// it. What keeps it from doing so, a full disk or an unreadable sector, keeps
// nobody from opening the file as it is.
func (s *Store) compactAtStart(size int64, t treeInfo) {
	_ = os.Remove(s.path + compactSuffix) // of one that did not come to its end
	if worthCompacting(size, t) {
		_ = compactFile(s.path)
	}
}

// Wasteful says whether Compact would make the file smaller by half or more.
func (s *Store) Wasteful() bool {
	var size, used int64
	err := s.view(func(tx *bolt.Tx) error {
		used = tx.Size() - int64(tx.DB().Stats().FreePageN+tx.DB().Stats().PendingPageN)*pageSize
		st, err := os.Stat(s.path)
		if err == nil {
			size = st.Size()
		}
		return err
	})
	return err == nil && size >= compactFrom && used < size/2
}

// Compact writes the file anew without its free pages. Appends and reads wait
// for it. A power cut leaves the old file or the new one, each of them whole.
// An error leaves the old one, and the store usable, unless it wraps
// ErrDamaged. ctx is looked at before it begins only.
func (s *Store) Compact(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = s.compact()
	}
	if err != nil {
		return fmt.Errorf("buffer: compact: %w", err)
	}
	return nil
}

func (s *Store) compact() error {
	s.write.Lock()
	defer s.write.Unlock()
	s.peek.Lock()
	defer s.peek.Unlock()
	s.swap.Lock()
	defer s.swap.Unlock()
	s.state.Lock()
	err := s.usable()
	s.state.Unlock()
	if err != nil {
		return err
	}
	if err := guarded(s.db.Close); err != nil {
		s.breakDown(err)
		return err
	}
	err = compactFile(s.path)
	if oerr := s.openBolt(); oerr != nil {
		oerr = fmt.Errorf("%w: %w", ErrDamaged, oerr) // Open finds out what it is
		s.breakDown(oerr)
		return errors.Join(err, oerr)
	}
	return err
}

// Compact makes the file of the store in dir smaller, and says from what size
// to what.
func Compact(dir string) (before, after int64, err error) {
	path := filepath.Join(dir, fileName)
	if before, after, err = compactClosed(path); err != nil {
		err = openError(path, err)
	}
	return before, after, err
}

func compactClosed(path string) (before, after int64, err error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, ErrNoStore
	}
	if err != nil {
		return 0, 0, err
	}
	lock, err := takeLock(path, false)
	if err != nil {
		return 0, 0, err
	}
	defer lock.release()
	if _, err := treeOf(path); err != nil {
		return 0, 0, err
	}
	if err := compactFile(path); err != nil {
		return 0, 0, err
	}
	now, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	return st.Size(), now.Size(), nil
}

// treeOf walks the tree of a file.
func treeOf(path string) (treeInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return treeInfo{}, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return treeInfo{}, err
	}
	return checkTree(f, st.Size())
}

// compactFile writes the file of a store that nobody has open anew: to a second
// file, which is synced, compared with the first and then takes its name.
func compactFile(path string) error {
	temporary := path + compactSuffix
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before, err := treeOf(path)
	if err != nil {
		return err
	}
	need := int64(before.pages-min(before.pages, before.free+before.leaks))*pageSize + compactSpare
	if free, err := diskFree(filepath.Dir(path)); err == nil && free < need {
		return fmt.Errorf("%w: %d octets are free on the disk, a second file needs %d", ErrFull, free, need)
	}
	if err = guarded(func() error { return copyStore(temporary, path) }); err != nil {
		_ = os.Remove(temporary)
		return diskError(err)
	}
	if err := os.Rename(temporary, path); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return sys.SyncDir(filepath.Dir(path))
}

// copyStore copies all that is in a store to a new file, which is on the disk
// and sound when it returns nil.
func copyStore(to, from string) (err error) {
	src, err := bolt.Open(from, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	err = src.View(func(tx *bolt.Tx) error {
		_, err := checkFormat(from, tx.Bucket([]byte(bucketMeta)), formatVersion)
		return err
	})
	if err != nil {
		return err
	}
	dst, err := bolt.Open(to, 0o600, &bolt.Options{
		Timeout: time.Second, FreelistType: bolt.FreelistMapType, PageSize: pageSize, NoSync: true,
	})
	if err != nil {
		return err
	}
	dst.AllocSize = allocSize
	err = bolt.Compact(dst, src, compactStep)
	if err == nil {
		err = dst.Sync()
	}
	if err == nil {
		err = sameStore(src, dst)
	}
	if err = errors.Join(err, dst.Close()); err != nil {
		return err
	}
	_, err = treeOf(to)
	return err
}

// sameStore says whether two stores have the same counters and, lane by lane,
// the same entries.
func sameStore(a, b *bolt.DB) error {
	return a.View(func(x *bolt.Tx) error {
		return b.View(func(y *bolt.Tx) error {
			before, err := readLanes(x.Bucket([]byte(bucketMeta)))
			if err != nil {
				return err
			}
			after, err := readLanes(y.Bucket([]byte(bucketMeta)))
			if err != nil {
				return err
			}
			if before != after {
				return fmt.Errorf("%w: the copy has other counters", ErrDamaged)
			}
			for _, lane := range meter.Lanes() {
				if err := sameLane(x, y, lane, before[lane].last); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func sameLane(x, y *bolt.Tx, lane meter.Lane, last uint64) error {
	p, q := x.Bucket([]byte(lane.String())), y.Bucket([]byte(lane.String()))
	if p == nil || q == nil {
		return fmt.Errorf("%w: no bucket %s", ErrDamaged, lane)
	}
	v, w := walk(p, lane, last), walk(q, lane, last)
	v.seek(0)
	for w.seek(0); ; {
		a, aok := v.next()
		b, bok := w.next()
		if aok != bok || string(a.key) != string(b.key) || string(a.chunk) != string(b.chunk) || a.hole != b.hole {
			return fmt.Errorf("%w: lane %s: the copy is another one at number %d", ErrDamaged, lane, a.first)
		}
		if !aok {
			return nil
		}
	}
}

// diskFree gives the octets that a file system has left for this user.
func diskFree(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // other widths on other machines
}
