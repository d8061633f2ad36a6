package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// laneRetry is how long a lane that cannot be read is left alone.
const laneRetry = time.Minute

// session is one connection.
type session struct {
	u         *Uplink
	conn      *mqtt.Conn
	pace      pace
	flight    []sent              // published, without PUBACK, in order
	announced map[batch.Hash]bool // catalogues that the broker has from this session
	up        bool                // a PUBACK has come
	retry     time.Time           // when to look again at lanes with a fault

	mail    *mailbox
	heard   chan error     // how subscribing went
	hearing sync.WaitGroup // for what is asked of the broker
	parts   fetching
	search  *search // for a better path

	rested    time.Duration // before stirred nothing passed, and nothing has come since; 0 is not so
	stirred   time.Time
	pong      <-chan struct{} // of a ping, sent at pinged; nil when none is under way
	pinged    time.Time
	told      []byte           // the state as published
	repair    *message         // cut for the fog and not yet published
	repairing bool             // a message of repair has no PUBACK yet
	repairAt  time.Time        // when the next may go out
	renew     bool             // the catalogue is to be published whether it is needed or not
	asked     *batch.Catalogue // that the fog wants
	askedAt   time.Time        // when it last got one
}

// sent is a message under way.
type sent struct {
	*message
	token mqtt.Token
	mark  mark
}

// run sends until the connection ends, which gives why, or until ctx is
// cancelled, which gives nil.
func (s *session) run(ctx context.Context) error {
	s.heard = make(chan error, 1)
	defer s.hearing.Wait() // it ends with the connection
	filters := s.u.filters(s.conn.Resumed())
	s.parts.underWay = map[[16]byte]bool{}
	s.u.cfg.Parts.begins(s.conn.Resumed())
	defer s.u.cfg.Parts.waitsFor(noLink)
	s.hearing.Go(func() { s.heard <- s.conn.SubscribeAll(ctx, filters, s.mail.put) })
	s.search = s.u.newSearch(ctx, s.u.path)
	err := s.loop(ctx)
	if l := s.search.end(); l != nil {
		s.u.found, err = l, errMoved
	}
	switch {
	case ctx.Err() == nil && errors.Is(err, errMoved):
		s.stop(ctx, errMoved)
	case ctx.Err() == nil:
		if s.rested > 0 {
			s.u.rest.died(s.rested, time.Now())
		}
		s.conn.Abort(err)
		<-s.conn.Done()
		if !errors.Is(err, errStore) {
			err = s.conn.Err() // the same with the broker's address
		}
	default:
		s.stop(ctx, errStopped)
		err = nil
	}
	lost := make(map[*lane][]*message)
	for _, m := range s.flight {
		if m.lane != nil && m.resend == nil {
			lost[m.lane] = append(lost[m.lane], m.message)
		}
	}
	for _, l := range s.u.lanes {
		l.again(lost[l], s.u.names(l).Hash())
	}
	return err
}

// loop sends and collects PUBACKs.
func (s *session) loop(ctx context.Context) error {
	s.u.connected = time.Now()
	s.u.expect(s.u.connected)
	if err := s.tell(ctx); err != nil {
		return err
	}
	s.renew = !s.u.catalogue.Empty() // the broker may have lost what it retained
	for {
		s.u.resendAsked()
		s.u.pulse()
		if err := s.fill(ctx); err != nil {
			return err
		}
		s.fetch(ctx)
		if err := s.wait(ctx); err != nil {
			return err
		}
		s.listen(time.Now())
		s.u.settle(time.Now())
		if err := s.tell(ctx); err != nil {
			return err
		}
	}
}

// tell publishes the state when it is another than the broker has.
func (s *session) tell(ctx context.Context) error {
	if u, at := s.u, time.Now(); u.restated.Swap(false) || s.told == nil || !at.Before(u.retell) {
		u.members, u.retell = u.more(), at.Add(u.cfg.StateEvery)
		if s.told == nil { // what waited is on its way then
			u.retell = at.Add(u.cfg.StateEvery / 12)
		}
	}
	now := s.u.online()
	if bytes.Equal(now, s.told) {
		return nil
	}
	s.told = now
	return s.publish(ctx, s.state(now))
}

