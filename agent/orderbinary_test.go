package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// listener is a fog that keeps what gateways report of orders.
type listener struct {
	t    *testing.T
	conn *mqtt.Conn

	mu  sync.Mutex
	all []ordersReport
}

func listen(t *testing.T, address string) *listener {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: address, ClientID: "fog"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	f := &listener{t: t, conn: conn}
	err = conn.Subscribe(t.Context(), mqtt.ConfigTopic("here", "gw1"), func(m mqtt.Message) {
		var r ordersReport
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			t.Errorf("%v in %s", err, m.Payload)
		}
		f.mu.Lock()
		f.all = append(f.all, r)
		f.mu.Unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *listener) publish(topic string, payload []byte) {
	f.t.Helper()
	token, err := f.conn.Publish(f.t.Context(), topic, true, payload)
	if err != nil {
		f.t.Fatal(err)
	}
	<-token.Done()
	if err := token.Err(); err != nil {
		f.t.Fatal(err)
	}
}

// hears waits until an outcome was reported that is as wanted.
func (f *listener) hears(what string, want func(outcomeReport) bool) {
	f.t.Helper()
	proctest.Until(f.t, what, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, r := range f.all {
			if r.Last != nil && r.Trial == nil && want(*r.Last) {
				return true
			}
		}
		return false
	})
}

