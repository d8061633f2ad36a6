package buffer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// salvager takes what reads of a damaged file into a new store: chunk by chunk,
// in the order of lanes and numbers, as they are but for their numbers.
type salvager struct {
	r    io.ReaderAt
	size int64
	to   *Store
	old  *remains
	tree *surveyed
	done Recovery

	next    [laneCount]uint64 // the first number of the old store that is not accounted for
	newest  [laneCount]found  // the chunk that accounted for those before it
	noRoom  [laneCount]uint64 // rows waiting to be declared
	full    bool
	hotFrom uint64 // acknowledged chunks of older commits are left behind
	lostAge int64  // no row that was lost is older, as far as can be told

	batch []step
	bytes int
}

// step is a thing to store: a chunk at a place of the damaged file, or a hole.
type step struct {
	found

	acked  uint64 // rows of the chunk that are acknowledged
	reason meter.Reason
	count  uint64
}

// salvage brings what reads of size octets of a damaged file into the new store
// to, which does not sync.
func salvage(r io.ReaderAt, size int64, to *Store) (Recovery, error) {
	s := &salvager{r: r, size: size, to: to, old: newRemains(), lostAge: math.MaxInt64}
	err := guarded(func() error { return s.run() })
	return s.done, err
}

func (s *salvager) run() error {
	s.tree = survey(s.r, s.size, s.old.add)
	s.old.wholeBoots, s.old.wholeCursors = s.tree.complete(bucketBoots), s.tree.complete(bucketCursors)
	x := chunkIndex{limit: indexLimit}
	for pass := 0; ; pass++ {
		s.search(&x, pass == 0)
		list := resolve(x.list)
		if pass == 0 {
			if err := s.begin(list); err != nil {
				return err
			}
		}
		for i := range list {
			if err := s.take(&list[i]); err != nil {
				return err
			}
		}
		if !x.bounded {
			break
		}
		x = chunkIndex{limit: x.limit, from: x.until}
	}
	for _, lane := range meter.Lanes() {
		if err := s.end(lane); err != nil {
			return err
		}
	}
	if err := s.flush(); err != nil {
		return err
	}
	return s.cursors()
}

// search fills the index, and collects small values that do not hang in the
// tree when it is damaged.
func (s *salvager) search(x *chunkIndex, first bool) {
	var page func(id uint64, b []byte)
	if first {
		page = func(id uint64, b []byte) {
			if !s.tree.live(id) {
				leafValues(id, b, func(k, v []byte) { s.old.addLoose(k, v, false) })
			}
		}
	}
	scan(s.r, s.size, func(at int64, c chunkInfo, b []byte) {
		f := found{
			at: at, first: c.first, commit: c.commit, rows: c.rows, size: uint32(len(b)), lane: c.lane,
			oldest: c.oldest, live: s.tree.live(uint64(at) / pageSize),
		}
		if !f.live && s.tree.complete(c.lane.String()) {
			// At best a copy of a chunk that is damaged where it hangs in the tree.
			if f.commit = 0; f.last() > s.old.lanes[c.lane].last {
				return // of a commit that was never completed
			}
		}
		x.add(f)
	}, page)
}

// begin gives the new store what must be there before the first chunk: the
// table of boots, that rows refer to.
func (s *salvager) begin(list []found) error {
	for _, lane := range meter.Lanes() {
		s.next[lane] = max(s.old.lanes[lane].evicted, s.old.lanes[lane].acked) + 1
		if !s.old.known[lane] {
			s.next[lane], s.done.Unsure = 0, true
		}
	}
	s.chooseHot(list)
	if len(s.old.boots) == 0 {
		if boot := s.lastBoot(list); boot > 0 {
			s.old.boots[boot] = "" // some boot that is no longer known
		}
	}
	return s.to.db.Update(func(tx *bolt.Tx) error {
		boots := tx.Bucket([]byte(bucketBoots))
		for number, id := range s.old.boots {
			k := bootKey(number)
			if err := boots.Put(k, seal(k, []byte(id))); err != nil {
				return err
			}
		}
		return nil
	})
}

// chooseHot decides how far back acknowledged chunks are taken along.
func (s *salvager) chooseHot(list []found) {
	var hot []*found
	for i := range list {
		if f := &list[i]; f.last() <= s.old.lanes[f.lane].acked {
			hot = append(hot, f)
		}
	}
	sortby.Stable(hot, func(a, b *found) int { return cmp.Compare(b.commit, a.commit) })
	room := uint64(max(0, s.to.opts.HotBytes))
	for _, f := range hot {
		if room < footprint(int(f.size)) {
			s.hotFrom = f.commit
			return
		}
		room -= footprint(int(f.size))
	}
}

