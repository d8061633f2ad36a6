// Package modem minds a mobile modem over its port for AT commands (3GPP TS
// 27.007): who it is, how SIM, registration and signal do, and what time its
// network says it is. It enters the SIM's PIN, never with the last attempt, and
// resets a modem behind which the fog stays away, after growing pauses.
//
//	look ──> PIN wanted? enter it ──> fog away for long? reset ──> wait ──┐
//	  ^                                                                  │
//	  └──────────────────────────────────────────────────────────────────┘
//
// The connection itself is another program's (pppd, ModemManager, the kernel's
// QMI or ECM): the port is one that the modem has beside it.
package modem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Config is what a Modem works with. Do and Log are needed.
type Config struct {
	// Do takes the port for an exchange. Nobody else speaks on it meanwhile.
	Do func(ctx context.Context, exchange func(context.Context, Port) error) error
	// PIN gives the SIM's PIN; nil or an empty one is none.
	PIN func() (string, error)
	// Tries keeps which PINs were tried; nil: no PIN is entered.
	Tries Tries
	Every time.Duration // between looks; 0 is DefaultEvery
	// Away says for how long the fog has not been reached; 0 is that it is. nil:
	// nothing is reset.
	Away func() time.Duration
	// ResetAfter is how long the fog is away before the first reset. Each pause to
	// the next is twice the one before, up to ResetMost. 0 of ResetAfter: nothing is reset.
	ResetAfter, ResetMost time.Duration
	// Pulse resets the modem by its reset line; nil where there is none.
	Pulse func(ctx context.Context) error
	// Changed is told that the state is another; may be nil.
	Changed func()
	Log     *slog.Logger
}

// Baud is a rate that modems find out by themselves.
const Baud = 115200

// DefaultEvery is how often a modem is looked at: some ten short commands.
const DefaultEvery = time.Minute

// settle is how long a modem is left alone after a reset, unless resets come faster.
const settle = 30 * time.Second

// Tries keeps, over restarts, which PINs were tried with which SIM.
type Tries interface {
	// Tried says whether the PIN was tried and not seen to be taken.
	Tried(sim, pin string) (bool, error)
	// Note keeps that it is about to be tried; it is durable on return.
	Note(sim, pin string) error
	// Forget keeps that the SIM took it.
	Forget(sim, pin string) error
}

// State is how a modem does, in a word.
type State string

// The states.
const (
	Waiting    State = "waiting" // not looked at yet
	OK         State = "ok"      // registered
	Silent     State = "silent"
	Garbled    State = "garbled"
	NoPort     State = "no port"
	NoSIM      State = "no SIM"
	BadSIM     State = "SIM failure"
	WantsPIN   State = "PIN wanted"
	WantsPUK   State = "PUK wanted"
	Forbidden  State = "denied"
	Unattached State = "not registered"
	Restarting State = "restarting"
)

// States gives all states.
func States() []State {
	return []State{Waiting, OK, Silent, Garbled, NoPort, NoSIM, BadSIM, WantsPIN, WantsPUK, Forbidden, Unattached, Restarting}
}

// Status is how a modem does. The zero value is nothing known.
type Status struct {
	Facts
	State State
	Err   string    // what is wrong and what to do, empty when nothing is
	At    time.Time // when Facts were so
	// Resets counts since the start; the last was at LastReset by LastBy, AT or the
	// line. NextReset is when the next is, if the fog stays away; the zero time is none.
	Resets    uint64
	LastReset time.Time
	LastBy    string
	NextReset time.Time
}

// Modem is the task. Status is safe for concurrent use with Run.
type Modem struct {
	cfg Config

	// Run's own.
	pause   time.Duration // to the next reset
	inRow   int           // resets since the fog was reached
	lastTry time.Time     // the last of them
	quiet   time.Time     // the modem is left alone until then

	mu     sync.Mutex
	status Status
}

// New gives a modem; Run does the work.
func New(c Config) *Modem {
	if c.Every <= 0 {
		c.Every = DefaultEvery
	}
	c.ResetMost = max(c.ResetMost, c.ResetAfter)
	return &Modem{cfg: c, pause: c.ResetAfter, status: Status{State: Waiting, Facts: Facts{Attempts: -1}}}
}

// Status gives how the modem does.
func (m *Modem) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Run looks after the modem until ctx ends. What goes wrong is in the status.
func (m *Modem) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if !time.Now().Before(m.quiet) {
			m.look(ctx)
		}
		m.mind(ctx)
		timer.Reset(m.next())
	}
}

// next gives how long to wait for the next look.
func (m *Modem) next() time.Duration {
	wait := m.cfg.Every
	if rest := time.Until(m.quiet); rest > 0 {
		wait = min(wait, rest)
	}
	return wait
}

