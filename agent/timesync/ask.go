package timesync

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// How a server is asked.
const (
	samples      = 4 // of each server at a poll; that with the shortest round trip counts
	maxDistance  = 16 * time.Second
	readingError = 100 * time.Microsecond // of our own clock
	rateHeld     = 24 * time.Hour         // the longest that a server is left alone which found us too fast
)

// ErrNotSynchronised says that a server does not know the time itself.
var ErrNotSynchronised = errors.New("the server is not synchronised itself")

// Kiss is a kiss-o'-death packet (RFC 5905, 7.4): a server does not want to be
// asked, or not so often.
type Kiss struct{ Code string }

func (k *Kiss) Error() string {
	switch k.Code {
	case "RATE":
		return "the server wants to be asked less often (RATE)"
	case "DENY", "RSTR":
		return fmt.Sprintf("the server refuses to answer this gateway (%s)", k.Code)
	}
	return fmt.Sprintf("the server gives no time (%q)", k.Code)
}

// server is one server over the polls. It belongs to Run.
type server struct {
	Server
	status  ServerStatus
	refused bool          // for good, until the program starts anew
	hold    time.Duration // it was found to be asked too often; twice as long each time
	until   time.Duration // raw time; it is not asked before
}

// heard is what one server gave in one poll.
type heard struct {
	best Sample
	raw  time.Duration // when
	base time.Duration // the clock that was given, minus Raw
	err  error         // when there is no sample
	kiss *Kiss         // that came after samples; none is taken after it
}

// askAll asks all servers that may be asked, at the same time, and gives what
// each said.
func (c *Clock) askAll(ctx context.Context) []*heard {
	at := c.cfg.System.Now()
	base := time.Duration(at.Wall.UnixNano()) - at.Raw
	answers := make([]*heard, len(c.servers))
	var all sync.WaitGroup
	for i, s := range c.servers {
		if s.refused || s.until > at.Raw {
			continue
		}
		all.Go(func() { answers[i] = c.ask(ctx, s.Server, base) })
	}
	all.Wait()
	return answers
}

// ask takes samples of one server.
func (c *Clock) ask(ctx context.Context, s Server, base time.Duration) *heard {
	h := &heard{base: base}
	now := func() time.Time { return time.Unix(0, int64(c.cfg.System.Now().Raw+base)) }
	for i := range samples {
		if i > 0 && !wait(ctx, c.cfg.SamplePause) {
			break
		}
		one, cancel := context.WithTimeout(ctx, c.cfg.AnswerWithin)
		got, err := c.cfg.Exchange(one, Request{Server: s, At: h.best.Address, Now: now})
		cancel()
		var kiss *Kiss
		switch {
		case errors.As(err, &kiss) && h.raw != 0:
			h.err, h.kiss = nil, kiss
			return h
		case errors.As(err, &kiss), errors.Is(err, ErrNotSynchronised):
			return &heard{err: err}
		case err != nil:
			if h.raw == 0 && h.err != nil {
				return h // twice in vain: not four times the traffic
			}
			h.err = err
		case h.raw == 0 || got.Trip < h.best.Trip:
			h.best, h.raw = got, c.cfg.System.Now().Raw
		}
	}
	if h.raw != 0 {
		h.err = nil
	}
	if h.err == nil && h.raw == 0 {
		h.err = ctx.Err()
	}
	return h
}

// wait waits, and says whether it could.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// distance is the largest error of a sample's offset when the server is
// honest: its own, and half the round trip, whichever way the delay was.
func (s Sample) distance() time.Duration {
	return (s.Trip+s.Delay)/2 + s.Dispersion + readingError + time.Duration(mostDrift*2*float64(s.Trip))
}

// take puts down what a server said and gives the candidate, if it is one.
func (c *Clock) take(i int, h *heard, now time.Duration) (cand candidate, ok bool) {
	s := c.servers[i]
	st := &s.status
	switch {
	case s.refused:
		return candidate{}, false // as it was told
	case h == nil:
		st.Verdict, st.Reason = Unasked, "left alone for a while, as it asked"
		return candidate{}, false
	case h.err != nil:
		c.failed(s, h.err, now)
		return candidate{}, false
	}
	b := h.best
	st.Polls++
	st.Address, st.Stratum, st.Trip = b.Address, b.Stratum, b.Trip
	st.Distance = b.distance()
	if s.hold = 0; h.kiss != nil {
		c.kissed(s, h.kiss, now)
	}
	if st.Distance > maxDistance || b.Trip < 0 || b.Delay < 0 || b.Dispersion < 0 {
		st.Verdict, st.Reason = Unusable, fmt.Sprintf("its time is too uncertain: ±%v", st.Distance.Round(time.Millisecond))
		return candidate{}, false
	}
	st.Verdict, st.Reason = Candidate, ""
	age := time.Duration((mostDrift + wanderAtFirst) * float64(now-h.raw))
	best := b.Offset + h.base
	width := st.Distance + age
	return candidate{server: i, best: best, is: interval{best - width, best + width}}, true
}

// failed puts down that a server gave nothing to use.
func (c *Clock) failed(s *server, err error, now time.Duration) {
	st := &s.status
	st.Failures++
	st.Verdict, st.Reason = Unreachable, plainly(err)
	st.Offset, st.Trip, st.Distance, st.Stratum = 0, 0, 0, 0
	var kiss *Kiss
	switch {
	case errors.Is(err, ErrNotSynchronised):
		st.Verdict = Unusable
	case errors.As(err, &kiss):
		st.Verdict = Unusable
		if c.kissed(s, kiss, now); s.refused {
			st.Verdict = Refused
		}
	}
}

// plainly says why a server was not reached, without our own addresses.
func plainly(err error) string {
	var name *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &name):
		return name.Name + " cannot be looked up: " + name.Err
	case errors.As(err, &op) && op.Net == "udp" && op.Op == "read":
		var why syscall.Errno
		if errors.As(op, &why) {
			return why.Error()
		}
	}
	return err.Error()
}

// kissed does what a server wants.
func (c *Clock) kissed(s *server, kiss *Kiss, now time.Duration) {
	switch kiss.Code {
	case "DENY", "RSTR":
		s.refused = true
		c.cfg.Log.Warn("time server refuses to answer and is not asked again", "server", s.String(), "code", kiss.Code)
	case "RATE":
		s.hold = min(max(2*s.hold, 2*c.interval), rateHeld)
		s.until = now + s.hold
		c.cfg.Log.Warn("time server wants to be asked less often", "server", s.String(), "pause", s.hold.String())
	}
}
