package buffer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// ExportOptions are what an archive is made with.
type ExportOptions struct {
	Site, Gateway string        // the names that the fog knows the gateway by; may be empty
	Made          int64         // ms since 1970 UTC
	Waiting       bool          // only what is not acknowledged
	Key           crypto.Signer // an Ed25519 key to sign with, nil for no signature
}

// Export writes what the store in dir keeps to an archive: chunks, with the times
// that are known by now, and holes, lane by lane in order of their numbers. Damaged chunks come as
// holes. Nothing is changed.
func Export(dir string, w io.Writer, o ExportOptions) (ArchiveInfo, error) {
	r, err := openReader(dir)
	if err != nil {
		return ArchiveInfo{}, err
	}
	defer r.close()
	a, err := newArchiveWriter(w)
	if err != nil {
		return ArchiveInfo{}, err
	}
	err = r.view(func(tx *bolt.Tx) error { return a.store(tx, o) })
	if err == nil {
		err = a.seal(o.Key)
	}
	if err != nil {
		return ArchiveInfo{}, fmt.Errorf("buffer %s: export: %w", r.path, err)
	}
	return a.info, nil
}

// begin writes what comes before the entries.
func (a *archiveWriter) begin(tx *bolt.Tx, o ExportOptions) (lanes [laneCount]laneState, err error) {
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil {
		return lanes, fmt.Errorf("%w: no bucket %s", ErrDamaged, bucketMeta)
	}
	epoch, err := getNumber(meta, keyEpoch)
	if err != nil {
		return lanes, err
	}
	if lanes, err = readLanes(meta); err != nil {
		return lanes, err
	}
	a.info.Head = ArchiveHead{Site: o.Site, Gateway: o.Gateway, Epoch: epoch, Made: o.Made}
	if err := a.head(a.info.Head); err != nil {
		return lanes, err
	}
	for _, lane := range meter.Lanes() {
		l := &lanes[lane]
		a.info.Head.Acked[lane] = l.acked
		if err := a.lane(lane, l.last, l.acked); err != nil {
			return lanes, err
		}
	}
	a.times = loadTimes(tx)
	return lanes, nil
}

func (a *archiveWriter) store(tx *bolt.Tx, o ExportOptions) error {
	lanes, err := a.begin(tx, o)
	if err != nil {
		return err
	}
	for _, lane := range meter.Lanes() {
		queue := tx.Bucket([]byte(lane.String()))
		if queue == nil {
			return fmt.Errorf("%w: no bucket of lane %s", ErrDamaged, lane)
		}
		from := uint64(0)
		if o.Waiting {
			from = lanes[lane].acked + 1
		}
		if err := a.queue(walk(queue, lane, lanes[lane].last), from); err != nil {
			return err
		}
	}
	return nil
}

// queue writes the entries of a lane that reach beyond a number.
func (a *archiveWriter) queue(w *walker, from uint64) error {
	w.seek(from)
	for e, ok := w.next(); ok; e, ok = w.next() {
		if e.end < max(from, 1) {
			continue
		}
		if err := a.entry(w.lane, &e); err != nil {
			return err
		}
	}
	return nil
}

// entry writes a chunk or a hole.
func (a *archiveWriter) entry(lane meter.Lane, e *entry) error {
	if e.err == nil && e.chunk != nil {
		e.chunk, e.err = a.times.chunk(e.chunk)
	}
	switch {
	case e.err != nil:
		return a.hole(lane, meter.Hole{First: max(e.first, 1), Last: e.end, Reason: meter.Damaged, Count: e.rows()})
	case e.chunk != nil:
		a.info.Rows += e.rows()
		return a.block(blockChunk, e.chunk)
	}
	return a.hole(lane, e.hole)
}

// ErrSameEpoch says that an archive is of the very store that it was to be
// brought into: its rows are there.
var ErrSameEpoch = errors.New("the archive is of this store")

// importRows is how many rows one commit of an import has.
const importRows = 8192

// Import appends the rows of an archive to the store in dir, which is made when
// there is none: those that were not acknowledged, or all. They get new numbers
// in the store's own epoch, and their stamps no boot, since the store does not
// know the boots of the other. Holes become losses. The archive is read to its
// end twice, so that nothing of a damaged one is brought in.
func Import(ctx context.Context, dir string, r io.ReadSeeker, all bool, o Options) (ArchiveInfo, error) {
	info, err := ReadArchive(r, func(*ArchiveHead, meter.Span) error { return nil })
	if err == nil {
		_, err = r.Seek(0, io.SeekStart)
	}
	if err != nil {
		return info, fmt.Errorf("buffer: import: %w", err)
	}
	s, err := Open(dir, o)
	if err != nil {
		return info, err
	}
	if s.Epoch() == info.Head.Epoch {
		err = ErrSameEpoch
	} else {
		info, err = s.importFrom(ctx, r, info.Head, all)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return info, fmt.Errorf("buffer: import: %w", err)
	}
	return info, nil
}

// importFrom appends what is wanted of an archive and says how much that was.
func (s *Store) importFrom(ctx context.Context, r io.Reader, head ArchiveHead, all bool) (ArchiveInfo, error) {
	done := ArchiveInfo{Head: head}
	var a meter.Append
	flush := func() error {
		err := s.append(ctx, a)
		if err == nil {
			done.Rows += uint64(len(a.Rows))
			done.Holes += uint64(len(a.Losses))
		}
		a = meter.Append{}
		return err
	}
	info, err := ReadArchive(r, func(_ *ArchiveHead, span meter.Span) error {
		after := head.Acked[span.Lane]
		if all {
			after = 0
		}
		if span.Last <= after {
			return nil
		}
		if len(span.Holes) > 0 {
			h := span.Holes[0]
			a.Losses = append(a.Losses, meter.Loss{Lane: span.Lane, Reason: h.Reason, Count: h.Count})
		} else {
			first := span.Runs[0].First
			rows := span.Rows[max(after+1, first)-first:]
			for i := range rows {
				rows[i].Stamp.Boot, rows[i].Stamp.Mono = 0, 0
			}
			a.Rows = append(a.Rows, rows...)
		}
		if len(a.Rows)+len(a.Losses) < importRows {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	done.Signer = info.Signer
	return done, err
}
