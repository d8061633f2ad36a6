package timesync_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gridgate/agent/timesync"
	"gridgate/internal/meter"
)

// at is a stamp of a gateway that is sure to 10 ms, d after five past noon.
func at(d time.Duration) meter.Stamp {
	begin := time.Date(2027, 3, 3, 12, 5, 0, 0, time.UTC)
	return meter.Stamp{Time: begin.Add(d).UnixMilli(), Mono: 60_000 + d.Milliseconds(), Boot: 1, Bound: 10}
}

func off(by time.Duration, when meter.Stamp) meter.ClockOffset {
	return meter.ClockOffset{Offset: by, Uncertainty: time.Second, Valid: true, At: when}
}

// quarter is a row that tells the capture period.
func quarter() []meter.Row {
	return []meter.Row{{Channel: "x", Lane: meter.Interval, Period: 900, Stamp: meter.Stamp{Time: 1, Source: meter.FromMeter}}}
}

func fresh(p timesync.MeterPolicy) *timesync.MeterClock {
	c := timesync.NewMeterClock(p)
	c.Recall(func() (int64, bool, error) { return 0, false, nil })
	return c
}

// take has a clock that is off found at d.
func take(c *timesync.MeterClock, by, d time.Duration) (rows []meter.Row, keep int64) {
	o := off(by, at(d))
	return c.Took(at(d), &meter.Got{Clock: &o, Rows: quarter()})
}

func events(rows []meter.Row) (list []meter.Channel) {
	for _, r := range rows {
		if strings.HasPrefix(string(r.Channel), "event.") {
			list = append(list, r.Channel)
		}
	}
	return list
}

// TestWhatIsDoneAboutAClock: what is found, and whether an order follows.
func TestWhatIsDoneAboutAClock(t *testing.T) {
	t.Parallel()
	set := timesync.MeterPolicy{Set: true}
	for title, c := range map[string]struct {
		policy timesync.MeterPolicy
		by     time.Duration
		bound  uint32
		keeps  bool
		why    error
		event  meter.Channel
	}{
		"observed":                     {by: 40 * time.Second, bound: 10},
		"right enough":                 {policy: set, by: 5900 * time.Millisecond, bound: 10, why: timesync.ErrRightEnough},
		"wrong, but not surely":        {policy: set, by: 6005 * time.Millisecond, bound: 10, why: timesync.ErrRightEnough},
		"surely wrong":                 {policy: set, by: -6100 * time.Millisecond, bound: 10, keeps: true},
		"another threshold":            {policy: timesync.MeterPolicy{Set: true, Threshold: 20 * time.Second}, by: 20 * time.Second, bound: 10, why: timesync.ErrRightEnough},
		"the gateway is unsure":        {policy: set, by: 40 * time.Second, bound: 2501, why: timesync.ErrGatewayUnsure},
		"the gateway knows no time":    {policy: set, by: 40 * time.Second, bound: meter.UnknownBound, why: timesync.ErrGatewayUnsure},
		"perhaps beyond the limit":     {policy: set, by: 10*time.Minute - 500*time.Millisecond, bound: 10, why: timesync.ErrTooFarOff},
		"beyond the limit":             {policy: set, by: 11 * time.Minute, bound: 10, why: timesync.ErrTooFarOff, event: meter.ClockOffChannel},
		"beyond the limit, observed":   {by: -3 * time.Hour, bound: 10, event: meter.ClockOffChannel},
		"beyond, says an unsure clock": {by: -3 * time.Hour, bound: meter.UnknownBound},
	} {
		k := fresh(c.policy)
		now := at(0)
		now.Bound = c.bound
		o := off(c.by, now)
		rows, keep := k.Took(now, &meter.Got{Clock: &o, Rows: quarter()})
		s := k.Status()
		if (keep != 0) != c.keeps || c.keeps && keep != now.Time || !errors.Is(s.Why, c.why) || s.Pending != c.keeps {
			t.Errorf("%s: keeps %d, %+v", title, keep, s)
		}
		if list := events(rows); len(list) > 1 || (len(list) == 1) != (c.event != "") || len(list) == 1 && list[0] != c.event {
			t.Errorf("%s: events %v, want %s", title, list, c.event)
		}
		if rows[0].Channel != meter.ClockOffsetChannel || rows[0].Value != meter.IntValue(c.by.Milliseconds(), -3) || rows[0].Stamp != now {
			t.Errorf("%s: row %+v", title, rows[0])
		}
		if again, _ := k.Took(now, &meter.Got{Clock: &o}); len(again) != 0 {
			t.Errorf("%s: told twice: %v", title, again)
		}
	}
}

