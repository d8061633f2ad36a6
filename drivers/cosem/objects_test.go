package cosem

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
)

// many gives n objects of a class that nobody knows.
func many(n int) []dlmstest.Object {
	list := make([]dlmstest.Object, n)
	for i := range list {
		list[i] = dlmstest.Object{
			Class: 9000, Version: 7, Code: obis.Code{0, 1, 128, byte(i >> 8), byte(i), 255}, Attributes: []int8{2, 3, 4, 5, 6, -1},
			Read: func(int8, *dlmstest.Selection) (axdr.Value, bool) { return axdr.Null(), true },
		}
	}
	return list
}

// TestObjects lists the objects of meters with many, by both kinds of names:
// over 64 KiB, in blocks.
func TestObjects(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		grants uint32
		pdu    uint16
		many   int
	}{
		"few":                 {dlmstest.Reading, 4096, 3},
		"blocks":              {dlmstest.Reading &^ 0x200000, 256, 2000},
		"general blocks":      {dlmstest.Reading, 256, 2000},
		"short names":         {dlmstest.ShortNames, 4096, 3},
		"short names, blocks": {dlmstest.ShortNames, 256, 200},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			short := c.grants == dlmstest.ShortNames
			r := newRig(t, dlmstest.Options{
				MaxPDU: c.pdu, Objects: append(objects("A1"), many(c.many)...),
				Clients: map[uint16]dlmstest.Login{16: {Conformance: c.grants}},
			})
			list, err := r.driver(t, Config{ShortNames: short}).Objects(t.Context())
			if err != nil || len(list) < c.many+10 {
				t.Fatalf("%d objects, %v", len(list), err)
			}
			at := slices.IndexFunc(list, func(o Object) bool { return o.Class == 9000 && o.Code == (obis.Code{0, 1, 128, 0, 2, 255}) })
			if at < 0 {
				t.Fatalf("an object is not in the list of %d", len(list))
			}
			if o := list[at]; o.ClassName() != "class 9000" || o.Version != 7 || o.HasRights == short ||
				!short && !slices.Equal(o.Readable, []int8{-1, 1, 2, 3, 4, 5, 6}) || short && len(o.Readable) != 0 {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestObjectsThatAreNone has lists that are no lists of objects, and one that
// has no end.
func TestObjectsThatAreNone(t *testing.T) {
	t.Parallel()
	listOf := name([]byte("\xC0\x01\xC1\x00\x0F\x00\x00\x28\x00\x00\xFF\x02\x00"))
	for title, c := range map[string]struct {
		data string
		is   error
	}{
		"null": {"\x00", dlms.ErrMalformed}, "a number": {"\x11\x01", dlms.ErrMalformed},
		"of numbers": {"\x01\x01\x11\x01", dlms.ErrMalformed}, "of nothing": {"\x01\x01\x02\x00", dlms.ErrMalformed},
		"empty": {"\x01\x00", nil}, "without end": {"", dlms.ErrTooLarge},
	} {
		r := newRig(t, dlmstest.Options{Objects: objects("A1")})
		block := uint32(0)
		r.spoil(func(request, frame []byte) []byte {
			apdu := "\xC4\x01" + string(request[2:3]) + "\x00" + c.data
			switch n := name(request); {
			case n != listOf && n != "next":
				return frame
			case errors.Is(c.is, dlms.ErrTooLarge):
				block++
				b := binary.BigEndian.AppendUint32([]byte{0xC4, 2, request[2], 0}, block)
				apdu = string(b) + "\x00\x82\x20\x00" + strings.Repeat("\x00", 0x2000)
			}
			return append(binary.BigEndian.AppendUint16(frame[:6:6], uint16(len(apdu))), apdu...)
		})
		if list, err := r.driver(t, Config{}).Objects(t.Context()); !errors.Is(err, c.is) || len(list) != 0 {
			t.Errorf("%s: %v, %v", title, list, err)
		}
	}
}
