package uplink_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gridgate/agent/uplink"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// taken are the orders that came.
type taken struct {
	mu  sync.Mutex
	all []string
}

func (o *taken) take(d uplink.Order) {
	o.mu.Lock()
	defer o.mu.Unlock()
	long := ""
	if d.TooLong {
		long = ", too long"
	}
	o.all = append(o.all, fmt.Sprintf("%s %s %d %v%s", d.Name, d.Group, len(d.Payload), d.Retained, long))
}

func (o *taken) got() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.all)
}

func TestOrdersComeDown(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		o := &taken{}
		s.config.Orders, s.config.Groups = o.take, []meter.ID{"north"}
		s.broker.Send(mqtt.OrderTopic("site", "gw", "", "config"), true, make([]byte, 3000))
		s.start()
		time.Sleep(30 * time.Second)
		s.broker.Send(mqtt.OrderTopic("site", "", "north", "trust"), false, []byte("to us"))
		s.broker.Send(mqtt.OrderTopic("site", "", "south", "config"), false, []byte("to others"))
		s.broker.Send(mqtt.OrderTopic("site", "gw-2", "", "config"), false, []byte("to another"))
		s.broker.Send(mqtt.OrderTopic("site", "gw", "", "trust"), false, []byte("do"))
		time.Sleep(30 * time.Second)
		want := []string{"config  3000 true", "trust north 5 false", "trust  2 false"}
		if got := o.got(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestWhatIsSaidArrives: over outages, the latest of what is retained, and once
// what the broker has acknowledged.
func TestWhatIsSaidArrives(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		box := uplink.NewOutbox()
		s.config.Outbox = box
		s.link.Set(linktest.Cut)
		s.start()
		state, result := mqtt.ConfigTopic("site", "gw"), mqtt.ResultTopic("site", "gw", "cmd-1")
		box.Say(state, true, []byte("applying"))
		box.Say(result, false, []byte("begun"))
		box.Say(state, true, []byte("kept"))
		box.Say(result, false, []byte("done"))
		time.Sleep(time.Hour)
		if box.Waiting() != 3 {
			t.Errorf("%d wait without a link", box.Waiting())
		}
		s.link.Set(linktest.Up)
		time.Sleep(10 * time.Minute)
		box.Say(result, false, []byte("again"))
		time.Sleep(time.Minute)
		var got []string
		for _, r := range s.broker.Received() {
			if r.Topic == state || r.Topic == result {
				got = append(got, string(r.Payload))
			}
		}
		if want := []string{"begun", "kept", "done", "again"}; !slices.Equal(got, want) || box.Waiting() != 0 {
			t.Errorf("got %q, want %q; %d wait", got, want, box.Waiting())
		}
	})
}

// TestAnOrderThatIsTooLong is told as that, and costs no connection; what comes
// after it is heard, and so is what comes after it was taken back.
func TestAnOrderThatIsTooLong(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		o := &taken{}
		s.config.Orders, s.config.Groups = o.take, []meter.ID{"north"}
		s.store.add(meter.Interval, readings(10)...)
		s.broker.Send(mqtt.OrderTopic("site", "", "north", "config"), true, make([]byte, 1<<20+1))
		s.start()
		time.Sleep(30 * time.Minute)
		s.link.Set(linktest.Cut)
		time.Sleep(time.Hour)
		s.link.Set(linktest.Up)
		time.Sleep(30 * time.Minute) // it does not come again
		s.broker.Send(mqtt.OrderTopic("site", "", "north", "config"), true, nil)
		s.broker.Send(mqtt.OrderTopic("site", "gw", "", "config"), true, make([]byte, 3000))
		time.Sleep(10 * time.Minute)
		want := []string{"config north 4096 true, too long", "config  3000 false"}
		if got := o.got(); !slices.Equal(got, want) || s.store.left() != 0 || s.up.Stats().Reconnects != 1 {
			t.Errorf("orders %q, want %q; rows left %d, connections %d", got, want, s.store.left(), s.up.Stats().Reconnects)
		}
		if err := s.up.Stats().Err; err != nil {
			t.Error(err)
		}
	})
}

// TestHandedLetters arrive, and who handed them over is told when the broker has
// them and not before; others give way to them.
func TestHandedLetters(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		box := uplink.NewOutbox()
		s.config.Outbox = box
		s.link.Set(linktest.Cut)
		s.start()
		var mu sync.Mutex
		var arrived []string
		part := func(n int) string { return mqtt.PartTopic("site", "gw", "cmd", n) }
		for n := range 3 {
			box.Hand(part(n), []byte("the same"), func() {
				mu.Lock()
				defer mu.Unlock()
				arrived = append(arrived, part(n))
			})
		}
		for n := range 256 + 10 {
			box.Say(mqtt.AuditTopic("site", "gw"), false, fmt.Append(nil, n))
		}
		if box.Waiting() != 256 {
			t.Errorf("%d wait", box.Waiting())
		}
		time.Sleep(time.Hour)
		mu.Lock()
		if len(arrived) > 0 {
			t.Errorf("%q have arrived without a link", arrived)
		}
		mu.Unlock()
		s.link.Set(linktest.Up)
		time.Sleep(20 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{part(0), part(1), part(2)}; !slices.Equal(arrived, want) || box.Waiting() != 0 {
			t.Errorf("arrived %q, want %q; %d wait", arrived, want, box.Waiting())
		}
	})
}

// TestSentAgainByOrder sends numbers that were confirmed long since.
func TestSentAgainByOrder(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		box := uplink.NewOutbox()
		s.config.Outbox = box
		s.store.add(meter.Interval, readings(10)...)
		s.start()
		time.Sleep(time.Minute)
		if s.store.left() != 0 || s.up.Stats().Resent != 0 {
			t.Fatalf("%d rows are left, %d were sent again", s.store.left(), s.up.Stats().Resent)
		}
		if !box.Again(meter.Interval, 3, 6) || box.Again(9, 1, 1) {
			t.Error("what can be sent again is not told from what cannot")
		}
		time.Sleep(time.Minute)
		if n := s.up.Stats().Resent; n != 4 {
			t.Errorf("%d rows were sent again, want 4", n)
		}
		for range 32 {
			box.Again(meter.Interval, 1, 1)
		}
		if box.Again(meter.Interval, 1, 1) {
			t.Error("there is no bound")
		}
	})
}
