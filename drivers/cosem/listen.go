package cosem

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

const (
	// maxSenders is how many meters may be heard at the same time: connections
	// of one listener, and senders whose blocks have not all come.
	maxSenders = 64
	// maxPush is the longest notification that is put together of blocks or
	// segments, in octets.
	maxPush = 64 << 10
	// idleTimeout is how long a connection may be silent, and frameTimeout how
	// long a frame may take that has begun, or the next block.
	idleTimeout  = time.Hour
	frameTimeout = time.Minute
)

// What becomes of notifications that are not handed on, apart from those that
// are malformed (dlms.ErrMalformed) and those that security refuses.
var (
	// ErrKeyMissing says that a notification is ciphered, and that there is no key.
	ErrKeyMissing = errors.New("ciphered, and no key is given")
	// ErrTitleMissing says that a notification is ciphered and does not tell
	// whose it is, and that nobody else does.
	ErrTitleMissing = errors.New("ciphered without the sender's system title, and none is given")
	// ErrUnknown says that the sender is none of the meters.
	ErrUnknown = errors.New("none of the meters")
	// ErrRepeated says that it came before: the sender repeats what it thinks
	// was lost. Nothing is.
	ErrRepeated = errors.New("the same again, passed over")
	// ErrUnanswered says that the sender waits for an answer that cannot be
	// given. What it sent was handed on.
	ErrUnanswered = errors.New("it waits for an answer, and gets none")
	// ErrLost says that something came that was no notification any more:
	// blocks of which one is missing, noise on a line, datagrams that the
	// machine had no room for.
	ErrLost = errors.New("lost")
)

// Sender is where a notification came from. Senders compare with ==.
type Sender struct {
	Net     netip.AddrPort // zero on a line
	Port    uint16         // wPort of the wrapper
	Line    string         // name of the line; "" over the network
	Station hdlc.Address   // its address in HDLC frames; zero in the wrapper
}

func (s Sender) String() string {
	at := s.Net.String()
	if s.Line != "" {
		at = "line " + s.Line
	}
	if s.Station == (hdlc.Address{}) {
		return at
	}
	return at + ", station " + s.Station.String()
}

// host gives s without what changes from one connection to the next.
func (s Sender) host() Sender {
	s.Net = netip.AddrPortFrom(s.Net.Addr().Unmap(), 0)
	return s
}

// id names a meter that has no name.
func (s Sender) id() meter.ID {
	switch {
	case s.Net.IsValid():
		return meter.ID(s.Net.Addr().Unmap().String())
	case s.Station == (hdlc.Address{}):
		return "meter"
	}
	return meter.ID("hdlc-" + strings.ReplaceAll(s.Station.String(), "/", "-"))
}

// Protection is how notifications are protected.
type Protection struct {
	Suite security.Suite
	// Keys are the global keys; without them nothing ciphered is taken.
	Keys security.Keys
	// Policy is the least that must be done to what is taken.
	Policy security.Policy
}

// Known is a meter that is expected to push. A notification is its own by the
// system title that protects it; else by the serial number in it; else, where
// there is none, by where it comes from.
type Known struct {
	ID     meter.ID
	Serial string         // expected serial number; "" is any
	Title  security.Title // zero is not known
	Host   netip.Addr     // the meter's, or its modem's; zero is anywhere
	Protection
	TimeZone *time.Location // nil is the Receiver's
	// Objects are those of its push setup, where it sends values only: see
	// ParsePushed.
	Objects []dlms.Column
	// Events names what its model tells by number; nil is nothing.
	Events *Events
}

