package ppp

import (
	"crypto/md5" //nolint:gosec // it is what CHAP is made of
	"fmt"
	"strings"
	"time"
)

// Codes of PAP (RFC 1334, 2.2) and of CHAP (RFC 1994, 4).
const (
	papRequest = 1
	papAck     = 2
	papNak     = 3

	chapChallenge = 1
	chapResponse  = 2
	chapSuccess   = 3
	chapFailure   = 4
)

// RefusedError says that the peer did not take the name or the password.
type RefusedError struct{ By, Message string }

func (e *RefusedError) Error() string {
	text := "the peer refuses user and password (" + e.By + ")"
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// auth proves to the peer who we are, as it asks.
type auth struct {
	s     *Session
	proto uint16 // 0: not now
	done  bool
	id    byte
	first byte   // of PAP's identifiers since the link came up
	last  []byte // frame that waits for an answer
	tries int
	due   time.Time
}

func (a *auth) start(now time.Time, proto uint16) {
	*a = auth{s: a.s, id: a.id, first: a.id + 1, proto: proto, tries: maxConfigure, due: now.Add(restartTime)}
	if proto == protoPAP {
		a.request(now)
	}
}

func (a *auth) stop() { a.proto, a.done, a.due = 0, false, time.Time{} }

// request is PAP's. Each has an identifier of its own (RFC 1334, 2.2.1).
func (a *auth) request(now time.Time) {
	a.id++
	user, password := clip([]byte(a.s.user), 255), clip([]byte(a.s.password), 255)
	data := append([]byte{byte(len(user))}, user...)
	data = append(data, byte(len(password)))
	a.last = packet{papRequest, a.id, append(data, password...)}.frame(protoPAP)
	a.again(now)
}

func (a *auth) again(now time.Time) {
	a.tries--
	a.due = now.Add(restartTime)
	a.s.send(a.last)
}

func (a *auth) tick(now time.Time) {
	if a.due.IsZero() || now.Before(a.due) {
		return
	}
	switch {
	case a.tries <= 0:
		a.due = time.Time{}
		a.s.terminate(now, fmt.Errorf("the peer does not answer %s", a.name()))
	case a.proto == protoPAP:
		a.request(now)
	case a.last == nil: // no challenge yet
		a.tries--
		a.due = now.Add(restartTime)
	default:
		// A Success that was lost comes again for the same response (RFC 1994, 4.2).
		a.again(now)
	}
}

func (a *auth) name() string {
	if a.proto == protoPAP {
		return "PAP"
	}
	return "CHAP"
}

func (a *auth) receive(now time.Time, proto uint16, p packet) {
	if proto != a.proto {
		return
	}
	if proto == protoPAP {
		// The answer to an earlier request is one, since this link came up; the first counts.
		if ours := p.id-a.first <= a.id-a.first; ours && !a.done && (p.code == papAck || p.code == papNak) {
			a.judged(now, p.code == papAck, papMessage(p.data))
		}
		return
	}
	switch p.code {
	case chapChallenge: // at any time, again and again
		if len(p.data) < 1 || len(p.data) < 1+int(p.data[0]) || p.data[0] == 0 {
			return
		}
		h := md5.New() //nolint:gosec // RFC 1994, 4.1
		h.Write([]byte{p.id})
		h.Write([]byte(a.s.password))
		h.Write(p.data[1 : 1+p.data[0]])
		data := append([]byte{md5.Size}, h.Sum(nil)...)
		a.id, a.last = p.id, packet{chapResponse, p.id, append(data, a.s.user...)}.frame(protoCHAP)
		if a.done { // nobody waits for a Success then
			a.s.send(a.last)
			return
		}
		a.tries = maxConfigure
		a.again(now)
	case chapSuccess, chapFailure:
		if p.id == a.id && a.last != nil {
			a.judged(now, p.code == chapSuccess, p.data)
		}
	}
}

// papMessage is behind its length, which some leave out.
func papMessage(b []byte) []byte {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil
	}
	return b[1 : 1+b[0]]
}

func (a *auth) judged(now time.Time, good bool, message []byte) {
	a.due = time.Time{}
	if !good {
		a.s.terminate(now, &RefusedError{a.name(), printable(message)})
		return
	}
	if !a.done {
		a.done = true
		a.s.network(now)
	}
}

// printable is text of the peer's that may go to a console.
func printable(b []byte) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, strings.TrimSpace(string(clip(b, 120))))
}
