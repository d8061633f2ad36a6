package buffer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// Append stores a in one commit and returns when it is on the disk: losses get
// their place in the sequence first, then the rows, in their order; cursors and
// waiting acknowledgements ride along. ctx is looked at before the commit only:
// a commit is not interrupted.
//
// An error that wraps ErrFull says that there was no room even after every
// acknowledged chunk was given up. A row that no store could ever hold (see
// storable) does not stop the others: it is declared as lost in a hole. A cursor
// that no store could ever hold is left out.
func (s *Store) Append(ctx context.Context, a meter.Append) error {
	err := s.append(ctx, a)
	if err != nil {
		return fmt.Errorf("buffer: append: %w", err)
	}
	return nil
}

func (s *Store) append(ctx context.Context, a meter.Append) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range a.Rows {
		if !a.Rows[i].Lane.Valid() {
			return fmt.Errorf("row %d of meter %q: %s: no such lane", i, a.Rows[i].Meter, a.Rows[i].Lane)
		}
	}
	for _, l := range a.Losses {
		if !l.Lane.Valid() {
			return fmt.Errorf("loss: %s: no such lane", l.Lane)
		}
	}
	if len(a.Rows)+len(a.Cursors)+len(a.Losses) == 0 {
		return s.commit(commitAcks, nil)
	}
	do := func(w *writeTx) error {
		if err := w.append(a); err != nil {
			return err
		}
		return s.settle(w, a.Rows)
	}
	return s.commitRelieved(mostImportant(a), do)
}

// commitRelieved runs do in a commit; where there is no room for it, it makes some
// as long as there is what may be given up for rows of that lane.
func (s *Store) commitRelieved(most meter.Lane, do func(*writeTx) error) error {
	err := s.commit(commitAlways, do)
	for errors.Is(err, ErrFull) {
		did, rerr := s.relieve(most)
		if rerr != nil {
			return errors.Join(err, rerr)
		}
		if !did {
			break
		}
		err = s.commit(commitAlways, do)
	}
	return err
}

// mostImportant gives the most important lane of what is appended.
func mostImportant(a meter.Append) meter.Lane {
	most := meter.Instant
	for i := range a.Rows {
		most = min(most, a.Rows[i].Lane)
	}
	return most
}

// canGiveUp says whether a commit would set acknowledged chunks free: each such
// commit makes some of it untrue, so that asking again comes to an end.
func (s *Store) canGiveUp() bool {
	s.state.Lock()
	defer s.state.Unlock()
	for i, l := range s.lanes {
		if l.hotBytes > 0 || s.acked[i] > l.acked || l.acked-l.hot >= maxChunkRows {
			return true
		}
	}
	return false
}

// storable says whether a row can be encoded. What cannot has names of more
// than 255 octets or not in UTF-8, a kind that does not exist, or a value of
// more than 64 KiB: no meter's doing, a driver's.
func storable(r *meter.Row) bool {
	const name, data = 255, 64 << 10
	return len(r.Meter) <= name && len(r.Serial) <= name && len(r.Channel) <= name && len(r.Value.Data) <= data &&
		r.Value.Kind.Valid() && utf8.ValidString(string(r.Meter)) && utf8.ValidString(string(r.Channel))
}

// byLane sorts rows into their lanes and counts those that cannot be stored. Rows
// that stand in the order of their lanes already are not copied.
func byLane(rows []meter.Row) (lanes [laneCount][]meter.Row, bad [laneCount]uint64) {
	if slices.IsSortedFunc(rows, func(a, b meter.Row) int { return cmp.Compare(a.Lane, b.Lane) }) &&
		!slices.ContainsFunc(rows, func(r meter.Row) bool { return !storable(&r) }) {
		for len(rows) > 0 {
			lane, n := rows[0].Lane, 1
			for n < len(rows) && rows[n].Lane == lane {
				n++
			}
			lanes[lane], rows = rows[:n:n], rows[n:]
		}
		return lanes, bad
	}
	var count [laneCount]int
	for i := range rows {
		count[rows[i].Lane]++
	}
	for i := range rows {
		lane := rows[i].Lane
		if !storable(&rows[i]) {
			bad[lane]++
			continue
		}
		if lanes[lane] == nil {
			lanes[lane] = make([]meter.Row, 0, count[lane])
		}
		lanes[lane] = append(lanes[lane], rows[i])
	}
	return lanes, bad
}

