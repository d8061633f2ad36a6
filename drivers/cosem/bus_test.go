package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// multidrop is a serial line with meters on it, each at an address of its own.
// What they say waits until it is read.
type multidrop struct {
	line  *line.Line
	opens atomic.Int32
	tasks sync.WaitGroup
	// late, if not nil, is how long a meter takes before it says something, and
	// whether it says it at all. Octets after half are half a second later.
	late func(n int) (d time.Duration, half, says bool)

	mu      sync.Mutex
	dead    map[int]bool
	snrms   map[int]int
	reads   []uint64 // of the register of each meter
	readyAt []time.Time
}

// dropEnd is the meters' end of an opening of the line.
type dropEnd struct {
	net.Conn
	*multidrop
	out chan []byte
}

type multidropPort struct{ hose }

func (multidropPort) IsBus() {}

const firstDrop = 17

func dropOf(b []byte) (n int, f hdlc.Frame) {
	f, err := hdlc.ParseFrame(b)
	if err != nil {
		return -1, f
	}
	return int(max(f.Source.Lower, f.Destination.Lower)) - firstDrop, f
}

func (e *dropEnd) Read(b []byte) (int, error) {
	n, err := e.Conn.Read(b)
	if at, f := dropOf(b[:n]); err == nil && at >= 0 && f.Control == hdlc.SNRM {
		e.mu.Lock()
		e.snrms[at]++
		e.mu.Unlock()
	}
	return n, err
}

func (e *dropEnd) Write(b []byte) (int, error) {
	at, _ := dropOf(b)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead[at] {
		return len(b), nil
	}
	d, half := time.Duration(0), false
	if e.late != nil {
		var says bool
		if d, half, says = e.late(at); !says {
			return len(b), nil
		}
	}
	when := time.Now().Add(d)
	if when.Before(e.readyAt[at]) {
		when = e.readyAt[at]
	}
	for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		part = append([]byte(nil), part...)
		e.tasks.Add(1)
		time.AfterFunc(time.Until(when), func() {
			defer e.tasks.Done()
			e.out <- part
		})
		if half {
			when = when.Add(time.Second / 2)
		}
		when = when.Add(time.Millisecond)
	}
	e.readyAt[at] = when
	return len(b), nil
}

// newMultidrop gives a line with meters that say how often they were read.
func newMultidrop(t *testing.T, meters int) *multidrop {
	t.Helper()
	d := &multidrop{dead: map[int]bool{}, snrms: map[int]int{}, reads: make([]uint64, meters), readyAt: make([]time.Time, meters)}
	d.line = line.Of("bus", func(context.Context, line.Settings) (line.Medium, error) {
		here, there := net.Pipe()
		d.opens.Add(1)
		e := &dropEnd{Conn: there, multidrop: d, out: make(chan []byte, 4096)}
		var stations []dlmstest.Station
		for n := range meters {
			simulated := dlmstest.NewMeter(dlmstest.Options{Objects: []dlmstest.Object{
				dlmstest.Data(obisOf("0-0:96.1.0"), fixed(axdr.OctetString(fmt.Sprintf("S%02d", n)))),
				dlmstest.Register(obisOf("1-0:1.8.0"), 0, 30, func() axdr.Value {
					d.mu.Lock()
					defer d.mu.Unlock()
					d.reads[n]++
					return axdr.DoubleLongUnsigned(uint32(n)*1_000_000 + uint32(d.reads[n]))
				}),
			}})
			stations = append(stations, simulated.Station(dlmstest.Station{Server: []byte{2, byte(firstDrop+n)<<1 | 1}}))
		}
		closed := make(chan struct{})
		d.tasks.Go(func() { // the rest is for nobody
			for {
				select {
				case b := <-e.out:
					_, _ = there.Write(b)
				case <-closed:
					return
				}
			}
		})
		d.tasks.Go(func() {
			if err := dlmstest.ServeBus(e, stations...); err != nil && !errors.Is(err, io.ErrClosedPipe) {
				t.Error(err)
			}
			there.Close()
			close(closed)
		})
		return multidropPort{hose{here}}, nil
	})
	return d
}

