package buffer

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// Correction says what time it was in a stretch of a boot: at the moment m of
// its monotonic clock the wall time was m + Offset, at most Bound + Rate × |m −
// Mono| off. Times are in milliseconds.
type Correction struct {
	Mono   int64 // when it was determined; moments up to it are corrected
	Offset int64 // wall time since 1970 UTC, less the monotonic clock
	Bound  uint32
	Rate   uint32 // parts in 10^9
}

// apply gives a stamp its time and bound.
func (c *Correction) apply(s *meter.Stamp) {
	away := math.Abs(float64(s.Mono - c.Mono))
	s.Time = s.Mono + c.Offset
	s.Bound = uint32(min(float64(c.Bound)+math.Ceil(away*float64(c.Rate)/1e9)+1, meter.UnknownBound-1))
}

// BootTimes is what is known afterwards of the time of one boot. What it makes
// of a row never changes once the row may have left the store: rows that wait
// for their correction are held back, and those that were let go before it came
// stay as they were.
type BootTimes struct {
	// Released are the numbers of each lane through which rows left, or may have,
	// with the time that they were stored with.
	Released [laneCount]uint64
	// Corrections are in the order of their Mono.
	Corrections []AppliedCorrection
}

// AppliedCorrection is a correction of rows above a number of each lane.
type AppliedCorrection struct {
	Correction
	After [laneCount]uint64
}

// maxCorrections bounds those of one boot; later ones are left out, and the rows
// flagged.
const maxCorrections = 64

// Uncertain says whether the time of a row is the reading of a clock that nobody
// vouched for, in a boot that may still come to know it. Times that were
// computed are none.
func Uncertain(r *meter.Row) bool {
	return r.Stamp.Source == meter.FromGateway && r.Stamp.Bound == meter.UnknownBound && r.Stamp.Boot != 0 &&
		r.Period == 0 && r.Quality&meter.Estimated == 0
}

// of gives the correction of a row, nil where there is none.
func (b *BootTimes) of(lane meter.Lane, number uint64, r *meter.Row) *AppliedCorrection {
	for i := range b.Corrections {
		if c := &b.Corrections[i]; r.Stamp.Mono <= c.Mono {
			if number > c.After[lane] {
				return c
			}
			return nil
		}
	}
	return nil
}

// Correct puts the time of a row right that has that number, where it can be,
// and flags it.
func (b *BootTimes) Correct(lane meter.Lane, number uint64, r *meter.Row) {
	if b == nil || !Uncertain(r) {
		return
	}
	if c := b.of(lane, number, r); c != nil {
		c.apply(&r.Stamp)
		r.Quality = r.Quality&^meter.ClockUnsynchronised | meter.TimeCorrected
	}
}

// Holds says whether a row of the boot that runs must be let go before it leaves
// as it is.
func (b *BootTimes) Holds(lane meter.Lane, number uint64, r *meter.Row) bool {
	if !Uncertain(r) {
		return false
	}
	return b == nil || number > b.Released[lane] && b.of(lane, number, r) == nil
}

// Add takes a correction of rows that were not released.
func (b *BootTimes) Add(c Correction) (added bool) {
	if n := len(b.Corrections); n >= maxCorrections || n > 0 && b.Corrections[n-1].Mono >= c.Mono {
		return false
	}
	b.Corrections = append(b.Corrections, AppliedCorrection{c, b.Released})
	return true
}

// The bucket of what is known of the times of boots, made when it is first
// needed:
//
//	4 octets number of the boot, big endian → numbers, little endian, sealed:
//	  1 octet  1, the version
//	  8 released, for each lane
//	  and for each correction
//	    8 mono, 8 offset, 4 bound, 4 rate, 8 after, for each lane
const (
	bucketTimes   = "times"
	timesVersion  = 1
	timesHead     = 1 + 8*laneCount
	correctionLen = 24 + 8*laneCount
	// maxBoots is of how many boots times are kept.
	maxBoots = 256
)

func (b *BootTimes) append(out []byte) []byte {
	le := binary.LittleEndian
	out = append(out, timesVersion)
	for _, n := range b.Released {
		out = le.AppendUint64(out, n)
	}
	for i := range b.Corrections {
		c := &b.Corrections[i]
		out = le.AppendUint64(out, uint64(c.Mono))
		out = le.AppendUint64(out, uint64(c.Offset))
		out = le.AppendUint32(out, c.Bound)
		out = le.AppendUint32(out, c.Rate)
		for _, n := range c.After {
			out = le.AppendUint64(out, n)
		}
	}
	return out
}

