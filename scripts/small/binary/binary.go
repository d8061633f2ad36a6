// Package binary stands for encoding/binary in the modules that scripts/small.sh
// copies: single numbers and octets only, for what these write and read.
package binary

import (
	"encoding/binary"
	"fmt"
	"io"
	"reflect"
)

// bigEndian has no other order.
type bigEndian struct{ binary.ByteOrder }

// BigEndian is the order of octets.
//
//nolint:gochecknoglobals // a constant
var BigEndian = bigEndian{binary.BigEndian}

// Write writes a number of a fixed size, or octets.
func Write(w io.Writer, _ bigEndian, data any) error {
	if b, ok := data.([]byte); ok {
		_, err := w.Write(b)
		return err
	}
	v := reflect.ValueOf(data)
	var n uint64
	switch size, err := sizeOf(v); {
	case err != nil:
		return err
	case v.CanInt():
		n = uint64(v.Int()) << (64 - 8*size)
	default:
		n = v.Uint() << (64 - 8*size)
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	_, err := w.Write(b[:v.Type().Size()])
	return err
}

// Read reads a number of a fixed size to where data points.
func Read(r io.Reader, _ bigEndian, data any) error {
	v := reflect.Indirect(reflect.ValueOf(data))
	size, err := sizeOf(v)
	if err != nil {
		return err
	}
	var b [8]byte
	if _, err := io.ReadFull(r, b[8-size:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint64(b[:])
	if v.CanInt() {
		v.SetInt(int64(n<<(64-8*size)) >> (64 - 8*size))
		return nil
	}
	v.SetUint(n)
	return nil
}

// sizeOf gives the size of a number, in octets.
func sizeOf(v reflect.Value) (int, error) {
	switch v.Kind() { //nolint:exhaustive // the others are no such numbers
	case reflect.Int8, reflect.Uint8, reflect.Int16, reflect.Uint16, reflect.Int32, reflect.Uint32, reflect.Int64, reflect.Uint64:
		return int(v.Type().Size()), nil
	}
	return 0, fmt.Errorf("binary: %v is no number of a fixed size", v.Kind())
}
