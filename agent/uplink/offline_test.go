package uplink_test

import (
	"runtime"
	"testing"
	"time"

	"gridgate/internal/linktest"
	"gridgate/internal/meter"
)

// quotaStore is a store with room for so many rows of the interval lane. What it
// drops it declares.
type quotaStore struct {
	*memStore
	room    int
	dropped uint64 // numbers up to here are gone
}

func (s *quotaStore) add(rows ...meter.Row) {
	s.mu.Lock()
	all := s.rows[meter.Interval]
	for _, r := range rows {
		r.Lane = meter.Interval
		all = append(all, r)
	}
	if n := len(all) - s.room; n > 0 {
		s.dropped += uint64(n)
		all = all[:copy(all, all[n:])]
	}
	s.rows[meter.Interval] = all
	s.mu.Unlock()
	s.kick()
}

func (s *quotaStore) Last(lane meter.Lane) uint64 {
	if lane != meter.Interval {
		return s.memStore.Last(lane)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped + uint64(len(s.rows[lane]))
}

func (s *quotaStore) Ack(lane meter.Lane, through uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[lane] = through
	return nil
}

func (s *quotaStore) Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	span := meter.Span{Lane: lane}
	if lane != meter.Interval {
		return span, nil
	}
	if after < s.dropped {
		span.Holes = []meter.Hole{{First: after + 1, Last: s.dropped, Reason: meter.Quota, Count: s.dropped - after}}
		after, span.Last = s.dropped, s.dropped
	}
	rows := s.rows[lane][min(after-s.dropped, uint64(len(s.rows[lane]))):]
	if rows = rows[:min(len(rows), maxRows)]; len(rows) > 0 {
		span.Rows = append([]meter.Row(nil), rows...)
		span.Runs = []meter.Run{{First: after + 1, Count: uint64(len(rows))}}
		span.Last = after + uint64(len(rows))
	}
	return span, nil
}

// 30 days without a link: the uplink's memory stays what it was, and what the
// store kept comes afterwards, with what it dropped declared. Not parallel,
// since it looks at the heap.
func TestThirtyDaysWithoutALink(t *testing.T) {
	for name, outage := range map[string]linktest.Outage{"black hole": linktest.BlackHole, "cut": linktest.Cut} {
		t.Run(name, func(t *testing.T) {
			simulate(t, gprs(), func(s *site) {
				store := &quotaStore{memStore: s.store, room: 10_000}
				s.config.Store = store
				s.start()
				store.add(readings(500)...)
				time.Sleep(time.Second) // in the middle of it
				s.link.Set(outage)
				heap := func() int64 {
					runtime.GC()
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					return int64(m.HeapAlloc)
				}
				var before int64
				batch := readings(160)
				for hour := range 30 * 24 {
					for range 4 {
						store.add(batch...)
						time.Sleep(15 * time.Minute)
					}
					if hour == 3*24 { // the store is full
						before = heap()
					}
				}
				grown := heap() - before
				if grown > 300<<10 {
					t.Errorf("27 days took %d bytes of memory", grown)
				}
				s.link.Set(linktest.Up)
				back := time.Now()
				const total = 500 + 30*24*4*160
				for s.store.Acked(meter.Interval) < total {
					if time.Since(back) > time.Hour {
						s.t.Fatalf("acknowledged %d of %d: %+v", s.store.Acked(meter.Interval), total, s.up.Stats())
					}
					time.Sleep(time.Second)
				}
				f := newFog()
				f.gaps = true
				for _, r := range s.broker.Received() {
					if err := f.take(r); err != nil {
						t.Error(err)
					}
				}
				rows, holes := uint64(len(f.rows[meter.Interval])), f.holes[meter.Interval]
				t.Logf("%v after the link came back, the heap grew by %d bytes, %d rows and %d declared lost of %d", time.Since(back), grown, rows, holes, total)
				if rows+holes != total || holes == 0 {
					t.Errorf("%d rows and %d declared lost of %d", rows, holes, total)
				}
			})
		})
	}
}

// Over a link where nothing passes any more, a connection with something to send
// is given up within 20 s.
func TestABlackHoleIsNoticedWhileWriting(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string]int{"in full drain": 40_000, "a single row": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulate(t, gprs(), func(s *site) {
				s.store.add(meter.Interval, readings(100)...)
				s.start()
				s.drained(time.Minute)
				s.store.add(meter.Interval, readings(rows)...)
				if rows > 1 {
					time.Sleep(20 * time.Second)
				}
				s.link.Set(linktest.BlackHole)
				start := time.Now()
				for s.up.Stats().Connected {
					time.Sleep(100 * time.Millisecond)
				}
				took := time.Since(start)
				t.Logf("noticed after %v", took)
				if took > 20*time.Second+100*time.Millisecond {
					t.Errorf("noticed after %v", took)
				}
			})
		})
	}
}
