package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/backoff"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// Gate says whether messages are wanted. While it is shut the broker keeps them
// in the bridge's session. Make one with NewGate. It is safe for concurrent use.
type Gate struct {
	mu      sync.Mutex
	open    bool
	changed chan struct{} // closed and replaced when open changes
}

// NewGate gives a gate.
func NewGate(open bool) *Gate { return &Gate{open: open, changed: make(chan struct{})} }

// Set opens or shuts it.
func (g *Gate) Set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if open != g.open {
		g.open = open
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

// Look says whether it is open, and what is closed when that changes.
func (g *Gate) Look() (open bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.changed
}

// Source takes what gateways send from a broker.
type Source struct {
	// MQTT says where to connect. With Persistent the broker keeps what comes
	// while the bridge is away or Gate is shut.
	MQTT          mqtt.Options
	Site, Gateway string // only these; empty for all
	Gate          *Gate
	// Take takes a message. It must not block for long.
	Take func(mqtt.Message)
	// Asks gives what gateways are to send again: after a start the bridge does
	// not know what a gateway in delta mode refers to. nil asks for nothing.
	Asks func() []track.Ask
	// Note takes what a person may want to know.
	Note func(text string)
}

// Run takes messages until ctx ends.
func (s *Source) Run(ctx context.Context) {
	s.MQTT.Handler = s.Take
	retry := retrier{note: s.Note, what: "broker " + s.MQTT.Address}
	known := false // the broker has our session
	for ctx.Err() == nil {
		open, changed := s.Gate.Look()
		if !open && known {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		err := s.connect(ctx, func() {
			known = true
			retry.worked()
		})
		if err != nil {
			retry.failed(ctx, err)
		}
	}
}

// connect is one connection. It gives nil when ctx ends or the gate shuts.
func (s *Source) connect(ctx context.Context, connected func()) error {
	conn, err := mqtt.Dial(ctx, s.MQTT)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Subscribe(ctx, mqtt.UpFilter(meter.ID(s.Site), meter.ID(s.Gateway)), s.Take); err != nil {
		return err
	}
	connected()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		open, changed := s.Gate.Look()
		if !open {
			return nil
		}
		select {
		case <-tick.C:
			if err := s.ask(ctx, conn); err != nil {
				return err
			}
		case <-changed:
		case <-conn.Done():
			return conn.Err()
		case <-ctx.Done():
			return nil
		}
	}
}

// askEvery is how often gateways are asked for what is missing.
const askEvery = time.Second

func (s *Source) ask(ctx context.Context, conn *mqtt.Conn) error {
	if s.Asks == nil {
		return nil
	}
	for _, a := range s.Asks() {
		topic := mqtt.ResendTopic(meter.ID(a.Site), meter.ID(a.Gateway), a.Lane)
		s.Note(fmt.Sprintf("gateway %s/%s: asking for numbers %d to %d of lane %s again", a.Site, a.Gateway, a.First, a.Last, a.Lane))
		if _, err := conn.Publish(ctx, topic, false, mqtt.Range{Epoch: a.Epoch, First: a.First, Last: a.Last}.AppendJSON(nil)); err != nil {
			return err
		}
	}
	return nil
}

// named leaves out rows of meters whose names are none, which must not get into
// topics, and of times before 1970, which neither standard can tell.
func named(rows []track.Reading, note func(string)) []track.Reading {
	good := rows[:0]
	for _, r := range rows {
		if _, err := meter.ParseID(string(r.Row.Meter)); err == nil && r.Row.Stamp.Time >= 0 {
			good = append(good, r)
		}
	}
	if n := len(rows) - len(good); n > 0 {
		note(fmt.Sprintf("gateway %s/%s: %d rows of meters whose names are no ids, or of before 1970: left out", rows[0].Site, rows[0].Gateway, n))
	}
	return good
}

// retrier says what goes wrong with a connection once, and waits longer and
// longer before the next attempt.
type retrier struct {
	note func(string)
	what string
	wait backoff.Backoff
	said string
}

// worked says that the connection stands.
func (r *retrier) worked() {
	r.wait.Reset()
	if r.said != "connected" {
		r.note(r.what + ": connected")
	}
	r.said = "connected"
}

// failed says why it does not, and waits.
func (r *retrier) failed(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	if err.Error() != r.said {
		r.said = err.Error()
		r.note(r.said + "; trying again")
	}
	r.wait.Min, r.wait.Max = 200*time.Millisecond, 5*time.Second
	_ = r.wait.Wait(ctx) // the caller looks at ctx
}
