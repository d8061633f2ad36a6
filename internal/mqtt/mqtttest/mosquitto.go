// Package mqtttest runs Debian's mosquitto for tests: a real peer, started and
// stopped by the test. A test that needs it fails when it is not installed.
package mqtttest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

// Config says how the broker is to run. The zero value lets everybody in.
type Config struct {
	User, Password string   // when set, the only ones that are let in
	Persistent     bool     // keep sessions and retained messages over a restart
	Lines          []string // further lines of mosquitto.conf
	TLS            bool     // with CertFile and KeyFile
	CertFile       string
	KeyFile        string
}

// Broker is a mosquitto on a port of the loopback device, the same one over
// all restarts.
type Broker struct {
	Address string

	t       testing.TB
	conf    string
	process *exec.Cmd
	log     logBuffer
}

// Mosquitto starts a broker. It is killed when the test ends.
func Mosquitto(t testing.TB, c Config) *Broker {
	t.Helper()
	dir := t.TempDir()
	b := &Broker{t: t, Address: fmt.Sprintf("127.0.0.1:%d", proctest.FreePorts(t, 1)), conf: filepath.Join(dir, "mosquitto.conf")}
	host, port, _ := net.SplitHostPort(b.Address)
	lines := []string{"listener " + port + " " + host, "set_tcp_nodelay true", "user root", "allow_anonymous " + fmt.Sprint(c.User == "")}
	if c.TLS {
		lines = append(lines, "certfile "+c.CertFile, "keyfile "+c.KeyFile)
	}
	if c.User != "" {
		file := filepath.Join(dir, "passwords")
		if out, err := exec.CommandContext(t.Context(), "mosquitto_passwd", "-b", "-c", file, c.User, c.Password).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s (apt-get install mosquitto)", err, out)
		}
		lines = append(lines, "password_file "+file)
	}
	if c.Persistent {
		lines = append(lines, "persistence true", "persistence_location "+dir+"/", "autosave_interval 1", "autosave_on_changes true")
	}
	lines = append(lines, c.Lines...)
	if err := os.WriteFile(b.conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.end(os.Kill)
		if t.Failed() {
			t.Logf("mosquitto said:\n%s", b.log.String())
		}
	})
	b.Start()
	return b
}

// Start starts the broker and waits until it listens.
func (b *Broker) Start() {
	b.t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // not on every user's path
	}
	b.process = exec.Command(path, "-c", b.conf) //nolint:noctx // Stop and the cleanup end it
	b.process.Stdout, b.process.Stderr = &b.log, &b.log
	b.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.process.Start(); err != nil {
		b.process = nil
		b.t.Fatalf("mosquitto: %v (apt-get install mosquitto)", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if c, err := net.Dial("tcp", b.Address); err == nil {
			_ = c.Close()
			return
		}
		<-tick.C
	}
	b.t.Fatalf("mosquitto does not listen on %s:\n%s", b.Address, b.log.String())
}

// Stop ends the broker in order, as a service manager does.
func (b *Broker) Stop() { b.end(syscall.SIGTERM) }

// Kill ends the broker as a power cut does.
func (b *Broker) Kill() { b.end(os.Kill) }

// Log gives what the broker has said.
func (b *Broker) Log() string { return b.log.String() }

func (b *Broker) end(s os.Signal) {
	if b.process == nil {
		return
	}
	_ = b.process.Process.Signal(s)
	_ = b.process.Wait()
	b.process = nil
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
