package uplink_test

import (
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// ack is what the fog says of a lane.
func ack(s *site, lane meter.Lane, sequence uint64) {
	s.broker.Send(mqtt.AckTopic("site", "gw", lane), true, mqtt.Confirmation{Epoch: 0xFEED, Sequence: sequence}.AppendJSON(nil))
}

// confirm is a fog that stores what the broker has, and says so every `every`
// until stop is called.
func confirm(s *site, every time.Duration) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		var said [4]uint64
		f, taken := newFog(), 0
		f.gaps = true
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			all := s.broker.Received()
			for _, r := range all[taken:] {
				if err := f.take(r); err != nil {
					s.t.Error(err)
				}
			}
			taken = len(all)
			for lane := range said {
				through := said[lane]
				for {
					if _, ok := f.rows[lane][through+1]; !ok {
						break
					}
					through++
				}
				if through > said[lane] {
					said[lane] = through
					ack(s, meter.Lane(lane), through)
				}
			}
		}
	}()
	return func() { close(quit); <-done }
}

func TestTheQueueMovesOnTheWordOfTheFog(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.FogConfirms = true
		s.store.add(meter.Interval, readings(1000)...)
		s.start()
		time.Sleep(30 * time.Second)
		if f := s.fog(); f.last[meter.Interval] != 1000 || s.store.left() != 1000 {
			t.Errorf("the broker has %d rows, %d wait for the fog", f.last[meter.Interval], s.store.left())
		}
		topic := mqtt.AckTopic("site", "gw", meter.Interval)
		for _, bad := range []string{
			`{"epoch":"000000000000beef","sequence":500}`,
			`{"epoch":"000000000000feed","sequence":1001}`,
			`{"epoch":"000000000000feed"}`, "", "garbage",
		} {
			s.broker.Send(topic, false, []byte(bad))
		}
		time.Sleep(5 * time.Second)
		if st := s.up.Stats(); s.store.left() != 1000 || st.Ignored != 5 {
			t.Errorf("after what is foreign or impossible %d rows wait, %+v", s.store.left(), st)
		}
		ack(s, meter.Interval, 333)
		ack(s, meter.Interval, 200) // an older one, that comes late
		time.Sleep(5 * time.Second)
		if got := s.store.Acked(meter.Interval); got != 333 {
			t.Errorf("acknowledged through %d", got)
		}
		ack(s, meter.Interval, 1000)
		time.Sleep(5 * time.Second)
		if st := s.up.Stats(); s.store.left() != 0 || st.Ignored != 5 || st.Err != nil {
			t.Errorf("%d rows wait, %+v", s.store.left(), st)
		}
		if f := s.fog(); f.dups != 0 {
			t.Errorf("%d rows twice", f.dups)
		}
	})
}

// What the fog said while nobody heard it is retained.
func TestTheWordOfTheFogOutlivesConnectionsAndProcesses(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.FogConfirms = true
		s.store.add(meter.Interval, readings(500)...)
		s.start()
		time.Sleep(30 * time.Second)
		s.link.Set(linktest.Cut)
		ack(s, meter.Interval, 100)
		s.link.Set(linktest.Up)
		time.Sleep(10 * time.Second)
		if got := s.store.Acked(meter.Interval); got != 100 {
			t.Errorf("after a cut through %d", got)
		}
		if f := s.fog(); f.dups != 0 {
			t.Errorf("a new connection sent %d rows twice", f.dups)
		}
		s.end()
		ack(s, meter.Interval, 500)
		s.start()
		time.Sleep(10 * time.Second)
		if got := s.store.Acked(meter.Interval); got != 500 {
			t.Errorf("after a restart through %d", got)
		}
	})
}

// A broker that acknowledges what its access list forbids.
func TestARefusedPublishIsNoticed(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.FogConfirms = true
		var refused atomic.Bool
		refused.Store(true)
		var sent atomic.Int64
		s.broker.Lose = func(r mqtttest.Received) bool {
			if !strings.Contains(r.Topic, "/readings/interval") {
				return false
			}
			sent.Add(1)
			return refused.Load()
		}
		stop := confirm(s, 5*time.Second)
		defer stop()
		s.store.add(meter.Interval, readings(500)...)
		s.start()
		time.Sleep(3 * time.Minute)
		st := s.up.Stats()
		if len(st.Unconfirmed) != 1 || st.Unconfirmed[0] != meter.Interval || st.Err == nil ||
			!strings.Contains(st.Err.Error(), "lane interval: the fog confirms nothing after number 0: does it run, and may this gateway publish to gridgate/1/site/gw/up/readings/interval?") {
			t.Errorf("%+v", st)
		}
		if got := string(s.broker.Retained(mqtt.StateTopic("site", "gw"))); !strings.Contains(got, `,"unconfirmed":["interval"]}`) {
			t.Errorf("the state is %s", got)
		}
		before := sent.Load()
		for range 48 { // two days: alarms pass, the rest stays in the store
			time.Sleep(time.Hour)
			s.store.add(meter.Interval, readings(20)...)
			s.store.add(meter.Alarm, reading(0))
		}
		if n := sent.Load() - before; n > 60 {
			t.Errorf("%d messages into nowhere in two days", n)
		}
		time.Sleep(time.Minute)
		if got := s.store.Acked(meter.Alarm); got != 48 {
			t.Errorf("%d alarms of 48 are confirmed", got)
		}
		refused.Store(false)
		s.drained(2 * time.Hour)
		s.fog().check(t, s.store)
		if st := s.up.Stats(); st.Err != nil || len(st.Unconfirmed) != 0 {
			t.Errorf("afterwards %+v", st)
		}
		time.Sleep(5 * time.Second)
		if got := string(s.broker.Retained(mqtt.StateTopic("site", "gw"))); strings.Contains(got, "unconfirmed") {
			t.Errorf("the state is %s", got)
		}
	})
}

