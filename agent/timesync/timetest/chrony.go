package timetest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

// Chrony is a chronyd that serves its time on the loopback and touches no
// clock.
type Chrony struct {
	Address string // of NTP
	*proctest.Process
}

// Synchronised makes a chronyd serve the time of the machine as good.
const Synchronised = "local stratum 3"

// StartChrony starts a chronyd with lines in its configuration. fake is what
// FAKETIME of faketime(1) is, such as "+5s"; empty for the machine's own time. The test's
// end ends it.
func StartChrony(t testing.TB, fake string, lines ...string) *Chrony {
	t.Helper()
	dir := t.TempDir()
	port := proctest.FreePorts(t, 1)
	lines = append(lines,
		fmt.Sprintf("port %d", port), "bindaddress 127.0.0.1", "allow 127.0.0.0/8", "cmdport 0", "bindcmdaddress /",
		"pidfile "+filepath.Join(dir, "pid"))
	file := filepath.Join(dir, "chrony.conf")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"chronyd", "-U", "-x", "-d", "-f", file}
	if os.Getuid() == 0 {
		args = append(args, "-u", "root")
	}
	var env []string
	if fake != "" { // not by faketime itself: that is a process between, and what it starts outlives it
		env = []string{"LD_PRELOAD=" + faketime(t), "FAKETIME=" + fake}
	}
	c := &Chrony{Address: fmt.Sprintf("127.0.0.1:%d", port), Process: proctest.Start(t, env, args[0], args[1:]...)}
	proctest.Until(t, "chronyd answers", func() bool { return answers(c.Address) })
	return c
}

// faketime gives the library of faketime(1).
func faketime(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil || len(found) == 0 {
		t.Fatalf("libfaketime is not there (%v); scripts/setup.sh installs what the tests need", err)
	}
	return found[0]
}

// answers asks once, by a request as short as there is.
func answers(address string) bool {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	request := [48]byte{4<<3 | 3}
	request[40] = 1
	if _, err := conn.Write(request[:]); err != nil {
		return false
	}
	var reply [512]byte
	n, err := conn.Read(reply[:])
	return err == nil && n >= 48
}
