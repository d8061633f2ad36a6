package ingest

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gridgate/agent/batch"
)

// The columns of the table stage, in the order of appendTuple.
const (
	stageColumns = "time, meter, channel, occurrence, lane, kind, unit, source, stream, quality, period, bound, sequence, value, text, octets, status"
	stageCount   = 17
)

// The frame of COPY BINARY (PostgreSQL, COPY, "Binary Format").
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
)

// postgresEpoch is 2000-01-01 in milliseconds since 1970.
const postgresEpoch = 946_684_800_000

// place is where a row belongs: the numbers that the database gave.
type place struct {
	meter, channel, stream int32
	sequence               int64
}

// appendTuple appends a row of the table stage. The time must be one that
// plausible lets through.
func appendTuple(b []byte, p place, r *batch.Row) []byte {
	b = binary.BigEndian.AppendUint16(b, stageCount)
	b = appendInt8(b, (r.Stamp.Time-postgresEpoch)*1000)
	b = appendInt4(b, p.meter)
	b = appendInt4(b, p.channel)
	b = appendInt2(b, int16(r.Occurrence))
	b = appendInt2(b, int16(r.Lane))
	b = appendInt2(b, int16(r.Value.Kind))
	b = appendInt2(b, int16(r.Unit))
	b = appendInt2(b, int16(r.Stamp.Source))
	b = appendInt4(b, p.stream)
	b = appendInt8(b, int64(r.Quality))
	b = appendInt8(b, int64(r.Period))
	if r.Stamp.Bound == math.MaxUint32 {
		b = appendNull(b)
	} else {
		b = appendInt8(b, int64(r.Stamp.Bound))
	}
	b = appendInt8(b, p.sequence)
	b = appendValue(b, r.Value)
	if !r.HasStatus {
		return appendNull(b)
	}
	return appendNumeric(b, false, r.Status, 0)
}

// appendValue appends the columns value, text and octets.
func appendValue(b []byte, v batch.Value) []byte {
	switch v.Kind {
	case batch.Int:
		n := v.Int64()
		b = appendNumeric(b, n < 0, magnitude(n), int(v.Scale))
	case batch.Uint:
		b = appendNumeric(b, false, v.Bits, int(v.Scale))
	case batch.Float32, batch.Float64:
		b = appendFloat(b, v)
	case batch.Bool:
		b = appendNumeric(b, false, v.Bits&1, 0)
	case batch.Text:
		if isText(v.Data) {
			return appendNull(appendBytes(appendNull(b), v.Data))
		}
		return appendBytes(appendNull(appendNull(b)), v.Data)
	case batch.Octets, batch.DateTime:
		return appendBytes(appendNull(appendNull(b)), v.Data)
	default: // None
		b = appendNull(b)
	}
	return appendNull(appendNull(b))
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// isText says whether PostgreSQL takes s as a text.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// appendFloat appends the shortest decimal that gives the meter's bits, shifted
// by the scale.
func appendFloat(b []byte, v batch.Value) []byte {
	f, size := math.Float64frombits(v.Bits), 64
	if v.Kind == batch.Float32 {
		f, size = float64(math.Float32frombits(uint32(v.Bits))), 32
	}
	switch {
	case math.IsNaN(f):
		return append(b, 0, 0, 0, 8, 0, 0, 0, 0, 0xC0, 0, 0, 0)
	case math.IsInf(f, 1):
		return append(b, 0, 0, 0, 8, 0, 0, 0, 0, 0xD0, 0, 0, 0)
	case math.IsInf(f, -1):
		return append(b, 0, 0, 0, 8, 0, 0, 0, 0, 0xF0, 0, 0, 0)
	}
	var buffer [32]byte
	text := strconv.AppendFloat(buffer[:0], math.Abs(f), 'e', -1, size) // d.ddde±dd, 17 digits at most
	mantissa, exponent, _ := strings.Cut(string(text), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	n, _ := strconv.ParseUint(whole+fraction, 10, 64)
	e, _ := strconv.Atoi(exponent)
	return appendNumeric(b, math.Signbit(f) && n > 0, n, e-len(fraction)+int(v.Scale))
}

// appendNumeric appends ±n × 10^scale as a numeric with all its digits:
// digits of base 10,000, the weight of the first, the sign, and how many decimal
// places are shown.
func appendNumeric(b []byte, negative bool, n uint64, scale int) []byte {
	shown := 0
	if scale < 0 {
		shown = -scale
	}
	// The decimal point stands between digits of base 10,000: make the scale a
	// multiple of four by up to three zeros behind n.
	high, low := uint64(0), n
	low4 := ((scale % 4) + 4) % 4
	for range low4 {
		var carry uint64
		carry, low = bits.Mul64(low, 10)
		high = high*10 + carry
	}
	lowest := (scale - low4) / 4 // weight of the last digit
	var digits [8]uint16
	count := 0
	for high > 0 || low > 0 {
		var rest uint64
		quotient := high / 10_000
		low, rest = bits.Div64(high%10_000, low, 10_000)
		high = quotient
		digits[count] = uint16(rest)
		count++
	}
	first := 0 // zeros at the end need not be there
	for first < count && digits[first] == 0 {
		first++
	}
	sign := uint16(0)
	if negative {
		sign = 0x4000
	}
	if count == 0 {
		lowest = 1 // of nothing the weight is 0
	}
	b = binary.BigEndian.AppendUint32(b, uint32(8+2*(count-first)))
	b = binary.BigEndian.AppendUint16(b, uint16(count-first))
	b = binary.BigEndian.AppendUint16(b, uint16(int16(lowest+count-1)))
	b = binary.BigEndian.AppendUint16(b, sign)
	b = binary.BigEndian.AppendUint16(b, uint16(shown))
	for i := count - 1; i >= first; i-- {
		b = binary.BigEndian.AppendUint16(b, digits[i])
	}
	return b
}

func appendNull(b []byte) []byte { return append(b, 0xFF, 0xFF, 0xFF, 0xFF) }

func appendInt2(b []byte, v int16) []byte {
	return append(b, 0, 0, 0, 2, byte(uint16(v)>>8), byte(v))
}

func appendInt4(b []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(v))
}

func appendInt8(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(v))
}

func appendBytes(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// The times that rows may have. A meter whose clock is wrong by more is refused
// row by row.
const maxAhead = 48 * time.Hour

// plausible says whether a row's time can be true.
func plausible(ms int64, now time.Time) bool {
	return ms >= postgresEpoch && ms <= now.Add(maxAhead).UnixMilli()
}

// week gives the number of the week that a time lies in: weeks begin on
// Mondays, UTC, and the first is that of 2000-01-03.
func week(ms int64) int64 {
	const long = 7 * 24 * 3600 * 1000
	return floorDiv(ms-(postgresEpoch+2*24*3600*1000), long)
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// weekBegin gives the first moment of a week.
func weekBegin(w int64) time.Time {
	return time.Date(2000, 1, 3, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(7*w))
}
