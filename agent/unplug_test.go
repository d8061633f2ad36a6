package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/poll"
	"gridgate/configs"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// keeper is a sink that keeps all.
type keeper struct {
	mu      sync.Mutex
	rows    []meter.Row
	cursors map[string]meter.Cursor
}

func cursorKey(id meter.ID, serial string, profile meter.Channel) string {
	return fmt.Sprint(id, "/", serial, "/", profile)
}

func (k *keeper) Submit(rows []meter.Row, cursors []meter.Cursor, stored func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rows = append(k.rows, rows...)
	for _, c := range cursors {
		k.cursors[cursorKey(c.Meter, c.Serial, c.Profile)] = c
	}
	if stored != nil {
		stored()
	}
}

func (k *keeper) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, ok := k.cursors[cursorKey(id, serial, profile)]
	return c, ok, nil
}

// since gives after how long each meter gave a row that was read after a time.
func (k *keeper) since(at time.Time) map[meter.ID]time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := map[meter.ID]time.Duration{}
	for _, r := range k.rows {
		took := time.UnixMilli(r.Stamp.Time).Sub(at)
		if _, seen := first[r.Meter]; !seen && r.Stamp.Source != meter.FromMeter && took > 0 {
			first[r.Meter] = took
		}
	}
	return first
}

const (
	loadProfile   = meter.Channel("1-0:99.1.0*255/7:2")
	capturePeriod = 15 * time.Minute
)

// profiled is a meter with a load profile that has captured since a time.
func profiled(physical byte, since time.Time) dlmstest.Station {
	energy := obis.Code{1, 0, 1, 8, 0, 255}
	at := func(t time.Time) axdr.Value { return axdr.DoubleLongUnsigned(uint32(t.Sub(since) / time.Minute)) }
	columns := []dlmstest.Column{{Class: 8, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}, {Class: 3, Code: energy, ID: 2}}
	m := dlmstest.NewMeter(dlmstest.Options{Objects: []dlmstest.Object{
		dlmstest.Data(obis.Code{0, 0, 96, 1, 0, 255}, dlmstest.Fixed(axdr.OctetString(fmt.Sprintf("S%07d", physical)))),
		dlmstest.Clock(obis.Code{0, 0, 1, 0, 0, 255}, time.Now),
		dlmstest.Register(energy, 0, 30, func() axdr.Value { return at(time.Now()) }),
		dlmstest.Profile(obis.Code{1, 0, 99, 1, 0, 255}, columns, uint32(capturePeriod/time.Second), func(s *dlmstest.Selection) []axdr.Value {
			var rows []axdr.Value
			for t := since; !t.After(time.Now()); t = t.Add(capturePeriod) {
				if s == nil || !t.Before(s.From) && !t.After(s.To) {
					rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(t)), at(t)))
				}
			}
			return rows
		}),
	}})
	return m.Station(dlmstest.Station{Server: []byte{1 << 1, physical<<1 | 1}})
}

// outage is a line whose adapter is away for a time.
type outage struct {
	bus    *bus
	meters []poll.Meter
	began  time.Time
	stop   func()
}

const outageEvery = 5 * time.Second

var outageSettings = line.Settings{Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}

func hdlcOutage(_ *testing.T, now meter.Now) (*outage, *line.Line) {
	o := &outage{began: time.Now().Add(-2 * time.Hour).Truncate(capturePeriod)}
	s := newStrand(profiled(17, o.began), profiled(18, o.began))
	o.stop = s.stop
	o.bus = newBus(outageSettings, func(q []byte) ([]byte, time.Duration) { return s.hear(q), turnaround })
	l := o.bus.line()
	for physical := uint16(17); physical <= 18; physical++ {
		id := meter.ID(fmt.Sprint("m-", physical))
		o.meters = append(o.meters, poll.Meter{
			ID: id, Visitor: cosem.New(cosem.Config{ID: id, Settings: outageSettings, HDLC: &cosem.HDLC{Physical: physical}, Now: now}, l),
			Groups: []poll.Group{
				{Name: "r", Lane: meter.Instant, Every: outageEvery, Channels: []meter.Channel{"1-0:1.8.0*255/3:2"}},
				{Name: "p", Lane: meter.Interval, Every: capturePeriod, Align: true, Profile: loadProfile},
			},
		})
	}
	return o, l
}

