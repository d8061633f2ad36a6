package bridge

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// told is a Sparkplug message as a host reads it, by the protobuf runtime.
type told struct {
	kind, device string // NBIRTH, …; the device of D messages
	timestamp    uint64
	seq          int // -1: there is none
	metrics      []toldMetric
}

type toldMetric struct {
	name             string
	alias, timestamp uint64
	kind             int // -1: there is none
	historical, null bool
	value            string // "" for none
	properties       string // key=value, in their order
}

// reader reads messages for a test; the schema is compiled once.
type reader struct {
	t       *testing.T
	payload protoreflect.MessageDescriptor
	once    sync.Once
}

func (r *reader) read(m Message) told {
	r.t.Helper()
	r.once.Do(func() { r.payload = schema(r.t) })
	p := dynamicpb.NewMessage(r.payload)
	if err := proto.Unmarshal(m.Payload, p); err != nil {
		r.t.Fatalf("%s: %v", m.Topic, err)
	}
	parts := strings.Split(m.Topic, "/")
	out := told{kind: parts[2], seq: -1, timestamp: field(p, "timestamp").Uint()}
	if len(parts) > 4 {
		out.device = parts[4]
	}
	if parts[0] != "spBv1.0" || parts[1] != "north" || parts[3] != "gw-7" || len(parts) > 5 {
		r.t.Errorf("topic %s", m.Topic)
	}
	if has(p, "seq") {
		out.seq = int(field(p, "seq").Uint())
	}
	list := field(p, "metrics").List()
	for i := range list.Len() {
		out.metrics = append(out.metrics, readMetric(list.Get(i).Message()))
	}
	return out
}

func (r *reader) all(messages []Message) (out []told) {
	r.t.Helper()
	for _, m := range messages {
		out = append(out, r.read(m))
	}
	return out
}

func field(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(name))
}

func has(m protoreflect.Message, name protoreflect.Name) bool {
	return m.Has(m.Descriptor().Fields().ByName(name))
}

// oneof gives what a message has as its value.
func oneof(m protoreflect.Message) string {
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("value"))
	if f == nil {
		return ""
	}
	return fmt.Sprintf("%s %v", strings.TrimSuffix(string(f.Name()), "_value"), m.Get(f).Interface())
}

func readMetric(m protoreflect.Message) toldMetric {
	out := toldMetric{
		name: field(m, "name").String(), alias: field(m, "alias").Uint(), timestamp: field(m, "timestamp").Uint(), kind: -1,
		historical: field(m, "is_historical").Bool(), null: field(m, "is_null").Bool(), value: oneof(m),
	}
	if has(m, "datatype") {
		out.kind = int(field(m, "datatype").Uint())
	}
	set := field(m, "properties").Message()
	keys, values := field(set, "keys").List(), field(set, "values").List()
	var pairs []string
	for i := range keys.Len() {
		pairs = append(pairs, keys.Get(i).String()+"="+strings.SplitN(oneof(values.Get(i).Message()), " ", 2)[1])
	}
	out.properties = strings.Join(pairs, ",")
	return out
}

// host is a host application: it follows the rules of Sparkplug 3.0 and says
// where a message breaks them.
type host struct {
	t       *testing.T
	born    bool
	bdSeq   string
	seq     int
	aliases map[uint64]string // whole names
	kinds   map[uint64]int
	devices map[string]bool
}

func newHost(t *testing.T) *host { return &host{t: t} }

func (h *host) hear(messages ...told) {
	h.t.Helper()
	for i := range messages {
		h.one(&messages[i])
	}
}

func (h *host) one(m *told) {
	h.t.Helper()
	fail := func(format string, args ...any) {
		h.t.Helper()
		h.t.Errorf(m.kind+" "+m.device+": "+format, args...)
	}
	if m.timestamp == 0 {
		fail("no timestamp")
	}
	switch m.kind {
	case "NDEATH":
		if m.seq != -1 || len(m.metrics) != 1 || m.metrics[0].name != "bdSeq" || m.metrics[0].value != h.bdSeq {
			fail("%+v, the birth had bdSeq %s", m, h.bdSeq)
		}
		h.born = false
		return
	case "NBIRTH":
		if m.seq != 0 {
			fail("seq %d", m.seq)
		}
		h.born, h.aliases, h.kinds, h.devices = true, map[uint64]string{}, map[uint64]int{}, map[string]bool{}
		h.nodeMetrics(m, fail)
	default:
		if !h.born || m.seq != (h.seq+1)%256 {
			fail("seq %d after %d, born: %v", m.seq, h.seq, h.born)
		}
	}
	h.seq = m.seq
	if m.kind == "DBIRTH" {
		h.devices[m.device] = true
	}
	if m.kind == "DDATA" && !h.devices[m.device] {
		fail("before its birth")
	}
	h.metrics(m, fail)
}

func (h *host) nodeMetrics(m *told, fail func(string, ...any)) {
	h.t.Helper()
	for _, metric := range m.metrics {
		switch metric.name {
		case "bdSeq":
			if metric.kind != 4 {
				fail("%+v", metric)
			}
			h.bdSeq = metric.value
		case "Node Control/Rebirth":
			if metric.kind != 11 || metric.value != "boolean false" || metric.alias != 0 {
				fail("%+v", metric)
			}
			return
		}
	}
	fail("no Node Control/Rebirth after bdSeq")
}

func (h *host) metrics(m *told, fail func(string, ...any)) {
	h.t.Helper()
	last := uint64(0)
	for _, metric := range m.metrics {
		if metric.timestamp == 0 || (metric.value == "") != metric.null {
			fail("%+v", metric)
		}
		if !metric.historical {
			if metric.timestamp < last {
				fail("%+v is older than the one before", metric)
			}
			last = metric.timestamp
		}
		if m.kind == "DDATA" {
			if name := h.aliases[metric.alias]; metric.name != "" || !strings.HasPrefix(name, m.device+":") || metric.kind != -1 && metric.kind != h.kinds[metric.alias] {
				fail("%+v is not of the birth: %s", metric, name)
			}
			continue
		}
		if metric.name == "" || metric.kind <= 0 || metric.historical {
			fail("%+v", metric)
		}
		if metric.alias == 0 {
			continue // bdSeq and Rebirth
		}
		whole := m.device + ":" + metric.name
		if was, ok := h.aliases[metric.alias]; ok && was != whole {
			fail("alias %d of %s is %s's", metric.alias, whole, was)
		}
		h.aliases[metric.alias], h.kinds[metric.alias] = whole, metric.kind
	}
}
