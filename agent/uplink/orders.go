package uplink

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// Order is a signed document as it came from the fog. Nobody has verified it.
type Order struct {
	Name     string   // trust, config, command or firmware, as its topic says
	Group    meter.ID // whose members it was sent to; empty: it was sent to us
	Payload  []byte
	Retained bool
	TooLong  bool // longer than any document: Payload is its beginning
}

// Outbox holds what is to be said to the fog beside readings, until the broker
// has it; it outlives uplinks. The zero value cannot be used: see NewOutbox.
type Outbox struct {
	kick chan struct{}

	mu      sync.Mutex
	letters []*letter
	asked   []asked
}

// asked is a range that somebody at the gateway has sent again.
type asked struct {
	lane        meter.Lane
	first, last uint64
}

// Again has numbers of a lane sent again, as if the fog had asked for them. It
// gives false when too much is waiting already.
func (o *Outbox) Again(lane meter.Lane, first, last uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !lane.Valid() || len(o.asked) >= maxResends {
		return false
	}
	o.asked = append(o.asked, asked{lane, first, last})
	select {
	case o.kick <- struct{}{}:
	default:
	}
	return true
}

// again takes the ranges that are to be sent again.
func (o *Outbox) again() []asked {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.asked
	o.asked = nil
	return all
}

// resendAsked does what Again asks for. Numbers that are not sent yet go out
// anyway.
func (u *Uplink) resendAsked() {
	for _, r := range u.cfg.Outbox.again() {
		if l := u.lanes[r.lane]; r.first <= l.sent && !u.resend(l, r.first, min(r.last, l.sent)) {
			u.cfg.Log.Warn("too much is to be sent again: a range is left out", "lane", r.lane.String(), "first", r.first, "last", r.last)
		}
	}
}

// letter is one thing to say.
type letter struct {
	topic    string
	payload  []byte
	retained bool
	arrived  func() // is told that the broker has it; may be nil
}

// maxLetters wait; the oldest gives way that nobody waits for.
const maxLetters = 256

// NewOutbox gives an empty one.
func NewOutbox() *Outbox { return &Outbox{kick: make(chan struct{}, 1)} }

// Say has payload published. What is retained takes the place of what waits for
// the same topic.
func (o *Outbox) Say(topic string, retained bool, payload []byte) {
	o.put(&letter{topic: topic, payload: payload, retained: retained})
}

// Hand has payload published too, and calls arrived when the broker has it. It
// never gives way: whoever hands over letters bounds how many there are.
func (o *Outbox) Hand(topic string, payload []byte, arrived func()) {
	o.put(&letter{topic: topic, payload: payload, arrived: arrived})
}

func (o *Outbox) put(n *letter) {
	o.mu.Lock()
	o.letters = slices.DeleteFunc(o.letters, func(l *letter) bool {
		return l.topic == n.topic && l.arrived == nil && (n.retained || bytes.Equal(l.payload, n.payload))
	})
	o.letters = append(o.letters, n)
	if len(o.letters) > maxLetters {
		if i := slices.IndexFunc(o.letters, func(l *letter) bool { return l.arrived == nil }); i >= 0 {
			o.letters = slices.Delete(o.letters, i, i+1)
		}
	}
	o.mu.Unlock()
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// Waiting says how many have not reached the broker.
func (o *Outbox) Waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.letters)
}

// next gives the oldest that is not among those that are under way.
func (o *Outbox) next(underWay func(*letter) bool) *letter {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.letters, func(l *letter) bool { return !underWay(l) })
	if i < 0 {
		return nil
	}
	return o.letters[i]
}

// arrived takes out what the broker has.
func (o *Outbox) arrived(gone *letter) {
	o.mu.Lock()
	n := len(o.letters)
	o.letters = slices.DeleteFunc(o.letters, func(l *letter) bool { return l == gone })
	first := len(o.letters) < n
	o.mu.Unlock()
	if first && gone.arrived != nil {
		gone.arrived()
	}
}

func (o *Outbox) kicks() <-chan struct{} {
	if o == nil {
		return nil
	}
	return o.kick
}

// maxLetter is how long a letter may be that need not wait for room.
const maxLetter = minMessage

// say publishes what waits in the outbox, as far as there is room; an alarm goes
// first.
func (s *session) say(ctx context.Context) error {
	for {
		l := s.u.cfg.Outbox.next(func(l *letter) bool {
			return slices.ContainsFunc(s.flight, func(f sent) bool { return f.letter == l })
		})
		if l == nil || s.pace.flight > 0 && s.pace.flight+len(l.payload) > s.pace.window()+maxLetter {
			return nil
		}
		if err := s.publish(ctx, &message{kind: mqtt.Result, topic: l.topic, payload: l.payload, retained: l.retained, letter: l}); err != nil {
			return err
		}
	}
}

// heard are the orders that this agent carries out. They are few, as all filters
// are, and exact: RabbitMQ retains nothing for others.
func heard() []string { return []string{"trust", "config", "command", "firmware"} }

// orderFilters are the topics that orders come on. Where the last retained one
// was too long, and the broker still has our session, it is not asked for again:
// what is new comes all the same.
func (u *Uplink) orderFilters(resumed bool) (all []string) {
	if u.cfg.Orders == nil {
		return nil
	}
	add := func(topic string) {
		if !resumed || !u.long[topic] {
			all = append(all, topic)
		}
	}
	for _, name := range heard() {
		add(mqtt.OrderTopic(u.cfg.Site, u.cfg.Gateway, "", name))
		for _, g := range u.cfg.Groups {
			add(mqtt.OrderTopic(u.cfg.Site, "", g, name))
		}
	}
	return all
}

// order hands on an order; known is false when it is not for us.
func (u *Uplink) order(t mqtt.Topic, m mqtt.Message) (known bool) {
	if u.cfg.Orders == nil || t.Site != u.cfg.Site {
		return false
	}
	if t.Gateway != u.cfg.Gateway && (t.Group == "" || !slices.Contains(u.cfg.Groups, t.Group)) {
		return false
	}
	if m.Retained || !m.Cut {
		u.long[m.Topic] = m.Cut
	}
	if len(m.Payload) > 0 { // else somebody took back what was retained
		u.cfg.Orders(Order{Name: t.Order, Group: t.Group, Payload: m.Payload, Retained: m.Retained, TooLong: m.Cut})
	}
	return true
}
