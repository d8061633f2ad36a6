package mqtt

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestFramesRefuseWhatTheLibraryDoesNotSurvive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in    []byte
		ok    bool
		asked int
	}{
		"connack":               {[]byte{0x20, 2, 0, 0}, true, 0},
		"connack refused":       {[]byte{0x20, 2, 0, 5}, true, 0},
		"connack unknown code":  {[]byte{0x20, 2, 0, 77}, false, 0},
		"connack too long":      {[]byte{0x20, 3, 0, 0, 0}, false, 0},
		"puback, pingresp":      {[]byte{0x40, 2, 0, 1, 0xD0, 0}, true, 0},
		"suback":                {[]byte{0x90, 3, 0, 1, 1}, true, 0},
		"suback with two codes": {[]byte{0x90, 4, 0, 1, 1, 1}, false, 0},
		"suback for two":        {[]byte{0x90, 4, 0, 1, 1, 1}, true, 2},
		"suback for three":      {[]byte{0x90, 4, 0, 1, 1, 1}, false, 3},
		"publish":               {append([]byte{0x32, 100}, make([]byte, 100)...), true, 0},
		"publish too long":      {[]byte{0x32, 0xFF, 0xFF, 0xFF, 0x7F}, false, 0},
		"length of five bytes":  {[]byte{0x32, 0xFF, 0xFF, 0xFF, 0xFF, 1}, false, 0},
		"disconnect":            {[]byte{0xE0, 0}, false, 0},
		"connect":               {[]byte{0x10, 0}, false, 0},
		"type 0":                {[]byte{0x00, 0}, false, 0},
		"HTTP":                  {[]byte("HTTP/1.1 400 Bad Request\r\n"), false, 0},
	} {
		for _, step := range []int{1, 2, 1000} { // however the network cuts it
			f := frames{max: 1000, asked: c.asked}
			var out []byte
			var err error
			for at := 0; at < len(c.in) && err == nil; at += step {
				out, err = f.pass(out, c.in[at:min(at+step, len(c.in))])
			}
			if c.ok && !bytes.Equal(out, c.in) {
				t.Errorf("%s in steps of %d: %x came through, of %x", name, step, out, c.in)
			}
			if (err == nil) != c.ok {
				t.Errorf("%s in steps of %d: %v", name, step, err)
			}
			if strings.Contains(name, "pingresp") != (f.pongs == 1) {
				t.Errorf("%s in steps of %d: %d PINGRESPs", name, step, f.pongs)
			}
			f.pongs = 0
			if c.ok && f != (frames{max: 1000, asked: c.asked}) {
				t.Errorf("%s in steps of %d: not at the end of a packet: %+v", name, step, f)
			}
		}
	}
}

// TestFramesCutWhatIsTooLong: its beginning comes through, as a packet that is
// whole, and what follows it.
func TestFramesCutWhatIsTooLong(t *testing.T) {
	t.Parallel()
	long := func(n int) []byte {
		p := &packets.PublishPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Publish, Qos: 1}, TopicName: "topic", MessageID: 7, Payload: bytes.Repeat([]byte("x"), n)}
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const most, around = 1000, 2 + len("topic") + 2
	in := slices.Concat(long(3), long(most-around), long(most-around+1), long(300000), []byte{0xD0, 0}, long(4))
	for _, step := range []int{1, 2, 7, 1000, len(in)} {
		f := frames{max: most, cut: true}
		var out []byte
		var err error
		for at := 0; at < len(in) && err == nil; at += step {
			out, err = f.pass(out, in[at:min(at+step, len(in))])
		}
		if err != nil || f.pongs != 1 {
			t.Fatalf("in steps of %d: %v, %d PINGRESPs", step, err, f.pongs)
		}
		var got []int
		for r := bytes.NewReader(out); r.Len() > 0; {
			p, err := packets.ReadPacket(r)
			if err != nil {
				t.Fatalf("in steps of %d: %v", step, err)
			}
			if p, ok := p.(*packets.PublishPacket); ok {
				got = append(got, len(p.Payload))
				if p.MessageID != 7 || p.TopicName != "topic" || strings.Trim(string(p.Payload), "x") != "" {
					t.Errorf("in steps of %d: %v", step, p)
				}
			}
		}
		if want := []int{3, most - around, most - around + 1, most - around + 1, 4}; !slices.Equal(got, want) {
			t.Errorf("in steps of %d: payloads of %d bytes, want %d", step, got, want)
		}
	}
}

// The property: what pass lets through, the library takes without a panic and
// without allocating more than was allowed.
func FuzzFrames(f *testing.F) {
	f.Add(false, []byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, 1, 0x32, 9, 0, 1, 'a', 0, 7, 'b', 'c', 'd', 'e'})
	f.Add(true, append([]byte{0x32, 100, 0, 1, 'a'}, make([]byte, 97)...))
	f.Add(false, []byte{0x40, 2, 0, 1, 0x50, 2, 0, 1, 0x62, 2, 0, 1, 0x70, 2, 0, 1, 0xB0, 2, 0, 1, 0xD0, 0})
	f.Fuzz(func(t *testing.T, cut bool, in []byte) {
		guard := frames{max: 64, cut: cut}
		out, err := guard.pass(nil, in)
		if err != nil {
			return
		}
		for r := bytes.NewReader(out); r.Len() > 0; {
			p, err := packets.ReadPacket(r)
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *packets.PublishPacket:
				if len(p.Payload) > 64 {
					t.Errorf("a payload of %d bytes came through", len(p.Payload))
				}
			case *packets.SubackPacket:
				if len(p.ReturnCodes) > 1 {
					t.Error("a SUBACK with many codes came through")
				}
			case *packets.ConnackPacket:
				if p.ReturnCode > 5 {
					t.Error("an unknown CONNACK code came through")
				}
			}
		}
	})
}
