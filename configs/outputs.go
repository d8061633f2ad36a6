package configs

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v4"

	"gridgate/internal/meter"
)

// Output is a relay of the gateway, or what else a file switches.
type Output struct {
	Name meter.ID
	Path string // is written to
	On   string // is written to switch it on, and
	Rest string // when it is let go
	// Most is how long an order may keep it on.
	Most time.Duration
}

const (
	maxOutputs = 16
	// DefaultOutputMost is how long an order may keep an output on.
	DefaultOutputMost = 4 * time.Hour
)

func outputFields() []field[*Output] {
	written := func(name string, into func(*Output) *string) field[*Output] {
		return field[*Output]{name: name, read: func(r *reader, at string, n *yaml.Node, o *Output) {
			*into(o) = r.checked(at, n, "1 to 32 visible characters, in quotes", func(s string) bool { return isToken(s) && len(s) <= 32 })
		}}
	}
	return []field[*Output]{
		{name: "path", required: true, read: func(r *reader, at string, n *yaml.Node, o *Output) {
			o.Path = r.path(at, n, 4096)
		}},
		written("on", func(o *Output) *string { return &o.On }),
		written("rest", func(o *Output) *string { return &o.Rest }),
		{name: "most", read: func(r *reader, at string, n *yaml.Node, o *Output) {
			o.Most = r.duration(at, n, time.Second, 31*day)
		}},
	}
}

// readOutputs reads the mapping of outputs by name.
func readOutputs(r *reader, at string, n *yaml.Node, d *document) {
	if r.tells(at, "type", "object", "maxProperties", maxOutputs, "propertyNames", map[string]any{"pattern": "^[a-z0-9-]{1,32}$"}) {
		mapping(r, join(at, "*"), n, outputFields(), &Output{})
		return
	}
	if !r.kind(at, n, yaml.MappingNode, "outputs by name") {
		return
	}
	if len(n.Content)/2 > maxOutputs {
		r.fail(at, n, "", "has %d outputs; want at most %d", len(n.Content)/2, maxOutputs)
		return
	}
	paths := map[string]meter.ID{}
	r.eachKey(at, n, func(k, v *yaml.Node) {
		o := Output{Name: meter.ID(k.Value), On: "1", Rest: "0", Most: DefaultOutputMost}
		place := join(at, shown(k.Value))
		if !isID(k.Value) {
			r.fail(place, k, k.Value, "want a name of 1 to 32 characters of a-z, 0-9 and '-'")
		}
		has := mapping(r, place, v, outputFields(), &o)
		if other, is := paths[o.Path]; is && o.Path != "" {
			r.fail(join(place, "path"), has["path"], o.Path, "is also that of the output %s", other)
		}
		if o.On == o.Rest {
			r.fail(place, v, "", "on and rest are the same, %q: it would switch nothing", o.On)
		}
		paths[o.Path] = o.Name
		d.Outputs = append(d.Outputs, o)
	})
}

// Output gives the output of that name.
func (c *Config) Output(name string) (Output, error) {
	for _, o := range c.Outputs {
		if string(o.Name) == name {
			return o, nil
		}
	}
	return Output{}, fmt.Errorf("no output %q is configured", name)
}
