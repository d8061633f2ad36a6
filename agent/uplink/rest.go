package uplink

import "time"

const (
	// DefaultKeepAlive is how long a connection rests at first.
	DefaultKeepAlive = 5 * time.Minute
	// MostKeepAlive is the longest rest, and what the broker is told.
	MostKeepAlive = 15 * time.Minute
	// restTrust is how long a rest that killed a connection is avoided.
	restTrust = 24 * time.Hour
	// restProof is how soon after a dead connection another has to work for the
	// rest to have killed the first, and not an outage.
	restProof = time.Minute
)

// rest is how long a connection may say nothing before it is proven with a
// ping. Operators' NATs forget connections that rest too long, and a ping costs
// data: so it grows while resting connections live, and shrinks when one was
// found dead though the link was there.
type rest struct {
	first    time.Duration // at first, and the least but for such NATs
	now      time.Duration // 0 is first
	survived time.Duration // the longest that a connection lived through
	deadly   time.Time     // when one was last found dead; zero is never

	suspect   time.Duration // after which the last connection was found dead
	suspectAt time.Time
}

// limit is how long a connection rests now.
func (r *rest) limit() time.Duration {
	if r.now == 0 {
		return r.first
	}
	return r.now
}

// least bounds the shrinking.
func (r *rest) least() time.Duration { return min(r.first, time.Minute) }

// lived notes that a connection lived through a rest of d.
func (r *rest) lived(d time.Duration, now time.Time) {
	r.survived = max(r.survived, d)
	if d >= r.limit()*9/10 && (r.deadly.IsZero() || now.Sub(r.deadly) > restTrust) {
		r.now = min(r.limit()*3/2, max(MostKeepAlive, r.first))
	}
}

// died notes that a connection was found dead after a rest of d. Whether it
// was the rest shows when the next one connects: see back.
func (r *rest) died(d time.Duration, now time.Time) { r.suspect, r.suspectAt = d, now }

// back notes that a connection works.
func (r *rest) back(now time.Time) {
	d := r.suspect
	r.suspect = 0
	if d == 0 || now.Sub(r.suspectAt) > restProof {
		return
	}
	if r.survived >= d*9/10 {
		r.survived = 0 // it no longer holds
	}
	r.deadly = now
	r.now = max(r.survived, d*2/3)
	r.now = max(min(r.now, d*9/10), r.least())
}

// stir is called before something is sent: what comes back, or not, says
// whether the connection lived through the rest.
func (s *session) stir(now time.Time) {
	last := s.conn.Said()
	if heard := s.conn.Heard(); heard.After(last) {
		last = heard
	}
	if d := now.Sub(last); s.rested == 0 && d >= s.u.rest.least() {
		s.rested, s.stirred = d, now
	}
}

// listen looks whether something came since stir.
func (s *session) listen(now time.Time) {
	if s.rested > 0 && s.conn.Heard().After(s.stirred) {
		s.u.rest.lived(s.rested, now)
		s.rested = 0
	}
}

// quiet is when a connection that says nothing is to be proven.
func (s *session) quiet() time.Time {
	last := s.conn.Said()
	if heard := s.conn.Heard(); heard.After(last) {
		last = heard
	}
	return last.Add(s.u.rest.limit())
}

// prove sends a ping when the connection has rested long enough.
func (s *session) prove(now time.Time) {
	if s.pong == nil && len(s.flight) == 0 && !now.Before(s.quiet()) {
		s.stir(now)
		s.pong, s.pinged = s.conn.Ping(), now
	}
}