// TestWhenAClockIsSet: after the decision is surely stored, in the middle of a
// capture period, and not near its end whatever comes between.
func TestWhenAClockIsSet(t *testing.T) {
	t.Parallel()
	k := fresh(timesync.MeterPolicy{Set: true, Settle: time.Minute})
	if _, keep := take(k, 30*time.Second, 9*time.Minute); keep == 0 { // at 12:14
		t.Fatal("not decided")
	}
	wait, order := k.Next(at(9 * time.Minute))
	if order == nil || wait < time.Minute {
		t.Fatalf("wait %v, %+v", wait, order)
	}
	then := at(9*time.Minute + wait)
	for d, want := range map[time.Duration]error{
		0:                                       nil,
		-wait + 50*time.Second:                  timesync.ErrNearCapture, // 12:14:50
		-wait + time.Minute:                     timesync.ErrNearCapture, // 12:15:00
		-wait + 110*time.Second:                 timesync.ErrNearCapture,
		-wait + 2*time.Minute + time.Second:     timesync.ErrNearCapture, // the guard, and what the comparison leaves open
		-wait + 3*time.Minute:                   nil,
		-wait + 14*time.Minute + 45*time.Second: timesync.ErrNearCapture, // the meter is ahead: it is near the end
	} {
		now := at(9*time.Minute + wait + d)
		if err := order.May(now, off(30*time.Second, now)); !errors.Is(err, want) {
			t.Errorf("%v: %v, want %v", now.UTC(), err, want)
		}
	}
	unsure := then
	unsure.Bound = meter.UnknownBound
	for title, c := range map[string]struct {
		now   meter.Stamp
		found meter.ClockOffset
		want  error
	}{
		"it is right by now":                               {then, off(2*time.Second, then), timesync.ErrRightEnough},
		"the gateway is not":                               {unsure, off(30*time.Second, unsure), timesync.ErrGatewayUnsure},
		"it shows another day":                             {then, off(24*time.Hour, then), timesync.ErrTooFarOff},
		"it shows another time than when that was decided": {then, off(90*time.Second, then), timesync.ErrUnsteady},
	} {
		if err := order.May(c.now, c.found); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", title, err, c.want)
		}
	}
	// It is off by more than is between the guards of five minutes.
	k = timesync.NewMeterClock(timesync.MeterPolicy{Set: true})
	k.Recall(func() (int64, bool, error) { return 0, false, nil })
	o := off(4*time.Minute, at(0))
	if _, keep := k.Took(at(0), &meter.Got{Clock: &o}); keep != 0 || !errors.Is(k.Status().Why, timesync.ErrNoMoment) {
		t.Errorf("keeps %d, %+v", keep, k.Status())
	}
}

// setAt has a clock set that is off.
func setAt(t *testing.T, k *timesync.MeterClock, by, d time.Duration, err error) (rows []meter.Row, keep int64) {
	t.Helper()
	after := off(100*time.Millisecond, at(d))
	set := &meter.ClockSet{At: at(d), Before: off(by, at(d)), After: &after, Sent: true, Err: err}
	if err != nil {
		set.After = nil
	}
	before := set.Before
	return k.Took(at(d), &meter.Got{Clock: &before, ClockSet: set, Rows: quarter()})
}

