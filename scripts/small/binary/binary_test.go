package binary

import (
	"bytes"
	"encoding/binary"
	"io"
	"reflect"
	"testing"
)

type short uint32

func TestAsTheStandardLibrary(t *testing.T) {
	t.Parallel()
	for _, v := range []any{
		uint8(0xa5), int8(-7), uint16(0xabcd), int16(-1234), uint32(0xdeadbeef), int32(-12345678),
		uint64(0xfedcba9876543210), int64(-0x123456789abcdef), short(0x80000001), []byte("octets"),
	} {
		var ours, theirs bytes.Buffer
		if err := Write(&ours, BigEndian, v); err != nil {
			t.Fatal(err)
		}
		if err := binary.Write(&theirs, binary.BigEndian, v); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(ours.Bytes(), theirs.Bytes()) {
			t.Errorf("%T: %x, want %x", v, ours.Bytes(), theirs.Bytes())
		}
		if _, ok := v.([]byte); ok {
			continue
		}
		wire := ours.Bytes()
		got := reflect.New(reflect.TypeOf(v))
		if err := Read(bytes.NewReader(wire), BigEndian, got.Interface()); err != nil || got.Elem().Interface() != v {
			t.Errorf("%v was read as %v: %v", v, got.Elem(), err)
		}
		for n := range wire {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if err := Read(bytes.NewReader(wire[:n]), BigEndian, got.Interface()); err != want { //nolint:errorlint // as it is
				t.Errorf("%T of %d octets: %v, want %v", v, n, err, want)
			}
		}
	}
}

func TestNoNumber(t *testing.T) {
	t.Parallel()
	for _, v := range []any{"text", 7, 1.5, true, [2]uint8{}, []uint16{1}} {
		if Write(io.Discard, BigEndian, v) == nil {
			t.Errorf("%T was written", v)
		}
	}
	if n := 7; Read(bytes.NewReader(make([]byte, 8)), BigEndian, &n) == nil {
		t.Error("an int was read")
	}
}
