package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"text/tabwriter"

	"gridgate/dlms/security"
)

// TestCountersSayOfWhat: a meter that answers and pushes has two counters, and
// which is which is told.
func TestCountersSayOfWhat(t *testing.T) {
	t.Parallel()
	title := security.Title([]byte("ABCDEFGH"))
	c := &accounts{id: "m1", usesKeys: true, heard: []security.Heard{
		{Title: title, Direction: security.FromServer, Counter: 77}, {Title: title, Direction: security.Unasked, Counter: 9},
	}}
	for asJSON, want := range map[bool][]string{
		false: {"answers 77", "pushes 9"},
		true:  {`"as":"answers","counter":77`, `"as":"pushes","counter":9`},
	} {
		var b bytes.Buffer
		out := bufio.NewWriter(&b)
		table := tabwriter.NewWriter(out, 0, 8, 1, ' ', 0)
		err := c.print(out, table, asJSON)
		if err == nil {
			err = table.Flush()
		}
		if err == nil {
			err = out.Flush()
		}
		text := strings.Join(strings.FieldsFunc(b.String(), func(r rune) bool { return r == ' ' }), " ")
		for _, w := range want {
			if err != nil || !strings.Contains(text, w) {
				t.Errorf("%v, %q, want %q", err, text, w)
			}
		}
	}
}
