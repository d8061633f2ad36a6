package main

import (
	"fmt"
	"testing"
	"time"

	"gridgate/internal/mqtt"
)

// A client that has not yet acknowledged what it was sent subscribes and
// publishes with the same packet identifiers: it may, and what it has not
// acknowledged comes again.
func TestBrokerPacketIDsOfBothDirections(t *testing.T) {
	t.Parallel()
	address, _, _ := startBroker(t)
	sender := connect(t, mqtt.Options{Address: address, ClientID: "sender"})
	in := make(chan mqtt.Message, 100)
	options := mqtt.Options{Address: address, ClientID: "fog", Persistent: true, OwnAcks: true, Handler: func(m mqtt.Message) { in <- m }}
	fog := connect(t, options)
	if err := fog.Subscribe(t.Context(), "in/#", func(m mqtt.Message) { in <- m }); err != nil {
		t.Fatal(err)
	}
	const n = 20
	for i := range n {
		send(t, sender, fmt.Sprintf("in/%d", i), false)
		<-in // and no PUBACK
	}
	for i := range n {
		if err := fog.Subscribe(t.Context(), fmt.Sprintf("more/%d", i), func(mqtt.Message) {}); err != nil {
			t.Error(err)
		}
		send(t, fog, "out", false)
	}
	fog.Close()
	again := connect(t, options)
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for range n {
		select {
		case m := <-in:
			m.Ack()
		case <-late.C:
			t.Fatal("what was not acknowledged does not come again")
		}
	}
	again.Close()
	if len(in) > 0 {
		t.Errorf("%d messages more than were sent", len(in))
	}
}

func TestExchange(t *testing.T) {
	t.Parallel()
	var e exchange
	all := func(uint16) bool { return true }
	given := map[uint16]bool{}
	for theirs := uint16(1); theirs != 0; theirs++ {
		id := e.give(theirs, all)
		if id == 0 || given[id] {
			t.Fatalf("%d is given for %d, twice or never", id, theirs)
		}
		given[id] = true
		if e.give(theirs, all) != id || e.back(id, false) != theirs {
			t.Fatalf("%d is not kept", theirs)
		}
	}
	for theirs := uint16(1); theirs != 0; theirs++ {
		if e.back(e.give(theirs, all), true) != theirs {
			t.Fatalf("%d does not come back", theirs)
		}
	}
	if len(e.ours)+len(e.their) > 0 {
		t.Errorf("%d and %d are left", len(e.ours), len(e.their))
	}
	if got := e.back(7, true); got != 7 {
		t.Errorf("what was never exchanged is %d", got)
	}
	if got := e.give(1, func(id uint16) bool { return id == 5 }); got != 5 {
		t.Errorf("the only one that is free is 5, not %d", got)
	}
}