// look asks the modem for everything and enters the PIN where it is wanted.
func (m *Modem) look(ctx context.Context) {
	var f Facts
	var unlocked error
	err := m.cfg.Do(ctx, func(ctx context.Context, p Port) (err error) {
		if f, err = Look(ctx, p); err != nil || f.SIM != SIMPIN {
			return err
		}
		if unlocked = m.unlock(ctx, p, &f); unlocked == nil {
			f, err = Look(ctx, p)
		}
		return err
	})
	if ctx.Err() != nil {
		return
	}
	if err == nil && f.SIM == SIMReady {
		m.forget(&f)
	}
	m.judge(f, err, unlocked)
}

// judge says in a word how the modem does, and what to do.
func (m *Modem) judge(f Facts, err, unlocked error) {
	var state State
	var text string
	switch {
	case errors.Is(err, ErrSilent):
		state, text = Silent, err.Error()+": is it switched on, and is this its port for AT commands?"
	case errors.Is(err, ErrGarbled):
		state, text = Garbled, err.Error()+": is this its port for AT commands, and not that of the connection or of diagnostics?"
	case err != nil:
		state, text = NoPort, err.Error()
	case unlocked != nil:
		state, text = WantsPIN, unlocked.Error()
	default:
		state, text = f.Judge()
	}
	m.become(f, state, text)
}

// Judge says in a word how a modem does that answers, and what to do.
func (f *Facts) Judge() (State, string) {
	switch f.SIM {
	case SIMAbsent:
		return NoSIM, "no SIM is in the modem: put it in, contacts down, until it clicks"
	case SIMFailure:
		return BadSIM, "the modem cannot read the SIM: clean it, or try another"
	case SIMPIN:
		return WantsPIN, "the SIM wants its PIN"
	case SIMPUK:
		return WantsPUK, "the SIM is blocked and wants its PUK: unblock it in a phone, with the letter that came with it"
	case SIMLocked:
		return BadSIM, "the modem is locked to another SIM or operator"
	case SIMReady, SIMBusy, SIMUnknown:
	}
	switch f.Registration {
	case Home, Roaming:
		return OK, ""
	case Denied:
		return Forbidden, "the network refuses this SIM: is it activated, paid, and may it roam here?"
	case Searching:
		return Unattached, "the modem looks for a network: is the antenna connected, and is there reception here?"
	case Limited:
		return Unattached, "the network takes emergency calls or SMS only: is the SIM activated, for data?"
	case Idle, Unknown:
	}
	return Unattached, "the modem is in no network and looks for none: is the antenna connected?"
}

// become notes the state, and tells who wants to know when it is another.
func (m *Modem) become(f Facts, state State, text string) {
	m.mu.Lock()
	before := m.status
	m.status.State, m.status.Err, m.status.At = state, text, time.Now()
	if state == Silent || state == Garbled || state == NoPort || state == Restarting {
		f = before.Facts // as last seen, but for what has surely passed
		f.Registration, f.Signal = Unknown, Signal{}
	}
	m.status.Facts = f
	now := m.status
	m.mu.Unlock()
	if before.State == state && before.Err == text && before.Registration == f.Registration && before.Operator == f.Operator {
		return
	}
	if before.State != state || before.Err != text {
		if log := m.cfg.Log.With("state", string(state)); state == OK {
			log.Info("modem in a network", "registration", f.Registration.String(), "operator", f.Operator,
				"technology", f.Technology, "signal_dbm", f.Signal.DBm)
		} else if text != "" {
			log.Warn("modem without a network", "error", now.Err)
		}
	}
	if m.cfg.Changed != nil {
		m.cfg.Changed()
	}
}

// card names a SIM for its tries.
func (f *Facts) card() string {
	switch {
	case f.ICCID != "":
		return f.ICCID
	case f.IMEI != "":
		return "in " + f.IMEI
	}
	return "in a modem without a name"
}

// unlock enters the PIN, if that cannot be the last attempt. How many are left
// not every modem tells: then a PIN is tried once with a SIM, and never again.
func (m *Modem) unlock(ctx context.Context, p Port, f *Facts) error {
	if m.cfg.PIN == nil || m.cfg.Tries == nil {
		return errors.New("the SIM wants its PIN, and none is configured: modem.pin, or take the PIN off the SIM in a phone")
	}
	pin, err := m.cfg.PIN()
	switch {
	case err != nil:
		return fmt.Errorf("the SIM wants its PIN: modem.pin: %w", err)
	case len(pin) < 4 || len(pin) > 8 || !isDigits(pin):
		return errors.New("the SIM wants its PIN, and modem.pin is none: want 4 to 8 digits")
	case f.Attempts == 0:
		return errors.New("the SIM wants its PIN, and no attempt is left: unblock it in a phone with the PUK")
	case f.Attempts == 1:
		return errors.New("the SIM wants its PIN, and one attempt is left, which is never used: enter the right PIN in a phone, and correct modem.pin")
	}
	tried, err := m.cfg.Tries.Tried(f.card(), pin)
	if err != nil {
		return fmt.Errorf("the SIM wants its PIN, and what was tried is not known: %w", err)
	}
	const full = 3 // attempts of a SIM that took its PIN since (TS 102 221, 9.5.1)
	if tried && f.Attempts < full {
		return errors.New("the SIM did not take this PIN and it is not tried again: correct the file of modem.pin, or raise modem.pin_try if the PIN is right")
	}
	if err := m.count(f, pin); err != nil {
		if errors.Is(err, errMaybeLast) {
			return err
		}
		return fmt.Errorf("the SIM wants its PIN, which is not tried while that cannot be written down: %w", err)
	}
	m.cfg.Log.Info("the PIN is entered", "attempts_left", f.Attempts)
	if err := enterPIN(ctx, p, pin); err != nil {
		return err
	}
	return m.taken(f, pin)
}

