package buffer

import (
	"fmt"
	"math"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// entry is what stands under a key of a lane: a chunk or a hole, or damage.
type entry struct {
	key   []byte // valid in the transaction only
	first uint64
	end   uint64     // the last number that it accounts for
	chunk []byte     // the chunk, valid in the transaction only; nil for a hole
	info  chunkInfo  // of a chunk that err says nothing against
	hole  meter.Hole // when chunk is nil and err is nil
	err   error      // what is wrong with it; end is then where the next entry starts
}

// size is the room that the entry's chunk takes.
func (e *entry) size() uint64 {
	if e.chunk == nil {
		return 0
	}
	return footprint(len(e.chunk))
}

// rows is how many numbers of the entry carry rows.
func (e *entry) rows() uint64 {
	switch {
	case e.chunk == nil:
		return 0
	case e.err != nil:
		return e.end - e.first + 1
	}
	return uint64(e.info.rows)
}

// walker goes through the entries of a lane in order of their numbers.
type walker struct {
	lane meter.Lane
	b    *bolt.Bucket
	c    *bolt.Cursor
	last uint64 // of the lane
	k, v []byte // what next gives
}

func walk(b *bolt.Bucket, lane meter.Lane, last uint64) *walker {
	return &walker{lane: lane, b: b, c: b.Cursor(), last: last}
}

// seek goes to the entry that accounts for number n, or to the next one.
func (w *walker) seek(n uint64) {
	w.k, w.v = w.c.Seek(sequenceKey(n))
	if first, ok := parseSequenceKey(w.k); ok && first == n {
		return
	}
	if w.k == nil {
		w.k, w.v = w.c.Last()
		return
	}
	if w.k, w.v = w.c.Prev(); w.k == nil {
		w.k, w.v = w.c.First()
	}
}

// next gives the entry and goes on. ok is false at the end.
func (w *walker) next() (e entry, ok bool) {
	k, v := w.k, w.v
	if k == nil {
		return entry{}, false
	}
	w.k, w.v = w.c.Next()
	e.key = k
	first, good := parseSequenceKey(k)
	if !good {
		e.err = fmt.Errorf("%w: key % x", ErrDamaged, k)
		return e, true
	}
	e.first, e.end = first, w.last
	if after, ok := parseSequenceKey(w.k); ok {
		e.end = after - 1
	}
	if v != nil {
		if e.hole, e.err = parseHole(first, v); e.err == nil && e.hole.Last > e.end {
			e.err = fmt.Errorf("%w: hole from %d to %d runs into %d", ErrDamaged, first, e.hole.Last, e.end+1)
		}
		if e.err == nil {
			e.end = e.hole.Last
		}
		return e, true
	}
	if c := w.b.Bucket(k); c != nil {
		e.chunk = c.Get([]byte(keyOne))
	}
	e.info, e.err = parseChunkInfo(e.chunk)
	if e.err == nil && (e.info.first != first || e.info.lane != w.lane || e.info.last() > e.end) {
		e.err = fmt.Errorf("%w: chunk of lane %s from %d to %d stands at %d",
			ErrDamaged, e.info.lane, e.info.first, e.info.last(), first)
	}
	if e.err == nil {
		e.end = e.info.last()
	} else if e.chunk == nil {
		e.chunk = []byte{} // a chunk, not a hole
	}
	return e, true
}

// acknowledge moves a lane's mark, and counts what is now wholly acknowledged
// as hot. It costs what was newly acknowledged, not what is kept.
func (w *writeTx) acknowledge(lane meter.Lane, through uint64) error {
	l := &w.lanes[lane]
	l.acked = max(l.acked, min(through, l.last))
	if l.hot == l.acked {
		return nil
	}
	b, err := w.queue(lane)
	if err != nil {
		return err
	}
	walk := walk(b, lane, l.last)
	walk.seek(l.hot + 1)
	for range maxEntries {
		e, ok := walk.next()
		if !ok || e.end > l.acked {
			return nil
		}
		if e.end <= l.hot {
			continue
		}
		l.hot = e.end
		l.hotBytes += e.size()
	}
	return nil
}

// maxEntries bounds what one transaction counts as hot and what it gives up,
// and so its memory; the rest is for the next one.
const maxEntries = 1024

// keepHoles is how many holes a lane may have before those in front that are
// acknowledged go, even when there is room: a lane that has nothing else would
// collect them for ever.
const keepHoles = 1024

// evictStep is how far below its limit the hot store is brought when it is over:
// not every commit then has to write the page at the front of a lane too.
const evictStep = 256 << 10

// evict gives up the oldest acknowledged chunks, whatever their lane, when they
// are over the limit, and acknowledged holes that come to stand in front.
func (w *writeTx) evict() error {
	for _, lane := range meter.Lanes() {
		if w.lanes[lane].holes <= keepHoles {
			continue
		}
		if _, _, err := w.front(lane); err != nil {
			return err
		}
	}
	goal := w.hotRoom()
	for range maxEntries {
		var hot uint64
		for i := range w.lanes {
			hot += w.lanes[i].hotBytes
		}
		if hot <= goal {
			return nil
		}
		if room := w.hotRoom(); goal == room {
			goal -= min(room/16, evictStep)
		}
		oldest, at, age := entry{}, meter.Lane(laneCount), uint64(math.MaxUint64)
		for _, lane := range meter.Lanes() {
			e, ok, err := w.front(lane)
			if err != nil {
				return err
			}
			if ok && e.info.commit < age {
				oldest, at, age = e, lane, e.info.commit
			}
		}
		if !at.Valid() { // the counter is wrong, which is no reason to stop
			for i := range w.lanes {
				w.lanes[i].hotBytes = 0
			}
			return nil
		}
		if err := w.drop(at, &oldest); err != nil {
			return err
		}
	}
	return nil
}

// front gives the first chunk of a lane when it is wholly acknowledged, and
// removes acknowledged holes before it.
func (w *writeTx) front(lane meter.Lane) (entry, bool, error) {
	l := &w.lanes[lane]
	if l.hot <= l.evicted {
		return entry{}, false, nil
	}
	b, err := w.queue(lane)
	if err != nil {
		return entry{}, false, err
	}
	for {
		walk := walk(b, lane, l.last)
		walk.seek(0)
		e, ok := walk.next()
		if !ok || e.end > l.hot {
			return entry{}, false, nil
		}
		if e.chunk != nil {
			return e, true, nil
		}
		if err := w.drop(lane, &e); err != nil {
			return entry{}, false, err
		}
	}
}

// drop removes the first entry of a lane.
func (w *writeTx) drop(lane meter.Lane, e *entry) error {
	b, err := w.queue(lane)
	if err != nil {
		return err
	}
	l := &w.lanes[lane]
	key := append([]byte(nil), e.key...)
	if e.chunk == nil {
		err = b.Delete(key)
		less(&l.holes, 1)
	} else {
		err = b.DeleteBucket(key)
		less(&l.rows, e.rows())
		less(&l.bytes, e.size())
		less(&l.hotBytes, e.size())
		less(&l.chunks, 1)
	}
	if err != nil {
		return fmt.Errorf("lane %s: number %d: %w", lane, e.first, err)
	}
	l.evicted = max(l.evicted, e.end)
	return nil
}
