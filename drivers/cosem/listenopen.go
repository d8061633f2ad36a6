package cosem

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/security"
)

// opened is a notification in the clear, and what protected it.
type opened struct {
	plain  []byte
	known  *Known // nil is none of the meters
	byHost bool   // known is, and by nothing else
	title  security.Title
	policy security.Policy // what was done to it
	Protection
}

// host is whom a notification is remembered of: the title, where there is one.
func (o *opened) host(from Sender) Sender {
	if o.title.IsZero() {
		return from.host()
	}
	return Sender{}
}

func isSealed(apdu []byte) bool {
	return security.IsProtected(apdu[0]) || apdu[0] == security.TagGeneralCiphering
}

// candidate is somebody who may have sent a notification.
type candidate struct {
	known *Known
	title security.Title
	Protection
}

// candidates gives who may have sent what is protected under title; zero is not
// told.
func (r *Receiver) candidates(from Sender, title security.Title) (all []candidate) {
	host := from.Net.Addr().Unmap()
	isAt := func(m *Known) bool { return m.Host.IsValid() && m.Host.Unmap() == host }
	for i := range r.Meters {
		m := &r.Meters[i]
		switch {
		case !title.IsZero() && m.Title == title:
			return []candidate{{m, title, m.Protection}}
		case title.IsZero() && m.Title.IsZero(): // nothing to open it with
		case title.IsZero() && isAt(m), !title.IsZero() && m.Title.IsZero() && isAt(m):
			all = append(all, candidate{m, title, m.Protection})
		}
	}
	for i := range all {
		if title.IsZero() {
			all[i].title = all[i].known.Title
		}
	}
	switch {
	case len(all) > 0 || title.IsZero() && r.MeterTitle.IsZero():
	case title.IsZero():
		return []candidate{{nil, r.MeterTitle, r.Protection}}
	default:
		return []candidate{{nil, title, r.Protection}}
	}
	if len(all) > 0 {
		return all
	}
	// Anywhere: the authentication tag tells whose it is.
	for i := range r.Meters {
		if m := &r.Meters[i]; !m.Title.IsZero() && !m.Host.IsValid() && m.Policy.Covers(security.Authenticated) {
			all = append(all, candidate{m, m.Title, m.Protection})
		}
	}
	return all
}

// open deciphers an APDU that is ciphered.
func (r *Receiver) open(from Sender, apdu []byte) (opened, error) {
	switch {
	case !isSealed(apdu):
		return r.inClear(from, apdu)
	case apdu[0] == security.TagGeneralCiphering:
		return r.openGeneral(from, apdu)
	}
	p, err := security.Parse(apdu)
	if err != nil {
		return opened{}, err
	}
	what := func() string {
		return fmt.Sprintf("suite %d, %v, from system title %v", uint8(p.Control.Suite()), p.Control.Policy(), p.Title)
	}
	all := r.candidates(from, p.Title)
	if len(all) == 0 {
		if r.Keys.Encryption.IsZero() && len(r.Meters) == 0 {
			return opened{}, fmt.Errorf("%w (suite %d, %v)", ErrKeyMissing, uint8(p.Control.Suite()), p.Control.Policy())
		}
		return opened{}, ErrTitleMissing
	}
	for _, c := range all {
		if c.Keys.Encryption.IsZero() {
			err = errors.Join(err, fmt.Errorf("%w (%s)", ErrKeyMissing, what()))
			continue
		}
		plain, oerr := r.opened(c, p.Control, func(o security.Receiver) ([]byte, error) { return o.Unprotect(nil, apdu) })
		if oerr == nil {
			return opened{plain: plain, known: c.known, title: c.title, policy: p.Control.Policy(), Protection: c.Protection}, nil
		}
		if err == nil || errors.Is(oerr, security.ErrReplay) {
			err = fmt.Errorf("%w (%s)", oerr, what())
		}
	}
	return opened{}, err
}

func (r *Receiver) opener(c candidate) security.Receiver {
	window := r.Received
	if window == nil {
		window = &r.window
	}
	return security.Receiver{
		Suite: c.Suite, Policy: c.Policy, Title: c.title, Keys: c.Keys, Direction: security.Unasked, Window: window,
	}
}

// opened has do open what is protected like that. What is encrypted only anybody
// may have sent: it raises no counter unless it opens to a notification.
func (r *Receiver) opened(c candidate, control security.Control, do func(security.Receiver) ([]byte, error)) ([]byte, error) {
	opener := r.opener(c)
	if !control.Policy().Covers(security.Authenticated) {
		trial := opener
		trial.Window = &security.Window{}
		plain, err := do(trial)
		if err == nil {
			_, err = dlms.ParseNotification(plain)
		}
		if err != nil {
			return nil, err
		}
	}
	return do(opener)
}

// inClear takes what is not ciphered. Of several meters behind one modem the
// serial number tells: see recognise.
func (r *Receiver) inClear(from Sender, apdu []byte) (opened, error) {
	o := opened{plain: apdu}
	for i := range r.Meters {
		if m := &r.Meters[i]; m.Host.IsValid() && m.Host.Unmap() == from.Net.Addr().Unmap() {
			if o.known != nil {
				return opened{plain: apdu}, nil
			}
			o.known, o.byHost, o.Protection = m, true, m.Protection
		}
	}
	return o, r.enough(&o)
}

