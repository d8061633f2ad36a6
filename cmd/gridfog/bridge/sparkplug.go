package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// The bounds of what waits in memory for Sparkplug; above it the broker keeps
// the rest.
const (
	maxPending = 100_000 // rows
	maxPiece   = 2000    // rows that are made into messages at a time
)

// stopTime is how long what waits may still be sent when the bridge ends.
const stopTime = 3 * time.Second

// Sparkplug is a run of the bridge to Sparkplug B 3.0. Each gateway is an edge
// node with a connection of its own, because the will, NDEATH, is one of a
// connection.
//
// With a primary host nothing is told while that is offline, and nothing is
// taken from the broker of the gateways: it keeps all in the bridge's session.
type Sparkplug struct {
	// Source is where gateways are heard; its Take, Gate, Note and Asks are set
	// here.
	Source Source
	Ask    bool // for what is missing; see Source.Asks
	// To is the broker of the hosts. ClientID is set for each connection.
	To mqtt.Options
	// PrimaryHost is the host application that must be online; "" is none.
	PrimaryHost string
	Node        NodeOptions
	Store       Store
	// Rate is how many messages a second are sent at most, over all nodes; a
	// broker drops QoS 0 messages for a consumer that does not keep up.
	Rate int
	Note func(text string) // see Source.Note; it is called from several goroutines
	Now  func() time.Time

	pace  pacer
	tasks sync.WaitGroup

	mu       sync.Mutex // guards what follows
	receiver *track.Receiver
	nodes    map[[2]string]*edge
	pending  int  // rows that wait, over all nodes
	ready    bool // the primary host is online, or there is none
	counts   Counts
}

// Counts are what a run did.
type Counts struct {
	Nodes    int    // edge nodes that were born
	Births   uint64 // births of nodes and devices
	Messages uint64 // messages sent, births and deaths among them
	Rows     uint64 // rows told in DDATA, again after a lost connection among them
	Source   track.Totals
}

// Run bridges until ctx ends, and gives what it did.
func (s *Sparkplug) Run(ctx context.Context) Counts {
	s.receiver = track.NewReceiver(track.New(track.Options{Remember: 1000}))
	s.nodes = map[[2]string]*edge{}
	s.pace = pacer{interval: time.Second / time.Duration(s.Rate), burst: 100 * time.Second / time.Duration(s.Rate)}
	s.Source.Take, s.Source.Note = s.takeMessage(ctx), s.Note
	if s.Ask {
		s.Source.Asks = func() []track.Ask {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.receiver.Asks(time.Now())
		}
	}
	s.ready = s.PrimaryHost == ""
	s.Source.Gate = NewGate(s.ready)
	if s.PrimaryHost != "" {
		s.tasks.Go(func() { s.watchHost(ctx) })
	}
	s.Source.Run(ctx)
	s.tasks.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Source = s.receiver.Summary().Totals
	return s.counts
}

// takeMessage gives the handler of what gateways send.
func (s *Sparkplug) takeMessage(ctx context.Context) func(mqtt.Message) {
	return func(m mqtt.Message) {
		s.mu.Lock()
		fresh, err := s.receiver.Take(m.Topic, m.Payload)
		fresh = named(fresh, s.Note)
		for _, r := range fresh {
			e := s.edge(ctx, r.Site, r.Gateway)
			e.rows = append(e.rows, r)
			e.poke()
		}
		s.pending += len(fresh)
		s.setGate()
		s.state(ctx, m)
		s.mu.Unlock()
		if err != nil {
			s.Note(err.Error())
		}
	}
}

// state notes what a gateway says of itself. s.mu is held.
func (s *Sparkplug) state(ctx context.Context, m mqtt.Message) {
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil || topic.Kind != mqtt.State || len(m.Payload) == 0 {
		return
	}
	var state struct{ State, Version string }
	if json.Unmarshal(m.Payload, &state) != nil {
		return
	}
	e := s.edge(ctx, string(topic.Site), string(topic.Gateway))
	e.offline = state.State == "offline"
	e.version = state.Version
	e.poke()
}

// edge gives the node of a gateway, and starts it when it is new. s.mu is held.
func (s *Sparkplug) edge(ctx context.Context, site, gateway string) *edge {
	name := [2]string{site, gateway}
	e := s.nodes[name]
	if e == nil {
		e = &edge{bridge: s, node: NewNode(site, gateway, s.Node), signal: make(chan struct{}, 1)}
		s.nodes[name] = e
		s.tasks.Go(func() { e.run(ctx) })
	}
	return e
}

