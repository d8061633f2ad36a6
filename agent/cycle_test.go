package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/poll"
	"gridgate/configs"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// crc is CRC-16 of Modbus over serial line, bit by bit.
func crc(p []byte) (c uint16) {
	c = 0xFFFF
	for _, x := range p {
		c ^= uint16(x)
		for range 8 {
			odd := c&1 == 1
			if c >>= 1; odd {
				c ^= 0xA001
			}
		}
	}
	return c
}

const turnaround = 20 * time.Millisecond

// units answers for units of three-phase meters whose registers are floats:
// every one 230, but the frequency 50 and the serial number the unit's.
func units(dead func(unit byte) bool, asked map[byte]int) func([]byte) ([]byte, time.Duration) {
	return func(q []byte) ([]byte, time.Duration) {
		if len(q) != 8 || crc(q[:6]) != binary.LittleEndian.Uint16(q[6:]) {
			return nil, 0
		}
		if asked[q[0]]++; dead(q[0]) {
			return nil, 0
		}
		address, count := binary.BigEndian.Uint16(q[2:]), binary.BigEndian.Uint16(q[4:])
		reply := []byte{q[0], q[1], byte(2 * count)}
		for i := address; i < address+count; i += 2 {
			switch i {
			case 0xFC00:
				reply = binary.BigEndian.AppendUint32(reply, uint32(q[0]))
			case 0x46:
				reply = binary.BigEndian.AppendUint32(reply, math.Float32bits(50))
			default:
				reply = binary.BigEndian.AppendUint32(reply, math.Float32bits(230))
			}
		}
		return binary.LittleEndian.AppendUint16(reply, crc(reply)), turnaround
	}
}

// cycleSink counts rows by meter.
type cycleSink struct {
	mu   sync.Mutex
	rows map[meter.ID]int
}

func (s *cycleSink) Submit(rows []meter.Row, _ []meter.Cursor, _ func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		s.rows[rows[i].Meter]++
	}
}

func (s *cycleSink) Cursor(meter.ID, string, meter.Channel) (meter.Cursor, bool, error) {
	return meter.Cursor{}, false, nil
}

const (
	cycleTimeout = 500 * time.Millisecond
	cycleUnits   = 32
)

func isDeadUnit(unit byte) bool { return unit%8 == 3 }

// modbusMeters are 32 units that are all due more often than the line can do.
func modbusMeters(settings line.Settings, model *modbus.Model, l *line.Line, now meter.Now) (meters []poll.Meter) {
	for unit := byte(1); unit <= cycleUnits; unit++ {
		id := meter.ID(fmt.Sprint("m-", unit))
		meters = append(meters, poll.Meter{
			ID: id, Visitor: modbus.New(modbus.Config{
				ID: id, Unit: unit, Transport: modbus.RTU, Settings: settings, Model: model, Timeout: cycleTimeout, Now: now,
			}, l),
			Groups: []poll.Group{{
				Name: "g", Lane: meter.Instant, Every: time.Second,
				Channels: []meter.Channel{"1-0:32.7.0*255/3:2", "1-0:1.8.0*255/3:2", "1-0:14.7.0*255/3:2"},
			}},
		})
	}
	return meters
}

// TestDeadMetersHoldUpNobody: 32 meters on one line at 9600 bit/s, 4 of them
// dead, all due every few seconds. The line is busy with the living: a cycle
// takes at most 1.15 times their time on the wire, and one time-out for each of
// the dead whose turn has come.
func TestDeadMetersHoldUpNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		settings := line.Settings{Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}
		model, err := configs.Model("eastron-sdm630")
		if err != nil {
			t.Fatal(err)
		}
		asked := make(map[byte]int)
		b := newBus(settings, units(isDeadUnit, asked))
		l := b.line()
		now := func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }
		meters := modbusMeters(settings, model, l, now)
		sink := &cycleSink{rows: map[meter.ID]int{}}
		p := poll.New(poll.Config{
			Line: "bus", Meters: meters, Sink: sink, Memory: noMemory{}, Now: now,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Serial: true,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- p.Run(ctx) }()
		time.Sleep(20 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		timeouts, least, most := 0, math.MaxInt, 0
		for unit := byte(1); unit <= cycleUnits; unit++ {
			rows := sink.rows[meter.ID(fmt.Sprint("m-", unit))]
			if isDeadUnit(unit) {
				timeouts += asked[unit]
				if rows > 0 || asked[unit] > 10 {
					t.Errorf("dead unit %d: %d rows, asked %d times", unit, rows, asked[unit])
				}
				continue
			}
			least, most = min(least, rows), max(most, rows)
		}
		t.Logf("%d to %d rows of each living meter, wire %v, %d time-outs of the dead, ratio %.3f",
			least, most, b.busy.Round(time.Second), timeouts, float64(took-time.Duration(timeouts)*cycleTimeout)/float64(b.busy))
		if least == 0 || most-least > 3 {
			t.Errorf("the living were not read alike: %d to %d rows", least, most)
		}
		if allowed := time.Duration(1.15*float64(b.busy)) + time.Duration(timeouts)*cycleTimeout; took > allowed {
			t.Errorf("the cycles is worth %v of wire and time-outs", allowed)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// noMemory forgets all.
type noMemory struct{}

func (noMemory) Refusals(string) (n int, last time.Time)      { return 0, time.Time{} }
func (noMemory) Refused(string, time.Time) (n int, err error) { return 1, nil }
func (noMemory) Accepted(string) error                        { return nil }
func (noMemory) WasAccepted(string) bool                      { return true }
func (noMemory) Exchanged(meter.ID) string                    { return "" }
func (noMemory) SetExchanged(meter.ID, string) error          { return nil }
