package sniff

import (
	"encoding/binary"
	"errors"
	"fmt"

	"gridgate/dlms/hdlc"
)

// dlmsTalk is what is remembered of conversations of DLMS: the segments of long
// information fields.
type dlmsTalk struct {
	segments map[string][]byte // by addresses
}

const (
	maxSegments   = 64 << 10 // octets that are put together
	maxTalkers    = 64
	wrapperHead   = 8
	maxWrapperAPU = 32 << 10
)

// hdlcFrame finds a frame of HDLC whose checks are right.
func hdlcFrame(b []byte) (int, verdict) {
	if b[0] != 0x7E {
		return 0, none
	}
	if len(b) < 3 {
		return 0, partial
	}
	length := int(b[1]&7)<<8 | int(b[2])
	if b[1]&0xF0 != 0xA0 || length < 7 {
		return 0, none
	}
	v := hdlcHeader(b[:min(len(b), length+1)], length)
	if v == none || len(b) < length+2 {
		return 0, v
	}
	if _, err := hdlc.ParseFrame(b[:length+2]); err != nil {
		return 0, none
	}
	return length + 2, whole
}

// hdlcHeader says whether a frame may begin with b: two addresses, a control field,
// and behind them the check of the header, where information follows.
func hdlcHeader(b []byte, length int) verdict {
	rest := b[3:]
	for range 2 {
		var err error
		if _, rest, err = hdlc.ParseAddress(rest); errors.Is(err, hdlc.ErrShort) {
			return partial
		} else if err != nil {
			return none
		}
	}
	const checks = 3 // the control field and one check
	if len(rest) < checks {
		return partial
	}
	head := len(b) - len(rest) + checks
	switch {
	case head == length+1: // no information: the check is that of the frame
		return partial
	case head > length+1 || !fcsGood(b[1:head]):
		return none
	}
	return firm
}

// fcsGood says whether b ends with the check of what is before (CRC-16/X.25).
func fcsGood(b []byte) bool {
	sum := uint16(0xFFFF)
	for _, c := range b[:len(b)-2] {
		sum ^= uint16(c)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ 0x8408
			} else {
				sum >>= 1
			}
		}
	}
	return ^sum == binary.LittleEndian.Uint16(b[len(b)-2:])
}

func (t *dlmsTalk) hdlc(f *Frame) {
	frame, err := hdlc.ParseFrame(f.Octets)
	if err != nil { // never: it was found whole
		f.Bad, f.Text = true, err.Error()
		return
	}
	toMeter := false
	switch {
	case f.From != AnyDirection:
		toMeter = f.From == FromMaster
	case frame.Control == hdlc.SNRM || frame.Control == hdlc.DISC:
		toMeter = true
	case frame.Control == hdlc.UA || frame.Control == hdlc.DM || frame.Control == hdlc.FRMR:
	case frame.Destination.Size > frame.Source.Size:
		toMeter = true
	case len(frame.Info) > 2 && frame.Info[0] == 0xE6:
		toMeter = frame.Info[1] == 0xE6
	default:
		// In one octet each: clients have the higher numbers, as a rule.
		toMeter = frame.Source.Upper > frame.Destination.Upper
	}
	f.From = FromMeter
	if toMeter {
		f.From = FromMaster
	}
	f.Text = fmt.Sprintf("%v→%v %v", frame.Source, frame.Destination, frame.Control)
	f.Bad = frame.Control == hdlc.DM || frame.Control == hdlc.FRMR
	t.information(f, frame)
}

// information tells of what a frame carries.
func (t *dlmsTalk) information(f *Frame, frame hdlc.Frame) {
	if len(frame.Info) == 0 {
		return
	}
	isData := frame.Control&1 == 0 || frame.Control|0x10 == hdlc.UI
	if !isData {
		f.Text += linkInformation(frame)
		return
	}
	key := fmt.Sprintf("%v %v", frame.Source, frame.Destination)
	if t.segments == nil || len(t.segments) > maxTalkers {
		t.segments = map[string][]byte{}
	}
	all := append(t.segments[key], frame.Info...)
	if frame.Segmented && len(all) <= maxSegments {
		t.segments[key] = all
		f.Text += fmt.Sprintf(" segment of %d octets, %d so far", len(frame.Info), len(all))
		return
	}
	delete(t.segments, key)
	if len(all) < 3 || all[0] != 0xE6 {
		f.Text += fmt.Sprintf(" %d octets without LLC header: %s", len(all), octets(all))
		return
	}
	if len(all) > len(frame.Info) {
		f.Text += fmt.Sprintf(" %d octets in all:", len(all))
	}
	a := describe(all[3:])
	f.Text += " " + a.text
	f.Bad, f.Secret = f.Bad || a.bad, a.secret
}

// linkInformation tells what was agreed on in SNRM and UA (IEC 62056-46, 6.4.4.4.3.2).
func linkInformation(frame hdlc.Frame) string {
	p, err := hdlc.ParseParameters(frame.Info)
	if err != nil || frame.Control != hdlc.SNRM && frame.Control != hdlc.UA {
		return ": " + octets(frame.Info)
	}
	return fmt.Sprintf(" information field %d out, %d in, window %d out, %d in", p.MaxInfoTx, p.MaxInfoRx, p.WindowTx, p.WindowRx)
}

// wrapperFrame finds an APDU with its wrapper (IEC 62056-47).
func wrapperFrame(b []byte) (int, verdict) {
	if len(b) < wrapperHead+1 {
		if len(b) >= 2 && (b[0] != 0 || b[1] != 1) {
			return 0, none
		}
		return 0, partial
	}
	length := int(binary.BigEndian.Uint16(b[6:]))
	if b[0] != 0 || b[1] != 1 || length == 0 || length > maxWrapperAPU || apduName(b[wrapperHead]) == "" {
		return 0, none
	}
	if len(b) < wrapperHead+length {
		return 0, firm
	}
	return wrapperHead + length, whole
}

func (t *dlmsTalk) wrapped(f *Frame) {
	b := f.Octets
	from, to := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:])
	a := describe(b[wrapperHead:])
	if f.From == AnyDirection {
		f.From = FromMeter
		if a.request {
			f.From = FromMaster
		}
	}
	f.Text = fmt.Sprintf("%d→%d %s", from, to, a.text)
	f.Bad, f.Secret = a.bad, a.secret
}
