package buffer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// bbolt trusts its file: a page number out of range, a wrong free list or a
// file shorter than its pages fault in mapped memory or overwrite what is in
// use. So the file's tree is walked with plain reads before bbolt sees it. The
// contents of chunks are left alone: they have their own checksums.
//
// The numbers are in the byte order of the machine, as bbolt writes them.
//
//	page     id u64 · flags u16 · count u16 · overflow u32 · then elements
//	branch   pos u32 · ksize u32 · page u64                      an element
//	leaf     flags u32 · pos u32 · ksize u32 · vsize u32         an element
//	bucket   root u64 · sequence u64                             a leaf's value; root 0: its page follows inline
//	meta     magic u32 · version u32 · page size u32 · flags u32 · bucket
//	         · free list u64 · high water u64 · transaction u64 · FNV-1a u64
const (
	pageSize    = 4096
	pageHeader  = 16
	elementSize = 16
	bucketSize  = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	leafBucket   = 0x01

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	metaSize    = 64
	noFreelist  = math.MaxUint64

	// maxDepth bounds the walk: bbolt's tree of a full store is four deep.
	maxDepth = 24
)

// pageError says what is wrong with which page.
type pageError struct {
	page uint64
	text string
}

func (e *pageError) Error() string { return fmt.Sprintf("page %d: %s", e.page, e.text) }

func (e *pageError) Unwrap() error { return ErrDamaged }

func pageErrorf(page uint64, format string, args ...any) error {
	return &pageError{page: page, text: fmt.Sprintf(format, args...)}
}

// treeInfo is what the walk of a sound file found.
type treeInfo struct {
	pages uint64 // below the high-water mark
	free  uint64 // on the free list, or not in use when the file has none
	leaks uint64 // neither in use nor free: lost room, no damage
	empty bool   // no bucket: bbolt made the file, we never wrote to it
	clean bool   // the store says that it was closed
}

type treeWalk struct {
	r    io.ReaderAt
	high uint64
	seen []uint64 // a bit a page that is in use

	lenient bool                                // go on past damage
	broken  map[string]bool                     // where that was: buckets of the root, "" for the root itself
	top     string                              // the bucket of the root that the walk is in
	value   func(top string, key, value []byte) // gets every small value; may be nil
}

// forgive says whether the walk goes on after err.
func (w *treeWalk) forgive(err error) bool {
	if err != nil && w.lenient {
		w.broken[w.top] = true
	}
	return err == nil || w.lenient
}

// checkTree walks the tree of a bbolt file of the given size. An error wraps
// ErrDamaged or is the reader's.
func checkTree(r io.ReaderAt, size int64) (treeInfo, error) {
	m, err := newestMeta(r, size)
	if err != nil {
		return treeInfo{}, err
	}
	if m.lone {
		// A sector is written whole or not at all, so no power cut does this; and
		// to go on with the older page would give numbers away a second time.
		return treeInfo{}, fmt.Errorf("%w: only one of two meta pages reads", ErrDamaged)
	}
	if m.high > uint64(size)/pageSize {
		return treeInfo{}, fmt.Errorf("%w: file of %d octets, its %d pages need %d", ErrDamaged, size, m.high, m.high*pageSize)
	}
	w := &treeWalk{r: r, high: m.high, seen: make([]uint64, m.high/64+1)}
	w.seen[0] = 3 // the two meta pages
	info := treeInfo{pages: m.high}
	w.value = func(top string, k, v []byte) {
		if top == bucketMeta && string(k) == keyClean {
			v, ok := unseal(k, v)
			info.clean = ok && len(v) == 8 && v[0] == 1
		}
	}
	root, err := w.take(m.root, 1)
	if err != nil {
		return info, err
	}
	info.empty = root.flags == flagLeaf && root.count == 0
	if err := w.node(root, 0, true); err != nil {
		return info, err
	}
	if m.freelist != noFreelist {
		if info.free, err = w.freelist(m.freelist); err != nil {
			return info, err
		}
	}
	for id := range m.high {
		if !w.has(id) {
			info.leaks++
		}
	}
	if m.freelist == noFreelist { // what is not in use is free
		info.free, info.leaks = info.leaks, 0
	}
	return info, nil
}

// surveyed is what a walk through a damaged file's tree found.
type surveyed struct {
	walk  *treeWalk
	whole bool // the root is, and it is the newest
}

// live says whether a page hangs in the tree.
func (s *surveyed) live(page uint64) bool {
	return s.walk != nil && page < s.walk.high && s.walk.has(page)
}

// complete says whether all of a bucket of the root was found: what does not
// hang in it is no longer valid then.
func (s *surveyed) complete(bucket string) bool { return s.whole && !s.walk.broken[bucket] }

