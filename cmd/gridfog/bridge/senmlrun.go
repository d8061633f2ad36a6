package bridge

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/mqtt"
)

const (
	maxPackRows = 1000 // rows in a pack
	maxPacks    = 1000 // packs that wait for their PUBACK; above it the broker of the gateways keeps the rest
	packWindow  = 50   // packs on their way to the broker at a time
)

// SenMLRun is a run of the bridge to SenML. Packs go to Out, one a line, or to
// <Prefix>/<site>/<gateway>/<lane> with QoS 1.
type SenMLRun struct {
	// Source is where gateways are heard; its Take, Gate, Note and Asks are set
	// here.
	Source Source
	Ask    bool // for what is missing; see Source.Asks
	SenML  SenML
	Out    io.Writer    // nil publishes
	To     mqtt.Options // where to publish
	Prefix string
	Note   func(text string)

	signal chan struct{}

	mu       sync.Mutex // guards what follows
	receiver *track.Receiver
	queue    []pack
	counts   SenMLCounts
	problem  error // of Out
	stop     context.CancelFunc
}

// SenMLCounts are what a run did.
type SenMLCounts struct {
	Packs     uint64 // written, or acknowledged by the broker
	Rows      uint64 // rows in packs
	Timeless  uint64 // rows left out because SenML cannot tell their time
	Unwritten int    // packs that still waited for the broker at the end
	Source    track.Totals
}

type pack struct {
	topic   string
	payload []byte
}

// Run bridges until ctx ends or Out fails.
func (s *SenMLRun) Run(ctx context.Context) (SenMLCounts, error) {
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	s.receiver = track.NewReceiver(track.New(track.Options{Remember: 1000}))
	s.signal = make(chan struct{}, 1)
	s.Source.Take, s.Source.Note, s.Source.Gate = s.take, s.Note, NewGate(true)
	if s.Ask {
		s.Source.Asks = func() []track.Ask {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.receiver.Asks(time.Now())
		}
	}
	var publisher sync.WaitGroup
	if s.Out == nil {
		publisher.Go(func() { s.publish(ctx) })
	}
	s.Source.Run(ctx)
	publisher.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Source = s.receiver.Summary().Totals
	s.counts.Unwritten = len(s.queue)
	return s.counts, s.problem
}

// take takes a message of a gateway.
func (s *SenMLRun) take(m mqtt.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh, err := s.receiver.Take(m.Topic, m.Payload)
	if err != nil {
		s.Note(err.Error())
	}
	fresh = named(fresh, s.Note)
	for len(fresh) > 0 {
		n := alike(fresh)
		s.pack(fresh[:n])
		fresh = fresh[n:]
	}
	s.Source.Gate.Set(len(s.queue) < maxPacks)
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// alike gives how many rows at the front go into one pack.
func alike(rows []track.Reading) int {
	n := 1
	for n < len(rows) && n < maxPackRows && rows[n].Stream == rows[0].Stream {
		n++
	}
	return n
}

// pack makes a pack and hands it on. s.mu is held.
func (s *SenMLRun) pack(rows []track.Reading) {
	payload, n := s.SenML.Append(nil, rows)
	s.counts.Timeless += uint64(len(rows) - n)
	if n < len(rows) {
		s.Note(fmt.Sprintf("gateway %s/%s: %d rows are of a time before 1978-07-04: left out", rows[0].Site, rows[0].Gateway, len(rows)-n))
	}
	if n == 0 || s.problem != nil {
		return
	}
	s.counts.Rows += uint64(n)
	if s.Out == nil {
		s.queue = append(s.queue, pack{s.topic(&rows[0]), payload})
		return
	}
	if _, err := s.Out.Write(append(payload, '\n')); err != nil {
		s.problem = fmt.Errorf("output: %w", err)
		s.stop()
		return
	}
	s.counts.Packs++
}

func (s *SenMLRun) topic(r *track.Reading) string {
	return s.Prefix + "/" + r.Site + "/" + r.Gateway + "/" + r.Lane.String()
}

// publish keeps a connection to the consumers' broker until ctx ends, and a
// little longer for what waits.
func (s *SenMLRun) publish(ctx context.Context) {
	ending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	end := context.AfterFunc(ctx, func() { after(ending, stopTime, stop) })
	defer end()
	retry := retrier{note: s.Note, what: "SenML at broker " + s.To.Address}
	for ctx.Err() == nil || s.first(0) != nil && ending.Err() == nil {
		if err := s.connection(ctx, ending, retry.worked); err != nil {
			retry.failed(ending, err)
		}
	}
}

// first gives the pack at place i of those that wait, nil when there is none.
func (s *SenMLRun) first(i int) *pack {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i >= len(s.queue) {
		return nil
	}
	p := s.queue[i]
	return &p
}

// done takes off the first pack: the broker has it.
func (s *SenMLRun) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = s.queue[1:]
	s.counts.Packs++
	s.Source.Gate.Set(len(s.queue) < maxPacks/2 || len(s.queue) < maxPacks && s.open())
}

func (s *SenMLRun) open() bool {
	open, _ := s.Source.Gate.Look()
	return open
}

// connection sends what waits over one connection, what was sent without a
// PUBACK on an earlier one again.
func (s *SenMLRun) connection(ctx, ending context.Context, connected func()) error {
	conn, err := mqtt.Dial(ending, s.To)
	if err != nil {
		return err
	}
	defer conn.Close()
	connected()
	var sent []mqtt.Token
	for {
		for len(sent) < packWindow {
			p := s.first(len(sent))
			if p == nil {
				break
			}
			token, err := conn.Publish(ending, p.topic, false, p.payload)
			if err != nil {
				return err
			}
			sent = append(sent, token)
		}
		var acknowledged <-chan struct{}
		if len(sent) > 0 {
			acknowledged = sent[0].Done()
		} else if ctx.Err() != nil {
			return nil
		}
		stopping := ctx.Done()
		if ctx.Err() != nil {
			stopping = ending.Done()
		}
		select {
		case <-acknowledged:
			if err := sent[0].Err(); err != nil {
				return err
			}
			sent = sent[1:]
			s.done()
		case <-s.signal:
		case <-conn.Done():
			return conn.Err()
		case <-stopping:
			if ending.Err() != nil {
				return nil
			}
		}
	}
}
