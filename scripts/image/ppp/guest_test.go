//go:build guest

package ppp

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// These tests are the first process of an emulated machine that has the kernel's PPP
// and Debian's pppd: see ../ppp_test.go. pppd runs in a network namespace of its own, at
// the other end of a modem in memory, which is two pseudo-terminals.

const (
	peerEnv = "PPP_PEER" // set for the process that is the peer's machine
	local   = "10.9.0.2"
	remote  = "10.9.0.1"
	echoing = remote + ":7007"
)

func TestMain(m *testing.M) {
	if os.Getenv(peerEnv) != "" {
		os.Exit(peer())
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "these tests are the first process of an emulated machine")
		os.Exit(1)
	}
	code := 1
	if err := machine(); err != nil {
		fmt.Println(err)
	} else {
		code = m.Run()
	}
	fmt.Printf("guest: exit %d\n", code)
	time.Sleep(200 * time.Millisecond) // for the console
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func machine() error {
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"devpts", "/dev/pts", "devpts"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		options := ""
		if m[2] == "devpts" {
			options = "ptmxmode=0666"
		}
		if err := unix.Mount(m[0], m[1], m[2], 0, options); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	list, err := os.ReadFile("/lib/modules/first")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		f, err := os.Open(filepath.Join("/lib/modules", name+".ko"))
		if err != nil {
			return err
		}
		if err := errors.Join(unix.FinitModule(int(f.Fd()), "", 0), f.Close()); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

// peer is the other machine: pppd, and what repeats all that comes by TCP.
func peer() int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	l, err := net.Listen("tcp", ":7007")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	cmd := exec.Command("/sbin/pppd", os.Args[1:]...)
	cmd.Env = []string{"PATH=/sbin", "LD_LIBRARY_PATH=/lib"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		<-stop
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}()
	if err := cmd.Wait(); err != nil {
		fmt.Println("pppd:", err)
	}
	return 0
}

// pty gives both ends of a pseudo-terminal: the master, and the path of the slave.
func pty(t *testing.T) (*os.File, string) {
	t.Helper()
	fd, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	m.Iflag, m.Oflag, m.Lflag, m.Cflag = 0, 0, 0, unix.CS8|unix.CREAD|unix.B115200
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, m); err != nil {
		t.Fatal(err)
	}
	path := "/dev/pts/" + strconv.Itoa(n)
	// Held open, or the master gives errors while nobody else has it.
	held, err := os.OpenFile(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = held.Close() })
	return os.NewFile(uintptr(fd), path), path
}

// fakeModem answers commands, and on ATD is a wire to a pppd that it starts.
type fakeModem struct {
	t       *testing.T
	options []string // of pppd
	master  *os.File

	mu    sync.Mutex
	pppd  *exec.Cmd
	dials int
	log   bytes.Buffer // of pppd
	asked []string
}

const modemPath = "/dev/modem"

func newFakeModem(t *testing.T, options ...string) *fakeModem {
	t.Helper()
	m := &fakeModem{t: t, options: options}
	m.plug()
	t.Cleanup(func() {
		m.unplug()
		if t.Failed() {
			t.Logf("the modem was asked %q\npppd:\n%s", m.asked, m.said())
		}
	})
	return m
}

// plug puts the modem to the gateway.
func (m *fakeModem) plug() {
	master, path := pty(m.t)
	_ = os.Remove(modemPath)
	if err := os.Symlink(path, modemPath); err != nil {
		m.t.Fatal(err)
	}
	m.master = master
	go m.serve(master)
}

func (m *fakeModem) unplug() {
	_ = os.Remove(modemPath)
	_ = m.master.Close()
	m.signal(syscall.SIGKILL)
}

func (m *fakeModem) signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pppd != nil {
		_ = m.pppd.Process.Signal(s)
	}
}

func (m *fakeModem) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.String()
}

func (m *fakeModem) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Printf("pppd: %s", b)
	return m.log.Write(b)
}

