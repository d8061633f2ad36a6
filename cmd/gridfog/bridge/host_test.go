package bridge_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// The tests of this file run gridfog as it is built against mosquitto and a host
// application on the npm package sparkplug-client.

func TestHosts(t *testing.T) {
	t.Parallel()
	gridfog := filepath.Join(proctest.Build(t, "gridfog"), "gridfog")
	for name, test := range map[string]func(*testing.T, string){
		"births and rows": birthsAndRows, "rebirth": rebirth, "primary host": primaryHost, "deaths": deaths, "six hundred messages": sixHundred,
		"offline gateway": offlineGateway, "documented host": documentedHost, "delta mode": deltaMode, "a lost connection": lostConnection, "lines of SenML": senmlLines, "SenML topics": senmlTopics,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, gridfog)
		})
	}
}

func startBridge(t *testing.T, gridfog string, broker *mqtttest.Broker, args ...string) *proctest.Process {
	t.Helper()
	return proctest.Start(t, nil, gridfog, append([]string{"bridge", "-broker", "mqtt://" + broker.Address}, args...)...)
}

func birthsAndRows(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	down := listen(t, broker, "gridgate/1/+/+/down/#")
	h := newHost(t, broker)
	g := newGateway(t, broker)
	bridge := startBridge(t, gridfog, broker, "sparkplug")
	birth := h.await("NBIRTH", 1)[0]
	if v := birth.metric("bdSeq"); v.Type != "Int64" || v.Value == nil {
		t.Errorf("bdSeq %+v", v)
	}
	if v := birth.metric("Node Control/Rebirth"); v.Type != "Boolean" || v.Value != false {
		t.Errorf("rebirth %+v", v)
	}
	if v := birth.metric("Properties/Software"); v.Value != "7.8.9" {
		t.Errorf("software %+v", v)
	}
	start := time.Now().Add(time.Minute).Truncate(time.Second)
	sent := g.send("house-1", start, 120345)
	h.await("DDATA", 1)
	dbirth := h.await("DBIRTH", 1)[0]
	energy := dbirth.metric("instant/1-0:1.8.0")
	if dbirth.Device != "house-1" || energy.Type != "UInt64" || energy.Value != "1203450" || energy.Timestamp != start.UnixMilli() ||
		energy.Properties["Quality"] != "192" || energy.Properties["engUnit"] != "Wh" || energy.Properties["Channel"] != "1-0:1.8.0*255/3:2" {
		t.Errorf("birth %+v", dbirth)
	}
	if v := dbirth.metric("Properties/Serial"); v.Value != "s-house-1" {
		t.Errorf("serial %+v", v)
	}
	g.publish(mqtt.ReadingsTopic("north", "gw-7", 3), false, sent) // once more
	g.send("house-1", start.Add(time.Second), 120346, 120347)
	h.await("DDATA", 2) // apart from what comes next
	g.send("house-1", start.Add(-24*time.Hour), 1)
	data := h.await("DDATA", 3)
	if want := []string{"1203450h", "1203460", "1203470", "10h"}; !slices.Equal(h.rows("house-1"), want) {
		t.Errorf("rows %v, want %v", h.rows("house-1"), want)
	}
	for _, m := range data {
		for _, x := range m.Metrics {
			if x.Alias != energy.Alias || x.Name != "" || x.Type != "UInt64" {
				t.Errorf("data %+v", x)
			}
		}
	}
	if code := bridge.Stop(); code != 0 || !strings.Contains(bridge.Output(), "told 4 rows in 6 messages, 2 births; received 4 rows in 4 batches: 0 missing, 1 duplicates") {
		t.Errorf("exit code %d, %s", code, bridge.Output())
	}
	if death := h.await("NDEATH", 1)[0]; death.metric("bdSeq").Value != birth.metric("bdSeq").Value || death.Seq != -1 {
		t.Errorf("death %+v", death)
	}
	if gaps := h.gaps(); gaps != nil || h.count("NDEATH") != 1 {
		t.Errorf("%v, %d deaths", gaps, h.count("NDEATH"))
	}
	if len(down) > 0 {
		t.Errorf("a gateway was told %+v", <-down)
	}
}

