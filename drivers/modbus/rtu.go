package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

const (
	// lateFor is how long a request that was not answered may still be.
	lateFor = 2 * time.Minute
	// heldOff is how many time-outs an answer is late at the most, from a meter
	// that refuses other quantities.
	heldOff = 10
	// maxGarbage is how much is listened to before a line counts as garbled.
	maxGarbage = 2048
	// maxProbes is how many quantities are tried before the line is held off.
	maxProbes = 2
	// minSilence is the silence of the standard at 19200 baud and more (Modbus
	// over Serial Line V1.02, 2.5.1.1).
	minSilence = 1750 * time.Microsecond
	// listenFor is how long the line is listened to before a request even when
	// it was silent long enough: what was received and not read yet.
	listenFor = 2 * time.Millisecond
)

// rtu sends requests in RTU frames, on a serial line or within TCP, and brings
// back the answer or an error, never another answer. It is a transporter of
// the Modbus library for one unit.
//
// RTU answers carry no number, so an answer that comes late looks like the one
// to the next request of the same function and quantity. After a request whose
// answer was not seen, the unit is therefore asked for another quantity first.
// Meters answer in order: when that answer comes, the late one came before it
// or never will. Where other quantities are refused, the meter is only listened to
// until the answer would be ten time-outs late.
type rtu struct {
	unit    uint8
	timeout time.Duration
	silence time.Duration // before each request
	char    time.Duration // one character on the wire; 0 within TCP
	where   string        // what the technician is to check: unit and settings
	isTCP   bool

	open []late // requests whose answer may still come

	// Of the exchange in progress.
	ctx    context.Context // the library's interface has none
	line   *line.Line
	port   line.Port
	others []uint16 // see block.others
}

type late struct {
	shape
	asked time.Time
}

// Send takes an encoded read and gives the encoded answer.
func (r *rtu) Send(request []byte) ([]byte, error) {
	r.expire(time.Now())
	answer, err := r.send(request)
	if err != nil && r.isTCP {
		r.port.Drop()
	}
	return answer, err
}

func (r *rtu) send(request []byte) ([]byte, error) {
	switch want := newMatcher(request).want; {
	case !r.isOpen(want):
	case want.function == writeMultiple:
		return nil, r.notAsked() // there is no other quantity to be asked for
	default:
		if err := r.settle(request); err != nil {
			return nil, err
		}
	}
	doubtful := len(r.open) > 0
	answer, err := r.roundTrip(request)
	if err != nil || !doubtful {
		return answer, err
	}
	if answer[1]&exceptionBit == 0 {
		r.open = nil
		return answer, nil
	}
	// An exception does not say what it refuses: this request, or the one
	// before.
	r.remember(newMatcher(request).want)
	if err := r.holdOff(); err != nil {
		return nil, err
	}
	if len(r.open) > 0 {
		return nil, r.notAsked()
	}
	return r.roundTrip(request)
}

// settle asks for other quantities at the same place until one is answered.
// Where the meter refuses them the line is held off instead; where all are open
// already nothing is asked, and what comes late is waited for. Afterwards the
// answer to request is not open.
func (r *rtu) settle(request []byte) error {
	tried := 0
	for _, count := range r.others {
		want := shape{request[1], count}
		if r.isOpen(want) {
			continue
		}
		if tried++; tried > maxProbes {
			break
		}
		probe := encode(request[0], request[1], binary.BigEndian.Uint16(request[2:]), count)
		answer, err := r.roundTrip(probe)
		if err != nil {
			return err
		}
		if answer[1]&exceptionBit == 0 {
			r.open = nil
			return nil
		}
		r.remember(want)
	}
	wait := r.holdOff
	if tried == 0 {
		wait = r.listen
	}
	if err := wait(); err != nil {
		return err
	}
	if r.isOpen(newMatcher(request).want) {
		return r.notAsked()
	}
	return nil
}

// listen waits until the line is silent for a time-out. What comes meanwhile is
// nobody's.
func (r *rtu) listen() error { return r.quiet(r.timeout, 3*r.timeout) }

// holdOff is for a meter that refuses other quantities: it listens, and gives
// up what is older than heldOff time-outs.
func (r *rtu) holdOff() error {
	err := r.listen()
	r.open = slices.DeleteFunc(r.open, func(l late) bool { return time.Since(l.asked) >= heldOff*r.timeout })
	return err
}

