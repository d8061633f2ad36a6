package ingest

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// A node of a cluster may lack a retained state at the moment that it is asked:
// a site that was not heard of is heard of later.
func TestSitesAreHeardAgain(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	gateway, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, ClientID: "gateway"})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	if _, err := gateway.Publish(t.Context(), mqtt.StateTopic("north", "gw-7"), true, []byte(`{"state":"online"}`)); err != nil {
		t.Fatal(err)
	}
	m := &member{
		cfg:   Config{MQTT: mqtt.Options{Address: b.Address}, ListenEvery: 20 * time.Millisecond, Log: slog.New(slog.DiscardHandler)},
		heard: map[string]bool{},
	}
	m.cfg.setDefaults()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { m.listen(ctx) })
	for range 3 {
		proctest.Until(t, "the site is heard of", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			_, ok := m.heard["north"]
			delete(m.heard, "north") // as if it had not come
			return ok
		})
	}
}