// listen gives the messages of a topic as they come.
func listen(t *testing.T, broker *mqtttest.Broker, filter string) <-chan mqtt.Message {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "listener"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	in := make(chan mqtt.Message, 10_000)
	if err := conn.Subscribe(t.Context(), filter, func(m mqtt.Message) { in <- m }); err != nil {
		t.Fatal(err)
	}
	return in
}

func rebirth(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	h := newHost(t, broker)
	g := newGateway(t, broker)
	startBridge(t, gridfog, broker, "sparkplug")
	start := time.Now().Add(time.Minute)
	h.await("NBIRTH", 1)
	g.send("house-1", start, 1)
	g.send("house-2", start, 2)
	h.await("DDATA", 2)
	h.do("rebirth")
	births := h.await("NBIRTH", 2)
	again := h.await("DBIRTH", 4)[2:]
	if births[0].metric("bdSeq").Value != births[1].metric("bdSeq").Value {
		t.Errorf("another bdSeq: %+v", births)
	}
	for i, m := range again {
		if want := fmt.Sprintf("house-%d %d0", i+1, i+1); m.Device+" "+fmt.Sprint(m.metric("instant/1-0:1.8.0").Value) != want || m.Seq != i+1 {
			t.Errorf("born again %+v, want %s", m, want)
		}
	}
	g.send("house-2", start.Add(time.Second), 3)
	h.await("DDATA", 3)
	if gaps := h.gaps(); gaps != nil || h.count("NDEATH") != 0 || !slices.Equal(h.rows("house-2"), []string{"20h", "30"}) {
		t.Errorf("%v, %d deaths, rows %v", gaps, h.count("NDEATH"), h.rows("house-2"))
	}
}

