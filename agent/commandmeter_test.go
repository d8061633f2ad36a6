package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/buffer/state"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// TestCommandsAtMeters has the program as it is built carry out commands at
// simulated meters, by a mosquitto: what is signed comes as results.
func TestCommandsAtMeters(t *testing.T) {
	t.Parallel()
	binary := proctest.Build(t, "gridgate", "metersim")
	broker, ntp := mqtttest.Mosquitto(t, mqtttest.Config{}), startNTP(t)
	o := &orderable{site: newSite(t), u: newUtility(t), name: "meters"}
	o.broker = broker.Address
	port := proctest.FreePorts(t, 5)
	sim := func(args ...string) {
		proctest.Start(t, nil, filepath.Join(binary, "metersim"), args...).Await("127.0.0.1:")
	}
	at := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", port+n) }
	sim("dlms", "-listen", at(0))
	sim("dlms", "-listen", at(1), "-serial-prefix", "CUT", "-faults", "cut", "-every", "1")
	sim("dlms", "-listen", at(2), "-serial-prefix", "TRP", "-breaker", "tripped", "-breaker-mode", "2")
	sim("dlms", "-listen", at(3), "-serial-prefix", "XCH", "-faults", "serial")
	sim("modbus", "-listen", at(4))
	url := func(n int) string {
		return fmt.Sprintf(`url: "dlms+wrapper://%s?client=17&timeout=2s", groups: [slow]`, at(n))
	}
	o.trusting(o.u,
		"{id: good, serial: GRG000001, "+url(0)+"}", "{id: cut, serial: CUT000001, "+url(1)+"}", "{id: tripped, serial: TRP000001, "+url(2)+"}",
		"{id: other, serial: XCH000001, "+url(3)+"}", fmt.Sprintf(`{id: bus, url: "modbus+tcp://%s?unit=1&model=eastron-sdm630", groups: [slow]}`, at(4)))
	text, err := os.ReadFile(o.file())
	if err != nil {
		t.Fatal(err)
	}
	text = append([]byte(strings.Replace(string(text), "site: here\n", "site: "+o.name+"\n", 1)), fmt.Sprintf("time: {servers: [%q], min_poll: 16s}\n", ntp)...)
	if err := os.WriteFile(o.file(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	o.fog = newHearer(t, broker.Address, o.name)
	o.start(binary, "")
	for n, c := range []struct {
		role    order.Role
		payload string
		state   command.State
		text    string
	}{
		{order.Control, "action: disconnect\nmeters: [good]\n", command.Done, "output off"},
		{order.Control, "action: connect\nmeters: [good]\n", command.Refused, "direct: allow"},
		{order.Control, "action: connect\nmeters: [good]\nwith: {direct: allow}\n", command.Done, "output on"},
		{order.Command, "action: disconnect\nmeters: [good]\n", command.Refused, "role"},
		{order.Control, "action: disconnect\nmeters: [cut]\n", command.Unknown, "now: output off"},
		{order.Control, "action: connect\nmeters: [tripped]\nwith: {direct: allow}\n", command.Refused, "tripped"},
		{order.Control, "action: disconnect\nmeters: [other]\n", command.Refused, "not proven"},
		{order.Control, "action: disconnect\nmeters: [bus]\n", command.Refused, "Modbus"},
		{order.Control, "action: limit\nmeters: [good]\nwith: {threshold: 2.3 kW, duration: 1h}\n", command.Done, "threshold 2300 W"},
		{order.Control, "action: limit\nmeters: [good]\nwith: {end: true}\n", command.Done, "threshold 10000 W"},
		{order.Control, "action: limit\nmeters: [good]\nwith: {threshold: 16 A, duration: 1h}\n", command.Refused, `"A"`},
		{order.Command, "action: demand-reset\nmeters: [good]\n", command.Done, "billing rows"},
		{order.Command, "action: special-days\nmeters: [good]\nwith: {days: [{index: 9, date: 12-24, day: 2}]}\n", command.Done, "special days 3"},
		{order.Control, "action: change-keys\nmeters: [good]\nwith: {sealed: x}\n", command.Refused, "age"},
	} {
		id := fmt.Sprintf("c%d", n)
		r := o.fog.final(id, o.command(c.role, id, c.payload))
		said := r.Text
		for _, m := range r.Meters {
			said += " " + m.Text
		}
		if r.State != c.state || !strings.Contains(said, c.text) {
			t.Errorf("%q: %s %q, want %s with %q", c.payload, r.State, said, c.state, c.text)
		}
	}
}

// keysInMemory is a store of secrets that seals nothing.
type keysInMemory struct {
	mu sync.Mutex
	is map[string]string
}

func (k *keysInMemory) Get(name string) (meter.Secret, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v, ok := k.is[name]; ok {
		return meter.Secret(v), nil
	}
	return nil, nil
}

func (k *keysInMemory) Set(name string, s meter.Secret) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.is[name] = string(s)
	return nil
}

func (k *keysInMemory) Remove(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.is, name)
	return nil
}

