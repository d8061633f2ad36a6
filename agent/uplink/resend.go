package uplink

import (
	"slices"
	"time"
)

const (
	// maxResends is how many ranges may wait to be sent again.
	maxResends = 32
	// resendRate is reckoned with while the link's rate is not known, in bytes
	// a second.
	resendRate = 1000
)

// resend is a range of numbers that is to be sent again.
type resend struct {
	lane       *lane
	next, last uint64
	probe      bool // one message, to see whether the fog confirms it
}

// resend notes that the fog wants numbers first to last. It gives false when
// too much is waiting already.
func (u *Uplink) resend(l *lane, first, last uint64) bool {
	if since := l.encoder.Since(); since > 0 && last >= since {
		l.encoder.Restart() // it may have lost what deltas are against
	}
	for _, r := range u.resends {
		if r.lane == l && !r.probe && first <= r.last+1 && last+1 >= r.next {
			if first < r.next { // some of it, perhaps, for the second time
				r.next = first
			}
			r.last = max(r.last, last)
			return true
		}
	}
	if len(u.resends) >= maxResends {
		return false
	}
	u.resends = append(u.resends, &resend{lane: l, next: first, last: last})
	u.cfg.Log.Info("the fog asks for rows again", "lane", l.id.String(), "first", first, "last", last)
	return true
}

// probe has the first row that is not confirmed sent again, before anything
// else that is asked for.
func (u *Uplink) probe(l *lane) {
	u.resends = slices.DeleteFunc(u.resends, func(r *resend) bool { return r.probe && r.lane == l })
	acked := u.cfg.Store.Acked(l.id)
	u.resends = slices.Insert(u.resends, 0, &resend{lane: l, next: acked + 1, last: l.sent, probe: true})
}

// mend gives the next message that the fog asked for, nil when there is none or
// none is due: one is under way at a time, and they take half of the link.
func (s *session) mend() *message {
	u := s.u
	if s.repair != nil && s.repair.catalogue != u.names(s.repair.lane).Hash() {
		s.repair = nil
	}
	if s.repair != nil {
		return s.repair
	}
	if s.repairing || time.Now().Before(s.repairAt) {
		return nil
	}
	for len(u.resends) > 0 {
		r := u.resends[0]
		if u.waits(r.lane.id) {
			return nil
		}
		limit := s.pace.message(u.cfg.MaxMessage)
		if r.probe {
			// Not the very message that went out before: so a confirmation of
			// just the probe is no coincidence.
			limit /= 2
			if r.next <= u.cfg.Store.Acked(r.lane.id) {
				u.resends = u.resends[1:]
				continue
			}
		}
		m, err := u.cut(r.lane, r.next-1, r.last, limit, true)
		if err != nil {
			u.cfg.Log.Error("what the fog asks for cannot be read", "lane", r.lane.id.String(), "error", err)
		}
		if err != nil || m == nil {
			u.resends = u.resends[1:]
			continue
		}
		if r.probe {
			r.last, r.lane.fog.probe = m.last, m.last
		}
		m.resend, s.repair = r, m
		return m
	}
	return nil
}

// sentAgain notes that the message of mend was published.
func (s *session) sentAgain(m *message) {
	s.repair, s.repairing = nil, true
	rate := s.pace.rate() / 2
	if rate == 0 {
		rate = resendRate
	}
	s.repairAt = time.Now().Add(time.Duration(float64(m.size()) / rate * float64(time.Second)))
}

// mended notes the PUBACK of a message of mend.
func (s *session) mended(m *message) {
	s.repairing = false
	r := m.resend
	r.next = max(r.next, m.last+1)
	if r.next > r.last || r.probe {
		s.u.resends = slices.DeleteFunc(s.u.resends, func(o *resend) bool { return o == r })
	}
	s.u.count(func(st *Stats) { st.Resent += uint64(m.rows) })
}
