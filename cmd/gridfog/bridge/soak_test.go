//go:build soak

package bridge_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// TestSoakManyGateways bridges 250 gateways of 100 meters, four quarter hours of
// eight channels at once, to both standards, and prints what that costs.
func TestSoakManyGateways(t *testing.T) {
	const gateways, meters, channels, rounds = 250, 100, 8, 4
	const rows = gateways * meters * channels * rounds
	gridfog := filepath.Join(proctest.Build(t, "gridfog"), "gridfog")
	broker := mqtttest.Mosquitto(t, mqtttest.Config{Lines: []string{"max_queued_messages 0", "max_inflight_messages 0"}})
	consumers := mqtttest.Mosquitto(t, mqtttest.Config{Lines: []string{"max_queued_messages 0", "max_inflight_messages 0"}})
	host, err := mqtt.Dial(t.Context(), mqtt.Options{Address: consumers.Address, ClientID: "host", MaxInbound: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	var messages, bytes, births atomic.Int64
	if err := host.Subscribe(t.Context(), "spBv1.0/+/+/#", func(m mqtt.Message) {
		messages.Add(1)
		bytes.Add(int64(len(m.Payload)))
		if strings.Contains(m.Topic, "/NBIRTH/") {
			births.Add(1)
		}
	}); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"sparkplug": {"sparkplug", "-to", "mqtt://" + consumers.Address, "-rate", "100000"},
		"senml":     {"senml", "-out", filepath.Join(t.TempDir(), "packs")},
	} {
		bridge := startBridge(t, gridfog, broker, args...)
		bridge.Await("broker " + broker.Address + ": connected")
		begin := time.Now()
		publishAll(t, broker, name, gateways, meters, channels, rounds)
		settled := int64(-1)
		for messages.Load() != settled {
			settled = messages.Load()
			wait := time.NewTimer(3 * time.Second)
			<-wait.C
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", bridge.PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(status), "VmHWM:")
		peak, _, _ := strings.Cut(after, "\n")
		if code := bridge.Stop(); code != 0 || !strings.Contains(bridge.Output(), fmt.Sprintf("told %d rows", rows)) || !strings.Contains(bridge.Output(), "0 missing") {
			t.Errorf("exit code %d", code)
		}
		lines := strings.Split(strings.TrimSpace(bridge.Output()), "\n")
		t.Logf("%s: %d rows in %v at most, peak memory %s; %d messages, %.1f bytes a row, %d NBIRTH\n%s", name, rows,
			time.Since(begin).Round(time.Second), strings.TrimSpace(peak), messages.Load(), float64(bytes.Load())/rows, births.Load(), lines[len(lines)-1])
	}
}

// publishAll publishes the batches of all gateways.
func publishAll(t *testing.T, broker *mqtttest.Broker, epoch string, gateways, meters, channels, rounds int) {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "all of " + epoch})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var tokens []mqtt.Token
	say := func(topic string, retained bool, payload []byte) {
		token, err := conn.Publish(t.Context(), topic, retained, payload)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	start := time.Now().Add(-time.Duration(rounds) * 15 * time.Minute)
	for g := range gateways {
		site, gateway := "north", fmt.Sprintf("gw-%d", g)
		catalogue := batch.NewCatalogue()
		next := uint64(1)
		for round := range rounds {
			s := batch.Span{Lane: batch.Instant}
			for m := range meters {
				for c := range channels {
					s.Rows = append(s.Rows, batch.Row{
						Meter: batch.ID(fmt.Sprintf("house-%d", m)), Serial: fmt.Sprint(1000*g + m), Channel: batch.Channel(fmt.Sprintf("1-0:%d.8.0*255/3:2", c+1)),
						Stamp: batch.Stamp{Time: start.UnixMilli() + int64(round)*900_000}, Value: batch.Value{Kind: batch.Uint, Bits: uint64(1000*m + round)}, Unit: 30, Lane: batch.Instant,
					})
				}
			}
			s.Runs = []batch.Run{{First: next, Count: uint64(len(s.Rows))}}
			next += uint64(len(s.Rows))
			s.Last = next - 1
			if catalogue.Add(s.Rows) {
				raw, _ := catalogue.AppendBinary(nil)
				say(mqtt.CatalogueTopic(batch.ID(site), batch.ID(gateway), catalogue.Hash()), true, raw)
			}
			b, err := batch.Append(nil, batch.Header{Site: site, Gateway: gateway, Epoch: uint64(len(epoch)), Lane: batch.Instant}, s, catalogue)
			if err != nil {
				t.Fatal(err)
			}
			say(mqtt.ReadingsTopic(batch.ID(site), batch.ID(gateway), batch.Instant), false, b)
		}
	}
	for _, token := range tokens {
		<-token.Done()
	}
}
