package bridge

import (
	"context"
	"strings"
	"testing"
	"time"

	"gridgate/cmd/gridfog/track"
)

func TestRowsThatCannotBeToldAreLeftOut(t *testing.T) {
	t.Parallel()
	notes := ""
	rows := []track.Reading{
		reading(energy, at, uintOf(1, 0), 30), reading(energy, at, uintOf(2, 0), 30, of("#")), reading(energy, at, uintOf(3, 0), 30, of("a/b")),
		reading(energy, at, uintOf(4, 0), 30, of("house-2")), reading(energy, at, uintOf(5, 0), 30, of("")), reading(energy, -1, uintOf(6, 0), 30),
	}
	got := named(rows, func(text string) { notes += text })
	if len(got) != 2 || got[0].Row.Value.Bits != 1 || got[1].Row.Value.Bits != 4 || !strings.Contains(notes, "gateway north/gw-7: 4 rows") {
		t.Errorf("%+v, %s", got, notes)
	}
}

func TestGate(t *testing.T) {
	t.Parallel()
	g := NewGate(false)
	open, changed := g.Look()
	g.Set(false)
	select {
	case <-changed:
		t.Error("changed by nothing")
	default:
	}
	g.Set(true)
	<-changed
	if now, _ := g.Look(); open || !now {
		t.Errorf("%v, then %v", open, now)
	}
}

func TestPacerSpreads(t *testing.T) {
	t.Parallel()
	const interval = time.Millisecond
	p := pacer{interval: interval, burst: 10 * interval}
	begin := time.Now()
	for range 60 {
		if err := p.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took < 49*interval {
		t.Errorf("60 messages, 10 of them at once, took %v", took)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := p.wait(ended); err == nil {
		t.Error("waits after the end")
	}
}
