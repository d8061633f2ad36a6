package plc

import (
	"cmp"
	"time"

	"gridgate/internal/sortby"
)

// State is how a node does.
type State string

// The states.
const (
	Present State = "present" // in the network, as far as is known
	Absent  State = "absent"  // not reported on this connection
	Left    State = "left"    // told to have left
	Silent  State = "silent"  // does not answer any more
)

// Status is a row of the table of nodes.
type Status struct {
	Node    string // as it is named by who reads it; "" for one that nobody reads
	Device  uint16 // device id of Prime; 0 is none
	Serial  string // DLMS id, as the network knows it
	EUI48   string
	State   State
	Since   time.Time // of the state, where the network tells
	Heard   time.Time // it was last
	RTT     time.Duration
	Wait    time.Duration // how long answers may take, as was learnt
	Asked   uint64        // requests
	Lost    uint64        // of them, those that were not answered in time
	Late    uint64        // frames that came when nobody had asked
	Quality Quality
}

// Table is how a bridge and its nodes do.
type Table struct {
	Kind      Kind
	Connected bool
	Err       error  // why it is not; nil where nobody tried
	Strange   uint64 // frames that were for nobody
	Nodes     []Status
}

// Table gives the nodes: those that are read, in the order in which they were
// named, and those that were reported beside, by device id.
func (b *Bridge) Table() Table {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := Table{Kind: b.cfg.Kind, Connected: b.conn != nil, Err: b.err, Strange: b.strange}
	for _, n := range b.nodes {
		t.Nodes = append(t.Nodes, b.status(n))
	}
	var others []Status
	for _, l := range b.listed {
		if l.node == nil {
			s := Status{State: Present}
			s.list(l)
			others = append(others, s)
		}
	}
	sortby.Stable(others, func(x, y Status) int {
		return cmp.Or(cmp.Compare(x.Device, y.Device), cmp.Compare(x.EUI48, y.EUI48))
	})
	t.Nodes = append(t.Nodes, others...)
	return t
}

// status gives the row of a node that is read. mu is held.
func (b *Bridge) status(n *Node) Status {
	s := Status{
		Node: n.name, State: Present, Heard: n.heard, RTT: n.pace.mean, Wait: n.wait(),
		Asked: n.asked, Lost: n.lost, Late: n.late, Quality: n.quality,
	}
	if b.cfg.Kind == Prime {
		s.State = Absent
	}
	if n.listing != nil {
		s.State = Present
		s.list(n.listing)
	}
	if s.State == Present && n.quiet >= silentAfter {
		s.State = Silent
	}
	return s
}

// list fills in what the base node told.
func (s *Status) list(l *listing) {
	s.Device, s.Serial, s.EUI48, s.Since = l.device, l.name, l.eui.String(), l.since
	s.Heard = later(s.Heard, l.heard)
	switch {
	case l.left:
		s.State = Left
	case l.unsure:
		s.State = Absent
	}
}
