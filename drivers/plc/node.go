package plc

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"gridgate/dlms/gateway"
	"gridgate/dlms/wrapper"
	"gridgate/drivers/line"
)

// Node is a meter of the power line. What is not said to be fixed is guarded by
// the bridge's mu.
type Node struct {
	bridge *Bridge
	name   string // fixed, as are:
	key    string
	eui    EUI48 // by which it is named; zero for none
	line   *line.Line
	first  time.Duration // how long answers may take before anything is known

	listing *listing // of Prime; nil where it was never reported
	talk    *talk    // the conversation under way; nil for none

	pace    pace
	sent    time.Time // something was last
	heard   time.Time // something was last
	asked   uint64    // requests, those sent again too
	lost    uint64    // of them, those without an answer in time
	late    uint64    // frames that came when nobody had asked
	quiet   int       // conversations in a row without a word
	probe   time.Time // a silent node is not tried before
	refused bool      // it could not be asked for it was not there
	quality Quality
}

// Line gives the line to the node: one of datagrams, frames of the wrapper.
func (n *Node) Line() *line.Line { return n.line }

// SetWait says how long answers may take before anything is learnt.
func (n *Node) SetWait(d time.Duration) {
	n.bridge.mu.Lock()
	defer n.bridge.mu.Unlock()
	if d > 0 {
		n.first = d
	}
}

// Wait gives how long the next answer may take, as was learnt of this node, or
// of the others where nothing is known of it.
func (n *Node) Wait() time.Duration {
	n.bridge.mu.Lock()
	defer n.bridge.mu.Unlock()
	return n.wait()
}

// wait is Wait; the bridge's mu is held.
func (n *Node) wait() time.Duration {
	first := n.first
	if o := &n.bridge.overall; o.known {
		first = o.wait(first)
	}
	wait := n.pace.wait(first)
	if n.pace.count < enough { // a few answers may have been fast by chance
		wait = max(wait, first)
	}
	return wait
}

