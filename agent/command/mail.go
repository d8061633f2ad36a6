package command

import (
	"slices"
	"sync"
)

// mail gives letters to the uplink, a few at a time: what a result is too long
// for is not all in memory twice, and does not push others out of the outbox.
type mail struct {
	send func(id string, part int, payload []byte, arrived func())

	mu      sync.Mutex
	batches []*batch
	under   int // letters that the broker does not have yet
	short   map[string]*short
}

// batch is the parts of a result and the result, in this order.
type batch struct {
	id      string
	data    []byte
	result  []byte
	next    int // part that goes next; behind the last one the result
	left    int // letters that have not arrived
	arrived func()
}

// short is the letter of a command that goes out, and the one behind it.
type short struct{ next []byte }

// ahead is how many letters of results are with the uplink at a time.
const ahead = 4

// say sends something short. A later one takes the place of one that waits.
func (m *mail) say(id string, payload []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.short == nil {
		m.short = map[string]*short{}
	}
	if s := m.short[id]; s != nil {
		s.next = payload
		return
	}
	if len(m.short) >= 64 { // of as many commands at once nobody tells
		return
	}
	m.short[id] = &short{}
	m.sayNow(id, payload)
}

// sayNow is called with mu held.
func (m *mail) sayNow(id string, payload []byte) {
	m.send(id, 0, payload, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		s := m.short[id]
		if s == nil || s.next == nil {
			delete(m.short, id)
			return
		}
		next := s.next
		s.next = nil
		m.sayNow(id, next)
	})
}

// deliver sends a result with its parts; arrived is called once the broker has
// all. What waits of the command's progress is not sent any more.
func (m *mail) deliver(id string, result, data []byte, arrived func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.short[id]; s != nil {
		s.next = nil
	}
	if slices.ContainsFunc(m.batches, func(b *batch) bool { return b.id == id }) {
		return
	}
	m.batches = append(m.batches, &batch{id: id, data: data, result: result, left: partsOf(data) + 1, arrived: arrived})
	m.post()
}

func (m *mail) isIdle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.batches)+m.under+len(m.short) == 0
}

func partsOf(data []byte) int { return (len(data) + PartSize - 1) / PartSize }

// post fills up what is with the uplink. mu is held.
func (m *mail) post() {
	for _, b := range m.batches {
		for n := partsOf(b.data); m.under < ahead && b.next <= n; b.next++ {
			part, payload := 0, b.result
			if b.next < n {
				part, payload = b.next+1, b.data[b.next*PartSize:min((b.next+1)*PartSize, len(b.data))]
			}
			m.under++
			m.send(b.id, part, payload, func() { m.done(b) })
		}
	}
}

func (m *mail) done(b *batch) {
	m.mu.Lock()
	m.under--
	b.left--
	last := b.left == 0
	if last {
		m.batches = slices.DeleteFunc(m.batches, func(o *batch) bool { return o == b })
	}
	m.post()
	m.mu.Unlock()
	if last {
		b.arrived()
	}
}
