package configs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// said is what a document says, and no more.
type said struct {
	Tag, Value string
	Below      []said
}

func saidBy(n *yaml.Node) said {
	s := said{Tag: n.Tag, Value: n.Value}
	if n.Tag == "!!null" {
		s.Value = ""
	}
	for _, c := range n.Content {
		s.Below = append(s.Below, saidBy(c))
	}
	return s
}

// writtenSays fails unless a document that is written anew says the same.
func writtenSays(t *testing.T, doc string) {
	t.Helper()
	r := &reader{file: "was"}
	was := r.document([]byte(doc))
	if was == nil || r.err() != nil {
		return
	}
	text := written(was)
	again := &reader{file: "is"}
	is := again.document(text)
	if is == nil || again.err() != nil {
		t.Fatalf("%v in\n%s\nof\n%q", again.err(), text, doc)
	}
	if d := cmp.Diff(saidBy(was), saidBy(is)); d != "" {
		t.Errorf("it says something else:\n%s\n%s\nof\n%q", d, text, doc)
	}
}

func TestWritten(t *testing.T) {
	t.Parallel()
	const doc = `a: b # c
n:
list: [1, 0x10, 1:30, 12:00, .inf, ~, null, yes, "yes", 'it''s', "a, b", 2001-12-14 21:59:43, {x: y, "z": [ ]}]
text: |
  two lines
  "quoted" # no comment
long: >-
  one
  line
tail: a{b}, [c] - d
url: tcp://127.0.0.1:1883?a=b&c=d
odd: "\x7f\u2028\U0001F600é\ttab: #"
time: "2026-11-22"
"12": {"a: b": "-", x y: 1, http://h/p?q: c:d}
deep:
  - - x
    - - y
  - k: v
    l:
      m: []
      o: {}
  -
`
	const want = `a: b
n: 
list: [1, 0x10, 1:30, 12:00, .inf, null, null, yes, "yes", "it's", "a, b", 2001-12-14 21:59:43, {x: y, "z": []}]
text: "two lines\n\"quoted\" # no comment\n"
`
	r := &reader{file: "doc"}
	top := r.document([]byte(doc))
	if r.err() == nil {
		if got := string(written(top)); len(got) < len(want) || got[:len(want)] != want {
			t.Errorf("got\n%s", got)
		}
	} else {
		t.Fatal(r.err())
	}
	writtenSays(t, doc)
	writtenSays(t, string(Reference()))
	writtenSays(t, string(Demo()))
	for _, m := range modelTexts() {
		writtenSays(t, m.text)
	}
}

func FuzzWritten(f *testing.F) {
	f.Add("a: [b, {c: 'd'}]\ne:\n- f\n- g: h\n")
	f.Add(string(Demo()))
	f.Fuzz(writtenSays)
}
