package bridge

import (
	"cmp"
	"slices"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
)

// DefaultHistoricalAfter is how old a row may be and still count as what is now:
// a gateway commits what it read every few minutes.
const DefaultHistoricalAfter = 15 * time.Minute

// maxDDATA is how many metrics one DDATA has at most.
const maxDDATA = 500

// NodeOptions say what a node's messages are like.
type NodeOptions struct {
	// HistoricalAfter is the age from which on a row is historical; 0 is
	// DefaultHistoricalAfter.
	HistoricalAfter time.Duration
	// Strict leaves the data type out of DDATA, as Sparkplug 3.0 would rather
	// have it (tck-id-payloads-metric-datatype-not-req). The npm package
	// sparkplug-payload then reads no values.
	Strict bool
}

// Message is a Sparkplug message that is to be sent.
type Message struct {
	Topic   string
	Payload []byte
	Rows    int // how many rows are in it, of a DDATA
}

// Node is a gateway as a Sparkplug edge node, its meters as devices: what was
// told of them, in which session, under which alias. It does no I/O and has no
// clock. It is not safe for concurrent use. Make one with NewNode.
//
//	Connect: a will (NDEATH) with the next bdSeq, for CONNECT
//	Birth:   NBIRTH with that bdSeq and seq 0, a DBIRTH a device; again whenever a host asks
//	Data:    DBIRTH of devices that are new or have something new, then DDATA
//	Refresh: DBIRTH of devices of which only historical rows told the newest value
//	Death:   NDEATH, before an intended DISCONNECT
type Node struct {
	Site, Gateway string
	options       NodeOptions
	bdSeq, seq    uint8
	connected     bool  // bdSeq was used in a CONNECT
	began         int64 // when the session did: its first NBIRTH; 0 before
	alias         uint64
	devices       map[batch.ID]*device
	software      string // the gateway's version, "" unknown
	dirty         bool   // what is worth keeping over a restart changed
	kept          int    // 1 + the bdSeq that was kept, 0 for none
}

// device is a meter.
type device struct {
	id      batch.ID
	serial  string
	since   int64 // the time of the newest row that serial was seen in
	alias   uint64
	metrics map[quantity]*metric
	changed bool // it must be born (again) before its next data
	refresh bool // its newest value was told as historical only
}

// quantity is what a metric of a device is of.
type quantity struct {
	lane    batch.Lane
	period  uint32
	channel batch.Channel
}

// metric is a quantity as a host knows it.
type metric struct {
	name    string
	alias   uint64
	kind    DataType
	typed   bool // kind follows from a value
	unit    batch.Unit
	current batch.Row // the newest that came
	heard   bool      // current is one of this run
	told    bool      // a value was told in this session
	toldAt  int64     // its time
	traits  traits    // and what was told with it
}

// NewNode gives a node of which nothing is known.
func NewNode(site, gateway string, o NodeOptions) *Node {
	if o.HistoricalAfter <= 0 {
		o.HistoricalAfter = DefaultHistoricalAfter
	}
	return &Node{Site: site, Gateway: gateway, options: o, devices: map[batch.ID]*device{}, alias: 1}
}

// The alias of the node's own metric; those of devices follow.
const softwareAlias = 1

func (n *Node) topic(kind string) string {
	return "spBv1.0/" + n.Site + "/" + kind + "/" + n.Gateway
}

// CommandTopic is where a host sends the node's commands.
func (n *Node) CommandTopic() string { return n.topic("NCMD") }

// Connect gives the will of the next connection, and counts it: bdSeq rises by
// one a CONNECT, from 255 to 0 (tck-id-message-flow-edge-node-birth-publish-
// will-message-payload-bdSeq). Keep the node's state before connecting.
func (n *Node) Connect(now int64) Message {
	if n.connected {
		n.bdSeq++
	}
	n.connected, n.began = true, 0
	n.dirty = n.dirty || n.kept != 1+int(n.bdSeq)
	return n.Death(now)
}

// Unsent says that the CONNECT of the last Connect never left.
func (n *Node) Unsent() { n.connected = false }

// Death gives the NDEATH of the connection. It has no sequence number.
func (n *Node) Death(now int64) Message {
	return Message{Topic: n.topic("NDEATH"), Payload: appendPayload(nil, now, noSeq, []Metric{n.bdSeqMetric(now)})}
}

func (n *Node) bdSeqMetric(now int64) Metric {
	return Metric{Name: "bdSeq", Timestamp: now, Type: TypeInt64, Bits: uint64(n.bdSeq)}
}