// lastBoot looks for the highest boot that the newest rows name.
func (s *salvager) lastBoot(list []found) (boot uint32) {
	for i := range list {
		if i+1 < len(list) && list[i+1].lane == list[i].lane {
			continue
		}
		_, rows, err := parseChunk(s.read(&list[i]))
		if err != nil {
			continue
		}
		for j := range rows {
			boot = max(boot, rows[j].Stamp.Boot)
		}
	}
	return boot
}

func (s *salvager) read(f *found) []byte {
	b := make([]byte, f.size)
	lenientReader{s.r}.read(b, f.at)
	return b
}

// whole gives a chunk with the times that were known of its rows: they get other
// numbers here, by which nothing more is known of them.
func (s *salvager) whole(f *found) []byte {
	b := s.read(f)
	t := times{boots: s.old.times}
	if out, err := t.chunk(b); err == nil {
		return out
	}
	return b
}

// take stores a chunk, and declares what is missing before it.
func (s *salvager) take(f *found) error {
	l := &s.old.lanes[f.lane]
	if f.last() <= l.evicted || s.dropped(f) {
		return nil
	}
	if err := s.missing(f.lane, f.first-1, f.oldest); err != nil {
		return err
	}
	s.next[f.lane], s.newest[f.lane] = max(s.next[f.lane], f.last()+1), *f
	st := step{found: *f}
	if l.acked >= f.first {
		if st.acked = min(l.acked, f.last()) - f.first + 1; f.last() <= l.acked && f.commit <= s.hotFrom {
			return nil
		}
	}
	if s.full {
		s.leave(&st)
		return nil
	}
	return s.add(st, int(f.size))
}

// dropped says whether a hole in the tree stands where the chunk claims to be.
func (s *salvager) dropped(f *found) bool {
	holes := s.holes(f.lane, f.first)
	return len(holes) > 0 && holes[0].First <= f.last()
}

// holes gives the holes of the tree that end at or behind number n.
func (s *salvager) holes(lane meter.Lane, n uint64) []meter.Hole {
	all := s.old.holes[lane]
	i, _ := slices.BinarySearchFunc(all, n, func(h meter.Hole, n uint64) int { return cmp.Compare(h.Last, n) })
	return all[i:]
}

// missing declares what is not accounted for, up to through: the holes that
// there were, and the rest as damaged. oldest is the age of the chunk behind.
func (s *salvager) missing(lane meter.Lane, through uint64, oldest int64) error {
	next := s.next[lane]
	if next == 0 { // no counters: whatever was before the first chunk is long gone
		s.next[lane] = through + 1
		return nil
	}
	for _, h := range s.holes(lane, next) {
		if h.First > through {
			break
		}
		if err := s.lost(lane, next, h.First-1, oldest); err != nil {
			return err
		}
		if err := s.add(step{found: found{lane: lane}, reason: h.Reason, count: h.Count}, 0); err != nil {
			return err
		}
		next = h.Last + 1
	}
	if err := s.lost(lane, next, through, oldest); err != nil {
		return err
	}
	s.next[lane] = max(next, through+1)
	return nil
}

func (s *salvager) lost(lane meter.Lane, first, last uint64, oldest int64) error {
	if first > last {
		return nil
	}
	s.done.Lost += last - first + 1
	s.age(lane, oldest)
	return s.add(step{found: found{lane: lane}, reason: meter.Damaged, count: last - first + 1}, 0)
}

// age notes how old what was lost may be: as the chunks beside it.
func (s *salvager) age(lane meter.Lane, oldest int64) {
	if before := &s.newest[lane]; before.rows > 0 {
		oldest = min(oldest, before.oldest)
	} else {
		oldest = math.MinInt64
	}
	if lane != meter.Instant { // which is in no profile
		s.lostAge = min(s.lostAge, oldest)
	}
}

// end declares what is missing behind the last chunk of a lane.
func (s *salvager) end(lane meter.Lane) error {
	if !s.old.known[lane] {
		s.age(lane, math.MaxInt64)
		if err := s.add(step{found: found{lane: lane}, reason: meter.Damaged}, 0); err != nil {
			return err
		}
	} else if err := s.missing(lane, s.old.lanes[lane].last, math.MaxInt64); err != nil {
		return err
	}
	if lane == meter.Instant && !s.old.clean { // what waited in memory
		if err := s.add(step{found: found{lane: lane}, reason: meter.UncleanStop}, 0); err != nil {
			return err
		}
	}
	if n := s.noRoom[lane]; n > 0 {
		return s.add(step{found: found{lane: lane}, reason: meter.Quota, count: n}, 0)
	}
	return nil
}

// add puts a step into the batch, and stores that when it is large enough.
func (s *salvager) add(st step, size int) error {
	const maxSteps, maxBytes = 256, 2 << 20
	s.batch = append(s.batch, st)
	if s.bytes += size; len(s.batch) < maxSteps && s.bytes < maxBytes {
		return nil
	}
	return s.flush()
}

// flush stores the batch.
func (s *salvager) flush() error {
	batch := s.batch
	s.batch, s.bytes = nil, 0
	return s.commit(batch)
}

