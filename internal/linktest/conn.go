package linktest

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// half is one end of a connection. Everything in it is guarded by the link's
// lock.
type half struct {
	link *Link
	peer *half
	way  int // the direction of its writes
	name addr
	flow *flow // shared with the peer

	inbox   []segment // what was sent to it, in order
	unread  int       // bytes in inbox
	closed  bool
	shut    bool  // CloseWrite was called
	broken  error // the connection was reset
	readBy  time.Time
	writeBy time.Time
}

// flow is what a NAT knows of a connection.
type flow struct {
	last      time.Duration // when something last passed, by the link's clock
	forgotten bool
}

// passes says whether a segment that is sent now comes through.
func (h *half) passes() bool {
	now := h.link.now()
	if forget := h.link.config.Forget; forget > 0 && now-h.flow.last > forget {
		h.flow.forgotten = true
	}
	h.flow.last = now
	return !h.flow.forgotten
}

// segment is bytes on their way. Without data it is the end of the stream.
type segment struct {
	arrival time.Duration // by the link's clock
	data    []byte
	end     bool
}

var _ net.Conn = (*half)(nil)

// Read gives what has arrived.
func (h *half) Read(p []byte) (int, error) {
	l := h.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if err := h.usable(h.readBy); err != nil {
			return 0, h.fail("read", err)
		}
		n, ended := h.take(p)
		switch {
		case n > 0 || len(p) == 0:
			l.wake() // there is room for the peer
			return n, nil
		case ended:
			return 0, io.EOF
		}
		wait := forever
		if len(h.inbox) > 0 {
			wait = l.until(h.inbox[0].arrival)
		}
		h.pause(wait, h.readBy)
	}
}

// take copies what has arrived into p.
func (h *half) take(p []byte) (n int, ended bool) {
	now := h.link.now()
	for n < len(p) && len(h.inbox) > 0 && h.inbox[0].arrival <= now {
		s := &h.inbox[0]
		if s.end {
			return n, true // stays, for the next Read
		}
		k := copy(p[n:], s.data)
		n, h.unread = n+k, h.unread-k
		if s.data = s.data[k:]; len(s.data) == 0 {
			h.inbox = h.inbox[1:]
		}
	}
	return n, false
}

// Write puts p on the wire, a segment after the other, as room comes free.
func (h *half) Write(p []byte) (n int, err error) {
	l := h.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if err := h.usable(h.writeBy); err != nil {
			return n, h.fail("write", err)
		}
		if h.shut || h.told() {
			return n, h.fail("write", syscall.EPIPE)
		}
		if n == len(p) {
			return n, nil
		}
		backlog := l.wire[h.way].free - l.now() - l.wireTime(l.config.Queue)
		part := min(len(p)-n, l.config.Segment, l.config.Window-h.peer.unread)
		if backlog <= 0 && part > 0 {
			h.deliver(segment{data: append([]byte(nil), p[n:n+part]...)})
			n += part
			continue
		}
		wait := forever
		if backlog > 0 {
			wait = l.until(l.now() + backlog)
		}
		h.pause(wait, h.writeBy)
	}
}

// deliver sends s to the peer, behind what is on its way already.
func (h *half) deliver(s segment) {
	s.arrival = h.link.send(h.way, s.data)
	if k := len(h.peer.inbox); k > 0 {
		s.arrival = max(s.arrival, h.peer.inbox[k-1].arrival)
	}
	if !h.passes() {
		h.peer.unread += len(s.data) // nobody acknowledges it: it stays in the window
	} else if !h.peer.closed {
		h.peer.inbox = append(h.peer.inbox, s)
		h.peer.unread += len(s.data)
	}
	h.link.wake()
}

// told says whether the end that the peer sent when it closed has arrived.
func (h *half) told() bool {
	k := len(h.inbox)
	return h.peer.closed && k > 0 && h.inbox[k-1].end && h.inbox[k-1].arrival <= h.link.now()
}

// usable says why the connection cannot be used, if so.
func (h *half) usable(deadline time.Time) error {
	switch {
	case h.closed:
		return net.ErrClosed
	case h.broken != nil:
		return h.broken
	case !deadline.IsZero() && !time.Now().Before(deadline):
		return os.ErrDeadlineExceeded
	}
	return nil
}

// pause waits for a change, for d at most, and for deadline at most.
func (h *half) pause(d time.Duration, deadline time.Time) {
	if !deadline.IsZero() {
		d = min(d, time.Until(deadline))
	}
	_ = h.link.wait(d, nil, nil)
}

func (h *half) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "link", Source: h.name, Addr: h.peer.name, Err: err}
}

// Close ends the connection. The peer learns of it when what was written
// before has arrived.
func (h *half) Close() error {
	h.link.mu.Lock()
	defer h.link.mu.Unlock()
	if h.closed {
		return h.fail("close", net.ErrClosed)
	}
	h.finish()
	h.closed, h.inbox, h.unread = true, nil, 0
	delete(h.link.open, h)
	h.link.wake()
	return nil
}

// CloseWrite ends the stream to the peer and leaves the other one open.
func (h *half) CloseWrite() error {
	h.link.mu.Lock()
	defer h.link.mu.Unlock()
	h.finish()
	return nil
}

func (h *half) finish() {
	if !h.shut && h.broken == nil {
		h.shut = true
		h.deliver(segment{end: true})
	}
}

func (h *half) LocalAddr() net.Addr  { return h.name }
func (h *half) RemoteAddr() net.Addr { return h.peer.name }

func (h *half) SetDeadline(t time.Time) error { return h.setDeadlines(&t, &t) }

func (h *half) SetReadDeadline(t time.Time) error { return h.setDeadlines(&t, nil) }

func (h *half) SetWriteDeadline(t time.Time) error { return h.setDeadlines(nil, &t) }

func (h *half) setDeadlines(read, write *time.Time) error {
	h.link.mu.Lock()
	defer h.link.mu.Unlock()
	if h.closed {
		return h.fail("set deadline", net.ErrClosed)
	}
	if read != nil {
		h.readBy = *read
	}
	if write != nil {
		h.writeBy = *write
	}
	h.link.wake()
	return nil
}
