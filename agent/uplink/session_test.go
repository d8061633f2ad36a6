package uplink_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

func TestTheStateTopic(t *testing.T) {
	t.Parallel()
	const topic = "gridgate/1/site/gw/up/state"
	simulate(t, gprs(), func(s *site) {
		s.start()
		time.Sleep(5 * time.Second)
		if got, want := string(s.broker.Retained(topic)), `{"state":"online","version":"1.2.3","epoch":"000000000000feed"}`; got != want {
			t.Errorf("connected: %s, want %s", got, want)
		}
		s.link.Set(linktest.Cut)
		time.Sleep(time.Second)
		if got, want := string(s.broker.Retained(topic)), `{"state":"offline","reason":"lost"}`; got != want {
			t.Errorf("lost: %s, want %s", got, want)
		}
		s.link.Set(linktest.Up)
		time.Sleep(10 * time.Second)
		if got := string(s.broker.Retained(topic)); !strings.Contains(got, "online") {
			t.Errorf("back: %s", got)
		}
		s.end()
		if got, want := string(s.broker.Retained(topic)), `{"state":"offline","reason":"stopped"}`; got != want {
			t.Errorf("stopped: %s, want %s", got, want)
		}
		if all := s.broker.Received(); all[len(all)-1].Will {
			t.Error("the will was published after an orderly stop")
		}
		if got := strings.Count(s.log.String(), "uplink up"); got != 2 {
			t.Errorf("%d times up in the log", got)
		}
	})
}

func TestAStopWaitsForPUBACKsAndNotForEver(t *testing.T) {
	t.Parallel()
	t.Run("link up", func(t *testing.T) {
		t.Parallel()
		simulate(t, gprs(), func(s *site) {
			s.store.add(meter.Interval, readings(10_000)...)
			s.start()
			time.Sleep(10 * time.Second)
			start := time.Now()
			s.end()
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
			// What the broker has and what was acknowledged is the same.
			f := s.fog()
			if got, want := f.last[meter.Interval], s.store.Acked(meter.Interval); got != want || want == 0 {
				t.Errorf("the broker has %d rows, %d are acknowledged", got, want)
			}
		})
	})
	t.Run("black hole", func(t *testing.T) {
		t.Parallel()
		simulate(t, gprs(), func(s *site) {
			s.store.add(meter.Interval, readings(10_000)...)
			s.start()
			time.Sleep(10 * time.Second)
			s.link.Set(linktest.BlackHole)
			time.Sleep(2 * time.Second)
			start := time.Now()
			s.end()
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("while dialing and pausing", func(t *testing.T) {
		t.Parallel()
		for after := range 20 {
			simulate(t, gprs(), func(s *site) {
				s.link.Set(linktest.BlackHole)
				s.start()
				time.Sleep(time.Duration(after) * 3 * time.Second)
				start := time.Now()
				s.end()
				if took := time.Since(start); took > 0 {
					t.Errorf("after %d s: took %v", after*3, took)
				}
			})
		}
	})
}

func TestABrokerThatStopsAcknowledgingIsLeft(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		var answers atomic.Bool
		s.broker.Puback = func(r mqtttest.Received) bool { return answers.Load() || !strings.Contains(r.Topic, "readings") }
		s.store.add(meter.Interval, readings(2000)...)
		s.start()
		time.Sleep(15 * time.Second)
		if n := s.broker.Connects(); n != 1 {
			t.Errorf("%d connections after 15 s", n)
		}
		time.Sleep(15 * time.Second)
		if n := s.broker.Connects(); n != 2 {
			t.Errorf("%d connections after 30 s", n)
		}
		if s.store.left() != 2000 {
			t.Error("rows were removed without a PUBACK")
		}
		if st := s.up.Stats(); !strings.Contains(s.log.String(), "broker broker:1883: connection lost: no PUBACK for 20s") {
			t.Errorf("%+v", st)
		}
		answers.Store(true)
		s.drained(5 * time.Minute)
		s.fog().check(t, s.store)
	})
}

// A cell reselection: nothing passes for 45 s, now and then.
func TestShortOutagesDoNotMakeItReconnectInCircles(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Interval, readings(60_000)...)
		s.start()
		for range 4 {
			time.Sleep(20 * time.Second)
			s.link.Set(linktest.BlackHole)
			time.Sleep(45 * time.Second)
			s.link.Set(linktest.Up)
		}
		s.drained(time.Hour)
		s.fog().check(t, s.store)
		if st := s.up.Stats(); st.Reconnects > 4 {
			t.Errorf("%d reconnects in 4 outages", st.Reconnects)
		}
	})
}

