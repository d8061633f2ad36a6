package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/internal/cli"
	"gridgate/internal/proctest"
)

// screen is a terminal that a test reads while a verb writes.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// listening is a `gridgate listen` that runs.
type listening struct {
	at          string // host:port
	out, errOut screen
	stop        func() int // gives the exit code
	wait        func() int // as well, when it ends by itself
}

func listen(t *testing.T, network, query string, args ...string) *listening {
	t.Helper()
	l := &listening{}
	ctx, cancel := context.WithCancel(t.Context())
	exit := make(chan int, 1)
	env := cli.Env{Stdin: strings.NewReader(""), Stdout: &l.out, Stderr: &l.errOut, Getenv: os.Getenv}
	go func() {
		exit <- program().Run(ctx, env, append([]string{"listen", network + "://127.0.0.1:0" + query}, args...))
	}()
	l.wait = sync.OnceValue(func() int { return <-exit })
	l.stop = func() int { cancel(); return l.wait() }
	t.Cleanup(func() { l.stop() })
	proctest.Until(t, "it listens", func() bool {
		_, rest, ok := strings.Cut(l.errOut.String(), " 127.0.0.1:")
		port, _, whole := strings.Cut(rest, "\n")
		l.at = "127.0.0.1:" + port
		return ok && whole
	})
	return l
}

// dial connects to the listener as a meter.
func (l *listening) dial(t *testing.T, network string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, l.at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, apdu []byte) {
	t.Helper()
	head := []byte{0, 1, 0, 1, 0, 16}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(head, uint16(len(apdu))), apdu...)); err != nil {
		t.Fatal(err)
	}
}

// receive takes one frame, and gives its APDU.
func receive(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second)) // of a test that fails
	b := make([]byte, 1024)
	n, err := conn.Read(b)
	if err != nil || n < 8 || !bytes.Equal(b[:6], []byte{0, 1, 0, 16, 0, 1}) || int(binary.BigEndian.Uint16(b[6:])) != n-8 {
		t.Fatalf("%x, %v", b[:n], err)
	}
	return b[8:n]
}

func entry(class uint16, code obis.Code, id int8) axdr.Value {
	return axdr.Structure(axdr.LongUnsigned(class), axdr.OctetString(string(code[:])), axdr.Integer(id), axdr.LongUnsigned(0))
}

// push is a data-notification with its push object list.
func push(t *testing.T, invoke, energy uint32) []byte {
	t.Helper()
	return pushOf(t, "GRG7", invoke, energy)
}

func pushOf(t *testing.T, serial string, invoke, energy uint32) []byte {
	t.Helper()
	list := axdr.Array(entry(40, code(t, "0-0:25.9.0"), 2), entry(1, code(t, "0-0:96.1.0"), 2), entry(3, code(t, "1-0:1.8.0"), 2), entry(3, code(t, "1-0:1.8.0"), 3))
	n := dlms.Notification{
		Kind: dlms.DataNotificationKind, Invoke: invoke, HasTime: true,
		Time: dlms.DateTimeOf(time.Date(2026, 3, 1, 9, 0, 0, 0, time.FixedZone("", 3*60*60))),
		Value: axdr.Structure(list, axdr.OctetString(serial), axdr.DoubleLongUnsigned(energy),
			axdr.Structure(axdr.Integer(-1), axdr.Enum(30))),
	}
	b, err := n.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func energyLine(value string) string {
	return `{"meter":"127.0.0.1","serial":"GRG7","channel":"1-0:1.8.0*255/3:2","time":"2026-03-01T06:00:00.000Z","value":` + value + `,"unit":"Wh","quality":"good"}` + "\n"
}

func TestListen(t *testing.T) {
	t.Parallel()
	for scheme, network := range map[string]string{"tcp": "tcp", "dlms+wrapper": "tcp", "dlms+udp": "udp"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			l := listen(t, scheme, "", "-json")
			conn := l.dial(t, network)
			send(t, conn, push(t, 7, 1234))
			proctest.Until(t, "the push is printed", func() bool { return strings.Contains(l.out.String(), energyLine("123.4")) })

			send(t, conn, push(t, 1<<30|8, 1235))
			if answer := receive(t, conn); !bytes.HasPrefix(answer, []byte{0x10, 0x40, 0, 0, 8, 12, 0x07, 0xEA, 3, 1}) || len(answer) != 18 {
				t.Errorf("answered %x", answer)
			}
			proctest.Until(t, "the confirmed push is printed", func() bool { return strings.Contains(l.out.String(), energyLine("123.5")) })

			// In general blocks, the first of which is answered.
			whole := push(t, 9, 1236)
			const half = 40
			send(t, conn, append([]byte{0xE0, 0x01, 0, 1, 0, 0, half}, whole[:half]...))
			if ack := receive(t, conn); ack[0] != 0xE0 || ack[5] != 1 {
				t.Errorf("acknowledged %x", ack)
			}
			send(t, conn, append([]byte{0xE0, 0x81, 0, 2, 0, 0, byte(len(whole) - half)}, whole[half:]...))
			proctest.Until(t, "the push in blocks is printed", func() bool { return strings.Contains(l.out.String(), energyLine("123.6")) })

			// What is none is told, with its source, and stops nothing.
			for name, bad := range map[string]string{
				"GET / HTTP/1.1\r\n\r\n":                   "not a wrapper of version 1",
				"\x00\x01\x00\x01\x00\x10\x00\x02\x0F\x00": "data-notification cut short",
				"\x00\x01\x00\x01\x00\x10\x00\x02\xC4\x01": "is no notification",
			} {
				other := l.dial(t, network)
				if _, err := io.WriteString(other, name); err != nil {
					t.Fatal(err)
				}
				proctest.Until(t, "told: "+bad, func() bool {
					return slices.ContainsFunc(lines(l.errOut.String()), func(s string) bool {
						return strings.Contains(s, bad) && strings.Contains(s, "from "+other.LocalAddr().String())
					})
				})
			}
			send(t, conn, push(t, 10, 1237))
			proctest.Until(t, "the next push is printed", func() bool { return strings.Contains(l.out.String(), energyLine("123.7")) })
			if code := l.stop(); code != 0 {
				t.Errorf("exit code %d\n%s", code, l.errOut.String())
			}
		})
	}
}