// commit stores a batch, or without room for all of it what there is room for:
// its holes at least.
func (s *salvager) commit(batch []step) error {
	if s.full {
		batch = slices.DeleteFunc(batch, func(st step) bool {
			if st.rows > 0 {
				s.leave(&st)
			}
			return st.rows > 0
		})
	}
	do := func(w *writeTx) error { return s.store(w, batch) }
	err := s.to.commit(commitAlways, do)
	if errors.Is(err, ErrFull) && s.to.canGiveUp() {
		giveUp := func(w *writeTx) error { w.hotLimit = 0; return nil }
		if err = s.to.commit(commitAlways, giveUp); err == nil {
			err = s.to.commit(commitAlways, do)
		}
	}
	switch n := len(batch); {
	case err == nil:
		s.count(batch)
		return nil
	case !errors.Is(err, ErrFull) || n == 0 || s.full:
		return err
	case n == 1:
		s.full = true
		return s.commit(batch)
	default:
		return errors.Join(s.commit(batch[:n/2]), s.commit(batch[n/2:]))
	}
}

func (s *salvager) count(batch []step) {
	for i := range batch {
		if st := &batch[i]; st.rows > 0 {
			s.done.Chunks++
			s.done.Rows += uint64(st.rows)
			s.done.Waiting += uint64(st.rows) - st.acked
		}
	}
}

// leave counts the rows of a chunk that there is no room for.
func (s *salvager) leave(st *step) {
	n := uint64(st.rows) - st.acked
	s.noRoom[st.lane] += n
	s.done.NoRoom += n
	s.age(st.lane, st.oldest)
}

// store writes a batch.
func (s *salvager) store(w *writeTx, batch []step) error {
	for i := range batch {
		st := &batch[i]
		var err error
		switch {
		case st.rows == 0:
			err = w.addHole(st.lane, st.reason, st.count)
		case st.acked == 0 || st.acked == uint64(st.rows):
			if err = w.addChunk(st.lane, s.whole(&st.found)); err == nil && st.acked > 0 {
				err = w.acknowledge(st.lane, w.lanes[st.lane].last)
			}
		default:
			err = s.split(w, st)
		}
		if err != nil {
			return err
		}
	}
	if w.need > 0 && w.need+headroom > w.room {
		return fmt.Errorf("%w: %d octets are left of the store's size", ErrFull, w.room)
	}
	return nil
}

// split stores a chunk whose first rows are acknowledged as two.
func (s *salvager) split(w *writeTx, st *step) error {
	whole := s.whole(&st.found)
	_, rows, err := parseChunk(whole)
	if err != nil {
		return w.addHole(st.lane, meter.Damaged, uint64(st.rows)-st.acked)
	}
	for i, part := range [][]meter.Row{rows[:st.acked], rows[st.acked:]} {
		for len(part) > 0 {
			chunk, n, err := cutChunk(nil, st.lane, 1, 1, part)
			if err != nil {
				return err
			}
			chunk[6] = whole[6] // the level; addChunk seals it
			if err := w.addChunk(st.lane, chunk); err != nil {
				return err
			}
			part = part[n:]
		}
		if i == 0 {
			if err := w.acknowledge(st.lane, w.lanes[st.lane].last); err != nil {
				return err
			}
		}
	}
	return nil
}

// cursors stores the cursors. They say that what was lost is to be read again.
func (s *salvager) cursors() error {
	all := make([]meter.Cursor, 0, len(s.old.cursors))
	from := s.lostAge
	if from != math.MinInt64 {
		from-- // a gap begins behind its first moment
	}
	for _, c := range s.old.cursors {
		c.Gaps = c.Gaps.With(meter.Gap{From: from, To: c.Time})
		all = append(all, c.Cursor)
	}
	err := s.to.commit(commitAlways, func(w *writeTx) error { return w.addCursors(all) })
	if err == nil {
		s.done.Cursors = uint64(len(all))
	}
	return err
}

// addChunk stores a chunk under the lane's next numbers.
func (w *writeTx) addChunk(lane meter.Lane, chunk []byte) error {
	b, err := w.queue(lane)
	if err != nil {
		return err
	}
	l := &w.lanes[lane]
	le := binary.LittleEndian
	le.PutUint64(chunk[8:], l.last+1)
	le.PutUint64(chunk[16:], w.number)
	le.PutUint32(chunk[52:], chunkSum(chunk))
	c, err := b.CreateBucket(sequenceKey(l.last + 1))
	if err != nil {
		return fmt.Errorf("lane %s: number %d: %w", lane, l.last+1, err)
	}
	if err := c.Put([]byte(keyOne), chunk); err != nil {
		return err
	}
	n, size := uint64(le.Uint32(chunk[40:])), footprint(len(chunk))
	l.last += n
	l.rows += n
	l.bytes += size
	l.chunks++
	w.need += size
	return nil
}
