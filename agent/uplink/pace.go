package uplink

import "time"

// Figures of the pacing (DESIGN.md, "MQTT contract").
const (
	// minMessage is the longest message while a link is slow or not yet known:
	// at 20 kbit/s it takes 0.4 s.
	minMessage = 1 << 10
	// messageTime is how long one message may occupy the link.
	messageTime = 300 * time.Millisecond
	// headroom is what may wait in front of the link beyond what is under way,
	// as a time: enough to keep it busy, little enough for an alarm behind it.
	headroom = 500 * time.Millisecond
	// startWindow is the window before anything was measured, and the least.
	startWindow = 2 * minMessage
	// maxWindow bounds the memory for messages without a PUBACK.
	maxWindow = 64 << 10
	// sendBuffer bounds the socket's buffers: what stands there cannot be
	// overtaken.
	sendBuffer = 32 << 10
	// samples is over how many measurements the rate is the best.
	samples = 16

	minPuback = 20 * time.Second
	maxPuback = 120 * time.Second
	// slowest is the least rate, in bytes a second, that patience reckons with:
	// 2 kbit/s.
	slowest = 250
)

// pace measures a connection by its PUBACKs and says how much may be under
// way. It models the link as a rate behind a round trip: the rate is the best
// of the last deliveries that kept the link busy, the round trip the shortest.
// The window is rate × (round trip + headroom); as that exceeds what is needed
// to fill the link, it grows from a small start until the link is full, and a
// queue of not more than headroom and a message stands before it.
//
// Times are given by the caller. The zero value is a new connection.
type pace struct {
	flight    int       // bytes under way
	delivered int       // bytes acknowledged
	lastAck   time.Time // when the last PUBACK came, or the flight began
	smoothed  time.Duration
	shortest  time.Duration
	rates     [samples]float64 // bytes a second, a ring
	next      int
}

// mark is what pace remembers of a message from sent to acked.
type mark struct {
	size      int
	at        time.Time
	delivered int       // by all messages, when this one was sent
	lastAck   time.Time // when that was last changed
	limited   bool      // the link was kept busy while it was under way
}

// sent counts a message that was handed to the link.
func (p *pace) sent(now time.Time, size int) mark {
	if p.flight == 0 {
		p.lastAck = now // idle time is not the link's
	}
	p.flight += size
	return mark{size: size, at: now, delivered: p.delivered, lastAck: p.lastAck, limited: p.flight+minMessage > p.window()}
}

// acked counts a message's PUBACK.
func (p *pace) acked(now time.Time, m mark) {
	p.flight -= m.size
	p.delivered += m.size
	p.lastAck = now
	trip := max(now.Sub(m.at), time.Microsecond)
	if p.smoothed == 0 {
		p.smoothed = trip
	}
	p.smoothed += (trip - p.smoothed) / 8
	if p.shortest == 0 || trip < p.shortest {
		p.shortest = trip
	}
	took := max(now.Sub(m.lastAck), time.Microsecond)
	// A message alone on a fast link says little about its rate: it may raise
	// the estimate, but pushes no better one out.
	if rate := float64(p.delivered-m.delivered) / took.Seconds(); m.limited || rate > p.rate() {
		p.rates[p.next] = rate
		p.next = (p.next + 1) % samples
	}
}

// rate gives the link's rate in bytes a second, 0 when it is not known.
func (p *pace) rate() float64 {
	best := 0.0
	for _, r := range p.rates {
		best = max(best, r)
	}
	return best
}

// window gives how many bytes may be under way before the next message is held
// back; that one may overshoot it.
func (p *pace) window() int {
	w := p.rate() * (p.shortest + headroom).Seconds()
	return int(min(max(w, startWindow), maxWindow))
}

// message gives how long a message may be, at most most.
func (p *pace) message(most int) int {
	m := p.rate() * messageTime.Seconds()
	return min(int(min(max(m, minMessage), maxWindow)), most)
}

// patience gives how long to wait for the next PUBACK before the connection
// counts as dead: 20 s, longer when acknowledgements were slow or much is under
// way for the link's rate, never over 120 s.
func (p *pace) patience() time.Duration {
	rate := max(p.rate()/4, slowest)
	transfer := time.Duration(float64(p.flight) / rate * float64(time.Second))
	return min(max(4*p.smoothed, transfer, minPuback), maxPuback)
}
