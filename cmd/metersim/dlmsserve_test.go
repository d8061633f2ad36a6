package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/security"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// newCounters are of keys that were never used.
type newCounters struct{ *security.Memory }

func (newCounters) KnownCounters(security.Title, security.KeyID) (bool, error) { return false, nil }

func (newCounters) LastReceived(security.Title, security.KeyID, security.Direction) (uint32, bool, error) {
	return 0, false, nil
}

func (newCounters) NoteReceived(security.Title, security.KeyID, security.Direction, uint32, uint32) error {
	return nil
}

// readURL reads a meter by an address as it is printed.
func readURL(t *testing.T, printed string, ask meter.Ask) (meter.Got, error) {
	t.Helper()
	_, url, ok := strings.Cut(printed, " url ")
	if !ok {
		t.Fatalf("no url in %q", printed)
	}
	a, err := address.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := a.Resolve(address.Sources{Getenv: os.Getenv, ReadFile: os.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	a.Timeout = 2 * time.Second
	l := drivers.OpenLine(a, line.Options{})
	v, err := drivers.Open(drivers.Config{
		ID: "m", Serial: strings.Fields(printed)[2], Address: a, Secrets: secrets, Counters: newCounters{&security.Memory{}}, Now: stamps,
	}, l)
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.Visit(t.Context(), ask)
	if cerr := v.Close(); cerr != nil && err == nil {
		t.Error(cerr)
	}
	if cerr := l.Close(); cerr != nil {
		t.Error(cerr)
	}
	return got, err
}

// TestPrintedURLs reads every kind of meter by what is printed of it.
func TestPrintedURLs(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"-auth none",
		"-auth lls -password p",
		"-auth hls2 -password p -transport hdlc",
		"-auth md5 -password p -transport hdlc -addrlen 4 -faults segment",
		"-auth sha1 -password p -transport hdlc -physical 17 -faults echo",
		"-auth sha256 -password p -security auth -suite 2",
		"-auth gmac -security authenc",
		"-auth gmac -pty -info 512 -window 3 -title METERSIM",
		"-auth gmac -security enc -client 5 -suite 1 -ek 00112233445566778899aabbccddeeff",
		"-auth ecdsa -security authenc -suite 1 -transport hdlc -physical 300",
		"-auth ecdsa -suite 2",
		"-auth none -transport hdlc -faults noise -every 2",
		"-auth gmac -security authenc -ref sn",
		"-auth lls -password p -security enc -ref sn -transport hdlc",
		"-auth sha256 -password p -suite 1",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			printed, stop := command(t, 1, append([]string{"dlms", "-listen", "127.0.0.1:0"}, strings.Fields(args)...)...)
			if len(printed) != 1 {
				_, stderr := stop()
				t.Fatalf("printed nothing: %s", stderr)
			}
			ask := readings(t, "1-0:1.8.0", "0-0:42.0.0")
			ask.Profiles = []meter.Profile{{Channel: "1-0:99.1.0*255/7:2", Since: time.Now().Add(-3 * time.Hour).UnixMilli()}}
			got, err := readURL(t, printed[0], ask)
			if err != nil || len(got.Failures) != 0 || !got.Identity.Proven || len(got.Rows) < 2+20 {
				t.Errorf("%v, %+v, %v, %d rows", err, got.Identity, got.Failures, len(got.Rows))
			}
			if code, stderr := stop(); code != 0 || stderr != "" {
				t.Errorf("ended with %d: %s", code, stderr)
			}
		})
	}
}

func TestWrongKeyInURL(t *testing.T) {
	t.Parallel()
	printed, _ := command(t, 1, "dlms", "-listen", "127.0.0.1:0", "-auth", "gmac", "-security", "authenc")
	if len(printed) != 1 {
		t.Fatal("printed nothing")
	}
	if _, err := readURL(t, strings.Replace(printed[0], "ek=0001", "ek=0002", 1), meter.Ask{}); err == nil || !strings.Contains(err.Error(), "authentication") {
		t.Errorf("wrong key: %v", err)
	}
}

func TestUDP(t *testing.T) {
	t.Parallel()
	printed, stop := command(t, 2, "dlms", "-listen", "127.0.0.1:0", "-count", "2", "-transport", "udp")
	if len(printed) != 2 {
		t.Fatal("printed nothing")
	}
	conn, err := net.Dial("udp", strings.Fields(printed[1])[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ask := func(apdu string) string {
		t.Helper()
		if _, err := conn.Write([]byte("\x00\x01\x00\x10\x00\x01\x00" + string([]byte{byte(len(apdu))}) + apdu)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2000)
		n, err := conn.Read(b)
		if err != nil || n < 8 {
			t.Fatalf("%d octets, %v", n, err)
		}
		return string(b[8:n])
	}
	if a := ask("\x60\x1D\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\xBE\x10\x04\x0E\x01\x00\x00\x00\x06\x5F\x1F\x04\x00\x00\x7E\x1F\x04\xB0"); a[0] != 0x61 || a[17] != 0 {
		t.Errorf("association: %x", a)
	}
	get := dlms.AppendGet(nil, 1, dlms.Attribute{Class: 1, Code: [6]byte{0, 0, 96, 1, 0, 255}, ID: 2}, nil)
	if a := ask(string(get)); !strings.HasSuffix(a, "GRG000002") {
		t.Errorf("serial number: %x", a)
	}
	if code, stderr := stop(); code != 0 || stderr != "" {
		t.Errorf("ended with %d: %s", code, stderr)
	}
}

func TestSecuredUsage(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-auth kerberos":                  `-auth "kerberos": want one of none, lls`,
		"-auth md5":                       "-auth md5 needs -password",
		"-security auth":                  "-security is for",
		"-auth gmac -security much":       `-security "much"`,
		"-auth gmac -ref xn":              `-ref "xn"`,
		"-auth gmac -ek 0011":             "-ek: want 32 hexadecimal digits",
		"-auth gmac -suite 2 -ak 00":      "-ak: want 64 hexadecimal digits",
		"-suite 3":                        "-suite 3",
		"-auth ecdsa":                     "needs -suite 1 or 2",
		"-auth gmac -client 0":            "-client 0",
		"-title short":                    "-title: want 16",
		"-transport token-ring":           `-transport "token-ring"`,
		"-pty -transport udp":             "-pty is for",
		"-link x":                         "-link needs -pty",
		"-faults noise":                   "noise is not of -transport wrapper; it is of hdlc",
		"-faults garbage -transport hdlc": "garbage is not of -transport hdlc",
		"-every 0":                        "-every 0",
		"-physical 200 -addrlen 2":        "room for -physical 200",
		"-physical 20000":                 "-physical 20000",
		"-info 9":                         "-info 9",
		"-window 8":                       "-window 8",
	} {
		_, stop := command(t, 0, append([]string{"dlms", "-listen", "127.0.0.1:0"}, strings.Fields(args)...)...)
		if code, stderr := stop(); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d, %s", args, code, stderr)
		}
	}
}

func TestPtyLinks(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "optical")
	printed, stop := command(t, 2, "dlms", "-pty", "-count", "2", "-link", link)
	if len(printed) != 2 || !strings.HasPrefix(printed[0], link+" serial GRG000001") || !strings.HasPrefix(printed[1], link+"-1 serial") {
		t.Fatalf("printed %q", printed)
	}
	if code, stderr := stop(); code != 0 || stderr != "" {
		t.Errorf("ended with %d: %s", code, stderr)
	}
	if left, err := filepath.Glob(link + "*"); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
