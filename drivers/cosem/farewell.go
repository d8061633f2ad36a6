package cosem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/wrapper"
	"gridgate/drivers/line"
)

// leave ends the conversation that the end of a context cut short. The caller
// does not wait for that, but the line does: the meter may be talking, and
// serves nobody else before it is told. c is the association, nil for none.
func (l *link) leave(c *dlms.Client) {
	w, m := l.meter.wire, l.meter
	switch {
	case m.cfg.HDLC != nil && (l.connected || w.open):
		connected := l.connected || l.hdlc != nil
		late := max(0, time.Until(w.due))
		if l.hdlc != nil {
			granted := l.hdlc.Granted()
			late += w.carry(int(granted.WindowRx) * (int(granted.MaxInfoRx) + frameOctets))
		}
		m.leaving, l.connected = true, false
		l.port.Farewell(late+m.cfg.Timeout+w.carry(frameOctets), func(ctx context.Context, port line.Port) error {
			defer l.forget()
			l.use(port)
			err := l.disconnect(ctx, connected)
			if isSilent(err) {
				m.drop(port)
				return nil
			}
			return err
		})
	case m.cfg.HDLC != nil: // nothing was said
	case c != nil && c.Associated():
		m.leaving = true
		l.port.Farewell(max(0, time.Until(l.frames.due))+m.cfg.Timeout, func(ctx context.Context, port line.Port) error {
			defer l.forget()
			l.use(port)
			if err := l.frames.finish(); err != nil {
				return err
			}
			return c.Release(ctx)
		})
	case l.frames.open:
		// The meter may think that there is an association, and ends it with
		// the connection.
		l.port.Drop()
	}
}

// frameOctets is more than what a frame has beside its information.
const frameOctets = 20

// disconnect hears the meter out and disconnects.
func (l *link) disconnect(ctx context.Context, connected bool) error {
	w := l.meter.wire
	w.once = 0
	if err := w.swallow(ctx, hdlc.ClientAddress(uint8(l.client))); err != nil || !connected {
		return err
	}
	const noRetries = -1
	if err := l.newHDLC(hdlc.Default(), noRetries).Disconnect(ctx); err != nil {
		return err
	}
	w.open = false
	return nil
}

// frames is a stream of wrapper frames that knows how far into one it is. An
// answer that has begun has as much time again after each piece of it: what is
// waited for is the meter, not a slow line.
type frames struct {
	line.Port

	open     bool          // an answer may come
	patience time.Duration // with it, and with each piece of it
	due      time.Time     // until when it is waited for
	end      time.Time     // until when it is, however it comes
	head     []byte        // of a frame, as far as it came
	left     int           // octets of its APDU that did not come
}

// maxPieces is how many times as long as the answer its pieces are waited for.
const maxPieces = 20

// errPiece says that an answer began and came to no end.
var errPiece = errors.New("the answer has begun, and does not end")

func (f *frames) asked(patience time.Duration) {
	now := time.Now()
	f.open, f.patience, f.due, f.end = true, patience, now.Add(patience), now.Add(maxPieces*patience)
}

// more waits anew, where the meter goes on after an answer unasked.
func (f *frames) more() {
	if !f.open {
		f.asked(f.patience)
	}
}

func (f *frames) begun() bool { return f.left > 0 || len(f.head) > 0 }

// explain says of a time-out that it was within an answer.
func (f *frames) explain(err error) error {
	if isTimeout(err) && f.begun() {
		return fmt.Errorf("%w: %w", errPiece, err)
	}
	return err
}

func (f *frames) Read(b []byte) (int, error) {
	if f.open {
		if err := f.SetDeadline(f.due); err != nil {
			return 0, err
		}
	}
	n, err := f.Port.Read(b)
	for b = b[:n]; len(b) > 0; {
		if f.left > 0 {
			skip := min(f.left, len(b))
			f.left, b = f.left-skip, b[skip:]
			continue
		}
		f.head, b = append(f.head, b[0]), b[1:]
		if len(f.head) == wrapper.HeaderLen {
			if h, err := wrapper.ParseHeader(f.head); err == nil {
				f.left = int(h.Length)
			}
			f.head = f.head[:0]
		}
	}
	if n > 0 && f.begun() {
		if late := time.Now().Add(f.patience); late.Before(f.end) {
			f.due = late
		} else {
			f.due = f.end
		}
	}
	return n, err
}

// finish passes over the rest of the frame that was begun. What comes behind it
// the client tells from the answer to its goodbye: nobody has to wait for the
// word here.
func (f *frames) finish() error {
	f.open = true
	var b [256]byte
	for f.begun() {
		want := f.left
		if want == 0 {
			want = wrapper.HeaderLen - len(f.head)
		}
		if _, err := f.Read(b[:min(want, len(b))]); err != nil {
			return err
		}
	}
	return nil
}
