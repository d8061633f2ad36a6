package hdlc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
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

func one(v uint16) Address { return Address{Upper: v, Size: 1} }

func TestCheck(t *testing.T) {
	t.Parallel()
	if got := check([]byte("123456789")); got != 0x906E {
		t.Errorf("check %04x, want 906E", got)
	}
	if got := appendCheck(nil, []byte("123456789")); !bytes.Equal(got, []byte{0x6E, 0x90}) {
		t.Errorf("on the line %x, want 6E90", got)
	}
}

// vector is a frame of the published vectors and what is in it.
type vector struct {
	name, octets string
	frame        Frame
	info         string
}

func vectors() []vector {
	client16 := one(16)
	long := Address{Upper: 1, Lower: 17, Size: 4}
	return []vector{
		{"SNRM", "7EA0070321930F017E", Frame{Destination: one(1), Source: client16, Control: SNRM}, ""},
		{
			"UA", "7EA01E210373C37A818012050180060180070400000001080400000001533B7E",
			Frame{Destination: client16, Source: one(1), Control: UA},
			"818012050180060180070400000001080400000001",
		},
		{"DISC", "7EA00703215303C77E", Frame{Destination: one(1), Source: client16, Control: DISC}, ""},
		{"RR 3", "7EA00703217113C57E", Frame{Destination: one(1), Source: client16, Control: ReceiveReady(3, true)}, ""},
		{
			"UA of a server with 4 octets", "7EA023210002002373F6C58180140502008006020080070400000001080400000001CE6A7E",
			Frame{Destination: client16, Source: long, Control: UA},
			"8180140502008006020080070400000001080400000001",
		},
		{
			"FCS with a flag in it", "7EA01B0300023C4752D551E6E700C401C10009060100202000FF7E8C7E",
			Frame{Destination: one(1), Source: Address{Upper: 1, Lower: 0x1E<<7 | 0x23, Size: 4}, Control: Information(1, 2, true)},
			"E6E700C401C10009060100202000FF",
		},
		{
			"FRMR", "7EA00F0300022C2997 1B60 540010 743F7E",
			Frame{Destination: one(1), Source: Address{Upper: 1, Lower: 0x16<<7 | 0x14, Size: 4}, Control: FRMR},
			"540010",
		},
		{
			"AARE without user information", "7EA026210201304F22E6E7006117A109060760857405080101A203020101A305A10302010DAE4F7E",
			Frame{Destination: client16, Source: Address{Upper: 1, Size: 2}, Control: Information(0, 1, true)},
			"E6E7006117A109060760857405080101A203020101A305A10302010D",
		},
		{
			"segment", "7EA80B0321 30 CA70 AABB 1234 7E", // its checks are made below
			Frame{Segmented: true, Destination: one(1), Source: client16, Control: Information(0, 1, true)}, "AABB",
		},
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors() {
		f := v.frame
		if v.info != "" {
			f.Info = unhex(t, v.info)
		}
		b, err := f.AppendBinary([]byte{9})
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		want := unhex(t, v.octets)
		if v.name == "segment" {
			want = b[1:]
		}
		if !bytes.Equal(b[1:], want) || b[0] != 9 {
			t.Errorf("%s: encoded\n\t%x, want\n\t%x", v.name, b[1:], want)
		}
		got, err := ParseFrame(want)
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%s: decoded\n\t%+v, %v, want\n\t%+v", v.name, got, err, f)
		}
		for n := range want {
			if f, err := ParseFrame(want[:n]); !errors.Is(err, ErrShort) {
				t.Errorf("%s cut at %d: %+v, %v", v.name, n, f, err)
			}
			bad := bytes.Clone(want)
			bad[n] ^= 0x04
			if f, err := ParseFrame(bad); err == nil {
				t.Errorf("%s with octet %d changed: %+v", v.name, n, f)
			}
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		logical, physical uint16
		size              int
		octets            string
	}{
		{16, 0, 1, "21"},
		{17, 0, 0, "23"},
		{1, 0, 1, "03"},
		{18, 0, 1, "25"},
		{32, 0, 1, "41"},
		{0x7F, 0, 1, "FF"},
		{1, 17, 2, "0223"},
		{1, 17, 0, "0223"},
		{1, 17, 4, "00020023"},
		{1, 300, 0, "00020459"},
		{0x3FFF, 0x3FFF, 4, "FEFEFEFF"},
		{0x1234, 0x0567, 4, "486814CF"},
	} {
		a, err := ServerAddress(c.logical, c.physical, c.size)
		if err != nil {
			t.Errorf("%d/%d: %v", c.logical, c.physical, err)
			continue
		}
		b, err := a.AppendBinary(nil)
		if want := unhex(t, c.octets); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%v: %x, %v, want %x", a, b, err, want)
		}
		back, rest, err := ParseAddress(append(b, 2))
		if err != nil || back != a || len(rest) != 1 || back.Upper != c.logical || back.Lower != c.physical {
			t.Errorf("%x: %+v, rest %x, %v", b, back, rest, err)
		}
	}
	if ClientAddress(16) != one(16) {
		t.Error("client 16")
	}
	for _, c := range [][3]uint16{{128, 0, 1}, {1, 1, 1}, {128, 1, 2}, {1, 128, 2}, {1 << 14, 0, 4}, {0, 1 << 14, 0}, {1, 0, 3}, {1, 0, 5}} {
		if a, err := ServerAddress(c[0], c[1], int(c[2])); !errors.Is(err, ErrAddress) {
			t.Errorf("%v: %+v, %v", c, a, err)
		}
	}
	for _, s := range []string{"000003", "0000000003", "0202020202"} {
		if a, _, err := ParseAddress(unhex(t, s)); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %+v, %v", s, a, err)
		}
	}
	for _, s := range []string{"", "02", "0202", "020202"} {
		if a, _, err := ParseAddress(unhex(t, s)); !errors.Is(err, ErrShort) {
			t.Errorf("%s: %+v, %v", s, a, err)
		}
	}
}

