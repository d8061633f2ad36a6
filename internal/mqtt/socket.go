package mqtt

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxQueued is how many bytes may wait for the network. Publish waits
	// below publishRoom; what may fill the rest is acknowledgements and pings,
	// and then the peer has long stopped reading.
	maxQueued   = 1 << 20
	publishRoom = 64 << 10
	// piece is how much goes into one write, and so into one write deadline:
	// 2 KiB in 15 s is 1 kbit/s, slower than any link that is still useful.
	piece = 2 << 10
	// readAhead is how much is taken from the network at a time.
	readAhead = 1 << 10
	// flushTime is how long Close waits for what is still queued.
	flushTime = time.Second
)

var (
	errQueueFull = errors.New("the broker takes no more data")
	errAborted   = errors.New("connection given up")
)

// socket stands between the MQTT library and the network connection. Its
// Write only queues, and one goroutine writes, so that no caller is ever held
// up by the network and no write lacks a deadline. (The library writes pings,
// subscriptions and acknowledgements without one, from goroutines that must
// come to an end.) What comes in is checked before the library sees it.
//
// The network connection is closed by the writing goroutine and by nobody
// else, after a flush when Close was called, at once after abort.
type socket struct {
	net.Conn
	writeTimeout time.Duration
	inbound      frames // of the reader alone, as are those that follow
	ahead        []byte // for what the network gives: the library reads byte by byte
	in           []byte // that the library has not read yet, of passed
	passed       []byte
	late         error         // comes after that
	asked        atomic.Int32  // filters of the last SUBSCRIBE
	announce     uint16        // keep-alive to write into the CONNECT, in seconds; 0 leaves it; under mu
	stopped      chan struct{} // closed when the writing goroutine has ended

	kick chan struct{} // has room for one: something for the writing goroutine

	said, heard atomic.Int64 // when the network last took or gave something, in nanoseconds
	amid        atomic.Int64 // when it last gave a part of a message whose end had not come

	mu      sync.Mutex
	pong    chan struct{} // closed and replaced at a PINGRESP
	queue   []byte
	closeBy time.Time     // set by Close: when the flush must be over
	err     error         // why it was aborted
	broken  error         // what Read met
	ended   chan struct{} // closed when it did
	room    chan struct{} // closed and replaced when the queue shrinks
}

// newSocket takes nc over and starts the writing goroutine, which ends after
// Close or abort; wait for stopped.
func newSocket(nc net.Conn, writeTimeout time.Duration, maxInbound int, cut bool) *socket {
	s := &socket{
		Conn: nc, ahead: make([]byte, readAhead), writeTimeout: writeTimeout, inbound: frames{max: maxInbound, cut: cut},
		stopped: make(chan struct{}), kick: make(chan struct{}, 1), room: make(chan struct{}), pong: make(chan struct{}), ended: make(chan struct{}),
	}
	s.said.Store(time.Now().UnixNano())
	s.heard.Store(time.Now().UnixNano())
	go s.writeLoop()
	return s
}

func (s *socket) writeLoop() {
	defer close(s.stopped)
	for {
		data, end := s.next()
		if end {
			s.shut()
			return
		}
		if len(data) == 0 {
			<-s.kick
			continue
		}
		n, err := s.Conn.Write(data)
		if n > 0 {
			s.said.Store(time.Now().UnixNano())
		}
		s.mu.Lock()
		s.queue = s.queue[n:]
		close(s.room)
		s.room = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			s.lastWords(err)
			s.abort(fmt.Errorf("write: %w", err))
		}
	}
}

// lastWords lets the reader have what the broker sent before it closed the
// connection: an alert of TLS says why it did.
func (s *socket) lastWords(err error) {
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return
	}
	limit := time.NewTimer(flushTime)
	defer limit.Stop()
	select {
	case <-s.ended:
	case <-limit.C:
	}
}

// next gives what to write next, and sets the deadline for it; end says that
// all is done. The deadline is set under the lock, so that abort and Close can
// shorten it.
func (s *socket) next() (data []byte, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || !s.closeBy.IsZero() && len(s.queue) == 0 {
		return nil, true
	}
	if data = s.queue[:min(len(s.queue), piece)]; len(data) == 0 {
		return nil, false
	}
	deadline := time.Now().Add(s.writeTimeout)
	if !s.closeBy.IsZero() && s.closeBy.Before(deadline) {
		deadline = s.closeBy
	}
	_ = s.Conn.SetWriteDeadline(deadline) // a dead connection says so in Write
	return data, false
}

