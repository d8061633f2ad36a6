package cosem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms/hdlc"
	"gridgate/drivers/line"
)

// errSilent says that nothing came where a meter is asked once.
var errSilent = errors.New("nothing came")

// wire is the line as HDLC and the sign-on see it, and what is known of the
// meter at its end. Time-outs begin when what was written is out: on a slow
// line that is long after Write.
type wire struct {
	line    *line.Line
	port    line.Port // of the exchange
	timeout time.Duration
	wait    time.Duration // as SetTimeout said
	// once, while it is not 0, is how long a meter may be silent that is asked
	// no second time.
	once time.Duration

	open bool      // the meter may have something to say
	due  time.Time // until when it may begin
	last time.Time // when something passed
	sent time.Time // when what was written last was out
	rate int       // of the last hand-over, in bit/s; 0 for none

	terms terms
	pace  pace
}

// SetTimeout makes reads and writes give up d from now, or from when what was
// written is out.
func (w *wire) SetTimeout(d time.Duration) error {
	if w.wait = d; w.once > 0 {
		w.wait = min(d, w.once)
	}
	return w.port.SetDeadline(w.out().Add(w.wait))
}

// out is when what was written will be out.
func (w *wire) out() time.Time { return time.Now().Add(max(0, -w.line.Idle())) }

func (w *wire) Write(b []byte) (int, error) {
	if err := w.port.SetDeadline(w.out().Add(w.carry(len(b)) + w.wait)); err != nil {
		return 0, err
	}
	n, err := w.port.Write(b)
	w.open, w.last = true, w.out()
	w.sent = w.last
	w.due = w.last.Add(w.timeout)
	return n, err
}

// carry is how long the line takes for n octets.
func (w *wire) carry(n int) time.Duration { return time.Duration(n) * w.line.CharTime() }

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.port.Read(b)
	if n > 0 {
		w.last = time.Now()
	} else if w.once > 0 && isTimeout(err) {
		err = errSilent // not a time-out: after that the link would ask again
	}
	return n, err
}

// swallow passes over the answer that may still come, up to the frame that
// gives the word back to us, or until its time is over and the line silent, or
// no answer is that long.
func (w *wire) swallow(ctx context.Context, client hdlc.Address) error {
	const gap = time.Second // within an answer
	end := w.due.Add(w.carry(hdlc.MaxWindow*(hdlc.MaxInfo+frameOctets)) + w.timeout)
	var in hdlc.Splitter
	var b [256]byte
	for until := w.due; w.open; {
		if err := w.port.SetDeadline(until); err != nil {
			return err
		}
		n, err := w.port.Read(b[:])
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case isTimeout(err):
			w.open = false
		case err != nil:
			return err
		}
		in.Feed(b[:n])
		for raw, ok := in.Next(); ok; raw, ok = in.Next() {
			f, err := hdlc.ParseFrame(raw)
			if err == nil && f.Destination == client && f.Control.Final() {
				w.open = false
			}
		}
		now := time.Now()
		if late := now.Add(gap); until.Before(late) {
			until = late
		}
		w.open = w.open && now.Before(end)
	}
	return nil
}

// pace is how long a meter takes for its answers on a connection, as RFC 6298 has
// it: a mean, and how far answers are from it.
type pace struct {
	mean, spread time.Duration
	known        bool
}

// leastSpread is how much longer than usual a meter may take at least, before it
// is asked whether the answer got lost.
const leastSpread = time.Second

func (p *pace) learn(took time.Duration) {
	if !p.known {
		*p = pace{took, took / 2, true}
		return
	}
	p.spread += ((took - p.mean).Abs() - p.spread) / 4
	p.mean += (took - p.mean) / 8
}

// expected is how long the next answer is waited for before it is asked after. A
// meter that is not to be asked a second time has the whole time-out.
func (w *wire) expected() time.Duration {
	if !w.pace.known || w.once > 0 {
		return w.timeout
	}
	return w.pace.mean + max(leastSpread, 4*w.pace.spread)
}

