package intake

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// memory is a store that keeps what it is given, and fails while fail is set.
type memory struct {
	mu      sync.Mutex
	appends []meter.Append
	at      []time.Time
	tries   int
	fail    error
	cursors []meter.Cursor
	block   chan struct{}
}

func (m *memory) Append(_ context.Context, a meter.Append) error {
	if m.block != nil {
		<-m.block
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries++
	if m.fail != nil {
		return m.fail
	}
	m.appends = append(m.appends, a)
	m.at = append(m.at, time.Now())
	m.cursors = append(m.cursors, a.Cursors...)
	return nil
}

func (m *memory) Cursor(id meter.ID, serial string, profile meter.Channel) (meter.Cursor, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.cursors) - 1; i >= 0; i-- {
		if c := m.cursors[i]; c.Meter == id && c.Serial == serial && c.Profile == profile {
			return c, true, nil
		}
	}
	return meter.Cursor{}, false, nil
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	m.fail = err
	m.mu.Unlock()
}

func (m *memory) rows() []meter.Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []meter.Row
	for _, a := range m.appends {
		rows = append(rows, a.Rows...)
	}
	return rows
}

// counting is a validator that counts how often it saw a row.
type counting map[uint64]int

func (c counting) Check(rows []meter.Row) {
	for i := range rows {
		c[rows[i].Value.Bits]++
	}
}

func row(lane meter.Lane, n uint64) meter.Row {
	return meter.Row{Meter: "m", Channel: "x", Lane: lane, Value: meter.UintValue(n, 0)}
}

// start runs an intake in the bubble; the function it gives stops it and
// returns Run's error.
func start(t *testing.T, m *memory, window time.Duration, most int) (*Intake, func() error) {
	t.Helper()
	in := New(Config{Store: m, Validator: counting{}, Log: slog.New(slog.DiscardHandler), Window: window, MaxWaiting: most})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	synctest.Wait()
	return in, func() error {
		cancel()
		return <-done
	}
}

func TestInstantRowsWaitForTheWindowAndShareACommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		begin := time.Now()
		in, stop := start(t, m, 4*time.Minute, 1<<20)
		for i := range 10 {
			in.Submit([]meter.Row{row(meter.Instant, uint64(i))}, nil, nil)
			time.Sleep(20 * time.Second)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(m.appends) != 1 || len(m.appends[0].Rows) != 10 || m.at[0].Sub(begin) != 4*time.Minute {
			t.Errorf("%d commits at %v", len(m.appends), m.at)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnAlarmIsCommittedAtOnceAndTakesTheOthersAlong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		begin := time.Now()
		in, stop := start(t, m, 4*time.Minute, 1<<20)
		in.Submit([]meter.Row{row(meter.Instant, 1)}, nil, nil)
		time.Sleep(time.Second)
		in.Submit([]meter.Row{row(meter.Alarm, 2)}, nil, nil)
		synctest.Wait()
		if len(m.appends) != 1 || m.at[0].Sub(begin) != time.Second {
			t.Fatalf("commits at %v", m.at)
		}
		if rows := m.rows(); len(rows) != 2 || rows[0].Lane != meter.Alarm {
			t.Errorf("stored %v", rows)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAStopCommitsWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		in, stop := start(t, m, time.Hour, 1<<20)
		in.Submit([]meter.Row{row(meter.Instant, 1)}, nil, nil)
		if err := stop(); err != nil || len(m.rows()) != 1 {
			t.Errorf("%v, stored %v", err, m.rows())
		}
	})
}

func TestAStopThatCannotStoreSaysHowManyRows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("disk full")
		m := &memory{fail: full}
		in, stop := start(t, m, time.Hour, 1<<20)
		in.Submit([]meter.Row{row(meter.Instant, 1), row(meter.Instant, 2)}, nil, nil)
		if err := stop(); !errors.Is(err, full) || in.Stats().Waiting != 2 {
			t.Errorf("%v, %+v", err, in.Stats())
		}
	})
}

