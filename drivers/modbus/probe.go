package modbus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// Probe asks units that nobody knows yet, for a scan of a line: it takes every
// answer that comes, whoever it is from, and says what else came. It is not for
// values that somebody bills by: an answer is tied to its request as RTU does it,
// by unit and function. It is not safe for concurrent use.
type Probe struct {
	Line      *line.Line
	Transport Transport
	Settings  line.Settings // of a serial line

	transaction uint16
	asked       map[uint16]uint8 // units of transactions without an answer
}

// Heard is what came after one request.
type Heard struct {
	// PDU is the answer from its function on, without a check; nil is none.
	PDU []byte
	// Again says that the unit answered twice: two meters have its number.
	Again bool
	// Others are the units that answered though they were not asked, or earlier.
	Others []uint8
	// Echo says that the request itself came back: an adapter hears itself.
	Echo bool
	// Strange are octets that belong to no frame.
	Strange []byte
}

// Timing is how long a Probe waits.
type Timing struct {
	First  time.Duration // for the first octet, once the request is out
	Linger time.Duration // after an answer, for another one
}

// frameGap is how long a frame may pause: adapters hand on what came every 16 ms,
// and a busy machine later.
const frameGap = 150 * time.Millisecond

// maxHeard bounds what is taken after one request, in octets.
const maxHeard = 2048

// ReadPDU is a request for count registers by function 3 or 4.
func ReadPDU(function uint8, address, count uint16) []byte {
	return []byte{function, byte(address >> 8), byte(address), byte(count >> 8), byte(count)}
}

// Ask sends a request and gives what came. Silence is no error; errors are the
// line's.
func (p *Probe) Ask(ctx context.Context, unit uint8, pdu []byte, t Timing) (h Heard, err error) {
	err = p.Line.Do(ctx, p.Settings, func(ctx context.Context, port line.Port) error {
		if p.Transport == TCP {
			return p.askTCP(ctx, port, unit, pdu, t, &h)
		}
		return p.askRTU(ctx, port, unit, pdu, t, &h)
	})
	return h, err
}

// Listen takes what comes for as long, and longer while it comes, up to most.
func (p *Probe) Listen(ctx context.Context, d, most time.Duration) (h Heard, err error) {
	err = p.Line.Do(ctx, p.Settings, func(ctx context.Context, port line.Port) error {
		if p.Transport == TCP {
			return p.hearTCP(port, time.Now().Add(d), 0, &h)
		}
		buf, err := collect(port, time.Now().Add(d), most, nil)
		sortOut(buf, nil, &h)
		return err
	})
	return h, err
}

func (p *Probe) askRTU(ctx context.Context, port line.Port, unit uint8, pdu []byte, t Timing, h *Heard) error {
	request := append([]byte{unit}, pdu...)
	request = binary.LittleEndian.AppendUint16(request, crc(request))
	char := p.Settings.CharTime()
	// The silence that parts frames; what comes in it is somebody's late answer.
	silence := max(minSilence, 7*char/2)
	early, err := collect(port, time.Now().Add(max(silence/4, silence-p.Line.Idle())), time.Second, nil)
	if err != nil {
		return err
	}
	sortOut(early, nil, h)
	out := time.Duration(len(request)) * char
	if err := port.SetDeadline(time.Now().Add(out + time.Second)); err != nil {
		return err
	}
	if _, err := port.Write(request); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return lost(ctx, err)
	}
	whole := func(buf []byte) bool {
		var now Heard
		sortOut(buf, request, &now)
		return now.PDU != nil && len(now.Strange) == 0
	}
	buf, err := collect(port, time.Now().Add(out+t.First), 2*time.Second+t.First, whole)
	if err == nil && t.Linger > 0 && len(buf) > 0 {
		var more []byte
		more, err = collect(port, time.Now().Add(t.Linger), time.Second, nil)
		buf = append(buf, more...)
	}
	sortOut(buf, request, h)
	return err
}

// collect reads until the deadline, and from the first octet on until the line is
// silent, enough says so, or it has taken most.
func collect(port line.Port, until time.Time, most time.Duration, enough func([]byte) bool) (all []byte, err error) {
	end := time.Now().Add(most)
	var buf [256]byte
	for len(all) < maxHeard {
		if err := port.SetDeadline(until); err != nil {
			return all, err
		}
		n, err := port.Read(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, buf[:n]...)
		if enough != nil && enough(all) {
			return all, nil
		}
		if until = time.Now().Add(frameGap); until.After(end) {
			return all, nil
		}
	}
	return all, nil
}

