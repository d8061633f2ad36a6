package agent

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"
)

// The watchdog is fed while every stage gets on. What the world does is no reason
// to stop: a poller whose meters are dead tries them, an intake whose disk is full
// tries again, and an uplink without a link dials; all of them tell so by a pulse,
// from the loop that does the work. A stage that hangs, in a deadlock or in a call
// that does not return, tells nothing, and systemd starts the agent anew.

// How long each stage may be silent. They tell every minute, or when the call ends
// that they are in: a visit, a commit to slow flash, a connection over a slow link.
const (
	lineSilence   = 5 * time.Minute
	intakeSilence = 5 * time.Minute
	uplinkSilence = 10 * time.Minute
)

// pulse is when a stage told last that it gets on.
type pulse struct{ at atomic.Pointer[time.Time] }

func newPulse() *pulse {
	p := new(pulse)
	p.beat()
	return p
}

func (p *pulse) beat() {
	now := time.Now()
	p.at.Store(&now)
}

// silence is for how long a stage told nothing.
func (p *pulse) silence() time.Duration {
	if at := p.at.Load(); at != nil {
		return time.Since(*at)
	}
	return 0
}

// late says whether a stage was silent for longer than limit.
func (p *pulse) late(limit time.Duration) bool {
	return p.silence() > limit
}

// beats are the pulses of the stages that there is one of.
type beats struct{ intake, uplink pulse }

// stalled names the stages that do not get on. A conductor that does not get on
// itself, since mu is never free, does not return.
func (a *Agent) stalled() (stages []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.cfg.Lines() {
		if r, ok := a.lines[l.Key]; ok && r.pulse.late(lineSilence) {
			stages = append(stages, "line "+l.Key)
		}
	}
	if a.beats.intake.late(intakeSilence) {
		stages = append(stages, "intake")
	}
	if a.uplink != nil && a.uplink.uplink != nil && a.beats.uplink.late(uplinkSilence) {
		stages = append(stages, "uplink")
	}
	return stages
}

// stageSilence is for how long a stage told nothing.
type stageSilence struct {
	stage   string
	silence time.Duration
}

// silences gives that of the stages that run; of the lines the longest.
func (a *Agent) silences() []stageSilence {
	a.mu.Lock()
	defer a.mu.Unlock()
	lines := stageSilence{stage: "lines"}
	for _, l := range a.lines {
		lines.silence = max(lines.silence, l.pulse.silence())
	}
	all := []stageSilence{lines, {"intake", a.beats.intake.silence()}}
	if a.uplink != nil && a.uplink.uplink != nil {
		all = append(all, stageSilence{"uplink", a.beats.uplink.silence()})
	}
	return all
}

// feedWatchdog tells systemd that the agent is ready, how it does, and that it gets
// on. Without systemd it does nothing.
func (a *Agent) feedWatchdog(ctx context.Context) error {
	if a.opts.Getenv == nil || a.opts.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	every := 30 * time.Second
	if usec, err := strconv.ParseInt(a.opts.Getenv("WATCHDOG_USEC"), 10, 63); err == nil && usec > 0 {
		every = min(every, max(time.Duration(usec)*time.Microsecond/3, 10*time.Millisecond))
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for fed := true; ; {
		message := a.feed(fed)
		if fed = message != ""; fed {
			a.tellSystemd(message)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// feed gives what to tell the service manager while every stage gets on, and nothing
// while one does not. fed says whether all did the last time.
func (a *Agent) feed(fed bool) string {
	stages := a.stalled()
	if len(stages) == 0 {
		return "READY=1\nWATCHDOG=1\nSTATUS=" + a.inAWord()
	}
	if fed {
		a.log.Error("a stage does not get on; the watchdog is fed no more", "stages", stages)
	}
	return ""
}

// inAWord says in a line how the agent does.
func (a *Agent) inAWord() string {
	r := a.Report()
	read := 0
	for _, l := range r.Lines {
		read += l.Read
	}
	s := fmt.Sprintf("%s: %d of %d meters read", r.Health.State, read, len(r.Meters))
	if len(r.Health.Why) > 0 {
		s += "; " + r.Health.Why[0]
	}
	return s
}

// tellSystemd sends a message of sd_notify(3) to the service manager, if there is
// one. It waits for nothing: a manager that does not read loses it.
func (a *Agent) tellSystemd(message string) {
	if a.opts.Getenv == nil {
		return
	}
	path := a.opts.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // '@' is an abstract one
	if err != nil {
		a.log.Warn("the service manager cannot be told", "error", err)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte(message)); err != nil {
		a.log.Warn("the service manager cannot be told", "error", err)
	}
}
