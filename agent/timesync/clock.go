package timesync

import (
	"cmp"
	"context"
	"crypto/x509"
	"log/slog"
	"math"
	"sync"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// System is the clock of the machine; sys.Clock is one, and a test has another.
type System interface {
	Now() sys.Instant
	Discipline() (sys.Discipline, error)
	Step(by time.Duration) error
	Slew(by time.Duration) error
	SetFrequency(f float64) error
	Vouch(synchronised bool, maxError time.Duration, leap int) error
}

// Hardware is a clock that runs while the machine is off; sys.RTC is one.
type Hardware interface {
	Read() (time.Time, error)
	Set(t time.Time) error
}

// Network asks the modem's network what time it is; Modem is one.
type Network interface {
	NetworkTime(ctx context.Context) (time.Time, error)
}

// Memory keeps the last time that was known to be right over restarts.
type Memory interface {
	LastTime() time.Time // zero when there is none
	SetLastTime(t time.Time) error
}

// Sample is one exchange with a server.
type Sample struct {
	Offset     time.Duration // server minus the clock that was given
	Trip       time.Duration // round trip, without the server's own time
	Delay      time.Duration // root delay that the server states
	Dispersion time.Duration // root dispersion that the server states
	Stratum    uint8
	Leap       int    // +1 or -1 at the end of the month
	Address    string // that answered
}

// Request is one question to a server.
type Request struct {
	Server Server
	// At is the address that answered before in the same poll; empty when the
	// name is to be looked up.
	At string
	// Now is the clock to measure the server against.
	Now func() time.Time
}

// Exchange asks a server once. It gives up when ctx ends. The errors that are
// decided on are *Kiss and ErrNotSynchronised.
type Exchange func(ctx context.Context, r Request) (Sample, error)

// Server is one NTP server.
type Server struct {
	Address string // host or host:port
	NTS     bool   // Address is of the key exchange, RFC 8915
}

func (s Server) String() string {
	if s.NTS {
		return "nts://" + s.Address
	}
	return s.Address
}

// Config is what a Clock works with. System, Boot and Log are required.
type Config struct {
	Servers    []Server
	Discipline Discipline    // Observe unless told
	MinPoll    time.Duration // the first interval, and that after trouble; 64 s unless told
	MaxPoll    time.Duration // 4 h unless told
	// SamplePause is between the questions to one server at a poll: servers tell
	// who is too fast to go away. 2 s unless told.
	SamplePause time.Duration
	// AnswerWithin is what a server has for an answer; GPRS takes seconds. 6 s
	// unless told.
	AnswerWithin time.Duration
	StepAbove    time.Duration // what is set at once, not slewed; 500 ms unless told
	MaxError     time.Duration // a holdover that may be further off ends; 1 min unless told

	System   System
	Hardware Hardware // nil: none
	Network  Network  // nil: none
	Memory   Memory   // nil: none
	Exchange Exchange // nil: over the network, by NTP and NTS
	// Roots are who may have signed certificates of NTS servers; nil: whom the
	// system trusts.
	Roots *x509.CertPool
	// Boot gives the number of this boot, for stamps.
	Boot func() uint32
	// Corrected is told what time it was in this boot: at the first majority,
	// when the clock is right again after it was not, and every few hours
	// while it is. It is called by Run and does not wait for long.
	Corrected func(Correction) // nil: nobody
	// Stepped is told when the system clock was set. It is called by Run.
	Stepped func(Step) // nil: nobody
	Log     *slog.Logger
}

// Defaults of a Config.
const (
	DefaultMinPoll   = 64 * time.Second
	DefaultMaxPoll   = 4 * time.Hour
	defaultPause     = 2 * time.Second
	defaultAnswer    = 6 * time.Second
	DefaultStepAbove = 500 * time.Millisecond
	DefaultMaxError  = time.Minute
)

// suspendedMost is what may seem suspended between two readings of clocks.
const suspendedMost = 100 * time.Millisecond

// Clock is the gateway's clock. Make one with New; it knows something once Run
// runs. Its methods are safe for concurrent use.
type Clock struct {
	cfg     Config
	keeper  keeper    // of Run
	servers []*server // of Run
	// interval between polls; of Run, which shows it in shown.
	interval time.Duration

	mu        sync.Mutex
	est       estimate
	suspended time.Duration // at the last majority
	agreed    bool          // the last poll found a majority
	reason    string        // why it did not
	kernel    bool          // no server has a say: what the kernel was told counts
	coarse    string        // what set the clock when nobody vouched for it
	lower     time.Time     // a time that had passed
	lowerRaw  time.Duration // then
	shown     Status        // what changes with polls only
}

// New makes a clock. It asks nobody yet.
func New(cfg Config) *Clock {
	cfg.Discipline = cmp.Or(cfg.Discipline, Observe)
	cfg.MinPoll = cmp.Or(cfg.MinPoll, DefaultMinPoll)
	cfg.MaxPoll = max(cmp.Or(cfg.MaxPoll, DefaultMaxPoll), cfg.MinPoll)
	cfg.SamplePause = cmp.Or(cfg.SamplePause, defaultPause)
	cfg.AnswerWithin = cmp.Or(cfg.AnswerWithin, defaultAnswer)
	cfg.StepAbove = cmp.Or(cfg.StepAbove, DefaultStepAbove)
	cfg.MaxError = cmp.Or(cfg.MaxError, DefaultMaxError)
	at := cfg.System.Now()
	c := &Clock{cfg: cfg, interval: cfg.MinPoll, kernel: true, lower: earliest(), lowerRaw: at.Raw}
	if c.reason = "no server was asked yet"; len(cfg.Servers) == 0 {
		c.reason = "no time servers are configured, and nobody told the kernel that its clock is right"
	}
	if cfg.Exchange == nil {
		c.cfg.Exchange = (&network{roots: cfg.Roots, now: c.certain}).exchange
	}
	if cfg.Memory != nil {
		if last := cfg.Memory.LastTime(); last.After(c.lower) {
			c.lower = last
		}
	}
	for _, s := range cfg.Servers {
		c.servers = append(c.servers, &server{Server: s, status: ServerStatus{Server: s.String(), NTS: s.NTS}})
	}
	c.show()
	return c
}

// earliest is a time before which this program was not written.
func earliest() time.Time { return time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) }