// open begins a conversation: when nothing of the one before can be under way.
func (n *Node) open(ctx context.Context) (line.Medium, error) {
	b := n.bridge
	if err := n.isOpen(); err != nil {
		return nil, err
	}
	if b.cfg.Kind == G3 {
		m, err := b.cfg.DialNode(ctx, n.name)
		if err != nil {
			return nil, err
		}
		return &tap{Medium: m, node: n}, nil
	}
	c, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.settle(ctx, c); err != nil {
		return nil, err
	}
	if b.cfg.Kind == Prime {
		if err := b.await(ctx, c, n); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.isGone() {
		return nil, c.why()
	}
	if b.cfg.Kind == Prime && (n.listing == nil || !n.listing.isThere()) {
		n.refused = true
		return nil, ErrLeft
	}
	t := &talk{node: n, conn: c, changed: make(chan struct{})}
	if n.listing != nil {
		t.device = n.listing.device
	}
	n.talk = t
	return t, nil
}

// isOpen says whether the node may be tried now, which is the start of a
// conversation.
func (n *Node) isOpen() error {
	n.bridge.mu.Lock()
	defer n.bridge.mu.Unlock()
	now := time.Now()
	switch {
	case n.bridge.closed:
		return errClosed
	case n.quiet < silentAfter:
		return nil
	case n.probe.After(now):
		n.refused = true
		return ErrSilent
	}
	n.probe = now.Add(probeEvery)
	return nil
}

// settle waits until nothing can be under way any more that was said before. A
// node that did not answer is not waited for.
func (n *Node) settle(ctx context.Context, c *conn) error {
	b := n.bridge
	b.mu.Lock()
	until, silent := b.holdTo, n.heard.Before(n.sent)
	if n.sent.IsZero() {
		silent = false
	} else if own := later(n.sent, n.heard).Add(Lifetime); own.After(until) {
		until = own
	} else {
		silent = false
	}
	b.mu.Unlock()
	wait := time.Until(until)
	if wait <= 0 {
		return nil
	}
	if silent {
		return fmt.Errorf("%w for %v", ErrWaiting, wait.Round(time.Second))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.gone:
		return c.why()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// noteSent takes note of a request, which is one sent again where that before
// was not answered. The bridge's mu is held.
func (n *Node) noteSent(unanswered bool) {
	n.sent = time.Now()
	n.asked++
	if unanswered {
		n.noteLost()
	}
}

func (n *Node) noteLost() {
	n.lost++
	n.pace.lost()
}

// noteHeard takes note of an answer; clean says that it is the first to a
// request that was sent once. The bridge's mu is held.
func (n *Node) noteHeard(clean bool) {
	n.heard = time.Now()
	n.quiet, n.probe, n.refused = 0, time.Time{}, false
	if clean {
		rtt := n.heard.Sub(n.sent)
		n.pace.measure(rtt)
		n.bridge.overall.measure(rtt)
	}
}

// exchangeState is what is known of the last request of a conversation.
type exchangeState struct {
	said, repeated, answered bool
	wordless                 bool // nothing came in the whole conversation
}

func newState() exchangeState { return exchangeState{answered: true, wordless: true} }

func (s *exchangeState) ask(n *Node) {
	s.repeated = s.said && !s.answered
	n.noteSent(s.repeated)
	s.said, s.answered = true, false
}

func (s *exchangeState) hear(n *Node) {
	n.noteHeard(!s.answered && !s.repeated)
	s.answered, s.wordless = true, false
}

func (s *exchangeState) end(n *Node) {
	if s.said && !s.answered {
		n.noteLost()
	}
	if s.said && s.wordless {
		if n.quiet++; n.quiet == silentAfter {
			n.probe = time.Now().Add(probeEvery)
		}
	}
}

// maxQueued is how many frames may wait to be read.
const maxQueued = 64

// talk is a conversation over the connection of the bridge: the Medium of a
// node's line. The bridge's mu guards it.
type talk struct {
	node   *Node
	conn   *conn
	device uint16
	client uint16 // wPort that asked last

	state    exchangeState
	begun    bool
	queue    [][]byte
	deadline time.Time
	over     error
	changed  chan struct{} // closed when something above changes
}

// stir wakes a reader. mu is held.
func (t *talk) stir() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// end makes the conversation one that is over. mu is held.
func (t *talk) end(err error) {
	if t.over == nil {
		t.over = err
		t.stir()
	}
}

// deliver takes a frame from the node. mu is held.
func (t *talk) deliver(frame []byte) {
	h, err := wrapper.ParseHeader(frame)
	if err != nil || !t.begun || h.Destination != t.client || len(t.queue) >= maxQueued {
		t.node.late++
		return
	}
	if t.state.answered {
		t.node.late++ // it may still be of use: a block that was streamed
	}
	t.state.hear(t.node)
	t.queue = append(t.queue, frame)
	t.stir()
}

// Write sends one frame of the wrapper to the node. What came before is no
// answer to it.
func (t *talk) Write(p []byte) (int, error) {
	h, err := wrapper.ParseHeader(p)
	if err == nil && len(p) != wrapper.HeaderLen+int(h.Length) {
		err = fmt.Errorf("a header for %d octets before %d", h.Length, len(p)-wrapper.HeaderLen)
	}
	if err != nil {
		return 0, fmt.Errorf("not one frame of the wrapper: %w", err)
	}
	b := t.node.bridge
	frame, err := t.seal(h, p)
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	if t.over != nil {
		b.mu.Unlock()
		return 0, t.over
	}
	if !t.begun {
		t.begun, t.state = true, newState()
	}
	t.queue, t.client = nil, h.Source
	t.state.ask(t.node)
	b.mu.Unlock()
	if err := t.conn.write(frame); err != nil {
		return 0, err
	}
	return len(p), nil
}

// seal gives the frame as the bridge takes it.
func (t *talk) seal(h wrapper.Header, p []byte) ([]byte, error) {
	if t.node.bridge.cfg.Kind == Prime {
		frame := append([]byte(nil), p...)
		binary.BigEndian.PutUint16(frame[4:], t.device)
		return frame, nil
	}
	apdu, err := addressed(t.node.name).Seal(nil, p[wrapper.HeaderLen:])
	if err != nil {
		return nil, err
	}
	if len(apdu) > wrapper.MaxLength {
		return nil, wrapper.ErrTooLong
	}
	return append(frameHead(h.Source, h.Destination, len(apdu)), apdu...), nil
}

// Read gives one frame, as much of it as there is room for.
func (t *talk) Read(p []byte) (int, error) {
	b := t.node.bridge
	for {
		b.mu.Lock()
		if len(t.queue) > 0 {
			n := copy(p, t.queue[0])
			t.queue = t.queue[1:]
			b.mu.Unlock()
			return n, nil
		}
		over, deadline, changed := t.over, t.deadline, t.changed
		b.mu.Unlock()
		left := time.Until(deadline)
		switch {
		case over != nil:
			return 0, over
		case deadline.IsZero():
			left = time.Hour
		case left <= 0:
			return 0, os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
		}
		timer.Stop()
	}
}

// SetDeadline limits reads from now on.
func (t *talk) SetDeadline(at time.Time) error {
	b := t.node.bridge
	b.mu.Lock()
	defer b.mu.Unlock()
	t.deadline = at
	t.stir()
	return nil
}

// Discard drops the frames that came and were not read.
func (t *talk) Discard() error {
	b := t.node.bridge
	b.mu.Lock()
	defer b.mu.Unlock()
	t.queue = nil
	return nil
}

// Apply does nothing: a bridge has settings of its own.
func (t *talk) Apply(line.Settings) error { return nil }

// Stale says whether the conversation is over: the node left, or the connection
// is gone.
func (t *talk) Stale() bool {
	b := t.node.bridge
	b.mu.Lock()
	defer b.mu.Unlock()
	return t.over != nil
}

// Close ends the conversation.
func (t *talk) Close() error {
	b := t.node.bridge
	b.mu.Lock()
	t.end(line.ErrClosed)
	if t.node.talk == t {
		t.node.talk = nil
		t.state.end(t.node)
	}
	b.mu.Unlock()
	if b.cfg.Alone {
		b.hangUp(errClosed)
	}
	return nil
}

// tap is the Medium of a node of G3, which has a way of its own: what passes is
// taken note of.
type tap struct {
	line.Medium
	node  *Node
	state exchangeState
	begun bool
}

func (t *tap) Write(p []byte) (int, error) {
	b := t.node.bridge
	b.mu.Lock()
	if !t.begun {
		t.begun, t.state = true, newState()
	}
	t.state.ask(t.node)
	b.mu.Unlock()
	return t.Medium.Write(p)
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Medium.Read(p)
	if n > 0 {
		b := t.node.bridge
		b.mu.Lock()
		t.state.hear(t.node)
		b.mu.Unlock()
	}
	return n, err
}

func (t *tap) Close() error {
	b := t.node.bridge
	b.mu.Lock()
	if t.begun {
		t.state.end(t.node)
	}
	b.mu.Unlock()
	return t.Medium.Close()
}

// GatewayNode gives the name of a node of Gateway.
func GatewayNode(network uint8, address []byte) string {
	return string(append([]byte{network}, address...))
}

// addressed is the gateway's header for a node, around APDUs.
type addressed string

// Envelope gives the header of the gateway protocol for a node, for a gateway
// on a serial port.
func Envelope(network uint8, address []byte) interface {
	Seal(b, apdu []byte) ([]byte, error)
	Open(b []byte) (apdu []byte, ok bool)
} {
	return addressed(GatewayNode(network, address))
}

// Seal appends the APDU behind the header of a request.
func (a addressed) Seal(b, apdu []byte) ([]byte, error) {
	b, err := gateway.Header{Network: a[0], Address: []byte(a[1:])}.AppendBinary(b)
	return append(b, apdu...), err
}

// Open gives the APDU behind the header of a response of the node.
func (a addressed) Open(b []byte) (apdu []byte, ok bool) {
	h, apdu, err := gateway.Parse(b)
	if err != nil || !h.Response || GatewayNode(h.Network, h.Address) != string(a) {
		return nil, false
	}
	return apdu, true
}
