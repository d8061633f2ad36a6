package main

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gridgate/internal/cli"
)

// The faults of DLMS meters.
const (
	faultGarbage = "garbage"
	faultSerial  = "serial"
	faultLate    = "late"
	faultDrop    = "drop"
	faultNoise   = "noise"
	faultEcho    = "echo"
	faultSegment = "segment"
	faultFRMR    = "frmr"
	faultSlow    = "slow"
	faultCut     = "cut"
)

func dlmsFaultsHelp() string {
	return `faults, comma separated; the first is the last meter's, the second is of the one before it:
garbage  its answers are none (wrapper)
cut      it does one in -every of what it is told to do or to set, and says nothing (wrapper)
serial   it shows another serial number than the one printed
late     one answer in -every comes 2 s late
drop     one answer in -every does not come
noise    random octets before and behind one frame in -every (hdlc, modee)
echo     what is sent to it comes back first (hdlc, modee)
frmr     it rejects one I frame in -every: the client must connect anew (hdlc, modee)
slow     its answers begin after 1 s, and come 16 octets at a time, 100 ms apart
segment  all it sends comes in pieces of a few octets, 5 ms apart`
}

// checkDLMSFault says whether there is such a fault on the transport.
func checkDLMSFault(fault, transport string) error {
	every := []string{transportWrapper, transportUDP, transportHDLC, transportModeE}
	streams := []string{transportWrapper, transportHDLC, transportModeE}
	frames := []string{transportHDLC, transportModeE}
	on := map[string][]string{
		faultGarbage: {transportWrapper}, faultCut: {transportWrapper},
		faultSerial: every, faultLate: every, faultDrop: every,
		faultSegment: streams, faultSlow: streams,
		faultNoise: frames, faultEcho: frames, faultFRMR: frames,
	}[fault]
	switch {
	case on == nil:
		return cli.Usagef("dlms: -faults: no fault %q: want garbage, serial, late, drop, noise, echo, frmr, slow, segment or cut", fault)
	case !slices.Contains(on, transport):
		return cli.Usagef("dlms: -faults: %s is not of -transport %s; it is of %s", fault, transport, strings.Join(on, ", "))
	}
	return nil
}

const (
	lateness     = 2 * time.Second
	segment      = 5 // octets
	segmentPause = 5 * time.Millisecond

	slowness  = time.Second
	slowPiece = 16 // octets
	slowPause = 100 * time.Millisecond
)

// lineFault spoils what a meter sends. It is safe for concurrent use.
type lineFault struct {
	kind  string
	every int

	mu    sync.Mutex
	count int
}

// now says whether it is time for the fault.
func (f *lineFault) now() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	return f.count%f.every == 0
}

// spoil gives what is sent in place of a frame.
func (f *lineFault) spoil(frame []byte) []part {
	whole := []part{{bytes: frame}}
	if f == nil {
		return whole
	}
	switch f.kind {
	case faultLate:
		if f.now() {
			whole[0].pause = lateness
		}
	case faultDrop:
		if f.now() {
			return nil
		}
	case faultNoise:
		if f.now() {
			return []part{{bytes: noise()}, whole[0], {bytes: noise()}}
		}
	case faultSlow:
		var parts []part
		for piece := range slices.Chunk(frame, slowPiece) {
			parts = append(parts, part{slowPause, piece})
		}
		if len(parts) > 0 {
			parts[0].pause = slowness
		}
		return parts
	case faultSegment:
		var parts []part
		for piece := range slices.Chunk(frame, segment) {
			parts = append(parts, part{segmentPause, piece})
		}
		return parts
	}
	return whole
}

// echoing is a stream that sends back what comes, at once, as a head does that
// hears its own light.
type echoing struct{ io.ReadWriter }

func (e echoing) Read(b []byte) (int, error) {
	n, err := e.ReadWriter.Read(b)
	if n > 0 {
		if _, err := e.ReadWriter.Write(b[:n]); err != nil {
			return n, err
		}
	}
	return n, err
}

func noise() []byte {
	b := make([]byte, 1+rand.IntN(6))
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// faultyLine is a stream that a fault is on.
type faultyLine struct {
	io.ReadWriter
	ctx   context.Context //nolint:containedctx // Write has none
	fault *lineFault
}

func (l faultyLine) Write(frame []byte) (int, error) {
	return len(frame), send(l.ctx, l.ReadWriter, l.fault.spoil(frame))
}

// garbage gives a Tamper that spoils every answer in one of four ways.
func garbage() func(request, frame []byte) []byte {
	var n atomic.Uint32
	return func(_, frame []byte) []byte {
		head := frame[:6]
		switch n.Add(1) % 4 {
		case 0:
			return []byte("HTTP/1.1 400 Bad Request\r\n\r\n") // no wrapper
		case 1:
			return append(head, 0, 4, 0xFF, 0x00, 0x5A, 0xA5) // a wrapper, and no APDU in it
		case 2:
			return append(head, 0xFF, 0xFF, 0xC4) // longer than any APDU
		default:
			return append([]byte{0x7E, 0xA0}, frame...) // out of step
		}
	}
}