func (k *keysInMemory) Open(sealed []byte) (meter.Secret, error) {
	text, ok := strings.CutPrefix(string(sealed), "sealed\n")
	if !ok {
		return nil, errors.New("not sealed to this gateway")
	}
	return meter.Secret(text), nil
}

const (
	firstEK = "000102030405060708090a0b0c0d0e0f"
	firstAK = "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
	nextEK  = "404142434445464748494a4b4c4d4e4f"
	masterK = "909192939495969798999a9b9c9d9e9f"
)

func hexKey(t *testing.T, text string) security.Key {
	t.Helper()
	var b []byte
	if _, err := fmt.Sscanf(text, "%x", &b); err != nil {
		t.Fatal(err)
	}
	k, err := security.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestKeysChange has a signed command give a meter a new key, by the driver, with
// answers lost at each turn: what the store has is what the meter has, and a
// driver that is opened anew reads it.
func TestKeysChange(t *testing.T) {
	t.Parallel()
	for lost := range 9 { // 0 loses none
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			t.Parallel()
			k := newKeyed(t, lost)
			engine, results := k.engine(t)
			data := k.u.sign(order.Control, fmt.Sprintf("gridgate: 1\nkind: command\ntarget: here/gw1\nid: c\nnot_after: %s\n---\n"+
				"action: change-keys\nmeters: [m]\nwith:\n  sealed: |\n    sealed\n    serial,ek\n    S1,%s\n", time.Now().Add(time.Hour).UTC().Format(time.RFC3339), nextEK))
			if _, err := engine.Take(command.Incoming{Data: data, Via: "test"}); err != nil {
				t.Fatal(err)
			}
			r := <-results
			k.spoil(0)
			secrets := fmt.Sprint(r)
			if strings.Contains(secrets, nextEK) || strings.Contains(secrets, firstEK) {
				t.Errorf("it tells a key: %s", secrets)
			}
			if got, err := k.open(t).Visit(t.Context(), meter.Ask{}); err != nil || !got.Identity.Proven {
				t.Errorf("%s %v: with what is in the store it is not read: %v", r.State, r.Meters, err)
			}
			if lost == 0 && (r.State != command.Done || k.keys.is["m-ek"] != nextEK) {
				t.Errorf("%s %v; the store has %v", r.State, r.Meters, k.keys.is)
			}
			if _, staged := k.keys.is["m-ek-next"]; staged {
				t.Errorf("%s %v: both keys are still kept", r.State, r.Meters)
			}
		})
	}
}

// keyed is a meter with keys, and a gateway's store.
type keyed struct {
	u       utility
	keys    *keysInMemory
	address string
	state   *state.State
	dir     string

	mu   sync.Mutex
	lost int // the answer that is lost, counted down; 0 is none
}

func (k *keyed) spoil(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost = n
}

