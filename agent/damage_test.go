package agent

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// TestAStateThatWasTakenAwayIsLost starts a gateway that has stored rows and
// has no state; one that never stored any only starts for the first time.
func TestAStateThatWasTakenAwayIsLost(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{0, 1} {
		s := newSite(t)
		m := startZeroMeter(t)
		cfg := s.config("here", modbusMeter("m", m.address, "fast"))
		b, err := buffer.Open(filepath.Join(s.dir, "buffer"), buffer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		row := meter.Row{Meter: "m", Channel: "1-0:32.7.0", Lane: meter.Instant, Value: meter.UintValue(1, 0)}
		if rows > 0 {
			if err := b.Append(t.Context(), meter.Append{Rows: []meter.Row{row}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		s.make(cfg)
		s.run()
		told := strings.Contains(strings.Join(s.agent.Report().Notes, "\n"), "control stays locked")
		if lost := s.agent.state.Lost(); lost != (rows > 0) || told != lost {
			t.Errorf("%d rows: lost %v, told %v", rows, lost, told)
		}
	}
}

// TestMendingSlowsDown: what cannot be mended is tried ever less often, and told
// once until it goes well again.
func TestMendingSlowsDown(t *testing.T) {
	t.Parallel()
	var m mending
	if m.isDue(mendFirst-1) || !m.isDue(mendFirst) {
		t.Error("the first pause is another one")
	}
	tries, told := 0, 0
	for at, last := time.Duration(0), -mendFirst; at < 24*time.Hour; at += time.Second {
		if !m.isDue(at - last) {
			continue
		}
		last = at
		if tries++; m.failed() {
			told++
		}
	}
	if told != 1 || tries > 24*6+8 || tries < 24*6 {
		t.Errorf("%d tries in a day, %d told", tries, told)
	}
	if m.succeeded(); !m.isDue(mendFirst) || !m.failed() {
		t.Error("it is not told again after a success")
	}
}
