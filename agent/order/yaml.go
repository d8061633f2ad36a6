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
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return fmt.Errorf("%w: it holds octets that are no text; want UTF-8", ErrMalformed)
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithKnownFields(), yaml.WithUniqueKeys())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var n yaml.Node
	if err := loader.Load(&n); errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: line %d: nothing stands there", ErrMalformed, first)
	} else if err != nil {
		return place(err, first)
	}
	if err := plain(&n, first, 0); err != nil {
		return err
	}
	switch err := loader.Load(new(yaml.Node)); {
	case err == nil:
		return fmt.Errorf("%w: more than one YAML document", ErrMalformed)
	case !errors.Is(err, io.EOF):
		return place(err, first)
	}
	if err := n.Load(into, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
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
	return fmt.Errorf("%w: line %d: %s", ErrMalformed, one.Mark.Line+first-1, strings.TrimSpace(text))
}

func decodeKey(k minisign.PublicKey) ([]byte, error) {
	return base64.StdEncoding.DecodeString(k.String())
}
