package intake

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

const (
	loads meter.Channel = "1-0:99.1.0*255/7:2"
	bills meter.Channel = "0-0:98.1.0*255/7:2"
)

// TestBillingRowsAreGivenUpWithTheirCursor: the meter still has them.
func TestBillingRowsAreGivenUpWithTheirCursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: errors.New("disk full")}
		in, stop := start(t, m, time.Minute, 4*rowBytes)
		for i := range 6 {
			in.Submit([]meter.Row{row(meter.Billing, uint64(i))}, []meter.Cursor{{Meter: "m", Profile: bills, Time: int64(i + 1)}}, nil)
			if _, _, err := in.Cursor("m", "", bills); err != nil {
				t.Fatal(err)
			}
		}
		if s := in.Stats(); s.Dropped != 0 || s.Reread != 2 || s.Waiting != 4 {
			t.Errorf("%+v", s)
		}
		if c, _, _ := in.Cursor("m", "", bills); c.Time != 4 {
			t.Errorf("the cursor is %d, ahead of the rows up to 4", c.Time)
		}
		m.setFail(nil)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestARoundBehindRowsThatWereGivenUpIsGivenUp: a poller asks for the cursor,
// then the rows up to it are given up, then the poller comes with those behind.
func TestARoundBehindRowsThatWereGivenUpIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: errors.New("disk full")}
		in, stop := start(t, m, time.Minute, 4*rowBytes)
		in.Submit([]meter.Row{row(meter.Interval, 1)}, []meter.Cursor{{Meter: "m", Profile: loads, Time: 1}}, nil)
		in.Submit([]meter.Row{row(meter.Interval, 2)}, []meter.Cursor{{Meter: "m", Profile: loads, Time: 2}}, nil)
		if c, _, _ := in.Cursor("m", "", loads); c.Time != 2 {
			t.Fatalf("cursor %d", c.Time)
		}
		in.Submit([]meter.Row{row(meter.Alarm, 7), row(meter.Alarm, 8), row(meter.Alarm, 9)}, nil, nil) // presses row 2 out
		m.setFail(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		in.Submit([]meter.Row{row(meter.Interval, 3)}, []meter.Cursor{{Meter: "m", Profile: loads, Time: 3}}, nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		c, _, err := in.Cursor("m", "", loads)
		if err != nil || c.Time != 1 {
			t.Errorf("the cursor is %d (%v) while row 2 was given up", c.Time, err)
		}
		in.Submit([]meter.Row{row(meter.Interval, 2), row(meter.Interval, 3)}, []meter.Cursor{{Meter: "m", Profile: loads, Time: 3}}, nil)
		if err := stop(); err != nil {
			t.Error(err)
		}
		var got []uint64
		for _, r := range m.rows() {
			if r.Lane == meter.Interval {
				got = append(got, r.Value.Bits)
			}
		}
		if len(got) != 3 || got[0] != 1 || got[1] != 2 || got[2] != 3 {
			t.Errorf("stored %v", got)
		}
	})
}

// TestNoCursorJumpsOverRowsOfALesserLane: one visit brought rows of both
// profiles, an earlier one of the load profile only.
func TestNoCursorJumpsOverRowsOfALesserLane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: errors.New("disk full")}
		in, stop := start(t, m, time.Hour, 3*rowBytes)
		in.Submit([]meter.Row{row(meter.Interval, 1)}, []meter.Cursor{{Meter: "m", Profile: loads, Time: 1}}, nil)
		in.Submit([]meter.Row{row(meter.Interval, 2), row(meter.Billing, 3)},
			[]meter.Cursor{{Meter: "m", Profile: loads, Time: 2}, {Meter: "m", Profile: bills, Time: 2}}, nil)
		in.Submit([]meter.Row{row(meter.Alarm, 4)}, nil, nil) // one row too many
		for _, profile := range []meter.Channel{loads, bills} {
			if c, ok, _ := in.Cursor("m", "", profile); ok {
				t.Errorf("%s: the cursor is %d while row 1 was given up", profile, c.Time)
			}
		}
		if s := in.Stats(); s.Dropped != 0 || s.Reread != 3 || s.Waiting != 1 {
			t.Errorf("%+v", s)
		}
		m.setFail(nil)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