// TestWrongOrdersOverMQTT: each is refused with its reason, over one connection,
// and the next one is heard; after a restart too, when the broker has the long
// one again.
func TestWrongOrdersOverMQTT(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	s.broker = broker.Address
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	fog := listen(t, broker.Address)
	own, group := mqtt.OrderTopic("here", "gw1", "", "config"), mqtt.OrderTopic("here", "", "north", "config")
	host, port, _ := strings.Cut(broker.Address, ":")
	long := exec.CommandContext(t.Context(), "mosquitto_pub", "-h", host, "-p", port, "-q", "1", "-r", "-t", group, "-s")
	long.Stdin = bytes.NewReader(bytes.Repeat([]byte("x"), 3<<20))
	if out, err := long.CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v\n%s", err, out)
	}

	refused := func(want string) func(outcomeReport) bool {
		return func(r outcomeReport) bool { return r.Outcome == "refused" && strings.Contains(r.Reason, want) }
	}
	up := func(r status.Report) bool { return r.Uplink.Connected && reads(r) }
	p := s.process("")
	s.orders("it reads and is connected", up)
	fog.hears("what is too long is refused", refused(order.ErrTooLarge.Error()))
	good := u.config("here/gw1", 1, "mains: {voltage: 120}")
	for _, c := range []struct {
		data []byte
		want string
	}{
		{bytes.Repeat([]byte("y"), order.MaxSize+100), "too large: 5"},
		{[]byte("hello"), "not signed"},
		{[]byte{0}, "not signed"},
		{good[:len(good)/2], "bad signature"},
		{bytes.Repeat([]byte("untrusted comment: "), 1000), "bad signature"},
		{append(bytes.Clone(good), '!'), "bad signature"},
		{u.config("here/gw1", 1, "mains: "+strings.Repeat("{a: ", 200)+strings.Repeat("}", 200)), "deep"},
	} {
		fog.publish(own, c.data)
		fog.hears(fmt.Sprintf("%.20q… is refused", c.data), refused(c.want))
	}
	fog.publish(own, nil)
	fog.publish(own, good)
	fog.hears("a good one is kept", func(r outcomeReport) bool { return r.Version == 1 && r.Outcome == "kept" })
	if r := s.orders("it is still connected", up); r.Uplink.Reconnects > 0 {
		t.Errorf("%d further connections", r.Uplink.Reconnects)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	p = s.process("")
	s.orders("it reads and is connected again", up)
	fog.publish(own, u.config("here/gw1", 2, "mains: {voltage: 110}"))
	fog.hears("the next one is kept", func(r outcomeReport) bool { return r.Version == 2 && r.Outcome == "kept" })
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// pushed gives a document to the agent process and waits for what comes of it.
func (s *site) pushed(version int, data []byte) (r status.Report, outcome string) {
	s.t.Helper()
	if err := status.Submit(s.t.Context(), filepath.Join(s.dir, "c"), data); err != nil {
		s.t.Fatal(err)
	}
	name := fmt.Sprintf("here/gw1 version %d: ", version)
	r = s.orders(name+"has an outcome", func(r status.Report) bool { return r.Orders.Trial == "" && strings.HasPrefix(r.Orders.Last, name) })
	return r, strings.TrimPrefix(r.Orders.Last, name)
}

// TestWhatAPushMayBreak: each is taken back by itself, with its reason, and what
// was before runs on; a good one is kept, also while the broker is away.
func TestWhatAPushMayBreak(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	s.broker = broker.Address
	one, two := startZeroMeter(t), startZeroMeter(t)
	s.trusting(u, modbusMeter("one", one.address, "fast"), modbusMeter("two", two.address, "fast"))
	s.proving("10s")
	p := s.process("")
	well := func(r status.Report) bool { return r.Uplink.Connected && len(r.Meters) == 2 && reads(r) }
	s.orders("it reads and is connected", well)
	dead := func(id string) string { // nobody listens there
		return fmt.Sprintf("\n  - {id: %s, url: \"modbus+tcp://127.0.0.1:1?unit=%d&model=eastron-sdm630\"}", id, id[0])
	}
	for i, c := range []struct{ name, layer, want string }{
		{"breaks every meter", "meters:" + dead("one") + dead("two"), "reverted: not proven within 10s: 0 of 2 meters read, 2 of 2 did before"},
		{"breaks one line", "meters:" + dead("two"), "reverted: not proven within 10s: 1 of 2 meters read, 2 of 2 did before"},
		{"stops the uplink", "uplink: {broker: \"tcp://127.0.0.1:1\"}", "reverted: not proven within 10s: the fog was reached before and is not now"},
		{"a good one", "mains: {voltage: 120}", "kept"},
	} {
		if _, got := s.pushed(i+1, u.config("here/gw1", i+1, c.layer)); got != c.want {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
		s.orders(c.name+": what was before runs", well)
	}
	broker.Stop()
	s.orders("the outage is noticed", func(r status.Report) bool { return !r.Uplink.Connected })
	r, got := s.pushed(5, u.config("here/gw1", 5, "mains: {voltage: 110}"))
	if got != "kept" || r.Uplink.Connected {
		t.Errorf("in an outage: %s; connected %v", got, r.Uplink.Connected)
	}
	broker.Start()
	listen(t, broker.Address).hears("what was kept is told after the outage", func(r outcomeReport) bool { return r.Version == 5 && r.Outcome == "kept" })
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestAPushThatFillsMemory is taken back when it needs more than three quarters
// of what there is, long before its deadline.
func TestAPushThatFillsMemory(t *testing.T) {
	t.Parallel()
	s, u := newSite(t), newUtility(t)
	m := startZeroMeter(t)
	s.trusting(u, modbusMeter("m", m.address, "fast"))
	s.proving("2h")
	p := s.process("", "GOMEMLIMIT=16MiB")
	s.orders("it reads", reads)
	var many strings.Builder
	many.WriteString("groups:")
	const groups = 20
	for g := range groups {
		fmt.Fprintf(&many, "\n  g%d: {lane: instant, every: 1m, channels: [1-%d:1.7.0", g, g)
		for c := range 59 {
			fmt.Fprintf(&many, ", 1-%d:%d.7.0", g, c+2)
		}
		many.WriteString("]}")
	}
	many.WriteString("\nmeters:")
	for i := range 990 { // a line each; nobody answers there
		fmt.Fprintf(&many, "\n  - {id: m%d, groups: [g0", i)
		for g := range groups - 1 {
			fmt.Fprintf(&many, ", g%d", g+1)
		}
		fmt.Fprintf(&many, "], url: \"dlms+wrapper://127.0.0.1:%d?client=16\"}", i+1)
	}
	_, got := s.pushed(1, u.config("here/gw1", 1, many.String()))
	if !strings.HasPrefix(got, "reverted: memory: ") || !strings.HasSuffix(got, " octets, 12582912 are the most") {
		t.Errorf("%s", got)
	}
	s.orders("what was before runs", func(r status.Report) bool { return len(r.Meters) == 1 && reads(r) })
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
