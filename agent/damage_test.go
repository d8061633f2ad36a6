package agent

import (
	"path/filepath"
	"strings"
	"testing"

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
