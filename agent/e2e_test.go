package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/agent/status"
	"gridgate/buffer"
	"gridgate/internal/linktest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// rig is a zone in miniature: 20 simulated meters, a gateway, a link that can
// fail, mosquitto, and a fog that writes down what arrives.
type rig struct {
	t       *testing.T
	dir     string
	bin     string
	mosq    *mqtttest.Broker
	link    *linktest.Link
	fog     *fog
	config  string
	socket  string
	control bool // run the agent that removes rows too early
	confirm string
	agent   *proctest.Process
}

const meterPassword = "12345678"

func newRig(t *testing.T, bin string, control bool) *rig {
	t.Helper()
	return newRigConfirmedBy(t, bin, control, "broker")
}

func newRigConfirmedBy(t *testing.T, bin string, control bool, confirm string) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := &rig{t: t, dir: dir, bin: bin, control: control, confirm: confirm, link: linktest.New(linktest.Config{})}
	dlms, modbus := proctest.FreePorts(t, 10), proctest.FreePorts(t, 5)
	sim := filepath.Join(bin, "metersim")
	pty := filepath.Join(r.dir, "rs485")
	d := proctest.Start(t, nil, sim, "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", dlms), "-count", "10", "-password", meterPassword)
	m := proctest.Start(t, nil, sim, "modbus", "-listen", fmt.Sprintf("127.0.0.1:%d", modbus), "-count", "5", "-model", "eastron-sdm630")
	s := proctest.Start(t, nil, sim, "modbus", "-pty", "-link", pty, "-count", "5", "-model", "eastron-sdm120")
	d.Await(fmt.Sprintf(":%d", dlms+9))
	m.Await(fmt.Sprintf(":%d", modbus+4))
	s.Await(pty)

	r.mosq = mqtttest.Mosquitto(t, mqtttest.Config{Persistent: true, Lines: []string{"max_queued_messages 0"}})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	proxied := make(chan error, 1)
	go func() { proxied <- r.link.Proxy(ctx, front, r.mosq.Address) }()
	t.Cleanup(func() {
		cancel()
		if err := <-proxied; err != nil {
			t.Error(err)
		}
	})
	r.fog = startFog(t, r.mosq.Address)
	r.writeConfig(front.Addr().String(), dlms, modbus, pty)
	return r
}

