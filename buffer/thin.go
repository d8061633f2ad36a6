package buffer

import (
	"encoding/binary"

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
// sum would come beside its parts. A power cut forgets what was handed out after
// the last commit.
func (w *writeTx) thin(lane meter.Lane) (did bool, err error) {
	w.hush()
	entries, err := w.thinnable(lane)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	t := thinning{
		w: w, lane: lane, entries: entries, level: min(entries[0].info.level+1, daily), rows: make([]meter.Row, 0, thinChunkRows),
	}
	var in, merged uint64
	for i := range entries {
		e := &entries[i]
		if e.chunk == nil {
			merged += e.hole.Count
			continue
		}
		in += e.rows()
		if binary.LittleEndian.Uint32(e.chunk[52:]) != chunkSum(e.chunk) {
			w.gaveUp(lane, e)
		}
	}
	if err := t.run(); err != nil {
		return false, err
	}
	less(&w.lanes[lane].lost, merged) // replace counts it again
	return true, w.replace(lane, entries, meter.Hole{
		First: entries[0].first, Last: entries[len(entries)-1].end,
		Reason: meter.Quota, Count: merged + in - min(in, t.out),
	})
}

// thinMeters bounds, as series, the meters that are thinned at a time, and so the
// memory. Chunks are read again for each such group, but only those that have
// meters of it: in the order of the intake, for each group that a chunk has rows of.
const thinMeters = 512

// thinChunkRows is how many rows a chunk of thinned rows has at most, which are
// gathered in memory.
const thinChunkRows = 1024

// thinning is chunks that are being thinned together.
type thinning struct {
	w       *writeTx
	lane    meter.Lane
	entries []entry
	level   uint8
	places  map[meter.ID]int // of meters, in the order in which chunks name them
	weights []int            // of the meters by place: how many series they may have
	spans   [][2]int         // of places, by entry: from the first to behind the last
	read    []meter.Row      // of the chunk that was read last
	rows    []meter.Row      // to be stored
	out     uint64           // rows that are left
}

// run thins a group of meters after the other.
func (t *thinning) run() error {
	t.survey()
	for from := 0; from < len(t.weights); {
		to, weight := from, 0
		for to < len(t.weights) && (to == from || weight+t.weights[to] <= thinMeters) {
			weight += t.weights[to]
			to++
		}
		if err := t.group(from, to); err != nil {
			return err
		}
		from = to
	}
	return t.flush()
}

// survey reads which meters are in which chunks. What does not read is counted
// as lost by group, which gets nothing of it.
func (t *thinning) survey() {
	t.places, t.spans = map[meter.ID]int{}, make([][2]int, len(t.entries))
	for i := range t.entries {
		e := &t.entries[i]
		if e.chunk == nil {
			continue
		}
		dict, err := chunkDict(e.chunk, e.info)
		if err != nil || len(dict.Meters()) == 0 {
			continue
		}
		weight := min(len(dict.Channels()), 1+2*int(e.info.rows)/len(dict.Meters()))
		span := [2]int{len(t.weights), 0}
		for _, m := range dict.Meters() {
			place, ok := t.places[m.ID]
			if !ok {
				place = len(t.weights)
				t.places[m.ID], t.weights = place, append(t.weights, weight)
			}
			span = [2]int{min(span[0], place), max(span[1], place+1)}
		}
		t.spans[i] = span
	}
}

// group thins the rows of some meters.
func (t *thinning) group(from, to int) error {
	w := t.w
	th := newThinner(t.level, w.zone, func(rows []meter.Row) error {
		for i := range rows {
			w.dropped.add(&rows[i], -1)
			if t.rows = append(t.rows, rows[i]); len(t.rows) >= thinChunkRows {
				if err := t.flush(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for i := range t.entries {
		if t.spans[i][1] <= from || t.spans[i][0] >= to {
			continue
		}
		_, rows, err := parseChunkInto(t.read, t.entries[i].chunk)
		if err != nil {
			continue
		}
		t.read = rows
		id, wanted := meter.ID(""), false
		for j := range rows {
			if r := &rows[j]; j == 0 || r.Meter != id {
				place, ok := t.places[r.Meter]
				id, wanted = r.Meter, ok && place >= from && place < to
			}
			if !wanted {
				continue
			}
			w.dropped.add(&rows[j], 1)
			w.times.correct(t.lane, t.entries[i].first+uint64(j), &rows[j]) // before it is known in which window it is
			if err := th.take(&rows[j]); err != nil {
				return err
			}
		}
	}
	err := th.end()
	w.countDropped()
	return err
}

// flush stores what is left.
func (t *thinning) flush() error {
	rows := t.rows
	t.rows = t.rows[:0]
	t.out += uint64(len(rows))
	return t.w.addRows(t.lane, rows, t.level)
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
	from := max(l.acked, l.handed, w.handed[lane])
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