// survey walks as much of a damaged file's tree as there is and hands on the
// small values in it.
func survey(r io.ReaderAt, size int64, value func(top string, key, value []byte)) *surveyed {
	m, err := newestMeta(r, size)
	if err != nil {
		return &surveyed{}
	}
	high := min(m.high, uint64(size)/pageSize)
	w := &treeWalk{
		r: r, high: high, seen: make([]uint64, high/64+1), value: value,
		lenient: true, broken: map[string]bool{},
	}
	w.seen[0] = 3
	root, err := w.take(m.root, 1)
	if err == nil {
		err = w.node(root, 0, true)
	}
	return &surveyed{walk: w, whole: err == nil && !m.lone && !w.broken[""]}
}

type metaInfo struct {
	root, freelist, high, tx uint64

	lone bool // the other meta page does not read
}

// newestMeta gives the valid meta page of the later transaction.
func newestMeta(r io.ReaderAt, size int64) (metaInfo, error) {
	var best metaInfo
	found := 0
	for id := range uint64(2) {
		b := make([]byte, pageHeader+metaSize)
		if size < int64(id+1)*pageSize {
			break
		}
		if _, err := r.ReadAt(b, int64(id)*pageSize); err != nil {
			return best, fmt.Errorf("meta page %d: %w", id, err)
		}
		b = b[pageHeader:]
		ne := binary.NativeEndian
		sum := fnv.New64a()
		_, _ = sum.Write(b[:56])
		if ne.Uint32(b) != boltMagic || ne.Uint32(b[4:]) != boltVersion || ne.Uint32(b[8:]) != pageSize ||
			ne.Uint64(b[56:]) != sum.Sum64() {
			continue
		}
		m := metaInfo{root: ne.Uint64(b[16:]), freelist: ne.Uint64(b[32:]), high: ne.Uint64(b[40:]), tx: ne.Uint64(b[48:])}
		if found++; found == 1 || m.tx > best.tx {
			best = m
		}
	}
	best.lone = found == 1
	if found == 0 {
		return best, fmt.Errorf("%w: no valid meta page: not a readings.db", ErrDamaged)
	}
	return best, nil
}

func (w *treeWalk) has(id uint64) bool { return w.seen[id/64]&(1<<(id%64)) != 0 }

// page is a page as far as it was read.
type page struct {
	walk  *treeWalk
	id    uint64 // of the page itself, or of the one it lies inline in
	flags uint16
	count uint16
	size  uint64 // with its overflow pages
	b     []byte // the first octets
}