func primaryHost(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	h := newHost(t, broker)
	g := newGateway(t, broker)
	bridge := startBridge(t, gridfog, broker, "sparkplug", "-primary", "scada")
	bridge.Await("primary host scada at broker " + broker.Address + ": connected")
	proctest.Until(t, "the bridge's session is there", func() bool { return strings.Contains(broker.Log(), "Client gridfog-sparkplug-in-1 disconnected") })
	start := time.Now().Add(-time.Minute)
	for i := range uint64(5) {
		g.send("house-1", start.Add(time.Duration(i)*time.Second), i+1)
	}
	if all := h.all(); len(all) != 1 {
		t.Fatalf("told before the host is online: %+v", all[1:])
	}
	h.do("online")
	h.await("NBIRTH", 1)
	count := func(n int) func() bool { return func() bool { return len(h.rows("house-1")) >= n } }
	proctest.Until(t, "what waited has come", count(5))
	g.send("house-1", start.Add(10*time.Minute), 11)
	proctest.Until(t, "a row has come", count(6))
	if got, want := h.rows("house-1"), []string{"10h", "20h", "30h", "40h", "50h", "110"}; !slices.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
	// However what waited came, hosts know the newest of it.
	proctest.Until(t, "the last of it is current", func() bool {
		all := h.await("DBIRTH", 1)
		return all[len(all)-1].metric("instant/1-0:1.8.0").Value != "10"
	})
	if births := h.await("NBIRTH", 1); len(births) != 1 {
		t.Errorf("%d births", len(births))
	}
	h.do("offline")
	h.await("NDEATH", 1)
	bridge.Await("primary host scada: offline")
	heard := len(h.all())
	before := strings.Count(broker.Log(), "Client gridfog-sparkplug-in-1 disconnected")
	proctest.Until(t, "the bridge takes no more", func() bool {
		return strings.Count(broker.Log(), "Client gridfog-sparkplug-in-1 disconnected") >= max(2, before)
	})
	g.send("house-1", start, 21)
	g.send("house-1", start.Add(-time.Hour), 7)
	bridge.Kill() // what waits is at the broker
	bridge = startBridge(t, gridfog, broker, "sparkplug", "-primary", "scada")
	bridge.Await(": connected")
	for _, m := range h.all()[heard:] {
		// A connection that was made to look for the host, and killed with the
		// bridge, leaves a death that belongs to no birth.
		if m.Kind != "NDEATH" || m.metric("bdSeq").Value == h.await("NBIRTH", 1)[0].metric("bdSeq").Value {
			t.Errorf("told while the host was offline: %+v", m)
		}
	}
	h.do("online")
	proctest.Until(t, "what waited has come", count(8))
	if got := h.rows("house-1")[6:]; !slices.Equal(got, []string{"210h", "70h"}) && !slices.Equal(got, []string{"70h", "210h"}) {
		t.Errorf("rows %v", got)
	}
	if gaps := h.gaps(); gaps != nil {
		t.Error(gaps)
	}
	if code := bridge.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A bridge that is killed is dead to hosts by its will, with the bdSeq of its
// birth; the next one goes on with the next bdSeq and is born whole.
func deaths(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{Lines: []string{"log_type all"}})
	h := newHost(t, broker)
	g := newGateway(t, broker)
	state := t.TempDir()
	for i := range 3 {
		bridge := startBridge(t, gridfog, broker, "sparkplug", "-state", state)
		h.await("NBIRTH", i+1)
		if i == 0 {
			g.send("house-1", time.Now(), 5)
			h.await("DDATA", 1)
			proctest.Until(t, "the bridge has acknowledged it", func() bool {
				log := broker.Log()
				return strings.Count(log, "Sending PUBLISH to gridfog-sparkplug-in-1") == strings.Count(log, "Received PUBACK from gridfog-sparkplug-in-1")
			})
		} else { // known though nothing was heard
			last := h.await("DBIRTH", i+1)[i]
			if v := last.metric("instant/1-0:1.8.0"); v.Value != nil || v.Properties["Quality"] != "500" || v.Type != "UInt64" || v.Alias != h.await("DBIRTH", 1)[0].metric(v.Name).Alias {
				t.Errorf("birth %+v", last)
			}
		}
		bridge.Kill()
		death := h.await("NDEATH", i+1)[i]
		birth := h.await("NBIRTH", i+1)[i]
		if got := death.metric("bdSeq").Value; got != fmt.Sprint(i) || got != birth.metric("bdSeq").Value || death.Seq != -1 {
			t.Errorf("death %+v of birth %+v", death, birth)
		}
	}
}

func sixHundred(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	h := newHost(t, broker)
	g := newGateway(t, broker)
	startBridge(t, gridfog, broker, "sparkplug", "-rate", "500")
	h.await("NBIRTH", 1)
	start := time.Now().Add(-10 * time.Minute)
	const n = 600
	for i := range uint64(n) {
		g.send("house-1", start.Add(time.Duration(i)*time.Second), i)
	}
	proctest.Until(t, "all rows have come", func() bool { return len(h.rows("house-1")) >= n })
	if gaps := h.gaps(); gaps != nil {
		t.Error(gaps)
	}
	for i, got := range h.rows("house-1") {
		if strings.TrimSuffix(got, "h") != fmt.Sprint(i*10) {
			t.Fatalf("row %d is %s", i, got)
		}
	}
}