// view is what the clock is worth at one moment.
type view struct {
	state  State
	reason string
	source string
	known  bool          // offset and err are, whatever the state
	offset time.Duration // true − Wall
	err    time.Duration // of offset
}

func (v view) bound() time.Duration { return v.offset.Abs() + v.err }

// look judges the system clock at one moment.
func (c *Clock) look(at sys.Instant) view {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := view{reason: c.reason, source: c.coarse}
	if c.est.known {
		if (at.Suspended - c.suspended).Abs() > suspendedMost {
			v.reason = "the system was suspended since the last poll"
			return v
		}
		offset, err := c.est.at(at.Raw)
		v.known, v.err = true, err
		v.offset = offset + at.Raw - time.Duration(at.Wall.UnixNano())
		switch {
		case v.bound() > c.cfg.MaxError && v.offset.Abs() > v.err:
			v.reason = "the system clock is " + round(v.offset.Abs()) + " off"
		case v.bound() > c.cfg.MaxError:
			v.reason = "the clock may be " + round(v.bound()) + " off by now; " + cmp.Or(c.reason, "no majority since")
		case c.agreed:
			v.state, v.reason, v.source = Synchronised, "", "ntp"
		default:
			v.state, v.source = Holdover, "ntp"
		}
		if v.state != Unsynchronised {
			return v
		}
	}
	return c.byKernel(v)
}

// byKernel takes the kernel's word where no server has a say.
func (c *Clock) byKernel(v view) view {
	if !c.kernel {
		return v
	}
	d, err := c.cfg.System.Discipline()
	if err != nil || !d.Synchronised || d.MaxError > c.cfg.MaxError || v.known && v.offset.Abs() > v.err+d.MaxError {
		return v
	}
	v.state, v.source, v.offset, v.err = Synchronised, "kernel", 0, d.MaxError
	if c.cfg.Discipline == Agent { // what this program told it before it was started anew
		v.state = Holdover
	} else {
		v.reason = ""
	}
	return v
}

// round writes a duration for people.
func round(d time.Duration) string {
	if d > 10*time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(time.Millisecond).String()
}

// Now gives the stamp of this moment. Its bound is meter.UnknownBound while
// the state is Unsynchronised.
func (c *Clock) Now() meter.Stamp {
	at := c.cfg.System.Now()
	s := meter.Stamp{Time: at.Wall.UnixMilli(), Boot: c.cfg.Boot(), Mono: at.Mono.Milliseconds(), Bound: meter.UnknownBound}
	if v := c.look(at); v.state != Unsynchronised {
		s.Bound = milliseconds(v.bound())
	}
	return s
}

// milliseconds rounds a bound up, and up once more for the milliseconds that
// stamps are cut to.
func milliseconds(bound time.Duration) uint32 {
	return uint32(min(bound/time.Millisecond+2, math.MaxUint32-1))
}

// Trusted says that the state claims a bound.
func (c *Clock) Trusted() bool { return c.look(c.cfg.System.Now()).state != Unsynchronised }

// certain gives a time to check certificates by, and whether it is the time or
// only one that has passed.
func (c *Clock) certain() (now time.Time, sure bool) {
	at := c.cfg.System.Now()
	if c.look(at).state != Unsynchronised {
		return at.Wall, true
	}
	return c.notBefore(at), false
}

// NotBefore is a time that has certainly passed, trusted or not.
func (c *Clock) NotBefore() time.Time { return c.notBefore(c.cfg.System.Now()) }

func (c *Clock) notBefore(at sys.Instant) time.Time {
	v := c.look(at)
	c.mu.Lock()
	defer c.mu.Unlock()
	// It is at least later by what has passed since on the slowest oscillator.
	lower := c.lower.Add(time.Duration((1 - 1e-3) * float64(max(at.Raw-c.lowerRaw, 0))))
	if v.known {
		if now := at.Wall.Add(v.offset - v.err); now.After(lower) {
			return now
		}
	}
	return lower
}

// Status tells how the clock does.
func (c *Clock) Status() Status {
	at := c.cfg.System.Now()
	v, lower := c.look(at), c.notBefore(at)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shown
	s.State, s.Reason, s.Source, s.Bound, s.Offset = v.state, v.reason, v.source, v.bound(), v.offset
	s.NotBefore, s.Since = lower, -1
	if c.est.known {
		s.Since, s.Drift, s.DriftError = at.Raw-c.est.raw, c.est.drift, c.est.driftErr
		s.Leap = int(c.est.leap.by / time.Second)
	}
	s.Servers = append([]ServerStatus(nil), s.Servers...)
	s.Warnings = append(c.warnings(v), s.Warnings...)
	return s
}

// show makes what polls found visible to Status.
func (c *Clock) show() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown.Discipline, c.shown.Interval = c.cfg.Discipline, c.interval
	c.shown.Servers = c.shown.Servers[:0:0]
	for _, s := range c.servers {
		c.shown.Servers = append(c.shown.Servers, s.status)
	}
}
