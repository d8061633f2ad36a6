package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"gridgate/internal/column"
	"gridgate/internal/meter"
)

// A chunk is up to maxChunkRows rows of one lane with consecutive sequence
// numbers. It can be read without the tree around it, so that a damaged file
// can be searched for chunks. Numbers are little endian.
//
//	 0   4  magic      "GGCK"
//	 4   1  version    2; 1 has a body of the first form (column.ParseFirstRows)
//	 5   1  lane       meter.Lane
//	 6   1  level      how far the rows were thinned: 0 not, 1 to hours, 2 to days
//	 7   1  flags      1: the dictionary is packed (column.Pack); 2: the time of some
//	                   rows is uncertain (Uncertain); 4: of all
//	 8   8  first      sequence number of the first row
//	16   8  commit     number of the commit that wrote the chunk, rising
//	24   8  oldest     lowest stamp of the rows whose time is not uncertain, of all where
//	                   there are none; ms since 1970 UTC, signed
//	32   8  newest     highest stamp, likewise
//	40   4  rows       how many, at least 1
//	44   4  dict       length of the dictionary
//	48   4  body       length of the body
//	52   4  crc        CRC-32C of octets 0 to 51 and of all after 56
//	56      dictionary (column.Dict), then body (column.AppendRows)
const (
	chunkMagic   = "GGCK"
	chunkVersion = 2
	chunkFirst   = 1 // the oldest version that is read
	chunkHeader  = 56

	chunkPacked    = 1
	chunkUncertain = 2
	chunkAgeless   = 4

	// maxChunkRows bounds what reading one row costs: its whole chunk.
	maxChunkRows = 3072
	// maxChunkBytes keeps a chunk within four pages with bbolt's own octets.
	maxChunkBytes = 16<<10 - 64
	// capChunkBytes is the length above which a chunk is taken for garbage. A
	// single row of long texts may be larger than maxChunkBytes.
	capChunkBytes = 1 << 20
)

// chunkInfo is a chunk's header.
type chunkInfo struct {
	lane           meter.Lane
	first, commit  uint64
	oldest, newest int64
	rows           uint32
	dict, body     uint32
	level          uint8 // how far the rows were thinned
	uncertain      bool  // some rows may have another time when they leave
	ageless        bool  // all may
}

// last is the sequence number of the chunk's last row.
func (c chunkInfo) last() uint64 { return c.first + uint64(c.rows) - 1 }

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func chunkSum(b []byte) uint32 {
	sum := crc32.Update(0, castagnoli(), b[:52])
	return crc32.Update(sum, castagnoli(), b[chunkHeader:])
}

// appendChunk appends the chunk of rows, numbered from first on, to dst.
func appendChunk(dst []byte, lane meter.Lane, first, commit uint64, rows []meter.Row) ([]byte, error) {
	start := len(dst)
	dict := column.NewDict()
	body, err := column.AppendRows(nil, rows, dict)
	if err != nil {
		return dst, fmt.Errorf("chunk of lane %s: %w", lane, err)
	}
	var zero [chunkHeader]byte
	dst = append(dst, zero[:]...)
	names, err := dict.AppendBinary(nil)
	if err != nil {
		return dst[:start], fmt.Errorf("chunk of lane %s: dictionary: %w", lane, err)
	}
	dst = column.Pack(dst, names)
	dictLen := len(dst) - start - chunkHeader
	dst = append(dst, body...)

	oldest, newest, flags := span(rows)
	b := dst[start:]
	copy(b, chunkMagic)
	b[4], b[5], b[7] = chunkVersion, byte(lane), chunkPacked|flags
	le := binary.LittleEndian
	le.PutUint64(b[8:], first)
	le.PutUint64(b[16:], commit)
	le.PutUint64(b[24:], uint64(oldest))
	le.PutUint64(b[32:], uint64(newest))
	le.PutUint32(b[40:], uint32(len(rows)))
	le.PutUint32(b[44:], uint32(dictLen))
	le.PutUint32(b[48:], uint32(len(body)))
	le.PutUint32(b[52:], chunkSum(b))
	return dst, nil
}

// span gives the lowest and the highest stamp of rows whose time is known, else
// those of all.
func span(rows []meter.Row) (oldest, newest int64, flags byte) {
	oldest, newest, flags = math.MaxInt64, math.MinInt64, chunkAgeless
	for i := range rows {
		if Uncertain(&rows[i]) {
			flags |= chunkUncertain
			continue
		}
		oldest, newest, flags = min(oldest, rows[i].Stamp.Time), max(newest, rows[i].Stamp.Time), flags&^chunkAgeless
	}
	if flags&chunkAgeless != 0 {
		oldest, newest = rows[0].Stamp.Time, rows[0].Stamp.Time
		for i := range rows {
			oldest, newest = min(oldest, rows[i].Stamp.Time), max(newest, rows[i].Stamp.Time)
		}
	}
	return oldest, newest, flags
}

