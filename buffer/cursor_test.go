package buffer_test

import (
	"strings"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// TestACursorThatNoStoreHoldsStopsNothing: a meter whose serial number is
// longer than a name may be must not keep the others' rows from the disk.
func TestACursorThatNoStoreHoldsStopsNothing(t *testing.T) {
	t.Parallel()
	s, err := buffer.Open(t.TempDir(), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("AB", 200)
	good := meter.Cursor{Meter: "m", Serial: "S", Profile: "1-0:99.1.0*255/7:2", Time: 7}
	good.Gaps = good.Gaps.With(meter.Gap{From: -5, To: 2}).With(meter.Gap{From: 4, To: 6})
	bad := good
	bad.Serial = long
	rows := rowsOf(meter.Interval, 1, 3)
	rows[1].Serial = long
	if err := s.Append(t.Context(), meter.Append{Rows: rows, Cursors: []meter.Cursor{bad, good}}); err != nil {
		t.Error(err)
	}
	if c, ok, err := s.Cursor("m", "S", good.Profile); !ok || err != nil || c != good {
		t.Errorf("%v, %v, %v", c, ok, err)
	}
	if _, ok, err := s.Cursor("m", long, good.Profile); ok || err != nil {
		t.Errorf("the cursor that was left out: %v, %v", ok, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
