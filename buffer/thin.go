package buffer

import (
	"gridgate/internal/meter"
)

// thinChunks bounds the chunks that are thinned together, and so the time that
// a commit takes. Where they end, a window is cut in two: its parts are
// thinned on their own.
const thinChunks = 32

// thin replaces the oldest chunks of a lane that can be thinned further by what
// is left of them, at the end of the lane and with new numbers; the old ones
// become a hole. Numbers never change their meaning that way: a row that had
// been sent before may come again as what it was, a duplicate, but never with
// another content under its number. did is false when there is nothing to thin.
//
// Rows that Peek handed out are left alone, since they may be on their way: a
// sum would come beside its parts.
func (w *writeTx) thin(lane meter.Lane) (did bool, err error) {
	entries, err := w.thinnable(lane)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	level := min(entries[0].info.level+1, daily)
	var in, out, merged uint64
	t := newThinner(level, w.zone, func(rows []meter.Row) error {
		for i := range rows {
			w.dropped.add(&rows[i], -1)
		}
		out += uint64(len(rows))
		return w.addRows(lane, rows, level)
	})
	for i := range entries {
		e := &entries[i]
		if e.chunk == nil {
			merged += e.hole.Count
			continue
		}
		in += e.rows()
		_, rows, err := parseChunk(e.chunk)
		if err != nil {
			continue // nothing of it comes out: it is counted as lost
		}
		for i := range rows {
			w.dropped.add(&rows[i], 1)
			if err := t.take(&rows[i]); err != nil {
				return false, err
			}
		}
	}
	if err := t.end(); err != nil {
		return false, err
	}
	less(&w.lanes[lane].lost, merged) // replace counts it again
	return true, w.replace(lane, entries, meter.Hole{
		First: entries[0].first, Last: entries[len(entries)-1].end,
		Reason: meter.Quota, Count: merged + in - min(in, out),
	})
}

// thinnable gives the oldest chunks of one level that stand side by side and
// are not yet thinned to days, or small and thinned to days, with the holes of
// reason Quota among them. They are at most half of the lane, so that the newest
// rows stay as they are for a while.
func (w *writeTx) thinnable(lane meter.Lane) (entries []entry, err error) {
	b, err := w.queue(lane)
	if err != nil {
		return nil, err
	}
	l := &w.lanes[lane]
	most := int(min(thinChunks, max(1, l.chunks/2)))
	from := max(l.acked, w.handed[lane])
	at := walk(b, lane, l.last)
	at.seek(from + 1)
	var run thinRun
	for e, ok := at.next(); ok; e, ok = at.next() {
		if e.first <= from {
			continue
		}
		if !run.takes(&e) {
			if run.isWorth() {
				break
			}
			run = thinRun{}
			if !run.takes(&e) {
				continue
			}
		}
		if run.chunks == most {
			if run.isWorth() {
				break
			}
			run = thinRun{}
		}
	}
	if !run.isWorth() {
		return nil, nil
	}
	return run.entries[:run.used], nil
}

// thinRun is chunks of one level that stand side by side.
type thinRun struct {
	entries []entry
	used    int // of these, through the last chunk
	chunks  int
	octets  int
}

// takes adds an entry if it belongs to the run.
func (r *thinRun) takes(e *entry) bool {
	switch {
	case e.err != nil:
		return false
	case e.chunk == nil:
		if r.chunks == 0 || e.hole.Reason != meter.Quota {
			return false
		}
		r.entries = append(r.entries, *e)
		return true
	case e.info.level > daily || r.chunks > 0 && r.entries[0].info.level != e.info.level:
		return false
	}
	r.entries = append(r.entries, *e)
	r.used = len(r.entries)
	r.chunks++
	r.octets += len(e.chunk)
	return true
}

// isWorth says whether thinning the run makes room.
func (r *thinRun) isWorth() bool {
	if r.chunks == 0 || r.entries[0].info.level < daily {
		return r.chunks > 0
	}
	return r.chunks >= 4 && r.octets < r.chunks*maxChunkBytes/2
}
