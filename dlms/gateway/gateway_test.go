package gateway

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		octets string
		want   Header
		apdu   string
	}{
		{"E6 02 03 A1B2C3 C001C1", Header{false, 2, []byte{0xA1, 0xB2, 0xC3}}, "C001C1"},
		{"E7 02 03 A1B2C3 C401C1", Header{true, 2, []byte{0xA1, 0xB2, 0xC3}}, "C401C1"},
		{"E6 00 00 60", Header{false, 0, nil}, "60"}, // the LLC header of HDLC is E6E600
		{"E7 FF 01 07", Header{true, 255, []byte{7}}, ""},
		{"E6 01 FF" + strings.Repeat("5A", 255) + "DB", Header{false, 1, bytes.Repeat([]byte{0x5A}, 255)}, "DB"},
	} {
		b := unhex(t, c.octets)
		got, apdu, err := Parse(b)
		if err != nil || !reflect.DeepEqual(got, c.want) || !bytes.Equal(apdu, unhex(t, c.apdu)) {
			t.Errorf("%.20s: %+v, %x, %v", c.octets, got, apdu, err)
		}
		out, err := c.want.AppendBinary([]byte{9})
		if err != nil || !bytes.Equal(append(out, apdu...), append([]byte{9}, b...)) || len(out) != 1+c.want.Len() {
			t.Errorf("%.20s: encoded %x, %v", c.octets, out, err)
		}
		for n := range c.want.Len() {
			if h, _, err := Parse(b[:n]); !errors.Is(err, ErrShort) {
				t.Errorf("%.20s cut at %d: %+v, %v", c.octets, n, h, err)
			}
		}
	}
	for _, s := range []string{"C001C1", "E5 00 00", "E8 00 00"} {
		if h, _, err := Parse(unhex(t, s)); !errors.Is(err, ErrTag) {
			t.Errorf("%s: %+v, %v", s, h, err)
		}
	}
	if b, err := (Header{Address: make([]byte, 256)}).AppendBinary(nil); !errors.Is(err, ErrAddress) || len(b) != 0 {
		t.Errorf("address of 256 octets: %x, %v", b, err)
	}
}

// TestAddressCannotGrow: who appends to the address does not write over the APDU.
func TestAddressCannotGrow(t *testing.T) {
	t.Parallel()
	h, apdu, err := Parse([]byte{0xE6, 0, 1, 7, 0xC0})
	if err != nil {
		t.Fatal(err)
	}
	if _ = append(h.Address, 0xFF); apdu[0] != 0xC0 {
		t.Errorf("the APDU is %x now", apdu)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, "E60203A1B2C3C001C1"))
	f.Add(unhex(f, "E70000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, apdu, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := h.AppendBinary(nil); err != nil || !bytes.Equal(append(again, apdu...), b) {
			t.Fatalf("%x is %+v and %x, %v", b, h, apdu, err)
		}
	})
}