// Receiver takes what meters send unasked: data-notifications,
// event-notifications and information-reports, in the wrapper (IEC 62056-47) or
// in HDLC frames; in blocks, ciphered in any form. It hands them on as rows and
// confirms what is to be confirmed.
//
//	Listen         opens a TCP or UDP port of this machine
//	Serve          takes the connections of a net.Listener
//	ServePackets   takes the datagrams of a net.PacketConn
//	ServeLine      takes the frames of a line
//
// Each of them runs until its context ends, closes what it was given, and has
// no goroutine left when it returns. Any number of them may run on one
// Receiver. Its fields must not change meanwhile.
//
// What a notification was sent twice for is handed on once: the same content
// with the same invoke id or time. Memory is bounded whatever comes, and what is
// not handed on is told to Bad, with the reason.
type Receiver struct {
	Now meter.Now
	// TimeZone is the zone of times that do not tell how far they are from
	// UTC; nil is UTC.
	TimeZone *time.Location
	// Meters are the meters that are known, and Protection is that of all
	// others. Strict refuses the others (ErrUnknown).
	Meters []Known
	Strict bool
	Protection
	// MeterTitle is the title of others that do not tell theirs: those that
	// cipher in the form of the service (glo-event-notification-request).
	MeterTitle security.Title
	// Objects are those of the push setup of others that send values only: see
	// ParsePushed.
	Objects []dlms.Column
	// Title is ours, and Counters keeps the invocation counters that answers to
	// ciphered notifications use up (see Counters); without them those are not
	// answered.
	Title    security.Title
	Counters interface {
		security.Store
		KnownCounters(title security.Title, key security.KeyID) (bool, error)
	}
	// Received remembers what was received, so that nothing is taken twice; nil
	// remembers as long as the Receiver lives. See security.Window.Keep.
	Received *security.Window
	// Got is handed what came. When it returns nil, the notification is
	// confirmed; with an error it is not, and a sender that waits sends it
	// again. Bad is told what is not handed on or not answered, and why. Both
	// are called one at a time, and hold up all senders. What takes its time is
	// in stored, which may be nil: it is waited for before the notification is
	// confirmed, and holds up nobody but its sender.
	Got func(from Sender, p Pushed) (stored func() error, err error)
	Bad func(from Sender, err error)

	mu       sync.Mutex // of all below, and of Got and Bad
	window   security.Window
	recent   recent
	pending  map[digest]bool // what was handed on and is not stored yet
	counters map[security.KeyID]*security.Counter
	failed   map[digest]opened // what came to nothing
}

func (r *Receiver) bad(from Sender, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Bad(from, err)
}

// taken is a notification that was handed on.
type taken struct {
	*Receiver
	from            Sender
	o               opened
	confirm         []byte
	asSent, content digest
	sealed, again   bool
	stored          func() error // nil once it is
}

// take takes an APDU that is whole. What is handed on is to be finished.
func (r *Receiver) take(from Sender, apdu []byte) (t *taken, answer []byte, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t = &taken{Receiver: r, from: from, sealed: isSealed(apdu), asSent: digestOf(from.host(), security.Title{}, apdu)}
	if answer, again := r.recent.has(t.asSent); again && t.sealed {
		return nil, answer, ErrRepeated // byte for byte: the answer too
	}
	var kept bool
	if t.o, kept = r.failed[t.asSent]; kept {
		delete(r.failed, t.asSent)
	} else if t.o, err = r.open(from, apdu); err != nil {
		return nil, nil, err
	}
	p, err := r.parse(from, &t.o)
	if err != nil {
		return nil, nil, err
	}
	t.confirm = p.Confirm
	t.content = digestOf(t.o.host(from), t.o.title, t.o.plain)
	// A sender that neither counts nor dates may well say the same twice.
	_, again := r.recent.has(t.content)
	t.again = again && (p.Dated || p.Invoke != 0)
	switch {
	case t.again:
	case r.pending[t.content] && (p.Dated || p.Invoke != 0):
		return nil, nil, ErrRepeated // it is answered when it is stored
	default:
		if t.stored, err = r.Got(from, p); err != nil {
			t.keep()
			return nil, nil, err
		}
	}
	if t.stored != nil {
		if r.pending == nil {
			r.pending = make(map[digest]bool)
		}
		r.pending[t.content] = true
	}
	return t, nil, nil
}

// maxFailed is how many notifications are kept that came to nothing.
const maxFailed = 256

// keep keeps what was opened and not stored: when the same octets come again,
// their counter does not rise.
func (t *taken) keep() {
	if !t.sealed {
		return
	}
	if t.failed == nil || len(t.failed) >= maxFailed {
		t.failed = map[digest]opened{}
	}
	t.failed[t.asSent] = t.o
}