func parseBootTimes(v []byte) (*BootTimes, error) {
	n := len(v) - timesHead
	if n < 0 || v[0] != timesVersion || n%correctionLen != 0 || n/correctionLen > maxCorrections {
		return nil, fmt.Errorf("%w: times of a boot of %d octets", ErrDamaged, len(v))
	}
	le, b := binary.LittleEndian, &BootTimes{}
	for i := range b.Released {
		b.Released[i] = le.Uint64(v[1+8*i:])
	}
	for v = v[timesHead:]; len(v) > 0; v = v[correctionLen:] {
		c := AppliedCorrection{Correction: Correction{
			Mono: int64(le.Uint64(v)), Offset: int64(le.Uint64(v[8:])), Bound: le.Uint32(v[16:]), Rate: le.Uint32(v[20:]),
		}}
		for i := range c.After {
			c.After[i] = le.Uint64(v[24+8*i:])
		}
		b.Corrections = append(b.Corrections, c)
	}
	return b, nil
}

// isTimes tells the values of this bucket from those of the table of boots, where
// neither hangs in the tree.
func isTimes(v []byte) bool { return len(v) >= timesHead && v[0] == timesVersion }

// times is what is known of the boots of a store. It is not changed once it is
// in a Store: there is a new one after each change.
type times struct {
	boots map[uint32]*BootTimes
	now   uint32 // the boot that runs; 0 in a store that nobody writes to
}

// correct puts the time of a row right.
func (t *times) correct(lane meter.Lane, number uint64, r *meter.Row) {
	if len(t.boots) > 0 && r.Stamp.Bound == meter.UnknownBound {
		t.boots[r.Stamp.Boot].Correct(lane, number, r)
	}
}

// holds says whether a row must be let go. Of boots that are over nothing more
// will be known.
func (t *times) holds(lane meter.Lane, number uint64, r *meter.Row) bool {
	return t.now != 0 && r.Stamp.Boot == t.now && t.boots[t.now].Holds(lane, number, r)
}

// chunk gives a chunk with the times of its rows as Peek gives them, checked. One
// that nothing is corrected in stays as it is.
func (t *times) chunk(b []byte) ([]byte, error) {
	c, rows, err := parseChunk(b)
	if err != nil || !c.uncertain || len(t.boots) == 0 {
		return b, err
	}
	changed := false
	for i := range rows {
		before := rows[i].Stamp
		t.correct(c.lane, c.first+uint64(i), &rows[i])
		changed = changed || rows[i].Stamp != before
	}
	if !changed {
		return b, nil
	}
	out, err := appendChunk(nil, c.lane, c.first, c.commit, rows)
	if err == nil {
		setLevel(out, c.level)
	}
	return out, err
}

// loadTimes reads what is known. What is damaged is left out: its rows stay
// flagged.
func loadTimes(tx *bolt.Tx) *times {
	t := &times{boots: map[uint32]*BootTimes{}}
	bucket := tx.Bucket([]byte(bucketTimes))
	if bucket == nil {
		return t
	}
	c := bucket.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if v, ok := unseal(k, v); ok && len(k) == 4 {
			if b, err := parseBootTimes(v); err == nil {
				t.boots[binary.BigEndian.Uint32(k)] = b
			}
		}
	}
	return t
}

// with gives the times with another boot's.
func (t *times) with(boot uint32, b *BootTimes) *times {
	next := &times{boots: make(map[uint32]*BootTimes, len(t.boots)+1), now: t.now}
	for k, v := range t.boots {
		next.boots[k] = v
	}
	next.boots[boot] = b
	return next
}

// clone gives a copy that may be changed; of nil an empty one.
func (b *BootTimes) clone() *BootTimes {
	if b == nil {
		return &BootTimes{}
	}
	return &BootTimes{Released: b.Released, Corrections: slices.Clone(b.Corrections)}
}

