package main

import (
	"strings"
	"testing"

	"gridgate/dlms/axdr"
)

func TestActUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"dlms -breaker-mode 7":                  "-breaker-mode 7",
		"dlms -breaker open":                    `-breaker "open"`,
		"dlms -image-lose -1":                   "-image-lose",
		"dlms -faults cut -transport hdlc":      "cut is not of -transport hdlc",
		"dlms -faults cut -every 0 -count 1":    "-every 0",
		"dlms -breaker tripped -image-looks -2": "-image-looks",
	} {
		if _, stop := command(t, 0, strings.Fields(args)...); true {
			if code, stderr := stop(); code != 2 || !strings.Contains(stderr, want) {
				t.Errorf("%s: %d, %s", args, code, stderr)
			}
		}
	}
}

// TestBreakerBegins has the breaker in the states that it may begin in.
func TestBreakerBegins(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]uint64{"connected": 1, "disconnected": 0, "tripped": 2} {
		o := actOptions{mode: 4, state: state}
		events := 0
		b := o.breaker(func(uint8) { events++ })
		if v, ok := b.Object(switchCode()).Read(3, nil); !ok || v.Tag != axdr.TagEnum || v.Num != want || (events > 0) != (state != "connected") {
			t.Errorf("%s: %v, %d events", state, v, events)
		}
	}
	if v, _ := (*actOptions)(nil).orUsual().breaker(func(uint8) {}).Object(switchCode()).Read(4, nil); v.Num != 4 {
		t.Errorf("usual mode %v", v)
	}
}

// TestCut is silent about what was done one time in so many, and about nothing
// else.
func TestCut(t *testing.T) {
	t.Parallel()
	tamper, frame := cut(2), []byte("answer")
	read, proof, act, set := []byte{0xC0, 1}, []byte{0xC3, 1, 0xC1, 0, 15, 0, 0}, []byte{0xC3, 1, 0xC1, 0, 70, 0, 0}, []byte{0xC9, 1}
	for i, c := range []struct {
		request []byte
		silent  bool
	}{{read, false}, {proof, false}, {act, false}, {read, false}, {set, true}, {act, false}, {proof, false}, {act, true}, {nil, false}} {
		if got := tamper(c.request, frame); (got == nil) != c.silent {
			t.Errorf("%d: %q", i, got)
		}
	}
}