// shut closes the network connection.
func (s *socket) shut() {
	if secure, ok := s.Conn.(*tls.Conn); ok && s.reason() != nil {
		_ = secure.NetConn().Close() // tls.Conn.Close would try to say goodbye
		return
	}
	_ = s.Conn.Close()
}

func (s *socket) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// abort closes the connection without a flush. The reader gets reason, and so
// does the library, which takes a closed connection for its own doing and
// would say nothing.
func (s *socket) abort(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = reason
	s.wake()
	// What blocks is ended by a deadline in the past; the writing goroutine
	// then closes.
	_ = s.Conn.SetDeadline(past())
}

// reason gives why the socket was aborted, nil when it was not.
func (s *socket) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close lets the writing goroutine send what is queued and close.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closeBy.IsZero() && s.err == nil {
		s.closeBy = time.Now().Add(flushTime)
		s.wake()
		_ = s.Conn.SetReadDeadline(past())
		_ = s.Conn.SetWriteDeadline(s.closeBy)
	}
	return nil
}

// past is a deadline that is over, in simulated time too.
func past() time.Time { return time.Unix(1, 0) }

// Write queues all of p, or fails. It never blocks.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return 0, s.err
	case !s.closeBy.IsZero():
		return 0, net.ErrClosed
	case len(s.queue)+len(p) > maxQueued:
		return 0, errQueueFull
	}
	from := len(s.queue)
	s.queue = append(s.queue, p...)
	if s.announce > 0 {
		announce(s.queue[from:], s.announce)
		s.announce = 0
	}
	s.wake()
	return len(p), nil
}

// announce writes a keep-alive into a CONNECT (MQTT 3.1.1, 3.1.2).
func announce(connect []byte, seconds uint16) {
	at := 1
	for at < len(connect) && connect[at]&0x80 != 0 { // the length
		at++
	}
	at += 1 + 6 + 1 + 1 // protocol name, level, flags
	if len(connect) >= at+2 && connect[0] == 0x10 {
		binary.BigEndian.PutUint16(connect[at:], seconds)
	}
}

// ping asks the broker for a sign of life, and gives what is closed when it
// comes.
func (s *socket) ping() <-chan struct{} {
	s.mu.Lock()
	pong := s.pong
	s.mu.Unlock()
	_, _ = s.Write([]byte{0xC0, 0}) // a socket that takes nothing is ending, and says so itself
	return pong
}

// queued gives the bytes that wait to be written, and a channel that is closed
// when they have become fewer.
func (s *socket) queued() (int, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue), s.room
}

func (s *socket) Read(p []byte) (int, error) {
	for len(s.in) == 0 && s.late == nil {
		s.late = s.take()
	}
	if len(s.in) > 0 {
		n := copy(p, s.in)
		s.in = s.in[n:]
		return n, nil
	}
	err := s.late
	s.late = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return 0, s.err
	case !s.closeBy.IsZero():
		return 0, net.ErrClosed
	}
	if s.broken == nil {
		close(s.ended)
	}
	s.broken = err
	return 0, err
}

// take takes what the network gives next, as far as the library may see it.
func (s *socket) take() error {
	n, err := s.Conn.Read(s.ahead)
	if n == 0 {
		return err
	}
	s.heard.Store(time.Now().UnixNano())
	s.inbound.asked = int(s.asked.Load())
	pongs := s.inbound.pongs
	var wrong error
	s.passed, wrong = s.inbound.pass(s.passed[:0], s.ahead[:n])
	s.in = s.passed
	if s.inbound.head < 0 {
		s.amid.Store(s.heard.Load())
	}
	if s.inbound.pongs != pongs {
		s.mu.Lock()
		close(s.pong)
		s.pong = make(chan struct{})
		s.mu.Unlock()
	}
	if wrong != nil {
		return wrong
	}
	return err
}

// cause gives what Read met, if anything, instead of what the library made of
// it.
func (s *socket) cause(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	return err
}

// SetDeadline sets the read deadline. Writes have their own.
func (s *socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline does nothing once the socket is ending.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || !s.closeBy.IsZero() {
		return nil
	}
	return s.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing: writes have their own deadline.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }
