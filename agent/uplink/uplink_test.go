package uplink_test

import (
	"strings"
	"testing"
	"time"

	"gridgate/internal/column/columntest"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

func TestABacklogDrainsOverASlowLink(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Interval, readings(40_000)...)
		start := time.Now()
		s.start()
		s.drained(time.Hour)
		took := time.Since(start)
		out, _ := s.link.Stats()
		busy := float64(out.Wire) * 8 / 20_000 / took.Seconds()
		t.Logf("%d rows, %d bytes on the wire, %v, link busy %.1f %%, %+v", 40_000, out.Wire, took, 100*busy, s.up.Stats())
		if busy < 0.9 {
			t.Errorf("the link was busy %.1f %% of the time", 100*busy)
		}
		f := s.fog()
		f.check(t, s.store)
		if f.dups != 0 {
			t.Errorf("%d duplicates without a cause", f.dups)
		}
		if f.longest > 1024 {
			t.Errorf("a message of %d bytes on a slow link", f.longest)
		}
	})
}

// A site of 1,000 meters, whose catalogue alone takes the link 3 s, and alarms of
// meters and kinds that no catalogue has yet.
func TestAnAlarmOvertakesTheBacklog(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		w := columntest.NewWalk(1, 1000, columntest.Int)
		for range 50 {
			s.store.add(meter.Interval, w.Round()...)
		}
		s.start()
		time.Sleep(30 * time.Second)
		var at []time.Time
		for i := range 100 {
			time.Sleep(2*time.Second + time.Duration(i*137%1000)*time.Millisecond)
			at = append(at, time.Now())
			s.store.add(meter.Alarm, reading(i))
		}
		busy, _ := s.link.Stats()
		share := float64(busy.Wire) * 8 / 20_000 / time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds()
		time.Sleep(10 * time.Second)
		f := s.fog()
		worst := time.Duration(0)
		for i, t0 := range at {
			got, ok := f.first[meter.Alarm][uint64(i+1)]
			if !ok {
				t.Fatalf("alarm %d has not come", i+1)
			}
			worst = max(worst, got.Sub(t0))
		}
		t.Logf("the slowest of %d alarms took %v; link busy %.1f %%; %d rows of backlog left; %+v", len(at), worst, 100*share, s.store.left(), s.up.Stats())
		if worst > 2*time.Second {
			t.Errorf("an alarm took %v", worst)
		}
		if share < 0.9 {
			t.Errorf("the link was busy %.1f %% of the time", 100*share)
		}
		if s.store.left() == 0 {
			t.Error("there was no backlog left to overtake")
		}
	})
}

// The negative control: a queue with a hundred messages under way, as MQTT
// clients are often set up, over the same link.
func TestAnAlarmWaitsForMinutesInAQueueWithAWindowOfAHundred(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		o := s.config.MQTT
		o.ClientID = "fifo"
		c, err := mqtt.Dial(s.t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var flight []mqtt.Token
		publish := func(topic string, size int) {
			for len(flight) >= 100 {
				<-flight[0].Done()
				flight = flight[1:]
			}
			token, err := c.Publish(s.t.Context(), topic, false, make([]byte, size))
			if err != nil {
				t.Fatal(err)
			}
			flight = append(flight, token)
		}
		for range 50 {
			publish("backlog", 4<<10)
		}
		start := time.Now() // the alarm is appended, behind the window
		for range 100 {
			publish("backlog", 4<<10)
		}
		publish("alarm", 100)
		<-flight[len(flight)-1].Done()
		c.Close()
		for _, r := range s.broker.Received() {
			if r.Topic == "alarm" {
				t.Logf("the alarm took %v", r.At.Sub(start))
				if r.At.Sub(start) < 2*time.Minute {
					t.Error("that is less than minutes: the test above proves little")
				}
			}
		}
	})
}

func TestAFastLinkGetsLongMessages(t *testing.T) {
	t.Parallel()
	simulate(t, linktest.Config{Rate: 50_000_000, Delay: time.Millisecond}, func(s *site) {
		rows := readings(50_000)
		for i := range rows {
			rows[i].Value.Bits *= 0x9E3779B97F4A7C15 // nothing that could be compressed
		}
		s.store.add(meter.Instant, rows...)
		s.start()
		s.drained(time.Minute)
		f := s.fog()
		f.check(t, s.store)
		if f.longest < 12<<10 || f.longest > 16<<10 {
			t.Errorf("the longest message has %d bytes", f.longest)
		}
		t.Logf("%+v", s.up.Stats())
	})
}

