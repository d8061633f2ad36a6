package hdlc

import (
	"context"
	"fmt"
	"time"
)

// step takes one frame of the meter, or its silence.
func (l *Link) step(ctx context.Context) error {
	wait := l.patience()
	if l.pausing {
		wait = l.c.Pause
	}
	f, err := l.next(ctx, wait)
	switch {
	case err == nil:
		if l.fresh && l.tries == 0 && l.c.Heard != nil {
			l.c.Heard()
		}
		l.fresh = false
		return l.take(ctx, f)
	case !isTimeout(err):
		return err
	case l.pausing:
		return l.poll(ctx)
	}
	l.tries++
	if l.silent += wait; l.silent >= l.most() {
		return l.exhausted(err)
	}
	// What got lost? RR asks the meter, and makes it repeat what it sent. A
	// meter that does not answer to that may answer to the frame; one that may
	// just be slow is not given it twice.
	if l.va != l.vs && (l.tries%2 == 0 && l.c.Wait == nil || l.c.Wait != nil && l.silent >= l.c.Timeout) {
		_, err = l.window(ctx)
		return err
	}
	return l.poll(ctx)
}

// most is for how long a meter may be silent, however often it is asked.
func (l *Link) most() time.Duration {
	return time.Duration(1+max(0, l.c.Retries)) * l.c.Timeout
}

// patience is how long what was asked last is waited for.
func (l *Link) patience() time.Duration {
	wait := l.c.Timeout
	if l.c.Wait != nil {
		const maxDoubled = 16
		wait = min(wait, max(1, l.c.Wait())<<min(l.tries, maxDoubled))
	}
	return min(wait, l.most()-l.silent)
}

func (l *Link) exhausted(err error) error {
	return fmt.Errorf("no answer to %d attempts: %w", l.tries, err)
}

// take does what a frame asks for.
func (l *Link) take(ctx context.Context, f Frame) error {
	switch f.Control.kind() {
	case kindI:
		return l.information(ctx, f)
	case kindRR, kindRNR, kindREJ:
		return l.supervisory(ctx, f.Control)
	case DM:
		return ErrDisconnected
	case FRMR:
		return parseReject(f.Info)
	default: // a UA that came late, an unknown frame
		return l.nothing()
	}
}

// nothing counts an answer that brought nothing.
func (l *Link) nothing() error {
	if l.busy++; l.busy > maxBusy {
		return fmt.Errorf("%w: %d answers that bring nothing", ErrSequence, l.busy)
	}
	return nil
}

// acknowledge takes N(R). It is false for one that acknowledges what was not
// sent, or what was acknowledged before: a frame out of the past.
func (l *Link) acknowledge(nr uint8) bool {
	n := (nr - l.va) & 7
	if n > (l.vs-l.va)&7 {
		return false
	}
	l.va = nr
	l.base = min(l.base+int(n)*int(l.granted.MaxInfoTx), len(l.apdu))
	if n > 0 {
		l.tries, l.silent, l.busy, l.repeats = 0, 0, 0, 0
	}
	return true
}

func (l *Link) supervisory(ctx context.Context, c Control) error {
	many := (l.vs-l.va)&7 > 1
	before := l.va
	if !l.acknowledge(c.nr()) {
		return l.nothing()
	}
	if err := l.nothing(); err != nil || !c.Final() {
		return err
	}
	switch open := l.va != l.vs; {
	case c.kind() == kindRNR:
		l.pausing = true
	case open && c.kind() == kindRR && !many && !l.polled && l.va == before:
		// The answer to an RR of before the I frame. The frame has its own.
	case open:
		if l.repeats++; l.repeats > maxRepeats {
			return fmt.Errorf("%w: the meter asked %d times for the same frame", ErrSequence, l.repeats)
		}
		_, err := l.window(ctx)
		return err
	case l.collecting:
		l.pausing = true // it has the request, and works on the answer
	}
	return nil
}

// information takes an I frame.
func (l *Link) information(ctx context.Context, f Frame) error {
	if !l.acknowledge(f.Control.nr()) {
		return l.nothing()
	}
	if !l.collecting {
		return l.nothing() // the meter repeats it when Receive asks
	}
	if ahead := (f.Control.ns() - l.vr) & 7; ahead != 0 {
		if err := l.nothing(); err != nil || !f.Control.Final() || ahead >= l.granted.WindowRx {
			return err // what is not ahead was here before
		}
		return l.poll(ctx)
	}
	l.vr = (l.vr + 1) & 7
	l.ours = f.Control.Final()
	l.tries, l.silent, l.busy, l.pausing = 0, 0, 0, false
	if err := l.collect(f.Info); err != nil {
		return err
	}
	switch {
	case !f.Segmented:
		l.complete = true
	case f.Control.Final():
		return l.poll(ctx)
	}
	return nil
}

// collect takes a segment of the APDU.
func (l *Link) collect(info []byte) error {
	if !l.headed {
		if len(info) < len(llcFromMeter) || string(info[:len(llcFromMeter)]) != llcFromMeter {
			return fmt.Errorf("%w of a meter: the information starts % x", ErrLLC, info[:min(len(info), len(llcFromMeter))])
		}
		info, l.headed = info[len(llcFromMeter):], true
	}
	if n := len(l.collected) - l.began + len(info); n > l.c.MaxAPDU {
		return fmt.Errorf("apdu of %d octets so far: %w: at most %d", n, ErrTooLong, l.c.MaxAPDU)
	}
	l.collected = append(l.collected, info...)
	return nil
}

// poll asks the meter to go on, or to say how far it is.
func (l *Link) poll(ctx context.Context) error {
	l.polled, l.pausing = true, false
	l.out = l.out[:0]
	if err := l.append(ReceiveReady(l.vr, true), false, nil); err != nil {
		return err
	}
	return l.flush(ctx)
}
