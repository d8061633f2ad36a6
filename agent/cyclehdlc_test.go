package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/poll"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/obis"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// strand runs the stations of a line, in the goroutine of who calls.
type strand struct {
	in, out []byte
	next    func() (struct{}, bool)
	stop    func()
}

func newStrand(stations ...dlmstest.Station) *strand {
	s := &strand{}
	s.next, s.stop = iter.Pull(func(yield func(struct{}) bool) {
		_ = dlmstest.ServeBus(&strandEnd{s, yield}, stations...) // ends when it is stopped
	})
	s.next()
	return s
}

// hear gives what the stations say to octets, nil for nothing.
func (s *strand) hear(octets []byte) []byte {
	s.in, s.out = append(s.in, octets...), nil
	s.next()
	return s.out
}

type strandEnd struct {
	*strand
	yield func(struct{}) bool
}

func (e *strandEnd) Read(b []byte) (int, error) {
	for len(e.in) == 0 {
		if !e.yield(struct{}{}) {
			return 0, io.EOF
		}
	}
	n := copy(b, e.in)
	e.in = e.in[:copy(e.in, e.in[n:])]
	return n, nil
}

func (e *strandEnd) Write(b []byte) (int, error) {
	e.out = append(e.out, b...)
	return len(b), nil
}

// cosemChannels are what is read of the meters on a line, and what they have.
func cosemChannels() []meter.Channel {
	return []meter.Channel{
		"1-0:1.8.0*255/3:2", "1-0:2.8.0*255/3:2", "1-0:16.7.0*255/3:2",
		"1-0:32.7.0*255/3:2", "1-0:52.7.0*255/3:2", "1-0:72.7.0*255/3:2",
	}
}

// cosemStation is a meter with a physical address.
func cosemStation(physical byte) dlmstest.Station {
	objects := []dlmstest.Object{
		dlmstest.Data(obis.Code{0, 0, 96, 1, 0, 255}, dlmstest.Fixed(axdr.OctetString(fmt.Sprintf("S%07d", physical)))),
	}
	for _, c := range cosemChannels() {
		code, _, _, _ := c.Attribute()
		objects = append(objects, dlmstest.Register(code, 0, 30, dlmstest.Fixed(axdr.DoubleLongUnsigned(uint32(physical)<<16))))
	}
	m := dlmstest.NewMeter(dlmstest.Options{Objects: objects})
	return m.Station(dlmstest.Station{Server: []byte{1 << 1, physical<<1 | 1}})
}

const (
	firstPhysical = 17
	lastPhysical  = 28
)

// askedFrames counts the frames of the client on a line, by physical address
// and kind.
type askedFrames struct {
	in                    hdlc.Splitter
	snrm, requests, turns map[uint16]int
}

func newAskedFrames() *askedFrames {
	return &askedFrames{snrm: map[uint16]int{}, requests: map[uint16]int{}, turns: map[uint16]int{}}
}

func (a *askedFrames) hear(octets []byte) {
	a.in.Feed(octets)
	for raw, ok := a.in.Next(); ok; raw, ok = a.in.Next() {
		f, err := hdlc.ParseFrame(raw)
		switch to := f.Destination.Lower; {
		case err != nil:
		case f.Control == hdlc.SNRM:
			a.snrm[to]++
		case f.Control&1 == 0:
			a.requests[to]++
		default:
			a.turns[to]++ // of a meter that has more to say, or is asked after
		}
	}
}

// TestDeadMetersHoldUpNobodyByHDLC is TestDeadMetersHoldUpNobody with 12 DLMS
// meters, 2 of them dead.
func TestDeadMetersHoldUpNobodyByHDLC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		settings := line.Settings{Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}
		isDead := func(physical uint16) bool { return physical == 20 || physical == 26 }
		var stations []dlmstest.Station
		var meters []poll.Meter
		asked := newAskedFrames()
		var wires *strand
		b := newBus(settings, func(q []byte) ([]byte, time.Duration) {
			asked.hear(q)
			return wires.hear(bytes.Clone(q)), turnaround
		})
		l := b.line()
		now := func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }
		for physical := uint16(firstPhysical); physical <= lastPhysical; physical++ {
			if !isDead(physical) {
				stations = append(stations, cosemStation(byte(physical)))
			}
			id := meter.ID(fmt.Sprint("m-", physical))
			meters = append(meters, poll.Meter{
				ID: id, Visitor: cosem.New(cosem.Config{
					ID: id, Settings: settings, HDLC: &cosem.HDLC{Physical: physical}, Now: now,
				}, l),
				Groups: []poll.Group{{
					Name: "g", Lane: meter.Instant, Every: time.Second, // more than the line can do
					Channels: cosemChannels(),
				}},
			})
		}
		wires = newStrand(stations...)
		defer wires.stop()
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
		took := time.Since(begin)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		busy := b.busy
		timeouts, least, most, connections, turns := 0, math.MaxInt, 0, 0, 0
		for physical := uint16(firstPhysical); physical <= lastPhysical; physical++ {
			rows := sink.rows[meter.ID(fmt.Sprint("m-", physical))]
			if isDead(physical) {
				timeouts += asked.snrm[physical] / 2 // both within a time-out
				if rows > 0 || asked.snrm[physical] > 20 {
					t.Errorf("dead meter %d: %d rows, asked %d times", physical, rows, asked.snrm[physical])
				}
				continue
			}
			least, most = min(least, rows), max(most, rows)
			connections, turns = connections+asked.snrm[physical], turns+asked.turns[physical]
			// A GET a row, and for each connection the association, who it is
			// and, of the first, the scalers.
			if want := rows + 2*asked.snrm[physical] + 2*len(cosemChannels()); asked.requests[physical] > want {
				t.Errorf("meter %d: %d requests for %d rows and %d connections", physical, asked.requests[physical], rows, asked.snrm[physical])
			}
		}
		dead := time.Duration(timeouts) * cosem.DefaultTimeout
		t.Logf("%d to %d rows of each living meter, %d connections, %d turns more, wire %v, %d time-outs of the dead, ratio %.3f",
			least, most, connections, turns, busy.Round(time.Second), timeouts, float64(took-dead)/float64(busy))
		if least == 0 || most-least > 2*len(cosemChannels()) {
			t.Errorf("the living were not read alike: %d to %d rows", least, most)
		}
		if living := lastPhysical - firstPhysical - 1; connections > living*(1+timeouts) || turns > living {
			t.Errorf("%d connections and %d turns besides of %d meters", connections, turns, living)
		}
		if allowed := time.Duration(1.15*float64(busy)) + dead; took > allowed {
			t.Errorf("the cycles are worth %v of wire and time-outs", allowed)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