// putTimes writes the times of a boot, and forgets those of boots long ago.
func (w *writeTx) putTimes(boot uint32, b *BootTimes) error {
	bucket, err := w.tx.CreateBucketIfNotExists([]byte(bucketTimes))
	if err != nil {
		return err
	}
	for c := bucket.Cursor(); ; {
		k, _ := c.First()
		if len(k) != 4 || binary.BigEndian.Uint32(k)+maxBoots > boot {
			break
		}
		if err := c.Delete(); err != nil {
			return err
		}
	}
	k := bootKey(boot)
	return bucket.Put(k, seal(k, b.append(nil)))
}

// streaming is how long a lane counts as one that somebody takes rows of as they
// come: they are let go in the commit that stores them, which costs nothing.
const streaming = 10 * time.Minute

// unsure is what a Store knows of its rows whose time is not known. It is
// guarded by write.
type unsure struct {
	latest *Correction // of this boot, the newest there was
	open   bool        // rows may be stored that no correction is for
	// taken is when rows of a lane were last let go.
	taken [laneCount]time.Time
}

// settle is the part of an append that is about times: rows of a lane that is
// being taken are let go, and a correction that is known already is kept for
// rows that come behind it.
func (s *Store) settle(w *writeTx, rows []meter.Row) error {
	var uncertain [laneCount]bool
	some := false
	for i := range rows {
		if r := &rows[i]; r.Stamp.Boot == w.boot && Uncertain(r) {
			uncertain[r.Lane], some = true, true
		}
	}
	if !some {
		return nil
	}
	b, changed := s.timesNow().boots[w.boot].clone(), false
	// What time it was is often known by now: rows of a window come after it.
	if c := s.unsure.latest; c != nil && b.Add(*c) {
		changed = true
	}
	// What is let go here has no correction that comes later.
	for lane := range uncertain {
		if uncertain[lane] && time.Since(s.unsure.taken[lane]) < streaming && w.lanes[lane].last > b.Released[lane] {
			b.Released[lane], changed = w.lanes[lane].last, true
		}
	}
	w.done = append(w.done, func() { s.unsure.open = true })
	if !changed {
		return nil
	}
	return s.putTimes(w, b)
}

// putTimes has a commit write the times of this boot; they hold once it is
// done, before another begins.
func (s *Store) putTimes(w *writeTx, b *BootTimes) error {
	w.done = append(w.done, func() { s.setTimes(s.timesNow().with(w.boot, b)) })
	return w.putTimes(w.boot, b)
}

func (s *Store) timesNow() *times {
	s.state.Lock()
	defer s.state.Unlock()
	if s.times == nil {
		return &times{}
	}
	return s.times
}

func (s *Store) setTimes(t *times) {
	s.state.Lock()
	defer s.state.Unlock()
	s.times = t
}

// waits says whether rows wait for their correction.
func (s *Store) waits(lane meter.Lane) bool {
	return lane != meter.Alarm && s.opts.Waits != nil && s.opts.Waits()
}

// letGo notes, on the disk, that all rows of a lane may leave with the time that
// they have. Where it cannot be noted it holds for this process.
func (s *Store) letGo(lane meter.Lane) {
	err := s.commit(commitAlways, func(w *writeTx) error {
		b := s.timesNow().boots[w.boot].clone()
		b.Released[lane] = max(b.Released[lane], w.lanes[lane].last)
		w.done = append(w.done, func() { s.unsure.taken[lane] = time.Now() })
		return s.putTimes(w, b)
	})
	if err != nil {
		s.state.Lock()
		defer s.state.Unlock()
		if s.times == nil {
			s.times = &times{}
		}
		b := s.times.boots[s.boot].clone()
		b.Released[lane] = max(b.Released[lane], s.lanes[lane].last)
		s.times = s.times.with(s.boot, b)
	}
}

// Correct takes what time it was in this boot. Rows that were stored with no
// bound, and those that are yet to be, leave with their time put right by it, if
// they did not leave before. It is committed only where there may be such rows.
func (s *Store) Correct(ctx context.Context, c Correction) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("buffer: correct times: %w", err)
	}
	s.write.Lock()
	s.unsure.latest = &c
	open := s.unsure.open
	s.write.Unlock()
	if !open {
		return nil
	}
	err := s.commit(commitAlways, func(w *writeTx) error {
		b := s.timesNow().boots[w.boot].clone()
		if !b.Add(c) {
			return nil
		}
		w.done = append(w.done, func() { s.unsure.open = false })
		return s.putTimes(w, b)
	})
	if err != nil {
		return fmt.Errorf("buffer: correct times: %w", err)
	}
	return nil
}
