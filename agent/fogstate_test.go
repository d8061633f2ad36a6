package agent

import (
	"encoding/json"
	"net"
	"testing"
	"time"

	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// The state topic has what a fleet is watched by, and a new configuration shows
// at once.
func TestTheStateTopicTellsHowTheGatewayDoes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	l, err := net.Listen("tcp", s.broker)
	if err != nil {
		t.Fatal(err)
	}
	var broker mqtttest.Memory
	served := make(chan struct{})
	go func() { defer close(served); broker.Serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		broker.CloseAll()
		<-served
	})
	m := startZeroMeter(t)
	first := s.config("here", modbusMeter("m", m.address, "fast"))
	s.make(first)
	began := time.Now().Add(-time.Second)
	s.run()
	type state struct {
		State, Version, Config string
		At, Started, Reading   time.Time
		TimeZone               string `json:"time_zone"`
		Meters                 int
		Clock                  *struct{ Synchronised *bool }
		Backlog                map[string]int64
	}
	told := func() (st state) {
		b := broker.Retained(mqtt.StateTopic("here", "gw1"))
		if len(b) > 0 {
			if err := json.Unmarshal(b, &st); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
		return st
	}
	proctest.Until(t, "the gateway is online", func() bool { return told().State == "online" })
	st := told()
	if st.Version != "test" || st.Config != first.Hash()[:16] || st.TimeZone != "UTC" || st.Meters != 1 ||
		st.At.Before(began) || st.Started.Before(began.Add(-time.Second)) || st.Clock == nil || st.Clock.Synchronised == nil || len(st.Backlog) != len(meter.Lanes()) {
		t.Errorf("it tells %+v", st)
	}
	proctest.Until(t, "readings are stored", func() bool { return s.agent.Report().Intake.Stored > 0 })
	next := s.config("here", modbusMeter("m", m.address, "slow"))
	if err := s.agent.Apply(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "the new configuration shows", func() bool { return told().Config == next.Hash()[:16] })
	if st := told(); st.Reading.Before(began) {
		t.Errorf("last reading %v", st.Reading)
	}
}
