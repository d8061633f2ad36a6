package poll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// visitor is a meter made of a function.
type visitor struct {
	visit  func(ctx context.Context, ask meter.Ask) (meter.Got, error)
	asks   []meter.Ask
	at     []time.Time
	closed bool
}

func (v *visitor) Visit(ctx context.Context, ask meter.Ask) (meter.Got, error) {
	v.asks = append(v.asks, ask)
	v.at = append(v.at, time.Now())
	return v.visit(ctx, ask)
}

func (v *visitor) Close() error {
	v.closed = true
	return nil
}

// sinkhole keeps what pollers submit.
type sinkhole struct {
	mu      sync.Mutex
	rows    []meter.Row
	cursors []meter.Cursor
	rounds  int
}

func (s *sinkhole) Submit(rows []meter.Row, cursors []meter.Cursor, stored func()) {
	s.mu.Lock()
	s.rounds++
	s.rows = append(s.rows, rows...)
	s.cursors = append(s.cursors, cursors...)
	s.mu.Unlock()
	if stored != nil {
		stored()
	}
}

func (s *sinkhole) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.cursors) - 1; i >= 0; i-- {
		if c := s.cursors[i]; c.Meter == id && c.Serial == serial && c.Profile == profile {
			return c, true, nil
		}
	}
	return meter.Cursor{}, false, nil
}

type bench struct {
	sink   *sinkhole
	counts *counts
	poller *Poller
	stop   func() error
}

const load meter.Channel = "1-0:99.1.0*255/7:2"

func registers(every time.Duration, align bool) Group {
	return Group{Name: "r", Lane: meter.Instant, Every: every, Align: align, Channels: []meter.Channel{"1-0:1.8.0*255/3:2"}}
}

func run(t *testing.T, meters ...Meter) *bench {
	t.Helper()
	return runWith(t, newCounts(), nil, meters...)
}

// runWith runs a poller over counts and cursors that an earlier one left.
func runWith(t *testing.T, c *counts, cursors []meter.Cursor, meters ...Meter) *bench {
	t.Helper()
	b := &bench{sink: &sinkhole{cursors: cursors}, counts: c}
	now := func() meter.Stamp { return meter.Stamp{Time: time.Now().UnixMilli()} }
	b.poller = New(Config{Line: "l", Meters: meters, Sink: b.sink, Memory: c, Now: now, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.poller.Run(ctx) }()
	b.stop = func() error {
		cancel()
		return <-done
	}
	return b
}

// answer gives a visitor of a meter with that serial that answers with a row.
func answer(serial, want string) *visitor {
	return &visitor{visit: func(_ context.Context, ask meter.Ask) (meter.Got, error) {
		got := meter.Got{Identity: meter.Identity{Want: want, Found: serial, Proven: want == "" || want == serial}}
		for range ask.Groups {
			got.Rows = append(got.Rows, meter.Row{Meter: "m", Serial: serial, Channel: "x", Lane: meter.Instant})
		}
		for _, p := range ask.Profiles {
			if p.Until != 0 { // nothing so old
				got.Cursors = append(got.Cursors, meter.Cursor{Meter: "m", Serial: serial, Profile: p.Channel, Time: p.Until})
				continue
			}
			at := max(p.Since+1, time.Now().Add(-2*time.Hour).UnixMilli())
			got.Rows = append(got.Rows, meter.Row{Meter: "m", Serial: serial, Channel: "p", Lane: meter.Interval, Stamp: meter.Stamp{Time: at, Source: meter.FromMeter}})
			got.Cursors = append(got.Cursors, meter.Cursor{Meter: "m", Serial: serial, Profile: p.Channel, Time: at})
		}
		return got, nil
	}}
}

func TestATimetableIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		aligned, free := answer("1", "1"), answer("2", "2")
		time.Sleep(7 * time.Second) // not at a multiple
		b := run(
			t, Meter{ID: "a", Serial: "1", Visitor: aligned, Groups: []Group{registers(15*time.Minute, true)}},
			Meter{ID: "f", Serial: "2", Visitor: free, Groups: []Group{registers(10*time.Minute, false)}},
		)
		time.Sleep(time.Hour)
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		if len(aligned.at) != 5 || len(free.at) != 7 && len(free.at) != 6 {
			t.Fatalf("visits at %v and %v", aligned.at, free.at)
		}
		for _, at := range aligned.at[1:] {
			if !at.Equal(at.Truncate(15 * time.Minute)) {
				t.Errorf("aligned visit at %v", at)
			}
		}
		for i, at := range free.at[2:] { // the first two are less apart, so that meters spread
			if at.Sub(free.at[i+1]) != 10*time.Minute {
				t.Errorf("free visits at %v", free.at)
			}
		}
		if !aligned.closed || !free.closed {
			t.Error("sessions were left open")
		}
	})
}