// TestOnceADay: a clock is set once in 24 hours, also over a start, and whatever
// came of it.
func TestOnceADay(t *testing.T) {
	t.Parallel()
	for title, refusal := range map[string]error{"set": nil, "refused": errors.New("no")} {
		k := fresh(timesync.MeterPolicy{Set: true, Settle: time.Minute})
		take(k, 30*time.Second, 0)
		rows, keep := setAt(t, k, 30*time.Second, 5*time.Minute, refusal)
		want := meter.ClockSetChannel
		if refusal != nil {
			want = meter.ClockRefusedChannel
		}
		if list := events(rows); len(list) != 1 || list[0] != want || keep != at(5*time.Minute).Time {
			t.Errorf("%s: %v, keeps %d", title, list, keep)
		}
		if _, order := k.Next(at(6 * time.Minute)); order != nil {
			t.Errorf("%s: ordered again", title)
		}
		rows, keep = take(k, 20*time.Second, 20*time.Hour)
		if list := events(rows); keep != 0 || !errors.Is(k.Status().Why, timesync.ErrSetToday) || refusal == nil && (len(list) != 1 || list[0] != meter.ClockDriftsChannel) {
			t.Errorf("%s: %v, keeps %d, %+v", title, list, keep, k.Status())
		}
		// The agent starts anew.
		again := timesync.NewMeterClock(timesync.MeterPolicy{Set: true})
		if _, keep := take(again, 20*time.Second, 21*time.Hour); keep != 0 {
			t.Errorf("%s: decided before what was stored is known", title)
		}
		again.Recall(func() (int64, bool, error) { return 0, false, errors.New("disk") })
		if _, keep := take(again, 20*time.Second, 21*time.Hour); keep != 0 {
			t.Errorf("%s: decided though what was stored cannot be read", title)
		}
		again.Recall(func() (int64, bool, error) { return at(5 * time.Minute).Time, true, nil })
		if _, keep := take(again, 20*time.Second, 22*time.Hour); keep != 0 {
			t.Errorf("%s: decided on the same day", title)
		}
		if _, keep := take(again, 20*time.Second, 24*time.Hour+6*time.Minute); keep == 0 {
			t.Errorf("%s: not decided the day after", title)
		}
	}
}

// TestRowsOfASettingAreFlagged: those whose interval it fell into, and no others.
func TestRowsOfASettingAreFlagged(t *testing.T) {
	t.Parallel()
	k := fresh(timesync.MeterPolicy{Set: true, Settle: time.Minute})
	take(k, 30*time.Second, 0)
	setAt(t, k, 30*time.Second, 5*time.Minute, nil) // at 12:10
	rows := []meter.Row{}
	for _, d := range []time.Duration{-5 * time.Minute, 10 * time.Minute, 25 * time.Minute} { // 12:00, 12:15, 12:30
		r := quarter()[0]
		r.Stamp.Time = at(d).Time
		rows = append(rows, r)
	}
	k.Took(at(26*time.Minute), &meter.Got{Rows: rows})
	for i, want := range []meter.Quality{0, meter.MeterClockAdjusted, 0} {
		if rows[i].Quality != want {
			t.Errorf("row %d: %v, want %v", i, rows[i].Quality, want)
		}
	}
}

// TestAMeterThatCannotBeSet is told once and left alone; another meter in its
// place is not.
func TestAMeterThatCannotBeSet(t *testing.T) {
	t.Parallel()
	k := fresh(timesync.MeterPolicy{Set: true, Settle: time.Minute})
	take(k, 30*time.Second, 0)
	before := off(30*time.Second, at(2*time.Minute))
	rows, keep := k.Took(at(2*time.Minute), &meter.Got{ClockSet: &meter.ClockSet{At: at(2 * time.Minute), Before: before, Err: meter.ErrClockMethod}})
	if list := events(rows); len(list) != 1 || list[0] != meter.ClockRefusedChannel || keep != 0 {
		t.Errorf("%v, keeps %d", list, keep)
	}
	if _, keep := take(k, 30*time.Second, 30*time.Hour); keep != 0 {
		t.Error("tried again")
	}
	k.Forget()
	k.Recall(func() (int64, bool, error) { return 0, false, nil })
	if _, keep := take(k, 30*time.Second, 31*time.Hour); keep == 0 {
		t.Error("another meter is not tried")
	}
}