// take reads the beginning of page id and marks it and its overflow as used.
func (w *treeWalk) take(id uint64, wantFlags uint16) (*page, error) {
	if id < 2 || id >= w.high {
		return nil, pageErrorf(id, "outside of the file's %d pages", w.high)
	}
	b := make([]byte, pageSize)
	if _, err := w.r.ReadAt(b, int64(id)*pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	ne := binary.NativeEndian
	p := &page{walk: w, id: id, flags: ne.Uint16(b[8:]), count: ne.Uint16(b[10:]), b: b}
	n := uint64(ne.Uint32(b[12:])) + 1
	p.size = n * pageSize
	switch {
	case ne.Uint64(b) != id:
		return nil, pageErrorf(id, "says that it is page %d", ne.Uint64(b))
	case n > w.high-id:
		return nil, pageErrorf(id, "runs over the end of the file's %d pages", w.high)
	case wantFlags == flagFreelist && p.flags != flagFreelist:
		return nil, pageErrorf(id, "kind %#x, want the free list", p.flags)
	case wantFlags != flagFreelist && p.flags != flagLeaf && p.flags != flagBranch:
		return nil, pageErrorf(id, "kind %#x, want branch or leaf", p.flags)
	}
	for i := id; i < id+n; i++ {
		if w.has(i) {
			return nil, pageErrorf(i, "used twice")
		}
		w.seen[i/64] |= 1 << (i % 64)
	}
	return p, nil
}

// need makes sure that the first n octets are read.
func (p *page) need(n uint64) error {
	if n <= uint64(len(p.b)) {
		return nil
	}
	if n > p.size {
		return pageErrorf(p.id, "an element ends at octet %d of %d", n, p.size)
	}
	// In whole pages, so that a long list is not read octet by octet.
	n = min(p.size, (n+pageSize-1)/pageSize*pageSize)
	have := len(p.b)
	p.b = append(p.b, make([]byte, int(n)-have)...)
	if _, err := p.walk.r.ReadAt(p.b[have:], int64(p.id)*pageSize+int64(have)); err != nil {
		return fmt.Errorf("page %d: %w", p.id, err)
	}
	return nil
}

// node checks a branch or leaf page and all below it.
func (w *treeWalk) node(p *page, depth int, root bool) error {
	if depth > maxDepth {
		return pageErrorf(p.id, "tree deeper than %d", maxDepth)
	}
	if p.count == 0 && (!root || p.flags == flagBranch) {
		return pageErrorf(p.id, "empty")
	}
	if err := p.need(pageHeader + uint64(p.count)*elementSize); err != nil {
		return err
	}
	ne := binary.NativeEndian
	var before []byte
	for i := range uint64(p.count) {
		at := pageHeader + i*elementSize
		var pos, ksize, vsize uint64
		var child uint64
		bucket := false
		if e := p.b[at:]; p.flags == flagBranch {
			pos, ksize, child = uint64(ne.Uint32(e)), uint64(ne.Uint32(e[4:])), ne.Uint64(e[8:])
		} else {
			bucket = ne.Uint32(e)&leafBucket != 0
			pos, ksize, vsize = uint64(ne.Uint32(e[4:])), uint64(ne.Uint32(e[8:])), uint64(ne.Uint32(e[12:]))
		}
		key := at + pos
		if ksize == 0 || pos < elementSize || key+ksize+vsize > p.size {
			return pageErrorf(p.id, "element %d out of bounds", i)
		}
		read := key + ksize
		if bucket {
			read += vsize
		}
		if err := p.need(read); err != nil {
			return err
		}
		k := p.b[key : key+ksize]
		w.note(p, k, key+ksize, vsize, bucket)
		if i > 0 && bytes.Compare(before, k) >= 0 {
			return pageErrorf(p.id, "element %d out of order", i)
		}
		before = k
		switch {
		case p.flags == flagBranch:
			if err := w.below(child, depth, false); !w.forgive(err) {
				return err
			}
		case bucket:
			was := w.top
			if was == "" {
				w.top = string(k)
			}
			err := w.bucket(p, p.b[key+ksize:key+ksize+vsize], depth)
			goOn := w.forgive(err)
			if w.top = was; !goOn {
				return err
			}
		}
	}
	return nil
}

// note hands on a small value.
func (w *treeWalk) note(p *page, k []byte, at, n uint64, bucket bool) {
	const small = 512
	if w.value == nil || w.top == "" || bucket || n > small || len(k) == len(keyOne) || p.need(at+n) != nil {
		return
	}
	w.value(w.top, k, p.b[at:at+n])
}

func (w *treeWalk) below(id uint64, depth int, root bool) error {
	p, err := w.take(id, 0)
	if err != nil {
		return err
	}
	return w.node(p, depth+1, root)
}

// bucket checks a bucket that is a leaf's value.
func (w *treeWalk) bucket(in *page, value []byte, depth int) error {
	if len(value) < bucketSize {
		return pageErrorf(in.id, "bucket of %d octets", len(value))
	}
	ne := binary.NativeEndian
	if id := ne.Uint64(value); id != 0 {
		return w.below(id, depth, true)
	}
	value = value[bucketSize:]
	if len(value) < pageHeader {
		return pageErrorf(in.id, "inline bucket of %d octets", len(value))
	}
	p := &page{
		walk: w, id: in.id, flags: ne.Uint16(value[8:]), count: ne.Uint16(value[10:]),
		size: uint64(len(value)), b: value,
	}
	if p.flags != flagLeaf {
		return pageErrorf(in.id, "inline bucket of kind %#x", p.flags)
	}
	return w.node(p, depth+1, true)
}

// freelist checks that what is called free is not in use, and counts it.
func (w *treeWalk) freelist(id uint64) (uint64, error) {
	p, err := w.take(id, flagFreelist)
	if err != nil {
		return 0, err
	}
	ne := binary.NativeEndian
	n, at := uint64(p.count), uint64(pageHeader)
	if p.count == 0xFFFF { // the true count stands first
		if err := p.need(at + 8); err != nil {
			return 0, err
		}
		n, at = ne.Uint64(p.b[at:]), at+8
	}
	if n > w.high {
		return 0, pageErrorf(id, "%d free pages of %d", n, w.high)
	}
	if err := p.need(at + 8*n); err != nil {
		return 0, err
	}
	for i := range n {
		free := ne.Uint64(p.b[at+8*i:])
		if free < 2 || free >= w.high || w.has(free) {
			return 0, pageErrorf(id, "page %d is called free but is in use or outside", free)
		}
		if i > 0 && free <= ne.Uint64(p.b[at+8*i-8:]) {
			return 0, pageErrorf(id, "free list out of order")
		}
		w.seen[free/64] |= 1 << (free % 64)
	}
	return n, nil
}
