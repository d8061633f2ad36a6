package page_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

const (
	lines  = 5
	meters = 1000
)

// gateway is a gridgate with a thousand simulated meters on five lines, of which
// two each are read every two seconds.
type gateway struct {
	bin, dir             string
	base                 string
	technician, consumer string
	sims                 []*proctest.Process
	agent                *proctest.Process
}

func begin(t *testing.T) *gateway {
	t.Helper()
	g := &gateway{bin: proctest.Build(t, "gridgate", "metersim"), dir: t.TempDir()}
	first := proctest.FreePorts(t, lines+2)
	for i := range lines {
		sim := proctest.Start(t, nil, filepath.Join(g.bin, "metersim"), "modbus", "-rtu",
			"-listen", fmt.Sprintf("127.0.0.1:%d", first+i), "-count", fmt.Sprint(meters/lines), "-serial", fmt.Sprint(1000+i*meters/lines))
		sim.Await(fmt.Sprintf("unit %d ", meters/lines))
		g.sims = append(g.sims, sim)
	}
	g.base = fmt.Sprintf("http://127.0.0.1:%d/", first+lines)
	var c strings.Builder
	fmt.Fprintf(&c, "version: 1\nsite: zone3\ngateway: gw-test\ntime_zone: %s\nbuffer: {path: %q}\ncontrol: {socket: %q}\nintake: {window: 2s}\n",
		noon(), filepath.Join(g.dir, "buffer"), filepath.Join(g.dir, "control.sock"))
	fmt.Fprintf(&c, "uplink: {broker: \"tcp://127.0.0.1:%d\", start_jitter: 0s}\npage:\n  listen: 127.0.0.1:%d\n  tokens:\n", first+lines+1, first+lines)
	g.technician = g.token(t, &c, "technician", "")
	g.consumer = g.token(t, &c, "consumer", "m-0001")
	c.WriteString("groups:\n  slow: {lane: instant, every: 15m, channels: [1-0:1.8.0, 1-0:16.7.0]}\n" +
		"  fast: {lane: instant, every: 2s, channels: [1-0:1.8.0, 1-0:16.7.0, 1-0:32.7.0]}\nmeters:\n")
	for i := range meters {
		group := "slow"
		if i%(meters/lines) < 2 {
			group = "fast"
		}
		fmt.Fprintf(&c, "  - {id: m-%04d, serial: \"%d\", groups: [%s], url: \"modbus+rtuovertcp://127.0.0.1:%d?unit=%d&model=eastron-sdm630\"}\n",
			i+1, 1000+i, group, first+i/(meters/lines), i%(meters/lines)+1)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "gridgate.yaml"), []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start(t)
	return g
}

// noon is a time zone in which it is about noon, so that no day ends in a test.
func noon() string {
	east := 12 - time.Now().UTC().Hour()
	if east == 0 {
		return "Etc/UTC"
	}
	return fmt.Sprintf("Etc/GMT%+d", -east)
}

// token makes a token as a technician would, and puts what belongs there into
// the configuration.
func (g *gateway) token(t *testing.T, c *strings.Builder, role, meter string) string {
	t.Helper()
	args := []string{"token", "new", "-role", role}
	if meter != "" {
		args = append(args, "-meter", meter)
	}
	p := proctest.Start(t, nil, filepath.Join(g.bin, "gridgate"), args...)
	if code := p.Wait(); code != 0 {
		t.Fatalf("gridgate token: exit %d: %s", code, p.Output())
	}
	token := regexp.MustCompile(`(?m)^token: (\S+)$`).FindStringSubmatch(p.Output())
	_, entry, ok := strings.Cut(p.Output(), "  tokens:\n")
	if token == nil || !ok {
		t.Fatalf("gridgate token printed %q", p.Output())
	}
	c.WriteString(entry)
	return token[1]
}

func (g *gateway) start(t *testing.T) {
	t.Helper()
	g.agent = proctest.Start(t, nil, filepath.Join(g.bin, "gridgate"), "run", "-config", filepath.Join(g.dir, "gridgate.yaml"))
	g.agent.Await("gridgate runs")
}

// look is what lets Chromium look at the page.
func (g *gateway) look(what string) []string {
	return []string{"testdata/js/check.mjs", g.base, g.technician, g.consumer, "m-0001", fmt.Sprint(meters), what}
}

// TestPage looks at the page of a gateway with a thousand meters in Chromium:
// each part of check.mjs is a test.
func TestPage(t *testing.T) {
	t.Parallel()
	g := begin(t)
	for _, what := range []string{"load", "values", "find", "sort", "keys", "axe", "narrow", "arabic", "consumer", "gate"} {
		t.Run(what, func(t *testing.T) { //nolint:paralleltest // one browser at a time
			out, _ := exec.CommandContext(t.Context(), "node", g.look(what)...).CombinedOutput() // that it passed is in the output
			verdict(t, string(out), what)
		})
	}
}

// TestPageBroken takes meters away, then the gateway, and gives the gateway back.
func TestPageBroken(t *testing.T) {
	t.Parallel()
	g := begin(t)
	p := proctest.Start(t, nil, "node", g.look("broken")...)
	p.Await("say: take meters")
	g.sims[0].Kill()
	p.Await("say: take the gateway")
	g.agent.Kill()
	p.Await("say: give the gateway")
	g.start(t)
	p.Wait()
	verdict(t, p.Output(), "broken")
}

func verdict(t *testing.T, out, what string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "time: ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if !strings.Contains(out, "pass: "+what+"\n") {
		t.Errorf("what Chromium found:\n%s", out)
	}
}