func TestFrameLimits(t *testing.T) {
	t.Parallel()
	f := Frame{Destination: Address{Upper: 1, Lower: 17, Size: 4}, Source: one(16), Control: UI, Info: make([]byte, MaxInfo)}
	b, err := f.AppendBinary(nil)
	if err != nil || len(b) != 2+2+4+1+1+2+MaxInfo+2 {
		t.Fatalf("%d octets, %v", len(b), err)
	}
	if got, err := ParseFrame(b); err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("the longest: %v", err)
	}
	f.Info = make([]byte, MaxInfo+1)
	if b, err := f.AppendBinary(nil); !errors.Is(err, ErrTooLong) || len(b) != 0 {
		t.Errorf("one more: %v", err)
	}
	if _, err := (Frame{Destination: one(1), Source: Address{Size: 3}}).AppendBinary(nil); !errors.Is(err, ErrAddress) {
		t.Errorf("source of 3 octets: %v", err)
	}
}

func TestReject(t *testing.T) {
	t.Parallel()
	e := parseReject(unhex(t, "540010"))
	if *e != (RejectError{Rejected: Information(2, 2, true)}) {
		t.Errorf("%+v", e)
	}
	e = parseReject([]byte{0x32, 0x6A, 0x0C})
	want := RejectError{Rejected: Information(1, 1, true), VS: 5, VR: 3, Why: RejectTooLong | RejectSequence}
	if *e != want || e.Error() != "the meter rejected a frame (FRMR), I N(S)=1 N(R)=1 P/F: information longer than agreed: wrong N(R)" {
		t.Errorf("%+v: %v", e, e)
	}
}

