package llc

import (
	"bytes"
	"encoding/hex"
	"errors"
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
		{"90 01 10 60 1D A1", Header{Destination: 1, Source: 16}, "601DA1"},
		{"90 10 01 61 29 A1", Header{Destination: 16, Source: 1}, "6129A1"},
		{"90 FF 02", Header{Destination: 255, Source: 2}, ""},
	} {
		b := unhex(t, c.octets)
		got, apdu, err := Parse(b)
		if err != nil || got != c.want || !bytes.Equal(apdu, unhex(t, c.apdu)) {
			t.Errorf("%s: %+v, %x, %v", c.octets, got, apdu, err)
		}
		out, err := c.want.AppendBinary([]byte{9})
		if err != nil || !bytes.Equal(append(out, apdu...), append([]byte{9}, b...)) || len(out) != 1+HeaderLen {
			t.Errorf("%s: encoded %x, %v", c.octets, out, err)
		}
		for n := range HeaderLen {
			if h, _, err := Parse(b[:n]); !errors.Is(err, ErrShort) {
				t.Errorf("%s cut at %d: %+v, %v", c.octets, n, h, err)
			}
		}
	}
	for _, s := range []string{"E6E600", "910110", "00"} {
		if h, _, err := Parse(unhex(t, s)); !errors.Is(err, ErrService) {
			t.Errorf("%s: %+v, %v", s, h, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, "900110601D"))
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
