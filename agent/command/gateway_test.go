package command

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// judge says of a clock what its test wants, one after another.
type judge struct {
	says []error
	n    int
}

func (j *judge) MayOrdered(meter.Stamp, meter.ClockOffset, time.Duration) error {
	err := j.says[min(j.n, len(j.says)-1)]
	j.n++
	return err
}

func TestSetClock(t *testing.T) {
	t.Parallel()
	later, right := &ClockLater{errors.New("near the end of a capture period")}, &ClockRight{errors.New("right enough")}
	for _, c := range []struct {
		name  string
		says  []error
		meter error
		want  State
		text  string
		tries int
	}{
		{"it is wrong", []error{nil}, nil, Done, "was off by 1m0s, now by 1s", 1},
		{"it is right", []error{right}, nil, Done, "left alone", 1},
		{"not now", []error{later, later, nil}, nil, Done, "was off", 3},
		{"never now", []error{later}, nil, Failed, "near the end", clockTries},
		{"too far off", []error{errors.New("beyond the limit")}, nil, Refused, "beyond the limit", 1},
		{"the meter does not want to", []error{nil}, errors.New("read-write denied"), Failed, "read-write denied", 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			clock, stored := &judge{says: c.says}, 0
			j := &Job{
				Meter: "m", Progress: func(int64, int64, string) {},
				Gateway: &Gateway{
					Clock:    func(meter.ID) (Clock, bool) { return clock, true },
					Method:   func(meter.ID) meter.ClockMethod { return meter.WriteTime },
					ClockSet: func(context.Context, meter.ID, *meter.Got) error { stored++; return nil },
				},
				Visit: func(_ context.Context, ask meter.Ask) (got meter.Got, err error) {
					set := &meter.ClockSet{Before: meter.ClockOffset{Offset: time.Minute}}
					if set.Err = ask.SetClock.May(meter.Stamp{}, set.Before); set.Err == nil {
						set.Sent, set.Err, set.After = true, c.meter, &meter.ClockOffset{Offset: time.Second}
					}
					got.ClockSet = set
					return got, nil
				},
			}
			e, err := newSetClock(func(any) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			o := e.Do(t.Context(), j)
			if o.State != c.want || !strings.Contains(o.Text, c.text) || clock.n != c.tries {
				t.Errorf("%s: %+v after %d tries", c.name, o, clock.n)
			}
			if sent := c.says[len(c.says)-1] == nil; (stored > 0) != sent {
				t.Errorf("%s: stored %d times", c.name, stored)
			}
		})
	}
}

// TestParameters: what is wrong is told with its key before anything is done.
func TestParameters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin()
	for payload, want := range map[string]string{
		"action: read\nmeters: [m1]\nwith: {channels: [x y]}\n":                                                   "with.channels[0]",
		"action: profile\nmeters: [m1]\n":                                                                         "with.profile",
		"action: profile\nmeters: [m1]\nwith: {group: a, profile: 1-0:99.1.0}\n":                                  "with.profile",
		"action: profile\nmeters: [m1]\nwith: {group: a, from: yesterday}\n":                                      "with.from",
		"action: profile\nmeters: [m1]\nwith: {group: a, from: 2026-01-02T00:00:00Z, to: 2026-01-01T00:00:00Z}\n": "with.to",
		"action: resend\nwith: {lane: fast}\n":                                                                    "with.lane",
		"action: resend\nwith: {lane: alarm}\n":                                                                   "with.first",
		"action: resend\nwith: {lane: alarm, first: 5, last: 4}\n":                                                "with.last",
		"action: log-level\nwith: {level: loud}\n":                                                                "with.level",
		"action: log-level\nwith: {level: debug, for: 10y}\n":                                                     "with.for",
		"action: set-clock\nmeters: [m1]\nwith: {limit: 0s}\n":                                                    "with.limit",
	} {
		_, err := r.take(r.u.command("command", "p", payload))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", payload, err, want)
		}
	}
	for payload, want := range map[string]string{
		"action: output\nwith: {output: a b, for: 1h}\n":              "with.output",
		"action: output\nwith: {output: a}\n":                         "with.for",
		"action: output\nwith: {output: a, for: 1h, release: true}\n": "with.release",
		"action: output\nwith: {output: a, for: 1h, jitter: x}\n":     "with.jitter",
	} {
		_, err := r.take(r.u.command("control", "p", payload))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", payload, err, want)
		}
	}
}
