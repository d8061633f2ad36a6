package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"gridgate/internal/backoff"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

const (
	// actEvery is how often a site looks for what it has to tell.
	actEvery = 200 * time.Millisecond
	// tellEvery is how often a gateway is told how far a stream is, at most.
	tellEvery = time.Second
	// repeatEvery is how often it is told the same again, when it sends what it
	// was told of: the broker may have lost it.
	repeatEvery = 5 * time.Second
	// catalogueEvery is how often a gateway is asked for its catalogue.
	catalogueEvery = 10 * time.Second
	// maxLetters bounds the dead letters that wait to be published.
	maxLetters = 1000
)

// site is a site that this member holds: a connection to the broker with a
// session that belongs to the site, so that what the broker has for it goes to
// whoever holds it next.
type site struct {
	name   string
	cfg    *Config
	log    *slog.Logger
	inbox  *inbox
	counts *counters
	client string // id at the broker

	mu       sync.Mutex
	follows  map[streamKey]*follow
	gateways map[string]*gateway
	zone     string // that the database knows of
	dead     []deadLetter
}

// gateway is what is known of a gateway.
type gateway struct {
	offline bool   // by its state
	epoch   uint64 // likewise; 0 is not known
	zone    string // likewise; "" is not known
	wants   bool   // its catalogue is to be asked for
	asked   time.Time
}

func newSite(name, installation string, cfg *Config, in *inbox, counts *counters, follows map[streamKey]*follow) *site {
	return &site{
		name: name, cfg: cfg, log: cfg.Log.With("site", name), inbox: in, counts: counts,
		client: "gridfog-ingest-" + installation + "-" + name, follows: follows, gateways: map[string]*gateway{},
	}
}

// run keeps a connection until ctx is cancelled.
func (s *site) run(ctx context.Context) error {
	pause := backoff.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	said, subscribed := "", false
	for ctx.Err() == nil {
		err := s.once(ctx, func() {
			pause.Reset()
			if !subscribed { // from now on the broker keeps what gateways send
				s.log.Info("subscribed")
			}
			subscribed = true
			if said != "" {
				s.log.Info("the broker is back")
			}
			said = ""
		})
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			s.log.Warn("no connection to the broker; trying again", "error", err)
		}
		if ctx.Err() == nil {
			_ = pause.Wait(ctx) // the loop looks at ctx
		}
	}
	return nil
}

// once is one connection.
func (s *site) once(ctx context.Context, connected func()) error {
	o := s.cfg.MQTT
	o.ClientID, o.Persistent, o.OwnAcks = s.client, true, true
	taken := make(chan *mqtt.Conn, 1)
	o.Handler = func(m mqtt.Message) { s.take(m, taken) }
	conn, err := mqtt.Dial(ctx, o)
	if err != nil {
		return err
	}
	taken <- conn
	defer conn.Close()
	if err := conn.Subscribe(ctx, mqtt.UpFilter(meter.ID(s.name), ""), o.Handler); err != nil {
		return err
	}
	if err := conn.Subscribe(ctx, mqtt.AckFilter(meter.ID(s.name), ""), o.Handler); errors.Is(err, mqtt.ErrRefused) {
		s.log.Warn("what was confirmed earlier cannot be read at the broker", "error", err)
	} else if err != nil {
		return err
	}
	s.tellAgain()
	connected()
	tick := time.NewTicker(actEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			s.settle(ctx, conn)
			return nil
		case <-conn.Done():
			return conn.Err()
		case <-tick.C:
		}
		if err := s.act(ctx, conn, time.Now()); err != nil {
			return err
		}
	}
}

// settle tells gateways what was stored last, before the connection is closed.
func (s *site) settle(ctx context.Context, conn *mqtt.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	s.mu.Lock()
	for _, f := range s.follows {
		f.told = time.Time{}
	}
	s.mu.Unlock()
	if s.act(ctx, conn, time.Now()) != nil {
		return
	}
	select { // what was published last has time to get there
	case <-conn.Ping():
	case <-conn.Done():
	case <-ctx.Done():
	}
}

var errFull = errors.New("more comes than the database takes")

// take takes a message from the connection's goroutine. taken has the
// connection.
func (s *site) take(m mqtt.Message, taken chan *mqtt.Conn) {
	topic, err := mqtt.ParseTopic(m.Topic)
	l := &letter{topic: topic, name: m.Topic, payload: m.Payload, at: time.Now(), from: s, ack: m.Ack}
	switch {
	case errors.Is(err, mqtt.ErrForeignTopic), len(m.Payload) == 0 && err == nil:
		m.Ack() // a kind of message that is not for us, or one that was taken back
		return
	case err != nil:
		l.topic.Site = meter.ID(s.name)
		l.fault = refused(reasonTopic, "%v", err)
	case topic.Kind == mqtt.State:
		s.state(topic, m.Payload)
		m.Ack()
		return
	case topic.Kind == mqtt.Acknowledgement:
		if m.Retained {
			s.confirmedEarlier(topic, m.Payload)
		}
		m.Ack()
		return
	case topic.Kind != mqtt.Readings && topic.Kind != mqtt.Catalogue:
		m.Ack()
		return
	}
	if !s.inbox.put(l) {
		conn := <-taken
		taken <- conn
		conn.Abort(errFull) // the broker keeps it, and the rest
	}
}

