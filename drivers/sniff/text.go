package sniff

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// maxLine bounds a line of text, in octets.
const maxLine = 1 << 20

// ReadHex reads octets that somebody wrote down, a line a chunk:
//
//	# a comment
//	TX: 08:40:26  7E A0 07 03 21 93 0F 01 7E
//	RX: 08:40:26.120  7ea01e…
//	01 03 00 00 00 01 84 0A
//
// The direction (TX, RX, >, <) and the time are optional. Lines that hold no
// hexadecimal digits are counted as skipped.
func ReadHex(r io.Reader, each func(Chunk) error) (skipped int, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		c, ok := parseLine(text)
		if !ok {
			skipped++
			continue
		}
		if err := each(c); err != nil {
			return skipped, err
		}
	}
	if err := lines.Err(); err != nil {
		return skipped, fmt.Errorf("hexadecimal text: %w", err)
	}
	return skipped, nil
}

// parseLine reads a line of octets.
func parseLine(s string) (c Chunk, ok bool) {
	c.From, s = cutDirection(s)
	word, rest, _ := strings.Cut(strings.ReplaceAll(s, "\t", " "), " ")
	for _, layout := range []string{"15:04:05.999999", time.RFC3339Nano} {
		if at, err := time.Parse(layout, word); err == nil {
			c.At, s = at, strings.TrimSpace(rest)
			break
		}
	}
	if b, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "", ",", "", "0x", "", "\t", "").Replace(s)); err == nil && len(b) > 0 {
		c.Data = b
		return c, true
	}
	// What is text on the line may be written as it is.
	if c.From == AnyDirection {
		return c, false
	}
	if quoted, is := strings.CutPrefix(s, "bytearray(b'"); is {
		text, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.TrimSuffix(quoted, "')"), `"`, `\"`) + `"`)
		c.Data = []byte(text)
		return c, err == nil
	}
	if strings.HasPrefix(s, "/") {
		c.Data = []byte(s + "\r\n")
		return c, true
	}
	return c, false
}

func cutDirection(s string) (Direction, string) {
	for _, d := range []struct {
		mark string
		from Direction
	}{{"TX", FromMaster}, {"RX", FromMeter}, {"-->", FromMaster}, {"<--", FromMeter}, {"→", FromMaster}, {"←", FromMeter}, {">", FromMaster}, {"<", FromMeter}} {
		if rest, ok := strings.CutPrefix(s, d.mark); ok {
			return d.from, strings.TrimSpace(strings.TrimPrefix(rest, ":"))
		}
	}
	return AnyDirection, s
}

// IsHex says whether a file that begins so is octets written down, and not the
// octets themselves.
func IsHex(head []byte) bool {
	for _, c := range head {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7F {
			return false
		}
	}
	for line := range strings.Lines(string(head)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c, ok := parseLine(line)
		if ok && (len(c.Data) > 1 || c.From != AnyDirection) {
			return true
		}
	}
	return false
}
