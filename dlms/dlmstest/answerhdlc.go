package dlmstest

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// IsHDLC says whether t is a conversation of HDLC frames, after a sign-on or
// without one.
func (t Trace) IsHDLC() bool {
	if signOn, _ := t.signOn(); signOn != nil {
		return true
	}
	return len(t) > 0 && len(t[0].Bytes) > 2 && t[0].Bytes[0] == 0x7E && t[0].Bytes[1]>>4 == 0xA
}

// signOn gives what t begins with of IEC 62056-21: the client's sign-on and the
// meter's identification; nil for none.
func (t Trace) signOn() (asked, identification []byte) {
	if len(t) < 2 || t[0].FromMeter || !t[1].FromMeter ||
		!bytes.HasPrefix(t[0].Bytes, []byte("/?")) || !bytes.HasPrefix(t[1].Bytes, []byte("/")) {
		return nil, nil
	}
	return t[0].Bytes, t[1].Bytes
}

// AnswerHDLC is Answer for a trace of HDLC frames. It serves the meter's
// address in the trace, and any client. In a trace that begins with a sign-on,
// the meter identifies itself as it did there, and takes HDLC without too.
func (t Trace) AnswerHDLC(stream io.ReadWriter, missed func(request []byte)) error {
	server, apdus := t.unframe()
	if len(apdus) == 0 {
		return errors.New("no APDU is in the frames of the trace")
	}
	at := 0 // the step whose answer was given last: blocks follow it
	s := Station{Server: server, Answer: func(_ byte, request []byte) []byte {
		apdu, step := apdus.find(request, at)
		if apdu == nil {
			if missed != nil {
				missed(request)
			}
			return refuse(request)
		}
		at = step
		return apdu
	}}
	asked, identification := t.signOn()
	if asked == nil {
		return s.Serve(stream)
	}
	e := ModeE{Open: true, Identification: strings.TrimRight(string(identification), "\r\n")}
	e.Address, _, _ = strings.Cut(string(asked[len("/?"):]), "!")
	if rate := identification[min(len("/GRX"), len(identification)-1)] - '0'; int(rate) < len(baudRates()) {
		e.Baud = baudRates()[rate]
	}
	return ServeModeE(stream, e, s)
}

// unframe gives the APDUs in the frames of t as a trace of wrapper frames,
// whose headers are empty, and the meter's address.
func (t Trace) unframe() (server []byte, apdus Trace) {
	for _, step := range t {
		body, _, ok := findFrame(step.Bytes)
		if !ok {
			continue
		}
		rest, address := body[2:], []byte(nil)
		for n := range 2 { // destination, source
			size := 1
			for size < len(rest) && rest[size-1]&1 == 0 {
				size++
			}
			if size == len(rest) {
				return nil, nil
			}
			if (n == 0) != step.FromMeter {
				address = rest[:size]
			}
			rest = rest[size:]
		}
		if server = address; rest[0]&1 != 0 || len(rest) < 1+2+2 {
			continue // no I frame
		}
		info := rest[3 : len(rest)-2]
		if llc := []byte{0xE6, 0xE6, 0}; !step.FromMeter {
			info = bytes.TrimPrefix(info, llc)
		} else {
			llc[1] = 0xE7
			info = bytes.TrimPrefix(info, llc)
		}
		if last := len(apdus) - 1; last >= 0 && apdus[last].FromMeter == step.FromMeter {
			apdus[last].Bytes = append(apdus[last].Bytes, info...)
			continue
		}
		apdus = append(apdus, Step{Line: step.Line, FromMeter: step.FromMeter, Bytes: append(make([]byte, headerLen), info...)})
	}
	return server, apdus
}
