package ppp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

var errNoNetwork = errors.New("the peer negotiates no addresses (IPCP)")

// Config is what a Session works with. All but User and Password are needed.
type Config struct {
	User, Password string
	Random         func() uint32
	// Send takes a frame; it must not call the session.
	Send func(frame []byte)
	// Linked is told how the peer wants to be sent to: the octets to be escaped, and how
	// long a packet may be.
	Linked func(accm uint32, mru int)
	// Up and Down are told of the network; Down only after Up.
	Up   func(Network)
	Down func()
}

// Times of a session.
const (
	echoEvery = 15 * time.Second
	echoMost  = 4 // without an answer
	// wholeTime is how long a connection may take to have an address: each step has its
	// own limit, but a peer may talk forever.
	wholeTime = 90 * time.Second
)

// Session is one connection, from the first Configure-Request to the end. It is not
// safe for concurrent use, and waits for nothing itself: Receive is called with what
// arrives, and Tick when Next is reached.
type Session struct {
	user, password string
	c              Config

	link *lcp
	net  *ipcp
	lcp  automaton
	ipcp automaton
	auth auth
	echo struct {
		off      bool
		answered bool // the peer answers them
		pending  int
		id       byte
		due      time.Time
	}

	now    time.Time // of the call that is at work
	whole  time.Time // there has to be a network by then; zero: there is
	isUp   bool
	hangUp bool  // when the call that is at work is done
	why    error // the first that was noted
	over   bool
}

// NewSession gives a session that has sent its first request.
func NewSession(c Config, now time.Time) *Session {
	s := &Session{user: c.User, password: c.Password, c: c, now: now, whole: now.Add(wholeTime)}
	s.link = &lcp{s: s, askACCM: true, askMagic: true, magic: s.random(), peer: unasked()}
	s.net = newIPCP(s)
	s.auth.s = s
	mru := func() int { return s.link.peer.mru }
	s.lcp = automaton{proto: protoLCP, p: s.link, send: s.send, mru: mru}
	s.ipcp = automaton{proto: protoIPCP, p: s.net, send: s.send, mru: mru}
	s.lcp.do(evOpen, cause{now: now})
	s.ipcp.do(evOpen, cause{now: now})
	s.lcp.do(evUp, cause{now: now})
	return s
}

// Done says that the session is over, and why; nil is that Close was called.
func (s *Session) Done() (bool, error) { return s.over, s.why }

