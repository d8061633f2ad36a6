package mqtt_test

import (
	"testing"

	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// What a session with OwnAcks did not acknowledge comes again over the next
// connection, and what it did does not.
func TestOwnAcks(t *testing.T) {
	t.Parallel()
	b := mqtttest.Mosquitto(t, mqtttest.Config{})
	in := make(chan mqtt.Message, 10)
	fog := mqtt.Options{
		Address: b.Address, ClientID: "fog", Persistent: true, OwnAcks: true, MaxInbound: 1 << 20,
		Handler: func(m mqtt.Message) { in <- m },
	}
	first := dial(t, fog)
	if err := first.SubscribeAll(t.Context(), []string{"a/#"}, fog.Handler); err != nil {
		t.Fatal(err)
	}
	gateway := dial(t, mqtt.Options{Address: b.Address, ClientID: "gateway"})
	for _, payload := range []string{"1", "2", "3"} {
		publish(t, gateway, "a/b", false, payload)
	}
	one, two := next(t, in), next(t, in)
	if string(one.Payload) != "1" || string(two.Payload) != "2" || string(next(t, in).Payload) != "3" {
		t.Fatalf("got %s, %s", one.Payload, two.Payload)
	}
	one.Ack()
	one.Ack() // once is enough, and twice is no harm
	first.Close()
	two.Ack() // too late
	second := dial(t, fog)
	for _, want := range []string{"2", "3"} {
		m := next(t, in)
		if string(m.Payload) != want || !m.Duplicate {
			t.Errorf("got %s again, duplicate %v; want %s", m.Payload, m.Duplicate, want)
		}
		m.Ack()
	}
	second.Close()
	dial(t, fog)
	publish(t, gateway, "a/b", false, "4")
	if m := next(t, in); string(m.Payload) != "4" {
		t.Errorf("got %s, which was acknowledged", m.Payload)
	}
	mqtt.Message{}.Ack()
}
