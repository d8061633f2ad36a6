package poll

import (
	"math/bits"
	"slices"
	"strings"
	"time"

	"gridgate/internal/meter"
)

// An alarm register holds its bits until they are cleared. So a value is an
// alarm when it shows a bit that the value before did not, and its bits are
// taken out of the register once the row is stored, where the group says so.
// What is no number is an alarm when it is another than before.

// clearRetry is how long a register is left alone that could not be cleared.
const clearRetry = time.Hour

// cleared gives the channels whose bits are to be taken out once stored.
func (r *round) cleared() map[meter.Channel]bool {
	channels := make(map[meter.Channel]bool)
	for _, j := range r.jobs {
		if j.Clear {
			for _, c := range j.Channels {
				channels[c] = true
			}
		}
	}
	return channels
}

// news takes the values of alarm registers out of rows that say nothing new:
// each alarm that is stored costs the flash a commit.
func (m *meterState) news(got *meter.Got) {
	var events []meter.Row
	got.Rows = slices.DeleteFunc(got.Rows, func(row meter.Row) bool {
		bits, ok := alarmBits(&row)
		if !ok {
			return m.isOld(&row)
		}
		before := m.bits[row.Channel]
		m.bits[row.Channel] = bits
		fresh := bits &^ before
		if fresh != 0 {
			events = m.appendEvents(events, &row, fresh)
		}
		return fresh == 0
	})
	got.Rows = append(got.Rows, events...)
}

// isOld says whether a row of the alarm lane that has no bits is as it was, or
// is the first and empty.
func (m *meterState) isOld(row *meter.Row) bool {
	if row.Lane != meter.Alarm || row.Stamp.Source != meter.FromGateway || row.Channel == AlarmExchanged {
		return false
	}
	before, known := m.values[row.Channel]
	m.values[row.Channel] = row.Value
	return row.Value == before || !known && row.Value.Bits == 0 && strings.Trim(row.Value.Data, "\x00") == ""
}

// forget forgets the alarms of a meter that was exchanged for another.
func (m *meterState) forget() {
	clear(m.bits)
	clear(m.values)
	m.stuck = nil
	if m.Clock != nil {
		m.Clock.Forget()
	}
}

// noteClears takes note of the bits that a visit was to clear. Those of a meter
// that did not say a word wait for the next visit, and those of one that would
// not let them be cleared for longer.
func (p *Poller) noteClears(m *meterState, clears []meter.Clear, got *meter.Got, silent bool) {
	if silent {
		p.clearAgain(m, clears)
		return
	}
	for _, c := range clears {
		if !slices.ContainsFunc(got.Failures, func(f meter.Failure) bool { return f.Channel == c.Channel }) {
			m.bits[c.Channel] &^= c.Bits
			continue
		}
		m.stuck = append(m.stuck, c)
		m.unstick = time.Now().Add(clearRetry)
	}
}

// takeClears gives the bits that are to be cleared now.
func (p *Poller) takeClears(m *meterState) (clears []meter.Clear) {
	p.mu.Lock()
	clears, m.clearing = m.clearing, nil
	p.mu.Unlock()
	if !m.unstick.After(time.Now()) {
		clears, m.stuck = append(clears, m.stuck...), nil
	}
	return clears
}

// appendEvents gives a row of each bit of an alarm register whose meaning is
// known: the value is the number of the bit.
func (m *meterState) appendEvents(events []meter.Row, register *meter.Row, set uint64) []meter.Row {
	if m.EventOf == nil {
		return events
	}
	for ; set != 0; set &= set - 1 {
		bit := uint8(bits.TrailingZeros64(set))
		if c, ok := m.EventOf(register.Channel, bit); ok {
			row := *register
			row.Channel, row.Value, row.Unit = c, meter.UintValue(uint64(bit), 0), meter.NoUnit
			events = append(events, row)
		}
	}
	return events
}

// alarmBits gives the bits of a register that was read into the alarm lane.
func alarmBits(row *meter.Row) (set uint64, ok bool) {
	ok = row.Lane == meter.Alarm && row.Stamp.Source == meter.FromGateway && row.Value.Kind == meter.Uint
	return row.Value.Bits, ok
}

// clearer gives what to do when rows are stored: have their bits cleared. nil
// when there is nothing.
func (p *Poller) clearer(m *meterState, rows []meter.Row, clearable map[meter.Channel]bool) func() {
	var clears []meter.Clear
	for i := range rows {
		if bits, ok := alarmBits(&rows[i]); ok && clearable[rows[i].Channel] {
			clears = append(clears, meter.Clear{Channel: rows[i].Channel, Bits: bits})
		}
	}
	if clears == nil {
		return nil
	}
	return func() {
		p.mu.Lock()
		m.clearing = append(m.clearing, clears...)
		p.mu.Unlock()
		p.rouse()
	}
}

// clearAgain keeps bits to be cleared for the next visit.
func (p *Poller) clearAgain(m *meterState, clears []meter.Clear) {
	p.mu.Lock()
	m.clearing = append(clears, m.clearing...)
	p.mu.Unlock()
}

// hurry makes the alarms of a meter due whose bits are to be cleared. mu is
// held.
func (m *meterState) hurry(now moment) {
	for i := range m.jobs {
		if j := &m.jobs[i]; j.Clear && len(m.clearing) > 0 {
			j.due = now.by(j)
		}
	}
}