func TestADeadMeterCostsATimeoutABackoffStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dead := &visitor{visit: func(context.Context, meter.Ask) (meter.Got, error) {
			time.Sleep(2 * time.Second)
			return meter.Got{}, fmt.Errorf("unit 9: %w", meter.ErrNoAnswer)
		}}
		good := answer("1", "1")
		b := run(
			t, Meter{ID: "dead", Visitor: dead, Groups: []Group{registers(5*time.Second, false)}},
			Meter{ID: "good", Serial: "1", Visitor: good, Groups: []Group{registers(5*time.Second, false)}},
		)
		time.Sleep(time.Hour)
		status := b.poller.Status()
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		if len(dead.at) < 8 || len(dead.at) > 12 { // 5 s, 10 s, … 1 h
			t.Errorf("the dead meter was tried %d times in an hour", len(dead.at))
		}
		if len(good.at) < 700 {
			t.Errorf("the good meter was read %d times of 720", len(good.at))
		}
		if status[0].State != Failing || !strings.Contains(status[0].Err, "no answer") || status[1].State != OK {
			t.Errorf("%+v", status)
		}
	})
}

func TestAnExchangedMeterRaisesOneAlarmAndKeepsItsRowsApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := answer("new", "old")
		b := run(t, Meter{ID: "m", Serial: "old", Visitor: v, Groups: []Group{registers(time.Minute, false)}})
		time.Sleep(10*time.Minute + time.Second)
		status := b.poller.Status()
		_ = b.stop()
		alarms := 0
		for _, r := range b.sink.rows {
			if r.Serial != "new" {
				t.Errorf("a row under serial %q", r.Serial)
			}
			if r.Lane == meter.Alarm {
				alarms++
				if r.Channel != AlarmExchanged || r.Value.String() != "configured old, found new" || r.Stamp.Time == 0 {
					t.Errorf("alarm %+v", r)
				}
			}
		}
		if alarms != 1 || status[0].State != Exchanged || !strings.Contains(status[0].Err, "found new") {
			t.Errorf("%d alarms, %+v", alarms, status)
		}
	})
}

func TestProfilesFollowTheSerialThatAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		profile := Group{Name: "load", Lane: meter.Interval, Every: time.Hour, Profile: load}
		v := answer("new", "old")
		hour := time.Now().Add(-time.Hour).UnixMilli()
		b := runWith(t, newCounts(), []meter.Cursor{
			{Meter: "m", Serial: "old", Profile: load, Time: hour + 1000},
			{Meter: "m", Serial: "new", Profile: load, Time: hour + 50},
		}, Meter{ID: "m", Serial: "old", Visitor: v, Groups: []Group{profile}})
		time.Sleep(time.Minute)
		_ = b.stop()
		if len(v.asks) != 2 || v.asks[0].Profiles[0].Since != hour+1000 || v.asks[1].Profiles[0].Since != hour+50 {
			t.Fatalf("asked %+v", v.asks)
		}
		for _, c := range b.sink.cursors[2:] {
			if c.Serial != "new" || c.Time != hour+51 {
				t.Errorf("cursor %+v", c)
			}
		}
		if n := len(b.sink.cursors); n != 3 {
			t.Errorf("%d cursors", n)
		}
	})
}

func TestAProfileWaitsUntilTheSerialIsKnown(t *testing.T) {
	t.Parallel()
	for _, serial := range []string{"s", ""} {
		synctest.Test(t, func(t *testing.T) {
			profile := profileOf(time.Hour)
			v := answer(serial, "")
			begin := time.Now()
			b := run(t, Meter{ID: "m", Visitor: v, Groups: []Group{profile}})
			time.Sleep(time.Minute)
			_ = b.stop()
			if len(v.asks) != 2 || len(v.asks[0].Profiles) != 0 || len(v.asks[1].Profiles) != 1 {
				t.Fatalf("serial %q: asked %+v", serial, v.asks)
			}
			if since := v.asks[1].Profiles[0].Since; since != begin.Add(-DefaultRecent).UnixMilli() {
				t.Errorf("serial %q: a profile never read is read since %d", serial, since)
			}
		})
	}
}

func TestWhatCameBeforeAnErrorIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &visitor{visit: func(context.Context, meter.Ask) (meter.Got, error) {
			return meter.Got{Identity: meter.Identity{Found: "1"}, Rows: []meter.Row{{Meter: "m", Serial: "1", Lane: meter.Instant}}}, errors.New("cut")
		}}
		b := run(t, Meter{ID: "m", Visitor: v, Groups: []Group{registers(time.Hour, false)}})
		time.Sleep(time.Second)
		_ = b.stop()
		if len(b.sink.rows) != 1 {
			t.Errorf("kept %v", b.sink.rows)
		}
	})
}

func TestAStopInterruptsAVisit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &visitor{visit: func(ctx context.Context, _ meter.Ask) (meter.Got, error) {
			<-ctx.Done()
			return meter.Got{Rows: []meter.Row{{Meter: "m", Lane: meter.Instant}}}, ctx.Err()
		}}
		b := run(t, Meter{ID: "m", Serial: "1", Visitor: v, Groups: []Group{registers(time.Hour, false)}})
		time.Sleep(time.Second)
		if err := b.stop(); err != nil {
			t.Fatal(err)
		}
		if len(b.sink.rows) != 1 || b.poller.Status()[0].State == Failing {
			t.Errorf("rows %v, %+v", b.sink.rows, b.poller.Status())
		}
	})
}

func TestAligned(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		now   string
		every time.Duration
		want  string
	}{
		{"2026-01-05T10:07:30+01:00", 15 * time.Minute, "2026-01-05T10:15:00+01:00"},
		{"2026-01-05T10:15:00+01:00", 15 * time.Minute, "2026-01-05T10:30:00+01:00"},
		{"2026-01-05T23:50:00+01:00", 7 * time.Hour, "2026-01-06T00:00:00+01:00"},
		{"2026-01-05T10:07:30+01:00", 24 * time.Hour, "2026-01-06T00:00:00+01:00"},
		{"2026-03-28T10:00:00+01:00", 24 * time.Hour, "2026-03-29T00:00:00+01:00"},
		{"2026-03-29T10:00:00+02:00", 24 * time.Hour, "2026-03-30T00:00:00+02:00"}, // a day of 23 hours
		{"2026-01-05T10:00:00+01:00", 48 * time.Hour, "2026-01-07T00:00:00+01:00"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := aligned(now, c.every, berlin).Format(time.RFC3339); got != c.want {
			t.Errorf("%s every %v: got %s, want %s", c.now, c.every, got, c.want)
		}
	}
	if got := aligned(time.Unix(100, 0), time.Minute, nil); !got.Equal(time.Unix(120, 0)) {
		t.Errorf("without a zone: %v", got)
	}
}

// TestWhatIsAlignedIsDueLater: in zones where daylight saving begins at
// midnight, too.
func TestWhatIsAlignedIsDueLater(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Berlin", "Atlantic/Azores", "America/Santiago", "America/Havana"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for now := begin; now.Before(begin.AddDate(1, 0, 0)); now = now.Add(5 * time.Minute) {
			for _, every := range []time.Duration{15 * time.Minute, day} {
				at := aligned(now, every, zone)
				if wait := at.Sub(now); wait <= 0 || wait > every+time.Hour {
					t.Fatalf("at %v every %v: due at %v", now.In(zone), every, at)
				}
				if h, m, _ := at.Clock(); m%15 != 0 || every == day && h > 1 {
					t.Fatalf("at %v every %v: due at %v", now.In(zone), every, at)
				}
			}
		}
	}
}

// TestAClockSetBackHalfAnHour: what is aligned follows it.
func TestAClockSetBackHalfAnHour(t *testing.T) {
	t.Parallel()
	p := pollerOf(Config{Meters: []Meter{{ID: "m", Visitor: answer("1", ""), Groups: []Group{registers(15*time.Minute, true)}}}})
	m := p.meters[0]
	due := aligned(time.Now(), 15*time.Minute, time.UTC)
	for _, c := range []struct{ back, most time.Duration }{{0, 15 * time.Minute}, {2 * time.Second, 16 * time.Minute}, {30 * time.Minute, 15 * time.Minute}} {
		m.jobs[0].due = due.Add(c.back)
		p.rein(m, p.now())
		if wait := time.Until(m.jobs[0].due); wait > c.most || c.back < time.Minute && !m.jobs[0].due.Equal(due.Add(c.back)) {
			t.Errorf("set back by %v: due in %v", c.back, wait)
		}
	}
}
