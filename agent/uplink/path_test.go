package uplink_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/uplink"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// second gives the site another link, to another broker.
func (s *site) second(c linktest.Config) (link *linktest.Link, broker *mqtttest.Memory, end func()) {
	link, broker = linktest.New(c), &mqtttest.Memory{}
	in := link.Listener()
	var all sync.WaitGroup
	all.Go(func() { broker.Serve(in) })
	first := s.config.MQTT.Dial
	s.config.MQTT.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "second:1883" {
			return link.Dial(ctx, network, address)
		}
		return first(ctx, network, address)
	}
	s.config.Paths = []uplink.Path{{Address: "broker:1883"}, {Address: "second:1883"}}
	return link, broker, func() {
		s.end()
		link.Set(linktest.Up)
		_ = in.Close()
		broker.CloseAll()
		all.Wait()
		synctest.Wait()
	}
}

func TestASecondBrokerStandsIn(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]linktest.Outage{"black hole": linktest.BlackHole, "cut": linktest.Cut} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			simulate(t, gprs(), func(s *site) {
				_, other, end := s.second(gprs())
				defer end()
				s.store.add(meter.Interval, readings(5000)...)
				s.start()
				time.Sleep(8 * time.Second)
				if st := s.up.Stats(); st.Path.Address != "broker:1883" || !st.Connected {
					t.Errorf("at first %+v", st)
				}
				s.link.Set(outage)
				start := time.Now()
				for s.up.Stats().Path.Address != "second:1883" || !s.up.Stats().Connected {
					time.Sleep(100 * time.Millisecond)
				}
				t.Logf("the second after %v", time.Since(start))
				if took := time.Since(start); took > 80*time.Second {
					t.Errorf("the second took over after %v", took)
				}
				s.drained(10 * time.Minute)
				time.Sleep(2 * time.Hour)
				if n := other.Connects(); n != 1 {
					t.Errorf("%d connections to the second: it is not kept", n)
				}
				s.link.Set(linktest.Up)
				start = time.Now()
				for s.up.Stats().Path.Address != "broker:1883" || !s.up.Stats().Connected {
					time.Sleep(time.Second)
				}
				t.Logf("back after %v", time.Since(start))
				if took := time.Since(start); took > 6*time.Hour {
					t.Errorf("back after %v", took)
				}
				if got := string(other.Retained(mqtt.StateTopic("site", "gw"))); !strings.Contains(got, `"reason":"moved"`) {
					t.Errorf("at the second it left %s", got)
				}
				s.store.add(meter.Interval, readings(10)...)
				s.drained(time.Minute)
				f := newFog()
				f.gaps = true
				for _, r := range append(other.Received(), s.broker.Received()...) {
					if err := f.take(r); err != nil {
						t.Error(err)
					}
				}
				if len(f.rows[meter.Interval]) != 5010 {
					t.Errorf("the brokers have %d rows", len(f.rows[meter.Interval]))
				}
			})
		})
	}
}

// A first broker that lets us in and is of no use otherwise is not returned to
// every few minutes.
func TestReturningToABrokerThatDoesNotLastGetsRare(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		_, other, end := s.second(gprs())
		defer end()
		s.broker.Puback = func(mqtttest.Received) bool { return false }
		s.start()
		s.store.add(meter.Interval, readings(10)...)
		time.Sleep(24 * time.Hour)
		if n := s.broker.Connects(); n > 30 {
			t.Errorf("%d connections in a day to a broker that does not acknowledge", n)
		}
		if s.store.left() > 0 || len(other.Received()) == 0 {
			t.Errorf("%d rows left", s.store.left())
		}
		t.Logf("%d connections to the first, %d to the second", s.broker.Connects(), other.Connects())
	})
}

// While nothing answers, all paths are tried, with pauses that grow.
func TestAllPathsAreTried(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		second, _, end := s.second(gprs())
		defer end()
		s.link.Set(linktest.Cut)
		second.Set(linktest.Cut)
		s.start()
		s.store.add(meter.Interval, readings(10)...)
		time.Sleep(6 * time.Hour)
		if n := strings.Count(s.log.String(), "uplink down"); n != 1 {
			t.Errorf("%d lines in the log", n)
		}
		second.Set(linktest.Up)
		s.drained(5 * time.Minute)
	})
}