func (d *multidrop) drivers(t *testing.T, n int) []*Meter {
	t.Helper()
	var all []*Meter
	for i := range n {
		id := fmt.Sprintf("S%02d", i)
		all = append(all, New(Config{
			ID: meter.ID(id), Serial: id, HDLC: &HDLC{Physical: uint16(firstDrop + i)}, Timeout: 4 * time.Second,
			Now: (&turnable{at: start()}).now,
		}, d.line))
	}
	return all
}

func (d *multidrop) connections(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.snrms[n]
}

func (d *multidrop) readOf(n int) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reads[n]
}

// check says what is wrong with what was got of a meter: it must be its own,
// and have been asked for in this visit.
func (d *multidrop) check(n int, before uint64, got meter.Got) error {
	for _, r := range got.Rows {
		if v := r.Value.Bits; r.Serial != fmt.Sprintf("S%02d", n) || int(v/1_000_000) != n || v%1_000_000 <= before {
			return fmt.Errorf("meter %d, read %d times before: %v", n, before, r)
		}
	}
	return nil
}

// TestBusWithDeadMeters: meters that are off cost the others on their line
// nothing but the time-out, and are read when they are there again.
func TestBusWithDeadMeters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const meters = 12
		d := newMultidrop(t, meters)
		all := d.drivers(t, meters)
		ask := registers(t, "1-0:1.8.0")
		for round := range 8 {
			d.mu.Lock()
			dead := map[int]bool{3: round > 0 && round < 7, 4: round > 0 && round < 7, 9: round > 1 && round < 7, 11: round < 7}
			d.dead = dead
			d.mu.Unlock()
			for n, m := range all {
				before, begin := d.readOf(n), time.Now()
				got, err := m.Visit(t.Context(), ask)
				if dead[n] {
					if took := time.Since(begin); !errors.Is(err, meter.ErrNoAnswer) || took > 8500*time.Millisecond {
						t.Errorf("round %d: dead meter %d: %v after %v", round, n, err, took)
					}
					continue
				}
				if wrong := d.check(n, before, got); err != nil || len(got.Rows) != 1 || wrong != nil {
					t.Errorf("round %d: meter %d: %v, %v, %s", round, n, err, wrong, describe(got))
				}
			}
			<-time.NewTimer(15 * time.Minute).C
		}
		if n := d.opens.Load(); n != 1 {
			t.Errorf("opened %d times", n)
		}
		for _, n := range []int{0, 1, 2, 5, 6, 7, 8, 10} {
			if c := d.connections(n); c != 1 {
				t.Errorf("meter %d was connected with %d times", n, c)
			}
		}
		d.end(t, all)
	})
}

func (d *multidrop) end(t *testing.T, all []*Meter) {
	t.Helper()
	for _, m := range all {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := d.line.Close(); err != nil {
		t.Error(err)
	}
	d.tasks.Wait()
}

// TestBusWithLateMeters: whatever comes late, in one piece or two, on the line
// of others or in the next visit to the same meter, is no value of another
// meter, and none of an earlier question.
func TestBusWithLateMeters(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const meters = 5
				random, theirs := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
				d := newMultidrop(t, meters)
				d.late = func(int) (time.Duration, bool, bool) {
					switch theirs.IntN(12) {
					case 0:
						return time.Duration(theirs.IntN(30_000)) * time.Millisecond, false, true
					case 1:
						return time.Duration(theirs.IntN(6_000)) * time.Millisecond, true, true
					case 2:
						return 0, false, theirs.IntN(2) > 0
					}
					return 0, false, true
				}
				all := d.drivers(t, meters)
				ask := registers(t, "1-0:1.8.0")
				well := 0
				for range 60 {
					n := random.IntN(meters)
					before := d.readOf(n)
					ctx, cancel := context.WithCancel(t.Context())
					if random.IntN(8) == 0 {
						time.AfterFunc(time.Duration(random.IntN(9000))*time.Millisecond, cancel)
					}
					got, err := all[n].Visit(ctx, ask)
					cancel()
					if wrong := d.check(n, before, got); wrong != nil {
						t.Errorf("%v, %v", wrong, err)
					}
					if err == nil {
						well++
					}
				}
				if well < 20 || d.opens.Load() != 1 {
					t.Errorf("%d visits went well, opened %d times", well, d.opens.Load())
				}
				d.end(t, all)
			})
		})
	}
}
