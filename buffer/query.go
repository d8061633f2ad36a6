package buffer

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/column"
	"gridgate/internal/meter"
)

// Query says which rows are wanted. The zero value wants all.
type Query struct {
	Meter   meter.ID      // empty is every meter
	Channel meter.Channel // canonical; empty is every channel
	// From and To bound the stamps, in milliseconds since 1970 UTC: From is
	// wanted, To is not. To of 0 is no bound.
	From, To int64
	Lanes    []meter.Lane // none is every lane
}

func (q *Query) wants(r *meter.Row) bool {
	return (q.Meter == "" || r.Meter == q.Meter) && (q.Channel == "" || r.Channel == q.Channel) &&
		r.Stamp.Time >= q.From && r.Stamp.Time < q.to()
}

func (q *Query) to() int64 {
	if q.To == 0 {
		return math.MaxInt64
	}
	return q.To
}

func (q *Query) lanes() []meter.Lane {
	if len(q.Lanes) == 0 {
		return meter.Lanes()
	}
	return q.Lanes
}

// queryStep bounds the chunks that are read in one transaction: a longer one
// keeps what is deleted meanwhile from being used again.
const queryStep = 16

// Query calls do for every row that is kept and wanted, acknowledged or not,
// lane by lane in order of their numbers: one chunk is in memory at a time, and
// appends go on meanwhile. What they bring after a lane was begun is left out, so
// that no row comes beside a sum of it; so is what an append gives up before it is
// read, as damaged chunks are. An error of do ends it and is returned as it is;
// the row is do's only until it returns.
func (s *Store) Query(q Query, do func(sequence uint64, row *meter.Row) error) error {
	for _, lane := range q.lanes() {
		if err := queryLane(s.view, q, lane, do); err != nil {
			return err
		}
	}
	return nil
}

