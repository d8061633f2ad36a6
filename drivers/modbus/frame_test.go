package modbus

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frame gives b with its CRC.
func frame(b ...byte) []byte { return binary.LittleEndian.AppendUint16(slices.Clip(b), crc(b)) }

// The bytes are those of the manufacturer's and the Modbus Organization's
// documents.
func TestGoldenFrames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		unit, function  uint8
		address, count  uint16
		request, answer string
	}{
		{"Eastron SDM: volts, phase 1", 1, 4, 0x0000, 2, "01040000000271CB", "0104044366333" + "41B38"},
		{"Modbus: holding registers 108 to 110", 17, 3, 0x006B, 3, "1103006B00037687", "110306AE415652434049AD"},
	} {
		request := encode(c.unit, c.function, c.address, c.count)
		if want := unhex(t, c.request); !bytes.Equal(request, want) {
			t.Errorf("%s: request % X, want % X", c.name, request, want)
		}
		answer := unhex(t, c.answer)
		if got, _ := newMatcher(request).feed(answer, false); !bytes.Equal(got, answer) {
			t.Errorf("%s: the answer gave % X", c.name, got)
		}
	}
	if got := crc([]byte("123456789")); got != 0x4B37 {
		t.Errorf("check value %#x, want 0x4b37", got)
	}
}

func TestMatcher(t *testing.T) {
	t.Parallel()
	request := encode(1, 4, 0, 2)
	ours := frame(1, 4, 4, 0x43, 0x66, 0x33, 0x34)
	refused := frame(1, 0x84, 2)
	late := frame(1, 4, 2, 9, 9)
	foreign := frame(2, 4, 4, 1, 2, 3, 4)
	inside := frame(append([]byte{2, 4, 12}, append(slices.Clone(ours), 0, 0, 0)...)...) // ours within another's
	for _, c := range []struct {
		name string
		in   [][]byte
		want []byte
		late []shape
	}{
		{"the answer", [][]byte{ours}, ours, nil},
		{"in parts", [][]byte{ours[:1], ours[1:2], ours[2:8], ours[8:]}, ours, nil},
		{"an exception in parts", [][]byte{refused[:2], refused[2:]}, refused, nil},
		{"noise before", [][]byte{{0xFF, 0x00, 0x55}, ours}, ours, nil},
		{"noise behind", [][]byte{append(slices.Clone(ours), 0xFF, 0x13)}, ours, nil},
		{"the unit's number before", [][]byte{{1}, ours}, ours, nil},
		{"half an answer before", [][]byte{ours[:4], ours}, ours, nil},
		{"an echo", [][]byte{request, ours}, ours, nil},
		{"half an echo at a time", [][]byte{request[:5], request[5:], ours}, ours, nil},
		{"another unit", [][]byte{foreign, ours}, ours, nil},
		{"another quantity", [][]byte{late, ours}, ours, []shape{{4, 1}}},
		{"both", [][]byte{slices.Concat(late, foreign, late, ours)}, ours, []shape{{4, 1}, {4, 1}}},
		{"within another's frame", [][]byte{inside[:12], inside[12:]}, nil, nil},
		{"within another's frame, then right", [][]byte{inside[:12], inside[12:], ours}, ours, nil},
		{"within what does not become a frame", [][]byte{inside[:14]}, ours, nil},
		{"another function", [][]byte{frame(1, 3, 4, 1, 2, 3, 4)}, nil, []shape{{3, 2}}},
		{"an exception to another function", [][]byte{frame(1, 0x83, 2)}, nil, nil},
		{"an exception of no number", [][]byte{frame(1, 0x84, 0)}, nil, nil},
		{"another count", [][]byte{frame(1, 4, 6, 1, 2, 3, 4, 5, 6)}, nil, []shape{{4, 3}}},
		{"a false CRC", [][]byte{append(slices.Clone(ours[:8]), ours[8]^1)}, nil, nil},
		{"nothing", nil, nil, nil},
	} {
		m := newMatcher(request)
		var got []byte
		for _, b := range c.in {
			if got, _ = m.feed(b, false); got != nil {
				break
			}
		}
		if got == nil {
			got, _ = m.feed(nil, true)
		}
		if !bytes.Equal(got, c.want) || !slices.Equal(m.late, c.late) {
			t.Errorf("%s: got % X, late %v; want % X, %v", c.name, got, m.late, c.want, c.late)
		}
	}
}

func TestTruncatedFramesAreNoAnswer(t *testing.T) {
	t.Parallel()
	request := encode(1, 4, 0x48, 40)
	data := make([]byte, 80)
	for i := range data {
		data[i] = byte(i * 7)
	}
	for _, answer := range [][]byte{frame(append([]byte{1, 4, 80}, data...)...), frame(1, 0x84, 2)} {
		for n := range answer {
			if got, _ := newMatcher(request).feed(answer[:n], true); got != nil {
				t.Errorf("%d of %d bytes gave % X", n, len(answer), got)
			}
		}
	}
}

// One, two or three wrong bits never pass: the CRC has a Hamming distance of 4
// at this length.
func TestWrongBitsDoNotPass(t *testing.T) {
	t.Parallel()
	request := encode(1, 4, 0, 2)
	ours := frame(1, 4, 4, 0x43, 0x66, 0x33, 0x34)
	bits := len(ours) * 8
	flip := func(b []byte, i int) { b[i/8] ^= 1 << (i % 8) }
	for i := range bits {
		for j := i; j < bits; j++ {
			for k := j; k < bits; k++ {
				b := slices.Clone(ours)
				for _, at := range slices.Compact([]int{i, j, k}) {
					flip(b, at)
				}
				if got, _ := newMatcher(request).feed(b, true); got != nil {
					t.Fatalf("bits %d, %d, %d: % X passed", i, j, k, b)
				}
			}
		}
	}
}

// Whatever comes, in whatever pieces: what is accepted is an answer of the
// unit asked, to the function asked, of the length asked, with its CRC, and it
// did come.
func FuzzMatcher(f *testing.F) {
	ours := frame(1, 4, 4, 0x43, 0x66, 0x33, 0x34)
	f.Add(uint8(1), uint8(4), uint16(2), ours, uint8(3))
	f.Add(uint8(1), uint8(4), uint16(2), frame(1, 0x84, 2), uint8(2))
	f.Add(uint8(1), uint8(3), uint16(1), slices.Concat(ours, frame(1, 3, 2, 5, 6)), uint8(9))
	f.Add(uint8(2), uint8(4), uint16(125), slices.Concat(encode(2, 4, 0, 125), ours), uint8(1))
	f.Fuzz(func(t *testing.T, unit, function uint8, count uint16, in []byte, piece uint8) {
		function, count = 3+function%2, 1+count%maxRegs
		if len(in) > maxGarbage {
			in = in[:maxGarbage]
		}
		m := newMatcher(encode(unit, function, 0x1234, count))
		var got []byte
		for rest := in; got == nil && len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			got, _ = m.feed(rest[:n], false)
			rest = rest[n:]
		}
		if got == nil {
			got, _ = m.feed(nil, true)
		}
		if got == nil {
			return
		}
		n := len(got) - 2
		normal := got[1] == function && int(got[2]) == 2*int(count) && n == 3+2*int(count)
		exception := got[1] == function|0x80 && n == 3
		if got[0] != unit || !normal && !exception || crc(got[:n]) != binary.LittleEndian.Uint16(got[n:]) || !bytes.Contains(in, got) {
			t.Fatalf("unit %d function %d count %d accepted % X", unit, function, count, got)
		}
	})
}
