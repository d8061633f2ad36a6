package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/poll"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/plc"
	"gridgate/internal/meter"
)

// rowSink keeps cursors, and counts how often each row came.
type rowSink struct {
	mu      sync.Mutex
	cursors map[string]meter.Cursor
	rows    map[string]int                   // meter, channel, time
	came    map[meter.ID]map[int64]time.Time // when the row of a time came
	wrong   []string
}

func newRowSink() *rowSink {
	return &rowSink{cursors: map[string]meter.Cursor{}, rows: map[string]int{}, came: map[meter.ID]map[int64]time.Time{}}
}

func (s *rowSink) Submit(rows []meter.Row, cursors []meter.Cursor, _ func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		r := &rows[i]
		s.rows[fmt.Sprintf("%s %s %d", r.Meter, r.Channel, r.Stamp.Time)]++
		if want := uint64(r.Stamp.Time / 900_000); r.Value.Bits != want || string(r.Meter) != r.Serial {
			s.wrong = append(s.wrong, fmt.Sprintf("%v: want %d", r, want))
		}
		if s.came[r.Meter] == nil {
			s.came[r.Meter] = map[int64]time.Time{}
		}
		s.came[r.Meter][r.Stamp.Time] = time.Now()
	}
	for _, c := range cursors {
		s.cursors[string(c.Meter)+c.Serial+string(c.Profile)] = c
	}
}

func (s *rowSink) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.cursors[string(id)+serial+string(profile)]
	return c, ok, nil
}

// TestBridgeOfManyNodes: behind a PRIME base node are 200 nodes that are
// configured and 5 that are not. Each frame is lost one time in ten, takes 1 to
// 8 s and comes twice one time in fifty; 10 nodes leave and come back again and
// again. Four are spoken with at a time.
func TestBridgeOfManyNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const nodes, churning, unknown = 200, 10, 5
		b := newBaseNode(1)
		var configured []*simNode
		for i := range nodes {
			configured = append(configured, b.add(serialOf(i)))
		}
		var others []*simNode
		for i := range unknown {
			others = append(others, b.add(serialOf(1000+i)))
		}
		now := func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli(), Mono: time.Now().UnixMilli()} }
		var p *poll.Poller
		bridge := plc.New(plc.Config{
			Name: "base", Kind: plc.Prime, Dial: b.dial, Shared: true, Listed: func(node string) { p.Wake(meter.ID(node)) },
		})
		var running, most atomic.Int32
		var meters []poll.Meter
		for _, n := range configured {
			addr, err := address.Parse("plc+prime://base?node=" + n.serial)
			if err != nil {
				t.Fatal(err)
			}
			node := bridge.Node(drivers.NodeName(addr))
			v, err := drivers.Open(drivers.Config{ID: meter.ID(n.serial), Serial: n.serial, Address: addr, Now: now, Node: node}, node.Line())
			if err != nil {
				t.Fatal(err)
			}
			meters = append(meters, poll.Meter{
				ID: meter.ID(n.serial), Serial: n.serial, Visitor: counting{plc.Observe(v, node), &running, &most},
				Groups: []poll.Group{{Name: "load", Lane: meter.Interval, Every: 15 * time.Minute, Align: true, Profile: "1-0:99.1.0*255/7:2"}},
			})
		}
		sink := newRowSink()
		p = poll.New(poll.Config{
			Line: "base", Meters: meters, Sink: sink, Memory: noMemory{}, Now: now,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Parallel: address.DefaultParallel, VisitLimit: plcVisitLimit, Recent: plcRecent,
		})
		ctx, cancel := context.WithCancel(t.Context())
		var tasks sync.WaitGroup
		tasks.Go(func() { b.churn(ctx, configured[:churning]) })
		tasks.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		begin := time.Now()
		for h := range 3 { // the first is of the cold start
			from := begin.Add(time.Duration(h) * time.Hour)
			time.Sleep(time.Until(from.Add(time.Hour)))
			b.mu.Lock()
			asked := b.asked
			b.mu.Unlock()
			got, want, last := sink.collected(configured, from, b)
			t.Logf("hour %d: %d of %d rows of the quarter hours of living nodes, the slowest %v old; %d frames sent so far",
				h, got, want, last.Round(time.Second), asked)
			if h > 0 && float64(got) < 0.99*float64(want) {
				t.Errorf("hour %d: %d rows of %d, want 99 %%", h, got, want)
			}
		}
		t.Logf("cold start: all nodes but those that churn were read once after %v", sink.firstOfAll(configured[churning:], begin).Round(time.Second))
		var listed int
		var lost, sent uint64
		for _, s := range bridge.Table().Nodes {
			lost, sent = lost+s.Lost, sent+s.Asked
			if s.Node == "" && s.State == plc.Present && s.Asked == 0 {
				listed++
			}
		}
		t.Logf("%d of %d requests had no answer in time; %d at a time", lost, sent, most.Load())
		if listed != unknown {
			t.Errorf("%d unknown nodes are listed, want %d", listed, unknown)
		}
		for _, n := range others {
			if n.asked > 0 {
				t.Errorf("the unknown node %s was asked %d times", n.serial, n.asked)
			}
		}
		if n := most.Load(); n != address.DefaultParallel {
			t.Errorf("%d nodes were spoken with at a time, want %d", n, address.DefaultParallel)
		}
		sink.check(t)
		cancel()
		if err := bridge.Close(); err != nil {
			t.Error(err)
		}
		tasks.Wait()
		b.end()
		time.Sleep(time.Minute) // timers of frames under way
	})
}

// collected counts the rows of the quarter hours of an hour of the nodes that
// are there, and have been for the last quarter of it.
func (s *rowSink) collected(nodes []*simNode, from time.Time, b *baseNode) (got, want int, slowest time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nodes {
		if n.id == 0 || time.Since(n.since) < 15*time.Minute {
			continue
		}
		for q := from; q.Before(from.Add(time.Hour)); q = q.Add(15 * time.Minute) {
			want++
			if at, ok := s.came[meter.ID(n.serial)][q.UnixMilli()]; ok {
				got++
				slowest = max(slowest, at.Sub(q))
			}
		}
	}
	return got, want, slowest
}

// firstOfAll gives when the first row of the last of nodes came.
func (s *rowSink) firstOfAll(nodes []*simNode, begin time.Time) (last time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nodes {
		first := time.Duration(1 << 62)
		for _, at := range s.came[meter.ID(n.serial)] {
			first = min(first, at.Sub(begin))
		}
		last = max(last, first)
	}
	return last
}

func (s *rowSink) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	twice := 0
	for row, n := range s.rows {
		if n > 1 {
			if twice++; twice < 5 {
				t.Errorf("%s came %d times", row, n)
			}
		}
	}
	for _, w := range s.wrong[:min(5, len(s.wrong))] {
		t.Error("wrong: " + w)
	}
	t.Logf("%d rows, %d twice, %d wrong", len(s.rows), twice, len(s.wrong))
}

// counting counts visits that run at a time.
type counting struct {
	meter.Visitor
	running, most *atomic.Int32
}

func (c counting) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	n := c.running.Add(1)
	defer c.running.Add(-1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	return c.Visitor.Visit(ctx, ask)
}
