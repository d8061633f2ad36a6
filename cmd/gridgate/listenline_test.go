package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
	"gridgate/internal/cli"
	"gridgate/internal/proctest"
)

// aidon is a frame of a customer port: list 1, 512 W.
const aidon = "7EA02A410883130413E6E7000F40000000000101020309060100010700FF060000020002020F00161BC12C7E"

const aidonLine = `"channel":"1-0:1.7.0*255/3:2"`

// listenOn listens on a line until the test ends.
func listenOn(t *testing.T, url string, args ...string) *listening {
	t.Helper()
	l := &listening{}
	ctx, cancel := context.WithCancel(t.Context())
	exit := make(chan int, 1)
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: &l.out, Stderr: &l.errOut, Getenv: os.Getenv}
	args = append([]string{"listen", url, "-json", "-control", filepath.Join(t.TempDir(), "none")}, args...)
	go func() { exit <- program().Run(ctx, env, args) }()
	done := false
	l.stop = func() int {
		cancel()
		if done {
			return 0
		}
		done = true
		return <-exit
	}
	t.Cleanup(func() { l.stop() })
	proctest.Until(t, "it listens", func() bool { return strings.Contains(l.errOut.String(), "listening on line") })
	return l
}

func frameOf(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestListenOnASerialServer hears frames of a customer port behind one.
func TestListenOnASerialServer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l := listenOn(t, "dlms+hdlc://"+ln.Addr().String())
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(frameOf(t, aidon)); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "the push is printed", func() bool { return strings.Contains(l.out.String(), `"meter":"hdlc-`) })
	if got := l.out.String(); !strings.Contains(got, aidonLine) || !strings.Contains(got, `"value":512,"unit":"W"`) {
		t.Errorf("printed %s", got)
	}
	if code := l.stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, l.errOut.String())
	}
}

// TestListenOnASerialPort hears the same on a terminal, with the speed and
// parity of such ports.
func TestListenOnASerialPort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	proctest.Start(t, nil, "/usr/bin/socat", "pty,raw,echo=0,link="+ours, "pty,raw,echo=0,link="+theirs)
	proctest.Until(t, "the terminals are there", func() bool {
		_, err := os.Stat(ours)
		_, err2 := os.Stat(theirs)
		return err == nil && err2 == nil
	})
	l := listenOn(t, "serial://"+ours+"?baud=2400&format=8N1")
	f, err := os.OpenFile(theirs, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append([]byte("noise"), frameOf(t, aidon)...)); err != nil {
		t.Fatal(err)
	}
	proctest.Until(t, "the push is printed", func() bool { return strings.Contains(l.out.String(), aidonLine) })
	proctest.Until(t, "the noise is told", func() bool { return strings.Contains(l.errOut.String(), "octets lost that are no frame") })
	if code := l.stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, l.errOut.String())
	}
}

func TestListenLineRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no port":           {[]string{"serial:///dev/nonexistent"}, 1, "/dev/nonexistent"},
		"no server":         {[]string{"dlms+hdlc://127.0.0.1:1"}, 1, "127.0.0.1:1"},
		"no path":           {[]string{"serial://ttyUSB0"}, 2, "three slashes"},
		"bad baud":          {[]string{"serial:///dev/ttyS1?baud=x"}, 2, "baud"},
		"baud of a network": {[]string{"tcp://:0?baud=2400"}, 2, "unknown key"},
		"bad confirm":       {[]string{"serial:///dev/ttyS1?confirm=maybe"}, 2, "want yes or no"},
		"bad title":         {[]string{"tcp://:0?title=12"}, 2, "title: want 16 hexadecimal digits"},
		"bad meter":         {[]string{"tcp://:0?meter=xyz"}, 2, "meter: want 16 hexadecimal digits"},
		"bad objects":       {[]string{"tcp://:0", "-objects", "thd.current"}, 2, "want an OBIS code"},
		"no configuration":  {[]string{"tcp://:0", "-config", "/nonexistent.yaml"}, 1, "/nonexistent.yaml"},
	} {
		code, out, errOut := cmdline(t, append([]string{"listen", "-control", filepath.Join(t.TempDir(), "none")}, c.args...)...)
		if code != c.code || !strings.Contains(errOut, c.want) || out != "" {
			t.Errorf("%s: exit code %d, want %d and %q in:\n%s", name, code, c.code, c.want, errOut)
		}
	}
}

