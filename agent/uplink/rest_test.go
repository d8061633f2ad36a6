package uplink_test

import (
	"strings"
	"testing"
	"time"

	"gridgate/internal/linktest"
	"gridgate/internal/meter"
)

// Pins: over a link that forgets nothing a connection rests for 15 minutes in
// the end, and is never lost.
func TestRestGrowsWhileConnectionsLive(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.start()
		time.Sleep(24 * time.Hour)
		s.store.add(meter.Alarm, reading(0))
		time.Sleep(time.Minute)
		if st := s.up.Stats(); st.Rest != 15*time.Minute || st.Reconnects != 0 {
			t.Errorf("%+v", st)
		}
		out, _ := s.link.Stats()
		if out.Wire > 12_000 { // a ping of 2 bytes, and the library's own, 96 times a day
			t.Errorf("a day of rest took %d bytes", out.Wire)
		}
	})
}

// A NAT that forgets connections: the rest finds a length that it lets live,
// and alarms come over a live connection then.
func TestRestShrinksToWhatTheNATLetsLive(t *testing.T) {
	t.Parallel()
	for _, forget := range []time.Duration{2 * time.Minute, 6 * time.Minute, 10 * time.Minute} {
		t.Run(forget.String(), func(t *testing.T) {
			t.Parallel()
			c := gprs()
			c.Forget = forget
			simulate(t, c, func(s *site) {
				s.start()
				time.Sleep(23 * time.Hour)
				st := s.up.Stats()
				if st.Reconnects == 0 || st.Reconnects > 4 {
					t.Errorf("%d reconnects: %+v", st.Reconnects, st)
				}
				for i := range 10 {
					s.store.add(meter.Alarm, reading(i))
					time.Sleep(10 * time.Second)
					if s.store.left() > 0 {
						t.Errorf("alarm %d is not there", i)
					}
					time.Sleep(forget - 2*time.Second)
				}
				t.Logf("%d reconnects, rest %v", s.up.Stats().Reconnects, s.up.Stats().Rest)
			})
		})
	}
}

// An outage while resting is no reason to rest less.
func TestAnOutageIsNoNAT(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.start()
		time.Sleep(12 * time.Hour)
		s.link.Set(linktest.BlackHole)
		start := time.Now()
		for s.up.Stats().Connected {
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took > 15*time.Minute+25*time.Second {
			t.Errorf("noticed after %v", took)
		}
		time.Sleep(2 * time.Hour)
		s.link.Set(linktest.Up)
		time.Sleep(5 * time.Minute)
		s.store.add(meter.Alarm, reading(0))
		time.Sleep(time.Minute)
		if st := s.up.Stats(); st.Rest != 15*time.Minute || !st.Connected {
			t.Errorf("%+v", st)
		}
		if !strings.Contains(s.log.String(), "no answer to a ping for 20s, after 15m") {
			t.Errorf("the log says %s", s.log)
		}
	})
}
