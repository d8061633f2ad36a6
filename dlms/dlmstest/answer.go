package dlmstest

import (
	"bytes"
	"fmt"
	"io"
)

// Answer serves a stream with the answers of t (a trace of wrapper frames) to
// a client that asks in an order of its own: an association request gets the
// association response of t whatever it proposes, a GET the answer to the GET
// of the same attribute, whatever the rows selected and the invoke id. What t
// has no answer to is refused: a GET with object-undefined, anything else with
// an exception; missed, if not nil, is told. It returns when the client hangs up.
func (t Trace) Answer(stream io.ReadWriter, missed func(request []byte)) error {
	at := 0 // the step whose answer was given last: blocks follow it
	return serveFrames(stream, func(f frame) []byte {
		apdu, step := t.find(f.apdu, at)
		if apdu == nil {
			if missed != nil {
				missed(f.apdu)
			}
			return f.answer(refuse(f.apdu))
		}
		at = step
		return f.answer(apdu)
	})
}

// find gives the answer to a request and its step: the first after step at, or
// else from the start.
func (t Trace) find(request []byte, at int) ([]byte, int) {
	if len(request) == 0 {
		return nil, 0
	}
	for i := range len(t) {
		step := (at + i) % len(t)
		if step+1 >= len(t) || t[step].FromMeter || !t[step+1].FromMeter ||
			len(t[step].Bytes) <= headerLen || len(t[step+1].Bytes) <= headerLen {
			continue
		}
		if !sameRequest(t[step].Bytes[headerLen:], request) {
			continue
		}
		answer := bytes.Clone(t[step+1].Bytes[headerLen:])
		if request[0] == 0xC0 && len(answer) > 2 && answer[0] == 0xC4 && len(request) > 2 {
			answer[2] = request[2] // the invoke id
		}
		return answer, step
	}
	return nil, 0
}

// sameRequest says whether a request is the captured one, as far as Answer
// cares.
func sameRequest(captured, request []byte) bool {
	const getLen = 13 // of a get-request-normal without a selection
	if captured[0] != request[0] {
		return false
	}
	switch request[0] {
	case 0x60: // AARQ
		return true
	case 0xC0: // GET
		if len(captured) < 3 || len(request) < 3 || captured[1] != request[1] {
			return false
		}
		if captured[1] == 1 && len(captured) >= getLen && len(request) >= getLen {
			return bytes.Equal(captured[3:getLen], request[3:getLen])
		}
		return bytes.Equal(captured[3:], request[3:])
	default:
		return bytes.Equal(captured, request)
	}
}

// refuse gives the answer of a meter that does not know what it is asked for.
func refuse(request []byte) []byte {
	if len(request) >= 3 && request[0] == 0xC0 {
		return []byte{0xC4, 1, request[2], 1, byte(ObjectUndefined)}
	}
	return []byte{0xD8, 2, 2} // service unknown, service not supported
}

// Describe gives a request in a few words, for messages.
func Describe(request []byte) string {
	if len(request) >= 12 && request[0] == 0xC0 && request[1] == 1 {
		c := request[5:11]
		return fmt.Sprintf("get %d-%d:%d.%d.%d*%d/%d:%d", c[0], c[1], c[2], c[3], c[4], c[5],
			int(request[3])<<8|int(request[4]), int8(request[11]))
	}
	return fmt.Sprintf("apdu %.16x", request)
}