// A node whose connection is lost is dead by its will, and born again with the
// next bdSeq; what came in between is told.
func lostConnection(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	h := newHost(t, broker)
	g := newGateway(t, broker)
	startBridge(t, gridfog, broker, "sparkplug", "-state", t.TempDir())
	h.await("NBIRTH", 1)
	start := time.Now().Add(time.Minute)
	for i := range 3 {
		g.send("house-1", start.Add(time.Duration(2*i)*time.Second), uint64(2*i))
		proctest.Until(t, "a row has come", func() bool { return len(h.rows("house-1")) == 2*i+1 })
		taker, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "gridfog-sparkplug-1-north-gw-7"})
		if err != nil {
			t.Fatal(err)
		}
		death, birth := h.await("NDEATH", i+1)[i], h.await("NBIRTH", i+1)[i]
		if death.metric("bdSeq").Value != fmt.Sprint(i) || birth.metric("bdSeq").Value != fmt.Sprint(i) {
			t.Errorf("death %+v of birth %+v", death, birth)
		}
		g.send("house-1", start.Add(time.Duration(2*i+1)*time.Second), uint64(2*i+1))
		taker.Close()
		h.await("NBIRTH", i+2)
		proctest.Until(t, "the row in between has come", func() bool { return len(h.rows("house-1")) == 2*i+2 })
	}
	if gaps := h.gaps(); gaps != nil {
		t.Error(gaps)
	}
	for i, got := range h.rows("house-1") {
		if strings.TrimSuffix(got, "h") != fmt.Sprint(i*10) {
			t.Errorf("rows %v", h.rows("house-1"))
		}
	}
}

// A gateway that is offline is a dead node, after what it sent before is told.
func offlineGateway(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	h := newHost(t, broker)
	g := newGateway(t, broker)
	bridge := startBridge(t, gridfog, broker, "sparkplug")
	h.await("NBIRTH", 1)
	g.send("house-1", time.Now(), 1)
	g.state(`{"state":"offline","reason":"lost"}`)
	h.await("NDEATH", 1)
	if got := h.rows("house-1"); !slices.Equal(got, []string{"10h"}) {
		t.Errorf("rows before the death: %v", got)
	}
	g.state(`{"state":"online","version":"8.0.0"}`)
	births := h.await("NBIRTH", 2)
	if births[1].metric("bdSeq").Value == births[0].metric("bdSeq").Value || births[1].metric("Properties/Software").Value != "8.0.0" {
		t.Errorf("birth %+v", births[1])
	}
	if code := bridge.Stop(); code != 0 || h.await("NDEATH", 2)[1].metric("bdSeq").Value != births[1].metric("bdSeq").Value || h.gaps() != nil {
		t.Errorf("exit code %d, %v", code, h.gaps())
	}
}

// What a gateway in delta mode refers to, and the bridge did not hear, is asked
// for again.
func deltaMode(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	down := listen(t, broker, "gridgate/1/+/+/down/#")
	h := newHost(t, broker)
	g := newGateway(t, broker)
	e := batch.NewEncoder(1000)
	start := time.Now().Add(time.Minute)
	g.sendBy(e.Append, "house-1", start, 1, 2, 3)
	e.Confirmed(5, 3)
	startBridge(t, gridfog, broker, "sparkplug")
	h.await("NBIRTH", 1)
	g.sendBy(e.Append, "house-1", start.Add(3*time.Second), 4, 5, 6)
	m := <-down
	if m.Topic != "gridgate/1/north/gw-7/down/resend/instant" || string(m.Payload) != `{"epoch":"0000000000000005","first":4,"last":6}` {
		t.Errorf("asked %s %s", m.Topic, m.Payload)
	}
	g.next = 4
	g.sendBy(e.AppendAlone, "house-1", start.Add(3*time.Second), 4, 5, 6)
	h.await("DDATA", 1)
	if got := h.rows("house-1"); !slices.Equal(got, []string{"40h", "50h", "60h"}) {
		t.Errorf("rows %v", got)
	}
}

