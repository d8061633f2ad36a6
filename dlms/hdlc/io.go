package hdlc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// append adds a frame to those being written.
func (l *Link) append(c Control, segmented bool, info []byte) error {
	f := Frame{Segmented: segmented, Destination: l.c.Server, Source: l.c.Client, Control: c, Info: info}
	start := len(l.out)
	out, err := f.AppendBinary(l.out)
	if err != nil {
		return err
	}
	l.out = out
	if start == 0 {
		l.echoes = l.echoes[:0]
	}
	if l.c.Client == l.c.Server {
		l.echoes = append(l.echoes, echoOf(c, out[start:]))
	}
	return nil
}

// flush writes the frames in one Write.
func (l *Link) flush(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := l.stream.SetTimeout(l.c.Timeout); err != nil {
		return err
	}
	l.ours, l.fresh = false, true
	_, err := l.stream.Write(l.out)
	return err
}

// next gives the next frame of the meter to us. A silence of d is a time-out,
// and so is a line on which only others speak. The frame is good until the
// next call.
func (l *Link) next(ctx context.Context, d time.Duration) (Frame, error) {
	if err := l.arm(ctx, d); err != nil {
		return Frame{}, err
	}
	for strange := 0; ; {
		for raw, ok := l.in.Next(); ok; raw, ok = l.in.Next() {
			f, err := ParseFrame(raw)
			if err == nil && l.isForUs(f, raw) {
				return f, nil
			}
			if strange++; strange > maxStrange {
				return Frame{}, fmt.Errorf("%w: %d frames, and none of the meter", ErrSequence, strange)
			}
			if err := l.arm(ctx, d); err != nil {
				return Frame{}, err
			}
		}
		partial := l.in.Partial()
		if partial {
			if err := l.arm(ctx, l.c.InterOctet); err != nil {
				return Frame{}, err
			}
		}
		err := l.read()
		if partial && isTimeout(err) && strange < maxStrange {
			// The line fell silent within a frame: it was none, or an octet
			// of it got lost. The answer may be behind it, or still to come.
			strange++
			l.in.Skip()
			err = l.arm(ctx, d)
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			if partial && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return Frame{}, err
		}
	}
}

func (l *Link) arm(ctx context.Context, d time.Duration) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return l.stream.SetTimeout(d)
}

// read takes in what there is.
func (l *Link) read() error {
	for range maxEmpty {
		n, err := l.stream.Read(l.chunk[:])
		if n > 0 {
			l.in.Feed(l.chunk[:n])
			return nil // an error comes again with the next read
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// isForUs says whether f is of the meter's connection with us. What the meter
// sends besides, it notifies.
func (l *Link) isForUs(f Frame, raw []byte) bool {
	if f.Destination != l.c.Client || f.Source != l.c.Server {
		return false // an echo among them
	}
	if l.isEcho(f, raw) {
		return false
	}
	if f.Control.kind() == UI {
		l.notify(f)
		return false
	}
	return true
}

// notify takes a UI frame.
func (l *Link) notify(f Frame) {
	if apdu, err := l.notices.Add(f); err == nil && apdu != nil && l.c.Notify != nil {
		l.c.Notify(apdu)
	}
}

// echo is a frame that may come back to us. Only where client and meter have
// the same address is it needed: else the addresses tell an echo.
type echo struct {
	length  int
	control Control
	check   uint16
}

func echoOf(c Control, raw []byte) echo {
	return echo{length: len(raw), control: c, check: binary.LittleEndian.Uint16(raw[len(raw)-3:])}
}

// isEcho says whether f is a frame that we just sent. A meter may answer RR
// with the same RR: only a line that gave back a command, which no meter sends,
// is held to give back other frames, once each.
func (l *Link) isEcho(f Frame, raw []byte) bool {
	if kind := f.Control.kind(); kind == SNRM || kind == DISC {
		l.echo = true
		return true
	}
	if !l.echo {
		return false
	}
	this := echoOf(f.Control, raw)
	for i, e := range l.echoes {
		if e == this {
			l.echoes = append(l.echoes[:i], l.echoes[i+1:]...)
			return true
		}
	}
	return false
}