// setGate shuts the source while too much waits or the primary host is offline.
// s.mu is held.
func (s *Sparkplug) setGate() {
	limit := maxPending
	if open, _ := s.Source.Gate.Look(); !open {
		limit = maxPending / 2
	}
	s.Source.Gate.Set(s.ready && s.pending <= limit)
}

// watchHost follows the primary host's state, for the gate: the nodes follow it
// each for itself.
func (s *Sparkplug) watchHost(ctx context.Context) {
	options := s.To
	options.ClientID += "-host"
	retry := retrier{note: s.Note, what: "primary host " + s.PrimaryHost + " at broker " + s.To.Address}
	for ctx.Err() == nil {
		if err := s.hear(ctx, options, retry.worked); err != nil {
			s.setReady(false)
			retry.failed(ctx, err)
		}
	}
}

func (s *Sparkplug) hear(ctx context.Context, options mqtt.Options, connected func()) error {
	conn, err := mqtt.Dial(ctx, options)
	if err != nil {
		return err
	}
	defer conn.Close()
	var host hostFollower
	err = conn.Subscribe(ctx, s.stateTopic(), func(m mqtt.Message) {
		if _, err := host.take(m.Payload); err != nil {
			s.Note("topic " + m.Topic + ": " + err.Error())
		}
		s.setReady(host.online)
	})
	if err != nil {
		return err
	}
	connected()
	select {
	case <-conn.Done():
		return conn.Err()
	case <-ctx.Done():
		return nil
	}
}

func (s *Sparkplug) stateTopic() string { return "spBv1.0/STATE/" + s.PrimaryHost }

func (s *Sparkplug) setReady(online bool) {
	s.mu.Lock()
	changed := s.ready != online
	s.ready = online
	s.setGate()
	for _, e := range s.nodes {
		e.poke()
	}
	s.mu.Unlock()
	if changed {
		s.Note("primary host " + s.PrimaryHost + map[bool]string{true: ": online", false: ": offline"}[online])
	}
}

// hostFollower follows what a host says of itself: what is older than what was
// said before does not count (tck-id-message-flow-edge-node-birth-publish-phid-
// wait-timestamp, -offline-timestamp).
type hostFollower struct {
	online    bool
	timestamp int64
}

// take takes a message on the host's topic, and says whether the state changed.
// A message that is none leaves the state; an empty one takes it back.
func (h *hostFollower) take(payload []byte) (changed bool, err error) {
	if len(payload) == 0 {
		changed, h.online = h.online, false
		return changed, nil
	}
	s, err := parseHostState(payload)
	if err != nil || s.Timestamp < h.timestamp {
		return false, err
	}
	changed = s.Online != h.online
	h.online, h.timestamp = s.Online, s.Timestamp
	return changed, nil
}

// pacer spreads messages in time.
type pacer struct {
	interval, burst time.Duration

	mu   sync.Mutex
	next time.Time
}

// wait waits until a message more may be sent.
func (p *pacer) wait(ctx context.Context) error {
	p.mu.Lock()
	now := time.Now()
	if first := now.Add(-p.burst); p.next.Before(first) {
		p.next = first
	}
	p.next = p.next.Add(p.interval)
	pause := p.next.Sub(now)
	p.mu.Unlock()
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clientID is the client id of a node's connection.
func (s *Sparkplug) clientID(site, gateway string) string {
	return fmt.Sprintf("%s-%s-%s", s.To.ClientID, site, gateway)
}

// checkHost says whether a host's id can stand in a topic.
func checkHost(id string) error {
	for _, c := range id {
		if c == '+' || c == '/' || c == '#' || c < ' ' {
			return fmt.Errorf("host id %q: '+', '/' and '#' are reserved", id)
		}
	}
	return nil
}

// CheckIDs says whether the names of groups, nodes and the primary host are
// such as Sparkplug has them.
func (s *Sparkplug) CheckIDs() error {
	for _, id := range []string{s.Source.Site, s.Source.Gateway} {
		if _, err := meter.ParseID(id); id != "" && err != nil {
			return err
		}
	}
	return checkHost(s.PrimaryHost)
}
