package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// TestPushIsNotMisledByAnOldRefusal: a gateway that once refused something
// unverified still says so in its retained report, without a name. That is no
// answer to what is pushed now.
func TestPushIsNotMisledByAnOldRefusal(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	gateway, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "gw-2"})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	report := func(last string) {
		token, err := gateway.Publish(ctx, mqtt.ConfigTopic("here", "gw-2"), true, []byte(`{"trust":1,"running":{"layers":[]},"last":`+last+`}`))
		if err != nil {
			t.Error(err)
			return
		}
		select {
		case <-token.Done():
		case <-ctx.Done():
			t.Error(ctx.Err())
		}
	}
	report(`{"outcome":"refused","reason":"nobody trusted has signed it"}`)
	came := make(chan *order.Document, 1)
	err = gateway.Subscribe(ctx, mqtt.OrderTopic("here", "gw-2", "", "config"), func(m mqtt.Message) {
		if doc, err := order.Read(m.Payload); err == nil {
			came <- doc
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() { // waited for below
		defer close(answered)
		select {
		case doc := <-came:
			<-time.After(300 * time.Millisecond) // it is tried
			report(fmt.Sprintf(`{"target":"here/gw-2","version":%d,"sha256":%q,"outcome":"kept"}`, doc.Version, hexOf(doc.Hash)))
		case <-ctx.Done():
		}
	}()
	d.must("sign", "-key", d.file("config.key"), "-config", "here/gw-2", "-version", "1", "-out", d.file("doc"), d.write("layer.yaml", "mains: {voltage: 230}\n"))
	out, stderr, code := d.run("push", "-broker", "mqtt://"+broker.Address, "-wait", "60s", d.file("doc"))
	if code != 0 || !strings.Contains(out, "kept") {
		t.Errorf("exit %d\n%s\n%s", code, out, stderr)
	}
	<-answered
}
