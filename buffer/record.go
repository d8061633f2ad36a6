package buffer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// formatVersion is the newest layout of readings.db that this version knows.
const formatVersion = 2

// The buckets, and the keys of bucket meta.
const (
	bucketMeta      = "meta"
	bucketCursors   = "cursors"
	bucketBoots     = "boots"
	bucketCatalogue = "catalogue"
	bucketCaches    = "caches" // made when it is first needed

	keyFormat  = "format"  // a number
	keyEpoch   = "epoch"   // a number
	keyClean   = "clean"   // a number: 1 after Close, 0 while open
	keyCommits = "commits" // a number: that of the last commit
	keyLane    = "lane/"   // with the lane's name: laneState
	keyOne     = "c"       // the only key of a chunk's bucket, and of catalogue
)

// Every small value is sealed: behind it stands the CRC-32C, little endian, of
// its key and of itself. bbolt has no checksums, and a cursor or a counter with
// a flipped bit would lose readings without a word.
const sealLen = 4

func sealSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli(), key), castagnoli(), value)
}

func seal(key, value []byte) []byte {
	return binary.LittleEndian.AppendUint32(value, sealSum(key, value))
}

// unseal gives the value without its checksum. ok is false for a value that is
// damaged or not there.
func unseal(key, sealed []byte) (value []byte, ok bool) {
	if len(sealed) < sealLen {
		return nil, false
	}
	value = sealed[:len(sealed)-sealLen]
	return value, binary.LittleEndian.Uint32(sealed[len(value):]) == sealSum(key, value)
}

// putNumber and getNumber keep a number in a bucket: 8 octets, little endian,
// sealed.
func putNumber(b *bolt.Bucket, key string, n uint64) error {
	k := []byte(key)
	return b.Put(k, seal(k, binary.LittleEndian.AppendUint64(nil, n)))
}

func getNumber(b *bolt.Bucket, key string) (uint64, error) {
	v, ok := unseal([]byte(key), b.Get([]byte(key)))
	if !ok || len(v) != 8 {
		return 0, fmt.Errorf("%w: %s is not there or not whole", ErrDamaged, key)
	}
	return binary.LittleEndian.Uint64(v), nil
}

// laneState is a lane's counters, kept up to date in every transaction so that
// nothing has to be counted. On flash it is these numbers in this order, 8 octets
// each, little endian, sealed; more may follow in later versions, and the last is
// missing in what the first wrote.
type laneState struct {
	last     uint64 // highest sequence number given, 0 for none
	acked    uint64 // acknowledged through
	hot      uint64 // chunks and holes that end at or below it are wholly acknowledged and counted in hotBytes
	rows     uint64 // rows kept, acknowledged or not
	bytes    uint64 // octets of flash that the kept chunks take
	hotBytes uint64 // of these, of wholly acknowledged chunks
	holes    uint64 // holes kept
	chunks   uint64 // chunks kept
	lost     uint64 // rows declared lost in holes since the epoch began
	evicted  uint64 // highest number removed from the front, 0 for none
	handed   uint64 // rows through it may have been sent, as far as a commit came after
}

const laneStateLen = 80

func (l *laneState) fields() [11]*uint64 {
	return [11]*uint64{
		&l.last, &l.acked, &l.hot, &l.rows, &l.bytes,
		&l.hotBytes, &l.holes, &l.chunks, &l.lost, &l.evicted, &l.handed,
	}
}

func (l laneState) append(b []byte) []byte {
	for _, p := range l.fields() {
		b = binary.LittleEndian.AppendUint64(b, *p)
	}
	return b
}

func laneKey(lane meter.Lane) []byte { return []byte(keyLane + lane.String()) }

func putLane(meta *bolt.Bucket, lane meter.Lane, l laneState) error {
	k := laneKey(lane)
	return meta.Put(k, seal(k, l.append(nil)))
}

func getLane(meta *bolt.Bucket, lane meter.Lane) (laneState, error) {
	k := laneKey(lane)
	b, ok := unseal(k, meta.Get(k))
	if !ok {
		return laneState{}, fmt.Errorf("%w: %s is not there or not whole", ErrDamaged, k)
	}
	return parseLaneState(b)
}