// wait waits for whatever comes next and deals with it.
func (s *session) wait(ctx context.Context) error {
	var oldest <-chan struct{}
	if len(s.flight) > 0 {
		oldest = s.flight[0].token.Done()
	}
	timer := time.NewTimer(time.Until(s.next()))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.conn.Done():
		return s.conn.Err()
	case <-oldest:
		return s.collect()
	case <-s.mail.kick:
		return s.hear()
	case <-s.u.cfg.Outbox.kicks():
	case <-s.pong:
		s.pong = nil
		s.proven()
	case <-s.u.cfg.Parts.kicks():
	case r := <-s.parts.round:
		s.askedFor(r)
	case l := <-s.search.found:
		s.search.found <- l // run takes it
		return errMoved
	case err := <-s.heard:
		s.u.hears(err)
		s.parts.may = true
	case <-s.u.cfg.Wake:
		for _, l := range s.u.lanes {
			l.empty = false
		}
	case now := <-timer.C:
		if len(s.flight) > 0 && !now.Before(s.overdue()) {
			return fmt.Errorf("no PUBACK for %v", now.Sub(s.pace.lastAck).Round(time.Second))
		}
		if s.pong != nil && !now.Before(s.since(s.pinged).Add(s.pace.patience())) {
			return fmt.Errorf("no answer to a ping for %v, after %v without traffic", now.Sub(s.pinged).Round(time.Second), s.rested.Round(time.Second))
		}
		s.prove(now)
		s.lack(now)
		s.u.doubts(now)
	}
	return nil
}

// overdue is when the PUBACK of what is under way is too late.
func (s *session) overdue() time.Time { return s.since(s.pace.lastAck).Add(s.pace.patience()) }

// since is when to begin to wait for what the broker may say since t: it says
// nothing else amid a long message.
func (s *session) since(t time.Time) time.Time {
	if amid := s.conn.Amid(); amid.After(t) {
		return amid
	}
	return t
}

// next is when there is something to do, if nothing comes before.
func (s *session) next() time.Time {
	now := time.Now()
	first := now.Add(time.Hour)
	if s.u.cfg.Pulse != nil {
		first = now.Add(pulseEvery)
	}
	sooner := func(t time.Time) {
		if t.Before(first) {
			first = t
		}
	}
	switch {
	case len(s.flight) > 0:
		sooner(s.overdue())
	case s.pong != nil:
		sooner(s.since(s.pinged).Add(s.pace.patience()))
	default:
		sooner(s.quiet())
	}
	if s.retry.After(now) {
		sooner(s.retry)
	}
	if s.parts.again.After(now) {
		sooner(s.parts.again)
	}
	if len(s.parts.underWay) > 0 && s.pong == nil {
		sooner(s.silent())
	}
	if s.u.cfg.State != nil {
		sooner(s.u.retell)
	}
	if s.asked != nil {
		sooner(s.askedAt.Add(catalogueEvery))
	}
	if len(s.u.resends) > 0 && s.repairAt.After(now) {
		sooner(s.repairAt)
	}
	if s.u.withheld {
		sooner(s.u.spending.to)
	}
	for _, l := range s.u.lanes {
		if l.heldTo.After(now) {
			sooner(l.heldTo)
		}
		if !l.fog.since.IsZero() {
			sooner(l.fog.until())
		}
	}
	return first
}

// fill publishes as much as may be under way.
func (s *session) fill(ctx context.Context) error {
	for {
		if s.asked != nil && !time.Now().Before(s.askedAt.Add(catalogueEvery)) {
			c := s.asked
			s.asked, s.askedAt = nil, time.Now()
			if err := s.publish(ctx, s.u.catalogueMessage(c)); err != nil {
				return err
			}
		}
		m := s.choose()
		if m == nil || m.lane != nil && m.lane.id != meter.Alarm {
			if err := s.say(ctx); err != nil {
				return err
			}
		}
		if s.renew && (m == nil || m.lane.own == nil) {
			s.renew = false
			if err := s.announce(ctx, s.u.catalogue); err != nil {
				return err
			}
			continue
		}
		if m == nil {
			return nil
		}
		if !s.announced[m.catalogue] {
			if err := s.announce(ctx, s.u.names(m.lane)); err != nil {
				return err
			}
			if m.lane.own == nil {
				// The PUBACK of the catalogue comes first; another lane would
				// name the same one.
				return nil
			}
			// An alarm goes right behind its own.
		}
		if err := s.publish(ctx, m); err != nil {
			return err
		}
		if m.resend != nil {
			s.sentAgain(m)
			continue
		}
		s.u.serve(m)
		m.lane.ready = m.lane.ready[1:]
		m.lane.sent = max(m.lane.sent, m.last)
	}
}

// choose gives the message to send now, nil when there is none or the window
// is full. It stays where it is until it is published.
func (s *session) choose() *message {
	for i, l := range s.order() {
		room := s.pace.window() - s.pace.flight
		if i == 0 {
			// The most important lane need not wait for a PUBACK, least of all for
			// that of a catalogue.
			room += minMessage + s.catalogues()
			if l.id == meter.Alarm && len(s.parts.underWay) > 0 { // PUBACKs come behind them
				room += partRoom
			}
		}
		if room <= 0 {
			continue
		}
		if l.id == meter.Interval { // what the fog asked for comes after live alarms and bills
			if m := s.mend(); m != nil {
				return m
			}
		}
		if l.stalled() || s.u.waits(l.id) {
			continue
		}
		if len(l.ready) == 0 {
			s.prepare(l)
		}
		if len(l.ready) > 0 {
			return l.ready[0]
		}
	}
	return nil
}

