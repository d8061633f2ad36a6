package buffer

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// maxSpanHoles bounds the holes of one span.
const maxSpanHoles = 256

// Peek gives what follows number after in lane: at most maxRows rows, at least
// one, and the holes before, among and behind them. At the end of the lane the
// span is empty. The rows are the caller's.
//
// A damaged chunk is no error: its numbers come as a hole of reason Damaged.
// Numbers that are acknowledged and gone come as a hole of reason Quota.
//
// Rows that were stamped by a clock that nobody vouched for have their time put
// right where it became known since, and are held back while Options.Waits says
// that it may.
//
// The chunk that was decoded last is remembered, so that calls with a growing
// after decode every chunk once.
func (s *Store) Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error) {
	if !lane.Valid() {
		return meter.Span{}, fmt.Errorf("buffer: peek: %s: no such lane", lane)
	}
	span, held, err := s.take(lane, after, maxRows, true)
	if held {
		s.letGo(lane) // a commit, which may not be waited for under s.peek
		span, _, err = s.take(lane, after, maxRows, false)
	}
	return span, err
}

// take gives what Peek gives, and notes that it is on its way. held says that it
// gives nothing, since rows must be let go first that nothing holds back any more;
// it is asked for that when ask is set.
func (s *Store) take(lane meter.Lane, after uint64, maxRows int, ask bool) (span meter.Span, held bool, err error) {
	s.peek.Lock()
	defer s.peek.Unlock()
	b, err := s.collect(lane, after, maxRows)
	if err != nil {
		return meter.Span{}, false, err
	}
	if ask && b.held && !s.waits(lane) {
		return meter.Span{}, true, nil
	}
	s.handOut(lane, b.span.Last)
	return b.span, false, nil
}

// collect gathers what Peek gives. The caller holds s.peek.
func (s *Store) collect(lane meter.Lane, after uint64, maxRows int) (*spanBuilder, error) {
	b := newSpan(lane, after, maxRows)
	b.times = s.timesNow()
	s.state.Lock()
	last, err := s.lanes[lane].last, s.usable()
	s.state.Unlock()
	if err != nil {
		return b, fmt.Errorf("buffer: peek: %w", err)
	}
	if after >= last {
		return b, nil
	}
	if c := &s.cache; c.lane == lane && c.has(b.next) {
		b.addRows(c.first, c.rows)
	}
	if b.full() || b.next > last {
		return b, nil
	}
	err = s.view(func(tx *bolt.Tx) error {
		return b.fill(tx, &s.cache, func(first, count uint64) { s.noteDamage(lane, first, count) })
	})
	if err != nil {
		return b, fmt.Errorf("buffer: peek: lane %s: %w", lane, err)
	}
	return b, nil
}

// handOut notes that rows through that number may be on their way.
func (s *Store) handOut(lane meter.Lane, through uint64) {
	s.state.Lock()
	defer s.state.Unlock()
	s.handed[lane] = max(s.handed[lane], through)
}

func (s *Store) noteDamage(lane meter.Lane, first, count uint64) {
	s.state.Lock()
	defer s.state.Unlock()
	at := chunkAt{lane, first}
	if _, known := s.damaged[at]; !known {
		if s.hurt == nil {
			s.hurt = map[chunkAt]bool{}
		}
		s.hurt[at] = true
	}
	s.damaged[at] = count
}

// chunkCache is a decoded chunk.
type chunkCache struct {
	lane  meter.Lane
	first uint64
	rows  []meter.Row
}

func (c *chunkCache) has(n uint64) bool {
	return len(c.rows) > 0 && n >= c.first && n-c.first < uint64(len(c.rows))
}

// spanBuilder collects a span number by number.
type spanBuilder struct {
	span meter.Span
	next uint64 // the first number that is not accounted for
	max  int

	times *times
	held  bool // the next row must be let go first
}

func newSpan(lane meter.Lane, after uint64, maxRows int) *spanBuilder {
	return &spanBuilder{span: meter.Span{Lane: lane}, next: after + 1, max: max(1, maxRows), times: &times{}}
}

func (b *spanBuilder) full() bool {
	return b.held || len(b.span.Rows) >= b.max || len(b.span.Holes) >= maxSpanHoles
}

