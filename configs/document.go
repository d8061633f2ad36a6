package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Limits of a document.
const (
	maxSize  = 1 << 20 // bytes
	maxDepth = 16      // of nesting
)

// reader walks the nodes of one document and notes every problem that it
// meets. It goes on after each: the values that it gives for what is wrong are
// zero and must not be used when there are problems.
type reader struct {
	file     string
	problems Problems
	others   Problems // of other files that the document leads to
	schema   *schema  // not nil: nothing is read, and this is told what may stand where
	refs     []storeRef
}

// fail notes a problem at n.
func (r *reader) fail(key string, n *yaml.Node, value, format string, args ...any) {
	if r.schema != nil {
		return
	}
	if utf8.RuneCountInString(value) > 60 {
		value = string([]rune(value)[:60]) + "…"
	}
	p := &Problem{File: r.file, Key: key, Value: value, Want: fmt.Sprintf(format, args...)}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	r.problems = append(r.problems, p)
}

// err gives the problems as an error, nil when there are none.
func (r *reader) err() error {
	if len(r.problems)+len(r.others) == 0 {
		return nil
	}
	return append(r.problems.sorted(), r.others...)
}

// document reads data as one YAML document whose top is a mapping. It gives
// nil when there is none; the problems say why.
func (r *reader) document(data []byte) *yaml.Node {
	if !r.characters(data) {
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		r.syntax(err)
		return nil
	}
	var doc, next yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) {
		r.fail("", nil, "", "the file is empty; see the reference for what belongs into it")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	switch err := loader.Load(&next); {
	case err == nil:
		r.fail("", &next, "", "a second document begins here; want one document in the file")
		return nil
	case !errors.Is(err, io.EOF):
		r.syntax(err)
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		r.fail("", &doc, "", "want keys with values at the top of the file")
		return nil
	}
	if !r.plain(doc.Content[0], 0) {
		return nil
	}
	return doc.Content[0]
}

// characters checks size and encoding, since the parser gives no place there.
func (r *reader) characters(data []byte) bool {
	if len(data) > maxSize {
		r.fail("", nil, "", "has %d bytes; want at most %d", len(data), maxSize)
		return false
	}
	line := 1
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		control := c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f
		if c == utf8.RuneError && size == 1 || control {
			r.problems = append(r.problems, &Problem{
				File: r.file, Line: line,
				Want: "a byte that is no text; want UTF-8 without control characters",
			})
			return false
		}
		if c == '\n' {
			line++
		}
		i += size
	}
	return true
}

// syntax notes what the parser says, with its place. The parser quotes nothing
// but the names of anchors, and those not here.
func (r *reader) syntax(err error) {
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		r.fail("", nil, "", "not YAML: %v", err)
		return
	}
	n := &yaml.Node{Line: e.Mark.Line, Column: e.Mark.Column}
	text := e.Message
	switch {
	case strings.Contains(text, "anchor"):
		text = "anchors and aliases have no place here; write the value out, or in quotes when it begins with * or &"
	case strings.Contains(text, "cannot start any token"):
		text = "not YAML: no value begins with this character (a tab in the indentation? @ or ` without quotes?)"
	case e.ContextMark.Line > 0 && e.ContextMark.Line != n.Line:
		text = fmt.Sprintf("not YAML: %s %s that began at line %d",
			text, strings.TrimPrefix(e.ContextMsg, "while "), e.ContextMark.Line)
	default:
		text = "not YAML: " + text
	}
	r.fail("", n, "", "%s", text)
}

// plain refuses what makes a document hard to read for people and costly for
// machines. It gives false when the document is too deep to be walked.
func (r *reader) plain(n *yaml.Node, depth int) bool {
	switch {
	case depth > maxDepth:
		r.fail("", n, "", "nested more than %d deep", maxDepth)
		return false
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.fail("", n, "", "anchors and aliases have no place here; write the value out, or in quotes when it begins with * or &")
	case n.Tag == "!!merge":
		r.fail("", n, "", "merge keys have no place here; write the keys out")
	case n.Style&yaml.TaggedStyle != 0:
		r.fail("", n, "", "tags have no place here; leave out what begins with '!', or put it in quotes")
	}
	for _, c := range n.Content {
		if !r.plain(c, depth+1) {
			return false
		}
	}
	return true
}

