package buffer

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// When a commit is worth its price.
const (
	commitAlways = iota
	commitAcks   // only when acknowledgements wait
)

// writeTx is a write transaction with the counters that it will write.
type writeTx struct {
	tx       *bolt.Tx
	meta     *bolt.Bucket
	number   uint64
	boot     uint32
	lanes    [laneCount]laneState
	need     uint64 // octets of flash that added chunks take
	room     uint64 // octets that there are for them
	hotLimit uint64
	reserve  func(octets uint64) error // of the disk
	quota    Quota
	zone     *time.Location    // whose midnight ends a day
	times    *times            // of boots
	handed   [laneCount]uint64 // numbers that Peek handed out
	hush     func()            // keeps Peek waiting until the commit is done
	hushed   bool
	dropped  tally     // rows given up, to be counted
	given    []stretch // damaged chunks that were given up
	now      time.Time
	tally    []byte                // the count with what was counted, nil for none
	written  [laneCount]meter.Hole // the last one that took the place of rows
	done     []func()              // what follows once it is on the disk
}

// commit runs do in a write transaction, with waiting acknowledgements.
func (s *Store) commit(when int, do func(*writeTx) error) error {
	s.write.Lock()
	defer s.write.Unlock()
	s.state.Lock()
	err, acked, known, caches := s.usable(), s.acked, s.lanes, s.waitingCaches()
	s.state.Unlock()
	if err != nil {
		return err
	}
	if when == commitAcks && !acksWait(acked, known) {
		return nil
	}
	var w *writeTx
	defer func() {
		if w != nil && w.hushed {
			s.peek.Unlock()
		}
	}()
	var kept map[meter.ID]keptCache
	err = guarded(func() error {
		return s.db.Update(func(tx *bolt.Tx) (err error) {
			if w, err = s.begin(tx); err != nil {
				return err
			}
			if do != nil {
				if err := do(w); err != nil {
					return err
				}
			}
			if kept, err = w.addCaches(caches); err != nil {
				return err
			}
			return w.finish(acked, s.expiryDue())
		})
	})
	var panicked *panicError
	if errors.As(err, &panicked) {
		s.breakDown(err)
		return err
	}
	if err != nil {
		s.reload()
		return diskError(err)
	}
	s.begun = true
	if len(w.given) > 0 {
		s.state.Lock()
		s.given = append(s.given, w.given...)
		s.state.Unlock()
	}
	s.publish(w.lanes, w.boot)
	for _, do := range w.done {
		do()
	}
	s.cachesKept(kept)
	return nil
}

func acksWait(acked [laneCount]uint64, lanes [laneCount]laneState) bool {
	for i := range acked {
		if acked[i] > lanes[i].acked {
			return true
		}
	}
	return false
}

// begin reads what a write transaction starts from. The counters come from the
// transaction, not from memory: a commit whose last sync failed may have come
// through all the same.
func (s *Store) begin(tx *bolt.Tx) (*writeTx, error) {
	w := &writeTx{
		tx: tx, meta: tx.Bucket([]byte(bucketMeta)), hotLimit: uint64(s.opts.HotBytes),
		reserve: func(need uint64) error { return s.reserve(tx, need) },
		quota:   s.opts.Quota, now: s.opts.Now(), zone: s.opts.Zone, handed: s.handedOut(), dropped: tally{},
		times: s.timesNow(),
	}
	w.hush = func() { s.hush(w) }
	if w.meta == nil {
		return nil, fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketMeta)
	}
	var err error
	if w.lanes, err = readLanes(w.meta); err != nil {
		return nil, err
	}
	if w.number, err = getNumber(w.meta, keyCommits); err != nil {
		return nil, err
	}
	w.number++
	stats := s.db.Stats()
	w.room = uint64(max(0, s.opts.MaxSize-tx.Size()-allocSize)) + uint64(stats.FreePageN+stats.PendingPageN)*pageSize
	if s.begun {
		w.boot = s.Boot()
		return w, nil
	}
	return w, w.open(s.opts.BootID)
}

// hush keeps Peek waiting until the commit of w is done: what it handed out is
// known then, and no row of a chunk that this commit thins is handed out beside
// what is left of it.
func (s *Store) hush(w *writeTx) {
	if w.hushed {
		return
	}
	s.peek.Lock()
	w.hushed = true
	w.handed, s.cache = s.handedOut(), chunkCache{}
}

func readLanes(meta *bolt.Bucket) (lanes [laneCount]laneState, err error) {
	for _, lane := range meter.Lanes() {
		if lanes[lane], err = getLane(meta, lane); err != nil {
			return lanes, err
		}
	}
	return lanes, nil
}

// open marks the store as open and gives this boot its number.
func (w *writeTx) open(bootID string) error {
	clean, err := getNumber(w.meta, keyClean)
	if err != nil {
		return err
	}
	if clean == 0 {
		if err := w.addHole(meter.Instant, meter.UncleanStop, 0); err != nil {
			return err
		}
	}
	boots := w.tx.Bucket([]byte(bucketBoots))
	if boots == nil {
		return fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketBoots)
	}
	number, known, err := findBoot(boots, bootID)
	if err != nil {
		return err
	}
	if w.boot = number; !known {
		k := bootKey(number)
		if err := boots.Put(k, seal(k, []byte(bootID))); err != nil {
			return err
		}
	}
	return putNumber(w.meta, keyClean, 0)
}

// finish applies acknowledgements, gives up what is too old (as of expiry, when
// that is not zero) and what is over the quota, and writes the counters.
func (w *writeTx) finish(acked [laneCount]uint64, expiry time.Time) error {
	for _, lane := range meter.Lanes() {
		if err := w.acknowledge(lane, acked[lane]); err != nil {
			return err
		}
	}
	if !expiry.IsZero() {
		if err := w.expire(expiry); err != nil {
			return err
		}
	}
	if err := w.evict(); err != nil {
		return err
	}
	if err := w.shed(); err != nil {
		return err
	}
	if err := w.saveTally(); err != nil {
		return err
	}
	for _, lane := range meter.Lanes() {
		l := &w.lanes[lane]
		l.handed = max(l.handed, min(w.handed[lane], l.last))
		if err := putLane(w.meta, lane, w.lanes[lane]); err != nil {
			return err
		}
	}
	return putNumber(w.meta, keyCommits, w.number)
}

// expiryDue gives the time when ages are to be looked at, zero when that was
// done lately. The caller holds s.write.
func (s *Store) expiryDue() time.Time {
	now := s.opts.Now()
	if now.IsZero() {
		return now
	}
	if since := now.Sub(s.expired); since >= 0 && since < expirePause {
		return time.Time{}
	}
	s.expired = now
	return now
}

// handedOut gives the numbers through which Peek handed out rows.
func (s *Store) handedOut() [laneCount]uint64 {
	s.state.Lock()
	defer s.state.Unlock()
	return s.handed
}

// reload takes the counters from the file after a commit that failed.
func (s *Store) reload() {
	var lanes [laneCount]laneState
	err := s.view(func(tx *bolt.Tx) (err error) {
		meta := tx.Bucket([]byte(bucketMeta))
		if meta == nil {
			return ErrDamaged
		}
		lanes, err = readLanes(meta)
		return err
	})
	if err == nil {
		s.publish(lanes, s.Boot())
	}
}

func (s *Store) publish(lanes [laneCount]laneState, boot uint32) {
	s.state.Lock()
	defer s.state.Unlock()
	s.lanes, s.boot = lanes, boot
	for i := range lanes {
		s.acked[i] = max(s.acked[i], lanes[i].acked)
	}
}