var errChunk = errors.New("not a chunk")

// parseChunkInfo reads the header of a chunk and checks it against itself, not
// against the checksum: what hangs on it is checked by parseChunk.
func parseChunkInfo(b []byte) (chunkInfo, error) {
	if len(b) < chunkHeader || string(b[:4]) != chunkMagic {
		return chunkInfo{}, errChunk
	}
	if b[4] < chunkFirst || b[4] > chunkVersion {
		return chunkInfo{}, fmt.Errorf("%w: version %d", errChunk, b[4])
	}
	le := binary.LittleEndian
	c := chunkInfo{
		lane: meter.Lane(b[5]), first: le.Uint64(b[8:]), commit: le.Uint64(b[16:]),
		oldest: int64(le.Uint64(b[24:])), newest: int64(le.Uint64(b[32:])),
		rows: le.Uint32(b[40:]), dict: le.Uint32(b[44:]), body: le.Uint32(b[48:]), level: b[6],
		uncertain: b[7]&chunkUncertain != 0, ageless: b[7]&chunkAgeless != 0,
	}
	switch {
	case !c.lane.Valid():
		return chunkInfo{}, fmt.Errorf("%w: lane %d", errChunk, b[5])
	case c.rows == 0 || c.rows > maxChunkRows:
		return chunkInfo{}, fmt.Errorf("%w: %d rows", errChunk, c.rows)
	case c.first == 0 || c.first+uint64(c.rows) < c.first:
		return chunkInfo{}, fmt.Errorf("%w: first number %d", errChunk, c.first)
	case uint64(c.dict)+uint64(c.body)+chunkHeader != uint64(len(b)):
		return chunkInfo{}, fmt.Errorf("%w: length %d", errChunk, len(b))
	}
	return c, nil
}

// parseChunk reads a chunk after checking its checksum. The rows alias nothing
// of b.
func parseChunk(b []byte) (chunkInfo, []meter.Row, error) { return parseChunkInto(nil, b) }

// parseChunkInto is parseChunk with the memory of rows that are done with.
func parseChunkInto(rows []meter.Row, b []byte) (chunkInfo, []meter.Row, error) {
	c, err := parseChunkInfo(b)
	if err != nil {
		return c, nil, err
	}
	if want, got := binary.LittleEndian.Uint32(b[52:]), chunkSum(b); want != got {
		return c, nil, fmt.Errorf("%w: checksum %08x, want %08x", errChunk, got, want)
	}
	dict, err := chunkDict(b, c)
	if err != nil {
		return c, nil, err
	}
	if body := b[chunkHeader+c.dict:]; b[4] == chunkFirst {
		rows, err = column.ParseFirstRows(body, dict)
	} else {
		rows, err = column.ParseKnownRows(rows[:0], body, dict, nil)
	}
	if err != nil {
		return c, nil, fmt.Errorf("%w: body: %w", errChunk, err)
	}
	if len(rows) != int(c.rows) {
		return c, nil, fmt.Errorf("%w: %d rows, want %d", errChunk, len(rows), c.rows)
	}
	for i := range rows {
		rows[i].Lane = c.lane
	}
	return c, rows, nil
}

// chunkDict reads the names of a chunk with that header, whose checksum somebody
// else checks.
func chunkDict(b []byte, c chunkInfo) (dict *column.Dict, err error) {
	names := b[chunkHeader : chunkHeader+c.dict]
	if b[7]&chunkPacked != 0 {
		if names, err = column.Unpack(names); err != nil {
			return nil, fmt.Errorf("%w: dictionary: %w", errChunk, err)
		}
	}
	if dict, err = column.ParseDict(names); err != nil {
		return nil, fmt.Errorf("%w: dictionary: %w", errChunk, err)
	}
	return dict, nil
}

// cutChunk appends a chunk of as many of the first rows as fit, and says how
// many these are: all that are given, in nearly every commit.
func cutChunk(dst []byte, lane meter.Lane, first, commit uint64, rows []meter.Row) ([]byte, int, error) {
	n := min(len(rows), maxChunkRows)
	for {
		out, err := appendChunk(dst, lane, first, commit, rows[:n])
		size := len(out) - len(dst)
		switch {
		case err != nil:
			return dst, 0, err
		case size <= maxChunkBytes || n == 1 && size <= capChunkBytes:
			return out, n, nil
		case n == 1:
			return dst, 0, fmt.Errorf("chunk of lane %s: one row of %d octets, at most %d", lane, size, capChunkBytes)
		}
		// A little under proportion, since shorter chunks deflate worse.
		n = max(1, min(n-1, n*(maxChunkBytes*9/10)/size))
	}
}

// setLevel marks a chunk as thinned.
func setLevel(chunk []byte, level uint8) {
	if chunk[6] != level {
		chunk[6] = level
		binary.LittleEndian.PutUint32(chunk[52:], chunkSum(chunk))
	}
}