// queryLane reads a lane with view.
func queryLane(view func(func(*bolt.Tx) error) error, q Query, lane meter.Lane, do func(uint64, *meter.Row) error) error {
	if !lane.Valid() {
		return fmt.Errorf("buffer: query: %s: no such lane", lane)
	}
	after, until, more := uint64(0), uint64(0), true
	for more {
		var found foundRows
		err := view(func(tx *bolt.Tx) (err error) {
			found, after, more, err = findRows(tx, &q, lane, after, &until)
			return err
		})
		if err != nil {
			return fmt.Errorf("buffer: query: lane %s: %w", lane, err)
		}
		for i := range found.rows {
			if err := do(found.numbers[i], &found.rows[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayBeIn says whether a chunk may have rows of the wanted meter: whether its
// dictionary has the name, which takes a fraction of what reading the rows does.
func (q *Query) mayBeIn(chunk []byte, c chunkInfo) bool {
	if q.Meter == "" {
		return true
	}
	names := chunk[chunkHeader : chunkHeader+c.dict]
	if chunk[7]&chunkPacked != 0 {
		var err error
		if names, err = column.Unpack(names); err != nil {
			return false // nor can its rows be read
		}
	}
	return bytes.Contains(names, []byte(q.Meter))
}

// foundRows is what is wanted of a chunk.
type foundRows struct {
	numbers []uint64
	rows    []meter.Row
}

// findRows looks through some chunks behind a number, until one has rows that
// are wanted, and says through which number it looked. It looks no further than
// until, which it sets to the lane's end where it is 0.
func findRows(tx *bolt.Tx, q *Query, lane meter.Lane, after uint64, until *uint64) (f foundRows, through uint64, more bool, err error) {
	meta, queue := tx.Bucket([]byte(bucketMeta)), tx.Bucket([]byte(lane.String()))
	if meta == nil || queue == nil {
		return f, 0, false, fmt.Errorf("%w: no bucket of lane %s", ErrDamaged, lane)
	}
	l, err := getLane(meta, lane)
	if err != nil {
		return f, 0, false, err
	}
	times := loadTimes(tx)
	if *until == 0 {
		*until = l.last
	}
	w := walk(queue, lane, l.last)
	w.seek(after + 1)
	var rows []meter.Row // of one chunk after the other
	for n := 0; n < queryStep; {
		e, ok := w.next()
		if !ok || e.first > *until {
			return f, after, false, nil
		}
		if e.end <= after {
			continue
		}
		after = e.end
		n++
		if e.err != nil || e.chunk == nil || !e.info.uncertain && (e.info.newest < q.From || e.info.oldest >= q.to()) {
			continue
		}
		if !q.mayBeIn(e.chunk, e.info) {
			continue
		}
		_, read, err := parseChunkInto(rows, e.chunk)
		if err != nil {
			continue
		}
		rows = read
		for i := range rows {
			times.correct(lane, e.first+uint64(i), &rows[i])
			if q.wants(&rows[i]) {
				f.rows = append(f.rows, rows[i])
				f.numbers = append(f.numbers, e.first+uint64(i))
			}
		}
		if len(f.rows) > 0 {
			return f, after, true, nil
		}
	}
	return f, after, true, nil
}

// QueryDir is Store.Query of the store in dir, which nobody may have open.
func QueryDir(dir string, q Query, do func(sequence uint64, row *meter.Row) error) error {
	r, err := openReader(dir)
	if err != nil {
		return err
	}
	defer r.close()
	for _, lane := range q.lanes() {
		if err := queryLane(r.view, q, lane, do); err != nil {
			return err
		}
	}
	return nil
}

// Resend gives what Peek would give, of numbers that were acknowledged: at most
// maxRows rows after number after and up to through, to be published again
// under their numbers. What is gone comes as a hole; what lies above Acked is not
// in it. An empty span says that there is nothing more. It takes no part in Peek's
// memory of the last chunk, so that a range can be sent again beside the queue.
func (s *Store) Resend(lane meter.Lane, after, through uint64, maxRows int) (meter.Span, error) {
	if !lane.Valid() {
		return meter.Span{}, fmt.Errorf("buffer: resend: %s: no such lane", lane)
	}
	through = min(through, s.Acked(lane))
	b := newSpan(lane, after, maxRows)
	if after >= through {
		return b.span, nil
	}
	b.max = int(min(uint64(b.max), through-after))
	b.times = &times{boots: s.timesNow().boots} // what was acknowledged left before
	err := s.view(func(tx *bolt.Tx) error {
		var cache chunkCache
		return b.fill(tx, &cache, func(first, count uint64) { s.noteDamage(lane, first, count) })
	})
	if err != nil {
		return meter.Span{}, fmt.Errorf("buffer: resend: lane %s: %w", lane, err)
	}
	return upTo(b.span, through), nil
}

// upTo cuts off what lies above a number.
func upTo(s meter.Span, through uint64) meter.Span {
	if s.Last <= through {
		return s
	}
	s.Last = through
	rows := uint64(0)
	for i := range s.Runs {
		r := &s.Runs[i]
		if r.First > through {
			s.Runs = s.Runs[:i]
			break
		}
		r.Count = min(r.Count, through-r.First+1)
		rows += r.Count
	}
	s.Rows = s.Rows[:rows]
	for i := range s.Holes {
		h := &s.Holes[i]
		if h.First > through {
			s.Holes = s.Holes[:i]
			break
		}
		if h.Last > through {
			h.Last, h.Count = through, min(h.Count, through-h.First+1)
		}
	}
	return s
}

// DroppedDir is Store.Dropped of the store in dir, which nobody may have open.
func DroppedDir(dir string) (list []Dropped, err error) {
	r, err := openReader(dir)
	if err != nil {
		return nil, err
	}
	defer r.close()
	err = r.view(func(tx *bolt.Tx) error {
		list = droppedOf(tx)
		return nil
	})
	if err != nil {
		return nil, openError(filepath.Join(dir, fileName), err)
	}
	return list, nil
}
