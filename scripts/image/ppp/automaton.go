package ppp

import (
	"bytes"
	"strings"
	"time"
)

// state is one of RFC 1661, 4.2, in the order of its table.
type state uint8

const (
	initial state = iota
	starting
	closed
	stopped
	closing
	stopping
	reqSent
	ackRcvd
	ackSent
	opened
)

// event is one of RFC 1661, 4.3.
type event uint8

const (
	evUp event = iota
	evDown
	evOpen
	evClose
	evTimeout // with tries left: TO+
	evGiveUp  // without: TO-
	evReqGood
	evReqBad
	evAck
	evNak
	evTermReq
	evTermAck
	evUnknown
	evRejGood
	evRejBad
	evEcho
)

// transitions is the table of RFC 1661, 4.1, cell by cell: actions and the next
// state. An empty cell cannot happen, and nothing is done.
var transitions = [...][10]string{ //nolint:gochecknoglobals // a constant table
	//          initial  starting     closed       stopped          closing  stopping reqSent        ackRcvd        ackSent        opened
	evUp:      {"2", "irc,scr/6", "", "", "", "", "", "", "", ""},
	evDown:    {"", "", "0", "tls/1", "0", "1", "1", "1", "1", "tld/1"},
	evOpen:    {"tls/1", "1", "irc,scr/6", "3", "5", "5", "6", "7", "8", "9"},
	evClose:   {"0", "tlf/0", "2", "2", "4", "4", "irc,str/4", "irc,str/4", "irc,str/4", "tld,irc,str/4"},
	evTimeout: {"", "", "", "", "str/4", "str/5", "scr/6", "scr/6", "scr/8", ""},
	evGiveUp:  {"", "", "", "", "tlf/2", "tlf/3", "tlf/3", "tlf/3", "tlf/3", ""},
	evReqGood: {"", "", "sta/2", "irc,scr,sca/8", "4", "5", "sca/8", "sca,tlu/9", "sca/8", "tld,scr,sca/8"},
	evReqBad:  {"", "", "sta/2", "irc,scr,scn/6", "4", "5", "scn/6", "scn/7", "scn/6", "tld,scr,scn/6"},
	evAck:     {"", "", "sta/2", "sta/3", "4", "5", "irc/7", "scr/6", "irc,tlu/9", "tld,scr/6"},
	evNak:     {"", "", "sta/2", "sta/3", "4", "5", "irc,scr/6", "scr/6", "irc,scr/8", "tld,scr/6"},
	evTermReq: {"", "", "sta/2", "sta/3", "sta/4", "sta/5", "sta/6", "sta/6", "sta/6", "tld,zrc,sta/5"},
	evTermAck: {"", "", "2", "3", "tlf/2", "tlf/3", "6", "6", "8", "tld,scr/6"},
	evUnknown: {"", "", "scj/2", "scj/3", "scj/4", "scj/5", "scj/6", "scj/7", "scj/8", "scj/9"},
	evRejGood: {"", "", "2", "3", "4", "5", "6", "6", "8", "9"},
	evRejBad:  {"", "", "tlf/2", "tlf/3", "tlf/2", "tlf/3", "tlf/3", "tlf/3", "tlf/3", "tld,irc,str/5"},
	evEcho:    {"", "", "2", "3", "4", "5", "6", "7", "8", "ser/9"},
}

// Timers and counters (RFC 1661, 4.6), and how often a request is answered with
// Nak before it is with Reject.
const (
	restartTime  = 3 * time.Second
	maxConfigure = 10
	maxTerminate = 2
	maxFailure   = 5
)

// protocol is what an automaton negotiates.
type protocol interface {
	// request gives the options of the next Configure-Request.
	request() []option
	// judge answers those of the peer: confAck, or confNak or confRej with the options
	// that they are about. final: no more Nak, Reject what cannot be accepted.
	judge(all []option, final bool) (code byte, answer []option)
	// accept takes note of what was judged good, and is being acknowledged.
	accept(all []option)
	// refused changes the next request by a Nak or a Reject of the last one.
	refused(code byte, all []option)
	up()
	down()
	finished()
	// rejected is a Code-Reject of a code; false: without it nothing goes.
	rejected(code byte) bool
	// other takes packets beyond the seven codes that all protocols have; false: it has
	// no such code.
	other(p packet) bool
}

// automaton is the option negotiation automaton of RFC 1661, 4.
type automaton struct {
	proto uint16
	p     protocol
	send  func(frame []byte)
	mru   func() int // of the peer: what is sent back is cut to it

	state    state
	due      time.Time // of the restart timer; zero: it does not run
	tries    int       // the restart counter
	naks     int       // in a row
	id       byte      // of the last packet that asks
	reqID    byte      // of the last Configure-Request
	asked    []byte    // its options
	answered bool      // a second answer to it is none
}

