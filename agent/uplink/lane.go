package uplink

import (
	"fmt"

	"gridgate/agent/batch"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

const (
	// maxRows bounds the rows in memory for one message.
	maxRows = 2000
	// maxAhead is how many times maxRows are looked through for a catalogue.
	maxAhead = 8
	// firstRow is the guess of a row's bytes before the first batch.
	firstRow = 16
	// maxTries is how often a message is sent as it is. One that still has no
	// PUBACK may be too long for the link, and is cut anew.
	maxTries = 2
)

// message is what is published, with what its PUBACK means.
type message struct {
	kind      mqtt.Kind
	topic     string
	payload   []byte
	retained  bool
	catalogue batch.Hash // of Readings: the one it names; of a Catalogue: its own
	lane      *lane      // of Readings
	last      uint64     // the highest sequence number it accounts for
	rows      int
	tries     int // how often it was sent
}

// size is the message's length in the stream, fixed header included.
func (m *message) size() int { return len(m.payload) + len(m.topic) + 9 }

// lane is what is known of one queue of the store.
type lane struct {
	id     meter.Lane
	taken  uint64     // up to here rows are in messages
	ready  []*message // cut and not under way, in order
	perRow float64    // bytes a row, smoothed; 0 before the first batch
	empty  bool       // nothing was there behind taken when last looked
	fault  error      // why it cannot be read now
}

// cut makes a message of the rows behind taken, of at most limit bytes unless
// one row alone is longer. It gives nil when there are none.
func (u *Uplink) cut(l *lane, limit int) (*message, error) {
	perRow := l.perRow
	if perRow == 0 {
		perRow = firstRow
	}
	rows := min(max(int(float64(limit)/perRow), 1), maxRows)
	for {
		span, err := u.cfg.Store.Peek(l.id, l.taken, rows)
		if err != nil {
			return nil, fmt.Errorf("lane %s: %w", l.id, err)
		}
		if span.Last <= l.taken {
			return nil, nil
		}
		if u.catalogue.Add(span.Rows) {
			if err := u.lookAhead(l.id, span.Last); err != nil {
				return nil, fmt.Errorf("lane %s: %w", l.id, err)
			}
		}
		hash := u.catalogue.Hash()
		payload, err := batch.Append(nil, batch.Header{
			Site: string(u.cfg.Site), Gateway: string(u.cfg.Gateway), Epoch: u.cfg.Store.Epoch(), Lane: l.id,
		}, span, u.catalogue)
		if err != nil {
			return nil, fmt.Errorf("lane %s: rows after number %d: %w", l.id, l.taken, err)
		}
		n := len(span.Rows)
		if n > 0 {
			l.perRow = (perRow + float64(len(payload))/float64(n)) / 2
		}
		if len(payload) > limit && n > 1 {
			rows = min(max(n*limit/len(payload)*9/10, 1), n-1)
			continue
		}
		l.taken = span.Last
		return &message{
			kind: mqtt.Readings, topic: mqtt.ReadingsTopic(u.cfg.Site, u.cfg.Gateway, l.id), payload: payload,
			catalogue: hash, lane: l, last: span.Last, rows: n,
		}, nil
	}
}

// lookAhead adds what the rows behind after need to the catalogue, as long as
// they need something. Each state of the catalogue is published as a whole, so
// a site's first backlog is better looked through at once.
func (u *Uplink) lookAhead(id meter.Lane, after uint64) error {
	for range maxAhead {
		span, err := u.cfg.Store.Peek(id, after, maxRows)
		if err != nil {
			return err
		}
		if span.Last <= after || !u.catalogue.Add(span.Rows) {
			return nil
		}
		after = span.Last
	}
	return nil
}

// again takes back messages that were under way when a connection ended. They
// go out again as they are, first; but when one has been tried often or names
// a catalogue that is not the current one, it and what follows is cut anew.
func (l *lane) again(lost []*message, acked uint64, current batch.Hash) {
	l.ready = append(lost, l.ready...)
	l.empty, l.fault = false, nil
	keep := 0
	for _, m := range l.ready {
		if m.catalogue != current || m.tries >= maxTries && len(m.payload) > minMessage {
			break
		}
		keep++
	}
	clear(l.ready[keep:])
	l.ready = l.ready[:keep]
	l.taken = acked
	if keep > 0 {
		l.taken = l.ready[keep-1].last
	}
}
