package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gridgate/dlms"
)

// TestPrintedURLsOfLines reads meters on lines of all kinds, by what is printed
// of them.
func TestPrintedURLsOfLines(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"-transport modee -auth none",
		"-transport modee -pty -auth lls -password p",
		"-transport modee -pty -baud 19200 -turnaround 20ms -auth lls -password p",
		"-transport modee -pty -baud 9600 -turnaround 50ms -auth none -faults echo",
		"-transport modee -auth gmac -security authenc -physical 17 -faults segment",
		"-transport hdlc -baud 115200 -turnaround 5ms -auth none -info 512 -window 3",
		"-transport hdlc -pty -baud 115200 -auth md5 -password p",
		"-transport hdlc -physical 17 -count 2 -auth none",
		"-transport hdlc -auth none -faults slow -info 2030",
		"-transport wrapper -turnaround 10ms -auth lls -password p",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			f := strings.Fields(args)
			n := 1 + strings.Count(args, "-count 2")
			printed, stop := command(t, n, append([]string{"dlms", "-listen", "127.0.0.1:0"}, f...)...)
			if len(printed) != n {
				_, stderr := stop()
				t.Fatalf("printed %q: %s", printed, stderr)
			}
			got, err := readURL(t, printed[n-1], readings(t, "1-0:1.8.0", "0-0:42.0.0", "0-0:96.1.0"))
			if err != nil || len(got.Failures) != 0 || !got.Identity.Proven || len(got.Rows) != 3 {
				t.Errorf("%s: %v, %+v, %v, %d rows", printed[n-1], err, got.Identity, got.Failures, len(got.Rows))
			}
			if code, stderr := stop(); code != 0 || stderr != "" {
				t.Errorf("ended with %d: %s", code, stderr)
			}
		})
	}
}

// TestRejects has a meter reject frames, and be there again: who connects anew
// once reads it, unless it rejects too many.
func TestRejects(t *testing.T) {
	t.Parallel()
	for every, want := range map[string]int{"5": 8, "2": 0} {
		printed, _ := command(t, 1, "dlms", "-listen", "127.0.0.1:0", "-transport", "hdlc", "-auth", "none", "-faults", "frmr", "-every", every)
		if len(printed) != 1 {
			t.Fatal("printed nothing")
		}
		good := 0
		for range 8 {
			got, err := readURL(t, printed[0], readings(t, "1-0:1.8.0"))
			if err == nil && len(got.Rows) == 1 {
				good++
			} else if err == nil || !strings.Contains(err.Error(), "FRMR") {
				t.Errorf("one in %s rejected: %v", every, err)
			}
		}
		if good != want {
			t.Errorf("one in %s rejected: %d of 8 read, want %d", every, good, want)
		}
	}
}

// TestTerminalRate has the meter hear a terminal at its rate only.
func TestTerminalRate(t *testing.T) {
	t.Parallel()
	printed, _ := command(t, 1, "dlms", "-pty", "-transport", "modee")
	if len(printed) != 1 {
		t.Fatal("printed nothing")
	}
	tty, err := os.OpenFile(strings.Fields(printed[0])[0], os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	ask := func(rate uint32, sent string, patience time.Duration) string {
		t.Helper()
		raw, err := tty.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		cerr := raw.Control(func(fd uintptr) {
			var s *unix.Termios
			if s, err = unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
				s.Cflag = s.Cflag&^unix.CBAUD | rate
				err = unix.IoctlSetTermios(int(fd), unix.TCSETS, s)
			}
		})
		if err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		if err := tty.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := tty.WriteString(sent); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 200)
		n, _ := tty.Read(b)
		return string(b[:n])
	}
	const long, short = 20 * time.Second, 300 * time.Millisecond
	if got := ask(unix.B9600, "/?!\r\n", short); got != "" {
		t.Errorf("at 9600 bit/s: %q", got)
	}
	if got := ask(unix.B300, "/?!\r\n", long); !strings.HasPrefix(got, `/GRX5\2GRG0`) {
		t.Errorf("at 300 bit/s: %q", got)
	}
	if got := ask(unix.B300, "\x06252\r\n", long); got != "\x06252\r\n" {
		t.Errorf("choice: %q", got)
	}
	snrm := "\x7E\xA0\x07\x03\x21\x93\x0F\x01\x7E"
	if got := ask(unix.B300, snrm, short); got != "" {
		t.Errorf("HDLC at 300 bit/s: %x", got)
	}
	if got := ask(unix.B9600, snrm, long); !strings.HasPrefix(got, "\x7E\xA0\x1E\x21\x03\x73") {
		t.Errorf("HDLC at 9600 bit/s: %x", got)
	}
}