func TestControlNames(t *testing.T) {
	t.Parallel()
	for c, want := range map[Control]string{
		SNRM: "SNRM P/F", UA: "UA P/F", DISC: "DISC P/F", DM: "DM P/F", 0x0F: "DM", FRMR: "FRMR P/F", UI: "UI P/F", 0x03: "UI",
		0x10: "I N(S)=0 N(R)=0 P/F", 0xDA: "I N(S)=5 N(R)=6 P/F", 0xD8: "I N(S)=4 N(R)=6 P/F", 0xC8: "I N(S)=4 N(R)=6",
		0x71: "RR N(R)=3 P/F", 0x61: "RR N(R)=3", 0x75: "RNR N(R)=3 P/F", 0x79: "REJ N(R)=3 P/F", 0xFF: "control ff P/F",
	} {
		if got := c.String(); got != want {
			t.Errorf("%02x: %q, want %q", byte(c), got, want)
		}
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		octets string
		want   Parameters
		again  string // what it is encoded as; "" is octets
	}{
		"none":                        {"", Default(), "818012050180060180070400000001080400000001"},
		"default":                     {"818012050180060180070400000001080400000001", Default(), ""},
		"1 octet":                     {"81801205012006014007040000000208040000 0003", Parameters{0x20, 0x40, 2, 3}, ""},
		"2 octets":                    {"818014050207EE06020100070400000007080400000006", Parameters{2030, 256, 7, 6}, ""},
		"2 octets for small":          {"8180140502008006020080070400000001080400000001", Default(), "818012050180060180070400000001080400000001"},
		"4 octets":                    {"8180180504000001000604000001FF070400000001080400000001", Parameters{256, 511, 1, 1}, "818014050201000602 01FF070400000001080400000001"},
		"windows of 1 octet":          {"81800C050180060180070103080105", Parameters{128, 128, 3, 5}, "818012050180060180070400000003080400000005"},
		"group length 0":              {"818000050140060140070400000001080400000001", Parameters{64, 64, 1, 1}, "818012050140060140070400000001080400000001"},
		"group length 0, and nothing": {"818000", Default(), "818012050180060180070400000001080400000001"},
		"only one told":               {"81800305015A", Parameters{90, 128, 1, 1}, "81801205015A060180070400000001080400000001"},
		"unknown ones":                {"818008 0903AABBCC 050140", Parameters{64, 128, 1, 1}, "818012050140060180070400000001080400000001"},
		"user data":                   {"818003050140 F0020501", Parameters{64, 128, 1, 1}, "818012050140060180070400000001080400000001"},
		"out of range":                {"818016050400010000060200000704000000 63 080400000000", Parameters{2030, 128, 7, 1}, "818013050207EE060180070400000007080400000001"},
	} {
		got, err := ParseParameters(unhex(t, c.octets))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
		again := c.again
		if again == "" {
			again = c.octets
		}
		if b, err := got.AppendBinary([]byte{9}); err != nil || !bytes.Equal(b[1:], unhex(t, again)) {
			t.Errorf("%s: encoded %x, %v, want %s", name, b[1:], err, again)
		}
	}
	whole := unhex(t, "818014050207EE06020100070400000007080400000006")
	between := []int{0, 3, 7, 11, 17}
	for n := range whole {
		_, err := ParseParameters(whole[:n])
		if got := errors.Is(err, ErrParameters); got == slices.Contains(between, n) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for _, s := range []string{"828012", "8181", "8180030503000080", "818000 0500"} {
		if p, err := ParseParameters(unhex(t, s)); !errors.Is(err, ErrParameters) {
			t.Errorf("%s: %+v, %v", s, p, err)
		}
	}
}

// pour feeds b in pieces of n octets and gives the frames found.
func pour(s *Splitter, b []byte, n int) (frames [][]byte) {
	for chunk := range slices.Chunk(b, n) {
		s.Feed(chunk)
		for f, ok := s.Next(); ok; f, ok = s.Next() {
			frames = append(frames, bytes.Clone(f))
		}
	}
	return frames
}

func TestSplitter(t *testing.T) {
	t.Parallel()
	var all [][]byte
	for _, v := range vectors() {
		if v.name != "segment" {
			all = append(all, unhex(t, v.octets))
		}
	}
	rr, flagged := unhex(t, "7EA00703217113C57E"), unhex(t, vectors()[5].octets)
	for name, c := range map[string]struct {
		in   []byte
		want [][]byte
	}{
		"one after the other":         {bytes.Join(all, nil), all},
		"shared flags":                {sharedFlags(all), all},
		"many flags":                  {bytes.Join(all, unhex(t, "7E7E7E")), all},
		"noise between":               {bytes.Join(all, unhex(t, "00FF5AA0137E217EA5A07EA9")), all},
		"noise that starts a frame":   {bytes.Join(all, unhex(t, "7EA7FF0321938888")), all},
		"a frame spoiled":             {append(spoiled(flagged, 20), rr...), [][]byte{rr}},
		"its length spoiled":          {append(spoiled(flagged, 2), rr...), [][]byte{rr}},
		"the last octet of the check": {slices.Concat(rr[:7], rr[8:], rr, rr), [][]byte{rr, rr}},
		"its end missing":             {slices.Concat(flagged[:14], rr), nil},
		"text":                        {slices.Concat([]byte("/GRX5\\2ident\r\n"), rr), [][]byte{rr}},
		"a flag":                      {[]byte{flag}, nil},
	} {
		for _, n := range []int{1, 2, 3, 7, 64, 1 << 16} {
			var s Splitter
			got := pour(&s, c.in, n)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s, %d octets at a time: got\n\t%x, want\n\t%x", name, n, got, c.want)
			}
			if name == "its end missing" {
				// The header was right: only silence tells that the rest is lost.
				if !s.Partial() {
					t.Errorf("%s: nothing is waited for", name)
				}
				s.Skip()
				if f, ok := s.Next(); !ok || !bytes.Equal(f, rr) {
					t.Errorf("%s: after Skip %x", name, f)
				}
			}
			if s.Partial() {
				t.Errorf("%s: %x is waited for", name, s.buf[s.from:])
			}
		}
	}
}

