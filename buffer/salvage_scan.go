package buffer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"slices"

	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// A damaged file is searched without its tree: for chunks, which say what they
// are, and page by page for the small values, which are sealed with their keys.

const (
	// scanWindow is what is read at a time: whole pages.
	scanWindow = 64 * pageSize
	// indexLimit is how many chunks are remembered at a time, 40 octets each;
	// a file with more is searched again for the next ones.
	indexLimit = 128 << 10
	// maxSmall bounds the small values that are remembered of each kind.
	maxSmall = 64 << 10
)

// found is a whole chunk in a damaged file.
type found struct {
	at            int64
	first, commit uint64
	oldest        int64 // lowest stamp
	rows, size    uint32
	lane          meter.Lane
	live          bool // hangs in the tree
}

func (f *found) last() uint64 { return f.first + uint64(f.rows) - 1 }

// place is where a chunk stands in the order of salvage: lane by lane, the most
// important first, then by number.
type place struct {
	lane  meter.Lane
	first uint64
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.lane, q.lane), cmp.Compare(p.first, q.first))
}

func (f *found) place() place { return place{f.lane, f.first} }

// chunkIndex collects the limit chunks that come first from a place on.
type chunkIndex struct {
	limit       int
	from, until place
	bounded     bool // chunks from until on were left out
	list        []found
}

func (x *chunkIndex) add(f found) {
	if f.place().compare(x.from) < 0 || x.bounded && f.place().compare(x.until) >= 0 {
		return
	}
	if x.list = append(x.list, f); len(x.list) < x.limit {
		return
	}
	sortby.Stable(x.list, func(a, b found) int { return a.place().compare(b.place()) })
	x.until, x.bounded = x.list[len(x.list)/2].place(), true
	keep := slices.IndexFunc(x.list, func(f found) bool { return f.place() == x.until })
	if keep == 0 { // half of all are copies of one chunk
		x.until.first++
		keep = len(x.list) / 2
	}
	x.list = x.list[:keep]
}

// resolve puts chunks in order and leaves out copies. Of two chunks that claim
// the same number the one of the later commit is right: the other is from a
// commit that was never completed, or was thinned since. Of one commit both
// stay: one was never completed, and nobody knows which.
func resolve(all []found) []found {
	live := func(f found) int {
		if f.live {
			return 0
		}
		return 1
	}
	sortby.Stable(all, func(a, b found) int {
		return cmp.Or(a.place().compare(b.place()), cmp.Compare(b.commit, a.commit),
			cmp.Compare(live(a), live(b)), cmp.Compare(b.rows, a.rows))
	})
	all = slices.CompactFunc(all, func(a, b found) bool {
		return a.place() == b.place() && a.commit == b.commit && a.rows == b.rows && a.size == b.size
	})
	var out []found
	for _, f := range all {
		for len(out) > 0 {
			before := &out[len(out)-1]
			if before.lane != f.lane || before.last() < f.first || before.commit == f.commit {
				out = append(out, f)
				break
			}
			if before.commit > f.commit {
				break // f is out of date
			}
			out = out[:len(out)-1]
		}
		if len(out) == 0 {
			out = append(out, f)
		}
	}
	return out
}

// lenientReader reads a file that may have sectors that cannot be read: they
// come as zeros.
type lenientReader struct{ r io.ReaderAt }

func (l lenientReader) read(b []byte, at int64) {
	if n, err := l.r.ReadAt(b, at); err == nil || n == len(b) {
		return
	}
	for i := 0; i < len(b); i += pageSize {
		part := b[i:min(i+pageSize, len(b))]
		if n, err := l.r.ReadAt(part, at+int64(i)); err != nil {
			clear(part[n:])
		}
	}
}

// scan searches size octets of a file. chunk is called for every whole chunk,
// page for every page; neither may keep what it is given.
func scan(r io.ReaderAt, size int64, chunk func(at int64, info chunkInfo, b []byte), page func(id uint64, b []byte)) {
	l := lenientReader{r}
	buf := make([]byte, scanWindow+chunkHeader)
	var long []byte
	skip := int64(0) // what lies before is a chunk that was found
	for at := int64(0); at < size; at += scanWindow {
		b := buf[:min(int64(len(buf)), size-at)]
		l.read(b, at)
		for i := 0; page != nil && i+pageSize <= min(len(b), scanWindow); i += pageSize {
			page(uint64(at)/pageSize+uint64(i/pageSize), b[i:i+pageSize])
		}
		for i := max(0, int(min(skip-at, scanWindow))); i < min(len(b), scanWindow); i++ {
			j := bytes.Index(b[i:], []byte(chunkMagic))
			if j < 0 {
				break
			}
			if i += j; i >= scanWindow {
				break // the next window has it
			}
			n, ok := chunkLength(b[i:])
			if !ok || int64(n) > size-at-int64(i) {
				continue
			}
			whole := b[i:]
			if n > len(whole) {
				if len(long) < n {
					long = make([]byte, max(n, 64<<10))
				}
				whole = long
				l.read(whole[:n], at+int64(i))
			}
			whole = whole[:n]
			info, err := parseChunkInfo(whole)
			if err != nil || binary.LittleEndian.Uint32(whole[52:]) != chunkSum(whole) {
				continue
			}
			chunk(at+int64(i), info, whole)
			skip = at + int64(i+n)
			i += n - 1
		}
	}
}