func TestSeventyTwoHoursWithoutALink(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]linktest.Outage{"black hole": linktest.BlackHole, "cut": linktest.Cut} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulate(t, gprs(), func(s *site) {
				s.start()
				s.store.add(meter.Interval, readings(500)...)
				time.Sleep(time.Second) // in the middle of it
				s.link.Set(outage)
				for hour := range 72 {
					time.Sleep(time.Hour)
					s.store.add(meter.Interval, readings(50)...)
					s.store.add(meter.Billing, reading(hour))
				}
				if st := s.up.Stats(); st.Connected || st.Err == nil {
					t.Errorf("in the outage: %+v", st)
				}
				if n := strings.Count(s.log.String(), "uplink down"); n < 1 || n > 3 {
					t.Errorf("72 hours made %d lines in the log", n)
				}
				s.link.Set(linktest.Up)
				s.drained(10 * time.Minute)
				f := s.fog()
				f.check(t, s.store)
				t.Logf("%d duplicates, %+v", f.dups, s.up.Stats())
				if st := s.up.Stats(); !st.Connected || st.Err != nil {
					t.Errorf("afterwards: %+v", st)
				}
			})
		})
	}
}

func TestWhatWasUnderWayIsSentAgainWithEqualBytes(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Interval, readings(3000)...)
		s.start()
		for range 5 {
			time.Sleep(4 * time.Second)
			s.link.Set(linktest.Cut)
			time.Sleep(100 * time.Millisecond)
			s.link.Set(linktest.Up)
		}
		s.drained(10 * time.Minute)
		f := s.fog()
		f.check(t, s.store)
		if f.dups == 0 {
			t.Error("five cuts in full flight and nothing came twice: was anything under way?")
		}
		seen := map[string]bool{}
		again := 0
		for _, r := range s.broker.Received() {
			if strings.Contains(r.Topic, "/readings/") && seen[string(r.Payload)] {
				again++
			}
			seen[string(r.Payload)] = true
		}
		if again == 0 {
			t.Error("nothing was sent again as it was")
		}
		t.Logf("%d rows twice, %d messages twice, %+v", f.dups, again, s.up.Stats())
	})
}

// The negative control of the tests above: with a store that lets go before
// the PUBACK the same run loses rows.
func TestRemovalBeforePUBACKLosesRows(t *testing.T) {
	t.Parallel()
	for name, eager := range map[string]bool{"the product": false, "the control": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulate(t, gprs(), func(s *site) {
				s.store.add(meter.Interval, readings(3000)...)
				if eager {
					s.config.Store = &eagerStore{s.store}
				}
				s.start()
				time.Sleep(4 * time.Second)
				s.link.Set(linktest.Cut)
				s.end() // the agent stops, and starts again
				s.link.Set(linktest.Up)
				s.start()
				time.Sleep(10 * time.Minute)
				f := newFog()
				var lost error
				for _, r := range s.broker.Received() {
					if err := f.take(r); err != nil && lost == nil {
						lost = err
					}
				}
				if lost == nil {
					lost = f.compare(s.store)
				}
				if (lost != nil) != eager {
					t.Errorf("lost: %v", lost)
				}
				t.Logf("lost: %v", lost)
			})
		})
	}
}

// eagerStore removes rows when they are looked at.
type eagerStore struct{ *memStore }

func (s *eagerStore) Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error) {
	span, err := s.memStore.Peek(lane, after, maxRows)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[lane] = max(s.acked[lane], span.Last)
	return span, err
}

func (s *eagerStore) Ack(meter.Lane, uint64) error { return nil }

// TestAFullDiskKeepsNothingFromTheFog: only what is acknowledged makes room.
func TestAFullDiskKeepsNothingFromTheFog(t *testing.T) {
	t.Parallel()
	simulate(t, linktest.Config{Rate: 1_000_000, Delay: time.Millisecond}, func(s *site) {
		s.store.full = true
		s.store.add(meter.Interval, readings(1000)...)
		s.start()
		s.drained(10 * time.Minute)
		s.fog().check(t, s.store)
	})
}
