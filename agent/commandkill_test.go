package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/audit"
	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// startNTP is a time server that says what this machine's clock says.
func startNTP(t *testing.T) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	stamp := func() []byte {
		now := time.Now()
		seconds := uint64(now.Unix() + 2208988800)
		return binary.BigEndian.AppendUint64(nil, seconds<<32|uint64(now.Nanosecond())<<32/1e9)
	}
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			answer := append([]byte{0x24, 1, 6, 0xEC, 0, 0, 0, 0, 0, 0, 0, 0x10}, "GPS\x00"...)
			answer = append(answer, stamp()...)
			answer = append(answer, b[40:48]...)
			answer = append(append(answer, stamp()...), stamp()...)
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	return conn.LocalAddr().String()
}

// orderable is a site whose gateway takes commands: it knows the time, and has a
// meter with a breaker.
type orderable struct {
	*site
	u       utility
	name    string
	breaker *dlmstest.Breaker
	relay   string

	fog *hearer
}

func newOrderable(t *testing.T, broker, ntp, name string) *orderable {
	t.Helper()
	o := &orderable{site: newSite(t), u: newUtility(t), name: name, breaker: dlmstest.NewBreaker(4, nil)}
	o.broker = broker
	_, address := serveMeterThat(t, dlmstest.Everything,
		dlmstest.Data(obis.Code{0, 0, 96, 1, 0, 255}, dlmstest.Fixed(axdr.OctetString("S1"))),
		dlmstest.Register(obis.Code{1, 0, 32, 7, 0, 255}, 0, 35, func() axdr.Value { return axdr.LongUnsigned(230) }),
		o.breaker.Object(obis.Code{0, 0, 96, 3, 10, 255}),
	)
	o.trusting(o.u, fmt.Sprintf("{id: m, serial: S1, url: \"dlms+wrapper://%s?client=16&server=1\", groups: [fast]}", address))
	text, err := os.ReadFile(o.file())
	if err != nil {
		t.Fatal(err)
	}
	o.relay = filepath.Join(o.dir, "relay")
	more := fmt.Sprintf("time: {servers: [%q], min_poll: 16s}\noutputs: {boiler: {path: %s}}\n", ntp, o.relay)
	text = append([]byte(strings.Replace(string(text), "site: here\n", "site: "+name+"\n", 1)), more...)
	if err := os.WriteFile(o.file(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.relay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o.fog = newHearer(t, broker, name)
	return o
}

func (o *orderable) command(r order.Role, id, payload string) []byte {
	return o.u.sign(r, fmt.Sprintf("gridgate: 1\nkind: command\ntarget: %s/gw1\nid: %s\nnot_after: %s\n---\n%s",
		o.name, id, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), payload))
}

func (o *orderable) start(binary, step string) *proctest.Process {
	return proctest.Start(o.t, []string{"GRIDGATE_FAIL_AT=" + step}, filepath.Join(binary, "gridgate"), "run", "-config", o.file())
}

// hearer hears what a gateway says of commands.
type hearer struct {
	t    *testing.T
	conn *mqtt.Conn
	site meter.ID

	mu   sync.Mutex
	said []command.Result
}

func newHearer(t *testing.T, broker, site string) *hearer {
	t.Helper()
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker, ClientID: "fog-" + site, KeepAlive: time.Minute, MaxInbound: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	f := &hearer{t: t, conn: conn, site: meter.ID(site)}
	err = conn.Subscribe(t.Context(), mqtt.ResultFilter(f.site, "gw1"), func(m mqtt.Message) {
		var r command.Result
		if topic, err := mqtt.ParseTopic(m.Topic); err != nil || topic.Part > 0 || json.Unmarshal(m.Payload, &r) != nil {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.said = append(f.said, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *hearer) publish(ctx context.Context, retained bool, data []byte) {
	f.t.Helper()
	token, err := f.conn.Publish(ctx, mqtt.OrderTopic(f.site, "gw1", "", "command"), retained, data)
	if err == nil {
		<-token.Done()
		err = token.Err()
	}
	if err != nil {
		f.t.Error(err)
	}
}

func (f *hearer) results(id string) (all []command.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.said {
		if r.ID == id {
			all = append(all, r)
		}
	}
	return all
}

// final repeats a command until it has a result.
func (f *hearer) final(id string, data []byte) command.Result {
	f.t.Helper()
	var last command.Result
	next := time.Time{}
	proctest.Until(f.t, id+" has a result", func() bool {
		for _, r := range f.results(id) {
			if last = r; r.State.Final() {
				return true
			}
		}
		if now := time.Now(); now.After(next) && data != nil {
			f.publish(f.t.Context(), false, data)
			next = now.Add(2 * time.Second)
		}
		return false
	})
	return last
}

// killStep is a step that the program is killed at, and what has to come of it.
type killStep struct {
	step  string
	state command.State
	calls int // of the breaker
}

func killSteps() []killStep {
	return []killStep{
		{"kept", command.Done, 1},
		{"begun", command.Failed, 0},
		{"marked", command.Unknown, 0},
		{"acted", command.Unknown, 1},
		{"marked-end", command.Done, 1},
		{"result", command.Done, 1},
		{"ended", command.Done, 1},
		{"noted", command.Done, 1},
		{"dropped", command.Done, 1},
		{"delivered", command.Done, 1},
	}
}

// TestKilledAtEveryStepOfACommand kills the program as it is built, by a mosquitto
// and a meter: it switches at most once, and there is always a result. What takes
// time is waiting for the time to be known, so all steps go at once.
func TestKilledAtEveryStepOfACommand(t *testing.T) {
	t.Parallel()
	killedAtEveryStepOfACommand(t, 1)
}

func killedAtEveryStepOfACommand(t *testing.T, rounds int) {
	t.Helper()
	binary := proctest.BuildWith(t, []string{"failpoints"}, "gridgate")
	broker, ntp := mqtttest.Mosquitto(t, mqtttest.Config{}), startNTP(t)
	for round := range rounds {
		var all sync.WaitGroup
		for _, c := range killSteps() {
			o := newOrderable(t, broker.Address, ntp, fmt.Sprintf("k%d-%s", round, c.step))
			all.Go(func() { o.killed(binary, c) })
		}
		all.Wait()
	}
}

// killed has the program killed at a step and started anew.
func (o *orderable) killed(binary string, c killStep) {
	data := o.command(order.Control, "c", "action: disconnect\nmeters: [m]\n")
	o.repeatUntilDead(data, o.start(binary, c.step))
	p := o.start(binary, "")
	res := o.fog.final("c", data)
	calls, _ := o.breaker.Calls()
	if res.State != c.state || calls != c.calls {
		o.t.Errorf("%s: %+v after %d calls; want %s after %d", c.step, res, calls, c.state, c.calls)
	}
	if c.state == command.Unknown && !strings.Contains(fmt.Sprint(res.Meters, res.Text), "now: ") {
		o.t.Errorf("%s: not read back: %+v", c.step, res)
	}
	o.healthy(p)
	if again, _ := o.breaker.Calls(); again != calls {
		o.t.Errorf("%s: %d calls after the result", c.step, again-calls)
	}
}

// repeatUntilDead publishes a command again and again, as the fog does, until the
// program has died of it.
func (o *orderable) repeatUntilDead(data []byte, p *proctest.Process) {
	next := time.Time{}
	proctest.Until(o.t, "the program dies", func() bool {
		if now := time.Now(); now.After(next) {
			o.fog.publish(o.t.Context(), false, data)
			next = now.Add(2 * time.Second)
		}
		return p.Ended()
	})
}

// healthy wants the process to end well, and nothing to be left or broken.
func (o *orderable) healthy(p *proctest.Process) {
	o.t.Helper()
	o.orders("the agent answers", func(status.Report) bool { return true })
	commands := filepath.Join(o.dir, "buffer", "commands")
	proctest.Until(o.t, "nothing is left of the command", func() bool {
		all, err := os.ReadDir(commands)
		return err == nil && !slices.ContainsFunc(all, func(f os.DirEntry) bool { return f.Name() != "_hour" })
	})
	if code := p.Stop(); code != 0 {
		o.t.Errorf("exit code %d", code)
	}
	log := filepath.Join(o.dir, "buffer", "audit")
	if _, err := audit.Verify(log, nil); err != nil {
		o.t.Error(err)
	}
	if aside, err := audit.SetAside(log); len(aside) > 0 || err != nil {
		o.t.Errorf("the log began anew: %q, %v", aside, err)
	}
}

// TestReplayedToTheProgram: captured and republished, retained, and across a
// restart, at the built program.
func TestReplayedToTheProgram(t *testing.T) {
	t.Parallel()
	binary := proctest.Build(t, "gridgate")
	broker, ntp := mqtttest.Mosquitto(t, mqtttest.Config{}), startNTP(t)
	o := newOrderable(t, broker.Address, ntp, "replay")
	data := o.command(order.Control, "c", "action: disconnect\nmeters: [m]\n")
	p := o.start(binary, "")
	if res := o.fog.final("c", data); res.State != command.Done {
		t.Fatalf("%+v", res)
	}
	for round := range 2 {
		n := len(o.fog.results("c"))
		o.fog.publish(t.Context(), false, data)
		o.fog.publish(t.Context(), true, data) // and it stays at the broker
		proctest.Until(t, "it is told that it is a replay", func() bool {
			all := o.fog.results("c")
			return len(all) > n && all[len(all)-1].Replayed && strings.Contains(all[len(all)-1].Text, "refused")
		})
		if round == 0 {
			p.Kill()
			p = o.start(binary, "")
		}
	}
	if calls, _ := o.breaker.Calls(); calls != 1 {
		t.Errorf("%d calls", calls)
	}
	o.healthy(p)
}

// TestAnOutputLetsGoThroughCuts: the relay goes back in time though the program
// is killed while it is on, and is not on for longer.
func TestAnOutputLetsGoThroughCuts(t *testing.T) {
	t.Parallel()
	binary := proctest.BuildWith(t, []string{"failpoints"}, "gridgate")
	broker, ntp := mqtttest.Mosquitto(t, mqtttest.Config{}), startNTP(t)
	var all sync.WaitGroup
	for _, step := range []string{"acted", "marked-end", ""} {
		o := newOrderable(t, broker.Address, ntp, "relay"+step)
		all.Go(func() { o.letsGo(binary, step) })
	}
	all.Wait()
}

func (o *orderable) relayIs() string {
	b, err := os.ReadFile(o.relay)
	if err != nil {
		o.t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

func (o *orderable) letsGo(binary, step string) {
	data := o.command(order.Control, "c", "action: output\nwith: {output: boiler, for: 15s, jitter: 0s}\n")
	p := o.start(binary, step)
	if step != "" {
		o.repeatUntilDead(data, p)
	} else {
		o.fog.final("c", data)
		p.Kill()
	}
	if is := o.relayIs(); is != "1" {
		o.t.Errorf("%s: the relay is %q", step, is)
	}
	p = o.start(binary, "")
	if res := o.fog.final("c", data); res.State != command.Done {
		o.t.Errorf("%s: %+v", step, res)
	}
	proctest.Until(o.t, "it lets go", func() bool { return o.relayIs() == "0" })
	o.healthy(p)
}