// sortOut tells the frames in what came apart. Of requests of others the unit does
// not count as one that answers.
func sortOut(buf, request []byte, h *Heard) {
	for len(buf) > 0 {
		if request != nil && bytes.HasPrefix(buf, request) {
			h.Echo = true
			buf = buf[len(request):]
			continue
		}
		n := answerFrame(buf)
		switch {
		case n == 0:
			h.Strange = append(h.Strange, buf[0])
			buf = buf[1:]
			continue
		case request == nil || buf[0] != request[0] || buf[1]&^exceptionBit != request[1]:
			h.Others = append(h.Others, buf[0])
		case h.PDU != nil:
			h.Again = true
		default:
			h.PDU = bytes.Clone(buf[1 : n-crcLen])
		}
		buf = buf[n:]
	}
}

// answerFrame gives the length of the answer that b begins with: to a read of
// registers, to one of the device's identification, or an exception.
func answerFrame(b []byte) int {
	if len(b) < exceptionLen || b[0] == 0 || b[0] > 247 {
		return 0
	}
	n := 0
	switch function := b[1]; {
	case function > exceptionBit && function <= exceptionBit|encapsulated && b[2] != 0:
		n = exceptionLen
	case (function == 3 || function == 4) && b[2] > 0 && b[2]%2 == 0:
		n = headLen + int(b[2]) + crcLen
	case function == encapsulated:
		if n = identificationLen(b[1:]); n > 0 {
			n += 1 + crcLen
		}
	}
	if n == 0 || n > len(b) || !checked(b[:n]) {
		return 0
	}
	return n
}

func (p *Probe) askTCP(ctx context.Context, port line.Port, unit uint8, pdu []byte, t Timing, h *Heard) error {
	p.transaction++
	if p.asked == nil {
		p.asked = map[uint16]uint8{}
	}
	if len(p.asked) > 1024 {
		clear(p.asked)
	}
	p.asked[p.transaction] = unit
	request := binary.BigEndian.AppendUint16(nil, p.transaction)
	request = append(request, 0, 0, 0, byte(1+len(pdu)), unit)
	request = append(request, pdu...)
	if err := port.SetDeadline(time.Now().Add(t.First)); err != nil {
		return err
	}
	if _, err := port.Write(request); err != nil {
		return lost(ctx, err)
	}
	return p.hearTCP(port, time.Now().Add(t.First), p.transaction, h)
}

// hearTCP takes answers until that to a transaction, 0 for none, has come.
func (p *Probe) hearTCP(port line.Port, until time.Time, transaction uint16, h *Heard) error {
	if err := port.SetDeadline(until); err != nil {
		return err
	}
	for {
		frame, err := readMBAP(port)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, meter.ErrGarbled):
			h.Strange = append(h.Strange, frame...)
			port.Drop()
			return nil
		case err != nil:
			return err
		}
		id := binary.BigEndian.Uint16(frame)
		unit, open := p.asked[id]
		delete(p.asked, id)
		switch pdu := frame[mbapLen:]; {
		case !open || unit != frame[6]:
			h.Strange = append(h.Strange, frame...)
		case id == transaction:
			h.PDU = pdu
			return nil
		case !unreachable(pdu):
			h.Others = append(h.Others, unit)
		}
	}
}

// Unreachable says whether the answer is of a gateway that has no such unit.
func (h *Heard) Unreachable() bool { return unreachable(h.PDU) }

func unreachable(pdu []byte) bool {
	const noPath = 10
	return len(pdu) == 2 && pdu[0]&exceptionBit != 0 && (pdu[1] == noPath || pdu[1] == byte(noTarget))
}

// Decode reads the register from the bytes that hold it. A number that is none
// by the map, or whose length is wrong, comes as meter.OutOfRange.
func (r *Register) Decode(b []byte) (meter.Value, meter.Quality) {
	if len(b) != 2*int(r.Len()) {
		return meter.Value{}, meter.OutOfRange
	}
	return r.value(b)
}

// Fits says whether the map is for a meter that shows value there.
func (i *Identity) Fits(value string) bool { return i.fits(value) }

// Block is registers that are read in one request.
type Block struct {
	Function       uint8
	Address, Count uint16
	Registers      []*Register
}

// Plan gives the requests that read regs as the map allows it.
func (m *Model) Plan(regs []*Register) []Block {
	var blocks []Block
	for _, b := range plan(regs, m, nil) {
		blocks = append(blocks, Block{b.function, b.address, b.count, b.regs})
	}
	return blocks
}
