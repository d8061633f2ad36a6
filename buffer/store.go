package buffer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"gridgate/internal/meter"
)

const laneCount = int(meter.Instant) + 1

// Options are what a store is opened with. The zero value is good except for
// BootID.
type Options struct {
	// BootID is the kernel's id of this boot
	// (/proc/sys/kernel/random/boot_id). An empty one counts every Open as a
	// new boot.
	BootID string
	// MaxSize bounds the file in octets. The default of 256 MiB fits 1 GiB of
	// addresses, of which a 32-bit runtime reserves half for its heap; twice
	// that does not.
	MaxSize int64
	// HotBytes is how many octets of acknowledged chunks are kept; default
	// 8 MiB, negative for none.
	HotBytes int64
	// Quota bounds what is kept; the zero value bounds nothing, and Append
	// answers ErrFull at MaxSize.
	Quota Quota
	// Zone is whose midnight ends the days that rows are thinned to; default
	// UTC.
	Zone *time.Location
	// Timeout is how long Open waits for bbolt's own lock; default one second.
	Timeout time.Duration
	// Now gives the time that rows' ages are judged by and the date that a
	// damaged file's new name carries; default time.Now. The zero time says that
	// nobody knows: no row is then too old.
	Now func() time.Time
	// Waits says whether it is worth waiting to learn what time it is: while it
	// does, rows of this boot that were stamped by a clock that nobody vouches
	// for are not handed out by Peek, but for alarms. nil never waits.
	Waits func() bool
	// Child is the command line of a process that calls CheckChild with the
	// store's path, which Open appends: after an unclean stop it looks at the
	// file first, so that damage which kills a process kills that one. None
	// for no child.
	Child []string
	// Report gives rows for what is told to the fog of a damaged file. They
	// are stored with what was salvaged: nobody comes to know of the one
	// without the other. It may be nil.
	Report func(Recovery) []meter.Row

	migrations []migration // of tests
	scratch    bool        // a store in the making: it does not sync
}

const (
	defaultMaxSize  = 256 << 20
	defaultHotBytes = 8 << 20
	// headroom is kept from rows, so that acknowledgements and the deletions
	// that they allow can always be written.
	headroom = 2 << 20
	// allocSize is the step in which the file grows, once it is larger.
	allocSize = 1 << 20
)

