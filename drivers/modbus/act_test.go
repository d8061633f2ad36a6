package modbus

import (
	"errors"
	"strings"
	"testing"

	"gridgate/internal/meter"
)

// TestActsAreRefused has nothing written to a meter that is told to do something.
func TestActsAreRefused(t *testing.T) {
	t.Parallel()
	m := onRTU(t, &rig{}, Config{Model: modelOf(1, 2)})
	got, err := m.Visit(t.Context(), meter.Ask{Acts: []meter.Act{meter.Disconnect{}, meter.Limit{}}})
	if err != nil || len(got.Done) != 2 {
		t.Fatalf("%+v, %v", got.Done, err)
	}
	for _, o := range got.Done {
		if o.Result != meter.Refused || o.Sent || !errors.Is(o.Err, meter.ErrCannotAct) || !strings.Contains(o.Err.Error(), "Modbus") {
			t.Errorf("%+v", o)
		}
	}
}