// errMaybeLast says that a modem does not tell whether an attempt is the last.
var errMaybeLast = errors.New("the SIM wants its PIN, two were not taken, and the modem does not tell how many attempts are left: one more might be the last")

// These stand for PINs where tries with a SIM are counted, of whatever PIN.
const (
	firstTry  = "first"
	secondTry = "second"
)

// count notes a try, of this PIN and of any with this SIM. Where the modem does not
// tell how many are left there are two: a SIM has three.
func (m *Modem) count(f *Facts, pin string) error {
	k, card := m.cfg.Tries, f.card()
	nth := firstTry
	if before, err := k.Tried(card, firstTry); err != nil {
		return err
	} else if before {
		nth = secondTry
	}
	if before, err := k.Tried(card, secondTry); err != nil {
		return err
	} else if before && f.Attempts < 0 {
		return errMaybeLast
	}
	if err := k.Note(card, nth); err != nil {
		return err
	}
	return k.Note(card, pin)
}

// taken notes that the SIM took the PIN.
func (m *Modem) taken(f *Facts, pin string) error {
	var errs []error
	for _, p := range []string{pin, firstTry, secondTry} {
		if tried, err := m.cfg.Tries.Tried(f.card(), p); err != nil {
			errs = append(errs, err)
		} else if tried {
			errs = append(errs, m.cfg.Tries.Forget(f.card(), p))
		}
	}
	return errors.Join(errs...)
}

// forget takes back the note of a try: the SIM is open.
func (m *Modem) forget(f *Facts) {
	if m.cfg.PIN == nil || m.cfg.Tries == nil {
		return
	}
	pin, err := m.cfg.PIN()
	if err != nil {
		return
	}
	if err := m.taken(f, pin); err != nil {
		m.cfg.Log.Warn("that the SIM took its PIN cannot be written down", "error", err)
	}
}

// mind resets the modem when the fog has been away for long enough.
func (m *Modem) mind(ctx context.Context) {
	if m.cfg.Away == nil || m.cfg.ResetAfter <= 0 || ctx.Err() != nil {
		return
	}
	away := m.cfg.Away()
	if away == 0 {
		m.pause, m.inRow = m.cfg.ResetAfter, 0
		m.note(func(s *Status) { s.NextReset = time.Time{} })
		return
	}
	now := time.Now()
	due := now.Add(m.cfg.ResetAfter - away)
	if m.inRow > 0 {
		due = m.lastTry.Add(m.pause)
	}
	state := m.Status().State
	if state == WantsPIN || state == WantsPUK { // only a person helps
		due = time.Time{}
	}
	m.note(func(s *Status) { s.NextReset = due })
	if due.IsZero() || now.Before(due) {
		return
	}
	m.reset(ctx, state)
	m.inRow++
	m.lastTry, m.quiet = time.Now(), time.Now().Add(min(settle, m.cfg.ResetAfter))
	m.pause = min(2*m.pause, m.cfg.ResetMost)
	m.note(func(s *Status) { s.NextReset = m.lastTry.Add(m.pause) })
}

// reset resets the modem: by a command, and by its reset line every other time or
// when it does not hear commands.
func (m *Modem) reset(ctx context.Context, state State) {
	by := "AT"
	var err error
	deaf := state == Silent || state == Garbled || state == NoPort
	if m.cfg.Pulse != nil && (deaf || m.inRow%2 == 1) {
		by, err = "line", m.cfg.Pulse(ctx)
	} else {
		err = m.cfg.Do(ctx, restart)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.cfg.Log.Error("the modem cannot be reset", "by", by, "error", err)
		return
	}
	m.cfg.Log.Warn("modem reset, since the fog stays away", "by", by, "in_row", m.inRow+1)
	m.note(func(s *Status) { s.Resets++; s.LastReset, s.LastBy = time.Now(), by })
	m.become(Facts{}, Restarting, "")
}

func (m *Modem) note(f func(*Status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.status)
}
