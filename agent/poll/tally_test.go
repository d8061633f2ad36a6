package poll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"gridgate/internal/meter"
)

// A history forgets what is longer ago than 64 visits.
func TestHistory(t *testing.T) {
	t.Parallel()
	var h History
	if h.Answered() != 0 || h.Count != 0 {
		t.Errorf("the zero value has %d of %d", h.Answered(), h.Count)
	}
	for range 3 {
		h.add(true)
	}
	h.add(false)
	if h.Answered() != 3 || h.Count != 4 {
		t.Errorf("%d of %d, want 3 of 4", h.Answered(), h.Count)
	}
	for range 61 { // the first one goes out
		h.add(false)
	}
	if h.Answered() != 2 || h.Count != 64 {
		t.Errorf("%d of %d, want 2 of 64", h.Answered(), h.Count)
	}
}

func TestResultOf(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		fmt.Errorf("x: %w", meter.ErrAuthentication):               "refused",
		fmt.Errorf("x: %w", meter.ErrNoAnswer):                     "no-answer",
		fmt.Errorf("x: %w", meter.ErrGarbled):                      "garbled",
		fmt.Errorf("x: %w", meter.ErrNoLine):                       "no-line",
		fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: io.EOF}): "no-line",
		fmt.Errorf("x: %w", &net.OpError{Op: "read", Err: io.EOF}): "failed",
		errors.New("x"): "failed",
	} {
		if got := resultOf(err).String(); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	seen := map[string]bool{}
	for _, r := range Results() {
		seen[r.String()] = true
	}
	if len(seen) != int(results) {
		t.Errorf("%d names of %d results", len(seen), results)
	}
}