// The most that HDLC carries, and what it carries unless more is agreed on.
const (
	plainInfo   = 128
	plainWindow = 1
)

// terms is what is known of the parameters that a meter agrees to.
type terms struct {
	known   bool // plain is
	plain   bool // none are told in the SNRM: the meter does not like to be told
	silent  int  // how often in a row it kept silent to some and not to none
	unheard int  // connections in a row that did not come about
}

const (
	// maxSilent is how often a meter may keep silent to an SNRM with
	// parameters: an SNRM gets lost now and then.
	maxSilent = 2
	// maxUnheard is after how many failures a meter may be another.
	maxUnheard = 3
)

func (t *terms) failed() {
	if t.unheard++; t.unheard >= maxUnheard {
		*t = terms{unheard: t.unheard}
	}
}

// propose is what a meter is asked to agree to. A frame is to be on the line
// for half a time-out at most, unless it was told otherwise.
func (l *link) propose() hdlc.Parameters {
	h := l.meter.cfg.HDLC
	info, window := h.Info, h.Window
	if window == 0 {
		window = hdlc.MaxWindow
	}
	if info == 0 {
		fits := l.meter.cfg.Timeout / 2 / max(1, l.meter.wire.line.CharTime())
		info = int(min(hdlc.MaxInfo, max(plainInfo, fits)))
	}
	return hdlc.Parameters{MaxInfoTx: uint16(info), MaxInfoRx: uint16(info), WindowTx: uint8(window), WindowRx: uint8(window)}
}

func (l *link) newHDLC(p hdlc.Parameters, retries int) *hdlc.Link {
	server, _ := l.server()
	c := hdlc.Config{
		Client: hdlc.ClientAddress(uint8(l.client)), Server: server, Propose: p,
		Timeout: l.meter.cfg.Timeout, Retries: retries, MaxAPDU: maxAPDU,
	}
	if w := l.meter.wire; l.meter.cfg.Wait == nil && l.meter.cfg.Envelope == nil {
		w.pace = pace{}
		c.Wait, c.Heard = w.expected, func() { w.pace.learn(max(0, time.Since(w.sent))) }
	}
	return hdlc.NewLink(l.meter.wire, c)
}

// dial makes the HDLC connection: SNRM, UA. A meter that is not known is asked
// to agree to parameters, and where it does not like that, by an SNRM with none:
// both within one time-out, where it is silent.
func (l *link) dial(ctx context.Context) error {
	w := l.meter.wire
	if err := w.swallow(ctx, hdlc.ClientAddress(uint8(l.client))); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	t, told, plain := &w.terms, l.propose(), hdlc.Default()
	if told == plain || t.known {
		if t.known && t.plain {
			told = plain
		}
		err := l.snrm(ctx, told, l.meter.cfg.Timeout)
		if err != nil {
			t.failed()
		}
		return err
	}
	half := l.meter.cfg.Timeout / 2
	err := l.snrm(ctx, told, half)
	silent := errors.Is(err, errSilent)
	switch {
	case err == nil:
		*t = terms{known: true}
		return nil
	case !silent && !isForgottenHDLC(err) && !errors.Is(err, hdlc.ErrParameters):
		return err
	case !silent:
		half = l.meter.cfg.Timeout // it is there
	}
	if err := l.snrm(ctx, plain, half); err != nil {
		return err
	}
	if t.unheard = 0; silent {
		t.silent++
	}
	t.plain = true
	t.known = !silent || t.silent >= maxSilent
	return nil
}

func (l *link) snrm(ctx context.Context, p hdlc.Parameters, wait time.Duration) error {
	w := l.meter.wire
	l.hdlc = l.newHDLC(p, hdlcRetries)
	w.once = wait
	err := l.hdlc.Connect(ctx)
	w.once = 0
	if err != nil {
		// Where an UA comes later all the same, it says what the next would say.
		w.open = w.open && !errors.Is(err, errSilent)
		return l.silence(err)
	}
	l.connected, w.open, w.terms.unheard = true, false, 0
	return nil
}