func (r *rig) writeConfig(broker string, dlms, modbus int, pty string) {
	r.config, r.socket = filepath.Join(r.dir, "gridgate.yaml"), filepath.Join(r.dir, "control.sock")
	var b strings.Builder
	fmt.Fprintf(&b, `version: 1
site: zone3
gateway: gw1
buffer: {path: %s}
control: {socket: %s}
intake: {window: 200ms}
uplink: {broker: "tcp://%s", start_jitter: 0s, confirm: %s}
groups:
  now: {lane: instant, every: 1s, channels: [1-0:1.8.0, 1-0:32.7.0]}
  load: {lane: interval, every: 5s, profile: 1-0:99.1.0, back: 1d}
meters:
`, filepath.Join(r.dir, "buffer"), r.socket, broker, r.confirm)
	for i := range 10 {
		access := "client=16"
		if i >= 5 {
			access = "client=17&auth=lls&password=env:METER_PASSWORD"
		}
		fmt.Fprintf(&b, "  - {id: dlms-%d, serial: GRG%06d, groups: [now, load], url: \"dlms+wrapper://127.0.0.1:%d?%s\"}\n", i, i+1, dlms+i, access)
	}
	for i := range 5 {
		fmt.Fprintf(&b, "  - {id: tcp-%d, groups: [now], url: \"modbus+tcp://127.0.0.1:%d?unit=1&model=eastron-sdm630\"}\n", i, modbus+i)
		fmt.Fprintf(&b, "  - {id: rtu-%d, groups: [now], url: \"modbus+rtu://%s?unit=%d&model=eastron-sdm120\"}\n", i, pty, i+1)
	}
	if err := os.WriteFile(r.config, []byte(b.String()), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) startAgent() {
	r.t.Helper()
	env := []string{"METER_PASSWORD=" + meterPassword}
	if r.control {
		self, err := os.Executable()
		if err != nil {
			r.t.Fatal(err)
		}
		r.agent = proctest.Start(r.t, append(env, earlyAckConfig+"="+r.config), self)
	} else {
		r.agent = proctest.Start(r.t, env, filepath.Join(r.bin, "gridgate"), "run", "-config", r.config)
	}
	r.agent.Await("gridgate runs")
}

// stored asks the running agent how many rows its lanes hold numbers for.
func (r *rig) stored() (last, acked uint64) {
	r.t.Helper()
	report, err := status.Ask(r.t.Context(), r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range report.Lanes {
		last += l.Last
		acked += l.Acked
	}
	return last, acked
}

// storeMore waits until the agent has committed n more rows.
func (r *rig) storeMore(n uint64) {
	r.t.Helper()
	before, _ := r.stored()
	proctest.Until(r.t, fmt.Sprintf("%d more rows are stored", n), func() bool {
		last, _ := r.stored()
		return last >= before+n
	})
}

// deliverMore waits until the fog has n more rows.
func (r *rig) deliverMore(n int) {
	r.t.Helper()
	before := r.fog.count()
	proctest.Until(r.t, fmt.Sprintf("%d more rows are delivered", n), func() bool { return r.fog.count() >= before+n })
}

// committed reads the agent's store after its end.
func (r *rig) committed() map[place]string {
	r.t.Helper()
	rows := make(map[place]string)
	err := buffer.Dump(filepath.Join(r.dir, "buffer"), nil, func(sequence uint64, row meter.Row) error {
		rows[place{row.Lane, sequence}] = string(row.AppendJSON(nil))
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return rows
}

// outageAndKill lets the agent send into a link where nothing passes, and then
// kills it: what it took for sent is nowhere but in its store.
func (r *rig) outageAndKill() {
	r.t.Helper()
	r.link.Set(linktest.BlackHole)
	r.storeMore(100)
	r.agent.Kill()
	r.link.Set(linktest.Cut) // what was on its way is gone
	r.link.Set(linktest.Up)
}

// outage has the link cut, or stalled and going on, for a while.
func (r *rig) outage(n int) {
	r.t.Helper()
	kind := linktest.Cut
	if n%2 == 1 {
		kind = linktest.BlackHole
	}
	r.link.Set(kind)
	r.storeMore(50)
	r.link.Set(linktest.Up)
}

// settle stops the agent in order and compares what it committed with what the
// fog has. It gives the rows that the fog has not.
func (r *rig) settle() (missing []place) {
	r.t.Helper()
	proctest.Until(r.t, "the agent has delivered its backlog", func() bool {
		last, acked := r.stored()
		return acked+40 >= last
	})
	if code := r.agent.Stop(); code != 0 {
		r.t.Errorf("the agent's exit code is %d", code)
	}
	if !strings.Contains(r.agent.Output(), "gridgate stopped") {
		r.t.Error("the agent did not stop in order")
	}
	committed := r.committed()
	if len(committed) == 0 {
		r.t.Fatal("nothing was committed")
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil && r.fog.count() < len(committed) { // what is on its way from the broker
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	for at, row := range committed {
		got, ok := r.fog.row(at)
		switch {
		case !ok:
			missing = append(missing, at)
		case got != row:
			r.t.Errorf("%s %d: committed %s, delivered %s", at.lane, at.sequence, row, got)
		}
	}
	r.t.Logf("committed %d rows, delivered %d, missing %d, duplicates %d", len(committed), r.fog.count(), len(missing), r.fog.duplicates())
	return missing
}

// troubles goes through two kills, two outages and a broker restart a round, and
// nothing may be lost.
func (r *rig) troubles(rounds int) {
	r.t.Helper()
	r.startAgent()
	for round := range rounds {
		r.deliverMore(100)
		r.outageAndKill()
		r.startAgent()
		r.deliverMore(50)
		r.outage(round)
		r.deliverMore(50)
		r.agent.Kill() // at any moment
		r.startAgent()
		r.deliverMore(50)
		r.mosq.Stop()
		if round == 2 {
			select {
			case <-time.After(10 * time.Second):
			case <-r.t.Context().Done():
			}
		}
		r.storeMore(50)
		r.mosq.Start()
	}
	r.deliverMore(100)
	if missing := r.settle(); len(missing) > 0 {
		r.t.Errorf("%d committed rows were not delivered, the first %v", len(missing), missing[0])
	}
	r.fog.check(r.t)
}

func TestNoCommittedRowIsLost(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim", "gridfog")
	t.Run("ten kills, ten outages, five broker restarts", func(t *testing.T) {
		t.Parallel()
		newRig(t, bin, false).troubles(5)
	})
	t.Run("deltas: four kills, four outages, two broker restarts", func(t *testing.T) {
		t.Parallel()
		r := newRigConfirmedBy(t, bin, false, "fog, delta: true")
		proctest.Start(t, nil, filepath.Join(bin, "gridfog"), "watch", "-broker", "tcp://"+r.mosq.Address, "-quiet", "-confirm", "-session", "watch").Await("connected")
		r.troubles(2)
		r.fog.mu.Lock()
		defer r.fog.mu.Unlock()
		t.Logf("%d deltas", r.fog.deltas)
		if r.fog.deltas == 0 {
			t.Error("no deltas")
		}
	})

	t.Run("control: removal before PUBACK loses rows", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, bin, true)
		r.startAgent()
		r.deliverMore(100)
		r.outageAndKill()
		r.startAgent()
		r.deliverMore(100)
		if missing := r.settle(); len(missing) == 0 {
			t.Error("an agent that removes rows before their PUBACK lost none: the test above proves nothing")
		}
	})
}

// place is where a row stands in the gateway's sequences.
type place struct {
	lane     meter.Lane
	sequence uint64
}

// fog writes down every row that arrives, and judges order and duplicates.
type fog struct {
	mu         sync.Mutex
	rows       map[place]string
	last       map[meter.Lane]uint64 // highest first delivery
	epochs     map[uint64]bool
	catalogues map[batch.Hash]*batch.Catalogue
	decoders   batch.Decoders
	deltas     int // batches that do not stand alone
	doubles    int
	wrong      []string
}

// startFog subscribes with a persistent session and reconnects until the test
// ends.
func startFog(t *testing.T, broker string) *fog {
	t.Helper()
	f := &fog{
		rows: make(map[place]string), last: make(map[meter.Lane]uint64),
		epochs: make(map[uint64]bool), catalogues: make(map[batch.Hash]*batch.Catalogue),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		up := ready
		for ctx.Err() == nil {
			conn, err := mqtt.Dial(ctx, mqtt.Options{
				Address: broker, ClientID: "fog", Persistent: true, Handler: f.take,
			})
			if err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
				continue
			}
			err = conn.Subscribe(ctx, mqtt.UpFilter("", ""), f.take)
			if err == nil && up != nil {
				close(up)
				up = nil
			}
			select {
			case <-conn.Done():
			case <-ctx.Done():
				conn.Close()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		t.Fatal("the fog cannot subscribe")
	}
	return f
}

func (f *fog) take(m mqtt.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil {
		f.wrong = append(f.wrong, err.Error())
		return
	}
	switch topic.Kind {
	case mqtt.Catalogue:
		c, err := batch.ParseCatalogue(m.Payload)
		if err != nil {
			f.wrong = append(f.wrong, err.Error())
			return
		}
		f.catalogues[topic.Hash] = c
	case mqtt.Readings:
		find := func(h batch.Hash) *batch.Catalogue { return f.catalogues[h] }
		var base *batch.UnknownBaseError
		if _, _, err := batch.Parse(m.Payload, find); errors.As(err, &base) {
			f.deltas++
		}
		header, span, err := f.decoders.Parse(m.Payload, find)
		if errors.As(err, &base) {
			if _, have := f.rows[place{topic.Lane, span.Last}]; have {
				return // it came twice, and later ones were read
			}
		}
		if err != nil {
			f.wrong = append(f.wrong, err.Error())
			return
		}
		f.epochs[header.Epoch] = true
		f.store(topic.Lane, span)
	default:
	}
}

func (f *fog) store(lane meter.Lane, span meter.Span) {
	i := 0
	for _, run := range span.Runs {
		for n := range run.Count {
			at := place{lane, run.First + n}
			row := string(span.Rows[i].AppendJSON(nil))
			i++
			if before, ok := f.rows[at]; ok {
				f.doubles++
				if before != row {
					f.wrong = append(f.wrong, fmt.Sprintf("%s %d came twice: %s and %s", lane, at.sequence, before, row))
				}
				continue
			}
			if at.sequence <= f.last[lane] {
				f.wrong = append(f.wrong, fmt.Sprintf("%s %d came first after %d", lane, at.sequence, f.last[lane]))
			}
			f.last[lane] = at.sequence
			f.rows[at] = row
		}
	}
}

func (f *fog) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.rows)
}

func (f *fog) duplicates() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.doubles
}

func (f *fog) row(at place) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	row, ok := f.rows[at]
	return row, ok
}

// check reports rows out of order, duplicates that differ, and batches that
// could not be read.
func (f *fog) check(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, w := range f.wrong {
		if i == 5 {
			t.Errorf("… and %d more", len(f.wrong)-i)
			break
		}
		t.Error(w)
	}
	if len(f.epochs) != 1 {
		t.Errorf("%d epochs of one store", len(f.epochs))
	}
}