func parseLaneState(b []byte) (laneState, error) {
	var l laneState
	if len(b) < laneStateLen {
		return l, fmt.Errorf("%w: lane counters of %d octets, want %d", ErrDamaged, len(b), laneStateLen)
	}
	for i, p := range l.fields() {
		if len(b) >= 8*i+8 {
			*p = binary.LittleEndian.Uint64(b[8*i:])
		}
	}
	if l.acked > l.last || l.hot > l.acked || l.evicted > l.hot {
		return l, fmt.Errorf("%w: lane counters contradict one another: last %d, acknowledged %d, hot %d, evicted %d",
			ErrDamaged, l.last, l.acked, l.hot, l.evicted)
	}
	return l, nil
}

// less takes n from a counter; a counter that damage made too low stays at 0.
func less(counter *uint64, n uint64) { *counter -= min(*counter, n) }

// A hole on flash, under its first number, sealed:
//
//	 0  1  version  1
//	 1  1  reason   meter.Reason
//	 2  8  last     last number, little endian
//	10  8  count    rows lost, 0 when nobody knows
const holeLen = 18

func sealHole(h meter.Hole) []byte {
	b := []byte{1, byte(h.Reason)}
	b = binary.LittleEndian.AppendUint64(b, h.Last)
	b = binary.LittleEndian.AppendUint64(b, h.Count)
	return seal(sequenceKey(h.First), b)
}

func parseHole(first uint64, sealed []byte) (meter.Hole, error) {
	b, ok := unseal(sequenceKey(first), sealed)
	if !ok || len(b) != holeLen || b[0] != 1 {
		return meter.Hole{}, fmt.Errorf("%w: hole at %d", ErrDamaged, first)
	}
	h := meter.Hole{
		First: first, Last: binary.LittleEndian.Uint64(b[2:]),
		Reason: meter.Reason(b[1]), Count: binary.LittleEndian.Uint64(b[10:]),
	}
	if h.Last < h.First {
		return meter.Hole{}, fmt.Errorf("%w: hole from %d to %d", ErrDamaged, h.First, h.Last)
	}
	return h, nil
}

// sequenceKey is the key of a chunk or a hole in its lane's bucket.
func sequenceKey(first uint64) []byte { return binary.BigEndian.AppendUint64(nil, first) }

func parseSequenceKey(k []byte) (uint64, bool) {
	if len(k) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(k), true
}

// cursorKey is meter, serial and profile, the first two behind their length. ok
// is false when one of them is longer than a row's name may be.
func cursorKey(id meter.ID, serial string, profile meter.Channel) (key []byte, ok bool) {
	if len(id) > 255 || len(serial) > 255 || len(profile) > 255 {
		return nil, false
	}
	b := append([]byte{byte(len(id))}, id...)
	b = append(b, byte(len(serial)))
	b = append(b, serial...)
	return append(b, profile...), true
}

// A cursor on flash, sealed, is its time and then the ends of each of its gaps:
// 8 octets each, little endian.
func sealCursor(key []byte, c meter.Cursor) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(c.Time))
	for _, g := range c.Gaps.List() {
		b = binary.LittleEndian.AppendUint64(b, uint64(g.From))
		b = binary.LittleEndian.AppendUint64(b, uint64(g.To))
	}
	return seal(key, b)
}

func parseCursor(b []byte) (c meter.Cursor, ok bool) {
	const gapLen = 16
	if len(b) < 8 || (len(b)-8)%gapLen != 0 {
		return meter.Cursor{}, false
	}
	c.Time = int64(binary.LittleEndian.Uint64(b))
	for b = b[8:]; len(b) > 0; b = b[gapLen:] {
		c.Gaps = c.Gaps.With(meter.Gap{
			From: int64(binary.LittleEndian.Uint64(b)), To: int64(binary.LittleEndian.Uint64(b[8:])),
		})
	}
	return c, true
}

// footprint estimates the octets of flash that a chunk of n octets takes:
// whole pages, or its share of its lane's page when bbolt keeps it inline.
func footprint(n int) uint64 {
	const overhead, inline = 33, pageSize / 4
	if n+overhead <= inline {
		return uint64(n + overhead + 40)
	}
	return uint64((n+overhead+pageSize-1)/pageSize) * pageSize
}
