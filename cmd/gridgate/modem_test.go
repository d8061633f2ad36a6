package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gridgate/agent/status"
	"gridgate/internal/proctest"
)

// simModem is a simulated modem that a test has in its hands.
type simModem struct {
	*proctest.Process
	script *os.File
}

// do has the modem do something, and waits until it is done.
func (m *simModem) do(t *testing.T, command string) {
	t.Helper()
	if _, err := fmt.Fprintf(m.script, "0s %s\n", command); err != nil {
		t.Fatal(err)
	}
	m.Await("modem: " + command)
}

// modemPlace is a place with a modem, minded every second.
func modemPlace(t *testing.T, bin, more string, args ...string) (*place, *simModem) {
	t.Helper()
	p := newPlace(t, bin)
	fifo := p.path("script")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = script.Close() })
	link := p.path("modem")
	m := p.sim("modem imei", append([]string{"modem", "-link", link, "-script", fifo, "-reset", p.path("line")}, args...)...)
	p.more = "modem: {port: " + link + ", every: 1s, reset_line: " + p.path("line") + ", " + more + "}"
	return p, &simModem{m, script}
}

// modemUntil waits until the agent says of the modem what is wanted.
func (p *place) modemUntil(what string, is func(m *status.Modem) bool) {
	p.t.Helper()
	var last *status.Modem
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("the modem last was %+v", last)
		}
	})
	proctest.Until(p.t, what, func() bool {
		r, err := status.Ask(p.t.Context(), p.path("c"))
		if err != nil || r.Modem == nil {
			return false
		}
		last = r.Modem
		return is(r.Modem)
	})
}

func inState(state, text string) func(*status.Modem) bool {
	return func(m *status.Modem) bool { return m.State == state && strings.Contains(m.Error, text) }
}

// TestModemsDay is what happens to a modem: the built agent says so, and goes on.
func TestModemsDay(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	p, m := modemPlace(t, bin, "reset_after: 0s", "-faults", "split,unsolicited", "-every", "3")
	p.run("it is in a network", modemIs("ok"))
	p.modemUntil("all is known of it", allKnown)
	m.do(t, "registration searching")
	p.modemUntil("the network is lost", inState("not registered", "antenna"))
	m.do(t, "registration denied")
	p.modemUntil("it is refused", inState("denied", "activated"))
	m.do(t, "registration roaming")
	p.modemUntil("it roams", func(m *status.Modem) bool { return m.State == "ok" && m.Registration == "roaming" })
	m.do(t, "signal -109")
	p.modemUntil("the signal falls", func(m *status.Modem) bool { return m.Signal != nil && *m.Signal == -109 })
	m.do(t, "sim out")
	p.modemUntil("the SIM is missed", inState("no SIM", "put it in"))
	m.do(t, "sim puk")
	p.modemUntil("the PUK is wanted", inState("PUK wanted", "letter"))
	m.do(t, "sim in")
	p.modemUntil("the SIM is back", inState("ok", ""))
	m.do(t, "garbage")
	p.modemUntil("it talks nonsense", inState("garbled", "port for AT commands"))
	m.do(t, "clean")
	p.modemUntil("it talks again", inState("ok", ""))
	m.do(t, "hang")
	p.modemUntil("it is silent", inState("silent", "switched on"))
	m.do(t, "wake")
	p.modemUntil("it answers again", inState("ok", ""))
	if out := m.Output(); strings.Contains(out, "reset by") {
		t.Errorf("it was reset: %s", out)
	}
	if code := p.agent.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// allKnown says whether the simulated modem has told what it is.
func allKnown(m *status.Modem) bool {
	return m.IMEI == "490154203237518" && m.ICCID == "8949000000000000018" && m.Operator == "Zone 3 Mobile" &&
		m.Registration == "registered" && m.Signal != nil && *m.Signal <= -80 && *m.Signal >= -82
}

// Each maker has commands of its own.
func TestModemsOfMakers(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	for _, maker := range []string{"sim800", "ublox", "plain"} {
		p, _ := modemPlace(t, bin, "reset_after: 0s", "-maker", maker)
		p.run("it is in a network", modemIs("ok"))
		p.modemUntil("all is known of it", allKnown)
	}
}

// A modem that hangs behind a fog that stays away is reset by its line, and works
// again.
func TestModemIsReset(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	p, m := modemPlace(t, bin, "reset_after: 1s", "-boot", "1s")
	p.run("it is in a network", modemIs("ok"))
	p.modemUntil("it was reset by a command", func(m *status.Modem) bool { return m.Resets > 0 && m.LastBy == "AT" })
	m.Await("reset by AT")
	m.do(t, "hang")
	p.modemUntil("it was reset by its line", func(m *status.Modem) bool { return m.LastBy == "line" })
	m.Await("reset by the line")
	p.modemUntil("it is in a network again", inState("ok", ""))
}

// The last attempt at a PIN is never used, whatever the file says, over restarts of the
// agent and power cuts of it.
func TestTheLastAttemptAtThePIN(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate", "metersim")
	for _, maker := range []string{"sim800", "quectel", "ublox", "plain"} {
		t.Run(maker, func(t *testing.T) {
			t.Parallel()
			p, m := modemPlace(t, bin, "", "-maker", maker, "-pin", "1234")
			pin := p.file("pin", "9999", 0o600)
			p.more = strings.Replace(p.more, "every: 1s", "every: 1s, pin: file:"+pin, 1)
			p.run("the PIN is refused", modemIs("PIN wanted"))
			m.Await("PIN refused, 2 left")
			for range 3 {
				p.modemUntil("it is not tried again", inState("PIN wanted", "it is not tried again"))
				p.agent.Kill()
				p.run("the PIN is wanted", modemIs("PIN wanted"))
			}
			p.file("pin", "8888", 0o600) // a person's second thought
			m.Await("PIN refused, 1 left")
			p.file("pin", "7777", 0o600)
			last := "one attempt is left, which is never used"
			if maker == "plain" { // which does not tell
				last = "one more might be the last"
			}
			p.modemUntil("the last is not used", inState("PIN wanted", last))
			if out := m.Output(); strings.Contains(out, "0 left") {
				t.Errorf("the SIM is blocked: %s", out)
			}
			m.do(t, "attempts 3") // the right one was entered in a phone
			p.file("pin", "1234", 0o600)
			if maker == "plain" { // somebody has to say that it was
				p.file("gridgate.yaml", strings.Replace(config(t, p), "every: 1s", "every: 1s, pin_try: 2", 1), 0o600)
				p.agent.Signal(syscall.SIGHUP)
			}
			m.Await("PIN taken")
			p.modemUntil("it is in a network", inState("ok", ""))
			m.do(t, "restart")
			proctest.Until(t, "the PIN is taken again", func() bool { return strings.Count(m.Output(), "PIN taken") == 2 })
		})
	}
}

// The script and the flags of a simulated modem are checked.
func TestModemSimRefuses(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "metersim")
	for _, args := range []string{"-maker nokia", "-sim lost", "-registration maybe", "-signal 5", "-pin 12", "-attempts 4", "-faults fire", "-every 0", "-boot 2h", "extra"} {
		s := proctest.Start(t, nil, filepath.Join(bin, "metersim"), append([]string{"modem"}, strings.Fields(args)...)...)
		if code := s.Wait(); code != 2 {
			t.Errorf("%s: exit code %d, %s", args, code, s.Output())
		}
	}
}
