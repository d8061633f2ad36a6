package cosem

import (
	"context"
	"io"
	"testing"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// newHDLCActor gives a meter with a breaker on HDLC, of whose frames lose says
// which get lost, once the breaker was switched.
func newHDLCActor(t *testing.T, timeout time.Duration, lose func(n int) bool) (*Meter, *dlmstest.Breaker) {
	t.Helper()
	breaker := dlmstest.NewBreaker(4, nil)
	sim := dlmstest.NewMeter(dlmstest.Options{
		Objects: append(objects("A1"), breaker.Object(obisOf("0-0:96.3.10"))), Clients: map[uint16]dlmstest.Login{17: {}},
	})
	n := 0
	seen := &tap{edit: func(toMeter bool, b []byte) []byte {
		if calls, _ := breaker.Calls(); toMeter || calls == 0 {
			return b
		}
		if n++; lose(n) {
			return nil
		}
		return b
	}}
	r := &rig{serve: func(stream io.ReadWriter) error {
		return sim.ServeHDLC(&tapped{ReadWriter: stream, tap: seen}, dlmstest.Station{})
	}}
	r.listen(t)
	return r.driver(t, Config{
		HDLC: &HDLC{}, Client: 17, Serial: "A1", Timeout: timeout,
		pause: func(context.Context, time.Duration) error { return nil },
	}), breaker
}

// TestHDLCLosesTheAnswer has the link ask for the answer again, and not order
// again: frames are numbered.
func TestHDLCLosesTheAnswer(t *testing.T) {
	t.Parallel()
	m, breaker := newHDLCActor(t, 2*time.Second, func(n int) bool { return n == 1 })
	got, err := m.Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.Disconnect{}}})
	if calls, _ := breaker.Calls(); err != nil || calls != 1 || got.Done[0].Result != meter.Done {
		t.Errorf("%+v after %d orders, %v", got.Done, calls, err)
	}
}

// TestHDLCIsDead has a meter that is silent once it was switched.
func TestHDLCIsDead(t *testing.T) {
	t.Parallel()
	m, breaker := newHDLCActor(t, 200*time.Millisecond, func(int) bool { return true })
	got, err := m.Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.Disconnect{}}})
	if calls, _ := breaker.Calls(); err == nil || calls > 1 || calls == 1 && got.Done[0].Result != meter.Unknown {
		t.Errorf("%+v after %d orders, %v", got.Done, calls, err)
	}
}