// field is one key of a mapping that is read into what P points to. The pointer is
// the parameter, since the code for all pointers is one.
type field[P any] struct {
	name     string
	required bool
	below    []string // paths of the keys inside, for the reference's test
	read     func(r *reader, at string, n *yaml.Node, into P)
}

// section makes a field of a mapping with keys of its own.
func section[P, Q any](name string, required bool, fields []field[Q], into func(P) Q) field[P] {
	return field[P]{
		name: name, required: required, below: paths(name+".", fields),
		read: func(r *reader, at string, n *yaml.Node, p P) { mapping(r, at, n, fields, into(p)) },
	}
}

// paths gives the paths of all keys of fields and below, each after prefix.
func paths[P any](prefix string, fields []field[P]) []string {
	var all []string
	for _, f := range fields {
		all = append(all, prefix+f.name)
		for _, b := range f.below {
			all = append(all, prefix+b)
		}
	}
	return all
}

// nodes holds the values of a mapping by key, for problems found later.
type nodes map[string]*yaml.Node

// mapping reads the mapping n into what into points to.
func mapping[P any](r *reader, at string, n *yaml.Node, fields []field[P], into P) nodes {
	has := nodes{}
	if r.schema != nil {
		describe(r, at, fields, into)
		return has
	}
	if !r.kind(at, n, yaml.MappingNode, "keys with values") {
		return has
	}
	r.eachKey(at, n, func(k, v *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field[P]) bool { return f.name == k.Value })
		if i < 0 {
			names := make([]string, len(fields))
			for i, f := range fields {
				names[i] = f.name
			}
			r.unknown(at, k, names)
			return
		}
		has[k.Value] = v
		fields[i].read(r, join(at, k.Value), v, into)
	})
	for _, f := range fields {
		if f.required && has[f.name] == nil {
			r.fail(join(at, f.name), n, "", "missing; it has no default")
		}
	}
	return has
}

// eachKey calls do for every key of a mapping that is fit to be one and stands
// there for the first time.
func (r *reader) eachKey(at string, n *yaml.Node, do func(key, value *yaml.Node)) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind == yaml.AliasNode || k.Tag == "!!merge": // noted by plain
		case k.Kind != yaml.ScalarNode:
			r.fail(at, k, "", "a key is %s; want a name", kindName(k))
		case first[k.Value] > 0:
			r.fail(join(at, shown(k.Value)), k, "", "the key is also at line %d", first[k.Value])
		default:
			first[k.Value] = k.Line
			do(k, v)
		}
	}
}

func (r *reader) unknown(at string, k *yaml.Node, names []string) {
	text := "unknown key; want one of " + strings.Join(names, ", ")
	if s, ok := suggest(k.Value, names); ok {
		text = "unknown key; did you mean " + s + "?"
	}
	r.fail(join(at, shown(k.Value)), k, "", "%s", text)
}

// shown gives a key for people. What does not look like one is not shown: it
// may be a value with a secret where the space after the colon is missing.
func shown(key string) string {
	if len(key) > 40 {
		return "?"
	}
	for _, c := range key {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return "?"
		}
	}
	return key
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// kind checks what n is. Aliases are noted elsewhere.
func (r *reader) kind(at string, n *yaml.Node, want yaml.Kind, text string) bool {
	if n.Kind != want {
		if n.Kind != yaml.AliasNode {
			r.fail(at, n, "", "is %s; want %s", kindName(n), text)
		}
		return false
	}
	return true
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "empty"
		}
		return "a single value"
	case yaml.AliasNode:
		return "an alias"
	case yaml.DocumentNode, yaml.StreamNode:
	}
	return "no value"
}
