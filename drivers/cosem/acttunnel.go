package cosem

import (
	"context"
	"errors"
	"io"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

const (
	tunnelTick  = 50 * time.Millisecond // how long what comes is gathered
	tunnelPiece = 1000                  // octets of what came that go on at once
	tunnelWrite = 30 * time.Second
)

// dig ends the association, and lets somebody else have a line that is opened
// anew. What they leave behind goes with it.
func (m *Meter) dig(ctx context.Context, t *meter.Tunnel, o *meter.Outcome) error {
	_ = m.Close() //nolint:contextcheck // it has that of the last visit
	err := m.line.Do(ctx, m.settings(), func(_ context.Context, port line.Port) error {
		port.Drop()
		return nil
	})
	var d tunnel
	if err == nil {
		err = m.line.Do(ctx, m.settings(), func(ctx context.Context, port line.Port) error {
			defer port.Drop()
			t.Opened()
			o.Sent = true
			return d.pump(ctx, port, t)
		})
	}
	switch {
	case !o.Sent:
		o.Result, o.Err = meter.NotTried, unreachable(err)
		return o.Err
	case d.why == "":
		o.Result, o.Err = meter.Failed, err
	}
	o.After = []meter.Fact{fact("octets to the meter", "%d", d.out), fact("octets from it", "%d", d.in), {Name: "ended", Value: d.why}}
	return err
}

// tunnel is what passed.
type tunnel struct {
	in, out int
	why     string // it ended; "" is a fault
	pending []byte
}

// pump carries octets both ways.
func (d *tunnel) pump(ctx context.Context, port line.Port, t *meter.Tunnel) error {
	begun, last := time.Now(), time.Now()
	var buf [512]byte
	defer func() { d.flush(t) }()
	for {
		switch now := time.Now(); {
		case now.Sub(begun) >= t.Length:
			d.why = "its time is over"
			return nil
		case now.Sub(last) >= t.Idle:
			d.why = "nothing passed for " + t.Idle.String()
			return nil
		}
		octets, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			d.why = "they ended it"
			return nil
		case err != nil:
			d.why = err.Error()
			return nil
		case len(octets) > 0:
			if err := port.SetDeadline(time.Now().Add(tunnelWrite)); err != nil {
				return err
			}
			n, err := port.Write(octets)
			if d.out += n; err != nil {
				return err
			}
			last = time.Now()
		}
		if err := port.SetDeadline(time.Now().Add(tunnelTick)); err != nil {
			return err
		}
		n, err := port.Read(buf[:])
		if n > 0 {
			d.in, last = d.in+n, time.Now()
			d.pending = append(d.pending, buf[:n]...)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && isHangUp(err):
			d.why = "the meter hung up"
			return nil
		case err != nil && !isTimeout(err):
			return err
		}
		if err != nil || len(d.pending) >= tunnelPiece {
			d.flush(t)
		}
	}
}

func (d *tunnel) flush(t *meter.Tunnel) {
	if len(d.pending) > 0 {
		t.To(d.pending)
		d.pending = nil
	}
}
