// Package wire reads and writes the protobuf wire format
// (https://protobuf.dev/programming-guides/encoding) by hand: varints, zig-zag
// integers, length-delimited fields and packed columns. There is no reflection
// and no schema; the messages live with their owners.
//
//	field   = tag payload
//	tag     = varint (number << 3 | type)
//	type    = 0 varint | 1 eight bytes | 2 length-delimited | 5 four bytes
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The wire types that are written. Fields of four bytes are skipped on reading.
const (
	Varint = 0
	Fixed  = 1 // eight bytes, little endian
	Bytes  = 2
	fixed4 = 5
)

var (
	// ErrTruncated says that the input ends within a field.
	ErrTruncated = errors.New("ends within a field")
	// ErrVarint says that a varint is longer than 64 bits.
	ErrVarint = errors.New("varint of more than 64 bits")
)

// Zigzag maps small magnitudes of either sign to small numbers: 0, -1, 1, -2
// become 0, 1, 2, 3.
func Zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

// Unzigzag undoes Zigzag.
func Unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// AppendVarint appends v.
func AppendVarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// AppendUint appends field num with v, and nothing when v is 0, the default.
func AppendUint(b []byte, num int, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = AppendVarint(b, uint64(num)<<3|Varint)
	return AppendVarint(b, v)
}

// AppendSint appends field num with v in zig-zag form, and nothing when v is 0.
func AppendSint(b []byte, num int, v int64) []byte { return AppendUint(b, num, Zigzag(v)) }

// AppendFixed appends field num with v in eight bytes, also when v is 0.
func AppendFixed(b []byte, num int, v uint64) []byte {
	b = AppendVarint(b, uint64(num)<<3|Fixed)
	return binary.LittleEndian.AppendUint64(b, v)
}

// AppendBytes appends field num with the bytes or text p, and nothing when p is
// empty, the default.
func AppendBytes[T ~[]byte | ~string](b []byte, num int, p T) []byte {
	if len(p) == 0 {
		return b
	}
	return AppendMessage(b, num, p)
}

// AppendMessage appends field num with p also when p is empty: an empty message
// in a repeated field counts.
func AppendMessage[T ~[]byte | ~string](b []byte, num int, p T) []byte {
	b = AppendVarint(b, uint64(num)<<3|Bytes)
	b = AppendVarint(b, uint64(len(p)))
	return append(b, p...)
}

// ReadVarint takes a varint off the front of b.
func ReadVarint(b []byte) (v uint64, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	v, n := binary.Uvarint(b)
	switch {
	case n > 0:
		return v, b[n:], nil
	case n == 0:
		return 0, nil, ErrTruncated
	default:
		return 0, nil, ErrVarint
	}
}

// Field is one field of a message. Data aliases the input.
type Field struct {
	Num   int
	Type  int    // Varint, Fixed, Bytes, or what is to be skipped
	Value uint64 // of a Varint or Fixed
	Data  []byte // of Bytes
}

// Next takes a field off the front of b.
func Next(b []byte) (f Field, rest []byte, err error) {
	tag, rest, err := ReadVarint(b)
	if err != nil {
		return Field{}, nil, fmt.Errorf("tag: %w", err)
	}
	if tag>>3 == 0 || tag>>3 >= 1<<29 {
		return Field{}, nil, fmt.Errorf("tag %#x: no such field number", tag)
	}
	f = Field{Num: int(tag >> 3), Type: int(tag & 7)}
	switch f.Type {
	case Varint:
		f.Value, rest, err = ReadVarint(rest)
	case Bytes:
		var n uint64
		n, rest, err = ReadVarint(rest)
		if err == nil && n > uint64(len(rest)) {
			err = ErrTruncated
		}
		if err == nil {
			f.Data, rest = rest[:n:n], rest[n:]
		}
	case Fixed:
		if len(rest) < 8 {
			err = ErrTruncated
			break
		}
		f.Value, rest = binary.LittleEndian.Uint64(rest), rest[8:]
	case fixed4:
		if len(rest) < 4 {
			err = ErrTruncated
			break
		}
		rest = rest[4:]
	default:
		err = fmt.Errorf("wire type %d is not in use", f.Type)
	}
	if err != nil {
		return Field{}, nil, fmt.Errorf("field %d: %w", f.Num, err)
	}
	return f, rest, nil
}

// Want says that the field has type t.
func (f Field) Want(t int) error {
	if f.Type != t {
		return fmt.Errorf("field %d: wire type %d, want %d", f.Num, f.Type, t)
	}
	return nil
}

// Uint gives the value of a varint field that may be at most limit.
func (f Field) Uint(limit uint64) (uint64, error) {
	if err := f.Want(Varint); err != nil {
		return 0, err
	}
	if f.Value > limit {
		return 0, fmt.Errorf("field %d: %d is over %d", f.Num, f.Value, limit)
	}
	return f.Value, nil
}

// Text gives a copy of the bytes of a field that may have at most limit.
func (f Field) Text(limit int) (string, error) {
	if err := f.Want(Bytes); err != nil {
		return "", err
	}
	if len(f.Data) > limit {
		return "", fmt.Errorf("field %d: %d bytes, at most %d", f.Num, len(f.Data), limit)
	}
	return string(f.Data), nil
}