// A broker that acknowledges and forgets: with the fog's confirmation nothing
// is lost, without it the gap shows in the numbers and resend fills it.
func TestABrokerThatAcknowledgesAndForgets(t *testing.T) {
	t.Parallel()
	lose := func(s *site) {
		random := rand.New(rand.NewPCG(7, 7))
		s.broker.Lose = func(r mqtttest.Received) bool {
			return strings.Contains(r.Topic, "/readings/") && random.IntN(3) == 0
		}
	}
	t.Run("confirm fog", func(t *testing.T) {
		t.Parallel()
		simulate(t, gprs(), func(s *site) {
			s.config.FogConfirms = true
			lose(s)
			stop := confirm(s, 3*time.Second)
			defer stop()
			for _, l := range meter.Lanes() {
				s.store.add(l, readings(700)...)
			}
			s.start()
			s.drained(24 * time.Hour)
			f := newFog()
			f.gaps = true
			for _, r := range s.broker.Received() {
				if err := f.take(r); err != nil {
					t.Error(err)
				}
			}
			f.check(t, s.store)
			t.Logf("%d rows twice, %+v", f.dups, s.up.Stats())
		})
	})
	t.Run("confirm broker", func(t *testing.T) {
		t.Parallel()
		simulate(t, gprs(), func(s *site) {
			lose(s)
			s.store.add(meter.Interval, readings(3000)...)
			s.start()
			s.drained(time.Hour)
			look := func() (f *fog, missing [][2]uint64) {
				f = newFog()
				f.gaps = true
				for _, r := range s.broker.Received() {
					if err := f.take(r); err != nil {
						t.Error(err)
					}
				}
				for n := uint64(1); n <= 3000; n++ {
					if _, ok := f.rows[meter.Interval][n]; ok {
						continue
					}
					if k := len(missing); k > 0 && missing[k-1][1] == n-1 {
						missing[k-1][1] = n
					} else {
						missing = append(missing, [2]uint64{n, n})
					}
				}
				return f, missing
			}
			_, missing := look()
			if len(missing) == 0 {
				t.Fatal("the broker forgot nothing: the test proves nothing")
			}
			t.Logf("missing: %v", missing)
			for rounds := 0; len(missing) > 0; rounds++ {
				if rounds > 30 {
					t.Fatalf("still missing %v", missing)
				}
				for _, m := range missing {
					s.broker.Send(mqtt.ResendTopic("site", "gw", meter.Interval), false, mqtt.Range{Epoch: 0xFEED, First: m[0], Last: m[1]}.AppendJSON(nil))
				}
				time.Sleep(2 * time.Minute)
				_, missing = look()
			}
			f, _ := look()
			f.check(t, s.store)
			t.Logf("%d rows twice, %+v", f.dups, s.up.Stats())
		})
	})
}

// A fog that stores slowly is no reason to send everything again.
func TestASlowFogCostsLittle(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.FogConfirms = true
		stop := confirm(s, 20*time.Minute)
		defer stop()
		s.start()
		for range 200 {
			s.store.add(meter.Interval, readings(160)...)
			time.Sleep(15 * time.Minute)
		}
		s.drained(3 * time.Hour)
		f := newFog()
		f.gaps = true
		for _, r := range s.broker.Received() {
			if err := f.take(r); err != nil {
				t.Error(err)
			}
		}
		f.check(t, s.store)
		if f.dups > 2000 {
			t.Errorf("%d of %d rows came twice", f.dups, 200*160)
		}
		t.Logf("%d rows twice, %+v", f.dups, s.up.Stats())
	})
}

