package buffer

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// A damaged chunk in a file whose tree is sound costs its own rows only. Peek
// declares them at once, as a hole of reason Damaged. Mend makes that last, and
// has what profiles had there read from the meters again.

// Mended is what Mend found and did.
type Mended struct {
	Lane        meter.Lane // of the first stretch
	First, Last uint64     // numbers of the first stretch, 0 for one given up before
	Stretches   int
	Lost        uint64 // rows that were not delivered, in all
	// Gap is what all profiles are to be read again of; it is empty when only
	// instant rows were lost.
	Gap meter.Gap
	// Cursors are those that got the gap.
	Cursors []meter.Cursor
}

// stretch is when the rows of a damaged chunk were taken, as far as can be told.
type stretch struct {
	lane        meter.Lane
	first, last uint64
	lost        uint64
	gap         meter.Gap
}

// NeedsMending says whether damage was met that Mend has not seen to.
func (s *Store) NeedsMending() bool {
	s.state.Lock()
	defer s.state.Unlock()
	return s.broken == nil && (len(s.hurt) > 0 || len(s.given) > 0)
}

// Mend puts a hole in the place of each damaged chunk that was met and was not
// delivered, and adds to all cursors the time of its rows as a gap: in one commit
// with the rows that report gives to tell of it, nil for none. Whoever holds
// cursors that are not stored yet adds the gap to them.
func (s *Store) Mend(ctx context.Context, report func(Mended) []meter.Row) (m Mended, err error) {
	if err := ctx.Err(); err != nil {
		return m, fmt.Errorf("buffer: mend: %w", err)
	}
	s.state.Lock()
	var hurt []chunkAt
	for at := range s.hurt {
		hurt = append(hurt, at)
	}
	given := slices.Clone(s.given)
	s.state.Unlock()
	err = s.commitRelieved(meter.Alarm, func(w *writeTx) (err error) {
		m, err = w.mend(hurt, given, s.opts.Now())
		if err != nil || m.Stretches == 0 || report == nil {
			return err
		}
		rows := report(m)
		for i := range rows {
			rows[i].Stamp.Boot = w.boot
		}
		return w.append(meter.Append{Rows: rows})
	})
	if err != nil {
		return Mended{}, fmt.Errorf("buffer: mend: %w", err)
	}
	s.state.Lock()
	defer s.state.Unlock()
	for _, at := range hurt {
		delete(s.hurt, at)
	}
	s.given = s.given[len(given):]
	return m, nil
}

func (w *writeTx) mend(hurt []chunkAt, given []stretch, now time.Time) (m Mended, err error) {
	all := given
	for _, at := range hurt {
		s, ok, err := w.mendChunk(at, now)
		if err != nil {
			return m, err
		}
		if ok {
			all = append(all, s)
		}
	}
	for _, s := range all {
		if m.Stretches == 0 {
			m.Lane, m.First, m.Last = s.lane, s.first, s.last
		}
		m.Stretches++
		m.Lost += s.lost
		if s.lane == meter.Instant || s.lost == 0 { // which is in no profile
			continue
		}
		if m.Gap == (meter.Gap{}) {
			m.Gap = s.gap
		}
		m.Gap.From, m.Gap.To = min(m.Gap.From, s.gap.From), max(m.Gap.To, s.gap.To)
	}
	if m.Gap == (meter.Gap{}) {
		return m, nil
	}
	return m, w.addGap(&m)
}

// mendChunk puts a hole in the place of a damaged chunk; ok is false when there is
// nothing to mend: it is gone, or was delivered.
func (w *writeTx) mendChunk(at chunkAt, now time.Time) (s stretch, ok bool, err error) {
	b, err := w.queue(at.lane)
	if err != nil {
		return s, false, err
	}
	l := &w.lanes[at.lane]
	walker := walk(b, at.lane, l.last)
	walker.seek(at.first)
	e, found := walker.next()
	if !found || e.first != at.first || e.chunk == nil || e.end <= l.acked {
		return s, false, nil
	}
	if e.err == nil {
		_, _, e.err = parseChunk(e.chunk)
	}
	if e.err == nil {
		return s, false, nil
	}
	s = w.stretchOf(b, at.lane, &e, now)
	hole := meter.Hole{First: e.first, Last: e.end, Reason: meter.Damaged, Count: s.lost}
	return s, true, w.replace(at.lane, []entry{e}, hole)
}

// stretchOf tells when the rows of a damaged chunk were taken: as its header says
// where that is possible, else as the chunks beside it were.
func (w *writeTx) stretchOf(b *bolt.Bucket, lane meter.Lane, e *entry, now time.Time) stretch {
	l := &w.lanes[lane]
	s := stretch{lane: lane, first: e.first, last: e.end, lost: e.end - max(e.first-1, min(l.acked, e.end))}
	const year2000, day = 946_684_800_000, 86_400_000
	if c := e.info; c.rows > 0 && c.first == e.first && c.oldest <= c.newest && c.oldest >= year2000 && c.newest <= now.UnixMilli()+day {
		s.gap = meter.Gap{From: c.oldest - 1, To: c.newest} // a gap begins behind its first moment
		return s
	}
	s.gap = meter.Gap{From: math.MinInt64, To: math.MaxInt64}
	at := walk(b, lane, l.last)
	at.seek(e.first - 1)
	for n, ok := at.next(); ok && n.first <= e.end+1; n, ok = at.next() {
		switch {
		case n.chunk == nil || n.err != nil || n.first == e.first || n.info.ageless:
		case n.first < e.first:
			s.gap.From = n.info.oldest - 1
		default:
			s.gap.To = n.info.newest
		}
	}
	return s
}

// addGap adds the gap to all cursors.
func (w *writeTx) addGap(m *Mended) error {
	b := w.tx.Bucket([]byte(bucketCursors))
	if b == nil {
		return fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketCursors)
	}
	err := b.ForEach(func(k, v []byte) error {
		value, whole := unseal(k, v)
		c, ok := parseCursor(value)
		if !whole || !ok {
			return nil // the profile is read from its beginning
		}
		if c.Meter, c.Serial, c.Profile, ok = parseCursorKey(k); !ok {
			return nil
		}
		before := c.Gaps
		if c.Gaps = c.Gaps.With(meter.Gap{From: m.Gap.From, To: min(m.Gap.To, c.Time)}); c.Gaps != before {
			m.Cursors = append(m.Cursors, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return w.addCursors(m.Cursors)
}

// gaveUp notes that a chunk which does not read was given up, so that Mend tells
// of it.
func (w *writeTx) gaveUp(lane meter.Lane, e *entry) {
	b, err := w.queue(lane)
	if err == nil {
		w.given = append(w.given, w.stretchOf(b, lane, e, w.now))
	}
}
