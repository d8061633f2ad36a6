package uplink_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/internal/column/columntest"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// deltaFog is a fog that reads as it comes, confirms every second what it has
// without a gap, and asks for what it cannot follow.
type deltaFog struct {
	s     *site
	stop  func()
	mu    sync.Mutex // guards what follows until it is stopped
	fog   *fog
	taken int
	said  [4]uint64
	asked int
	deaf  func(mqtttest.Received) bool // what never reaches it; may be nil
}

func startDeltaFog(s *site) *deltaFog {
	d := &deltaFog{s: s}
	d.restart()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				d.turn()
			}
		}
	}()
	d.stop = func() { close(quit); <-done }
	return d
}

// restart forgets what deltas are against, and not what is stored.
func (d *deltaFog) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.fog
	d.fog = newFog()
	d.fog.gaps = true
	if was != nil {
		d.fog.rows, d.fog.catalogues = was.rows, was.catalogues
	}
}

func (d *deltaFog) turn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.s.broker.Received()
	for _, r := range all[d.taken:] {
		if d.deaf != nil && d.deaf(r) {
			continue
		}
		if err := d.fog.take(r); err != nil {
			d.s.t.Error(err)
		}
	}
	d.taken = len(all)
	for _, run := range d.fog.lacks {
		d.asked++
		d.s.broker.Send(mqtt.ResendTopic("site", "gw", meter.Instant), false,
			mqtt.Range{Epoch: 0xFEED, First: run.First, Last: run.First + run.Count - 1}.AppendJSON(nil))
	}
	d.fog.lacks = nil
	for lane := range d.said {
		through := d.said[lane]
		for {
			if _, ok := d.fog.rows[lane][through+1]; !ok {
				break
			}
			through++
		}
		if through > d.said[lane] {
			d.said[lane] = through
			ack(d.s, meter.Lane(lane), through)
		}
	}
}

// rounds has the site read all its 50 meters every 15 minutes.
func rounds(s *site, w *columntest.Walk, n int) {
	for range n {
		s.store.add(meter.Instant, w.Round()...)
		time.Sleep(15 * time.Minute)
	}
}

func walk() *columntest.Walk { return columntest.NewWalk(1, 50, columntest.Int) }

// What the fog has confirmed makes what follows smaller; with confirm: broker
// the same configuration writes none.
func TestDeltaMode(t *testing.T) {
	t.Parallel()
	bytes := map[string]uint64{}
	for name, set := range map[string]func(*site){
		"delta":    func(s *site) { s.config.FogConfirms, s.config.Delta = true, true },
		"snapshot": func(s *site) { s.config.FogConfirms = true },
		"broker":   func(s *site) { s.config.Delta = true },
	} {
		simulate(t, gprs(), func(s *site) {
			set(s)
			s.start()
			d := startDeltaFog(s)
			rounds(s, walk(), 30)
			d.stop()
			if delta := d.fog.deltas > 20; delta != (name == "delta") {
				t.Errorf("%s: %d deltas", name, d.fog.deltas)
			}
			if s.store.left() != 0 || d.asked != 0 || d.fog.dups != 0 {
				t.Errorf("%s: %d rows wait, the fog asked %d times, %d rows came twice", name, s.store.left(), d.asked, d.fog.dups)
			}
			d.fog.check(t, s.store)
			bytes[name] = s.up.Stats().Bytes
		})
	}
	t.Logf("%v", bytes)
	if bytes["delta"]*5 > bytes["snapshot"]*4 {
		t.Errorf("deltas spare little: %v", bytes)
	}
}

// A fog that loses what deltas are against asks, and gets it; nothing else comes
// twice. One whose broker loses a batch gets it when it does not confirm.
func TestDeltaModeHeals(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(*site, *deltaFog, *columntest.Walk){
		"the fog restarts": func(_ *site, d *deltaFog, _ *columntest.Walk) { d.restart() },
		"the gateway restarts": func(s *site, _ *deltaFog, _ *columntest.Walk) {
			s.end()
			s.start()
		},
		"the link is cut in the middle of a round": func(s *site, _ *deltaFog, w *columntest.Walk) {
			s.store.add(meter.Instant, w.Round()...)
			time.Sleep(400 * time.Millisecond)
			s.link.Set(linktest.Cut)
			s.link.Set(linktest.Up)
		},
		"a batch is lost": func(_ *site, d *deltaFog, _ *columntest.Walk) {
			d.mu.Lock()
			defer d.mu.Unlock()
			lost := false
			d.deaf = func(r mqtttest.Received) bool {
				topic, err := mqtt.ParseTopic(r.Topic)
				first := !lost && err == nil && topic.Kind == mqtt.Readings
				lost = lost || first
				return first
			}
		},
	} {
		simulate(t, gprs(), func(s *site) {
			s.config.FogConfirms, s.config.Delta = true, true
			s.start()
			d := startDeltaFog(s)
			w := walk()
			rounds(s, w, 10)
			trouble(s, d, w)
			rounds(s, w, 30)
			d.stop()
			t.Logf("%s: %d deltas, the fog asked %d times, %d rows came twice", name, d.fog.deltas, d.asked, d.fog.dups)
			if s.store.left() != 0 || d.fog.deltas < 20 || d.asked > 3 || d.fog.dups > 550 {
				t.Errorf("%s: %d rows wait, %d deltas, the fog asked %d times, %d rows came twice", name, s.store.left(), d.fog.deltas, d.asked, d.fog.dups)
			}
			if asked := d.asked > 0; asked != (name == "the fog restarts") {
				t.Errorf("%s: the fog asked %d times", name, d.asked)
			}
			d.fog.check(t, s.store)
		})
	}
}

// An alarm is read whatever a fog has lost: the lane has no deltas.
func TestAlarmsStandAlone(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.FogConfirms, s.config.Delta = true, true
		s.start()
		d := startDeltaFog(s)
		for i := range 20 {
			s.store.add(meter.Alarm, readings(200)[i*10:i*10+10]...)
			time.Sleep(time.Minute)
		}
		d.stop()
		if d.fog.deltas != 0 || s.store.left() != 0 {
			t.Errorf("%d deltas, %d rows wait", d.fog.deltas, s.store.left())
		}
		alarms := slices.DeleteFunc(s.broker.Received(), func(r mqtttest.Received) bool {
			topic, err := mqtt.ParseTopic(r.Topic)
			return err != nil || topic.Kind != mqtt.Readings
		})
		if len(alarms) < 20 {
			t.Errorf("%d batches", len(alarms))
		}
	})
}

// Behind another broker there may be another fog, which knows nothing yet.
func TestDeltasBeginAnewBehindAnotherBroker(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		s.config.FogConfirms, s.config.Delta = true, true
		_, other, end := s.second(gprs())
		defer end()
		s.start()
		d := startDeltaFog(s)
		w := walk()
		rounds(s, w, 5)
		d.stop()
		if d.fog.deltas == 0 {
			t.Error("no deltas at the first")
		}
		s.link.Set(linktest.Cut)
		s.store.add(meter.Instant, w.Round()...)
		time.Sleep(10 * time.Minute)
		f := newFog()
		f.gaps = true
		for _, r := range other.Received() {
			if err := f.take(r); err != nil {
				t.Error(err)
			}
		}
		if len(f.rows[meter.Instant]) < 550 || f.deltas != 0 || len(f.lacks) != 0 {
			t.Errorf("the second broker has %d rows, %d deltas, %v", len(f.rows[meter.Instant]), f.deltas, f.lacks)
		}
	})
}
