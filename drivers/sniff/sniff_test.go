package sniff_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/drivers/sniff"
)

var update = flag.Bool("update", false, "write the golden files anew")

// traces gives the files of traces.
func traces(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 13 {
		t.Fatalf("%d traces, %v", len(files), err)
	}
	return files
}

// chunks reads a trace.
func chunks(t testing.TB, file string) (all []sniff.Chunk) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !sniff.IsHex(data[:min(len(data), 4096)]) || sniff.IsCapture(data) {
		t.Errorf("%s is not taken for octets written down", file)
	}
	if _, err := sniff.ReadHex(bytes.NewReader(data), func(c sniff.Chunk) error {
		all = append(all, c)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// decode gives the frames of chunks.
func decode(o sniff.Options, all []sniff.Chunk) (frames []sniff.Frame) {
	s := sniff.NewStream(o)
	for _, c := range all {
		frames = append(frames, s.Feed(c)...)
	}
	return append(frames, s.Flush()...)
}

func show(frames []sniff.Frame) string {
	var b strings.Builder
	for _, f := range frames {
		marks := ""
		if f.Bad {
			marks += " bad"
		}
		if f.Secret {
			marks += " ciphered"
		}
		fmt.Fprintf(&b, "%s %s%s: %s\n", [...]string{"?", ">", "<"}[f.From], f.Protocol, marks, f.Text)
	}
	return b.String()
}

func TestTracesAreDecoded(t *testing.T) {
	t.Parallel()
	for _, file := range traces(t) {
		got := show(decode(sniff.Options{Network: true}, chunks(t, file)))
		golden := strings.TrimSuffix(file, ".txt") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
		}
		for _, secret := range []string{"secret", "Gurux\"", "47 75 72 75 78"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s: %q is shown", file, secret)
			}
		}
	}
}

// Without directions, and in pieces of any length, the same frames are found.
func TestPiecesAndDirectionsMakeNoDifference(t *testing.T) {
	t.Parallel()
	for _, file := range traces(t) {
		if strings.Contains(file, "09-") {
			continue // the option of mode E is the same both ways
		}
		var all []byte
		for _, c := range chunks(t, file) {
			all = append(all, c.Data...)
		}
		text := func(frames []sniff.Frame) (lines []string) {
			for _, f := range frames {
				lines = append(lines, fmt.Sprintf("%s %x", f.Protocol, f.Octets))
			}
			return lines
		}
		want := text(decode(sniff.Options{Network: true}, chunks(t, file)))
		if strings.Contains(file, "modbus") {
			want = text(decode(sniff.Options{Network: true}, []sniff.Chunk{{Data: all}}))
		}
		for _, n := range []int{1, 3, 7, 64, len(all)} {
			var pieces []sniff.Chunk
			for piece := range slices.Chunk(all, n) {
				pieces = append(pieces, sniff.Chunk{Data: piece})
			}
			if got := text(decode(sniff.Options{Network: true}, pieces)); !slices.Equal(got, want) {
				t.Errorf("%s in pieces of %d:\n%s\nwant\n%s", file, n, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
}

// Whatever is cut off, every octet is in exactly one frame.
func TestNothingIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	for _, file := range traces(t) {
		var all []byte
		for _, c := range chunks(t, file) {
			all = append(all, c.Data...)
		}
		all = all[:min(len(all), 700)]
		for n := range all {
			var got []byte
			for _, f := range decode(sniff.Options{Network: n%2 == 0}, []sniff.Chunk{{Data: all[:n]}}) {
				got = append(got, f.Octets...)
			}
			if !bytes.Equal(got, all[:n]) {
				t.Fatalf("%s cut at %d: %x, want %x", file, n, got, all[:n])
			}
		}
	}
}

func TestProtocolsThatAreNotLookedFor(t *testing.T) {
	t.Parallel()
	hdlc := chunks(t, "testdata/02-hdlc-ln-none-clock-range.txt")
	for _, f := range decode(sniff.Options{Only: []sniff.Protocol{sniff.ModbusRTU}}, hdlc) {
		if f.Protocol != sniff.Unknown {
			t.Errorf("%v %s", f.Protocol, f.Text)
		}
	}
	s := sniff.NewStream(sniff.Options{})
	for _, c := range hdlc[:4] {
		s.Feed(c)
	}
	if s.Protocol() != sniff.HDLC || s.Pending() {
		t.Errorf("%q, pending %v", s.Protocol(), s.Pending())
	}
}

// A frame of a serial line does not go on behind a silence.
func TestSilenceEndsAFrame(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	s := sniff.NewStream(sniff.Options{})
	if got := s.Feed(sniff.Chunk{At: at, Data: []byte{0x01, 0x03, 0x04, 0x43}}); len(got) != 0 || !s.Pending() {
		t.Errorf("%v", got)
	}
	got := s.Feed(sniff.Chunk{At: at.Add(time.Second), Data: []byte{0x01, 0x03, 0x00, 0x00, 0x00, 0x01, 0x84, 0x0A}})
	if len(got) != 2 || got[0].Protocol != sniff.Unknown || !got[0].Bad || got[1].Text != "unit 1: read holding registers 0x0000 (0) × 1" {
		t.Errorf("%s", show(got))
	}
}

// What a line says cannot move a terminal.
func TestNoControlCharacters(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"/ABC5\x1b[31mred\r\n", "\x02\x1b]0;title\x07(1)\x03\x00", "\x01\x2b\x0e\x01\x01\x00\x00\x01\x00\x02\x1b["} {
		for _, f := range decode(sniff.Options{}, []sniff.Chunk{{Data: []byte(data)}}) {
			if strings.ContainsFunc(f.Text, func(r rune) bool { return r < ' ' || r == 0x7F }) {
				t.Errorf("%q", f.Text)
			}
		}
	}
}

func FuzzStream(f *testing.F) {
	for _, file := range traces(f) {
		var all []byte
		for _, c := range chunks(f, file) {
			all = append(all, c.Data...)
		}
		f.Add(all[:min(len(all), 400)], true)
		f.Add(all[:min(len(all), 200)], false)
	}
	f.Fuzz(func(t *testing.T, data []byte, network bool) {
		data = data[:min(len(data), 4096)]
		var got []byte
		for _, f := range decode(sniff.Options{Network: network}, []sniff.Chunk{{Data: data[:len(data)/2]}, {Data: data[len(data)/2:]}}) {
			got = append(got, f.Octets...)
			if strings.ContainsFunc(f.Text, func(r rune) bool { return r < ' ' || r == 0x7F }) || len([]rune(f.Text)) > 401 {
				t.Errorf("%q", f.Text)
			}
		}
		if !bytes.Equal(got, data) {
			t.Errorf("octets are lost or doubled: %x of %x", got, data)
		}
	})
}