// prepare cuts a lane's next message. A lane that cannot be read does not stop
// the others.
func (s *session) prepare(l *lane) {
	if l.empty || l.fault != nil && time.Now().Before(s.retry) {
		return
	}
	limit := s.pace.message(s.u.cfg.MaxMessage)
	held, until := s.u.held(l, time.Now(), l.fullMessage(limit))
	if l.heldTo = until; held {
		return
	}
	m, err := s.u.cut(l, l.taken, math.MaxUint64, limit, false)
	switch {
	case err != nil:
		if l.fault == nil {
			s.u.cfg.Log.Error("lane cannot be sent", "lane", l.id.String(), "error", err)
		}
		s.retry = time.Now().Add(laneRetry)
	case m == nil:
		l.emptied()
	default:
		l.ready = append(l.ready, m)
		l.taken = m.last
	}
	if (err == nil) != (l.fault == nil) {
		s.u.faults(l, err)
	}
}

// announce publishes a catalogue as it is now, once a session. Batches that name
// it wait for its PUBACK, but for alarms.
func (s *session) announce(ctx context.Context, c *batch.Catalogue) error {
	u := s.u
	hash := c.Hash()
	if slices.ContainsFunc(s.flight, func(f sent) bool { return f.kind == mqtt.Catalogue && f.catalogue == hash }) {
		return nil
	}
	if err := u.save(ctx); err != nil {
		// What it is for, a start that goes on with it, is worth less than the
		// rows: on a full disk only what is acknowledged makes room.
		u.cfg.Log.Warn("the catalogue cannot be stored and is sent all the same", "error", err)
	}
	u.keepEarlier(c)
	return s.publish(ctx, u.catalogueMessage(c))
}

func (s *session) state(payload []byte) *message {
	return &message{kind: mqtt.State, topic: mqtt.StateTopic(s.u.cfg.Site, s.u.cfg.Gateway), payload: payload, retained: true}
}

func (s *session) publish(ctx context.Context, m *message) error {
	s.stir(time.Now())
	mark := s.pace.sent(time.Now(), m.size())
	token, err := s.conn.Publish(ctx, m.topic, m.retained, m.payload)
	if err != nil {
		s.pace.flight -= m.size()
		return err
	}
	m.tries++
	s.flight = append(s.flight, sent{m, token, mark})
	s.u.count(func(st *Stats) {
		st.Bytes += uint64(m.size())
		if m.kind == mqtt.Readings {
			st.Batches++
			l := &st.Lanes[m.lane.id]
			l.Batches++
			l.Bytes += uint64(m.size())
		}
	})
	return nil
}

// collect takes the PUBACKs that have come, from the oldest message on, so that
// what is removed from the store is always a prefix of its lane. (Brokers
// acknowledge in order; one that does not only delays the removal.)
func (s *session) collect() error {
	for len(s.flight) > 0 {
		f := s.flight[0]
		select {
		case <-f.token.Done():
		default:
			return nil
		}
		if err := f.token.Err(); err != nil {
			return err
		}
		s.pace.acked(time.Now(), f.mark)
		s.flight = s.flight[1:]
		if err := s.confirmed(f.message); err != nil {
			return err
		}
	}
	return nil
}

// confirmed does what a PUBACK means.
func (s *session) confirmed(m *message) error {
	if !s.up {
		s.up = true
		s.u.up()
	}
	switch m.kind {
	case mqtt.Readings:
		if m.resend != nil {
			s.mended(m)
			break
		}
		if err := s.u.arrived(m, time.Now()); err != nil {
			return err
		}
		s.u.count(func(st *Stats) { st.Rows += uint64(m.rows) })
	case mqtt.Catalogue:
		s.announced[m.catalogue] = true
	default:
		if m.letter != nil {
			s.u.cfg.Outbox.arrived(m.letter)
		}
	}
	s.u.count(func(st *Stats) {
		st.Rest = s.u.rest.limit()
		st.Window, st.Rate, st.Puback = s.pace.window(), s.pace.rate(), s.pace.smoothed
	})
	return nil
}

var errStopped = errors.New("stopped")

// stop ends the connection in order: PUBACKs of what is under way, offline on
// the state topic, DISCONNECT. When that takes longer than StopGrace the
// connection is cut, and the broker publishes the will.
func (s *session) stop(ctx context.Context, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.u.cfg.StopGrace)
	defer cancel()
	err := s.publish(ctx, s.state(s.u.offline(why.Error())))
	for err == nil && len(s.flight) > 0 {
		select {
		case <-s.flight[0].token.Done():
			err = s.collect()
		case <-s.conn.Done():
			err = s.conn.Err()
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		s.conn.Abort(why)
		<-s.conn.Done()
		s.u.cfg.Log.Warn("uplink stopped with messages under way", "messages", len(s.flight), "error", err)
		return
	}
	s.conn.Close()
}
