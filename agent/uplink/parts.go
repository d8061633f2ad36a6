package uplink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

const (
	// partSilence is how long a broker may say nothing to a question for a part
	// before it is asked for a sign of life; when that comes alone, it has none.
	partSilence = time.Minute
	// partsMost are under way at a time, where the link is fast.
	partsMost = 4
	// partQuick is how long a part takes on a fast link, partSlow on one on which
	// one is under way at a time.
	partQuick, partSlow = time.Second, 2 * time.Second
	// partRoom is how many bytes more of alarms may be under way while PUBACKs come
	// behind parts.
	partRoom = 8 << 10
	// partsYield is how often a part is asked for on a slow link while there are
	// readings to be sent: what the broker says of them comes behind it.
	partsYield = 30 * time.Second
	// partsKept is how many subscriptions are left standing, to be taken back
	// together.
	partsKept = 8
	// budgetShare is the part of a day's budget that firmware may have.
	budgetShare = 2
	// monthDays makes a day's budget of a month's.
	monthDays = 30
	// mayAgain is when to ask again whether more may be fetched.
	mayAgain = 10 * time.Second
	// recordCost is reckoned for what TLS puts around a packet, in bytes.
	recordCost = 29
)

// ErrNoPart says that the broker has no such part.
var ErrNoPart = errors.New("the broker has no such part")

// Parts is where parts of firmware are asked for; it outlives uplinks. Readings
// go first: none is asked for while alarms or bills wait, or the budget is spent.
// The zero value cannot be used: see NewParts.
type Parts struct {
	kick chan struct{}

	mu    sync.Mutex
	asks  []*partAsk
	left  map[[16]byte]bool // topics that the broker may send us something of
	waits string            // why nothing is asked for
	owed  int64             // octets of IP packets that came another way
}

// partAsk is a part that somebody waits for.
type partAsk struct {
	sum    [16]byte
	answer chan partAnswer // has room for the one
}

type partAnswer struct {
	payload []byte
	err     error
}

// NewParts gives one that nothing is asked of.
func NewParts() *Parts {
	return &Parts{kick: make(chan struct{}, 1), left: map[[16]byte]bool{}, waits: noLink}
}

const noLink = "there is no connection to the broker"

// Waits says why nothing is asked for now; empty: nothing keeps it.
func (p *Parts) Waits() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waits
}

// May says how long to wait before n octets are fetched another way than from
// the broker, for the same reasons; 0: now, and then they are counted.
func (p *Parts) May(n int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waits != "" && p.waits != noLink {
		return mayAgain
	}
	p.owed += mqtt.Carried(int(n) + recordCost)
	return 0
}

// owes takes what May has counted.
func (p *Parts) owes() (n int64) {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n, p.owed = p.owed, 0
	return n
}

// Get waits for the part whose SHA-256 begins with sum: over outages, until ctx
// ends. The caller checks the hash. The error is ErrNoPart, mqtt.ErrRefused, or
// that of ctx.
func (p *Parts) Get(ctx context.Context, sum [16]byte) ([]byte, error) {
	a := &partAsk{sum: sum, answer: make(chan partAnswer, 1)}
	p.mu.Lock()
	p.asks = append(p.asks, a)
	p.mu.Unlock()
	p.wake()
	select {
	case got := <-a.answer:
		return got.payload, got.err
	case <-ctx.Done():
		p.mu.Lock()
		p.asks = slices.DeleteFunc(p.asks, func(o *partAsk) bool { return o == a })
		p.mu.Unlock()
		p.wake() // its subscription is taken back
		return nil, ctx.Err()
	}
}

func (p *Parts) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *Parts) kicks() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.kick
}

// answers tells all who wait for a part; known is false when nobody does.
func (p *Parts) answers(sum [16]byte, got partAnswer) (known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = slices.DeleteFunc(p.asks, func(a *partAsk) bool {
		if a.sum == sum {
			a.answer <- got
			known = true
		}
		return a.sum == sum
	})
	return known
}