func (o Options) withDefaults() Options {
	if o.MaxSize <= 0 {
		o.MaxSize = defaultMaxSize
	}
	o.MaxSize = max(o.MaxSize, 2*headroom)
	if o.HotBytes == 0 {
		o.HotBytes = defaultHotBytes
	}
	o.HotBytes = max(o.HotBytes, 0)
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Store is an open store. Its methods are safe for concurrent use; commits
// take turns, and Peek does not wait for them.
type Store struct {
	path      string
	opts      Options
	lock      *lockFile
	db        *bolt.DB
	file      *os.File // bbolt's, to be closed when bbolt no longer can
	epoch     uint64
	recovered *Recovery
	trusted   bool // the file was made a moment ago

	write    sync.Mutex // one commit at a time; taken before the others
	reserved int64      // what the file has of the disk, as far as is known; under write
	begun    bool       // the commit that marks the store as open is done; under write
	unsure   unsure     // under write
	expired  time.Time  // when ages were looked at; under write

	swap sync.RWMutex // held for writing while the file is changed for another; taken before state

	peek  sync.Mutex // one Peek at a time; taken before swap and state
	cache chunkCache // under peek

	state   sync.Mutex
	boot    uint32
	lanes   [laneCount]laneState   // as committed
	acked   [laneCount]uint64      // acknowledged, perhaps not yet committed
	caches  map[meter.ID]keptCache // saved, not yet committed
	handed  [laneCount]uint64      // handed out by Peek since the store was opened
	damaged map[chunkAt]uint64     // damaged stretches that Peek met, and their numbers
	hurt    map[chunkAt]bool       // of these, those that Mend has not seen to
	given   []stretch              // damaged chunks that were given up, likewise
	broken  error                  // why bbolt must not be called any more
	times   *times                 // what is known of the times of boots
}

type chunkAt struct {
	lane  meter.Lane
	first uint64
}

// Recovered says whether Open had to begin anew, nil when it had not. The
// epoch is then a new one.
func (s *Store) Recovered() *Recovery { return s.recovered }

// Epoch names the life of the store's sequence numbers: 64 random bits, new
// when a store begins anew, never 0.
func (s *Store) Epoch() uint64 { return s.epoch }

// Boot is the number of this boot in the store's table of boots, from 1 on.
func (s *Store) Boot() uint32 {
	s.state.Lock()
	defer s.state.Unlock()
	return s.boot
}

// Last is the highest sequence number of lane, 0 when it has none.
func (s *Store) Last(lane meter.Lane) uint64 {
	s.state.Lock()
	defer s.state.Unlock()
	if !lane.Valid() {
		return 0
	}
	return s.lanes[lane].last
}

// Acked is the number through which lane was acknowledged.
func (s *Store) Acked(lane meter.Lane) uint64 {
	s.state.Lock()
	defer s.state.Unlock()
	if !lane.Valid() {
		return 0
	}
	return s.acked[lane]
}

// Lost is how many rows of lane were declared lost in holes since the epoch
// began, as far as anybody knows how many they were.
func (s *Store) Lost(lane meter.Lane) uint64 {
	s.state.Lock()
	defer s.state.Unlock()
	if !lane.Valid() {
		return 0
	}
	return s.lanes[lane].lost
}

// Ack acknowledges every number of lane up to through. It is kept in memory
// and rides the next commit; Flush and Close write it. At or below Acked it
// does nothing; above Last it changes nothing and returns an error that wraps
// ErrBeyond.
func (s *Store) Ack(lane meter.Lane, through uint64) error {
	s.state.Lock()
	defer s.state.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if !lane.Valid() {
		return fmt.Errorf("buffer: acknowledge: %s: no such lane", lane)
	}
	if last := s.lanes[lane].last; through > last {
		return fmt.Errorf("buffer: acknowledge %d of lane %s: %w %d", through, lane, ErrBeyond, last)
	}
	s.acked[lane] = max(s.acked[lane], through)
	return nil
}

// Flush writes acknowledgements that wait for a commit, if there are any. ctx
// is looked at before the commit only.
func (s *Store) Flush(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = s.commit(commitAcks, nil)
	}
	if err != nil {
		return fmt.Errorf("buffer: flush: %w", err)
	}
	return nil
}

// Close writes the acknowledgements, marks the store as cleanly stopped and
// closes it. Without it the next Open declares that what waited in memory for
// the instant lane is gone. The store is closed even when Close returns an
// error. Closing twice is no error.
func (s *Store) Close() error {
	err := s.commit(commitAlways, func(w *writeTx) error { return putNumber(w.meta, keyClean, 1) })
	if errors.Is(err, ErrClosed) {
		return nil
	}
	if err = errors.Join(err, s.shut()); err != nil {
		return fmt.Errorf("buffer: close: %w", err)
	}
	return nil
}

// shut closes the files without writing.
func (s *Store) shut() error {
	s.write.Lock()
	defer s.write.Unlock()
	s.peek.Lock() // a Peek in flight ends first
	defer s.peek.Unlock()
	defer s.lock.release()
	s.cache = chunkCache{}
	var err error
	if s.abandoned() {
		s.abandon()
	} else {
		err = guarded(s.db.Close)
	}
	s.breakDown(ErrClosed)
	return err
}

func (s *Store) abandoned() bool {
	s.state.Lock()
	defer s.state.Unlock()
	return s.broken != nil
}

// usable gives the error of a store that can no longer be used. The caller
// holds s.state.
func (s *Store) usable() error { return s.broken }

// breakDown keeps everybody from bbolt: after Close, and after a panic in a
// write transaction.
func (s *Store) breakDown(err error) {
	s.state.Lock()
	defer s.state.Unlock()
	s.broken = err
}

// guarded runs what reads mapped pages. A fault in the map or a panic of bbolt
// over what it finds there becomes ErrDamaged.
func guarded(do func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			err = &panicError{fmt.Sprint(p)}
		}
	}()
	return do()
}

// panicError is a panic over a damaged file.
type panicError struct{ text string }

func (e *panicError) Error() string { return "damaged: " + e.text }

func (e *panicError) Unwrap() error { return ErrDamaged }

// view runs a read transaction.
func (s *Store) view(do func(tx *bolt.Tx) error) error {
	s.swap.RLock()
	defer s.swap.RUnlock()
	s.state.Lock()
	err := s.usable()
	s.state.Unlock()
	if err != nil {
		return err
	}
	err = guarded(func() error { return s.db.View(do) })
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}
