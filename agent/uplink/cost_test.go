package uplink_test

import (
	"fmt"
	"testing"
	"time"

	"gridgate/internal/column/columntest"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
)

// What a value costs on the link, all of MQTT, TCP and IP both ways, and how long
// the last row of a round takes to the broker: a site of 1,000 meters with 11
// values each, and one of 50, over the slow link and a fast one.
func TestWhatAValueCosts(t *testing.T) {
	t.Parallel()
	slow, fast := gprs(), linktest.Config{Rate: 10_000_000, Delay: 25 * time.Millisecond}
	for _, c := range []struct {
		meters, rounds int
		link           linktest.Config
		delta          bool
		most           float64
	}{
		{1000, 4, slow, false, 1.70},
		{1000, 4, slow, true, 0.96},
		{1000, 4, fast, false, 1.40},
		{1000, 4, fast, true, 0.85},
		{50, 12, slow, false, 1.90},
		{50, 12, slow, true, 1.40},
	} {
		name := fmt.Sprintf("%d meters at %d kbit/s, delta %v", c.meters, c.link.Rate/1000, c.delta)
		simulate(t, c.link, func(s *site) {
			s.config.FogConfirms, s.config.Delta = true, c.delta
			s.start()
			d := startDeltaFog(s)
			w := columntest.NewWalk(1, c.meters, columntest.Int)
			rounds(s, w, 2) // the catalogue, and the first key frame
			before, wire := total(s.link)
			var took time.Duration
			for range c.rounds {
				s.store.add(meter.Instant, w.Round()...)
				start := time.Now()
				for s.store.left() > 0 {
					time.Sleep(100 * time.Millisecond)
				}
				took = max(took, time.Since(start))
				time.Sleep(15*time.Minute - time.Since(start))
			}
			after, on := total(s.link)
			values := float64(c.rounds * c.meters * columntest.Values)
			cost, ip := float64(after-before)/values, float64(on-wire)/values
			d.stop()
			d.fog.check(t, s.store)
			t.Logf("%s: %.3f bytes a value above TCP, %.3f with TCP and IP; a round is confirmed within %v", name, cost, ip, took)
			if cost > c.most {
				t.Errorf("%s: %.3f bytes a value, at most %.2f", name, cost, c.most)
			}
		})
	}
}

// The same of profiles of a day, read and sent once a day.
func TestWhatADayOfProfilesCosts(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.start()
		s.store.add(meter.Billing, columntest.NewWalk(1, 100, columntest.Int).Round()...) // the catalogue
		s.drained(time.Minute)
		before, wire := total(s.link)
		rows := columntest.NewWalk(1, 100, columntest.Int).Profiles(96)
		s.store.add(meter.Interval, rows...)
		start := time.Now()
		s.drained(time.Hour)
		after, on := total(s.link)
		cost, ip := float64(after-before)/float64(len(rows)), float64(on-wire)/float64(len(rows))
		t.Logf("%.3f bytes a value above TCP, %.3f with TCP and IP; there within %v", cost, ip, time.Since(start))
		if cost > 0.90 {
			t.Errorf("%.3f bytes a value", cost)
		}
	})
}

// A backlog of rounds in delta mode: what batches are against moves on meanwhile.
func TestWhatABacklogOfDeltasCosts(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.FogConfirms, s.config.Delta = true, true
		w := columntest.NewWalk(1, 1000, columntest.Int)
		for range 12 {
			s.store.add(meter.Instant, w.Round()...)
		}
		s.start()
		d := startDeltaFog(s)
		start := time.Now()
		s.drained(time.Hour)
		took := time.Since(start)
		d.stop()
		d.fog.check(t, s.store)
		stream, wire := total(s.link)
		values := float64(12 * 1000 * columntest.Values)
		t.Logf("%.3f bytes a value above TCP, %.3f with TCP and IP; confirmed within %v", float64(stream)/values, float64(wire)/values, took)
		if float64(stream)/values > 1.15 || d.asked > 0 || d.fog.dups > 0 {
			t.Errorf("%.3f bytes a value, the fog asked %d times, %d rows came twice", float64(stream)/values, d.asked, d.fog.dups)
		}
	})
}

// total is the bytes of both directions, in the streams and on the wire.
func total(l *linktest.Link) (stream, wire uint64) {
	out, back := l.Stats()
	return out.Bytes + back.Bytes, out.Wire + back.Wire
}