// finish waits until what was handed on is stored, and gives what is to be
// answered. There may be an answer and an error.
func (t *taken) finish() (answer []byte, err error) {
	if t.stored != nil {
		err = t.stored()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.pending, t.content); err != nil {
		t.keep()
		return nil, err
	}
	if t.again {
		err = ErrRepeated
	}
	t.recent.note(t.content, nil)
	if t.confirm != nil {
		var cerr error
		if answer, cerr = t.confirmation(&t.o, t.confirm); cerr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", ErrUnanswered, cerr))
		}
	}
	if t.sealed {
		t.recent.note(t.asSent, answer)
	}
	return answer, err
}

// parse makes rows of what was opened, and finds out whose they are.
func (r *Receiver) parse(from Sender, o *opened) (Pushed, error) {
	p, err := r.parseAs(from, o)
	if err != nil {
		return Pushed{}, err
	}
	if len(p.serials) > 0 && (o.known == nil || o.byHost && !o.known.isOf(p.serials, isSerial)) {
		if p, err = r.recognise(from, o, p.serials); err != nil {
			return Pushed{}, err
		}
	}
	switch {
	case o.known != nil:
	case r.Strict:
		return Pushed{}, fmt.Errorf("%w: system title %q, serial number %q", ErrUnknown, o.title.String(), p.Identity.Found)
	case !o.policy.Covers(r.Policy):
		return Pushed{}, fmt.Errorf("%w: %v, want %v", security.ErrWeak, o.policy, r.Policy)
	}
	p.identify(o)
	if o.known != nil {
		p.Rows = o.known.Events.beside(p.Rows)
	}
	return p, nil
}

// parseAs makes rows of what was opened, as those of whom it is known to be of.
func (r *Receiver) parseAs(from Sender, o *opened) (Pushed, error) {
	base := meter.Row{Meter: from.id(), Stamp: r.Now(), Lane: meter.Instant}
	zone := r.TimeZone
	objects := r.Objects
	if m := o.known; m != nil {
		base.Meter, objects = m.ID, m.Objects
		if m.TimeZone != nil {
			zone = m.TimeZone
		}
	}
	if zone == nil {
		zone = time.UTC
	}
	p, err := ParsePushed(o.plain, base, zone, objects)
	if err != nil {
		return Pushed{}, err
	}
	p.Title, p.Protected = o.title, o.policy
	if len(p.Rows) > 0 {
		p.Identity.Found = p.Rows[0].Serial
	}
	return p, nil
}

// recognise looks for a meter by the serial number in what it sent, also where
// the host is another's: several may be behind one modem. One that protects what
// it sends is not known by what anybody can write.
func (r *Receiver) recognise(from Sender, o *opened, serials []string) (Pushed, error) {
	if o.byHost = false; o.known != nil {
		o.known, o.Protection = nil, Protection{}
	}
	var known *Known
	for i := range r.Meters {
		m := &r.Meters[i]
		if m.Serial != "" && (m.isOf(serials, strings.EqualFold) || known == nil && m.isOf(serials, isSerial)) {
			known = m
		}
	}
	if known != nil && !o.policy.Covers(known.Policy) {
		return Pushed{}, fmt.Errorf("%w: %v, want %v of meter %s", security.ErrWeak, o.policy, known.Policy, known.ID)
	}
	o.known = known
	p, err := r.parseAs(from, o)
	p.Identity.Found, p.serials = serials[0], serials
	return p, err
}

// isOf says whether one of the serial numbers is the meter's, as is says.
func (m *Known) isOf(serials []string, is func(configured, found string) bool) bool {
	return slices.ContainsFunc(serials, func(s string) bool { return is(m.Serial, s) })
}

// identify says how sure it is that the meter sent it: by its key, where that
// authenticates, or by the serial number.
func (p *Pushed) identify(o *opened) {
	serial := p.Identity.Found
	if m := o.known; m != nil {
		p.Known, p.Identity.Want = true, m.Serial
		proven := o.policy.Covers(security.Authenticated) && o.title == m.Title
		switch {
		case m.Serial != "" && m.isOf(p.serials, isSerial) || serial == "" && proven:
			serial = m.Serial
			p.Identity.Found, p.Identity.Proven = serial, true
		case m.Serial == "" && serial != "":
			p.Identity.Proven = true
		}
	}
	for i := range p.Rows {
		p.Rows[i].Serial = serial
		if serial == "" {
			p.Rows[i].Quality |= meter.IdentityNotProven
		}
	}
}

// unlessEnded gives err, but what came of the end of ctx is none.
func unlessEnded(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}
