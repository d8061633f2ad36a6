package buffer

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// Report is what Check found.
type Report struct {
	Path        string
	Pages       uint64 // of 4096 octets
	FreePages   uint64
	LeakedPages uint64 // neither in use nor free: lost room, no damage
	Chunks      uint64
	Rows        uint64
	Holes       uint64
	Problems    []string // what is damaged, at most maxProblems; none for a sound store
}

// Sound says whether nothing is damaged.
func (r *Report) Sound() bool { return len(r.Problems) == 0 }

const maxProblems = 100

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Check reads all of the store in dir: the tree, the counters, every chunk,
// hole and cursor. What is damaged is in the report; the error is for a store
// that cannot be looked at (*InUseError, *FormatError, ErrNoStore, no
// permission). Nothing is changed.
func Check(dir string) (Report, error) {
	r, err := openReader(dir)
	if errors.Is(err, ErrDamaged) {
		return Report{Path: dir, Problems: []string{err.Error()}}, nil
	}
	if err != nil {
		return Report{}, err
	}
	defer r.close()
	report := Report{Path: r.path, Pages: r.tree.pages, FreePages: r.tree.free, LeakedPages: r.tree.leaks}
	err = r.view(func(tx *bolt.Tx) error {
		if _, err := statOf(tx); err != nil {
			report.problem("%v", err)
			return nil
		}
		for _, lane := range meter.Lanes() {
			report.lane(tx, lane)
		}
		report.cursors(tx)
		return nil
	})
	if err != nil {
		report.problem("%v", err)
	}
	return report, nil
}

// lane checks that every number is accounted for once and that the counters
// agree with what is there.
func (r *Report) lane(tx *bolt.Tx, lane meter.Lane) {
	l, err := getLane(tx.Bucket([]byte(bucketMeta)), lane)
	queue := tx.Bucket([]byte(lane.String()))
	if err != nil || queue == nil {
		r.problem("lane %s: no bucket: %v", lane, err)
		return
	}
	var have laneState
	before := r.problems()
	next := l.evicted + 1
	w := walk(queue, lane, l.last)
	for w.seek(0); ; {
		e, ok := w.next()
		if !ok {
			break
		}
		if e.err == nil && e.chunk != nil {
			_, _, e.err = parseChunk(e.chunk)
		}
		if e.err != nil {
			r.problem("lane %s: numbers %d to %d: %v", lane, e.first, e.end, e.err)
		}
		if e.first != next {
			r.problem("lane %s: numbers %d to %d: neither rows nor a hole", lane, next, e.first-1)
		}
		next = e.end + 1
		if e.chunk == nil {
			have.holes++
			continue
		}
		have.chunks++
		have.rows += e.rows()
		have.bytes += e.size()
		if e.end <= l.hot {
			have.hotBytes += e.size()
		}
	}
	if next != l.last+1 {
		r.problem("lane %s: numbers %d to %d: neither rows nor a hole", lane, next, l.last)
	}
	if r.problems() == before && (have.holes != l.holes || have.chunks != l.chunks || have.rows != l.rows ||
		have.bytes != l.bytes || have.hotBytes != l.hotBytes) {
		r.problem("lane %s: counters %+v, found %+v", lane, l, have)
	}
	r.Chunks += have.chunks
	r.Rows += have.rows
	r.Holes += have.holes
}

func (r *Report) problems() int { return len(r.Problems) }

// cursors checks the sealed values of the small buckets.
func (r *Report) cursors(tx *bolt.Tx) {
	for _, name := range []string{bucketCursors, bucketBoots, bucketCatalogue, bucketCaches, bucketTimes} {
		b := tx.Bucket([]byte(name))
		if b == nil && (name == bucketCaches || name == bucketTimes) {
			continue // not needed yet
		}
		if b == nil {
			r.problem("no bucket %s", name)
			continue
		}
		err := b.ForEach(func(k, v []byte) error {
			if _, ok := unseal(k, v); !ok {
				r.problem("%s: value of %q is damaged", name, k)
			}
			return nil
		})
		if err != nil {
			r.problem("%s: %v", name, err)
		}
	}
}
