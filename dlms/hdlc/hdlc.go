// Package hdlc carries APDUs over serial lines: the data link layer of
// IEC 62056-46, in which the client is the primary station and the meter the
// secondary one, in normal response mode.
//
//	flag         1 octet      7E
//	format       2 octets     1010 S LLL LLLL LLLL: S, more segments follow; L, octets between the flags
//	destination  1, 2 or 4    the last octet has its lowest bit set
//	source       1, 2 or 4
//	control      1            what kind of frame, and its numbers
//	HCS          2            check of all before it; only where information follows
//	information  0 to 2030
//	FCS          2            check of all between the flags, low octet first
//	flag         1            7E; may be the next frame's too
//
// Nothing is stuffed: 7E may stand anywhere in a frame, and the length alone
// says where it ends.
//
//	Frame     one frame                            AppendBinary, ParseFrame
//	Splitter  finds the frames in what comes in
//	Link      SNRM … I and RR … DISC               Connect, Send, Receive, Disconnect
//
//	SNRM →            Connect: both sides start counting at 0
//	     ←  UA        how long, how many at a time
//	I    →            Send: the first segment begins with the LLC header E6E600
//	     ←  I         Receive: the first segment begins with E6E700
//	RR   →            go on
//	     ←  I
//	DISC →            Disconnect
//	     ←  UA or DM
//
// The package keeps no time: the Stream that the caller brings gives up when
// it is told to.
package hdlc

import (
	"errors"
	"fmt"
)

// Limits of frames (IEC 62056-46, 6.4).
const (
	// MaxInfo is the longest information field, in octets.
	MaxInfo = 2030
	// MaxWindow is the most frames that are sent before one is acknowledged.
	MaxWindow = 7

	defaultInfo   = 128
	defaultWindow = 1

	flag       = 0x7E
	formatType = 0xA0 // of the first octet, with segmentBit and the length's high bits
	segmentBit = 0x08
	maxLength  = 1<<11 - 1 // octets between the flags
	minLength  = 2 + 1 + 1 + 1 + 2
	checkLen   = 2
)

// What is wrong with a frame.
var (
	ErrShort   = errors.New("frame cut short")
	ErrFormat  = errors.New("not a frame of format type 3")
	ErrCheck   = errors.New("check sequence is wrong")
	ErrAddress = errors.New("not an address of 1, 2 or 4 octets")
	ErrControl = errors.New("not the kind of frame that was asked for")
)

// What stops a conversation. After any error of a Link but ErrTooLong of Send
// the connection is in doubt: Disconnect, or Connect anew, which starts both
// sides at the beginning.
var (
	// ErrNotConnected says that Connect has to come first.
	ErrNotConnected = errors.New("not connected: no SNRM was answered")
	// ErrDisconnected says that the meter is in disconnected mode (DM): it has
	// forgotten the connection, or does not want one.
	ErrDisconnected = errors.New("the meter is disconnected (DM)")
	// ErrTooLong says that an APDU or an information field is over the limit.
	ErrTooLong = errors.New("longer than agreed")
	// ErrLLC says that an APDU does not begin with the LLC header of a meter.
	ErrLLC = errors.New("no LLC header")
	// ErrParameters says that the parameters of a UA cannot be read.
	ErrParameters = errors.New("parameters cannot be read")
	// ErrSequence says that the meter goes on without getting anywhere.
	ErrSequence = errors.New("out of sequence")
)

// Control is a control field (IEC 62056-46, 6.4.2.4).
type Control byte

// The unnumbered frames, with the poll or final bit set.
const (
	SNRM Control = 0x93 // set normal response mode: connect
	UA   Control = 0x73 // unnumbered acknowledge
	DISC Control = 0x53 // disconnect
	DM   Control = 0x1F // disconnected mode
	FRMR Control = 0x97 // frame reject
	UI   Control = 0x13 // unnumbered information

	pollFinal Control = 0x10
)

// The supervisory frames, without N(R) and the poll bit.
const (
	kindRR  Control = 0x01
	kindRNR Control = 0x05
	kindREJ Control = 0x09
	kindI   Control = 0x00
)

// Information gives the control field of an I frame with that N(S) and N(R).
func Information(ns, nr uint8, poll bool) Control {
	return kindI.with(nr, poll) | Control(ns&7)<<1
}

// ReceiveReady gives the control field of an RR frame with that N(R).
func ReceiveReady(nr uint8, poll bool) Control { return kindRR.with(nr, poll) }

func (c Control) with(nr uint8, poll bool) Control {
	c |= Control(nr&7) << 5
	if poll {
		c |= pollFinal
	}
	return c
}

// Final says whether the poll bit, in an answer the final bit, is set.
func (c Control) Final() bool { return c&pollFinal != 0 }

// kind gives what the frame is: kindI, kindRR, kindRNR, kindREJ, or the
// unnumbered one with the poll bit set.
func (c Control) kind() Control {
	switch {
	case c&1 == 0:
		return kindI
	case c&3 == 1:
		return c & 0x0F
	}
	return c | pollFinal
}

func (c Control) ns() uint8 { return uint8(c>>1) & 7 }

func (c Control) nr() uint8 { return uint8(c>>5) & 7 }

// String names the frame and its numbers: "I N(S)=1 N(R)=2 P/F".
func (c Control) String() string {
	var s string
	switch c.kind() {
	case kindI:
		s = fmt.Sprintf("I N(S)=%d N(R)=%d", c.ns(), c.nr())
	case kindRR:
		s = fmt.Sprintf("RR N(R)=%d", c.nr())
	case kindRNR:
		s = fmt.Sprintf("RNR N(R)=%d", c.nr())
	case kindREJ:
		s = fmt.Sprintf("REJ N(R)=%d", c.nr())
	case SNRM:
		s = "SNRM"
	case UA:
		s = "UA"
	case DISC:
		s = "DISC"
	case DM:
		s = "DM"
	case FRMR:
		s = "FRMR"
	case UI:
		s = "UI"
	default:
		s = fmt.Sprintf("control %02x", byte(c))
	}
	if c.Final() {
		s += " P/F"
	}
	return s
}

// RejectError is a frame that the meter could not do with: FRMR (IEC 62056-46,
// 6.4.3.9). The connection has to be made anew.
type RejectError struct {
	Rejected Control
	// VS and VR are the meter's counters: what it sends and expects next.
	VS, VR uint8
	// Why is a set of reasons: the lowest four bits are W, X, Y and Z.
	Why uint8
}

// The reasons of a RejectError.
const (
	RejectControl  = 1 << 0 // W: the control field is not known
	RejectInfo     = 1 << 1 // X: information where none belongs
	RejectTooLong  = 1 << 2 // Y: the information is longer than agreed
	RejectSequence = 1 << 3 // Z: N(R) acknowledges what was not sent
)

func (e *RejectError) Error() string {
	s := ""
	for i, why := range []string{
		"control field not known", "information where none belongs", "information longer than agreed", "wrong N(R)",
	} {
		if e.Why&(1<<i) != 0 {
			s += ": " + why
		}
	}
	return fmt.Sprintf("the meter rejected a frame (FRMR), %v%s", e.Rejected, s)
}

// parseReject decodes the information of an FRMR; what is missing stays zero.
func parseReject(info []byte) *RejectError {
	var b [3]byte
	copy(b[:], info)
	return &RejectError{Rejected: Control(b[0]), VS: b[1] >> 1 & 7, VR: b[1] >> 5, Why: b[2] & 0x0F}
}
