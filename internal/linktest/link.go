// Package linktest emulates a slow link inside a test: rate, delay, loss, a
// bounded queue, and outages. It works in real time and, since it waits with
// timers and channels only, in the simulated time of testing/synctest.
//
// The model is TCP as an application sees it over such a link:
//
//	Write -> socket buffer -> queue -> the wire, Rate bit/s -> Delay -> Read
//
// A write is cut into segments. Each takes its turn on the wire, shared by all
// connections of the link, with Overhead bytes for its headers, and arrives
// Delay later. A lost segment takes the wire again and arrives Retransmit
// later; what follows on the same connection waits for it, as TCP delivers in
// order. The acknowledgements of TCP take no room on the wire.
//
// In an outage nothing moves: the link's clock stands still, and goes on where
// it stopped. No goroutine belongs to a Link, so there is nothing to close.
package linktest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// Defaults of Config.
const (
	DefaultQueue    = 4 << 10
	DefaultWindow   = 64 << 10
	DefaultSegment  = 1360
	DefaultOverhead = 40
)

const forever = time.Duration(1<<63 - 1)

// Config describes a link. The zero value is a perfect one.
type Config struct {
	Rate  int64         // bit/s, in each direction; 0 is without limit
	Delay time.Duration // in each direction: half of the round trip
	// Queue is how many bytes may wait for the wire, in each direction, before
	// Write blocks; 0 is DefaultQueue.
	Queue int
	// Window is how many bytes of a connection may be on their way or unread,
	// in each direction, before Write blocks; 0 is DefaultWindow.
	Window     int
	Segment    int           // payload of a segment; 0 is DefaultSegment
	Overhead   int           // bytes of headers a segment; 0 is DefaultOverhead, negative is none
	Loss       float64       // share of segments that are lost, 0 to below 1
	Retransmit time.Duration // until a lost segment is there; 0 is four times Delay and 200 ms
	Seed       uint64        // of the losses
	// Forget is after what time without a byte the link forgets a connection,
	// as a NAT does: nothing of it passes any more, and nobody is told. 0 is
	// never.
	Forget time.Duration
}

// Outage says how a link fails.
type Outage uint8

// The outages.
const (
	Up        Outage = iota // no outage
	BlackHole               // nothing passes and nobody is told
	Cut                     // as connections break they are reset, and new ones refused
)

// Stats counts one direction.
type Stats struct {
	Bytes    uint64 // payload that arrived or is on its way
	Wire     uint64 // with headers and repetitions: IP bytes
	Segments uint64
	Lost     uint64
}

// Link is an emulated link between a near and a far end. It is safe for
// concurrent use.
type Link struct {
	config Config

	mu      sync.Mutex
	change  chan struct{} // closed and replaced at every event that may end a wait
	outage  Outage
	born    time.Time
	stopped time.Time     // when the running outage began
	down    time.Duration // all outages before
	random  *rand.Rand
	wire    [2]direction // near to far, far to near
	open    map[*half]struct{}
	backlog []*half // far ends that nobody has accepted
	refused bool    // the listener was closed
	dialed  int
}

// direction is one direction of the wire.
type direction struct {
	free  time.Duration // link time at which the wire is free again
	stats Stats
}

// New gives a link that is up.
func New(c Config) *Link {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Queue, DefaultQueue)
	def(&c.Window, DefaultWindow)
	def(&c.Segment, DefaultSegment)
	def(&c.Overhead, DefaultOverhead)
	c.Overhead = max(c.Overhead, 0)
	if c.Retransmit == 0 {
		c.Retransmit = 4*c.Delay + 200*time.Millisecond
	}
	return &Link{
		config: c, change: make(chan struct{}), born: time.Now(),
		random: rand.New(rand.NewPCG(c.Seed, 0x6c696e6b)), open: map[*half]struct{}{},
	}
}

// Set begins or ends an outage.
func (l *Link) Set(o Outage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.outage == Up && o != Up:
		l.stopped = time.Now()
	case l.outage != Up && o == Up:
		l.down += time.Since(l.stopped)
	}
	l.outage = o
	if o == Cut {
		for h := range l.open {
			h.broken = syscall.ECONNRESET
		}
		clear(l.open)
		l.backlog = nil
	}
	l.wake()
}

// SetRate changes the rate for what is written from now on.
func (l *Link) SetRate(bitPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config.Rate = bitPerSecond
}

