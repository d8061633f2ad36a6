package uplink

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

const (
	// maxMail is how many messages of the fog wait to be dealt with. The oldest
	// gives way: what the fog confirms is cumulative.
	maxMail = 64
	// maxFogPatience bounds how long a lane waits for the fog before it tries
	// again.
	maxFogPatience = time.Hour
	// catalogueEvery is how often the fog gets the catalogue again at most.
	catalogueEvery = 10 * time.Second
	// maxEarlier is how many of the catalogues that were published are kept to be
	// sent again. They share their memory.
	maxEarlier = 32
)

// mailbox takes what the fog says from the connection's goroutine.
type mailbox struct {
	kick chan struct{} // has a token when there is something

	mu      sync.Mutex
	letters []mqtt.Message
	size    int // octets of their payloads
	lost    uint64
}

func newMailbox() *mailbox { return &mailbox{kick: make(chan struct{}, 1)} }

func (b *mailbox) put(m mqtt.Message) {
	b.mu.Lock()
	b.letters, b.size = append(b.letters, m), b.size+len(m.Payload)
	for len(b.letters) > maxMail || b.size > maxInbound && len(b.letters) > 1 {
		b.size -= len(b.letters[0].Payload)
		b.letters = b.letters[1:]
		b.lost++
	}
	b.mu.Unlock()
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

func (b *mailbox) empty() (letters []mqtt.Message, lost uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	letters, lost = b.letters, b.lost
	b.letters, b.size, b.lost = nil, 0, 0
	return letters, lost
}

// filters are the topics that the fog speaks on. They are few: a broker that
// replicates keeps a queue for each (docs/decisions/0016-fleet-engine.md). resumed
// says that the broker still has our session.
func (u *Uplink) filters(resumed bool) []string {
	all := []string{mqtt.CatalogueRequestTopic(u.cfg.Site, u.cfg.Gateway), mqtt.ResendFilter(u.cfg.Site, u.cfg.Gateway)}
	if u.cfg.FogConfirms {
		all = append(all, mqtt.AckFilter(u.cfg.Site, u.cfg.Gateway))
	}
	return append(all, u.orderFilters(resumed)...)
}

// hears notes whether the fog can be heard.
func (u *Uplink) hears(err error) {
	if err != nil && !errors.Is(err, mqtt.ErrRefused) {
		return // the connection is ending, and says so itself
	}
	if err != nil && u.deaf == nil {
		u.cfg.Log.Warn("the fog cannot be heard", "error", err)
	}
	u.deaf = err
	u.troubles()
}

// hear deals with what the fog said. What cannot be is ignored and counted:
// anybody may publish to a broker without access lists.
func (s *session) hear() error {
	letters, ignored := s.mail.empty()
	for _, m := range letters {
		known, err := s.letter(m)
		if err != nil {
			return err
		}
		if !known {
			ignored++
		}
	}
	if ignored > 0 {
		s.u.count(func(st *Stats) { st.Ignored += ignored })
	}
	return nil
}

// letter deals with one message; known is false when it says nothing to us.
func (s *session) letter(m mqtt.Message) (known bool, err error) {
	u := s.u
	topic, err := mqtt.ParseTopic(m.Topic)
	if err == nil && topic.Kind == mqtt.Order {
		return u.order(topic, m), nil
	}
	if err == nil && topic.Kind == mqtt.FirmwarePart {
		return s.part(topic, m), nil
	}
	if err != nil || topic.Site != u.cfg.Site || topic.Gateway != u.cfg.Gateway {
		return false, nil //nolint:nilerr // it is counted
	}
	switch topic.Kind {
	case mqtt.Acknowledgement:
		c, err := mqtt.ParseConfirmation(m.Payload)
		l := u.lanes[topic.Lane]
		if err != nil || !u.cfg.FogConfirms || c.Epoch != u.cfg.Store.Epoch() || c.Sequence > l.sent {
			return false, nil //nolint:nilerr // it is counted
		}
		return true, u.stored(l, c.Sequence, time.Now())
	case mqtt.ResendRequest:
		r, err := mqtt.ParseRange(m.Payload)
		l := u.lanes[topic.Lane]
		// A retained one would come again with every connection.
		if err != nil || m.Retained || r.Epoch != u.cfg.Store.Epoch() || r.First > l.sent {
			return false, nil //nolint:nilerr // it is counted
		}
		return u.resend(l, r.First, min(r.Last, l.sent)), nil
	case mqtt.CatalogueRequest:
		if m.Retained || u.catalogue.Empty() {
			return false, nil
		}
		want := u.catalogue
		if hash, named := mqtt.ParseCatalogueRequest(m.Payload); named && hash != want.Hash() {
			if want = u.earlier[hash]; want == nil {
				return false, nil
			}
		}
		s.asked = want
		return true, nil
	default:
	}
	return false, nil
}

// patience is how a lane waits for the fog's confirmation.
//
//	nothing waits ── PUBACK ──> waiting ── too long ──> doubt: a probe is sent
//	     ^                        │  ^                    │
//	     └── all is confirmed ────┘  └── some progress ───┘
//
// In doubt nothing but alarms and probes is sent: the fog may be away for a
// day, and rows are safer in the store than in the broker. A probe is the first
// row that is not confirmed, sent again. When the fog confirms just the probe,
// what followed it was lost too, and all of it is sent again.
type patience struct {
	base  time.Duration // at first
	now   time.Duration // until the next doubt; 0 is base
	since time.Time     // of the last progress, or the last probe; zero when nothing waits
	doubt bool
	probe uint64 // the last number of the latest probe
}

func (p *patience) until() time.Time { return p.since.Add(max(p.now, p.base)) }

// stalled says that a lane sends nothing new.
func (l *lane) stalled() bool { return l.fog.doubt && l.id != meter.Alarm }

// expect begins to wait for the fog anew, on a new connection.
func (u *Uplink) expect(now time.Time) {
	for _, l := range u.lanes {
		if !l.fog.since.IsZero() {
			l.fog.since = now
		}
	}
}

// arrived does what the PUBACK of a batch means.
func (u *Uplink) arrived(m *message, now time.Time) error {
	l := m.lane
	if m.turn == l.turn {
		l.published = max(l.published, m.last)
	}
	if u.cfg.FogConfirms {
		if l.fog.since.IsZero() && u.cfg.Store.Acked(l.id) < l.published {
			l.fog.since = now
		}
		return nil
	}
	return u.ack(l, m.last)
}

func (u *Uplink) ack(l *lane, through uint64) error {
	if err := u.cfg.Store.Ack(l.id, through); err != nil {
		return fmt.Errorf("%w: lane %s: %w", errStore, l.id, err)
	}
	return nil
}

// stored does what the fog's confirmation means.
func (u *Uplink) stored(l *lane, through uint64, now time.Time) error {
	if through <= u.cfg.Store.Acked(l.id) {
		return nil // it is retained, and comes with every connection
	}
	if err := u.ack(l, through); err != nil {
		return err
	}
	l.encoder.Confirmed(u.cfg.Store.Epoch(), through)
	p := &l.fog
	probed, doubted := p.doubt && through == p.probe, p.doubt
	switch {
	case probed:
		p.now = 0
	case doubted: // it only takes longer
		p.base = min(2*p.base, maxFogPatience/2)
		p.now = 0
	}
	p.doubt, p.probe = false, 0
	l.drop(through)
	if probed && through < l.published {
		l.rewind(through)
	}
	l.published = max(l.published, through)
	p.since = time.Time{}
	if through < l.published {
		p.since = now
	}
	if doubted {
		u.cfg.Log.Info("the fog confirms again", "lane", l.id.String(), "through", through)
		u.troubles()
	}
	return nil
}

// doubts looks for lanes that the fog does not confirm, and sends each a probe.
func (u *Uplink) doubts(now time.Time) {
	for _, l := range u.lanes {
		p := &l.fog
		if p.since.IsZero() || now.Before(p.until()) {
			continue
		}
		if !p.doubt {
			u.cfg.Log.Warn("the fog does not confirm", "lane", l.id.String(), "after", u.cfg.Store.Acked(l.id), "waited", max(p.now, p.base))
		}
		p.doubt, p.since = true, now
		p.now = min(2*max(p.now, p.base), maxFogPatience)
		u.probe(l)
		u.troubles()
	}
}