// addRows takes of rows, numbered from first on, those that are due and fit.
func (b *spanBuilder) addRows(first uint64, rows []meter.Row) {
	if first < b.next {
		rows = rows[min(b.next-first, uint64(len(rows))):]
	}
	rows = rows[:min(len(rows), b.max-len(b.span.Rows))]
	for i := range rows {
		if b.times.holds(b.span.Lane, b.next+uint64(i), &rows[i]) {
			rows, b.held = rows[:i], true
			break
		}
	}
	if len(rows) == 0 {
		return
	}
	n := uint64(len(rows))
	b.span.Rows = append(b.span.Rows, rows...)
	for i := range rows {
		b.times.correct(b.span.Lane, b.next+uint64(i), &b.span.Rows[len(b.span.Rows)-len(rows)+i])
	}
	if i := len(b.span.Runs) - 1; i >= 0 && b.span.Runs[i].First+b.span.Runs[i].Count == b.next {
		b.span.Runs[i].Count += n
	} else {
		b.span.Runs = append(b.span.Runs, meter.Run{First: b.next, Count: n})
	}
	b.next += n
	b.span.Last = b.next - 1
}

// addHole takes a hole as far as it is due.
func (b *spanBuilder) addHole(h meter.Hole) {
	if h.Last < b.next {
		return
	}
	h.First = max(h.First, b.next)
	b.span.Holes = append(b.span.Holes, h)
	b.next = h.Last + 1
	b.span.Last = h.Last
}

// gap declares the numbers before first that nothing accounts for.
func (b *spanBuilder) gap(first, evicted uint64) {
	if through := min(evicted, first-1); through >= b.next {
		b.addHole(meter.Hole{First: b.next, Last: through, Reason: meter.Quota, Count: through - b.next + 1})
	}
	if first > b.next {
		b.addHole(meter.Hole{First: b.next, Last: first - 1, Reason: meter.Damaged, Count: first - b.next})
	}
}

// fill goes on through the lane until the span is full or the lane ends.
func (b *spanBuilder) fill(tx *bolt.Tx, cache *chunkCache, damage func(first, count uint64)) error {
	lane := b.span.Lane
	meta, queue := tx.Bucket([]byte(bucketMeta)), tx.Bucket([]byte(lane.String()))
	if meta == nil || queue == nil {
		return fmt.Errorf("%w: no bucket of lane %s", ErrDamaged, lane)
	}
	l, err := getLane(meta, lane)
	if err != nil {
		return err
	}
	w := walk(queue, lane, l.last)
	w.seek(b.next)
	for !b.full() && b.next <= l.last {
		e, ok := w.next()
		if !ok {
			b.gap(l.last+1, l.evicted)
			return nil
		}
		if e.end < b.next || e.first > l.last {
			continue
		}
		if e.first > b.next {
			if b.gap(e.first, l.evicted); b.full() {
				return nil
			}
		}
		if e.err == nil && e.chunk != nil && !(cache.lane == lane && cache.first == e.first && len(cache.rows) > 0) {
			var rows []meter.Row
			if _, rows, e.err = parseChunk(e.chunk); e.err == nil {
				*cache = chunkCache{lane: lane, first: e.first, rows: rows}
			}
		}
		switch {
		case e.err != nil:
			damage(e.first, e.end-e.first+1)
			b.addHole(meter.Hole{First: b.next, Last: e.end, Reason: meter.Damaged, Count: e.end - b.next + 1})
		case e.chunk != nil:
			b.addRows(e.first, cache.rows)
		default:
			b.addHole(e.hole)
		}
	}
	return nil
}

// Cursor gives the cursor of a meter's profile. ok is false when there is none
// or it is damaged: the profile is then read from its beginning.
func (s *Store) Cursor(id meter.ID, serial string, profile meter.Channel) (c meter.Cursor, ok bool, err error) {
	k, storable := cursorKey(id, serial, profile)
	if !storable {
		return meter.Cursor{}, false, nil
	}
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketCursors))
		if b == nil {
			return fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketCursors)
		}
		v, whole := unseal(k, b.Get(k))
		if c, ok = parseCursor(v); !whole || !ok {
			c, ok = meter.Cursor{}, false
			return nil
		}
		c.Meter, c.Serial, c.Profile = id, serial, profile
		return nil
	})
	if err != nil {
		return meter.Cursor{}, false, fmt.Errorf("buffer: cursor of meter %s: %w", id, err)
	}
	return c, ok, nil
}

// Catalogue gives what SaveCatalogue stored, nil when there is none or it is
// damaged: the uplink then starts a new one.
func (s *Store) Catalogue() (catalogue []byte, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketCatalogue))
		if b == nil {
			return fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketCatalogue)
		}
		k := []byte(keyOne)
		if v, ok := unseal(k, b.Get(k)); ok {
			catalogue = append([]byte{}, v...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("buffer: catalogue: %w", err)
	}
	return catalogue, nil
}
