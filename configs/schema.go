package configs

import (
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v4"
)

// schema is a JSON Schema in the making: the reader of configurations is asked
// what it would take, key by key, so that the two cannot differ.
type schema struct{ root map[string]any }

// What durations and sizes look like; their bounds only the agent knows, and the
// description says.
const (
	durationPattern = `^(([0-9]{1,5}d)?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+|[0-9]{1,5}d)$`
	sizePattern     = `^[0-9]{1,10}(B|kB|MB|GB|KiB|MiB|GiB)$`
)

// scalars are what a single value may be taken for: 00012 stays 00012.
func scalars() []string { return []string{"string", "number", "boolean"} }

// tells notes keywords with their values for the place at, when a schema is made;
// it says whether one is.
func (r *reader) tells(at string, keywords ...any) bool {
	if r.schema == nil {
		return false
	}
	node := r.schema.at(at)
	for i := 0; i+1 < len(keywords); i += 2 {
		if name, ok := keywords[i].(string); ok && node[name] == nil {
			node[name] = keywords[i+1]
		}
	}
	return true
}

// at gives the node of a path such as groups.*.channels[].
func (s *schema) at(path string) map[string]any {
	node := s.root
	if path == "" {
		return node
	}
	for part := range strings.SplitSeq(path, ".") {
		name, list := strings.CutSuffix(part, "[]")
		if name == "*" {
			node = child(node, "additionalProperties")
		} else {
			node = child(child(node, "properties"), name)
		}
		if list {
			node = child(node, "items")
		}
	}
	return node
}

// child gives the object that a key of node holds, and makes it where there is
// none.
func child(node map[string]any, key string) map[string]any {
	c, ok := node[key].(map[string]any)
	if !ok {
		c = map[string]any{}
		node[key] = c
	}
	return c
}

// describe tells what the keys of a mapping hold.
func describe[P any](r *reader, at string, fields []field[P], into P) {
	var required []string
	for _, f := range fields {
		r.schema.at(join(at, f.name)) // whatever it is
		f.read(r, join(at, f.name), &yaml.Node{Kind: yaml.ScalarNode}, into)
		if f.required {
			required = append(required, f.name)
		}
	}
	r.tells(at, "type", "object", "additionalProperties", false)
	if len(required) > 0 {
		r.tells(at, "required", required)
	}
}

// Schema gives a JSON Schema (draft 2020-12) of configurations: which keys there
// are, what they hold, and their defaults. What keys have to do with one another,
// and the bounds of durations and sizes, `gridgate check` tells.
func Schema() ([]byte, error) {
	r := &reader{schema: &schema{root: map[string]any{}}}
	mapping(r, "", nil, documentFields(), newDocument())
	s := r.schema
	s.root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s.root["title"] = "gridgate configuration"
	s.at("version")["const"] = Version
	want := func(keys ...string) (all []any) {
		for _, k := range keys {
			all = append(all, map[string]any{"required": []string{k}})
		}
		return all
	}
	s.at("groups.*")["oneOf"] = want("channels", "profile")
	s.at("uplink")["anyOf"] = want("broker", "brokers")
	list := s.at("meters[].groups")
	child(s.at("meters[]"), "properties")["groups"] = map[string]any{"anyOf": []any{map[string]any{"const": groupsAuto}, list}}
	list["minItems"] = 1
	s.defaults()
	delete(s.at("version"), "default")
	b, err := json.MarshalIndent(s.root, "", "  ")
	return append(b, '\n'), err
}

// defaults notes the values of the reference that change nothing where they
// stand in a configuration.
func (s *schema) defaults() {
	const least = "{version: 1, site: s, gateway: g, uplink: {broker: \"tcp://h\"}}"
	base := Layer{Name: "least", Data: []byte(least)}
	bare, err := Parse(base.Name, base.Data)
	if err != nil {
		return
	}
	var doc yaml.Node
	if yaml.Load(Reference(), &doc) != nil || len(doc.Content) == 0 {
		return
	}
	var walk func(at string, n *yaml.Node)
	walk = func(at string, n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			path, value := join(at, n.Content[i].Value), n.Content[i+1]
			switch {
			case path == "groups" || value.Kind == yaml.SequenceNode:
			case value.Kind == yaml.MappingNode:
				walk(path, value)
			default:
				text := strings.ReplaceAll(path, ".", ": {") + ": " + value.Value + strings.Repeat("}", strings.Count(path, "."))
				merged, err := Merge(base, Layer{Name: "reference", Data: []byte("{" + text + "}")})
				if err != nil {
					continue
				}
				if with, err := Parse("reference", merged); err == nil && Compare(bare, with).Empty() {
					s.at(path)["default"] = plainValue(value)
				}
			}
		}
	}
	walk("", doc.Content[0])
}

// plainValue gives a value as JSON has it.
func plainValue(n *yaml.Node) any {
	var v any
	if n.Load(&v) != nil {
		return n.Value
	}
	return v
}
