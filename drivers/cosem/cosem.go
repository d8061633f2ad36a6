// Package cosem reads DLMS/COSEM meters over a line: it turns what a gateway
// asks for into conversations of dlms, and what the meter says into rows.
//
//	visit:  connect → associate → who is it? → registers → profiles → clock
//
// The association stays open between visits; one that broke meanwhile, or that
// a meter loses within a visit, is opened anew, once a visit. A visit whose context ends is over at once; the
// line hears the meter out and ends the conversation before it goes to the next.
// Scalers, units and the columns of profiles are read once and then daily; they
// are forgotten when another meter answers. The columns are compared on every
// association, and where they differ the scalers are read anew.
package cosem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// The ways to authenticate, as addresses name them.
const (
	AuthNone   = "none"
	AuthLLS    = "lls"
	AuthHLS2   = "hls2"
	AuthMD5    = "md5"
	AuthSHA1   = "sha1"
	AuthGMAC   = "gmac"
	AuthSHA256 = "sha256"
	AuthECDSA  = "ecdsa"
)

// DefaultTimeout is how long an answer may take.
const DefaultTimeout = 5 * time.Second

const (
	// closeTimeout is how long a meter may take to let go of an association.
	closeTimeout = time.Second
	// maxAPDU is the longest answer in one piece that is taken, in octets. It
	// is above what we propose: meters round up.
	maxAPDU = 16 << 10
)

// Config is one meter.
type Config struct {
	ID       meter.ID
	Serial   string        // the expected serial number; empty when none is configured
	Client   uint16        // wPort of the client; 0 is 16, the public client
	Server   uint16        // wPort of the logical device; 0 is 1, the management device
	Auth     string        // AuthNone, AuthLLS, …; empty is AuthNone
	Password dlms.Secret   // of AuthLLS, AuthHLS2, AuthMD5, AuthSHA1 and AuthSHA256
	Timeout  time.Duration // for each answer; 0 is DefaultTimeout
	Now      meter.Now
	// HDLC carries the meter's APDUs; nil is the wrapper, over TCP.
	HDLC *HDLC
	// ModeE brings the meter to HDLC before each conversation; nil is a meter
	// that speaks it by itself. Settings are those of the sign-on.
	ModeE *ModeE
	// Datagrams says that the wrapper is over UDP, and the line one of datagrams.
	Datagrams bool
	// Wait, if not nil, gives how long the next answer may take, as was learnt
	// of a line with long and varying delays. It goes before Timeout.
	Wait func() time.Duration
	// Repeats is how often in a row a request that does no harm twice is sent
	// again where Datagrams get lost; 0 is once.
	Repeats uint8
	// Envelope, if not nil, is around the APDUs within HDLC.
	Envelope Envelope
	Settings line.Settings // of a serial port
	// ShortNames has objects found by the directory of short names, which is
	// read once an association: for old meters that have nothing else.
	ShortNames bool
	// Security is how the association is protected. Counter and Received are
	// the driver's own.
	Security dlms.Security
	// Counters keeps the invocation counters; needed with AuthGMAC and a Policy.
	Counters Counters
	// CounterObjects is where the meter may show the public client the last
	// invocation counter that it took: the highest counts. None says that it
	// shows none.
	CounterObjects []obis.Code
	// TimeZone is the zone of meters that do not tell how far their time is
	// from UTC; nil is UTC.
	TimeZone *time.Location
	// Release ends the association after every visit, for meters that serve
	// one client at a time.
	Release bool
	// Quirks is what the model does differently.
	Quirks dlms.Quirks
	// Events names what the model tells by number; nil is nothing.
	Events *Events
	// Caches keeps what the meter says of its objects; nil is memory only.
	Caches Caches
	// NextKeys are others that the meter may have instead of those of Security: it
	// is being given them. KeysFound is told which it has.
	NextKeys  *security.Keys
	KeysFound func(next bool)

	pause func(context.Context, time.Duration) error // of tests
}

// Meter reads one meter; it implements meter.Visitor. Make it with New. It is
// not safe for concurrent use; its line is.
type Meter struct {
	cfg  Config
	line *line.Line

	// The session: the association and the connection it is on.
	client  *dlms.Client
	link    *link
	opened  uint64 // which opening of the line the session is on
	entered uint64 // counts the associations
	serial  string
	known   bool           // the serial number was asked for in this session
	good    dlms.Attribute // was read in this session; the zero value is none
	leaving bool           // the line may still end the conversation before
	wire    *wire

	// What holds over sessions of how the meter answers.
	serialFrom int         // which of serialNumbers had the serial number; -1 for none yet
	unsaid     int         // how often in a row one was refused for the moment
	withheld   meter.Stamp // when it last did not allow a service on a new association

	// The protection, over all sessions.
	counter    *security.Counter
	received   security.Window
	anchored   bool // the counters begin above what the meter took
	associated bool // the last turn got as far as an association
	doubted    bool // the counter was suspected since the meter answered last

	cache cache
	last  context.Context //nolint:containedctx // of the last visit: Close has none of its own
}

