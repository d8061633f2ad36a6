package uplink

import (
	"fmt"
	"time"

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
	// maxCuts is how many lengths of a message are tried for one that fills it.
	maxCuts = 3
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
	tries     int     // how often it was sent
	turn      int     // of its lane when it was cut
	names     int     // bytes of the catalogue that goes before it, of the alarm lane
	resend    *resend // what it is a part of, nil for what goes out for the first time
	letter    *letter // of the outbox that it is
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

	// sent is the highest number that was published, by this process or perhaps
	// by one before it.
	sent uint64
	// published is the number through which all have their PUBACKs. Behind it
	// taken goes on.
	published uint64
	// turn counts how often it began again at an earlier number. A PUBACK of an
	// earlier turn says nothing of this one.
	turn    int
	fog     patience
	company company
	encoder *batch.Encoder
	// own is the catalogue of the alarm lane; nil for lanes that share the
	// uplink's. That of a large site takes seconds on a slow link, and an alarm of
	// a kind that is new has to wait for a small one only.
	own    *batch.Catalogue
	heldTo time.Time // when its schedule lets it be sent, zero when nothing waits for it
}

// cut makes a message of the rows behind after, up to number through, of at
// most limit bytes unless one row alone is longer, and not of much less when
// there are more. It gives nil when there are none. With again it is of rows that
// are sent once more, and stands alone.
func (u *Uplink) cut(l *lane, after, through uint64, limit int, again bool) (best *message, err error) {
	perRow := l.perRow
	if perRow == 0 {
		perRow = firstRow
	}
	most := int(min(maxRows, through-after))
	rows := min(max(int(float64(limit)/perRow), 1), most)
	for try := 1; ; try++ {
		m, err := u.encode(l, after, rows, again)
		if err != nil || m == nil {
			return nil, err
		}
		if m.rows > 0 {
			l.perRow = (perRow + float64(len(m.payload))/float64(m.rows)) / 2
		}
		size := max(len(m.payload), m.names)
		fitting := m.rows * limit / size * 15 / 16
		if size > limit && m.rows > 1 {
			if best != nil {
				return best, nil
			}
			most = m.rows - 1
			rows = min(max(fitting, 1), most)
			continue
		}
		best = m
		if size >= limit-limit/8 || m.rows < rows || rows == most || try >= maxCuts {
			return best, nil
		}
		rows = min(max(fitting, rows+1), most)
	}
}

// encode makes a message of so many rows behind after, if they are there.
func (u *Uplink) encode(l *lane, after uint64, rows int, again bool) (*message, error) {
	span, err := u.cfg.Store.Peek(l.id, after, rows)
	if err != nil {
		return nil, fmt.Errorf("lane %s: %w", l.id, err)
	}
	if span.Last <= after {
		return nil, nil
	}
	names := u.catalogue
	if l.own != nil {
		names = l.name(span.Rows)
	} else if names.Add(span.Rows) {
		if err := u.lookAhead(l.id, span.Last); err != nil {
			return nil, fmt.Errorf("lane %s: %w", l.id, err)
		}
	}
	h := batch.Header{Site: string(u.cfg.Site), Gateway: string(u.cfg.Gateway), Epoch: u.cfg.Store.Epoch(), Lane: l.id}
	write := l.encoder.Append
	if again {
		write = l.encoder.AppendAlone
	}
	payload, err := write(nil, h, span, names)
	if err != nil {
		return nil, fmt.Errorf("lane %s: rows after number %d: %w", l.id, after, err)
	}
	m := &message{
		kind: mqtt.Readings, topic: mqtt.ReadingsTopic(u.cfg.Site, u.cfg.Gateway, l.id), payload: payload,
		catalogue: names.Hash(), lane: l, last: span.Last, rows: len(span.Rows), turn: l.turn,
	}
	if l.own != nil {
		m.names = names.Len()
	}
	return m, nil
}

// again takes back messages that were under way when a connection ended. They
// go out again as they are, first; but when one has been tried often or names
// a catalogue that is not the current one, it and what follows is cut anew.
func (l *lane) again(lost []*message, current batch.Hash) {
	l.ready = append(lost, l.ready...)
	l.empty, l.fault = false, nil
	l.drop(l.published)
	keep := 0
	for _, m := range l.ready {
		if m.turn != l.turn || m.catalogue != current || m.tries >= maxTries && len(m.payload) > minMessage {
			break
		}
		keep++
	}
	clear(l.ready[keep:])
	l.ready = l.ready[:keep]
	l.taken = l.published
	if keep > 0 {
		l.taken = l.ready[keep-1].last
	}
}

// drop forgets messages that hold nothing above number through.
func (l *lane) drop(through uint64) {
	for len(l.ready) > 0 && l.ready[0].last <= through {
		l.ready = l.ready[1:]
	}
	l.taken = max(l.taken, through)
}

// rewind goes back to number through: what follows is cut and sent again.
func (l *lane) rewind(through uint64) {
	l.turn++
	l.encoder.Restart()
	l.ready, l.empty = nil, false
	l.taken, l.published = through, through
}
