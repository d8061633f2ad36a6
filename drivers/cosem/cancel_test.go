package cosem

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// hose is one end of a line in memory as a medium.
type hose struct{ net.Conn }

func (hose) Discard() error            { return nil }
func (hose) Apply(line.Settings) error { return nil }
func (hose) Stale() bool               { return false }

// busyMeter is a meter on a line in memory that takes its time over what it
// says while slow.
type busyMeter struct {
	line  *line.Line
	slow  atomic.Int64 // a time.Duration
	opens atomic.Int32
}

// late is the meter's end of its line.
type late struct {
	net.Conn
	by *atomic.Int64
}

func (l late) Write(b []byte) (int, error) {
	if d := l.by.Load(); d > 0 {
		<-time.NewTimer(time.Duration(d)).C
	}
	return l.Conn.Write(b)
}

func newBusyMeter(t *testing.T, overHDLC bool) *busyMeter {
	t.Helper()
	b := &busyMeter{}
	simulated := dlmstest.NewMeter(dlmstest.Options{Objects: objects("A1")})
	served := make(chan error, 8)
	b.line = line.Of("wire", func(context.Context, line.Settings) (line.Medium, error) {
		here, end := net.Pipe()
		there := late{end, &b.slow}
		b.opens.Add(1)
		go func() {
			if overHDLC {
				served <- simulated.ServeHDLC(there, dlmstest.Station{})
			} else {
				served <- simulated.Serve(there)
			}
		}()
		return hose{here}, nil
	})
	t.Cleanup(func() {
		if err := b.line.Close(); err != nil {
			t.Error(err)
		}
		for range b.opens.Load() {
			if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		}
	})
	return b
}

// TestCancelledVisit: who cancels a visit has the control back at once, in the
// middle of an exchange, and the next visit reads the meter.
func TestCancelledVisit(t *testing.T) {
	t.Parallel()
	for title, hdlc := range map[string]*HDLC{"wrapper": nil, "hdlc": {}} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBusyMeter(t, hdlc != nil)
				m := New(Config{ID: "m1", HDLC: hdlc, Now: (&turnable{at: start()}).now}, b.line)
				ask := registers(t, "1-0:1.8.0")
				visit := func(ctx context.Context) (meter.Got, time.Duration, error) {
					begin := time.Now()
					got, err := m.Visit(ctx, ask)
					return got, time.Since(begin), err
				}
				if got, _, err := visit(t.Context()); err != nil || len(got.Rows) != 1 {
					t.Fatalf("%v, %s", err, describe(got))
				}
				b.slow.Store(int64(3 * time.Second))
				enough := errors.New("enough")
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, enough)
				defer cancel()
				if _, took, err := visit(ctx); !errors.Is(err, enough) || took != time.Second {
					t.Errorf("cancelled after %v, back after %v: %v", time.Second, took, err)
				}
				b.slow.Store(0)
				got, _, err := visit(t.Context())
				if err != nil || len(got.Rows) != 1 || got.Rows[0].Value.String() != "1234.5" {
					t.Errorf("%v, %s", err, describe(got))
				}
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