// wanted gives what is asked for and not under way, n at most; any says that
// something is asked for at all.
func (p *Parts) wanted(n int, underWay map[[16]byte]bool) (sums [][16]byte, any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.asks {
		if len(sums) < n && !underWay[a.sum] && !slices.Contains(sums, a.sum) {
			sums = append(sums, a.sum)
		}
	}
	for _, s := range sums {
		p.left[s] = true
	}
	return sums, len(p.asks) > 0
}

// stale gives topics that nobody waits for, when there are many or nothing else
// is asked for.
func (p *Parts) stale() (sums [][16]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.left {
		if !slices.ContainsFunc(p.asks, func(a *partAsk) bool { return a.sum == s }) {
			sums = append(sums, s)
		}
	}
	if len(sums) < partsKept && len(p.asks) > 0 {
		return nil
	}
	return sums
}

// takenBack notes what the broker sends nothing of any more.
func (p *Parts) takenBack(sums [][16]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range sums {
		delete(p.left, s)
	}
}

// begins notes a new connection: without the session before there are no
// subscriptions.
func (p *Parts) begins(resumed bool) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !resumed {
		clear(p.left)
	}
}

func (p *Parts) waitsFor(why string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits = why
}

// fetching is what a session knows of parts.
type fetching struct {
	may      bool // the first SUBSCRIBE, that of the connection, has been answered
	underWay map[[16]byte]bool
	round    chan partRound // of the one that is under way; nil: none is
	last     time.Time      // when the latest was asked for
	news     time.Time      // when the broker said something of parts, or was asked
	proving  bool           // a ping says whether the broker has them
	again    time.Time      // when to look again whether more may be asked for; zero: not before something happens
	width    int            // how many may be under way
	slow     bool           // the link is
}

// partRound is one question to the broker.
type partRound struct {
	asked, dropped [][16]byte
	err            error
}

// fetch asks for parts, as many as may be under way, and takes subscriptions
// back.
func (s *session) fetch(ctx context.Context) {
	p, f := s.u.cfg.Parts, &s.parts
	if f.again = (time.Time{}); p == nil || f.round != nil || !f.may {
		return
	}
	now := time.Now()
	why, until := s.yields(now)
	n := max(f.width, 1) - len(f.underWay)
	if why != "" {
		n = 0
	}
	sums, any := p.wanted(n, f.underWay)
	if p.waitsFor(why); any {
		f.again = until
	}
	r := partRound{asked: sums, dropped: p.stale()}
	if len(r.asked)+len(r.dropped) == 0 {
		return
	}
	for _, sum := range sums {
		f.underWay[sum], f.last, f.news = true, now, now
	}
	f.round = make(chan partRound, 1)
	s.hearing.Go(func() { // it ends with the connection
		r.err = s.askFor(ctx, r)
		f.round <- r
	})
}

// askFor does a round.
func (s *session) askFor(ctx context.Context, r partRound) error {
	topics := func(sums [][16]byte) (all []string) {
		for _, sum := range sums {
			all = append(all, mqtt.PartOfFirmware(s.u.cfg.Site, sum))
		}
		return all
	}
	var err error
	if len(r.asked) > 0 {
		s.stir(time.Now())
		err = s.conn.SubscribeAll(ctx, topics(r.asked), s.mail.put)
	}
	if len(r.dropped) == 0 || err != nil && !errors.Is(err, mqtt.ErrRefused) {
		return err
	}
	return errors.Join(err, s.conn.Unsubscribe(ctx, topics(r.dropped)...))
}

// asked takes up what came of a round.
func (s *session) askedFor(r partRound) {
	f := &s.parts
	f.round, f.news = nil, time.Now()
	switch {
	case r.err == nil:
		for _, sum := range r.dropped { // the broker may have dropped it too
			delete(f.underWay, sum)
		}
		s.u.cfg.Parts.takenBack(r.dropped)
	case errors.Is(r.err, mqtt.ErrRefused):
		for _, sum := range r.asked {
			delete(f.underWay, sum)
			s.u.cfg.Parts.answers(sum, partAnswer{err: r.err})
		}
		s.u.cfg.Parts.takenBack(r.asked)
	}
	s.u.chargeFirmware(subscribing * (len(r.asked) + len(r.dropped)))
}

