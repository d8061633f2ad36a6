package buffertest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// Memory is a store in memory with the methods of buffer.Store. It keeps what
// is acknowledged for ever.
// The zero value is not usable; NewMemory makes one. It is safe for concurrent
// use.
type Memory struct {
	mu        sync.Mutex
	epoch     uint64
	lanes     map[meter.Lane]*memoryLane
	cursors   map[cursorKey]meter.Cursor
	catalogue []byte
	boot      uint32
	times     map[uint32]*buffer.BootTimes
}

type memoryLane struct {
	slots []slot // number n is slots[n-1]
	acked uint64
}

// slot is one sequence number: a row or a hole.
type slot struct {
	row    meter.Row
	hole   bool
	reason meter.Reason
	count  uint64
}

type cursorKey struct {
	id      meter.ID
	serial  string
	profile meter.Channel
}

// NewMemory makes an empty store of that epoch.
func NewMemory(epoch uint64) *Memory {
	m := &Memory{
		epoch: epoch, boot: 1, times: map[uint32]*buffer.BootTimes{},
		lanes: map[meter.Lane]*memoryLane{}, cursors: map[cursorKey]meter.Cursor{},
	}
	for _, lane := range meter.Lanes() {
		m.lanes[lane] = &memoryLane{}
	}
	return m
}

// Epoch is what NewMemory was given.
func (m *Memory) Epoch() uint64 { return m.epoch }

// Boot is what SetBoot said, 1 at first.
func (m *Memory) Boot() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot
}

// SetBoot begins a boot.
func (m *Memory) SetBoot(n uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boot = n
}

// timesOf gives what is known of the times of a boot. mu is held.
func (m *Memory) timesOf(boot uint32) *buffer.BootTimes {
	if m.times[boot] == nil {
		m.times[boot] = &buffer.BootTimes{}
	}
	return m.times[boot]
}

// Correct takes what time it was in this boot, as buffer.Store does.
func (m *Memory) Correct(_ context.Context, c buffer.Correction) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timesOf(m.boot).Add(c)
	return nil
}

// Append stores a.
func (m *Memory) Append(ctx context.Context, a meter.Append) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, l := range a.Losses {
		m.lose(l.Lane, l.Reason, l.Count)
	}
	for _, r := range a.Rows {
		l := m.lanes[r.Lane]
		l.slots = append(l.slots, slot{row: r})
	}
	for _, c := range a.Cursors {
		m.cursors[cursorKey{c.Meter, c.Serial, c.Profile}] = c
	}
	return nil
}

func (m *Memory) lose(lane meter.Lane, reason meter.Reason, count uint64) {
	l := m.lanes[lane]
	l.slots = append(l.slots, slot{hole: true, reason: reason, count: count})
}

// Peek gives what follows after, as buffer.Store does.
func (m *Memory) Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	span := meter.Span{Lane: lane}
	l := m.lanes[lane]
	for n := after + 1; n <= uint64(len(l.slots)) && len(span.Rows) < max(1, maxRows); n++ {
		s := l.slots[n-1]
		if t := m.timesOf(s.row.Stamp.Boot); s.row.Stamp.Boot == m.boot && t.Holds(lane, n, &s.row) {
			t.Released[lane] = uint64(len(l.slots)) // it does not wait
		}
		m.times[s.row.Stamp.Boot].Correct(lane, n, &s.row)
		span.Last = n
		if s.hole {
			span.Holes = append(span.Holes, meter.Hole{First: n, Last: n, Reason: s.reason, Count: s.count})
			continue
		}
		span.Rows = append(span.Rows, s.row)
		if i := len(span.Runs) - 1; i >= 0 && span.Runs[i].First+span.Runs[i].Count == n {
			span.Runs[i].Count++
		} else {
			span.Runs = append(span.Runs, meter.Run{First: n, Count: 1})
		}
	}
	return span, nil
}

// Resend gives acknowledged rows again, as buffer.Store does.
func (m *Memory) Resend(lane meter.Lane, after, through uint64, maxRows int) (meter.Span, error) {
	through = min(through, m.Acked(lane))
	if after >= through {
		return meter.Span{Lane: lane}, nil
	}
	span, err := m.Peek(lane, after, min(max(1, maxRows), int(through-after)))
	for len(span.Holes) > 0 && span.Holes[len(span.Holes)-1].Last > through {
		span.Holes = span.Holes[:len(span.Holes)-1]
	}
	for n := len(span.Runs) - 1; n >= 0 && span.Runs[n].First+span.Runs[n].Count-1 > through; n-- {
		over := min(span.Runs[n].Count, span.Runs[n].First+span.Runs[n].Count-1-through)
		span.Rows = span.Rows[:len(span.Rows)-int(over)]
		if span.Runs[n].Count -= over; span.Runs[n].Count == 0 {
			span.Runs = span.Runs[:n]
		}
	}
	span.Last = min(span.Last, through)
	return span, err
}

// Ack acknowledges through, as buffer.Store does.
func (m *Memory) Ack(lane meter.Lane, through uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lanes[lane]
	if last := uint64(len(l.slots)); through > last {
		return fmt.Errorf("acknowledge %d: %w %d", through, buffer.ErrBeyond, last)
	}
	l.acked = max(l.acked, through)
	return nil
}

// Acked is the number through which lane was acknowledged.
func (m *Memory) Acked(lane meter.Lane) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lanes[lane].acked
}

// Last is the highest number of lane.
func (m *Memory) Last(lane meter.Lane) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.lanes[lane].slots))
}

// Cursor gives the cursor of a meter's profile.
func (m *Memory) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cursors[cursorKey{id, serial, profile}]
	return c, ok, nil
}

// Catalogue gives what SaveCatalogue stored.
func (m *Memory) Catalogue() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.catalogue), nil
}

// SaveCatalogue stores the uplink's catalogue.
func (m *Memory) SaveCatalogue(ctx context.Context, catalogue []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	m.catalogue = append([]byte{}, catalogue...)
	return nil
}