// SetSoftware notes the gateway's version, and says whether that is news: the
// next births tell it.
func (n *Node) SetSoftware(version string) (changed bool) {
	changed = version != "" && version != n.software
	if changed {
		n.software = version
	}
	return changed
}

// Birth begins a session, or begins it anew for a host that asks: NBIRTH, then
// a DBIRTH for every device. rows are what waits: their newest values are in
// the births already, and Data gives them all the same, as historical.
func (n *Node) Birth(rows []track.Reading, now int64) []Message {
	for i := range rows {
		n.learn(&rows[i].Row, now)
	}
	n.seq = 255 // the next is 0
	if n.began == 0 {
		n.began = now
	}
	software := Metric{Name: "Properties/Software", Alias: softwareAlias, Timestamp: now, Type: TypeString, Data: n.software, Null: n.software == ""}
	metrics := []Metric{n.bdSeqMetric(now), {Name: rebirthName, Timestamp: now, Type: TypeBoolean}, software}
	messages := []Message{{Topic: n.topic("NBIRTH"), Payload: appendPayload(nil, now, n.next(), metrics)}}
	for _, d := range n.sorted() {
		messages = append(messages, n.birth(d, now))
	}
	return messages
}

// next gives the next sequence number (tck-id-payloads-sequence-num-
// incrementing).
func (n *Node) next() int {
	n.seq++
	return int(n.seq)
}

func (n *Node) sorted() []*device {
	all := make([]*device, 0, len(n.devices))
	for _, d := range n.devices {
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *device) int { return cmp.Compare(a.id, b.id) })
	return all
}

// birth gives a device's DBIRTH: every metric with name, alias, type and the
// newest value, in the order of their times (tck-id-operational-behavior-data-
// publish-dbirth-order).
func (n *Node) birth(d *device, now int64) Message {
	d.changed, d.refresh = false, false
	metrics := make([]Metric, 0, len(d.metrics)+1)
	for _, m := range d.metrics {
		metrics = append(metrics, n.birthMetric(m, d, now))
	}
	metrics = append(metrics, Metric{
		Name: "Properties/Serial", Alias: d.alias, Timestamp: now, Type: TypeString, Data: d.serial, Null: d.serial == "",
	})
	slices.SortFunc(metrics, func(a, b Metric) int {
		return cmp.Or(cmp.Compare(a.Timestamp, b.Timestamp), cmp.Compare(a.Alias, b.Alias))
	})
	return Message{Topic: n.topic("DBIRTH") + "/" + string(d.id), Payload: appendPayload(nil, now, n.next(), metrics)}
}

func (n *Node) birthMetric(m *metric, d *device, now int64) Metric {
	out := Metric{Name: m.name, Alias: m.alias, Timestamp: now, Type: m.kind, Null: true}
	t := traits{quality: qualityStale}
	if m.heard {
		t = m.fill(&out, &m.current, d.serial)
		m.told, m.toldAt = true, m.current.Stamp.Time
		if n.ahead(&m.current, now) {
			m.toldAt = now
		}
		if t.quality == qualityGood && m.current.Lane == batch.Instant && n.old(&m.current, now) {
			t.quality = qualityStale
		}
	}
	m.traits = t
	out.Properties = append(t.properties(traits{}), Property{Key: "Channel", Text: string(m.current.Channel)})
	if unit := m.unit.String(); unit != "" {
		out.Properties = append(out.Properties, Property{Key: "engUnit", Text: unit})
	}
	return out
}

// Data gives the messages for rows: births of devices that are new or have a
// new metric, type, unit or serial number, then every row in a DDATA of its
// device. A row is historical when it was read before the session began, when
// it is old, or when it is not newer than what was told of its metric in this
// session. The node must have been born.
func (n *Node) Data(rows []track.Reading, now int64) []Message {
	of := map[*device][]*batch.Row{}
	for i := range rows {
		row := &rows[i].Row
		d := n.learn(row, now)
		of[d] = append(of[d], row)
	}
	var messages []Message
	all := n.sorted()
	for _, d := range all {
		if len(of[d]) > 0 && d.changed {
			messages = append(messages, n.birth(d, now))
		}
	}
	for _, d := range all {
		list := of[d]
		slices.SortStableFunc(list, func(a, b *batch.Row) int { return cmp.Compare(a.Stamp.Time, b.Stamp.Time) })
		for part := range slices.Chunk(list, maxDDATA) {
			messages = append(messages, n.data(d, part, now))
		}
	}
	return messages
}

