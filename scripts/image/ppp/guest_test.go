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
	} else if ports, ok := operatorOf(); ok {
		fmt.Println("operator:", operator(ports))
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
	// replies counts pppd's answers to echo requests, but for those that were read in two.
	replies int
	log     bytes.Buffer // of pppd
	asked   []string
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

func (m *fakeModem) process() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pppd.Process.Pid
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
		answer := said(command)
		if strings.HasPrefix(command, "ATD") {
			_, _ = io.WriteString(master, "\r\nCONNECT 115200\r\n")
			m.connect(master)
			answer = "NO CARRIER"
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
	go wire("to the gateway", gateway, far, func(b []byte) {
		if bytes.Contains(b, []byte("\xc0\x21\x0a")) { // Echo-Reply: we want nothing escaped
			m.mu.Lock()
			defer m.mu.Unlock()
			m.replies++
		}
	})
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		_ = gateway.SetReadDeadline(time.Now())
		close(done)
	}()
	wire("to pppd", far, gateway, func([]byte) {})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	<-done
	_ = far.Close()
	_ = gateway.SetReadDeadline(time.Time{})
}

// wire copies until either end is gone.
func wire(what string, to, from *os.File, seen func([]byte)) {
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if err != nil {
			fmt.Println("wire", what, err)
			return
		}
		seen(b[:n])
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