// subscribing is how long a SUBSCRIBE or UNSUBSCRIBE for a part is with its
// answer, about.
const subscribing = 80

// part takes a part; known is false when nobody waits for it.
func (s *session) part(t mqtt.Topic, m mqtt.Message) (known bool) {
	p, f := s.u.cfg.Parts, &s.parts
	if p == nil || t.Site != s.u.cfg.Site {
		return false
	}
	now := time.Now()
	s.u.chargeFirmware(len(m.Payload) + len(m.Topic) + 9)
	if !f.underWay[t.Sum] { // of a process before, or it came twice
		p.mu.Lock()
		p.left[t.Sum] = true
		p.mu.Unlock()
	} else {
		s.measure(now.Sub(f.news))
		delete(f.underWay, t.Sum)
	}
	f.news, f.proving = now, false
	got := partAnswer{payload: m.Payload}
	if m.Cut {
		got = partAnswer{err: fmt.Errorf("%s: %w that is short enough", m.Topic, ErrNoPart)}
	}
	return p.answers(t.Sum, got)
}

// measure learns from how long a part took how many may be under way.
func (s *session) measure(took time.Duration) {
	f := &s.parts
	switch f.slow = took > partQuick; {
	case !f.slow:
		f.width = min(max(f.width, 1)+1, partsMost)
	case took > partSlow:
		f.width = 1
	}
}

// yields says why no part is asked for; until is when that may have passed by
// itself.
func (s *session) yields(now time.Time) (why string, until time.Time) {
	u, f := s.u, &s.parts
	const readingsFirst = "readings go first"
	switch {
	case !s.up:
		return noLink, until
	case u.firmwareSpent():
		return "the data budget of the day has nothing left for firmware", u.spending.to
	case slices.ContainsFunc(u.lanes[:meter.Billing+1], s.isWaiting), slices.ContainsFunc(s.flight, func(m sent) bool { return m.lane != nil && m.lane.id <= meter.Billing }):
		return readingsFirst, until
	case (f.slow || f.width == 0) && now.Before(f.last.Add(partsYield)) &&
		(slices.ContainsFunc(u.lanes, s.isWaiting) || slices.ContainsFunc(s.flight, func(m sent) bool { return m.kind == mqtt.Readings })):
		return readingsFirst, f.last.Add(partsYield)
	}
	return "", until
}

// isWaiting says that a lane has rows that could be sent now.
func (s *session) isWaiting(l *lane) bool {
	if l.stalled() || s.u.waits(l.id) || l.fault != nil || l.heldTo.After(time.Now()) {
		return false
	}
	return len(l.ready) > 0 || !l.empty && s.u.cfg.Store.Last(l.id) > l.taken
}

// silent is when a broker that says nothing of parts is to be proven.
func (s *session) silent() time.Time { return s.since(s.parts.news).Add(partSilence) }

// lack deals with a broker that says nothing: a ping that it answers says that
// it has none of what it was asked for.
func (s *session) lack(now time.Time) {
	f := &s.parts
	if len(f.underWay) == 0 || s.pong != nil || now.Before(s.silent()) {
		return
	}
	s.stir(now)
	f.proving = true
	s.pong, s.pinged = s.conn.Ping(), now
}

// proven is called when a ping was answered.
func (s *session) proven() {
	f := &s.parts
	if !f.proving {
		return
	}
	f.proving = false
	for sum := range f.underWay {
		s.u.cfg.Parts.answers(sum, partAnswer{err: ErrNoPart})
	}
	clear(f.underWay)
}

// chargeFirmware counts what a packet of so many bytes costs the part of the
// budget that firmware may have.
func (u *Uplink) chargeFirmware(bytes int) {
	u.spending.FirmwareBytes += mqtt.Carried(bytes + recordCost)
}

// firmwareSpent says that firmware has had its part of the day's budget.
func (u *Uplink) firmwareSpent() bool {
	b, n := u.cfg.Budget, u.spending.FirmwareBytes
	return u.withheld || b.Day > 0 && n >= b.Day/budgetShare || b.Month > 0 && n >= b.Month/monthDays/budgetShare
}