func TestTheCatalogueIsThereBeforeItsBatchesAndAgainAfterReconnecting(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Interval, readings(160)...)
		s.start()
		s.drained(time.Minute)
		known := len(s.fog().catalogues) // fog fails the test on a batch before its catalogue
		more := reading(0)
		more.Channel = "thd.current.l1"
		s.store.add(meter.Alarm, more)
		s.drained(time.Minute)
		f := s.fog()
		f.check(t, s.store)
		if known != 1 || len(f.catalogues) != 2 {
			t.Errorf("%d catalogues, then %d", known, len(f.catalogues))
		}
		stored, _ := s.store.Catalogue()
		s.broker.Forget() // a broker without a disk that starts again
		s.broker.CloseAll()
		time.Sleep(10 * time.Second)
		found := false
		for _, r := range s.broker.Received() {
			if bytes.Equal(r.Payload, stored) && s.broker.Retained(r.Topic) != nil {
				found = true
			}
		}
		if !found {
			t.Error("the current catalogue was not published again")
		}
		s.end()
		before := len(s.broker.Received())
		s.start() // a new process takes it from the store
		s.store.add(meter.Interval, readings(160)...)
		s.drained(time.Minute)
		if f := s.fog(); len(f.catalogues) != 2 {
			t.Errorf("%d catalogues after a restart", len(f.catalogues))
		}
		n := 0
		for _, r := range s.broker.Received()[before:] {
			if topic, err := mqtt.ParseTopic(r.Topic); err == nil && topic.Kind == mqtt.Catalogue {
				n++
			}
		}
		if n != 1 {
			t.Errorf("a connection published %d catalogues", n)
		}
	})
}

func TestAFirstBacklogOfALargeSiteNeedsOneCatalogue(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		var rows []meter.Row
		for i := range 8000 {
			r := reading(i % 8)
			r.Meter = meter.ID(fmt.Sprintf("house-%d", i/8))
			rows = append(rows, r)
		}
		s.store.add(meter.Interval, rows...)
		s.start()
		s.drained(10 * time.Minute)
		f := s.fog()
		f.check(t, s.store)
		if n := len(f.catalogues); n != 1 {
			t.Errorf("%d catalogues", n)
		}
	})
}

func TestADamagedStoredCatalogueIsReplaced(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.catalogue = []byte{0xFF, 0xFF, 0xFF}
		s.store.add(meter.Interval, readings(160)...)
		s.start()
		s.drained(time.Minute)
		s.fog().check(t, s.store)
		if !strings.Contains(s.log.String(), "stored catalogue is unreadable") {
			t.Error("nothing in the log")
		}
	})
}

func TestALaneThatCannotBeReadDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.fail = errDisk
		s.store.add(meter.Instant, readings(10)...)
		s.store.add(meter.Interval, readings(10)...)
		s.store.add(meter.Alarm, readings(10)...)
		s.start()
		time.Sleep(10 * time.Minute)
		if n := s.store.left(); n != 10 {
			t.Errorf("%d rows left", n)
		}
		if st := s.up.Stats(); !st.Connected || st.Err == nil || !strings.Contains(st.Err.Error(), "lane instant: disk error") {
			t.Errorf("%+v", st)
		}
		if n := strings.Count(s.log.String(), "lane cannot be sent"); n != 1 {
			t.Errorf("%d lines in the log", n)
		}
		s.store.mu.Lock()
		s.store.fail = nil
		s.store.mu.Unlock()
		s.drained(2 * time.Minute)
		s.fog().check(t, s.store)
		if st := s.up.Stats(); st.Err != nil {
			t.Errorf("afterwards: %+v", st)
		}
	})
}

func TestLanesGoInTheOrderOfTheirImportance(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		for _, l := range meter.Lanes() {
			s.store.add(l, readings(1500)...)
		}
		s.start()
		s.drained(time.Hour)
		s.fog().check(t, s.store)
		highest := meter.Alarm
		for _, r := range s.broker.Received() {
			topic, err := mqtt.ParseTopic(r.Topic)
			if err != nil || topic.Kind != mqtt.Readings {
				continue
			}
			if topic.Lane < highest && highest > meter.Billing { // bills have a floor
				t.Errorf("lane %s came after lane %s", topic.Lane, highest)
			}
			highest = max(highest, topic.Lane)
		}
	})
}

func TestARefusalIsLoggedOnce(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		var code atomic.Uint32
		code.Store(4)
		s.broker.Code = func(string) byte { return byte(code.Load()) }
		s.start()
		time.Sleep(6 * time.Hour)
		if n := strings.Count(s.log.String(), "bad user name or password"); n != 1 {
			t.Errorf("%d lines in the log", n)
		}
		if st := s.up.Stats(); st.Connected || st.Err == nil {
			t.Errorf("%+v", st)
		}
		code.Store(0)
		s.store.add(meter.Interval, readings(10)...)
		s.drained(5 * time.Minute)
	})
}

func TestALinkThatGetsSlowStillDrains(t *testing.T) {
	t.Parallel()
	simulate(t, linktest.Config{Rate: 10_000_000, Delay: 20 * time.Millisecond}, func(s *site) {
		rows := readings(20_000)
		for i := range rows {
			rows[i].Value.Bits *= 0x9E3779B97F4A7C15
		}
		s.store.add(meter.Interval, rows[:10_000]...)
		s.start()
		s.drained(time.Minute)
		s.link.SetRate(2_400)
		s.store.add(meter.Interval, rows[10_000:]...)
		s.drained(2 * time.Hour)
		s.fog().check(t, s.store)
		t.Logf("%+v", s.up.Stats())
	})
}