// Stats gives the counts from the near end to the far one, and back.
func (l *Link) Stats() (out, back Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wire[0].stats, l.wire[1].stats
}

// Pipe gives the two ends of a new connection that is established already.
func (l *Link) Pipe() (near, far net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, f := l.pair()
	return n, f
}

// Dial connects to the link's Listener. It takes a round trip; in a black hole
// it waits for ctx.
func (l *Link) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Connecting is an empty segment each way.
	there := l.now() + 2*l.config.Delay
	for {
		switch {
		case l.outage == Cut || l.refused:
			return nil, &net.OpError{Op: "dial", Net: "link", Err: syscall.ECONNREFUSED}
		case l.outage == Up && l.now() >= there:
			near, far := l.pair()
			l.backlog = append(l.backlog, far)
			l.wake()
			return near, nil
		}
		if err := l.wait(l.until(there), ctx.Done(), ctx.Err); err != nil {
			return nil, &net.OpError{Op: "dial", Net: "link", Err: err}
		}
	}
}

// Listener gives the far end's listener. A link has one.
func (l *Link) Listener() net.Listener { return (*listener)(l) }

type listener Link

func (n *listener) Accept() (net.Conn, error) {
	l := (*Link)(n)
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.refused {
		if len(l.backlog) > 0 {
			far := l.backlog[0]
			l.backlog = l.backlog[1:]
			return far, nil
		}
		if err := l.wait(forever, nil, nil); err != nil {
			return nil, err
		}
	}
	return nil, net.ErrClosed
}

func (n *listener) Close() error {
	l := (*Link)(n)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = true
	l.wake()
	return nil
}

func (n *listener) Addr() net.Addr { return addr("far") }

type addr string

func (a addr) Network() string { return "link" }
func (a addr) String() string  { return string(a) }

// pair makes a connection. The lock is held.
func (l *Link) pair() (near, far *half) {
	l.dialed++
	near = &half{link: l, way: 0, name: addr(fmt.Sprintf("near:%d", l.dialed))}
	far = &half{link: l, way: 1, name: addr(fmt.Sprintf("far:%d", l.dialed))}
	near.peer, far.peer = far, near
	near.flow = &flow{last: l.now()}
	far.flow = near.flow
	l.open[near], l.open[far] = struct{}{}, struct{}{}
	return near, far
}

// now is the link's clock: it runs while the link is up. The lock is held.
func (l *Link) now() time.Duration {
	t := time.Now()
	if l.outage != Up {
		t = l.stopped
	}
	return t.Sub(l.born) - l.down
}

// until gives how long it is to a moment of the link's clock; forever while
// that stands still. The lock is held.
func (l *Link) until(moment time.Duration) time.Duration {
	if l.outage != Up {
		return forever
	}
	return moment - l.now()
}

// wake ends all waits. The lock is held.
func (l *Link) wake() {
	close(l.change)
	l.change = make(chan struct{})
}

// wait lets go of the lock until something changes or d is over, or until done
// is closed, which gives cause().
func (l *Link) wait(d time.Duration, done <-chan struct{}, cause func() error) error {
	change := l.change
	l.mu.Unlock()
	defer l.mu.Lock()
	var over <-chan time.Time
	if d != forever {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-change:
	case <-over:
	case <-done:
		return cause()
	}
	return nil
}

// send puts p on the wire and gives the moment at which it arrives. The lock
// is held.
func (l *Link) send(way int, p []byte) (arrival time.Duration) {
	d := &l.wire[way]
	size := len(p) + l.config.Overhead
	if l.outage != Up {
		d.free = max(d.free, l.now()+1) // even on a perfect link: not before the outage ends
	}
	for tries := 0; ; tries++ {
		d.free = max(d.free, l.now()) + l.wireTime(size)
		d.stats.Wire += uint64(size)
		if l.random.Float64() >= l.config.Loss || tries == 10 {
			d.stats.Bytes += uint64(len(p))
			d.stats.Segments++
			return d.free + l.config.Delay + time.Duration(tries)*l.config.Retransmit
		}
		d.stats.Lost++
	}
}

func (l *Link) wireTime(bytes int) time.Duration {
	if l.config.Rate <= 0 {
		return 0
	}
	return time.Duration(int64(bytes) * 8 * int64(time.Second) / l.config.Rate)
}
