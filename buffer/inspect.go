package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// Stat is what is in a store.
type Stat struct {
	Path      string
	Format    uint32
	Epoch     uint64
	Boots     uint32 // boots that the store has seen
	Clean     bool   // closed cleanly; false while it is open
	Commits   uint64
	FileBytes int64 // size of the file
	FreeBytes int64 // of that, octets that new chunks can take
	Lanes     []LaneStat
}

// LaneStat is what is in one lane.
type LaneStat struct {
	Lane     meter.Lane
	First    uint64 // the lowest number still kept, 0 when nothing is
	Last     uint64 // the highest number given
	Acked    uint64 // acknowledged through, as committed
	Rows     uint64 // rows kept, acknowledged or not
	Chunks   uint64
	Bytes    uint64 // octets of flash that they take
	HotBytes uint64 // of these, of what is acknowledged
	Holes    uint64 // holes kept
	Lost     uint64 // rows declared lost since the epoch began
	Damaged  uint64 // numbers in damaged chunks that Peek met since the store was opened
}

// Stat says what is in the store. It costs a few page reads.
func (s *Store) Stat() (Stat, error) {
	var st Stat
	err := s.view(func(tx *bolt.Tx) (err error) {
		st, err = statOf(tx)
		st.FreeBytes = int64(tx.DB().Stats().FreePageN) * pageSize
		return err
	})
	if err != nil {
		return Stat{}, fmt.Errorf("buffer: stat: %w", err)
	}
	st.Path = s.path
	if fi, err := os.Stat(s.path); err == nil {
		st.FileBytes = fi.Size()
	}
	s.state.Lock()
	defer s.state.Unlock()
	for at, n := range s.damaged {
		st.Lanes[at.lane].Damaged += n
	}
	return st, nil
}

func statOf(tx *bolt.Tx) (Stat, error) {
	var st Stat
	meta, boots := tx.Bucket([]byte(bucketMeta)), tx.Bucket([]byte(bucketBoots))
	if meta == nil || boots == nil {
		return st, fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketMeta)
	}
	format, err := getNumber(meta, keyFormat)
	if err != nil {
		return st, err
	}
	clean, err := getNumber(meta, keyClean)
	if err != nil {
		return st, err
	}
	if st.Epoch, err = getNumber(meta, keyEpoch); err != nil {
		return st, err
	}
	if st.Commits, err = getNumber(meta, keyCommits); err != nil {
		return st, err
	}
	next, _, err := findBoot(boots, "")
	if err != nil {
		return st, err
	}
	st.Format, st.Clean, st.Boots = uint32(format), clean == 1, next-1
	for _, lane := range meter.Lanes() {
		l, err := getLane(meta, lane)
		if err != nil {
			return st, err
		}
		ls := LaneStat{
			Lane: lane, Last: l.last, Acked: l.acked, Rows: l.rows, Chunks: l.chunks,
			Bytes: l.bytes, HotBytes: l.hotBytes, Holes: l.holes, Lost: l.lost,
		}
		if queue := tx.Bucket([]byte(lane.String())); queue != nil {
			k, _ := queue.Cursor().First()
			ls.First, _ = parseSequenceKey(k)
		}
		st.Lanes = append(st.Lanes, ls)
	}
	return st, nil
}

// reader is a store that is only looked at.
type reader struct {
	path string
	lock *lockFile
	db   *bolt.DB
	tree treeInfo
	size int64
}

// openReader opens the store in dir for reading and changes nothing. The file
// is walked first; a damaged one is an error that wraps ErrDamaged.
func openReader(dir string) (_ *reader, err error) {
	path := filepath.Join(dir, fileName)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("buffer %s: %w", dir, ErrNoStore)
	}
	if err != nil {
		return nil, fmt.Errorf("buffer: %w", err)
	}
	if err := regular(path); err != nil {
		return nil, fmt.Errorf("buffer %s: %w", path, err)
	}
	r := &reader{path: path, size: st.Size()}
	if r.lock, err = takeLock(path, true); err != nil {
		return nil, openError(path, err)
	}
	if err = r.open(); err != nil {
		r.lock.release()
		return nil, openError(path, err)
	}
	return r, nil
}

func (r *reader) open() error {
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	r.tree, err = checkTree(f, r.size)
	_ = f.Close()
	if err != nil {
		return err
	}
	if r.tree.empty {
		return ErrNoStore
	}
	err = guarded(func() (err error) {
		r.db, err = bolt.Open(r.path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
		return err
	})
	if err != nil {
		return err
	}
	err = r.view(func(tx *bolt.Tx) error {
		_, err := checkFormat(r.path, tx.Bucket([]byte(bucketMeta)), formatVersion)
		return err
	})
	if err != nil {
		_ = guarded(r.db.Close)
	}
	return err
}

func (r *reader) view(do func(tx *bolt.Tx) error) error {
	return guarded(func() error { return r.db.View(do) })
}

func (r *reader) close() {
	_ = guarded(r.db.Close)
	r.lock.release()
}

// Inspect says what is in the store in dir without opening it for writing.
func Inspect(dir string) (Stat, error) {
	r, err := openReader(dir)
	if err != nil {
		return Stat{}, err
	}
	defer r.close()
	var st Stat
	err = r.view(func(tx *bolt.Tx) (err error) {
		st, err = statOf(tx)
		return err
	})
	if err != nil {
		return Stat{}, openError(r.path, err)
	}
	st.Path, st.FileBytes, st.FreeBytes = r.path, r.size, int64(r.tree.free)*pageSize
	return st, nil
}

// Dump calls do for every row that the store in dir keeps, lane by lane in
// order of their numbers; no lanes are all lanes. An error of do ends it and is
// returned as it is. Holes and damaged chunks are left out.
func Dump(dir string, lanes []meter.Lane, do func(sequence uint64, row meter.Row) error) error {
	return QueryDir(dir, Query{Lanes: lanes}, func(n uint64, r *meter.Row) error { return do(n, *r) })
}