// TestListenConfirmsCiphered answers a confirmed push as it came: ciphered, with
// our title and a counter out of the directory that keeps them.
func TestListenConfirmsCiphered(t *testing.T) {
	t.Parallel()
	const ek, ak, title = "000102030405060708090A0B0C0D0E0F", "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF", "4752470000000001"
	dir := t.TempDir()
	l := listen(t, "tcp", "?ek="+ek+"&ak="+ak+"&title="+title, "-json", "-counters", dir, "-control", filepath.Join(dir, "none"))
	conn := l.dial(t, "tcp")
	keys := security.Keys{Encryption: aes(t, ek), Authentication: aes(t, ak)}
	meterTitle := security.Title([]byte("GRG00001"))
	s := security.Sender{
		Policy: security.AuthenticatedEncrypted, Title: meterTitle, Keys: keys,
		Counter: security.NewCounter(&security.Memory{}, meterTitle, keys.Encryption, 1),
	}
	opener := security.Receiver{
		Policy: security.AuthenticatedEncrypted, Title: security.Title(frameOf(t, title)), Keys: keys,
		Direction: security.FromClient, Window: new(security.Window),
	}
	for i := range uint32(2) {
		b, err := s.Protect(nil, push(t, 1<<30|(i+1), 1234+i), security.Unicast, true)
		if err != nil {
			t.Fatal(err)
		}
		send(t, conn, b)
		plain, err := opener.Unprotect(nil, receive(t, conn))
		invoke, perr := dlms.ParseConfirmation(plain)
		if err != nil || perr != nil || invoke != 1<<30|(i+1) {
			t.Errorf("answered %x, %v, %v", plain, err, perr)
		}
		proctest.Until(t, "the push is printed", func() bool { return strings.Contains(l.out.String(), energyLine(fmt.Sprintf("123.%d", 4+i))) })
	}
	// A wrong key.
	s.Keys.Authentication = aes(t, ek)
	b, err := s.Protect(nil, push(t, 9, 1), security.Unicast, true)
	if err != nil {
		t.Fatal(err)
	}
	send(t, conn, b)
	proctest.Until(t, "a wrong key is told", func() bool {
		return strings.Contains(l.errOut.String(), "wrong key") && strings.Contains(l.errOut.String(), "4752473030303031")
	})
	if code := l.stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, l.errOut.String())
	}
}

func aes(t *testing.T, text string) security.Key {
	t.Helper()
	k, err := security.NewKey(frameOf(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestListenKnowsTheConfiguration names the meters of a configuration, and says
// whom it does not know.
func TestListenKnowsTheConfiguration(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gridgate.yaml")
	if err := os.WriteFile(file, []byte(knownConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	l := listen(t, "tcp", "", "-json", "-config", file)
	conn := l.dial(t, "tcp")
	send(t, conn, push(t, 1, 1234))
	proctest.Until(t, "the push is printed", func() bool { return strings.Contains(l.out.String(), `{"meter":"house-01","serial":"GRG7"`) })
	n := dlms.Notification{Kind: dlms.DataNotificationKind, Invoke: 2, Value: axdr.Structure(
		axdr.OctetString("\x00\x00\x60\x01\x00\xFF"), axdr.VisibleString("ELSE9"))}
	b, err := n.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, conn, b)
	proctest.Until(t, "the stranger is told", func() bool {
		return strings.Contains(l.errOut.String(), `serial number "ELSE9": none of the meters of `+file)
	})
	if !strings.Contains(l.out.String(), `{"meter":"127.0.0.1","serial":"ELSE9"`) {
		t.Errorf("printed %s", l.out.String())
	}
}

const knownConfig = `version: 1
site: s
gateway: g
buffer: {path: /tmp/none}
uplink: {broker: "tcp://127.0.0.1:1"}
groups:
  now: {lane: instant, every: 1m, channels: [1-0:1.8.0]}
meters:
  - {id: house-01, url: "dlms+wrapper://192.0.2.1:4059", serial: GRG7, groups: [now]}
`
