package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"gridgate/agent/modem"
	"gridgate/agent/status"
	"gridgate/buffer/state"
	"gridgate/configs"
	"gridgate/drivers/line"
	"gridgate/internal/sys"
)

// runningModem is the modem with its port, which nobody else speaks on.
type runningModem struct {
	*modem.Modem
	port string
	line *line.Line
	task *task
}

// exchange has the port for an exchange.
func (m *runningModem) exchange(ctx context.Context, do func(context.Context, modem.Port) error) error {
	return m.line.Do(ctx, line.Settings{Baud: modem.Baud}, func(ctx context.Context, p line.Port) error { return do(ctx, p) })
}

func (m *runningModem) stop() {
	if m != nil {
		m.task.cancel()
		_ = m.line.Close()
		m.task.stop()
	}
}

// startModem starts to mind the modem, if there is one. mu is held.
func (a *Agent) startModem(ctx context.Context, cfg *configs.Config) {
	a.modem.Store(nil)
	c := cfg.Modem
	if c.Port == "" {
		return
	}
	r := &runningModem{port: c.Port, line: line.Serial(c.Port, line.Options{Program: "gridgate run"})}
	mc := modem.Config{
		Do: r.exchange, Every: c.Every, Away: a.fogAway, ResetAfter: c.ResetAfter, ResetMost: c.ResetMost,
		Tries: pinTries{a.state, c.PINTry}, Changed: a.restate, Log: a.log,
	}
	if !c.PIN.IsZero() {
		mc.PIN = func() (string, error) {
			v, err := c.PIN.Resolve(a.sources())
			return string(v.Reveal()), err
		}
	}
	if c.Reset.Path != "" {
		out := sys.Output{Path: c.Reset.Path, Line: c.Reset.Line, Low: c.Reset.Low}
		mc.Pulse = func(ctx context.Context) error { return out.Pulse(ctx, c.Reset.Hold) }
	}
	r.Modem = modem.New(mc)
	r.task = a.start(ctx, "modem", r.Run)
	a.modem.Store(r)
}

// fogAway says for how long the fog has not been reached; 0 is that it is.
func (a *Agent) fogAway() time.Duration {
	if u := a.sends.Load(); u != nil && u.Stats().Connected {
		return 0
	}
	return a.reached.away()
}

// restate has the state topic told anew.
func (a *Agent) restate() {
	if u := a.sends.Load(); u != nil {
		u.Restate()
	}
	select {
	case a.committed <- struct{}{}:
	default: // it wakes up anyway
	}
}

// pinTries keeps which PINs were tried, as refused credentials are kept: by names
// that do not tell them. try tells the occasions apart on which a person asks for
// another try.
type pinTries struct {
	state *state.State
	try   int
}

func (t pinTries) name(sim, pin string) (string, error) {
	if held := t.state.Held(); held != nil {
		return "", held
	}
	salt, err := t.state.Salt()
	if err != nil {
		return "", err
	}
	return state.Credentials(salt, "sim "+sim+" try "+strconv.Itoa(t.try), []byte(pin)), nil
}

func (t pinTries) Tried(sim, pin string) (bool, error) {
	name, err := t.name(sim, pin)
	if err != nil {
		return false, err
	}
	n, _ := t.state.Refusals(name)
	return n > 0, nil
}

func (t pinTries) Note(sim, pin string) error {
	name, err := t.name(sim, pin)
	if err != nil {
		return err
	}
	_, err = t.state.Refused(name, time.Now())
	return err
}

func (t pinTries) Forget(sim, pin string) error {
	name, err := t.name(sim, pin)
	if err != nil {
		return err
	}
	return t.state.Accepted(name)
}

// networkTime asks a modem what time its network told it: over the port of the
// modem that is minded, or over one that is open only while it is asked.
type networkTime struct {
	path   string
	minded func() *runningModem
}

// networkTime gives who tells the network's time; nil for nobody.
func (a *Agent) networkTime(cfg *configs.Config) *networkTime {
	path := cfg.Time.Modem
	if path == "" {
		path = cfg.Modem.Port
	}
	if path == "" {
		return nil
	}
	return &networkTime{path, a.modem.Load}
}

// NetworkTime gives the network's time.
func (n *networkTime) NetworkTime(ctx context.Context) (t time.Time, err error) {
	ask := func(ctx context.Context, p modem.Port) (err error) {
		t, err = modem.NetworkTime(ctx, p)
		return err
	}
	if n.minded != nil {
		if m := n.minded(); m != nil && samePort(m.port, n.path) {
			return t, m.exchange(ctx, ask)
		}
	}
	l := line.Serial(n.path, line.Options{})
	defer func() { err = errors.Join(err, l.Close()) }()
	err = (&runningModem{line: l}).exchange(ctx, ask)
	return t, err
}

// samePort says whether two paths are of one device.
func samePort(p, q string) bool {
	if p == q {
		return true
	}
	a, err := os.Stat(p)
	if err != nil {
		return false
	}
	b, err := os.Stat(q)
	return err == nil && os.SameFile(a, b)
}

// reportModem tells how the modem does; nil where there is none.
func (a *Agent) reportModem() *status.Modem {
	m := a.modem.Load()
	if m == nil {
		return nil
	}
	s := m.Status()
	r := &status.Modem{
		Port: m.port, State: string(s.State), Error: s.Err, Model: s.Model, IMEI: s.IMEI, ICCID: s.ICCID, SIM: string(s.SIM),
		Registration: s.Registration.String(), Operator: s.Operator, Technology: s.Technology,
		Weak: s.Signal.DBm != 0 && s.Signal.Weak(), Kind: s.Signal.Kind, At: moment(s.At),
		Resets: s.Resets, LastReset: moment(s.LastReset), LastBy: s.LastBy, NextReset: moment(s.NextReset),
	}
	if a.fogAway() == 0 {
		r.NextReset = nil // it would be if the fog stayed away
	}
	if s.Signal.DBm != 0 {
		r.Signal = &s.Signal.DBm
	}
	if s.Attempts >= 0 {
		r.Attempts = &s.Attempts
	}
	return r
}

// appendModem appends what the state topic says of the modem.
func (a *Agent) appendModem(b []byte) []byte {
	m := a.modem.Load()
	if m == nil {
		return b
	}
	s := m.Status()
	b = fmt.Appendf(b, `,"modem":{"state":%q,"registration":%q`, s.State, s.Registration)
	for _, f := range [][2]string{{"operator", s.Operator}, {"technology", s.Technology}, {"imei", s.IMEI}, {"iccid", s.ICCID}} {
		if f[1] != "" {
			b = fmt.Appendf(b, `,%q:%s`, f[0], quoteJSON(f[1]))
		}
	}
	if s.Signal.DBm != 0 {
		b = fmt.Appendf(b, `,"signal_dbm":%d`, s.Signal.DBm)
	}
	return fmt.Appendf(b, `,"resets":%d}`, s.Resets)
}

func quoteJSON(s string) []byte {
	b, _ := json.Marshal(s) // text is always JSON
	return b
}
