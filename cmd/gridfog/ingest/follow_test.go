package ingest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/mqtt"
)

// said gives what a site publishes at a moment, without the prefix.
func said(s *site, now time.Time) (all []string) {
	for _, m := range s.due(now) {
		all = append(all, strings.TrimPrefix(m.topic, "gridgate/1/s/g/down/")+" "+string(m.payload))
	}
	slices.Sort(all)
	return all
}

func newTestSite(t *testing.T) (*site, *inbox) {
	in := newInbox()
	cfg := &Config{Log: logger(t), History: true, Asks: 3}
	cfg.setDefaults()
	return newSite("s", "0", cfg, in, newCounters(), map[streamKey]*follow{}), in
}

// TestAsking: missing numbers are asked for, less and less often, and given up.
func TestAsking(t *testing.T) {
	t.Parallel()
	s, in := newTestSite(t)
	key := streamKey{"s", "g", 7, batch.Interval}
	s.settled(key, progress{through: 4, high: 9, missing: numbers{{5, 6}, {8, 8}}})
	now := time.Now()
	ack := `ack/interval {"epoch":"0000000000000007","sequence":4}`
	if got := said(s, now); len(got) != 1 || got[0] != ack {
		t.Fatalf("at once: %q", got)
	}
	resend := []string{`resend/interval {"epoch":"0000000000000007","first":5,"last":6}`, `resend/interval {"epoch":"0000000000000007","first":8,"last":8}`}
	asked, last := 0, now
	for step := range 600 {
		at := now.Add(time.Duration(step) * time.Second)
		got := said(s, at)
		switch {
		case len(got) == 0:
		case slices.Equal(got, resend):
			if pause := at.Sub(last); pause < s.cfg.AskAfter || asked > 1 && pause < s.cfg.AskEvery<<(asked-1) {
				t.Errorf("asked for the %dth time after %v", asked+1, pause)
			}
			asked, last = asked+1, at
		default:
			t.Fatalf("after %v: %q", at.Sub(now), got)
		}
	}
	given := in.take()
	if asked != 3 || len(given) != 2 || *given[0].loss != (loss{key, 5, 6, reasonNeverCame}) || given[1].loss.first != 8 {
		t.Errorf("asked %d times, given up: %d", asked, len(given))
	}
	s.settled(key, progress{through: 9, high: 9})
	if got := said(s, now.Add(time.Hour)); len(got) != 1 || !strings.Contains(got[0], `"sequence":9`) {
		t.Errorf("all is there: %q", got)
	}
}

// TestNotAsking: a gateway that is away is not asked until it is back, and a
// store that is no more not at all.
func TestNotAsking(t *testing.T) {
	t.Parallel()
	s, in := newTestSite(t)
	state := func(text string) {
		topic, err := mqtt.ParseTopic("gridgate/1/s/g/up/state")
		if err != nil {
			t.Fatal(err)
		}
		s.state(topic, []byte(text))
	}
	key := streamKey{"s", "g", 7, batch.Interval}
	state(`{"state":"online","epoch":"0000000000000007"}`)
	state(`{"state":"offline","reason":"lost"}`)
	s.settled(key, progress{high: 9, missing: numbers{{1, 9}}})
	later := time.Now().Add(time.Hour)
	if got := said(s, later); len(got) != 0 {
		t.Errorf("offline: %q", got)
	}
	state(`{"state":"online","epoch":"0000000000000007"}`)
	if got := said(s, later); len(got) != 1 || !strings.HasPrefix(got[0], "resend") {
		t.Errorf("back: %q", got)
	}
	state(`{"state":"online","epoch":"0000000000000008"}`)
	s.settled(key, progress{through: 2, high: 9, missing: numbers{{3, 9}}})
	if got := said(s, later.Add(time.Hour)); len(got) != 0 {
		t.Errorf("of another store: %q", got) // neither asked nor told: the topic is the new store's
	}
	if given := in.take(); len(given) != 1 || given[0].loss.reason != reasonEpochOver {
		t.Errorf("given up: %v", given)
	}
}

// TestConfirmedEarlier: what another fog has confirmed is not waited for, and
// asked for once.
func TestConfirmedEarlier(t *testing.T) {
	t.Parallel()
	for _, history := range []bool{true, false} {
		s, in := newTestSite(t)
		s.cfg.History = history
		topic, err := mqtt.ParseTopic("gridgate/1/s/g/down/ack/billing")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			s.confirmedEarlier(topic, mqtt.Confirmation{Epoch: 7, Sequence: 100}.AppendJSON(nil))
			s.confirmedEarlier(topic, []byte("nonsense"))
		}
		given := in.take()
		if len(given) != 1 || *given[0].loss != (loss{streamKey{"s", "g", 7, batch.Billing}, 1, 100, reasonEarlier}) {
			t.Errorf("given up: %v", given)
		}
		want := []string{`resend/billing {"epoch":"0000000000000007","first":1,"last":100}`}
		if !history {
			want = nil
		}
		if got := said(s, time.Now()); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("history %v: %q", history, got)
		}
	}
}

// TestAskingStaysSlow: however often numbers were asked for, the next time is not
// at once.
func TestAskingStaysSlow(t *testing.T) {
	t.Parallel()
	config := Config{AskEvery: 30 * time.Second, Asks: 1000, Log: logger(t)}
	s := newSite("s", "1", &config, newInbox(), newCounters(), nil)
	key := streamKey{"s", "g", 1, batch.Interval}
	f := &follow{progress: progress{missing: numbers{{1, 2}}}}
	now := begin
	for n := range 100 {
		if len(s.asks(key, f, now)) != 1 {
			t.Fatalf("not asked the %dth time", n)
		}
		if pause := f.next.Sub(now); pause < config.AskEvery || pause > maxAskEvery {
			t.Fatalf("after %d times it waits %v", n+1, pause)
		}
		now = f.next
	}
}