func (m *fakeModem) serve(master *os.File) {
	var line []byte
	b := make([]byte, 1)
	for {
		if _, err := master.Read(b); err != nil {
			return
		}
		if b[0] != '\r' {
			line = append(line, b[0])
			continue
		}
		command := string(line)
		line = line[:0]
		m.mu.Lock()
		fmt.Printf("modem: %q\n", command)
		m.asked = append(m.asked, clean(command))
		m.mu.Unlock()
		answer := "OK"
		switch {
		case strings.HasPrefix(command, "ATD"):
			_, _ = io.WriteString(master, "\r\nCONNECT 115200\r\n")
			m.connect(master)
			answer = "NO CARRIER"
		case command == "AT+CPIN?":
			answer = "+CPIN: READY\r\n\r\nOK"
		case command == "AT+CEREG?":
			answer = "+CEREG: 0,1\r\n\r\nOK"
		case strings.HasPrefix(command, "AT+") && !strings.HasPrefix(command, "AT+CGDCONT=") && command != "AT+CMEE=1":
			answer = "ERROR"
		}
		_, _ = io.WriteString(master, "\r\n"+answer+"\r\n")
	}
}

func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return -1
		}
		return c
	}, s)
}

// connect is a wire between the gateway and pppd, until that ends.
func (m *fakeModem) connect(gateway *os.File) {
	far, path := pty(m.t)
	cmd := exec.Command(os.Args[0], append([]string{path, "115200", "nodetach", "debug", "local", "noipdefault", "nodefaultroute"}, m.options...)...)
	cmd.Env = []string{peerEnv + "=1"}
	cmd.Stdout, cmd.Stderr = m, m
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		m.t.Error(err)
		return
	}
	m.mu.Lock()
	m.pppd = cmd
	m.dials++
	m.mu.Unlock()
	go wire("to the gateway", gateway, far)
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		_ = gateway.SetReadDeadline(time.Now())
		close(done)
	}()
	wire("to pppd", far, gateway)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	<-done
	_ = far.Close()
	_ = gateway.SetReadDeadline(time.Time{})
}

// wire copies until either end is gone.
func wire(what string, to, from *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if err != nil {
			fmt.Println("wire", what, err)
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			fmt.Println("wire", what, err)
			return
		}
	}
}

// gateway is a Keeper at work, as init has it.
type gateway struct {
	t    *testing.T
	mu   sync.Mutex
	ups  []Network
	down int
	text []string
	name string
}

func newGateway(t *testing.T, conf string) *gateway {
	t.Helper()
	c, err := ParseConf("ppp.conf", []byte("device="+modemPath+"\n"+conf))
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t}
	k := Keeper{
		Conf: c, Tried: "/tried",
		Say: func(text string) {
			g.mu.Lock()
			defer g.mu.Unlock()
			fmt.Println("gateway:", text)
			g.text = append(g.text, text)
		},
		Up: func(name string, n Network) error {
			err := Configure(name, n)
			g.mu.Lock()
			defer g.mu.Unlock()
			g.ups, g.name = append(g.ups, n), name
			return err
		},
		Down: func(name string) {
			_ = Unconfigure(name)
			g.mu.Lock()
			defer g.mu.Unlock()
			g.down++
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the gateway said %q", g.said())
		}
	})
	return g
}

func (g *gateway) said() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.text)
}

// until waits for something that takes an emulated machine its time.
func (g *gateway) until(what string, seen func() bool) {
	g.t.Helper()
	end := time.Now().Add(3 * time.Minute)
	for !seen() {
		if time.Now().After(end) {
			g.t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (g *gateway) awaitUp(nth int) Network {
	g.t.Helper()
	g.until(fmt.Sprintf("a connection, the %dth", nth), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.ups) >= nth
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ups[nth-1]
}

// repeated sends octets by TCP over the link, and wants them back.
func (g *gateway) repeated(n int) {
	g.t.Helper()
	var c net.Conn
	g.until("a TCP connection over the link", func() (ok bool) {
		var err error
		c, err = net.DialTimeout("tcp", echoing, 5*time.Second)
		return err == nil
	})
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
	sent := make([]byte, n)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		g.t.Fatalf("%d octets of %d came back, or others (%v)", len(got), n, err)
	}
}

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