// enough says whether enough was done to a notification, by whose it is.
func (r *Receiver) enough(o *opened) error {
	least := r.Policy
	switch {
	case o.known != nil:
		least = o.known.Policy
	case len(r.Meters) > 0:
		return nil // not yet known
	}
	if !o.policy.Covers(least) {
		return fmt.Errorf("%w: %v, want %v", security.ErrWeak, o.policy, least)
	}
	return nil
}

// openGeneral deciphers general-ciphering under one of the global keys.
func (r *Receiver) openGeneral(from Sender, apdu []byte) (opened, error) {
	g, err := security.ParseGeneralCiphering(apdu)
	if err != nil {
		return opened{}, err
	}
	title, err := security.ParseTitle(g.Originator)
	if err != nil {
		return opened{}, fmt.Errorf("originator: %w", err)
	}
	if title.IsZero() {
		return opened{}, fmt.Errorf("originator: %w: it is zero", security.ErrTitle)
	}
	c := r.candidates(from, title)[0] // a title has candidates
	key := c.Keys.Encryption
	if g.Key.Choice == security.IdentifiedKey && g.Key.ID == 1 {
		key = c.Keys.Broadcast
	}
	switch {
	case g.Key.Choice != security.NoKeyInfo && g.Key.Choice != security.IdentifiedKey:
		return opened{}, fmt.Errorf("%w: general-ciphering under a key that is wrapped or agreed", ErrKeyMissing)
	case key.IsZero():
		return opened{}, fmt.Errorf("%w (suite %d, %v, from system title %v)", ErrKeyMissing, uint8(g.Control.Suite()), g.Control.Policy(), title)
	}
	plain, err := r.opened(c, g.Control, func(o security.Receiver) ([]byte, error) { return o.OpenGeneral(nil, &g, key) })
	if err != nil {
		return opened{}, err
	}
	if len(plain) == 0 {
		return opened{}, fmt.Errorf("%w: an empty apdu", security.ErrMalformed)
	}
	return opened{plain: plain, known: c.known, title: title, policy: g.Control.Policy(), Protection: c.Protection}, nil
}

// confirmation gives the answer as the sender takes it: protected as what it
// answers was, in the general form, since it has none of its own.
func (r *Receiver) confirmation(o *opened, plain []byte) ([]byte, error) {
	switch {
	case o.policy == security.Unprotected:
		return plain, nil
	case r.Title.IsZero() || r.Counters == nil:
		return nil, errors.New("it has to be ciphered, with a system title of our own and counters")
	}
	counter, err := r.counter(o.Keys.Encryption)
	if err != nil {
		return nil, err
	}
	s := security.Sender{Suite: o.Suite, Policy: o.policy, Title: r.Title, Keys: o.Keys, Counter: counter}
	return s.Protect(nil, plain, security.Unicast, true)
}

// counter gives the counters of our title under a key. Those of a key that the
// store does not know begin by the time, one for every second since 2000: what
// was used before is below that.
func (r *Receiver) counter(key security.Key) (*security.Counter, error) {
	id := key.ID()
	if c := r.counters[id]; c != nil {
		return c, nil
	}
	known, err := r.Counters.KnownCounters(r.Title, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCounter, err)
	}
	if !known {
		now := time.UnixMilli(r.Now().Time)
		if now.Before(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
			return nil, fmt.Errorf("%w: a new one begins by the time, and the clock of this machine is at %s", ErrCounter, now.UTC().Format(time.DateOnly))
		}
		next := uint32(now.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) / time.Second)
		if err := r.Counters.Raise(r.Title, id, next); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCounter, err)
		}
	}
	if r.counters == nil {
		r.counters = map[security.KeyID]*security.Counter{}
	}
	r.counters[id] = security.NewCounter(r.Counters, r.Title, key, counterStep)
	return r.counters[id], nil
}

// digest stands for a notification and who sent it.
type digest [16]byte

func digestOf(from Sender, title security.Title, apdu []byte) (d digest) {
	h := sha256.New()
	fmt.Fprintf(h, "%v %d %q %v ", from.Net, from.Port, from.Line, from.Station)
	h.Write(title[:])
	h.Write(apdu)
	copy(d[:], h.Sum(nil))
	return d
}

// maxRecent is how many notifications are remembered: far more than come in
// the time in which senders repeat themselves.
const maxRecent = 1024

// recent remembers the last notifications and what was answered.
type recent struct {
	answers map[digest][]byte
	ring    []digest
	next    int
}

func (m *recent) has(d digest) (answer []byte, ok bool) {
	answer, ok = m.answers[d]
	return answer, ok
}

func (m *recent) note(d digest, answer []byte) {
	if m.answers == nil {
		m.answers = map[digest][]byte{}
	}
	if _, ok := m.answers[d]; ok {
		m.answers[d] = answer
		return
	}
	m.answers[d] = answer
	if len(m.ring) < maxRecent {
		m.ring = append(m.ring, d)
		return
	}
	delete(m.answers, m.ring[m.next])
	m.ring[m.next] = d
	m.next = (m.next + 1) % maxRecent
}