func senmlLines(t *testing.T, gridfog string) {
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	g := newGateway(t, broker)
	out := filepath.Join(t.TempDir(), "packs")
	bridge := startBridge(t, gridfog, broker, "senml", "-out", out, "-base", "urn:dev:ops:32473-")
	bridge.Await(": connected")
	start := time.UnixMilli(1_767_225_600_250)
	g.send("house-1", start, 120345, 120346)
	g.send("house-2", start, 7)
	const want = `[{"bn":"urn:dev:ops:32473-north/gw-7/house-1/","bt":1767225600.25,"n":"instant/1-0:1.8.0","u":"Wh","v":1203450},{"n":"instant/1-0:1.8.0","t":1,"u":"Wh","v":1203460}]
[{"bn":"urn:dev:ops:32473-north/gw-7/house-2/","bt":1767225600.25,"n":"instant/1-0:1.8.0","u":"Wh","v":70}]
`
	proctest.Until(t, "both packs are written", func() bool { return strings.Count(contents(t, out), "\n") == 2 })
	if got := contents(t, out); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	if code := bridge.Stop(); code != 0 || !strings.Contains(bridge.Output(), "told 3 rows in 2 packs, 0 rows without a time left out, 0 packs not sent; received 3 rows in 2 batches: 0 missing") {
		t.Errorf("exit code %d, %s", code, bridge.Output())
	}
}

// What comes while the bridge or the consumers' broker is away comes later, in
// order.
func senmlTopics(t *testing.T, gridfog string) {
	broker, consumers := mqtttest.Mosquitto(t, mqtttest.Config{}), mqtttest.Mosquitto(t, mqtttest.Config{Persistent: true})
	subscribe := func() <-chan mqtt.Message { return listen(t, consumers, "senml/#") }
	packs := subscribe()
	g := newGateway(t, broker)
	args := []string{"senml", "-to", "mqtt://" + consumers.Address}
	bridge := startBridge(t, gridfog, broker, args...)
	bridge.Await("SenML at broker " + consumers.Address + ": connected")
	bridge.Await("broker " + broker.Address + ": connected")
	next := uint64(0)
	send := func() {
		g.send("house-1", time.UnixMilli(1_767_225_600_000+int64(next)*1000), next)
		next++
	}
	var values []string
	want := func(n int) {
		t.Helper()
		for len(values) < n {
			limit := time.NewTimer(time.Minute)
			select {
			case m := <-packs:
				if m.Topic != "senml/north/gw-7/instant" || m.Retained {
					t.Errorf("%s %s", m.Topic, m.Payload)
				}
				for _, v := range regexp.MustCompile(`"v":(\d+)`).FindAllStringSubmatch(string(m.Payload), -1) {
					if !slices.Contains(values, v[1]) { // at least once
						values = append(values, v[1])
					}
				}
			case <-limit.C:
				t.Fatalf("%d values in vain, got %v", n, values)
			}
			limit.Stop()
		}
		for i, v := range values {
			if v != fmt.Sprint(i*10) {
				t.Fatalf("values %v", values)
			}
		}
	}
	send()
	want(1)
	bridge.Kill()
	send()
	send()
	bridge = startBridge(t, gridfog, broker, args...)
	want(3)
	consumers.Stop()
	bridge.Await("trying again")
	for range 10 {
		send()
	}
	consumers.Start()
	packs = subscribe()
	// What the bridge sent before this subscriber was there is gone for it: the
	// last ones come.
	send()
	last := fmt.Sprintf(`"v":%d}]`, (next-1)*10) // in a pack of its own or of several
	proctest.Until(t, "the last pack has come", func() bool {
		select {
		case m := <-packs:
			return strings.HasSuffix(string(m.Payload), last)
		default:
			return false
		}
	})
	// The first row comes twice when its PUBACK went with the bridge that was killed.
	summary := regexp.MustCompile(`, 0 packs not sent; received 1[34] rows in 1[34] batches: 0 missing, 0 duplicates`)
	if code := bridge.Stop(); code != 0 || !summary.MatchString(bridge.Output()) {
		t.Errorf("exit code %d, %s", code, bridge.Output())
	}
}
