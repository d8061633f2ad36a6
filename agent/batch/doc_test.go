package batch

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// example is the worked example of docs/formats.md.
func example() (Header, Span) {
	read := Stamp{Time: 1_767_225_600_250, Boot: 3, Mono: 86_400_250, Bound: 40}
	next := read
	next.Time, next.Mono = next.Time+180, next.Mono+180
	energy := func(n uint64) Value { return Value{Kind: Uint, Scale: 1, Bits: n} }
	return Header{Site: "north", Gateway: "gw-7", Epoch: 0x00C0FFEE00C0FFEE, Lane: Instant},
		Span{
			Lane: Instant,
			Rows: []Row{
				{Meter: "house-1", Serial: "4711", Channel: "1-0:1.8.0*255/3:2", Stamp: read, Value: energy(120_345), Unit: 30, Lane: Instant},
				{Meter: "house-1", Serial: "4711", Channel: "1-0:32.7.0*255/3:2", Stamp: read, Value: Value{Kind: Float32, Bits: 0x4366199A}, Unit: 35, Lane: Instant},
				{Meter: "house-2", Serial: "4712", Channel: "1-0:1.8.0*255/3:2", Stamp: next, Value: energy(120_350), Unit: 30, Lane: Instant, Quality: RanBackwards},
			},
			Runs:  []Run{{First: 41, Count: 1}, {First: 47, Count: 2}},
			Holes: []Hole{{First: 42, Last: 46, Reason: UncleanStop}},
			Last:  48,
		}
}

// block is a fenced block of docs/formats.md by the words after its fence.
func block(t *testing.T, doc, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(doc, "\n```"+name+"\n")
	text, _, end := strings.Cut(rest, "\n```")
	if !ok || !end {
		t.Fatalf("docs/formats.md has no block %q", name)
	}
	return text
}

// unhex reads hexadecimal digits; what follows a # on a line is a remark.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	digits := regexp.MustCompile(`#.*|\s`).ReplaceAllString(text, "")
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFormatsIsTrue holds the worked example of the document against the code.
func TestFormatsIsTrue(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	h, s := example()
	// Deflate may make other bytes in another version of Go, so that the example
	// has its catalogue plain, and that is as good.
	c, err := ParseCatalogue(unhex(t, block(t, doc, "hex catalogue")))
	if err != nil {
		t.Fatal(err)
	}
	if c.Add(s.Rows) || len(c.Meters()) != 2 || len(c.Channels()) != 2 {
		t.Errorf("the example's catalogue has %v and %v", c.Meters(), c.Channels())
	}
	b, err := Append(nil, h, s, c)
	if err != nil {
		t.Fatal(err)
	}
	if got := unhex(t, block(t, doc, "hex batch")); !bytes.Equal(got, b) {
		t.Errorf("batch: the document has\n%x\nthe code\n%x", got, b)
	}
	if !strings.Contains(doc, c.Hash().String()) {
		t.Errorf("the document does not name the catalogue %s", c.Hash())
	}
	var lines []string
	for i, n := range sequence(s) {
		line := s.Rows[i].AppendJSONFields([]byte("{"))
		lines = append(lines, fmt.Sprintf(`%s,"lane":%q,"sequence":%d,"site":%q,"gateway":%q}`, line, h.Lane, n, h.Site, h.Gateway))
	}
	if diff := cmp.Diff(strings.Join(lines, "\n"), block(t, doc, "json rows")); diff != "" {
		t.Error(diff)
	}
}

// TestFormatsNamesEverything holds the tables of the document against the
// vocabulary.
func TestFormatsNamesEverything(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	for i := range 14 {
		if row := fmt.Sprintf("| %d | `%s` |", i, Quality(1<<i)); !strings.Contains(doc, row) {
			t.Errorf("no row %s", row)
		}
	}
	for r := Unexplained; r <= Damaged; r++ {
		if row := fmt.Sprintf("| %d | `%s` |", r, r); !strings.Contains(doc, row) {
			t.Errorf("no row %s", row)
		}
	}
	for l := Alarm; l <= Instant; l++ {
		if row := fmt.Sprintf("| %d | `%s` |", l, l); !strings.Contains(doc, row) {
			t.Errorf("no row %s", row)
		}
	}
}