func (r *rtu) notAsked() error {
	return fmt.Errorf("%w: not asked again, since %d requests may still be answered: is it %s?", meter.ErrNoAnswer, len(r.open), r.where)
}

// roundTrip sends one request and waits for its answer. A request that fails
// is remembered as open.
func (r *rtu) roundTrip(request []byte) ([]byte, error) {
	if err := r.quiet(max(r.silence-r.line.Idle(), min(r.silence, listenFor)), r.silence+r.timeout); err != nil {
		return nil, err
	}
	m := newMatcher(request)
	answer, err := r.transfer(m)
	r.line.Note(err)
	r.forget(m.late)
	if err != nil {
		r.remember(m.want)
		return nil, err
	}
	return answer, nil
}

func (r *rtu) transfer(m *matcher) ([]byte, error) {
	length := len(m.request) + answerLen(m.want.count)
	deadline := time.Now().Add(r.timeout + time.Duration(length)*r.char)
	if err := r.port.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := r.port.Write(m.request); errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("%w: the line took no bytes within %v", meter.ErrNoAnswer, r.timeout)
	} else if err != nil {
		return nil, fmt.Errorf("send: %w", lost(r.ctx, err))
	}
	var buf [512]byte
	for len(m.buf) < maxGarbage {
		n, err := r.port.Read(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", lost(r.ctx, err))
		}
		answer, missing := m.feed(buf[:n], false)
		if answer != nil {
			return answer, nil
		}
		if missing > 0 { // an answer is there, but within what may become another frame
			soon := time.Now().Add(20*time.Millisecond + time.Duration(missing)*r.char)
			if soon.Before(deadline) {
				deadline = soon
			}
			if err := r.port.SetDeadline(deadline); err != nil {
				return nil, err
			}
		}
	}
	if answer, _ := m.feed(nil, true); answer != nil {
		return answer, nil
	}
	return nil, r.failure(m)
}

// failure says why there is no answer, in words for who stands at the meter.
func (r *rtu) failure(m *matcher) error {
	if !m.strange {
		return fmt.Errorf("%w within %v: is the meter on, are A and B wired right, is it %s?", meter.ErrNoAnswer, r.timeout, r.where)
	}
	return fmt.Errorf("%w (% X): is it %s, do two meters have this unit number, is the line terminated?",
		meter.ErrGarbled, m.buf[:min(len(m.buf), 16)], r.where)
}

// quiet reads and drops what comes until nothing has come for gap. A line that
// does not fall silent within most is garbled.
func (r *rtu) quiet(gap, most time.Duration) error {
	if gap <= 0 {
		return context.Cause(r.ctx)
	}
	end := time.Now().Add(most)
	m := newListener(r.unit)
	defer func() { r.forget(m.late) }()
	var buf [512]byte
	for wait := gap; ; {
		if err := r.port.SetDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		n, err := r.port.Read(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", lost(r.ctx, err))
		}
		m.feed(buf[:n], false)
		wait = max(gap, r.silence)
		if time.Now().After(end) {
			return fmt.Errorf("%w: the line does not fall silent: does another master, or a broken meter, talk on it?", meter.ErrGarbled)
		}
	}
}

func (r *rtu) isOpen(s shape) bool {
	for _, l := range r.open {
		if l.shape == s {
			return true
		}
	}
	return false
}

func (r *rtu) remember(s shape) { r.open = append(r.open, late{s, time.Now()}) }

// forget takes the open requests of those shapes away: each is answered once.
func (r *rtu) forget(answered []shape) {
	for _, s := range answered {
		if i := slices.IndexFunc(r.open, func(l late) bool { return l.shape == s }); i >= 0 {
			r.open = slices.Delete(r.open, i, i+1)
		}
	}
}

func (r *rtu) expire(now time.Time) {
	for len(r.open) > 0 && now.Sub(r.open[0].asked) > lateFor {
		r.open = r.open[1:]
	}
}

// silenceOf gives how long a line is silent between frames: 3.5 characters, or
// what the model asks for.
func silenceOf(s line.Settings, turnaround time.Duration) time.Duration {
	gap := minSilence
	if s.Baud <= 19200 {
		gap = s.CharTime() * 7 / 2
	}
	return max(gap, turnaround)
}
