package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/status"
	"gridgate/internal/proctest"
)

// ports is a gateway with two serial ports, of Modbus and of DLMS meters: socat
// makes them, as an adapter does, and takes them away when it ends. They are
// named by links, as adapters are in /dev/serial/by-id.
type ports struct {
	t                      *testing.T
	bin, dir, socket       string
	modbusPort, dlmsPort   string // the links
	modbusMeters, oneMeter int    // where the meters are, as ports of TCP
	agent                  *proctest.Process
}

func newPorts(t *testing.T) *ports {
	t.Helper()
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &ports{
		t: t, bin: proctest.Build(t, "gridgate", "metersim"), dir: dir, socket: filepath.Join(dir, "control.sock"),
		modbusPort: filepath.Join(dir, "usb-modbus"), dlmsPort: filepath.Join(dir, "usb-dlms"),
		modbusMeters: proctest.FreePorts(t, 1), oneMeter: proctest.FreePorts(t, 1),
	}
	sim := filepath.Join(p.bin, "metersim")
	m := proctest.Start(t, nil, sim, "modbus", "-listen", fmt.Sprintf("127.0.0.1:%d", p.modbusMeters), "-rtu", "-count", "3", "-model", "eastron-sdm120")
	d := proctest.Start(t, nil, sim, "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", p.oneMeter), "-transport", "hdlc")
	m.Await("unit 3")
	d.Await(fmt.Sprintf(":%d", p.oneMeter))
	return p
}

// plug brings an adapter with meters at a port of TCP.
func (p *ports) plug(link string, meters int) *proctest.Process {
	p.t.Helper()
	s := proctest.Start(p.t, nil, "socat", "pty,raw,echo=0,link="+link, fmt.Sprintf("tcp:127.0.0.1:%d", meters))
	proctest.Until(p.t, link+" is there", func() bool {
		_, err := os.Stat(link)
		return err == nil
	})
	return s
}

// unplug takes an adapter away.
func (p *ports) unplug(adapter *proctest.Process, link string) {
	p.t.Helper()
	adapter.Stop()
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatalf("%s is still there: %v", link, err)
	}
}

func (p *ports) modbusURL(unit int) string {
	return fmt.Sprintf("modbus+rtu://%s?unit=%d&model=eastron-sdm120", p.modbusPort, unit)
}

// run starts the gateway.
func (p *ports) run() {
	p.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `version: 1
site: zone3
gateway: gw1
buffer: {path: %s}
control: {socket: %s}
intake: {window: 200ms}
uplink: {broker: "tcp://127.0.0.1:%d"}
groups:
  now: {lane: instant, every: 1s, channels: [1-0:1.8.0]}
meters:
  - {id: dlms, serial: GRG000001, groups: [now], url: "dlms+hdlc://%s?client=16"}
`, filepath.Join(p.dir, "buffer"), p.socket, proctest.FreePorts(p.t, 1), p.dlmsPort)
	for unit := 1; unit <= 3; unit++ {
		fmt.Fprintf(&b, "  - {id: rtu-%d, groups: [now], url: %q}\n", unit, p.modbusURL(unit))
	}
	config := filepath.Join(p.dir, "gridgate.yaml")
	if err := os.WriteFile(config, []byte(b.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.agent = proctest.Start(p.t, nil, filepath.Join(p.bin, "gridgate"), "run", "-config", config)
	p.agent.Await("gridgate runs")
}

// meters asks the agent how its meters do, those whose name begins so.
func (p *ports) meters(prefix string) (all []status.Meter) {
	p.t.Helper()
	report, err := status.Ask(p.t.Context(), p.socket)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range report.Meters {
		if strings.HasPrefix(m.Meter, prefix) {
			all = append(all, m)
		}
	}
	return all
}

// readMore waits until all these meters are read again.
func (p *ports) readMore(prefix string) {
	p.t.Helper()
	before := map[string]uint64{}
	for _, m := range p.meters(prefix) {
		before[m.Meter] = m.Rows
	}
	proctest.Until(p.t, fmt.Sprintf("all meters %s* are read again", prefix), func() bool {
		for _, m := range p.meters(prefix) {
			if m.State != "ok" || m.Rows <= before[m.Meter] {
				return false
			}
		}
		return true
	})
}

// TestAdapterComesAndGoes takes adapters away from a running gateway, in turn
// and together, and brings them back under the same links.
func TestAdapterComesAndGoes(t *testing.T) {
	t.Parallel()
	p := newPorts(t)
	rtu, dlms := p.plug(p.modbusPort, p.modbusMeters), p.plug(p.dlmsPort, p.oneMeter)
	p.run()
	p.readMore("")
	missed := func(prefix, port string) {
		t.Helper()
		proctest.Until(t, port+" is missed", func() bool {
			for _, m := range p.meters(prefix) {
				if m.State == "failing" && strings.Contains(m.Error, "line "+port+": no such port: is the adapter plugged in?") {
					return true
				}
			}
			return false
		})
	}
	p.unplug(rtu, p.modbusPort)
	missed("rtu", p.modbusPort)
	p.readMore("dlms")
	rtu = p.plug(p.modbusPort, p.modbusMeters)
	p.readMore("")
	p.unplug(dlms, p.dlmsPort)
	missed("dlms", p.dlmsPort)
	p.readMore("rtu")
	p.unplug(rtu, p.modbusPort)
	missed("rtu", p.modbusPort)
	p.plug(p.dlmsPort, p.oneMeter)
	p.plug(p.modbusPort, p.modbusMeters)
	p.readMore("")
	if code := p.agent.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestToolsAndAgentOnOneLine has tools read a meter of a line that the agent
// polls: without its control socket they say who has the line, with it they
// borrow the line one after another, and the agent goes on.
func TestToolsAndAgentOnOneLine(t *testing.T) {
	t.Parallel()
	p := newPorts(t)
	p.plug(p.modbusPort, p.modbusMeters)
	p.plug(p.dlmsPort, p.oneMeter)
	p.run()
	p.readMore("")
	tool := func(args ...string) *proctest.Process {
		return proctest.Start(t, nil, filepath.Join(p.bin, "gridgate"), append([]string{"read", p.modbusURL(2), "1-0:1.8.0", "-json"}, args...)...)
	}
	refused := tool("-control", filepath.Join(p.dir, "none.sock"))
	if code, out := refused.Wait(), refused.Output(); code != 1 || !strings.Contains(out, fmt.Sprintf("in use by gridgate run (pid %d)", p.agent.PID())) {
		t.Errorf("a tool that does not ask the agent: exit code %d, %s", code, out)
	}
	tools := []*proctest.Process{tool("-control", p.socket), tool("-control", p.socket), tool("-control", p.socket)}
	for _, tool := range tools {
		if code, out := tool.Wait(), tool.Output(); code != 0 || !strings.Contains(out, `"channel":"1-0:1.8.0*255/3:2"`) || !strings.Contains(out, `"value":`) {
			t.Errorf("a tool that borrows the line: exit code %d, %s", code, out)
		}
	}
	p.readMore("")
	held := tool("-control", p.socket) // dies with the line
	held.Kill()
	p.readMore("")
	for _, m := range p.meters("") {
		if m.State != "ok" {
			t.Errorf("%+v", m)
		}
	}
	if code := p.agent.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
