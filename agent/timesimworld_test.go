package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/agent/poll"
	"gridgate/agent/timesync"
	"gridgate/agent/timesync/timetest"
	"gridgate/agent/validate"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// sim is one run.
type sim struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	world  *timetest.World
	store  *buffertest.Memory
	valid  *validate.Validator
	meters []*simMeter
	policy timesync.MeterPolicy
	simVariant

	mu      sync.Mutex
	running *timesync.Clock
	mem     simMemory
	good    time.Time // since when all is well
	sets    int
	seen    map[string]meter.Row // what left the store, by lane and number
	wrongs  []string
	judged  int // offsets that were held against their limits
	left    [3]int
	events  map[meter.Channel]int
}

func (s *sim) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrongs) < 5 {
		s.wrongs = append(s.wrongs, fmt.Sprintf("%v: ", time.Now().UTC().Format(time.DateTime))+fmt.Sprintf(format, args...))
	}
}

func (s *sim) clock() *timesync.Clock {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func (s *sim) now() meter.Stamp {
	n := s.clock().Now()
	if s.trust {
		n.Bound = 0
	}
	return n
}

// Submit stores what a visit brought.
func (s *sim) Submit(rows []meter.Row, cursors []meter.Cursor, stored func()) {
	rows = slices.Clone(rows)
	s.valid.Check(rows)
	if err := s.store.Append(context.Background(), meter.Append{Rows: rows, Cursors: cursors}); err != nil {
		s.wrong("%v", err)
	}
	if stored != nil {
		stored()
	}
}

func (s *sim) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	return s.store.Cursor(id, serial, profile)
}

// simMemory remembers nothing against meters.
type simMemory struct {
	mu   sync.Mutex
	last time.Time
}

func (*simMemory) Refusals(string) (int, time.Time)       { return 0, time.Time{} }
func (*simMemory) Refused(string, time.Time) (int, error) { return 0, nil }
func (*simMemory) Accepted(string) error                  { return nil }
func (*simMemory) WasAccepted(string) bool                { return true }
func (*simMemory) Exchanged(meter.ID) string              { return "" }
func (*simMemory) SetExchanged(meter.ID, string) error    { return nil }

func (m *simMemory) LastTime() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

func (m *simMemory) SetLastTime(t time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = t
	return nil
}

// start starts the agent of a boot, and gives what stops it.
func (s *sim) start() (stop func()) {
	s.store.SetBoot(s.world.Boot())
	clock := timesync.New(timesync.Config{
		Servers: s.world.Servers(), Discipline: timesync.Agent, System: s.world, Hardware: s.world.RTC(), Memory: &s.mem,
		Exchange: s.world.Exchange, Boot: s.world.Boot, Log: slog.New(slog.DiscardHandler),
		Corrected: func(c timesync.Correction) { _ = s.store.Correct(context.Background(), correctionOf(c)) },
	})
	s.mu.Lock()
	s.running = clock
	s.mu.Unlock()
	var meters []poll.Meter
	for _, m := range s.meters {
		meters = append(meters, poll.Meter{
			ID: m.id, Serial: string(m.id), Visitor: m, Clock: timesync.NewMeterClock(s.policy),
			Groups: []poll.Group{
				{Name: "now", Lane: meter.Instant, Every: simCapture, Align: true, Channels: []meter.Channel{simNow}},
				{Name: "load", Lane: meter.Interval, Every: simCapture, Align: true, Profile: simProfile},
			},
		})
	}
	for i := range meters {
		if s.anyway {
			meters[i].Clock = hasty{timesync.NewMeterClock(s.policy)}
		}
	}
	poller := poll.New(poll.Config{
		Line: "sim", Meters: meters, Sink: s, Memory: &s.mem, Now: s.now, Log: slog.New(slog.DiscardHandler),
		Wall: func() time.Time { return s.world.Now().Wall },
	})
	ctx, cancel := context.WithCancel(s.t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = clock.Run(ctx) })
	tasks.Go(func() { _ = poller.Run(ctx) })
	return func() {
		cancel()
		tasks.Wait()
	}
}

// deliver takes what waits, as the fog does, sometimes twice.
func (s *sim) deliver(again bool) {
	for _, lane := range meter.Lanes() {
		after := s.store.Acked(lane)
		if again {
			after -= min(after, 50)
		}
		for {
			span, err := s.store.Peek(lane, after, 500)
			if err != nil || span.Last == 0 {
				break
			}
			n := span.Runs[0].First
			for i := range span.Rows {
				s.arrived(lane, n+uint64(i), &span.Rows[i])
			}
			after = span.Last
		}
		_ = s.store.Ack(lane, after)
	}
}

// arrived holds a row against the truth.
func (s *sim) arrived(lane meter.Lane, number uint64, r *meter.Row) {
	key := fmt.Sprint(lane, number)
	before, twice := s.seen[key]
	if twice {
		if before != *r {
			s.wrong("lane %s number %d came as %+v and as %+v", lane, number, before, *r)
		}
		return
	}
	s.seen[key] = *r
	if r.Channel != simNow {
		if r.Channel != simRow {
			s.events[r.Channel]++
		}
		return
	}
	switch off := r.Stamp.Time - int64(r.Value.Bits); {
	case r.Stamp.Bound == meter.UnknownBound:
		s.left[2]++
		if r.Quality&meter.ClockUnsynchronised == 0 {
			s.wrong("a row of no known time is not flagged: %+v", *r)
		}
	case max(off, -off) > int64(r.Stamp.Bound)+1:
		s.wrong("a row is %d ms off and says at most %d: %+v", off, r.Stamp.Bound, *r)
	case r.Quality&meter.TimeCorrected != 0:
		s.left[1]++
	default:
		s.left[0]++
	}
}

// complete holds what arrived of the profiles against what was captured.
func (s *sim) complete() {
	type captured struct {
		id meter.ID
		n  uint64
	}
	came := map[captured]int{}
	keys := map[meter.Key]bool{}
	for _, r := range s.seen {
		if r.Channel == simRow {
			came[captured{r.Meter, r.Value.Bits}]++
			if keys[r.Key()] {
				s.wrong("interval %v of meter %s came twice", r.Stamp.UTC(), r.Meter)
			}
			keys[r.Key()] = true
		}
	}
	for _, m := range s.meters {
		cursor, _, _ := s.store.Cursor(m.id, string(m.id), simProfile)
		for i, at := range m.rows {
			n := came[captured{m.id, uint64(i)}]
			inGap := slices.ContainsFunc(cursor.Gaps.List(), func(g meter.Gap) bool { return at > g.From && at <= g.To })
			if n == 0 && at <= cursor.Time && !inGap {
				s.wrong("interval %v of meter %s is lost: cursor %v", time.UnixMilli(at).UTC(), m.id, cursor)
			}
		}
	}
}

// look holds the meters' clocks against their limits, where all was well for over
// a day.
func (s *sim) look(well bool) {
	if !well {
		s.good = time.Now()
	}
	if time.Since(s.good) < 27*time.Hour {
		return
	}
	for _, m := range s.meters {
		m.mu.Lock()
		off, drift := m.off(), m.drift*86400
		m.mu.Unlock()
		limit := 30 * time.Second
		if max(drift, -drift) <= 2 {
			limit = 10 * time.Second
		}
		if off.Abs() > timesync.DefaultLimit {
			continue // an event only
		}
		if s.judged++; off.Abs() > limit {
			s.wrong("meter %s, which drifts %.1f s a day, is off by %v", m.id, drift, off)
		}
	}
}