// state notes what a gateway says of itself.
func (s *site) state(topic mqtt.Topic, payload []byte) {
	var told struct {
		State, Epoch string
		Zone         string `json:"time_zone"`
	}
	if json.Unmarshal(payload, &told) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gateway(string(topic.Gateway))
	if back := g.offline; back {
		for k, f := range s.follows {
			if k.Gateway == string(topic.Gateway) {
				f.next = time.Time{}
			}
		}
	}
	g.offline = told.State == "offline"
	if e, err := strconv.ParseUint(told.Epoch, 16, 64); err == nil {
		g.epoch = e
	}
	if isZone(told.Zone) {
		g.zone = told.Zone
	}
}

// gateway gives what is known of a gateway; s.mu is held.
func (s *site) gateway(name string) *gateway {
	g := s.gateways[name]
	if g == nil {
		g = &gateway{}
		s.gateways[name] = g
	}
	return g
}

// confirmedEarlier takes what a fog has confirmed: what this database lacks of
// it the gateway does not keep for us. It is asked for, and not waited for.
func (s *site) confirmedEarlier(topic mqtt.Topic, payload []byte) {
	c, err := mqtt.ParseConfirmation(payload)
	if err != nil || c.Sequence > maxNumber {
		return
	}
	key := streamKey{string(topic.Site), string(topic.Gateway), c.Epoch, topic.Lane}
	s.mu.Lock()
	f := s.follows[key]
	if f == nil {
		f = &follow{}
		s.follows[key] = f
	}
	first := f.through + 1
	known := f.through >= int64(c.Sequence) || f.earlier >= int64(c.Sequence)
	f.earlier = max(f.earlier, int64(c.Sequence))
	if !known {
		f.history = append(f.history, stretch{first, int64(c.Sequence)})
	}
	s.mu.Unlock()
	if !known {
		s.giveUp(key, numbers{{first, int64(c.Sequence)}}, reasonEarlier)
	}
}

// giveUp has numbers noted as lost.
func (s *site) giveUp(key streamKey, gaps numbers, reason string) {
	for _, g := range gaps {
		s.inbox.put(&letter{
			topic: mqtt.Topic{Site: meter.ID(key.Site), Gateway: meter.ID(key.Gateway), Lane: key.Lane}, at: time.Now(), from: s,
			ack: func() {}, loss: &loss{key, g.first, g.last, reason},
		})
	}
}

// settled is called after a commit.
func (s *site) settled(key streamKey, p progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.follows[key]
	if f == nil {
		f = &follow{}
		s.follows[key] = f
	}
	f.update(p, time.Now(), s.cfg.AskAfter)
}

// refused is called after a commit.
func (s *site) refused(d deadLetter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log.Warn("refused", "topic", d.letter.name, "reason", d.reason, "detail", d.detail, "bytes", len(d.letter.payload))
	if len(s.dead) < maxLetters {
		s.dead = append(s.dead, d)
	}
}

// wantsCatalogue is called when a catalogue is not known.
func (s *site) wantsCatalogue(gateway string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway(gateway).wants = true
}

// message is what a site publishes.
type message struct {
	topic    string
	retained bool
	payload  []byte
}

// act publishes what is due.
func (s *site) act(ctx context.Context, conn *mqtt.Conn, now time.Time) error {
	for _, m := range s.due(now) {
		if _, err := conn.Publish(ctx, m.topic, m.retained, m.payload); err != nil {
			return err
		}
	}
	return nil
}

// due gives what is to be published now.
func (s *site) due(now time.Time) (all []message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := meter.ID(s.name)
	for key, f := range s.follows {
		gw := meter.ID(key.Gateway)
		// The topic is one for all epochs: what was a store's before must not come
		// to stand where the gateway looks for its own.
		if g := s.gateways[key.Gateway]; (g == nil || g.epoch == 0 || g.epoch == key.Epoch) && f.tells(now) {
			all = append(all, message{mqtt.AckTopic(id, gw, key.Lane), true, mqtt.Confirmation{Epoch: key.Epoch, Sequence: uint64(f.through)}.AppendJSON(nil)})
		}
		for _, r := range s.asks(key, f, now) {
			all = append(all, message{mqtt.ResendTopic(id, gw, key.Lane), false, mqtt.Range{Epoch: key.Epoch, First: uint64(r.first), Last: uint64(r.last)}.AppendJSON(nil)})
			s.counts.add(func(c *Counts) { c.Asked++ })
		}
	}
	for name, g := range s.gateways {
		if g.wants && now.Sub(g.asked) >= catalogueEvery {
			g.wants, g.asked = false, now
			all = append(all, message{mqtt.CatalogueRequestTopic(id, meter.ID(name)), false, []byte("{}")})
		}
	}
	for _, d := range s.dead {
		all = append(all, message{s.cfg.DeadLetters + "/" + s.name + "/" + gatewayText(d.letter), false, d.json()})
	}
	s.dead = nil
	return all
}

func gatewayText(l *letter) string {
	if l.topic.Gateway == "" {
		return "_"
	}
	return string(l.topic.Gateway)
}

// maxPublished is how much of a dead letter's payload is published, in bytes.
const maxPublished = 64 << 10

// json is what is published of a dead letter; the payload is in base64.
func (d deadLetter) json() []byte {
	b, err := json.Marshal(struct {
		Topic   string `json:"topic"`
		Reason  string `json:"reason"`
		Detail  string `json:"detail"`
		Size    int    `json:"size"`
		Payload []byte `json:"payload"`
	}{d.letter.name, d.reason, d.detail, len(d.letter.payload), d.letter.payload[:min(len(d.letter.payload), maxPublished)]})
	if err != nil {
		return fmt.Appendf(nil, `{"reason":%q}`, d.reason)
	}
	return b
}
