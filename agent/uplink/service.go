package uplink

import (
	"slices"

	"gridgate/internal/meter"
)

// A bill that waits goes out after owing bytes of alarms; billShare is how many
// bytes of them each of its own are worth.
const (
	owing     = 8 * minMessage
	billShare = 8
)

// order gives the lanes in the order of service: by importance, but for a bill
// after so many alarms.
func (s *session) order() []*lane {
	u := s.u
	if u.owed < owing {
		return u.lanes
	}
	order := slices.Clone(u.lanes)
	order[meter.Alarm], order[meter.Billing] = order[meter.Billing], order[meter.Alarm]
	return order
}

// serve notes what was sent, for the floor of the billing lane.
func (u *Uplink) serve(m *message) {
	bills := u.lanes[meter.Billing]
	switch {
	case m.lane.id == meter.Billing:
		u.owed = max(u.owed-billShare*m.size(), 0)
	case m.lane.id == meter.Alarm && (len(bills.ready) > 0 || !bills.empty && u.cfg.Store.Last(meter.Billing) > bills.taken):
		u.owed += m.size()
	default:
	}
}