// chunkLength reads the length of what may be a chunk from its header.
func chunkLength(b []byte) (int, bool) {
	if len(b) < chunkHeader {
		return 0, false
	}
	le := binary.LittleEndian
	n := uint64(le.Uint32(b[44:])) + uint64(le.Uint32(b[48:])) + chunkHeader
	return int(min(n, capChunkBytes+1)), n <= capChunkBytes
}

// leafValues calls do for the values of a page, as far as it is a leaf with its
// own number, and for those of the buckets that lie inline in it.
func leafValues(id uint64, b []byte, do func(key, value []byte)) {
	ne := binary.NativeEndian
	if ne.Uint64(b) != id || ne.Uint16(b[8:]) != flagLeaf {
		return
	}
	inlineValues(b, 0, do)
}

func inlineValues(b []byte, depth int, do func(key, value []byte)) {
	const deepest = 3
	if depth > deepest || len(b) < pageHeader {
		return
	}
	ne := binary.NativeEndian
	for i := range int(ne.Uint16(b[10:])) {
		at := pageHeader + i*elementSize
		if at+elementSize > len(b) {
			return
		}
		e := b[at:]
		key := uint64(at) + uint64(ne.Uint32(e[4:]))
		value := key + uint64(ne.Uint32(e[8:]))
		end := value + uint64(ne.Uint32(e[12:]))
		if end > uint64(len(b)) {
			continue
		}
		switch v := b[value:end]; {
		case ne.Uint32(e)&leafBucket == 0:
			do(b[key:value], v)
		case len(v) >= bucketSize && ne.Uint64(v) == 0:
			inlineValues(v[bucketSize:], depth+1, do)
		}
	}
}

// remains are the small values of a damaged file.
type remains struct {
	lanes   [laneCount]laneState // the highest of each number that was found
	known   [laneCount]bool      // there is something in lanes
	clean   bool                 // the file says that it was closed
	holes   [laneCount][]meter.Hole
	boots   map[uint32]string
	times   map[uint32]*BootTimes // as they hang in the tree
	cursors map[string]oldCursor

	// The bucket was found whole: older copies say nothing.
	wholeBoots, wholeCursors bool
}

type oldCursor struct {
	meter.Cursor

	live bool
}

func newRemains() *remains {
	return &remains{boots: map[uint32]string{}, times: map[uint32]*BootTimes{}, cursors: map[string]oldCursor{}}
}

// add takes a value of a bucket in the tree when its seal is whole.
func (r *remains) add(top string, key, sealed []byte) {
	if lane, err := meter.ParseLane(top); err == nil {
		first, ok := parseSequenceKey(key)
		h, err := parseHole(first, sealed)
		if ok && err == nil && len(r.holes[lane]) < maxSmall {
			r.holes[lane] = append(r.holes[lane], h)
		}
		return
	}
	if top == bucketTimes {
		if v, ok := unseal(key, sealed); ok && len(key) == 4 && len(r.times) < maxSmall {
			if b, err := parseBootTimes(v); err == nil {
				r.times[binary.BigEndian.Uint32(key)] = b
			}
		}
		return
	}
	r.addLoose(key, sealed, true)
}

// addLoose takes a value when its seal is whole. What it is, its key and its
// length tell; live says that it hangs in the tree, and is no older copy.
func (r *remains) addLoose(key, sealed []byte, live bool) {
	v, ok := unseal(key, sealed)
	switch {
	case !ok:
	case bytes.HasPrefix(key, []byte(keyLane)):
		r.addLane(string(key[len(keyLane):]), v)
	case string(key) == keyClean:
		r.clean = r.clean || live && len(v) == 8 && v[0] == 1
	case len(key) == 4 && !isCursor(v) && !isTimes(v):
		if len(r.boots) < maxSmall && (live || !r.wholeBoots) {
			r.boots[binary.BigEndian.Uint32(key)] = string(v)
		}
	default:
		r.addCursor(key, v, live)
	}
}

func (r *remains) addLane(name string, v []byte) {
	lane, err := meter.ParseLane(name)
	if err != nil {
		return
	}
	l, err := parseLaneState(v)
	if err != nil {
		return
	}
	// Each of these only rises, so an older copy takes nothing away.
	have := &r.lanes[lane]
	have.last, have.acked, have.evicted = max(have.last, l.last), max(have.acked, l.acked), max(have.evicted, l.evicted)
	r.known[lane] = true
}

// addCursor takes a cursor: that in the tree, else the oldest copy. To read rows
// twice is harmless; a cursor that is ahead of its rows loses them.
func (r *remains) addCursor(key, v []byte, live bool) {
	c, ok := parseCursor(v)
	if !ok || len(r.cursors) >= maxSmall || !live && r.wholeCursors {
		return
	}
	if c.Meter, c.Serial, c.Profile, ok = parseCursorKey(key); !ok {
		return
	}
	have, there := r.cursors[string(key)]
	if !there || live && !have.live || live == have.live && c.Time < have.Time {
		r.cursors[string(key)] = oldCursor{c, live}
	}
}

func isCursor(v []byte) bool {
	_, ok := parseCursor(v)
	return ok
}

func parseCursorKey(b []byte) (id meter.ID, serial string, profile meter.Channel, ok bool) {
	var parts [2]string
	for i := range parts {
		if len(b) == 0 || int(b[0]) >= len(b) {
			return "", "", "", false
		}
		n := 1 + int(b[0])
		parts[i], b = string(b[1:n]), b[n:]
	}
	return meter.ID(parts[0]), parts[1], meter.Channel(b), true
}