// TestPushes receives what a meter sends unasked.
func TestPushes(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"-transport wrapper", "-transport udp", "-push-as event", "-push-confirmed"} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			network := "tcp"
			if strings.Contains(args, "udp") {
				network = "udp"
			}
			at, next := listenFor(t, network)
			printed, stop := command(t, 1, append([]string{"dlms", "-listen", "127.0.0.1:0", "-push", at, "-push-every", "50ms", "-push-client", "5"}, strings.Fields(args)...)...)
			if len(printed) != 1 {
				t.Fatal("printed nothing")
			}
			b, answer := next()
			if hex.EncodeToString(b[:6]) != "000100010005" {
				t.Errorf("wrapper %x", b[:8])
			}
			n, err := dlms.ParseNotification(b[8:])
			switch {
			case err != nil:
				t.Fatalf("%x: %v", b, err)
			case strings.Contains(args, "event"):
				if n.Kind != dlms.EventNotificationKind || n.Attribute.String() != "0-0:96.11.0*255/1:2" || n.Value.Num != eventPowerUp {
					t.Errorf("%+v", n)
				}
			case n.Kind != dlms.DataNotificationKind || len(n.Value.Items) != 5 || n.Value.Items[1].Str != "GRGGRG000001" || !n.HasTime:
				t.Errorf("%+v", n)
			}
			if strings.Contains(args, "confirmed") {
				if n.Invoke>>30 != 1 {
					t.Errorf("invoke id %x", n.Invoke)
				}
				answer(append([]byte{0, 1, 0, 5, 0, 1, 0, 6, 0x10}, append(b[9:13], 0)...))
			}
			if code, stderr := stop(); code != 0 || stderr != "" {
				t.Errorf("ended with %d: %s", code, stderr)
			}
		})
	}
}

// listenFor gives an address, and what comes there first with a way to answer.
func listenFor(t *testing.T, network string) (at string, next func() ([]byte, func([]byte))) {
	t.Helper()
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn.LocalAddr().String(), func() ([]byte, func([]byte)) {
			b := make([]byte, 2000)
			_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				t.Fatal(err)
			}
			return b[:n], func(b []byte) { _, _ = conn.WriteTo(b, from) }
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), func() ([]byte, func([]byte)) {
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		b := make([]byte, 2000)
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := conn.Read(b)
		if err != nil || n < 9 {
			t.Fatalf("%d octets, %v", n, err)
		}
		return b[:n], func(b []byte) { _, _ = conn.Write(b) }
	}
}

// TestPushOnLine receives UI frames.
func TestPushOnLine(t *testing.T) {
	t.Parallel()
	printed, _ := command(t, 1, "dlms", "-listen", "127.0.0.1:0", "-transport", "hdlc", "-push", "line", "-push-every", "50ms", "-auth", "none", "-push-client", "16")
	if len(printed) != 1 {
		t.Fatal("printed nothing")
	}
	conn, err := net.Dial("tcp", strings.Fields(printed[0])[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 2000)
	n, err := conn.Read(b)
	if got := fmt.Sprintf("%x", b[:n]); err != nil || !strings.HasPrefix(got[4:], "9c210303") && !strings.Contains(got, "210303") || !strings.Contains(got, "e6e7000f") {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := readURL(t, printed[0], readings(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
		t.Errorf("in the midst of pushes: %v, %+v", err, got)
	}
}

// TestPushMethod has the meter push when it is told to.
func TestPushMethod(t *testing.T) {
	t.Parallel()
	at, next := listenFor(t, "tcp")
	printed, _ := command(t, 1, "dlms", "-listen", "127.0.0.1:0", "-push", at)
	if len(printed) != 1 {
		t.Fatal("printed nothing")
	}
	conn, err := net.Dial("tcp", strings.Fields(printed[0])[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for _, apdu := range []string{
		"601DA109060760857405080101BE10040E01000000065F1F0400FFFFFFFFFF", "C301C1 0028 0000190900FF 01 01 0F00",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(apdu, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(append([]byte{0, 1, 0, 17, 0, 1, 0, byte(len(b))}, b...)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 200)
		if n, err := conn.Read(answer); err != nil || n < 10 || answer[8] == 0xC7 && answer[11] != 0 {
			t.Fatalf("%x, %v", answer[:n], err)
		}
	}
	if b, _ := next(); b[8] != 0x0F {
		t.Errorf("%x", b)
	}
}

func TestLineUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-baud 9600":                                    "-baud is of -transport hdlc and modee",
		"-baud 38400 -transport modee":                  "by mode E there are 300",
		"-baud 7 -transport hdlc":                       "-baud 7",
		"-turnaround -1s":                               "-turnaround -1s",
		"-turnaround 1s -transport udp":                 "-turnaround is not of",
		"-push nowhere":                                 `-push "nowhere"`,
		"-push line":                                    "-push line is of",
		"-push-every 1s":                                "needs -push",
		"-push-every 1us -push :1":                      "-push-every 1µs",
		"-push :1 -push-as mail":                        `-push-as "mail"`,
		"-push line -push-client 300 -transport hdlc":   "-push-client 300",
		"-push :1 -push-confirmed -push-as event":       "-push-confirmed",
		"-inactivity -1s -transport hdlc":               "-inactivity -1s",
		"-pre-established -auth lls -password p":        "-pre-established is for",
		"-faults frmr":                                  "frmr is not of -transport wrapper; it is of hdlc, modee",
		"-faults slow -transport udp":                   "slow is not of",
		"-physical 16383 -count 2 -transport hdlc":      "-physical 16384",
		"-baud fast":                                    "invalid value",
		"-auth none -security none -ref ln -suite none": "invalid value",
	} {
		_, stop := command(t, 0, append([]string{"dlms", "-listen", "127.0.0.1:0"}, strings.Fields(args)...)...)
		if code, stderr := stop(); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d, %s", args, code, stderr)
		}
	}
}
