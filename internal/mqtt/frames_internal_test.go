package mqtt

import (
	"bytes"
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
			var err error
			for at := 0; at < len(c.in) && err == nil; at += step {
				err = f.check(c.in[at:min(at+step, len(c.in))])
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

// The property: what check lets through, the library takes without a panic and
// without allocating more than was allowed.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, 1, 0x32, 9, 0, 1, 'a', 0, 7, 'b', 'c', 'd', 'e'})
	f.Add([]byte{0x40, 2, 0, 1, 0x50, 2, 0, 1, 0x62, 2, 0, 1, 0x70, 2, 0, 1, 0xB0, 2, 0, 1, 0xD0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		guard := frames{max: 64}
		if guard.check(in) != nil {
			return
		}
		for r := bytes.NewReader(in); r.Len() > 0; {
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
