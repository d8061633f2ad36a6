package configs

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// written gives a document without comments, anchors and tags of its own as YAML:
// a collection in brackets stays so, and a string is in quotes unless it reads the
// same without them everywhere. The library's writer is ten times as large.
func written(top *yaml.Node) []byte {
	var w nodeWriter
	w.block(top, "\n")
	return append(w, '\n')
}

type nodeWriter []byte

func (w *nodeWriter) put(s string) { *w = append(*w, s...) }

// block writes a node from here on, further lines after the line break in.
func (w *nodeWriter) block(n *yaml.Node, in string) {
	switch {
	case n.Kind == yaml.ScalarNode || n.Style&yaml.FlowStyle != 0 || len(n.Content) == 0:
		w.flow(n)
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			if i > 0 {
				w.put(in)
			}
			w.put("- ")
			w.block(item, in+"  ")
		}
	default:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				w.put(in)
			}
			w.flow(n.Content[i])
			w.put(":")
			v, below := n.Content[i+1], in+"  "
			if v.Kind == yaml.ScalarNode || v.Style&yaml.FlowStyle != 0 || len(v.Content) == 0 {
				below = " "
			}
			w.put(below)
			w.block(v, below)
		}
	}
}

// flow writes a node in one line.
func (w *nodeWriter) flow(n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			w.put(between("{", i))
			w.flow(n.Content[i])
			w.put(": ")
			w.flow(n.Content[i+1])
		}
		w.put(closing("{}", n))
	case yaml.SequenceNode:
		for i, item := range n.Content {
			w.put(between("[", i))
			if item.Kind == yaml.ScalarNode && item.Tag == "!!null" {
				w.put("null") // [, ] is not YAML
				continue
			}
			w.flow(item)
		}
		w.put(closing("[]", n))
	default:
		w.put(scalarText(n))
	}
}

func between(open string, i int) string {
	if i > 0 {
		return ", "
	}
	return open
}

func closing(both string, n *yaml.Node) string {
	if len(n.Content) == 0 {
		return both
	}
	return both[1:]
}

// scalarText gives a single value. Go's escapes are YAML's too.
func scalarText(n *yaml.Node) string {
	switch {
	case n.Tag != "!!str":
		return n.Value
	case n.Style == 0 && isPlain(n.Value):
		return n.Value
	default:
		return strconv.Quote(n.Value)
	}
}

const (
	letters    = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	plainChars = letters + "_./+=&*~@%:-"
)

// isPlain says whether a text that was not in quotes may stay so wherever it is put.
func isPlain(s string) bool {
	return strings.Trim(s, plainChars) == "" && s != "" &&
		strings.Contains(letters, s[:1]) && !strings.HasSuffix(s, ":")
}