// Refresh gives births of the devices that hosts know an older value of than
// there is, because the newer one was told as historical: it waited while the
// bridge or the primary host was away. Call it when no more rows wait.
func (n *Node) Refresh(now int64) (messages []Message) {
	for _, d := range n.sorted() {
		if d.refresh {
			d.refresh = false
			messages = append(messages, n.birth(d, now))
		}
	}
	return messages
}

func (n *Node) data(d *device, rows []*batch.Row, now int64) Message {
	metrics := make([]Metric, len(rows))
	for i, row := range rows {
		m := d.metrics[quantityOf(row)]
		out := &metrics[i]
		*out = Metric{Alias: m.alias, Timestamp: row.Stamp.Time, Type: m.kind, HideType: n.options.Strict}
		t := m.fill(out, row, d.serial)
		out.Historical = row.Stamp.Time < n.began || n.old(row, now) || n.ahead(row, now) || m.told && row.Stamp.Time <= m.toldAt
		if !out.Historical {
			m.told, m.toldAt = true, row.Stamp.Time
		} else if n.shows(m, row, now) {
			d.refresh = true
		}
		if t != m.traits || t.quality != qualityGood {
			out.Properties = t.properties(m.traits)
			m.traits = t
		}
	}
	return Message{
		Topic: n.topic("DDATA") + "/" + string(d.id), Payload: appendPayload(nil, now, n.next(), metrics), Rows: len(rows),
	}
}

// old says whether a row is too old to be what is now, ahead whether it is of a
// time to come.
func (n *Node) old(row *batch.Row, now int64) bool {
	return now-row.Stamp.Time > n.options.HistoricalAfter.Milliseconds()
}

func (n *Node) ahead(row *batch.Row, now int64) bool {
	return row.Stamp.Time-now > n.options.HistoricalAfter.Milliseconds()
}

// shows says whether a historical row is what hosts should see as current all
// the same: it is the newest. A value that was read at a moment is not when it
// is old; the meter's own last interval or billing value is.
func (n *Node) shows(m *metric, row *batch.Row, now int64) bool {
	newest := !m.told || row.Stamp.Time > m.toldAt
	return newest && !n.ahead(row, now) && (row.Lane != batch.Instant || !n.old(row, now))
}

func quantityOf(row *batch.Row) quantity { return quantity{row.Lane, row.Period, row.Channel} }

// learn notes what a row tells of its device and metric. What a row of a time
// to come says is noted only where nothing else is known: a clock that is wrong
// once must not keep what comes later from being current.
func (n *Node) learn(row *batch.Row, now int64) *device {
	d := n.devices[row.Meter]
	if d == nil {
		d = n.addDevice(row.Meter)
	}
	ahead := n.ahead(row, now)
	if row.Serial != "" && (d.serial == "" || !ahead && row.Stamp.Time >= d.since) {
		if !ahead {
			d.since = row.Stamp.Time
		}
		if row.Serial != d.serial {
			d.serial, d.changed, n.dirty = row.Serial, true, true
		}
	}
	q := quantityOf(row)
	m := d.metrics[q]
	if m == nil {
		m = n.addMetric(d, q, rowName(row))
	}
	if t, ok := typeOf(row.Value); ok {
		if m.typed {
			t = join(m.kind, t)
		}
		if t != m.kind || !m.typed {
			d.changed = d.changed || t != m.kind
			m.kind, m.typed, n.dirty = t, true, true
		}
	}
	if !m.heard || !ahead && (row.Stamp.Time >= m.current.Stamp.Time || n.ahead(&m.current, now)) {
		m.current, m.heard = *row, true
		if row.Unit != m.unit {
			m.unit, d.changed, n.dirty = row.Unit, true, true
		}
	}
	return d
}

func (n *Node) addDevice(id batch.ID) *device {
	n.alias++
	d := &device{id: id, alias: n.alias, metrics: map[quantity]*metric{}, changed: true}
	n.devices[id], n.dirty = d, true
	return d
}

func (n *Node) addMetric(d *device, q quantity, name string) *metric {
	n.alias++
	// Until a value tells, a number is the best guess.
	m := &metric{name: name, alias: n.alias, kind: TypeDouble, current: batch.Row{Lane: q.lane, Period: q.period, Channel: q.channel}}
	d.metrics[q], d.changed, n.dirty = m, true, true
	return m
}
