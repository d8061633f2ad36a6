package order

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"aead.dev/minisign"
	"go.yaml.in/yaml/v4"
)

// maxDepth of nesting.
const maxDepth = 16

// Decode reads the payload, YAML, into a structure that has a field for every
// key. What it has none for is an error.
func (d *Document) Decode(into any) error { return decode(d.Payload, d.line, into) }

// decode reads one YAML document; first is the number of its first line.
func decode(data []byte, first int, into any) error {
	var n yaml.Node
	if err := load(data, first, &n); err != nil {
		return err
	}
	if err := n.Load(into, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return place(err, first)
	}
	return nil
}

// load reads one YAML document whose top is a mapping, and which is plain.
func load(data []byte, first int, n *yaml.Node) error {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return fmt.Errorf("%w: it holds octets that are no text; want UTF-8", ErrMalformed)
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithKnownFields(), yaml.WithUniqueKeys())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := loader.Load(n); errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: line %d: nothing stands there", ErrMalformed, first)
	} else if err != nil {
		return place(err, first)
	}
	if err := plain(n, first, 0); err != nil {
		return err
	}
	switch err := loader.Load(new(yaml.Node)); {
	case err == nil:
		return fmt.Errorf("%w: more than one YAML document", ErrMalformed)
	case !errors.Is(err, io.EOF):
		return place(err, first)
	}
	return nil
}

// plain refuses what makes a document hard to read for people and costly for
// machines.
func plain(n *yaml.Node, first, depth int) error {
	at := func(text string) error {
		return fmt.Errorf("%w: line %d: %s", ErrMalformed, n.Line+first-1, text)
	}
	switch {
	case depth > maxDepth:
		return at(fmt.Sprintf("nested more than %d deep", maxDepth))
	case n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge":
		return at("anchors, aliases and merge keys have no place here")
	case n.Style&yaml.TaggedStyle != 0:
		return at("tags have no place here")
	case n.Kind == yaml.DocumentNode && (len(n.Content) != 1 || n.Content[0].Kind != yaml.MappingNode):
		return at("want keys with values")
	}
	for _, c := range n.Content {
		if err := plain(c, first, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// place gives what the YAML package says, with the line that it is at in the
// document.
func place(err error, first int) error {
	var all *yaml.LoadErrors
	var one *yaml.LoadError
	switch {
	case errors.As(err, &all) && len(all.Errors) > 0:
		one = all.Errors[0]
	case errors.As(err, &one):
	default:
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	text := one.Message
	if text == "" {
		text = "not what belongs there"
	}
	if field, _, ok := strings.Cut(text, " not found in type "); ok { // Go's name of it says nothing to people
		text = fmt.Sprintf("%q is no key that belongs there", clip(strings.TrimPrefix(field, "field ")))
	}
	return fmt.Errorf("%w: line %d: %s", ErrMalformed, one.Mark.Line+first-1, strings.TrimSpace(text))
}

func decodeKey(k minisign.PublicKey) ([]byte, error) {
	return base64.StdEncoding.DecodeString(k.String())
}

// DecodeCommand reads the payload of a command: head gets its keys but `with`,
// and with decodes what stands there, into a structure that has a field for
// every key of it. A command without `with` has an empty one.
func (d *Document) DecodeCommand(head any) (with func(into any) error, err error) {
	var n yaml.Node
	if err := load(d.Payload, d.line, &n); err != nil {
		return nil, err
	}
	top := n.Content[0]
	var inner *yaml.Node
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value != "with" {
			continue
		}
		if inner != nil {
			return nil, fmt.Errorf("%w: line %d: with stands there twice", ErrMalformed, top.Content[i].Line+d.line-1)
		}
		inner = top.Content[i+1]
		top.Content = append(top.Content[:i:i], top.Content[i+2:]...)
		i -= 2
	}
	if err := top.Load(head, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		return nil, place(err, d.line)
	}
	return func(into any) error {
		if inner == nil {
			return nil
		}
		if inner.Kind != yaml.MappingNode {
			return fmt.Errorf("%w: line %d: with: want keys with values", ErrMalformed, inner.Line+d.line-1)
		}
		if err := inner.Load(into, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
			return place(err, d.line)
		}
		return nil
	}, nil
}