func modbusOutage(t *testing.T, now meter.Now) (*outage, *line.Line) {
	t.Helper()
	model, err := configs.Model("eastron-sdm630")
	if err != nil {
		t.Fatal(err)
	}
	o := &outage{stop: func() {}}
	o.bus = newBus(outageSettings, units(func(byte) bool { return false }, map[byte]int{}))
	l := o.bus.line()
	for unit := byte(1); unit <= 3; unit++ {
		id := meter.ID(fmt.Sprint("m-", unit))
		o.meters = append(o.meters, poll.Meter{
			ID: id, Visitor: modbus.New(modbus.Config{ID: id, Unit: unit, Transport: modbus.RTU, Settings: outageSettings, Model: model, Now: now}, l),
			Groups: []poll.Group{{Name: "r", Lane: meter.Instant, Every: outageEvery, Channels: []meter.Channel{"1-0:32.7.0*255/3:2"}}},
		})
	}
	return o, l
}

// TestUnplugged takes the adapter of a line away, at many moments in exchanges
// and between them, and brings it back after seconds or an hour: every meter is
// read within 5 s, none is held to have failed, and of profiles no row is lost
// and none comes twice.
func TestUnplugged(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T, meter.Now) (*outage, *line.Line){"modbus": modbusOutage, "hdlc": hdlcOutage} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			worst, busy, n := time.Duration(0), 0, 0
			step := 17 * time.Millisecond // in the first exchanges, then less often
			for at := 3 * time.Millisecond; at < 14*time.Second; at += step {
				away := 8 * time.Second
				if n%5 == 0 {
					away = time.Hour
				}
				if n == 30 {
					step = 331 * time.Millisecond
				}
				synctest.Test(t, func(t *testing.T) {
					took, wasBusy := unplugged(t, open, at, away)
					worst = max(worst, took)
					if n++; wasBusy {
						busy++
					}
				})
			}
			t.Logf("%d outages, %d of them in an exchange: the last meter was read %v after the return at most", n, busy, worst)
			if busy < 8 || busy > n-8 {
				t.Errorf("the line was busy at %d moments of %d", busy, n)
			}
		})
	}
}

// unplugged has the adapter go at a time after the start, and gives how long
// after its return the last meter was read.
func unplugged(t *testing.T, open func(*testing.T, meter.Now) (*outage, *line.Line), at, away time.Duration) (last time.Duration, busy bool) {
	now := func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }
	o, l := open(t, now)
	defer o.stop()
	sink := &keeper{cursors: map[string]meter.Cursor{}}
	p := poll.New(poll.Config{
		Line: "bus", Meters: o.meters, Sink: sink, Memory: noMemory{}, Now: now, Log: slog.New(slog.DiscardHandler), Serial: true,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	time.Sleep(at)
	synctest.Wait()
	o.bus.mu.Lock()
	busy = o.bus.free.After(time.Now())
	o.bus.mu.Unlock()
	o.bus.unplug()
	time.Sleep(away)
	o.bus.plug()
	back := time.Now()
	time.Sleep(5 * time.Second)
	read := sink.since(back)
	for _, m := range o.meters {
		took, ok := read[m.ID]
		if last = max(last, took); !ok {
			t.Errorf("unplugged %v after the start for %v: meter %s was not read within 5 s of the return", at, away, m.ID)
		}
	}
	for _, s := range p.Status() {
		if s.State != poll.OK {
			t.Errorf("unplugged %v after the start for %v: %+v", at, away, s)
		}
	}
	time.Sleep(2 * time.Minute)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	o.noneLost(t, sink)
	return last, busy
}

// noneLost looks for rows of profiles that did not come once.
func (o *outage) noneLost(t *testing.T, sink *keeper) {
	t.Helper()
	if o.began.IsZero() {
		return
	}
	for _, m := range o.meters {
		seen := map[int64]int{}
		for _, r := range sink.rows {
			if r.Meter == m.ID && r.Stamp.Source == meter.FromMeter {
				seen[r.Stamp.Time]++
				if want := (r.Stamp.Time - o.began.UnixMilli()) / 60_000; r.Value.String() != fmt.Sprint(want) {
					t.Errorf("meter %s: the row of %v is %v, want %d", m.ID, time.UnixMilli(r.Stamp.Time).UTC(), r.Value, want)
				}
			}
		}
		// A row that is captured in the last moments may still wait.
		for at := o.began; at.Before(time.Now().Add(-time.Minute)); at = at.Add(capturePeriod) {
			if n := seen[at.UnixMilli()]; n != 1 {
				t.Errorf("meter %s: the row of %v came %d times", m.ID, at, n)
			}
			delete(seen, at.UnixMilli())
		}
		if len(seen) > 1 {
			t.Errorf("meter %s: rows of %v", m.ID, seen)
		}
	}
}
