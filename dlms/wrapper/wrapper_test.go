package wrapper

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stream is what the peer sent, and what was written to it.
type stream struct {
	io.Reader
	bytes.Buffer
	writes int
}

func (s *stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func (s *stream) Write(p []byte) (int, error) {
	s.writes++
	return s.Buffer.Write(p)
}

func TestHeader(t *testing.T) {
	t.Parallel()
	b := unhex(t, "0001 0010 0203 040D")
	want := Header{Source: 0x10, Destination: 0x203, Length: 0x40D}
	got, err := ParseHeader(append(b, 0xAA))
	if err != nil || got != want {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if out, err := want.AppendBinary([]byte{9}); err != nil || !bytes.Equal(out[1:], b) {
		t.Errorf("encoded %x, %v", out, err)
	}
	for n := range HeaderLen {
		if _, err := ParseHeader(b[:n]); !errors.Is(err, ErrShort) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestSendWritesOnce(t *testing.T) {
	t.Parallel()
	s := &stream{}
	c := NewConn(s, 16, 1, 0)
	if err := c.Send(unhex(t, "6203800100")); err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "0001 0010 0001 0005 6203800100"); !bytes.Equal(s.Bytes(), want) || s.writes != 1 {
		t.Errorf("sent %x in %d writes, want %x in one", s.Bytes(), s.writes, want)
	}
	if err := NewConn(s, 16, 1, 4).Send(make([]byte, 5)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long an apdu: %v", err)
	}
}

const (
	release  = "0001 0001 0010 0005 6303800100 "
	foreign  = "0001 0001 0011 0003 D80202 "
	nonsense = "485454502F312E31 20343030"
)

func TestReceive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in    string
		want  []string
		then  error
		words string
	}{
		"one":                 {release, []string{"6303800100"}, io.EOF, ""},
		"two in one segment":  {release + "0001 0001 0010 0003 D80202", []string{"6303800100", "D80202"}, io.EOF, ""},
		"empty":               {"0001 0001 0010 0000 " + release, []string{"", "6303800100"}, io.EOF, ""},
		"for others":          {foreign + foreign + release, []string{"6303800100"}, io.EOF, ""},
		"of others":           {"0001 0002 0010 0003 D80202 " + release, []string{"6303800100"}, io.EOF, ""},
		"only for others":     {foreign + foreign, nil, io.EOF, "2 frames for others came, the last from wPort 1 to 17; expected 1 to 16"},
		"not a wrapper":       {nonsense, nil, ErrVersion, "does this port speak DLMS"},
		"too long":            {"0001 0001 0010 0200", nil, ErrTooLong, "512 octets"},
		"too long for others": {"0001 0001 0011 0200", nil, ErrTooLong, "512 octets"},
		"cut in the header":   {"0001 0001", nil, io.ErrUnexpectedEOF, ""},
		"cut in the apdu":     {"0001 0001 0010 0005 63", nil, io.ErrUnexpectedEOF, ""},
		"cut before the apdu": {"0001 0001 0010 0005", nil, io.ErrUnexpectedEOF, ""},
	} {
		for segments, reader := range map[string]io.Reader{
			"whole":        bytes.NewReader(unhex(t, c.in)),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(unhex(t, c.in))),
			"eof at once":  iotest.DataErrReader(bytes.NewReader(unhex(t, c.in))),
		} {
			conn := NewConn(&stream{Reader: reader}, 16, 1, 256)
			for _, want := range c.want {
				if got, err := conn.Receive([]byte{7}); err != nil || !bytes.Equal(got[1:], unhex(t, want)) || got[0] != 7 {
					t.Fatalf("%s, %s: got %x, %v, want %s", name, segments, got, err, want)
				}
			}
			got, err := conn.Receive(nil)
			if !errors.Is(err, c.then) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s, %s: at the end %x, %v", name, segments, got, err)
			}
		}
	}
}

func TestReceiveKeepsTimeOuts(t *testing.T) {
	t.Parallel()
	in := io.MultiReader(bytes.NewReader(unhex(t, foreign+"0001")), iotest.ErrReader(os.ErrDeadlineExceeded))
	_, err := NewConn(&stream{Reader: in}, 16, 1, 0).Receive(nil)
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "1 frames for others") {
		t.Errorf("got %v", err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(unhex(f, release))
	f.Add(unhex(f, foreign+release))
	f.Add(unhex(f, nonsense))
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := NewConn(&stream{Reader: bytes.NewReader(b)}, 16, 1, 256)
		for {
			apdu, err := conn.Receive(nil)
			if err != nil {
				return
			}
			// What was accepted is in the stream just as Send would have put it there.
			var s stream
			if err := NewConn(&s, 1, 16, 256).Send(apdu); err != nil || !bytes.Contains(b, s.Bytes()) {
				t.Fatalf("%x gave %x, which was not sent: %v", b, apdu, err)
			}
		}
	})
}
