package buffer

import (
	"fmt"
	"io"
	"slices"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// exportStep bounds the chunks that are read in one transaction, and held in
// memory while they are written.
const exportStep = 16

// Export writes what the open store keeps to an archive, as the function Export
// does of one that is not open. Of q the lanes and the times bound which chunks
// are in it; rows are not picked out of chunks (QueryArchive does). Appends go on
// meanwhile: what they bring is not in it, and what they give up before its turn
// comes as a hole or not at all. w may be slow.
func (s *Store) Export(w io.Writer, q Query, o ExportOptions) (ArchiveInfo, error) {
	a, err := newArchiveWriter(w)
	if err == nil {
		err = s.export(a, &q, o)
	}
	if err == nil {
		err = a.seal(o.Key)
	}
	if err != nil {
		return ArchiveInfo{}, fmt.Errorf("buffer: export: %w", err)
	}
	return a.info, nil
}

func (s *Store) export(a *archiveWriter, q *Query, o ExportOptions) error {
	var lanes [laneCount]laneState
	err := s.view(func(tx *bolt.Tx) (err error) {
		lanes, err = a.begin(tx, o)
		return err
	})
	if err != nil {
		return err
	}
	for _, lane := range meter.Lanes() {
		if !slices.Contains(q.lanes(), lane) {
			continue
		}
		after, more := uint64(0), true
		if o.Waiting {
			after = lanes[lane].acked
		}
		for more {
			var found []entry
			err := s.view(func(tx *bolt.Tx) error {
				queue := tx.Bucket([]byte(lane.String()))
				if queue == nil {
					return fmt.Errorf("%w: no bucket of lane %s", ErrDamaged, lane)
				}
				found, after, more = exportable(walk(queue, lane, lanes[lane].last), q, after)
				return nil
			})
			if err != nil {
				return err
			}
			for i := range found {
				if err := a.entry(lane, &found[i]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// exportable gives some entries behind a number, with their chunks copied, and
// says through which number it looked.
func exportable(w *walker, q *Query, after uint64) (found []entry, through uint64, more bool) {
	w.seek(after + 1)
	for n := 0; n < exportStep; {
		e, ok := w.next()
		if !ok || e.first > w.last {
			return found, after, false
		}
		if e.end <= after {
			continue
		}
		n++
		after = e.end
		if e.err == nil && e.chunk != nil && !e.info.uncertain && (e.info.newest < q.From || e.info.oldest >= q.to()) {
			continue
		}
		e.key, e.chunk = nil, slices.Clone(e.chunk)
		found = append(found, e)
	}
	return found, after, true
}

// QueryArchive calls do for every row of an archive that is wanted, lane by lane
// in order of their numbers. What a damaged or shortened archive still has was
// given to do before the error, which wraps ErrArchive.
func QueryArchive(r io.Reader, q Query, do func(sequence uint64, row *meter.Row) error) error {
	_, err := ReadArchive(r, func(_ *ArchiveHead, span meter.Span) error {
		if !slices.Contains(q.lanes(), span.Lane) || len(span.Runs) == 0 {
			return nil
		}
		for i := range span.Rows {
			if !q.wants(&span.Rows[i]) {
				continue
			}
			if err := do(span.Runs[0].First+uint64(i), &span.Rows[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
