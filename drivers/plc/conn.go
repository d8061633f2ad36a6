package plc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"gridgate/dlms/gateway"
	"gridgate/dlms/wrapper"
)

// conn is a connection to a base node or a gateway, with the goroutine that
// reads it; done is closed at its end.
type conn struct {
	stream Stream
	done   chan struct{}
	gone   chan struct{} // closed when the connection is of no use any more

	writing sync.Mutex

	mu     sync.Mutex
	failed error

	// Of the list of nodes; the bridge's mu guards them.
	since    time.Time
	reported time.Time // a node was last
}

// connect gives the connection, and makes one where there is none.
func (b *Bridge) connect(ctx context.Context) (*conn, error) {
	select {
	case b.dialing <- struct{}{}:
		defer func() { <-b.dialing }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	b.mu.Lock()
	c, closed := b.conn, b.closed
	b.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	if c != nil {
		return c, nil
	}
	dial, cancel := context.WithTimeoutCause(ctx, dialTime, os.ErrDeadlineExceeded)
	defer cancel()
	stream, err := b.cfg.Dial(dial)
	if err != nil {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
		return nil, err
	}
	c = &conn{stream: stream, done: make(chan struct{}), gone: make(chan struct{}), since: time.Now()}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, errors.Join(errClosed, stream.Close())
	}
	if b.cfg.Shared && b.holdTo.IsZero() {
		b.holdTo = time.Now().Add(Lifetime)
	}
	b.conn, b.err = c, nil
	b.mu.Unlock()
	go b.read(c)
	if b.cfg.Kind == Prime {
		ask, _ := message{kind: msgStartReporting}.append(frameHead(clientPort, basePort, 1))
		if err := c.write(ask); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// frameHead gives the header of the wrapper.
func frameHead(from, to uint16, length int) []byte {
	b, _ := wrapper.Header{Source: from, Destination: to, Length: uint16(length)}.AppendBinary(nil)
	return b
}

// write sends a frame, in one piece: base nodes take no half ones.
func (c *conn) write(frame []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	err := c.stream.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		_, err = c.stream.Write(frame)
	}
	if err != nil {
		c.fail(err)
		return c.why()
	}
	return nil
}

// fail makes the connection one of no use.
func (c *conn) fail(err error) {
	c.mu.Lock()
	first := c.failed == nil
	if first {
		c.failed = err
	}
	c.mu.Unlock()
	if first {
		close(c.gone)
		_ = c.stream.Close() // what it says of a connection that is gone is no news
	}
}

func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *conn) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// read hands on what comes until the connection ends.
func (b *Bridge) read(c *conn) {
	defer close(c.done)
	err := b.readFrames(c)
	c.fail(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = c.why()
	b.conn = nil
	for _, n := range b.nodes {
		if n.talk != nil && n.talk.conn == c {
			n.talk.end(c.why())
		}
	}
	for _, l := range b.listed {
		l.unsure = true // until it is reported again
	}
}

func (b *Bridge) readFrames(c *conn) error {
	var head [wrapper.HeaderLen]byte
	for {
		if _, err := io.ReadFull(c.stream, head[:]); err != nil {
			return err
		}
		h, err := wrapper.ParseHeader(head[:])
		if err == nil && h.Length > maxFrame {
			err = fmt.Errorf("apdu of %d octets: %w: at most %d", h.Length, wrapper.ErrTooLong, maxFrame)
		}
		if err != nil {
			return err
		}
		frame := make([]byte, len(head)+int(h.Length))
		copy(frame, head[:])
		if _, err := io.ReadFull(c.stream, frame[len(head):]); err != nil {
			return err
		}
		b.take(c, h, frame)
	}
}

// take hands a frame on to whom it is for. What is for nobody is counted.
func (b *Bridge) take(c *conn, h wrapper.Header, frame []byte) {
	if b.cfg.Kind == Prime && h.Source == basePort && h.Destination == clientPort {
		b.manage(c, frame[wrapper.HeaderLen:])
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n, frame := b.sender(h, frame)
	if n == nil || n.talk == nil || n.talk.conn != c {
		b.strange++
		return
	}
	n.talk.deliver(frame)
}

// sender gives the node that a frame is from, and the frame as the node's own
// line has it; nil where it is from nobody that is spoken with. mu is held.
func (b *Bridge) sender(h wrapper.Header, frame []byte) (*Node, []byte) {
	if b.cfg.Kind == Prime {
		l := b.devices[h.Source]
		if l == nil {
			return nil, nil
		}
		l.heard = time.Now()
		binary.BigEndian.PutUint16(frame[2:], managementDevice)
		return l.node, frame
	}
	g, apdu, err := gateway.Parse(frame[wrapper.HeaderLen:])
	if err != nil || !g.Response {
		return nil, nil
	}
	return b.byPlace[string(append([]byte{g.Network}, g.Address...))], append(frameHead(h.Source, h.Destination, len(apdu)), apdu...)
}

// managementDevice is the wPort of the logical device that a PRIME base node
// passes on to.
const managementDevice = 1
