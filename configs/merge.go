package configs

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Layer is a document, or a part of one, that lies on those before it.
type Layer struct {
	Name string // for errors
	Data []byte
}

// Merge gives the one document that layers make, as YAML without comments. The
// first is whole, the others say what differs:
//
//   - a key with a value replaces that key's value;
//   - a key with keys below it is merged, key by key;
//   - a key with nothing after it (null) is taken away, so that its default holds;
//   - a list replaces the list, but that meters are merged by their id: those
//     that are new follow the others, and `remove: true` takes one away.
//
// The result is the same for the same layers, whatever made them; it has not
// been checked: Parse does. The error is Problems.
func Merge(layers ...Layer) ([]byte, error) {
	var merged *yaml.Node
	for i, l := range layers {
		r := &reader{file: l.Name}
		top := r.document(l.Data)
		if err := r.err(); err != nil {
			return nil, err
		}
		if i == 0 {
			merged = top
			continue
		}
		r.overlay("", merged, top)
		if err := r.err(); err != nil {
			return nil, err
		}
	}
	if merged == nil {
		return nil, Problems{{Want: "nothing to merge"}}
	}
	return written(merged), nil
}

// Whole says whether a layer names its site and gateway: it is no part of a
// configuration then, but one by itself.
func Whole(l Layer) bool {
	r := &reader{file: l.Name}
	top := r.document(l.Data)
	return top != nil && keyIndex(top, "site") >= 0 && keyIndex(top, "gateway") >= 0
}

// overlay puts the mapping top on the mapping below.
func (r *reader) overlay(at string, below, top *yaml.Node) {
	r.eachKey(at, top, func(k, v *yaml.Node) {
		i := keyIndex(below, k.Value)
		switch {
		case v.Tag == "!!null":
			if i >= 0 {
				below.Content = slices.Delete(below.Content, i, i+2)
			}
		case i < 0 && v.Kind == yaml.MappingNode:
			fresh := &yaml.Node{Kind: yaml.MappingNode, Tag: v.Tag, Style: v.Style}
			r.overlay(join(at, k.Value), fresh, v)
			below.Content = append(below.Content, k, fresh)
		case i < 0:
			below.Content = append(below.Content, k, v)
		case below.Content[i+1].Kind == yaml.MappingNode && v.Kind == yaml.MappingNode:
			r.overlay(join(at, k.Value), below.Content[i+1], v)
		case at == "" && k.Value == "meters" && below.Content[i+1].Kind == yaml.SequenceNode && v.Kind == yaml.SequenceNode:
			r.overlayMeters(below.Content[i+1], v)
		default:
			below.Content[i+1] = v
		}
	})
}

// overlayMeters puts meters on meters, by their ids.
func (r *reader) overlayMeters(below, top *yaml.Node) {
	for n, m := range top.Content {
		at := fmt.Sprintf("meters[%d]", n)
		if !r.kind(at, m, yaml.MappingNode, "a meter's keys with values") {
			continue
		}
		i := keyIndex(m, "id")
		if i < 0 {
			r.fail(at+".id", m, "", "missing; it says which meter this changes")
			continue
		}
		id := m.Content[i+1].Value
		old := slices.IndexFunc(below.Content, func(o *yaml.Node) bool {
			j := keyIndex(o, "id")
			return j >= 0 && o.Content[j+1].Value == id
		})
		switch removed := keyIndex(m, "remove"); {
		case removed >= 0 && m.Content[removed+1].Value != "true":
			r.fail(at+".remove", m.Content[removed+1], m.Content[removed+1].Value, "want true, or leave it out")
		case removed >= 0 && len(m.Content) > 4:
			r.fail(at+".remove", m, "", "a meter that is taken away has an id and nothing else")
		case removed >= 0 && old < 0:
			r.fail(at+".remove", m, id, "there is no such meter to take away")
		case removed >= 0:
			below.Content = slices.Delete(below.Content, old, old+1)
		case old < 0:
			below.Content = append(below.Content, m)
		default:
			r.overlay(at, below.Content[old], m)
		}
	}
}

// keyIndex gives the place of a key in a mapping, -1 where it is not.
func keyIndex(n *yaml.Node, key string) int {
	if n.Kind != yaml.MappingNode {
		return -1
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return i
		}
	}
	return -1
}
