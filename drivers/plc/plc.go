// Package plc reaches the meters of a power line through the bridge at its
// head. The line is slow and loses much, but carries several conversations at a
// time: a Bridge owns the one connection to the base node, and gives each node
// a line of its own.
//
//	meter ── cosem ── line ── Node ┐
//	meter ── cosem ── line ── Node ┼── Bridge ── TCP ── base node ~~ power line
//	meter ── cosem ── line ── Node ┘
//
// Each line carries frames of the wrapper, to and from its node: a driver sees
// a meter over UDP. The kinds of bridges:
//
//	Prime    the base node's TCP protocol: the wrapper, with the node's device
//	         id for its wPort, and messages that tell which nodes there are
//	Gateway  the header of the DLMS gateway protocol within the wrapper
//	G3       each meter has an IPv6 address; the bridge is a router
//
// A gateway on a serial port has one conversation at a time; for it there is
// the Envelope only.
//
// What comes late or twice must not pass for the answer to something else.
// Within an association the numbers of requests see to that. An association
// request and its answer have none: so a conversation with a node begins only
// when nothing of the one before can be under way any more (Lifetime), and what
// comes while nobody asked is dropped.
package plc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// Kind is how a bridge reaches its nodes.
type Kind string

// The kinds.
const (
	Prime   Kind = "prime"
	Gateway Kind = "gateway"
	G3      Kind = "g3"
)

// Repeats is how often a request is sent again that does no harm twice. At one
// frame lost in ten, one exchange in 760 fails.
const Repeats = 3

// Lifetime is how long a frame may be under way, with all that happens in the
// buffers of base nodes: they give up what they could not send in 40 s.
const Lifetime = time.Minute

const (
	dialTime  = 30 * time.Second
	writeTime = 10 * time.Second
	// listQuiet is how long no node was reported when all were.
	listQuiet = 3 * time.Second
	// probeEvery is how often a node that fell silent is tried.
	probeEvery = 15 * time.Minute
	// silentAfter is how many conversations in a row without a word make a node
	// silent.
	silentAfter = 2
	maxFrame    = 16 << 10 // octets of an APDU
	maxListed   = 4096     // nodes that a base node may report
)

// Why a node cannot be asked. They are meter.ErrNoAnswer.
var (
	ErrAbsent  = fmt.Errorf("%w: the node is not in the list of the base node (is its name right, is it powered, is it in reach?)", meter.ErrNoAnswer)
	ErrLeft    = fmt.Errorf("%w: the node left the network", meter.ErrNoAnswer)
	ErrSilent  = fmt.Errorf("%w: the node fell silent and is tried every %v", meter.ErrNoAnswer, probeEvery)
	ErrWaiting = fmt.Errorf("%w, and answers to what it was asked before may still be under way", meter.ErrNoAnswer)
)

var errClosed = errors.New("closed")

// Stream is a connection to a base node or a gateway.
type Stream interface {
	io.ReadWriteCloser
	SetWriteDeadline(t time.Time) error
}

// Config is what a Bridge works with.
type Config struct {
	Name string // of the line, for errors: host:port
	Kind Kind
	// Dial connects to a base node or a gateway.
	Dial func(ctx context.Context) (Stream, error)
	// DialNode gives the medium of a node of G3: its datagrams.
	DialNode func(ctx context.Context, node string) (line.Medium, error)
	// Shared says that somebody may have used the bridge right before: the first
	// conversations begin when nothing of his can be under way any more.
	Shared bool
	// Alone says that one node is all there is: its line closes the connection.
	Alone bool
	// Listed, if not nil, is told of a node that could not be asked before and
	// is reported again. It must not wait for the bridge.
	Listed func(node string)
}

// Bridge is a base node, a gateway, or a network of G3, with its nodes. It is
// safe for concurrent use. It connects when a node is first asked, and again
// when the connection is lost.
type Bridge struct {
	cfg     Config
	dialing chan struct{} // has a token while somebody connects

	mu      sync.Mutex
	closed  bool
	conn    *conn // nil for none
	holdTo  time.Time
	nodes   []*Node
	byPlace map[string]*Node
	listed  map[EUI48]*listing
	devices map[uint16]*listing
	news    chan struct{} // closed when a node is reported
	overall pace          // over all nodes: what to expect of one that is not known
	strange uint64
	err     error // why the last connection ended or did not come about
}

// New gives a bridge. It connects to nothing yet.
func New(c Config) *Bridge {
	return &Bridge{
		cfg: c, dialing: make(chan struct{}, 1),
		byPlace: make(map[string]*Node), listed: make(map[EUI48]*listing), devices: make(map[uint16]*listing),
		news: make(chan struct{}),
	}
}

// String gives the name of the line.
func (b *Bridge) String() string { return b.cfg.Name }

// Node gives the node of that name: of Prime its DLMS id or EUI-48, of Gateway
// the octets of its physical device address behind one octet for the network, of
// G3 host:port. The same name is the same node.
func (b *Bridge) Node(name string) *Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.placeOf(name)
	if n := b.byPlace[key]; n != nil {
		return n
	}
	n := &Node{bridge: b, name: name, key: key, first: firstWait}
	if b.cfg.Kind == Prime {
		n.eui, _ = parseEUI48(name)
	}
	n.line = line.Of(b.label(name), func(ctx context.Context, _ line.Settings) (line.Medium, error) { return n.open(ctx) })
	b.nodes = append(b.nodes, n)
	b.byPlace[key] = n
	for _, l := range b.listed {
		b.match(n, l)
	}
	return n
}

// placeOf gives the key of a node in the map.
func (b *Bridge) placeOf(name string) string {
	if b.cfg.Kind == Gateway {
		return name
	}
	return strings.ToUpper(name)
}

func (b *Bridge) label(name string) string {
	if b.cfg.Kind == Gateway && name != "" {
		name = fmt.Sprintf("%d/%X", name[0], name[1:])
	}
	if b.cfg.Kind == G3 {
		return name
	}
	return b.cfg.Name + " node " + name
}

// Lend waits until no node is spoken with, closes the connection and keeps it
// closed until giveBack is called, so that another process can use the bridge.
func (b *Bridge) Lend(ctx context.Context) (giveBack func(), err error) {
	b.mu.Lock()
	nodes := slices.Clone(b.nodes)
	b.mu.Unlock()
	var all []func()
	giveBack = sync.OnceFunc(func() {
		b.mu.Lock()
		b.holdTo = time.Now().Add(Lifetime)
		b.mu.Unlock()
		for _, back := range all {
			back()
		}
	})
	for _, n := range nodes {
		back, err := n.line.Lend(ctx)
		if err != nil {
			giveBack()
			return nil, err
		}
		all = append(all, back)
	}
	b.hangUp(errClosed)
	return giveBack, nil
}

// Close ends all conversations and the connection. Closing twice is no error.
func (b *Bridge) Close() error {
	b.mu.Lock()
	b.closed = true
	nodes := slices.Clone(b.nodes)
	b.mu.Unlock()
	var closing sync.WaitGroup
	for _, n := range nodes {
		closing.Go(func() { _ = n.line.Close() })
	}
	closing.Wait()
	b.hangUp(errClosed)
	return nil
}

// hangUp ends the connection, if there is one, and waits for its end.
func (b *Bridge) hangUp(why error) {
	b.mu.Lock()
	c := b.conn
	b.mu.Unlock()
	if c != nil {
		c.fail(why)
		<-c.done
	}
}
