package iec21

import (
	"errors"
	"testing"

	"gridgate/internal/meter"
)

// TestActsAreRefused has a meter read, and nothing done to it.
func TestActsAreRefused(t *testing.T) {
	t.Parallel()
	with(t, modeC(), Config{}, func(t *testing.T, m *Meter) {
		request := ask(t, "1-0:1.8.0")
		request.Acts = []meter.Act{meter.Disconnect{}}
		got, err := m.Visit(t.Context(), request)
		if err != nil || len(got.Rows) != 1 || len(got.Done) != 1 || got.Done[0].Result != meter.Refused || !errors.Is(got.Done[0].Err, meter.ErrCannotAct) {
			t.Errorf("%+v %+v, %v", got.Rows, got.Done, err)
		}
	})
}