// cause is what an action may need of the packet that led to it.
type cause struct {
	now    time.Time
	in     packet
	code   byte     // of the answer to a request
	answer []option // and its options
}

func (a *automaton) do(e event, c cause) {
	cell := transitions[e][a.state]
	if cell == "" {
		return
	}
	actions, next, found := strings.Cut(cell, "/")
	if !found {
		actions, next = "", actions
	}
	// A new state first: what is told of it may lead to the next event.
	a.state = state(next[0] - '0')
	if a.state < closing || a.state == opened {
		a.due = time.Time{}
	}
	if actions == "" {
		return
	}
	if strings.HasPrefix(actions, "irc") || strings.Contains(actions, ",irc") {
		a.tries = maxConfigure
		if strings.HasSuffix(actions, "str") {
			a.tries = maxTerminate
		}
	}
	for action := range strings.SplitSeq(actions, ",") {
		a.act(action, e, c)
	}
}

func (a *automaton) act(action string, e event, c cause) {
	switch action {
	case "tlu":
		a.naks = 0
		a.p.up()
	case "tld":
		a.p.down()
	case "tlf":
		a.p.finished()
	case "zrc":
		a.tries, a.due = 0, c.now.Add(restartTime)
	case "scr":
		if e != evTimeout { // a repetition is the same
			a.id++
			a.reqID, a.asked = a.id, appendOptions(nil, a.p.request())
		}
		a.answered = false
		a.ask(packet{confReq, a.reqID, a.asked}, c.now)
	case "str":
		a.id++
		a.ask(packet{termReq, a.id, nil}, c.now)
	case "sca", "scn":
		a.tell(packet{c.code, c.in.id, appendOptions(nil, c.answer)})
	case "sta":
		id := c.in.id
		if e == evAck || e == evNak {
			id = a.id
		}
		a.tell(packet{termAck, id, nil})
	case "scj":
		a.id++
		a.tell(packet{codeRej, a.id, clip(c.in.frame(0)[2:], a.mru()-headLen)})
	case "ser":
		a.p.other(c.in)
	default: // irc is done, tls says nothing that is not known
	}
}

func (a *automaton) tell(p packet) { a.send(p.frame(a.proto)) }

// ask sends what wants an answer.
func (a *automaton) ask(p packet, now time.Time) {
	a.tries--
	a.due = now.Add(restartTime)
	a.tell(p)
}

func clip(b []byte, n int) []byte { return b[:min(len(b), max(n, 0))] }

// tick lets the restart timer run out where it is due.
func (a *automaton) tick(now time.Time) {
	if a.due.IsZero() || now.Before(a.due) {
		return
	}
	a.due = time.Time{}
	if a.tries > 0 {
		a.do(evTimeout, cause{now: now})
	} else {
		a.do(evGiveUp, cause{now: now})
	}
}

// receive takes a packet of the protocol.
func (a *automaton) receive(now time.Time, in packet) {
	if a.state <= starting { // the layer below is down
		return
	}
	c := cause{now: now, in: in}
	switch in.code {
	case confReq:
		a.requested(c)
	case confAck, confNak, confRej:
		a.answer(c)
	case termReq:
		a.do(evTermReq, c)
	case termAck:
		a.do(evTermAck, c)
	case codeRej:
		if len(in.data) > 0 && !a.p.rejected(in.data[0]) {
			a.do(evRejBad, c)
		} else {
			a.do(evRejGood, c)
		}
	case echoReq, echoReply, discardReq, protoRej:
		if a.proto != protoLCP {
			a.do(evUnknown, c)
		} else if in.code == echoReq {
			a.do(evEcho, c)
		} else {
			a.p.other(in)
		}
	default:
		a.do(evUnknown, c)
	}
}

func (a *automaton) requested(c cause) {
	all, ok := parseOptions(c.in.data)
	if !ok {
		return
	}
	if a.state < stopped || a.state == closing || a.state == stopping {
		a.do(evReqGood, c) // whatever it asks
		return
	}
	c.code, c.answer = a.p.judge(all, a.naks >= maxFailure)
	if c.code == confAck {
		a.p.accept(all)
		a.do(evReqGood, c)
		return
	}
	if c.code == confNak {
		a.naks++
	}
	a.do(evReqBad, c)
}

// answer is one to a Configure-Request of ours. What answers another request, or
// one a second time, is dropped: a doubled frame must not end a link.
func (a *automaton) answer(c cause) {
	if c.in.id != a.reqID || a.answered || a.state < reqSent {
		if a.state < reqSent {
			a.do(evAck, c)
		}
		return
	}
	if c.in.code == confAck {
		if bytes.Equal(c.in.data, a.asked) {
			a.answered = true
			a.do(evAck, c)
		}
		return
	}
	all, ok := parseOptions(c.in.data)
	if !ok {
		return
	}
	a.answered = true
	a.p.refused(c.in.code, all)
	a.do(evNak, c)
}