func TestAFullDiskLosesNothingWithinTheBoundAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: errors.New("disk full")}
		in, stop := start(t, m, time.Minute, 1<<20)
		for i := range 600 { // a round a second for ten minutes
			in.Submit([]meter.Row{row(meter.Instant, uint64(i))}, nil, nil)
			time.Sleep(time.Second)
		}
		if m.tries < 10 || m.tries > 20 {
			t.Errorf("%d tries in nine minutes of a full disk", m.tries)
		}
		m.setFail(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		rows := m.rows()
		if len(rows) != 600 {
			t.Fatalf("stored %d of 600", len(rows))
		}
		for i, r := range rows {
			if r.Value.Bits != uint64(i) {
				t.Fatalf("row %d is %v", i, r.Value)
			}
		}
		if s := in.Stats(); s.Dropped != 0 || s.Waiting != 0 || s.Err != nil || in.bytes != 0 {
			t.Errorf("%+v, %d bytes", s, in.bytes)
		}
		for n, times := range in.cfg.Validator.(counting) {
			if times != 1 {
				t.Fatalf("row %d was validated %d times", n, times)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestOverTheBoundInstantGoesFirstAndIsDeclared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: errors.New("disk full")}
		in, stop := start(t, m, time.Minute, 10*rowBytes)
		in.Submit([]meter.Row{row(meter.Alarm, 100), row(meter.Billing, 101)}, nil, nil)
		profile := meter.Channel("1-0:99.1.0*255/7:2")
		for i := range 4 {
			in.Submit([]meter.Row{row(meter.Interval, uint64(200+i))},
				[]meter.Cursor{{Meter: "m", Profile: profile, Time: int64(i + 1)}}, nil)
		}
		for i := range 20 {
			in.Submit([]meter.Row{row(meter.Instant, uint64(i))}, nil, nil)
		}
		for i := range 8 { // alarms press the profile rounds out, the newest first
			in.Submit([]meter.Row{row(meter.Alarm, uint64(300+i))}, nil, nil)
		}
		if c, ok, err := in.Cursor("m", "", profile); ok || err != nil {
			t.Errorf("the cursor stands at %v, %v after its rows were given up", c, err)
		}
		s := in.Stats()
		if s.Dropped != 20 || s.Reread != 4 || s.Waiting != 10 {
			t.Errorf("%+v", s)
		}
		m.setFail(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		a := m.appends[0]
		if len(a.Rows) != 10 || len(a.Losses) != 1 || a.Losses[0] != (meter.Loss{Lane: meter.Instant, Reason: meter.MemoryFull, Count: 20}) {
			t.Errorf("%d rows, losses %v", len(a.Rows), a.Losses)
		}
	})
}

func TestACursorIsSeenWhileItWaitsAndWhileItIsCommitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{block: make(chan struct{})}
		in, stop := start(t, m, time.Minute, 1<<20)
		profile := meter.Channel("1-0:99.1.0*255/7:2")
		want := meter.Cursor{Meter: "m", Serial: "s", Profile: profile, Time: 7}
		in.Submit([]meter.Row{row(meter.Interval, 1)}, []meter.Cursor{want}, nil)
		see := func(when string) {
			if c, ok, err := in.Cursor("m", "s", profile); c != want || !ok || err != nil {
				t.Errorf("%s: %v, %v, %v", when, c, ok, err)
			}
		}
		see("waiting")
		time.Sleep(time.Minute)
		synctest.Wait()
		see("under commit")
		close(m.block)
		synctest.Wait()
		see("stored")
		if c, ok, _ := in.Cursor("m", "other", profile); ok {
			t.Errorf("another serial's cursor is %v", c)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestStoredIsCalledOnceARoundIsDurable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: errors.New("disk full")}
		in, stop := start(t, m, time.Minute, 2*rowBytes)
		var told []string
		tell := func(s string) func() { return func() { told = append(told, s) } }
		in.Submit([]meter.Row{row(meter.Alarm, 1)}, nil, tell("alarm"))
		in.Submit([]meter.Row{row(meter.Instant, 2), row(meter.Instant, 3)}, nil, tell("torn")) // one row too many
		synctest.Wait()
		if len(told) != 0 {
			t.Errorf("told of %v while the disk is full", told)
		}
		m.setFail(nil)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if len(m.rows()) != 2 || len(told) != 1 || told[0] != "alarm" {
			t.Errorf("stored %v, told of %v", m.rows(), told)
		}
	})
}

// TestCursorsAreReadWhileACommitIsUnderWay: the race detector looks on.
func TestCursorsAreReadWhileACommitIsUnderWay(t *testing.T) {
	t.Parallel()
	in := New(Config{Store: &memory{}, Validator: counting{}, Log: slog.New(slog.DiscardHandler), MaxWaiting: 1 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	for i := range 2000 {
		in.Submit([]meter.Row{{Meter: "m", Lane: meter.Interval}}, []meter.Cursor{{Meter: "m", Profile: "p", Time: int64(i)}}, nil)
		if c, _, err := in.Cursor("m", "", "p"); err != nil || c.Time != int64(i) {
			t.Fatalf("cursor %+v, %v, want %d", c, err, i)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
