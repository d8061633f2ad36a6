//go:build guest

package ppp

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func secrets(t *testing.T, password string) {
	t.Helper()
	text := []byte("meter * \"" + password + "\" *\n")
	for _, name := range []string{"pap-secrets", "chap-secrets"} {
		if err := os.WriteFile("/etc/ppp/"+name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var addresses = remote + ":" + local

// TestGuestPlain: no authentication; a megabyte there and back; pppd's own echo
// requests answered; and a new connection after pppd has ended.
func TestGuestPlain(t *testing.T) {
	m := newFakeModem(t, addresses, "noauth", "ms-dns", "10.9.0.53", "ms-dns", "10.9.0.54", "lcp-echo-interval", "1", "lcp-echo-failure", "60", "mru", "1400")
	g := newGateway(t, "apn=internet.example\n")
	n := g.awaitUp(1)
	if n.Local.String() != local || n.Peer.String() != remote || len(n.DNS) != 2 || n.DNS[0].String() != "10.9.0.53" || n.DNS[1].String() != "10.9.0.54" || n.MTU != 1400 {
		t.Errorf("the network is %+v", n)
	}
	wantRoute(t, g.name)
	g.repeated(1 << 20)
	for _, text := range []string{"rcvd [LCP EchoRep", "Protocol-Reject for 'IPv6 Control Protocol'"} { // it logs the first of each
		g.until("pppd to say "+text, func() bool { return strings.Contains(m.said(), text) })
	}
	m.signal(syscall.SIGTERM)
	g.until("the gateway sees that pppd has ended", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.down == 1
	})
	g.awaitUp(2)
	g.repeated(64 << 10)
	if !slices.ContainsFunc(g.said(), func(s string) bool { return strings.Contains(s, errEnded.Error()) }) {
		t.Errorf("the gateway said %q", g.said())
	}
	if !slices.Contains(m.asked, `AT+CGDCONT=1,"IP","internet.example"`) || !slices.Contains(m.asked, "ATD*99***1#") {
		t.Errorf("the modem was asked %q", m.asked)
	}
}

// wantRoute looks for the default route of an interface, behind a wired one's.
func wantRoute(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := netlink.RouteList(l, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(routes, func(r netlink.Route) bool {
		return r.Priority == Metric && (r.Dst == nil || r.Dst.String() == "0.0.0.0/0")
	}) {
		t.Errorf("routes %v", routes)
	}
	if l.Attrs().MTU != 1400 {
		t.Errorf("MTU %d", l.Attrs().MTU)
	}
}

// TestGuestAuthenticated: each way with the right password.
func TestGuestAuthenticated(t *testing.T) {
	for _, way := range []string{"pap", "chap"} {
		t.Run(way, func(t *testing.T) {
			secrets(t, "long secret")
			m := newFakeModem(t, addresses, "auth", "require-"+way, "name", "isp")
			g := newGateway(t, "user=meter\npassword=long secret\n")
			if n := g.awaitUp(1); n.Local.String() != local || len(n.DNS) != 0 {
				t.Errorf("the network is %+v", n)
			}
			g.repeated(64 << 10)
			if text := map[string]string{"pap": "sent [PAP AuthAck", "chap": "sent [CHAP Success"}[way]; !strings.Contains(m.said(), text) {
				t.Errorf("pppd does not say %q", text)
			}
		})
	}
}

// TestGuestWrongPassword: refused, and said; no network.
func TestGuestWrongPassword(t *testing.T) {
	for _, way := range []string{"pap", "chap"} {
		t.Run(way, func(t *testing.T) {
			secrets(t, "another")
			newFakeModem(t, addresses, "auth", "require-"+way, "name", "isp")
			g := newGateway(t, "user=meter\npassword=wrong\n")
			g.until("the refusal is said", func() bool {
				return slices.ContainsFunc(g.said(), func(s string) bool {
					return strings.Contains(s, "the peer refuses user and password ("+strings.ToUpper(way)+")")
				})
			})
			g.mu.Lock()
			defer g.mu.Unlock()
			if len(g.ups) > 0 {
				t.Error("there is a network")
			}
		})
	}
}

// TestLongDead: a pppd that answers nothing any more, though the line stands.
func TestLongDead(t *testing.T) {
	m := newFakeModem(t, addresses, "noauth")
	g := newGateway(t, "")
	g.awaitUp(1)
	g.until("an answer to an echo request", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.replies > 0
	})
	pid := pppdOf(t, m.process())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	g.until("the gateway sees that pppd is dead", func() bool {
		return slices.ContainsFunc(g.said(), func(s string) bool { return strings.Contains(s, "has not answered 4 echo requests") })
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	g.awaitUp(2)
	g.repeated(64 << 10)
}

// TestLongAgain: many connections, one after the other, with a megabyte over each.
func TestLongAgain(t *testing.T) {
	m := newFakeModem(t, addresses, "noauth")
	for range 5 {
		t.Run("", func(t *testing.T) {
			g := newGateway(t, "")
			g.awaitUp(1)
			g.repeated(1 << 20)
		})
	}
	if m.dials != 5 {
		t.Errorf("dialled %d times", m.dials)
	}
}

// pppdOf gives the pppd that a process started.
func pppdOf(t *testing.T, parent int) int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, _ := os.ReadFile(e)
		if f := strings.Fields(string(b)); len(f) > 3 && f[1] == "(pppd)" && f[3] == strconv.Itoa(parent) {
			n, err := strconv.Atoi(f[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("there is no pppd")
	return 0
}

// TestGuestUnplugged: a modem that vanishes and comes back.
func TestGuestUnplugged(t *testing.T) {
	m := newFakeModem(t, addresses, "noauth")
	g := newGateway(t, "")
	g.awaitUp(1)
	m.unplug()
	g.until("the gateway says that there is no modem", func() bool {
		return slices.ContainsFunc(g.said(), func(s string) bool { return strings.Contains(s, "no modem: /dev/modem is not there") })
	})
	m.plug()
	g.awaitUp(2)
	g.repeated(64 << 10)
}