func TestResendTakesHalfOfTheLinkAndGivesWayToAlarms(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Interval, readings(60_000)...)
		s.start()
		time.Sleep(time.Minute)
		acked := s.store.Acked(meter.Interval)
		start := time.Now()
		s.broker.Send(mqtt.ResendTopic("site", "gw", meter.Interval), false, mqtt.Range{Epoch: 0xFEED, First: 1, Last: acked}.AppendJSON(nil))
		var at []time.Time
		for i := range 8 {
			time.Sleep(3 * time.Second)
			at = append(at, time.Now())
			s.store.add(meter.Alarm, reading(i))
		}
		time.Sleep(6 * time.Second)
		f := newFog()
		again, fresh := 0, 0
		for _, r := range s.broker.Received() {
			before := f.dups
			if err := f.take(r); err != nil {
				t.Error(err)
			}
			switch {
			case r.At.Before(start) || !strings.Contains(r.Topic, "interval"):
			case f.dups > before:
				again += len(r.Payload)
			default:
				fresh += len(r.Payload)
			}
		}
		for i, t0 := range at {
			if took := f.first[meter.Alarm][uint64(i+1)].Sub(t0); took > 2*time.Second || took <= 0 {
				t.Errorf("alarm %d took %v", i+1, took)
			}
		}
		if again == 0 || float64(again) > 1.1*float64(fresh) {
			t.Errorf("%d bytes again, %d bytes for the first time", again, fresh)
		}
		t.Logf("%d bytes again, %d bytes for the first time", again, fresh)
	})
}

func TestWhatTheFogMayNotAskFor(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Interval, readings(100)...)
		s.start()
		s.drained(time.Minute)
		topic := mqtt.ResendTopic("site", "gw", meter.Interval)
		send := func(retained bool, epoch, first, last uint64) {
			s.broker.Send(topic, retained, mqtt.Range{Epoch: epoch, First: first, Last: last}.AppendJSON(nil))
		}
		send(false, 0xBEEF, 1, 10)    // of another epoch
		send(false, 0xFEED, 101, 200) // never sent
		time.Sleep(10 * time.Second)
		if st := s.up.Stats(); st.Ignored != 2 || st.Resent != 0 {
			t.Errorf("%+v", st)
		}
		send(false, 0xFEED, 91, 1<<63) // to the end of what was sent
		time.Sleep(10 * time.Second)
		if st := s.up.Stats(); st.Ignored != 2 || st.Resent != 10 {
			t.Errorf("%+v", st)
		}
		for i := range uint64(100) { // too many, apart from one another
			send(false, 0xFEED, i+1, i+1)
			if i%2 == 1 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		time.Sleep(5 * time.Minute)
		f := s.fog()
		f.check(t, s.store)
		if st := s.up.Stats(); st.Resent > 120 {
			t.Errorf("%+v", st)
		}
	})
}

func TestTheCatalogueComesAgainOnRequest(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.store.add(meter.Interval, readings(100)...)
		s.start()
		s.drained(time.Minute)
		s.broker.Forget()
		count := func() (n int) {
			for _, r := range s.broker.Received() {
				if strings.Contains(r.Topic, "/up/catalog/") {
					n++
				}
			}
			return n
		}
		before := count()
		for range 20 { // a fog that asks much gets little
			s.broker.Send(mqtt.CatalogueRequestTopic("site", "gw"), false, nil)
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		if n := count() - before; n < 2 || n > 4 {
			t.Errorf("it came %d times", n)
		}
	})
}

// A broker that lost a retained catalogue, of which the gateway has a larger one
// by now: a fog that has a batch of it yet may ask for it by its hash.
func TestAnEarlierCatalogueComesOnRequest(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		all := readings(160)
		s.store.add(meter.Interval, all[:40]...)
		s.start()
		s.drained(time.Minute)
		earlier := s.fog().catalogues
		if len(earlier) != 1 {
			t.Fatalf("%d catalogues", len(earlier))
		}
		s.store.add(meter.Interval, all[40:]...)
		s.drained(time.Minute)
		newest := len(s.fog().catalogues)
		if newest < 2 {
			t.Fatalf("%d catalogues", newest)
		}
		s.broker.Forget()
		taken := len(s.broker.Received())
		for hash := range earlier {
			s.broker.Send(mqtt.CatalogueRequestTopic("site", "gw"), false, mqtt.CatalogueRequestOf(hash))
			s.broker.Send(mqtt.CatalogueRequestTopic("site", "gw"), false, mqtt.CatalogueRequestOf([8]byte{1})) // nobody had it
		}
		time.Sleep(20 * time.Second)
		f := newFog()
		for _, r := range s.broker.Received()[taken:] {
			if err := f.take(r); err != nil {
				t.Error(err)
			}
		}
		for hash, was := range earlier {
			if got := f.catalogues[hash]; len(f.catalogues) != 1 || got == nil || len(got.Meters()) != len(was.Meters()) {
				t.Errorf("%d catalogues came, %v", len(f.catalogues), got)
			}
		}
		if st := s.up.Stats(); st.Ignored != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestABrokerThatLetsNobodyHearTheFog(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.broker.Forbid = func(topic string) bool { return strings.Contains(topic, "/down/resend/") }
		s.store.add(meter.Interval, readings(100)...)
		s.start()
		s.drained(time.Minute)
		if st := s.up.Stats(); st.Err == nil || !strings.Contains(st.Err.Error(), "it does not allow to subscribe to gridgate/1/site/gw/down/resend/+") {
			t.Errorf("%+v", st)
		}
		if n := strings.Count(s.log.String(), "cannot be heard"); n != 1 {
			t.Errorf("%d lines in the log", n)
		}
	})
}