func TestListenStopsByItself(t *testing.T) {
	t.Parallel()
	code, out, errOut := cmdline(t, "listen", "tcp://127.0.0.1:0", "-for", "10ms")
	if code != 0 || out != "" || !strings.Contains(errOut, "listening on tcp 127.0.0.1:") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
}

// TestListenToOneHost: of two meters that push from one host, of which one is
// configured, each has its own name.
func TestListenToOneHost(t *testing.T) {
	t.Parallel()
	site := write(t, "site.yaml", strings.Replace(wellFormed, "serial: A1", "serial: G7", 1))
	l := listen(t, "tcp", "", "-json", "-config", site)
	conn := l.dial(t, "tcp")
	for n, c := range []struct{ serial, row string }{{"A7", `"meter":"127.0.0.1","serial":"A7"`}, {"G7", `"meter":"m1","serial":"G7"`}, {"GRXG7", `"meter":"m1","serial":"G7"`}} {
		send(t, conn, pushOf(t, c.serial, uint32(n+1), uint32(10*n)))
		proctest.Until(t, c.serial+" is printed", func() bool {
			return slices.ContainsFunc(lines(l.out.String()), func(s string) bool {
				return strings.Contains(s, c.row) && strings.Contains(s, fmt.Sprintf(`"value":%d.0`, n))
			})
		})
	}
	if said := l.errOut.String(); !strings.Contains(said, `serial number "A7": none of the meters`) || strings.Contains(said, "another meter") {
		t.Error(said)
	}
}

func TestListenDeciphers(t *testing.T) {
	t.Parallel()
	const ek, ak = "000102030405060708090A0B0C0D0E0F", "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"
	cipher := func(t *testing.T, counter uint32, apdu []byte) []byte {
		t.Helper()
		var keys security.Keys
		for hex, key := range map[string]*security.Key{ek: &keys.Encryption, ak: &keys.Authentication} {
			var b []byte
			if _, err := fmt.Sscanf(hex, "%x", &b); err != nil {
				t.Fatal(err)
			}
			k, err := security.NewKey(b)
			if err != nil {
				t.Fatal(err)
			}
			*key = k
		}
		title := security.Title([]byte("GRG00001"))
		c := security.NewCounter(&security.Memory{}, title, keys.Encryption, 1)
		if err := c.Anchor(counter); err != nil {
			t.Fatal(err)
		}
		s := security.Sender{Policy: security.AuthenticatedEncrypted, Title: title, Keys: keys, Counter: c}
		b, err := s.Protect(nil, apdu, security.Unicast, true)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("with the keys", func(t *testing.T) {
		t.Parallel()
		l := listen(t, "dlms+udp", "?ek="+ek+"&ak="+ak, "-json")
		conn := l.dial(t, "udp")
		send(t, conn, push(t, 1, 999))
		proctest.Until(t, "what is not ciphered is refused", func() bool { return strings.Contains(l.errOut.String(), "less than was asked for") })
		b := cipher(t, 5, push(t, 1, 1234))
		send(t, conn, b)
		proctest.Until(t, "the push is printed", func() bool { return strings.Contains(l.out.String(), energyLine("123.4")) })
		send(t, conn, b)
		proctest.Until(t, "the same again is refused", func() bool { return strings.Contains(l.errOut.String(), "the same again") })
		if strings.Contains(l.out.String(), "99.9") {
			t.Errorf("printed:\n%s", l.out.String())
		}
	})
	t.Run("without", func(t *testing.T) {
		t.Parallel()
		l := listen(t, "dlms+udp", "")
		send(t, l.dial(t, "udp"), cipher(t, 5, push(t, 1, 1234)))
		proctest.Until(t, "the key is missed", func() bool {
			return strings.Contains(l.errOut.String(), "ciphered, and no key is given") && strings.Contains(l.errOut.String(), "4752473030303031")
		})
	})
	t.Run("without, to the end", func(t *testing.T) {
		t.Parallel()
		for pushes, want := range []int{1, 0} { // one that nobody can read, and one in the clear behind it
			l := listen(t, "dlms+udp", "", "-for", "2s")
			conn := l.dial(t, "udp")
			send(t, conn, cipher(t, 5, push(t, 1, 1234)))
			if pushes > 0 {
				send(t, conn, push(t, 2, 1234))
			}
			if code := l.wait(); code != want || want == 1 != strings.HasSuffix(l.errOut.String(), "nothing could be taken of what came, 1 times, for the reasons above\n") {
				t.Errorf("%d more pushes: exit code %d\n%s", pushes, code, l.errOut.String())
			}
		}
	})
}