// Next gives when Tick is to be called; the zero time is never.
func (s *Session) Next() time.Time {
	var first time.Time
	for _, t := range []time.Time{s.lcp.due, s.ipcp.due, s.auth.due, s.echo.due, s.whole} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Tick does what is due.
func (s *Session) Tick(now time.Time) {
	if s.over {
		return
	}
	s.now = now
	if !s.whole.IsZero() && !now.Before(s.whole) {
		s.whole = time.Time{}
		s.terminate(now, fmt.Errorf("no address after %s", wholeTime))
	}
	s.lcp.tick(now)
	s.ipcp.tick(now)
	s.auth.tick(now)
	s.ping(now)
	s.settle(now)
}

// Close ends the session by Terminate; Done says when it is over.
func (s *Session) Close(now time.Time) {
	s.now = now
	s.terminate(now, nil)
}

// Lost ends the session at once: there is no line any more.
func (s *Session) Lost(err error) {
	s.note(err)
	s.end(err)
}

// Receive takes a frame. What is malformed is dropped.
func (s *Session) Receive(now time.Time, frame []byte) {
	if s.over || len(frame) < 2 {
		return
	}
	s.now = now
	s.dispatch(now, binary.BigEndian.Uint16(frame), frame)
	s.settle(now)
}

func (s *Session) dispatch(now time.Time, proto uint16, frame []byte) {
	p, ok := parsePacket(frame[2:])
	switch {
	case proto == protoLCP:
		if ok {
			if p.code == termReq && s.lcp.state == opened {
				s.note(ended(p.data))
			}
			s.lcp.receive(now, p)
		}
	case s.lcp.state != opened: // RFC 1661, 3.4
	case proto == protoPAP || proto == protoCHAP:
		if ok {
			s.auth.receive(now, proto, p)
		}
	case proto == protoIPCP:
		if ok && (s.auth.proto == 0 || s.auth.done) {
			s.ipcp.receive(now, p)
		}
	default:
		s.lcp.id++
		s.lcp.tell(packet{protoRej, s.lcp.id, clip(frame, s.link.peer.mru-headLen)})
	}
}

// ended is what a peer says that ends the link.
func ended(text []byte) error {
	if len(text) == 0 {
		return errEnded
	}
	return fmt.Errorf("%w: %s", errEnded, printable(text))
}

// settle hangs up where that was found necessary in the middle of an event.
func (s *Session) settle(now time.Time) {
	if s.hangUp && !s.over {
		s.hangUp = false
		s.terminate(now, s.why)
	}
}

func (s *Session) send(frame []byte) {
	if !s.over {
		s.c.Send(frame)
	}
}

func (s *Session) random() uint32 { return s.c.Random() }

func (s *Session) note(err error) {
	if s.why == nil {
		s.why = err
	}
}

// end is the end: nothing is sent after it.
func (s *Session) end(err error) {
	if s.over {
		return
	}
	if s.lcp.state != closed { // closed is our own wish
		s.note(err)
	}
	s.over = true
	s.netDown()
}

// terminate asks the peer to end the link, and gives the reason to be told.
func (s *Session) terminate(now time.Time, err error) {
	if err != nil {
		s.note(err)
	}
	s.whole = time.Time{}
	s.lcp.do(evClose, cause{now: now})
}

// linkUp is LCP's: the peer authenticates us now, or there is nothing to prove.
func (s *Session) linkUp() {
	s.c.Linked(s.link.peer.accm, s.link.peer.mru)
	s.echo.pending, s.echo.due = 0, s.now.Add(restartTime)
	if s.link.peer.auth != 0 {
		s.auth.start(s.now, s.link.peer.auth)
		return
	}
	s.auth.stop()
	s.network(s.now)
}

func (s *Session) linkDown() {
	s.echo.due = time.Time{}
	s.auth.stop()
	s.ipcp.do(evDown, cause{now: s.now})
}

func (s *Session) network(now time.Time) { s.ipcp.do(evUp, cause{now: now}) }

func (s *Session) netUp(n Network) {
	s.whole = time.Time{}
	s.why = nil // what went wrong on the way
	s.isUp = true
	s.c.Up(n)
}

func (s *Session) netDown() {
	if s.isUp {
		s.isUp = false
		if !s.over {
			s.whole = s.now.Add(wholeTime)
		}
		s.c.Down()
	}
}

// ping asks whether the peer is still there. One that never answers, as some modems,
// is not judged by it.
func (s *Session) ping(now time.Time) {
	if s.echo.due.IsZero() || now.Before(s.echo.due) {
		return
	}
	if s.echo.off {
		s.echo.due = time.Time{}
		return
	}
	if s.echo.pending >= echoMost && s.echo.answered {
		s.note(fmt.Errorf("the peer has not answered %d echo requests", echoMost))
		s.end(s.why)
		return
	}
	s.echo.pending++
	s.echo.id++
	s.echo.due = now.Add(echoEvery)
	s.lcp.tell(packet{echoReq, s.echo.id, binary.BigEndian.AppendUint32(nil, s.link.ownMagic())})
}

// echoed takes an answer. Our own magic in it is our own request that came back, or a
// modem that knows no better: it counts as none.
func (s *Session) echoed(p packet) {
	if len(p.data) < 4 || s.lcp.state != opened {
		return
	}
	if magic := binary.BigEndian.Uint32(p.data); !s.link.askMagic || magic != s.link.magic {
		s.echo.pending, s.echo.answered = 0, true
	}
}

// protocolRejected is a Protocol-Reject of the peer's.
func (s *Session) protocolRejected(p packet) {
	if len(p.data) < 2 || s.lcp.state != opened {
		return
	}
	switch proto := binary.BigEndian.Uint16(p.data); {
	case proto == protoIPCP:
		s.ipcp.do(evRejBad, cause{now: s.now})
	case proto == protoLCP, proto == s.auth.proto && !s.auth.done:
		s.note(fmt.Errorf("the peer rejects protocol %04x, which it has to know", proto))
		s.hangUp = true
	default: // nothing else is sent
	}
}
