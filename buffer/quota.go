package buffer

import (
	"errors"
	"math"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// Limit bounds what is kept, acknowledged or not; 0 is no bound.
type Limit struct {
	Bytes int64         // octets of flash that the chunks take
	Age   time.Duration // from a row's stamp on
}

// Quota bounds the store. Over it, what is acknowledged goes first, the oldest
// before the rest; then the instant lane by age; then the interval lane is
// thinned (see thinner) and, when there is nothing left to thin, dropped by
// age; then billing, and alarm last. A lane over its own limit gives up its
// own rows in the same way. Every row that was not acknowledged is declared in
// a hole of reason Quota and counted (Dropped).
//
// Total.Bytes should be well below Options.MaxSize: what a commit brings is
// stored first, and room in the file is in pieces.
type Quota struct {
	Total Limit
	Lanes [laneCount]Limit // by meter.Lane
}

const (
	// maxShed bounds the steps of one transaction over the quota; the rest is
	// for the next one.
	maxShed = 64
	// expirePause is how often the ages of all chunks are looked at: that
	// reads a page of each.
	expirePause = 6 * time.Hour
)

// limitOf gives a limit as octets.
func limitOf(n int64) uint64 {
	if n <= 0 {
		return math.MaxUint64
	}
	return uint64(n)
}

// goalOf is how far what is over a limit is brought down: a sixteenth below,
// so that not every commit has to; but no further than need be where rows are
// precious.
func goalOf(limit uint64, lane meter.Lane) uint64 {
	if lane <= meter.Billing {
		return limit
	}
	return limit - limit/16
}

// hotRoom is what acknowledged chunks may take of the quota.
func (w *writeTx) hotRoom() uint64 {
	total := limitOf(w.quota.Total.Bytes)
	var waiting uint64
	for i := range w.lanes {
		waiting += w.lanes[i].bytes - min(w.lanes[i].bytes, w.lanes[i].hotBytes)
	}
	return min(w.hotLimit, total-min(total, waiting))
}

func (w *writeTx) total() (n uint64) {
	for i := range w.lanes {
		n += w.lanes[i].bytes
	}
	return n
}

// shed brings the store within its quota.
func (w *writeTx) shed() error {
	steps := maxShed
	for _, lane := range leastFirst() {
		limit := limitOf(w.quota.Lanes[lane].Bytes)
		if w.lanes[lane].bytes <= limit {
			continue
		}
		goal := goalOf(limit, lane)
		if err := w.shedTo(&steps, func() (meter.Lane, bool) { return lane, w.lanes[lane].bytes > goal }); err != nil {
			return err
		}
	}
	limit := limitOf(w.quota.Total.Bytes)
	if w.total() <= limit {
		return nil
	}
	return w.shedTo(&steps, func() (meter.Lane, bool) {
		lane, ok := w.leastWaiting(meter.Alarm)
		return lane, ok && w.total() > goalOf(limit, lane)
	})
}

// shedTo gives up rows of the lane that next names until it names none.
func (w *writeTx) shedTo(steps *int, next func() (meter.Lane, bool)) error {
	for ; *steps > 0; *steps-- {
		lane, ok := next()
		if !ok {
			return nil
		}
		did, err := w.giveUp(lane)
		if err != nil || !did {
			return err
		}
	}
	return nil
}

func leastFirst() []meter.Lane {
	return []meter.Lane{meter.Instant, meter.Interval, meter.Billing, meter.Alarm}
}

// leastWaiting gives the least important lane that has chunks which are not
// wholly acknowledged, but none more important than most.
func (w *writeTx) leastWaiting(most meter.Lane) (meter.Lane, bool) {
	for _, lane := range leastFirst() {
		if l := &w.lanes[lane]; lane >= most && l.bytes > l.hotBytes {
			return lane, true
		}
	}
	return 0, false
}

// giveUp makes one step of room in a lane. did is false when it has nothing.
func (w *writeTx) giveUp(lane meter.Lane) (did bool, err error) {
	if w.lanes[lane].hotBytes > 0 {
		e, ok, err := w.front(lane)
		if err != nil {
			return false, err
		}
		if ok {
			return true, w.drop(lane, &e)
		}
	}
	if lane == meter.Interval {
		if did, err := w.thin(lane); did || err != nil {
			return did, err
		}
	}
	return w.dropOldest(lane)
}

// dropOldest gives up the first chunk that is not wholly acknowledged. Rows that
// were thinned have new numbers, so they stand behind what was not.
func (w *writeTx) dropOldest(lane meter.Lane) (did bool, err error) {
	b, err := w.queue(lane)
	if err != nil {
		return false, err
	}
	l := &w.lanes[lane]
	walk := walk(b, lane, l.last)
	walk.seek(l.hot + 1)
	for {
		e, ok := walk.next()
		if !ok { // the counter is wrong: a damaged chunk does not say what it took
			l.bytes = min(l.bytes, l.hotBytes)
			return false, nil
		}
		if e.end > l.hot && e.chunk != nil {
			return true, w.lose(lane, &e)
		}
	}
}

// lose puts a hole in the place of a chunk and counts its rows.
func (w *writeTx) lose(lane meter.Lane, e *entry) error {
	acked := w.lanes[lane].acked
	hole := meter.Hole{First: e.first, Last: e.end, Reason: meter.Quota, Count: e.end - max(e.first-1, min(acked, e.end))}
	_, rows, err := parseChunk(e.chunk)
	if err != nil {
		hole.Reason = meter.Damaged
		w.gaveUp(lane, e)
	}
	for i := range rows {
		if e.first+uint64(i) > acked {
			w.dropped.add(&rows[i], 1)
		}
	}
	return w.replace(lane, []entry{*e}, hole)
}

// replace puts a hole in the place of entries that stand side by side, and
// joins it with a hole of the same reason before it and behind it.
func (w *writeTx) replace(lane meter.Lane, entries []entry, hole meter.Hole) error {
	b, err := w.queue(lane)
	if err != nil {
		return err
	}
	l := &w.lanes[lane]
	l.lost += hole.Count
	keys := make([][]byte, len(entries)) // keys do not outlive the first change
	for i := range entries {
		keys[i] = append([]byte(nil), entries[i].key...)
	}
	for i := range entries {
		e := &entries[i]
		if e.chunk == nil {
			less(&l.holes, 1)
			err = b.Delete(keys[i])
		} else {
			less(&l.rows, e.rows())
			less(&l.bytes, e.size())
			less(&l.chunks, 1)
			err = b.DeleteBucket(keys[i])
		}
		if err != nil {
			return err
		}
	}
	if after, ok := holeAt(b, hole.Last+1); ok && after.Reason == hole.Reason {
		if err := b.Delete(sequenceKey(after.First)); err != nil {
			return err
		}
		hole.Last, hole.Count = after.Last, hole.Count+after.Count
		less(&l.holes, 1)
	}
	before, ok := w.written[lane], w.written[lane].Last+1 == hole.First
	if !ok { // a cursor does not go back over pages that this transaction has emptied
		before, ok = holeBefore(b, hole.First)
	}
	if ok && before.Reason == hole.Reason && before.First > l.hot {
		hole.First, hole.Count = before.First, hole.Count+before.Count
		less(&l.holes, 1)
	}
	l.holes++
	w.written[lane] = hole
	return b.Put(sequenceKey(hole.First), sealHole(hole))
}

// holeAt gives the hole that begins at a number.
func holeAt(b *bolt.Bucket, first uint64) (meter.Hole, bool) {
	v := b.Get(sequenceKey(first))
	if v == nil {
		return meter.Hole{}, false
	}
	h, err := parseHole(first, v)
	return h, err == nil
}

// holeBefore gives the hole that ends right before a number.
func holeBefore(b *bolt.Bucket, n uint64) (meter.Hole, bool) {
	c := b.Cursor()
	k, _ := c.Seek(sequenceKey(n))
	var v []byte
	if k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	first, ok := parseSequenceKey(k)
	if !ok || v == nil {
		return meter.Hole{}, false
	}
	h, err := parseHole(first, v)
	return h, err == nil && h.Last+1 == n
}

// expire gives up what is older than a lane's or the store's limit of age. The
// age of a chunk, that of its newest row, counts from the earlier of the
// gateway's clock and the lane's newest row, so that neither a clock nor a
// meter that is years ahead empties the store alone.
func (w *writeTx) expire(now time.Time) error {
	for _, lane := range leastFirst() {
		age := w.quota.Lanes[lane].Age
		if total := w.quota.Total.Age; age <= 0 || total > 0 && total < age {
			age = total
		}
		if age <= 0 {
			continue
		}
		if err := w.expireLane(lane, now.UnixMilli(), age.Milliseconds()); err != nil {
			return err
		}
	}
	return nil
}

func (w *writeTx) expireLane(lane meter.Lane, now, age int64) error {
	b, err := w.queue(lane)
	if err != nil {
		return err
	}
	newest := int64(math.MinInt64)
	l := &w.lanes[lane]
	at := walk(b, lane, l.last)
	at.seek(0)
	for e, ok := at.next(); ok; e, ok = at.next() {
		if e.err == nil && e.chunk != nil && !e.info.ageless {
			newest = max(newest, e.info.newest)
		}
	}
	if newest == math.MinInt64 {
		return nil
	}
	before := min(now, newest) - age
	for range maxEntries { // acknowledged ones go from the front
		e, ok, err := w.front(lane)
		if err != nil {
			return err
		}
		if !ok || e.err != nil || !isOlder(b, lane, l, &e, before) {
			break
		}
		if err := w.drop(lane, &e); err != nil {
			return err
		}
	}
	for range maxEntries {
		e, ok := firstOlder(b, lane, l, before)
		if !ok {
			return nil
		}
		if err := w.lose(lane, &e); err != nil {
			return err
		}
	}
	return nil
}

// firstOlder gives the first chunk that waits and is older than before.
func firstOlder(b *bolt.Bucket, lane meter.Lane, l *laneState, before int64) (entry, bool) {
	at := walk(b, lane, l.last)
	at.seek(l.hot + 1)
	for {
		e, ok := at.next()
		if !ok {
			return entry{}, false
		}
		if e.end > l.hot && e.err == nil && e.chunk != nil && isOlder(b, lane, l, &e, before) {
			return e, true
		}
	}
}

// isOlder says whether a chunk is older than before. One whose rows were all
// stamped by a clock that nobody vouched for is as old as the next one that was
// not.
func isOlder(b *bolt.Bucket, lane meter.Lane, l *laneState, e *entry, before int64) bool {
	if !e.info.ageless {
		return e.info.newest < before
	}
	at := walk(b, lane, l.last)
	at.seek(e.end + 1)
	for next, ok := at.next(); ok; next, ok = at.next() {
		if next.first > e.end && next.err == nil && next.chunk != nil && !next.info.ageless {
			return next.info.newest < before
		}
	}
	return false
}

// relieve makes room when the disk or the file is full: what is acknowledged
// goes first, then rows of lanes that are no more important than most, as over
// the quota. Billing and alarm are never given up for a full disk. did is false
// when there is nothing to give up, or no quota says that anything may be.
func (s *Store) relieve(most meter.Lane) (did bool, err error) {
	if s.canGiveUp() {
		before := s.counters()
		err := s.commit(commitAlways, func(w *writeTx) error { w.hotLimit = 0; return nil })
		if err != nil || s.counters() != before {
			return true, err
		}
		// Nothing went: an acknowledgement may end within a long hole.
	}
	if s.opts.Quota == (Quota{}) {
		return false, nil
	}
	most = max(most, meter.Interval)
	err = s.commit(commitAlways, func(w *writeTx) error {
		lane, ok := w.leastWaiting(most)
		if !ok {
			return errNothing
		}
		had, steps := w.total(), maxShed
		err := w.shedTo(&steps, func() (meter.Lane, bool) {
			lane, ok = w.leastWaiting(most)
			return lane, ok && w.total()+relieveBytes > had
		})
		did = w.total() < had
		return err
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return did, err
}

func (s *Store) counters() [laneCount]laneState {
	s.state.Lock()
	defer s.state.Unlock()
	return s.lanes
}

// relieveBytes is how much room is made at a time when the disk is full.
const relieveBytes = 256 << 10

var errNothing = errors.New("nothing to give up")
