package hdlc

import (
	"bytes"
	"errors"
	"testing"
)

func ui(source uint16, segmented bool, info string) Frame {
	return Frame{Segmented: segmented, Destination: ClientAddress(16), Source: Address{Upper: source, Size: 1}, Control: UI, Info: []byte(info)}
}

func TestNotices(t *testing.T) {
	t.Parallel()
	const llc = "\xE6\xE7\x00"
	long := string(bytes.Repeat([]byte{0x0F}, 60))
	for name, c := range map[string]struct {
		frames []Frame
		want   string
		is     error
	}{
		"one":                {[]Frame{ui(1, false, llc+"\x0F\x01")}, "\x0F\x01", nil},
		"three segments":     {[]Frame{ui(1, true, llc+"\x0F"), ui(1, true, "\x01"), ui(1, false, "\x02")}, "\x0F\x01\x02", nil},
		"not final":          {[]Frame{{Source: Address{Upper: 1, Size: 1}, Control: UI &^ 0x10, Info: []byte(llc + "\x0F")}}, "\x0F", nil},
		"two meters":         {[]Frame{ui(1, true, llc+"\x0F"), ui(2, false, llc+"\x0F\x02")}, "\x0F\x02", nil},
		"the end of another": {[]Frame{ui(1, true, llc+"\x0F"), ui(2, false, "\x02")}, "", ErrLLC},
		"after one too long": {[]Frame{ui(1, true, llc+long), ui(1, false, long), ui(1, false, llc+"\x0F\x03")}, "\x0F\x03", nil},
		"too long":           {[]Frame{ui(1, true, llc+long), ui(1, false, long)}, "", ErrTooLong},
		"begun only":         {[]Frame{ui(1, true, llc+"\x0F")}, "", nil},
		"no header":          {[]Frame{ui(1, false, "\x0F\x01\x02\x03")}, "", ErrLLC},
		"a client's header":  {[]Frame{ui(1, false, "\xE6\xE6\x00\x0F")}, "", ErrLLC},
		"nothing in it":      {[]Frame{ui(1, false, llc)}, "", ErrLLC},
		"empty":              {[]Frame{ui(1, false, "")}, "", ErrLLC},
		"an I frame":         {[]Frame{{Control: Information(0, 0, true), Info: []byte(llc + "\x0F")}}, "", ErrControl},
	} {
		n := Notices{Max: 100}
		var got []byte
		var err error
		for _, f := range c.frames {
			got, err = n.Add(f)
		}
		if string(got) != c.want || !errors.Is(err, c.is) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

// FuzzNotices has a listener on what comes in: whatever that is, an APDU is not
// longer than Max and was in it.
func FuzzNotices(f *testing.F) {
	one, _ := ui(1, false, "\xE6\xE7\x00\x0F\x01").AppendBinary(nil)
	two, _ := ui(2, true, "\xE6\xE7\x00\x0F").AppendBinary(nil)
	f.Add(one)
	f.Add(append(two, one...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Splitter
		n := Notices{Max: 64}
		s.Feed(b)
		for raw, ok := s.Next(); ok; raw, ok = s.Next() {
			frame, err := ParseFrame(raw)
			if err != nil {
				continue
			}
			apdu, err := n.Add(frame)
			if len(apdu) > 64 || err != nil && apdu != nil {
				t.Fatalf("%x, %v", apdu, err)
			}
			if apdu != nil && !frame.Segmented && !bytes.HasSuffix(apdu, frame.Info[min(3, len(frame.Info)):]) {
				t.Fatalf("%x is not in %x", apdu, b)
			}
		}
	})
}
