package wire

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

func TestZigzag(t *testing.T) {
	t.Parallel()
	for v, want := range map[int64]uint64{0: 0, -1: 1, 1: 2, -2: 3, math.MaxInt64: math.MaxUint64 - 1, math.MinInt64: math.MaxUint64} {
		if got := Zigzag(v); got != want || Unzigzag(want) != v {
			t.Errorf("%d: %d, and back %d", v, got, Unzigzag(want))
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	b := AppendUint(nil, 1, 150) // the example of the protobuf documentation
	b = AppendBytes(b, 2, "testing")
	b = AppendSint(b, 3, -1)
	b = AppendUint(b, 4, 0)
	b = AppendBytes(b, 5, "")
	b = AppendMessage(b, 6, []byte{})
	b = append(b, 7<<3|fixed4, 1, 2, 3, 4)
	b = AppendFixed(b, 8, 0x0807060504030201)
	want := "\x08\x96\x01\x12\x07testing\x18\x01\x32\x00\x3d\x01\x02\x03\x04\x41\x01\x02\x03\x04\x05\x06\x07\x08"
	if string(b) != want {
		t.Errorf("got  %x\nwant %x", b, want)
	}
	var fields []Field
	ends := map[int]bool{0: true}
	for rest := b; len(rest) > 0; {
		f, after, err := Next(rest)
		if err != nil {
			t.Fatal(err)
		}
		fields, rest = append(fields, f), after
		ends[len(b)-len(rest)] = true
	}
	if len(fields) != 6 || fields[0].Value != 150 || string(fields[1].Data) != "testing" ||
		Unzigzag(fields[2].Value) != -1 || fields[3].Num != 6 || len(fields[3].Data) != 0 || fields[5].Num != 8 || fields[5].Value != 0x0807060504030201 {
		t.Errorf("%+v", fields)
	}
	for n := range b {
		rest, err := b[:n], error(nil)
		for len(rest) > 0 && err == nil {
			_, rest, err = Next(rest)
		}
		if (err == nil) != ends[n] {
			t.Errorf("%d bytes of %d: %v", n, len(b), err)
		}
		if err != nil && !errors.Is(err, ErrTruncated) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{
		"field 0":              {0x00, 1},
		"a group":              {0x0B},
		"a length past memory": {0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01},
		"a varint too long":    {0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02},
		"a field number of 30": {0x80, 0x80, 0x80, 0x80, 0x10, 0},
	} {
		if f, _, err := Next(b); err == nil {
			t.Errorf("%s: read as %+v", name, f)
		}
	}
	f := Field{Num: 3, Type: Varint, Value: 9}
	if _, err := f.Uint(8); err == nil {
		t.Error("9 is within 8")
	}
	if _, err := f.Text(8); err == nil {
		t.Error("a number is a text")
	}
	if _, err := (Field{Type: Bytes, Data: []byte("123")}).Text(2); err == nil {
		t.Error("3 bytes are within 2")
	}
}

// FuzzNext holds that fields cover the input without gap and that minimal
// fields are written as they were read.
func FuzzNext(f *testing.F) {
	f.Add([]byte{0x08, 0x96, 0x01, 0x12, 0x02, 'h', 'i'})
	f.Fuzz(func(t *testing.T, b []byte) {
		field, rest, err := Next(b)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(b, rest) || len(rest) >= len(b) {
			t.Fatal("what is left is not the end of the input")
		}
		if field.Type == Bytes {
			again, _, err := Next(AppendMessage(nil, field.Num, field.Data))
			if err != nil || again.Num != field.Num || !bytes.Equal(again.Data, field.Data) {
				t.Fatalf("%+v reads back as %+v, %v", field, again, err)
			}
		}
	})
}