// New gives the driver of a meter on a line. It sends nothing.
func New(cfg Config, l *line.Line) *Meter {
	if cfg.Client == 0 {
		cfg.Client = 16
	}
	if cfg.Server == 0 {
		cfg.Server = 1
	}
	if cfg.Auth == "" {
		cfg.Auth = AuthNone
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.TimeZone == nil {
		cfg.TimeZone = time.UTC
	}
	cfg.takeQuirks()
	m := &Meter{cfg: cfg, line: l, serialFrom: -1}
	if cfg.HDLC != nil {
		m.wire = &wire{line: l, timeout: cfg.Timeout}
	}
	if m.usesKeys() && cfg.Counters != nil {
		m.counter = security.NewCounter(cfg.Counters, cfg.Security.Title, cfg.Security.Keys.Encryption, counterStep)
	}
	return m
}

// Visit reads what ask says. See meter.Visitor. Errors are
// meter.ErrAuthentication, meter.ErrNoAnswer and meter.ErrGarbled where they
// are that.
func (m *Meter) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	if len(ask.Acts) > 0 {
		if act, ok := ask.Acts[0].(meter.TryKeys); ok {
			return m.visitKeys(ctx, ask, act)
		}
	}
	if err := m.findKeys(ctx); err != nil {
		return meter.Got{Identity: meter.Identity{Want: m.cfg.Serial}}, err
	}
	done := newProgress()
	done.acts = newActing(ask)
	got, err := m.converse(ctx, func(ctx context.Context, v *visit) error {
		v.done = done
		return v.run(ctx, done.left(ask))
	})
	if len(ask.Acts) > 0 {
		got, err = m.acted(ctx, done, got, err)
	}
	return got, err
}

// converse has one conversation with the meter: do says what it is about.
func (m *Meter) converse(ctx context.Context, do func(context.Context, *visit) error) (meter.Got, error) {
	m.last = ctx
	nothing := meter.Got{Identity: meter.Identity{Want: m.cfg.Serial}}
	if err := m.anchor(ctx); err != nil {
		return nothing, err
	}
	got := nothing
	err := m.turn(ctx, do, &got)
	if errors.Is(err, errStale) {
		// The association of the visit before is gone, and nothing was read.
		got = nothing
		err = m.turn(ctx, do, &got)
	}
	if errors.Is(err, errBroken) && ctx.Err() == nil {
		err = m.turn(ctx, do, &got)
		return got, err
	}
	if err == nil || ctx.Err() != nil || !m.doubtsCounter(err) {
		return got, err
	}
	switch behind, cerr := m.catchUp(ctx, err); {
	case cerr != nil:
		err = fmt.Errorf("%w; and %w", err, cerr)
	case behind:
		got = nothing
		err = m.turn(ctx, do, &got)
	}
	return got, err
}

// turn is a visit on the session that there is, or on a new one. It is
// errStale when the session that there was turned out to be gone.
func (m *Meter) turn(ctx context.Context, do func(context.Context, *visit) error, got *meter.Got) error {
	began := false
	m.associated = false
	err := m.line.Do(ctx, m.settings(), func(ctx context.Context, port line.Port) error {
		began = true
		kept, err := m.session(ctx, port)
		defer m.link.forget()
		if isReject(err) {
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		if err == nil {
			m.associated, m.doubted = true, m.doubted && kept
			v := visit{Meter: m, got: got, untried: kept, fresh: !kept}
			err = do(ctx, &v)
		}
		if err != nil {
			m.end(ctx, port, err)
			return m.explain(err)
		}
		if m.cfg.Release {
			m.release(ctx, port)
		}
		return nil
	})
	if err != nil && !began {
		return unreachable(err)
	}
	return err
}

// Close ends the association, or waits until the line has.
func (m *Meter) Close() error {
	if m.client == nil && !m.leaving {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.last), closeTimeout)
	defer cancel()
	// What goes wrong does not matter: the meter ends the association itself
	// when the connection ends.
	if m.client == nil {
		_ = m.line.Settle(ctx)
		return nil
	}
	_ = m.line.Do(ctx, m.settings(), func(ctx context.Context, port line.Port) error {
		if m.opened == m.line.Opened() {
			m.link.use(port)
			defer m.link.forget()
			m.release(ctx, port)
		}
		return nil
	})
	m.client = nil
	return nil
}