func spoiled(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x08
	return b
}

func sharedFlags(frames [][]byte) []byte {
	b := []byte{flag}
	for _, f := range frames {
		b = append(b, f[1:]...)
	}
	return b
}

func TestSplitterCutAnywhere(t *testing.T) {
	t.Parallel()
	rr := unhex(t, "7EA00703217113C57E")
	for _, v := range vectors() {
		if v.name == "segment" {
			continue
		}
		whole := unhex(t, v.octets)
		for n := range whole {
			var s Splitter
			s.Feed(whole[:n])
			if f, ok := s.Next(); ok {
				t.Fatalf("%s cut at %d is %x", v.name, n, f)
			}
			s.Feed(rr)
			f, ok := s.Next()
			if ok && n == len(whole)-1 && bytes.Equal(f, whole) {
				f, ok = s.Next() // the flag of the second frame ended the first
			}
			for ; !ok && s.Partial(); f, ok = s.Next() {
				s.Skip()
			}
			if !ok || !bytes.Equal(f, rr) {
				t.Fatalf("%s cut at %d: the next frame is lost", v.name, n)
			}
		}
	}
}

func FuzzParseFrame(f *testing.F) {
	for _, v := range vectors() {
		f.Add(unhex(f, v.octets))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ParseFrame(b)
		if err != nil {
			return
		}
		again, err := frame.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is %+v, which is encoded %x, %v", b, frame, again, err)
		}
	})
}

// FuzzFrame makes frames of whatever comes.
func FuzzFrame(f *testing.F) {
	f.Add(uint16(1), uint16(17), uint8(4), uint8(16), uint8(0x93), true, []byte("info"))
	f.Add(uint16(1), uint16(0), uint8(1), uint8(1), uint8(0x10), false, []byte{})
	f.Fuzz(func(t *testing.T, upper, lower uint16, size, client, control uint8, segmented bool, info []byte) {
		frame := Frame{
			Segmented: segmented, Destination: ClientAddress(client), Source: Address{Upper: upper, Lower: lower, Size: size},
			Control: Control(control),
		}
		if len(info) > 0 {
			frame.Info = info
		}
		b, err := frame.AppendBinary(nil)
		if err != nil {
			if len(info) <= MaxInfo && frame.Source.fits() {
				t.Fatalf("%+v: %v", frame, err)
			}
			return
		}
		var s Splitter
		s.Feed(b)
		raw, ok := s.Next()
		if got, err := ParseFrame(raw); !ok || err != nil || !reflect.DeepEqual(got, frame) {
			t.Fatalf("%+v became %x, and that %+v, %v", frame, b, got, err)
		}
	})
}

func FuzzParseParameters(f *testing.F) {
	f.Add(unhex(f, "818014050207EE06020100070400000007080400000006"))
	f.Add(unhex(f, "818000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseParameters(b)
		if err != nil {
			return
		}
		again, err := p.AppendBinary(nil)
		if back, err2 := ParseParameters(again); err != nil || err2 != nil || back != p || p != p.normal() {
			t.Fatalf("%x is %+v, which is encoded %x, and that is %+v, %v, %v", b, p, again, back, err, err2)
		}
	})
}

// FuzzSplitter holds that the frames found do not depend on how the octets
// come in, that each is one, and that each is in what came in.
func FuzzSplitter(f *testing.F) {
	for _, v := range vectors() {
		f.Add(append([]byte{1, 2, 0x7E, 0xA0}, unhex(f, v.octets)...), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		var whole, pieces Splitter
		frames := pour(&whole, b, max(1, len(b)))
		if got := pour(&pieces, b, int(n)+1); !reflect.DeepEqual(got, frames) {
			t.Fatalf("at once %x, in pieces %x", frames, got)
		}
		at := 0
		for _, raw := range frames {
			i := bytes.Index(b[at:], raw)
			if _, err := ParseFrame(raw); i < 0 || err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrTooLong) {
				t.Fatalf("%x was not sent, or is none: %v", raw, err)
			}
			at += i + len(raw) - 1
		}
		if len(pieces.buf) > maxLength+2+256 {
			t.Fatalf("%d octets are kept", len(pieces.buf))
		}
	})
}
