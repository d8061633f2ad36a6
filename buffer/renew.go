package buffer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// keepAside is how many damaged files stay beside the store: they are there to
// be looked at, and must not fill the disk.
const keepAside = 3

const asideSuffix = ".damaged-"

// What a store in the making is called: it gets its name once it is whole.
const (
	newSuffix     = ".new"     // without rows
	salvageSuffix = ".salvage" // with what was salvaged; whole once the damaged file is moved
)

// Deaths while opening that end the trust in a file, and in its salvage.
const (
	deathsToSalvage = 3
	deathsToForsake = 6
)

// Recovery says that Open found a file that it could not use, and what became
// of it.
type Recovery struct {
	Reason error  // what was wrong
	Path   string // where the file is now

	Chunks  uint64 // chunks that were salvaged
	Rows    uint64 // rows in them, acknowledged or not
	Waiting uint64 // of these, rows not known to be acknowledged: they go out under new numbers
	Cursors uint64 // cursors that were salvaged
	// Lost is how many sequence numbers that were given and not acknowledged
	// came to nothing. Each stretch of them is declared as a hole, and the
	// cursors have it as a gap, so that profiles are read again from there.
	Lost uint64
	// Unsure says that there may be more: the counters that would tell did not
	// read.
	Unsure bool
	NoRoom uint64 // rows that read and had no room, likewise declared
	Err    error  // what ended the salvage early, nil for nothing
}

// resume ends what a power cut interrupted: a store in the making is thrown
// away, unless it is whole and only lacks its name.
func (s *Store) resume() error {
	_ = os.Remove(s.path + newSuffix)
	_, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Rename(s.path+salvageSuffix, s.path); err == nil {
			return sys.SyncDir(filepath.Dir(s.path))
		}
	} else if err == nil {
		err = os.Remove(s.path + salvageSuffix)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// renew moves a damaged file aside and begins anew with what is salvaged of it.
func (s *Store) renew(reason error, trust bool) error {
	dropOld(s.path, keepAside-1)
	r := Recovery{}
	now := s.opts.Now()
	if now.IsZero() {
		now = time.Now() // a wrong date is better than none
	}
	aside := asideName(s.path, now)
	fill := func(to *Store) (err error) {
		if trust {
			r, err = salvageTo(s.path, to)
		}
		r.Reason, r.Path, r.Err = reason, aside, err
		return to.tell(&r)
	}
	if !trust {
		reason = fmt.Errorf("%w; nothing of it is salvaged", reason)
	}
	if err := s.build(salvageSuffix, fill); err != nil {
		return fmt.Errorf("begin anew after %w: %w", reason, err)
	}
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("move the damaged file aside: %w", err)
	}
	if err := s.resume(); err != nil {
		return err
	}
	s.recovered, s.trusted = &r, true
	return s.open()
}

// tell stores the rows that report a recovery.
func (s *Store) tell(r *Recovery) error {
	var rows []meter.Row
	if s.opts.Report != nil {
		rows = s.opts.Report(*r)
	}
	for i := range rows {
		rows[i].Stamp.Boot = s.Boot()
	}
	return s.commit(commitAlways, func(w *writeTx) error {
		if err := w.append(meter.Append{Rows: rows}); err != nil {
			return err
		}
		return putNumber(w.meta, keyClean, 1)
	})
}

// build makes a store under another name, whole and on the disk when it
// returns.
func (s *Store) build(suffix string, fill func(*Store) error) error {
	t := &Store{path: s.path + suffix, opts: s.opts, damaged: map[chunkAt]uint64{}}
	t.opts.scratch = true
	_ = os.Remove(t.path)
	err := t.openBolt()
	if err != nil {
		return err
	}
	if err = guarded(t.create); err == nil && fill != nil {
		err = fill(t)
	}
	if err == nil {
		err = t.db.Sync()
	}
	if t.abandoned() {
		t.abandon()
	} else {
		err = errors.Join(err, guarded(t.db.Close))
	}
	if err == nil {
		err = sys.SyncDir(filepath.Dir(s.path))
	}
	if err != nil {
		_ = os.Remove(t.path)
	}
	return err
}

// asideName is what a damaged file is to be called. The date sorts.
func asideName(path string, now time.Time) string {
	base := path + asideSuffix + now.UTC().Format("20060102T150405Z")
	name := base
	for i := 2; ; i++ {
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name
		}
		name = fmt.Sprintf("%s-%d", base, i)
	}
}

// dropOld removes the oldest of the damaged files but keep.
func dropOld(path string, keep int) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var old []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+asideSuffix) {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old)
	for len(old) > keep {
		_ = os.Remove(filepath.Join(dir, old[0]))
		old = old[1:]
	}
}

// create fills a new file, in one transaction.
func (s *Store) create() error {
	epoch, err := newEpoch()
	if err != nil {
		return err
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range bucketNames() {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucket([]byte(bucketMeta))
		if err != nil {
			return err
		}
		for _, lane := range meter.Lanes() {
			if err := putLane(meta, lane, laneState{}); err != nil {
				return err
			}
		}
		return errors.Join(
			putNumber(meta, keyFormat, s.newestFormat()),
			putNumber(meta, keyEpoch, epoch),
			putNumber(meta, keyClean, 1),
			putNumber(meta, keyCommits, 0))
	})
	if err != nil {
		return err
	}
	s.epoch = epoch
	return sys.SyncDir(filepath.Dir(s.path))
}

func newEpoch() (uint64, error) {
	for {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, fmt.Errorf("new epoch: %w", err)
		}
		if epoch := binary.LittleEndian.Uint64(b[:]); epoch != 0 {
			return epoch, nil
		}
	}
}

// salvageTo is salvage from a file.
func salvageTo(path string, to *Store) (Recovery, error) {
	f, err := os.Open(path)
	if err != nil {
		return Recovery{}, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return Recovery{}, err
	}
	return salvage(f, st.Size(), to)
}