func (w *writeTx) append(a meter.Append) error {
	for _, l := range a.Losses {
		if err := w.addHole(l.Lane, l.Reason, l.Count); err != nil {
			return err
		}
	}
	lanes, bad := byLane(a.Rows)
	for _, lane := range meter.Lanes() {
		if bad[lane] > 0 {
			if err := w.addHole(lane, meter.Unexplained, bad[lane]); err != nil {
				return err
			}
		}
		if err := w.addRows(lane, lanes[lane], 0); err != nil {
			return err
		}
	}
	if err := w.addCursors(a.Cursors); err != nil {
		return err
	}
	if w.need > 0 && w.need+headroom > w.room {
		return fmt.Errorf("%w: %d octets are left of the store's size", ErrFull, w.room)
	}
	if w.need > 0 {
		return w.reserve(w.need)
	}
	return nil
}

// queue gives the bucket of a lane.
func (w *writeTx) queue(lane meter.Lane) (*bolt.Bucket, error) {
	b := w.tx.Bucket([]byte(lane.String()))
	if b == nil {
		return nil, fmt.Errorf("%w: no bucket %s", ErrDamaged, lane)
	}
	b.FillPercent = 1 // keys only rise: full pages are not written again
	return b, nil
}

// addRows gives rows, thinned to level, their numbers.
func (w *writeTx) addRows(lane meter.Lane, rows []meter.Row, level uint8) error {
	if len(rows) == 0 {
		return nil
	}
	b, err := w.queue(lane)
	if err != nil {
		return err
	}
	l := &w.lanes[lane]
	for len(rows) > 0 {
		first := l.last + 1
		if first > math.MaxUint64-maxChunkRows {
			return fmt.Errorf("lane %s: out of sequence numbers", lane)
		}
		chunk, n, err := cutChunk(nil, lane, first, w.number, rows)
		if err != nil {
			return err
		}
		setLevel(chunk, level)
		c, err := b.CreateBucket(sequenceKey(first))
		if err != nil {
			return fmt.Errorf("%w: lane %s: number %d: %w", ErrDamaged, lane, first, err)
		}
		if err := c.Put([]byte(keyOne), chunk); err != nil {
			return err
		}
		size := footprint(len(chunk))
		l.last += uint64(n)
		l.rows += uint64(n)
		l.bytes += size
		l.chunks++
		w.need += size
		rows = rows[n:]
	}
	return nil
}

// addHole gives a loss one number and declares it.
func (w *writeTx) addHole(lane meter.Lane, reason meter.Reason, count uint64) error {
	b, err := w.queue(lane)
	if err != nil {
		return err
	}
	l := &w.lanes[lane]
	at := l.last + 1
	if err := b.Put(sequenceKey(at), sealHole(meter.Hole{First: at, Last: at, Reason: reason, Count: count})); err != nil {
		return fmt.Errorf("lane %s: number %d: %w", lane, at, err)
	}
	l.last = at
	l.holes++
	l.lost += count
	return nil
}

func (w *writeTx) addCursors(cursors []meter.Cursor) error {
	if len(cursors) == 0 {
		return nil
	}
	b := w.tx.Bucket([]byte(bucketCursors))
	if b == nil {
		return fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketCursors)
	}
	for _, c := range cursors {
		k, ok := cursorKey(c.Meter, c.Serial, c.Profile)
		if !ok {
			continue // neither are the rows that it covers
		}
		if err := b.Put(k, sealCursor(k, c)); err != nil {
			return err
		}
	}
	return nil
}

// SaveCatalogue stores the uplink's catalogue, durable on return.
func (s *Store) SaveCatalogue(ctx context.Context, catalogue []byte) error {
	err := ctx.Err()
	if err == nil {
		err = s.commit(commitAlways, func(w *writeTx) error {
			b := w.tx.Bucket([]byte(bucketCatalogue))
			if b == nil {
				return fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketCatalogue)
			}
			k := []byte(keyOne)
			return b.Put(k, seal(k, append([]byte(nil), catalogue...)))
		})
	}
	if err != nil {
		return fmt.Errorf("buffer: save catalogue: %w", err)
	}
	return nil
}