func newKeyed(t *testing.T, lost int) *keyed {
	t.Helper()
	k := &keyed{u: newUtility(t), dir: t.TempDir(), keys: &keysInMemory{is: map[string]string{"m-ek": firstEK, "m-ak": firstAK, "meter-s1-kek": masterK}}}
	keys := security.Keys{Encryption: hexKey(t, firstEK), Authentication: hexKey(t, firstAK)}
	var conns sync.Map
	m := dlmstest.NewMeter(dlmstest.Options{
		Clients: map[uint16]dlmstest.Login{16: {}, 1: {Mechanism: 5, Policy: security.AuthenticatedEncrypted}},
		Objects: []dlmstest.Object{dlmstest.Data(obis.Code{0, 0, 96, 1, 0, 255}, dlmstest.Fixed(axdr.OctetString("S1")))},
		Security: dlmstest.Security{
			Title: security.Title([]byte("ABCDEFGH")), Keys: keys, Master: hexKey(t, masterK),
		},
		Tamper: func(_, frame []byte) []byte {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.lost--; k.lost == 0 {
				conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
				return nil
			}
			return frame
		},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Store(c, true)
			all.Go(func() {
				_ = m.Serve(c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		all.Wait()
	})
	k.address = "dlms+wrapper://" + ln.Addr().String() + "?client=1&auth=gmac&security=authenc&title=GRIDGATE&timeout=1m&ek=%s&ak=%s"
	if k.state, err = state.Open(k.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.state.Close() })
	k.spoil(lost)
	return k
}

func (k *keyed) names() command.KeyNames {
	names := command.UsualKeyNames("S1")
	names[meter.UnicastKey], names[meter.AuthenticationKey] = "m-ek", "m-ak"
	return names
}

// open gives a driver as an agent opens one: with the keys that are in the store.
func (k *keyed) open(t *testing.T) meter.Visitor {
	t.Helper()
	a, err := address.Parse(fmt.Sprintf(k.address, k.keys.is["m-ek"], k.keys.is["m-ak"]))
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := a.Resolve(address.Sources{Getenv: os.Getenv, ReadFile: os.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	boot := time.Now()
	cfg := drivers.Config{
		ID: "m", Serial: "S1", Address: a, Secrets: secrets, Counters: k.state,
		Now: func() meter.Stamp {
			return meter.Stamp{Time: time.Now().UnixMilli(), Mono: int64(time.Since(boot) / time.Millisecond), Boot: 1, Bound: 1}
		},
	}
	if cfg.NextKeys, err = command.StagedKeys(k.keys, k.names()); err != nil {
		t.Fatal(err)
	}
	cfg.KeysFound = func(next bool) {
		if err := command.SettleKeys(k.keys, k.names(), next); err != nil {
			t.Error(err)
		}
	}
	l := drivers.OpenLine(a, line.Options{})
	v, err := drivers.Open(cfg, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.Close()
		_ = l.Close()
	})
	return v
}

// engine carries out commands at the meter.
func (k *keyed) engine(t *testing.T) (*command.Engine, <-chan command.Result) {
	t.Helper()
	trust, _, err := order.FirstTrust(k.u.trust(1))
	if err != nil {
		t.Fatal(err)
	}
	results, v := make(chan command.Result, 1), k.open(t)
	var arrivals sync.WaitGroup
	engine, err := command.New(command.Config{
		Dir: filepath.Join(k.dir, "commands"), Memory: commandMemory{k.state}, Log: slog.New(slog.DiscardHandler),
		Gateway: &command.Gateway{Meters: command.MeterServices{Keys: k.keys, KeyNames: func(meter.ID) (command.KeyNames, error) { return k.names(), nil }}},
		Meters:  func() []command.Meter { return []command.Meter{{ID: "m", Serial: "S1"}} },
		Judge: func(data []byte) (command.Judged, error) {
			d, err := trust.Verify(data)
			if err != nil {
				return command.Judged{}, err
			}
			j, err := d.Judge(order.Here{Site: "here", Gateway: "gw1", Now: time.Now(), Trusted: true})
			return command.Judged{Document: d, Trust: trust, Verdict: j}, err
		},
		Trusted: func() bool { return true },
		Note:    func(string, string, string) error { return nil },
		Report:  func(*order.Document, [32]byte, command.Result) {},
		Visit:   func(ctx context.Context, _ meter.ID, ask meter.Ask) (meter.Got, error) { return v.Visit(ctx, ask) },
		Send: func(_ string, _ int, payload []byte, arrived func()) {
			if r, ok := finalResult(payload); ok {
				select {
				case results <- r:
				default: // it was told before
				}
			}
			arrivals.Go(arrived)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		arrivals.Wait()
	})
	return engine, results
}

// finalResult reads a result that nothing comes behind.
func finalResult(payload []byte) (r command.Result, ok bool) {
	err := json.Unmarshal(payload, &r)
	return r, err == nil && r.State.Final()
}

// TestTunnel has gridfog open a tunnel by a signed command, and a tool read a
// meter through it: all as it is built, by a mosquitto.
func TestTunnel(t *testing.T) {
	t.Parallel()
	binary := proctest.Build(t, "gridgate", "gridfog", "metersim")
	broker, ntp := mqtttest.Mosquitto(t, mqtttest.Config{}), startNTP(t)
	s := newSite(t)
	s.broker = broker.Address
	port := proctest.FreePorts(t, 2)
	at, tool := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
	proctest.Start(t, nil, filepath.Join(binary, "metersim"), "dlms", "-listen", at).Await("127.0.0.1:")
	in := func(name string) string { return filepath.Join(s.dir, name) }
	fog := func(args ...string) string {
		t.Helper()
		p := proctest.Start(t, nil, filepath.Join(binary, "gridfog"), args...)
		if code := p.Wait(); code != 0 {
			t.Fatalf("gridfog %s: exit %d: %s", args[0], code, p.Output())
		}
		return p.Output()
	}
	for _, name := range []string{"root", "config", "command", "control", "firmware"} {
		fog("keygen", "-no-password", in(name))
	}
	trust := fog("trust", "-version", "1", "-threshold", "1", "-root", in("root.pub"), "-config", in("config.pub"), "-command", in("command.pub"), "-control", in("control.pub"), "-firmware", in("firmware.pub"))
	if err := os.WriteFile(in("trust.yaml"), []byte(trust), 0o600); err != nil {
		t.Fatal(err)
	}
	fog("sign", "-key", in("root.key"), "-out", in("signed"), in("trust.yaml"))
	s.config("tunnel", fmt.Sprintf(`{id: m, serial: GRG000001, url: "dlms+wrapper://%s?client=17", groups: [slow]}`, at))
	text, err := os.ReadFile(s.file())
	if err != nil {
		t.Fatal(err)
	}
	text = fmt.Appendf(text, "trust: {file: %s}\ntime: {servers: [%q], min_poll: 16s}\n", in("signed"), ntp)
	if err := os.WriteFile(s.file(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	proctest.Start(t, nil, filepath.Join(binary, "gridgate"), "run", "-config", s.file()).Await("meter reads")
	p := proctest.Start(t, nil, filepath.Join(binary, "gridfog"), "tunnel", "-broker", "mqtt://"+broker.Address, "-sign", in("control.key"),
		"-to", "tunnel/gw1", "-meter", "m", "-for", "10m", "-wait", "2m", "-listen", tool)
	p.Await("the tool connects to")
	reader := proctest.Start(t, nil, filepath.Join(binary, "gridgate"), "read", "dlms+wrapper://"+tool+"?client=17&timeout=1m", "0-0:96.1.0")
	if code := reader.Wait(); code != 0 || !strings.Contains(reader.Output(), "GRG000001") {
		t.Errorf("through the tunnel: exit %d: %s", code, reader.Output())
	}
	if code := p.Wait(); code != 0 || !strings.Contains(p.Output(), "octets to the meter") {
		t.Errorf("gridfog tunnel: exit %d: %s", code, p.Output())
	}
}
