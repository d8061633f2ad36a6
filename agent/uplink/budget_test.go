package uplink_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"gridgate/agent/uplink"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// memLedger is a ledger in memory.
type memLedger struct {
	b     []byte
	saves int
}

func (l *memLedger) Load() ([]byte, error) { return l.b, nil }

func (l *memLedger) Save(b []byte) error {
	l.b, l.saves = bytes.Clone(b), l.saves+1
	return nil
}

// A budget that is spent: alarm and billing pass, the rest waits for the next
// day, over restarts too.
func TestABudget(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		ledger := &memLedger{}
		s.config.Budget, s.config.Ledger = uplink.Budget{Day: 100_000}, ledger
		s.config.TimeZone = time.FixedZone("", -6*3600) // midnight is at 6:00 in simulated time
		s.store.add(meter.Interval, readings(40_000)...)
		s.start()
		time.Sleep(3 * time.Hour)
		st := s.up.Stats()
		if !st.Withheld || st.DayBytes < 100_000 || st.DayBytes > 106_000 || s.store.left() == 0 {
			t.Errorf("%d rows left, %+v", s.store.left(), st)
		}
		if got := string(s.broker.Retained(mqtt.StateTopic("site", "gw"))); !strings.Contains(got, `"withheld":["interval","instant"]`) {
			t.Errorf("the state is %s", got)
		}
		wait := s.store.left()
		s.end()
		s.start() // nothing is forgiven by a restart
		s.store.add(meter.Alarm, readings(10)...)
		s.store.add(meter.Billing, readings(10)...)
		time.Sleep(2*time.Hour + 30*time.Minute)
		if s.store.left() != wait || s.store.Acked(meter.Billing) != 10 || s.store.Acked(meter.Alarm) != 10 {
			t.Errorf("%d rows left of %d", s.store.left(), wait)
		}
		if st := s.up.Stats(); !st.Withheld || st.DayBytes < 101_000 {
			t.Errorf("after a restart %+v", st)
		}
		days := 0
		for ; s.store.left() > 0 && days < 10; days++ {
			time.Sleep(24 * time.Hour)
		}
		if days < 1 || days > 4 {
			t.Errorf("the rest took %d days", days)
		}
		f := s.fog()
		f.check(t, s.store)
		if n := strings.Count(s.log.String(), "budget is spent"); n < 2 || n > 5 {
			t.Errorf("%d lines in the log", n)
		}
		if ledger.saves > 60*(days+1) {
			t.Errorf("%d times saved in %d days", ledger.saves, days+1)
		}
		t.Logf("%d days, %d times saved, %+v", days, ledger.saves, s.up.Stats())
	})
}

// What is counted is what the link carried. Its segments carry the headers that
// are reckoned with here, acknowledgements included.
func TestTheBudgetCountsIPBytes(t *testing.T) {
	t.Parallel()
	c := gprs()
	c.Overhead = 52 + 26
	simulate(t, c, func(s *site) {
		s.config.Budget = uplink.Budget{Day: 1 << 40}
		s.store.add(meter.Interval, readings(30_000)...)
		s.start()
		s.drained(time.Hour)
		for i := range 100 {
			s.store.add(meter.Alarm, reading(i))
			time.Sleep(time.Minute)
		}
		out, back := s.link.Stats()
		counted, carried := float64(s.up.Stats().DayBytes), float64(out.Wire+back.Wire)
		t.Logf("counted %.0f, carried %.0f", counted, carried)
		if counted < 0.95*carried || counted > 1.05*carried {
			t.Errorf("counted %.0f, carried %.0f", counted, carried)
		}
	})
}

func TestLanesWaitForCompanyAndForTheirWindow(t *testing.T) {
	t.Parallel()
	simulate(t, linktest.Config{Rate: 1_000_000, Delay: 20 * time.Millisecond}, func(s *site) {
		s.config.Schedules[meter.Instant] = uplink.Schedule{Latency: 30 * time.Minute}
		s.config.Schedules[meter.Interval] = uplink.Schedule{Windows: []uplink.Window{{From: 1 * time.Hour, To: 2 * time.Hour}}}
		s.start()
		for i := range 5 * 60 { // from midnight on, a row of each lane a minute
			for _, l := range meter.Lanes() {
				s.store.add(l, reading(i))
			}
			time.Sleep(time.Minute)
		}
		f := s.fog()
		batches := map[meter.Lane]int{}
		for _, r := range s.broker.Received() {
			if topic, err := mqtt.ParseTopic(r.Topic); err == nil && topic.Kind == mqtt.Readings {
				batches[topic.Lane]++
			}
		}
		start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range uint64(299) {
			if late := f.first[meter.Alarm][i+1].Sub(start.Add(time.Duration(i) * time.Minute)); late > 2*time.Second {
				t.Errorf("alarm %d came after %v", i, late)
			}
			at, ok := f.first[meter.Instant][i+1]
			if late := at.Sub(start.Add(time.Duration(i) * time.Minute)); i < 265 && !ok || ok && late > 30*time.Minute+2*time.Second {
				t.Errorf("instant %d came after %v", i, late)
			}
			switch at, ok := f.first[meter.Interval][i+1]; {
			case ok != (i < 120):
				t.Errorf("interval %d: %v", i, ok)
			case ok && (at.Hour() != 1):
				t.Errorf("interval %d came at %v", i, at)
			}
		}
		if n := batches[meter.Instant]; n < 9 || n > 14 {
			t.Errorf("%d instant batches in 5 hours", n)
		}
		if n := batches[meter.Alarm]; n < 299 {
			t.Errorf("%d alarm batches", n)
		}
	})
}

func TestStartsAreSpread(t *testing.T) {
	t.Parallel()
	var all []time.Duration
	for range 40 {
		simulate(t, gprs(), func(s *site) {
			s.config.StartJitter = time.Minute
			start := time.Now()
			s.start()
			for s.broker.Connects() == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			all = append(all, time.Since(start))
		})
	}
	early, late := 0, 0
	for _, d := range all {
		switch {
		case d > 62*time.Second:
			t.Errorf("connected after %v", d)
		case d < 30*time.Second:
			early++
		default:
			late++
		}
	}
	if early < 5 || late < 5 {
		t.Errorf("%d early, %d late", early, late)
	}
}

// A storm of alarms leaves bills their share.
func TestBillsHaveAFloor(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Alarm, readings(150_000)...)
		s.store.add(meter.Billing, readings(150_000)...)
		s.store.add(meter.Interval, readings(1000)...)
		s.start()
		time.Sleep(2 * time.Minute)
		size := map[meter.Lane]int{}
		for _, r := range s.broker.Received() {
			if topic, err := mqtt.ParseTopic(r.Topic); err == nil && topic.Kind == mqtt.Readings {
				size[topic.Lane] += len(r.Payload)
			}
		}
		share := float64(size[meter.Billing]) / float64(size[meter.Alarm]+size[meter.Billing])
		if share < 0.08 || share > 0.15 || size[meter.Interval] > 0 {
			t.Errorf("bills have %.2f of the link: %v", share, size)
		}
	})
}
