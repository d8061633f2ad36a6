package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/status"
	"gridgate/buffer/state"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

const (
	testEK = "000102030405060708090A0B0C0D0E0F"
	testAK = "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"
)

func testKey(t *testing.T, first byte) security.Key {
	t.Helper()
	var b [16]byte
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := security.NewKey(b[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// securedMeter serves a meter with keys until the test ends: client 1 has GMAC
// and ciphers, client 2 has a secret for SHA-256.
func securedMeter(t *testing.T) (hostport string) {
	t.Helper()
	m := dlmstest.NewMeter(dlmstest.Options{
		Objects: []dlmstest.Object{dlmstest.Clock(obis.Code{0, 0, 1, 0, 0, 255}, time.Now)},
		Clients: map[uint16]dlmstest.Login{
			16: {}, 1: {Mechanism: 5, Policy: security.AuthenticatedEncrypted}, 2: {Mechanism: 6, Secret: "Hunter22"},
		},
		Security: dlmstest.Security{
			Title: security.Title([]byte("ABCDEFGH")),
			Keys:  security.Keys{Encryption: testKey(t, 0), Authentication: testKey(t, 0xD0)},
		},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				_ = m.Serve(conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		tasks.Wait()
	})
	return ln.Addr().String()
}

// serveCounters is an agent that has the counters in dir and no lines.
func serveCounters(t *testing.T, s *state.State, dir string) (socket string) {
	t.Helper()
	socket = filepath.Join(dir, "c.sock")
	c, err := status.Listen(status.Config{
		Path: socket, Counters: s, Refusals: s, StateDir: dir, Log: slog.New(slog.DiscardHandler),
		Lend: func(context.Context, string) (func(), error) { return nil, status.ErrUnused },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		task.Wait()
	})
	return socket
}

func TestReadsACipheredMeter(t *testing.T) {
	t.Parallel()
	where, dir := securedMeter(t), t.TempDir()
	secret := write(t, "password", "Hunter22\n")
	read := func(query string) (int, string, string) {
		t.Helper()
		return cmdline(t, "read", "dlms+wrapper://"+where+"?"+query, "0-0:1.0.0", "-json",
			"-counters", dir, "-control", filepath.Join(dir, "none.sock"))
	}
	const gmac = "client=1&auth=gmac&security=authenc&title=4752470000000001&ek=" + testEK + "&ak=" + testAK
	for range 3 {
		if code, out, errOut := read(gmac); code != 0 || !strings.Contains(out, `"channel":"0-0:1.0.0*255/8:2"`) {
			t.Fatalf("%d, %s%s", code, out, errOut)
		}
	}
	if code, out, errOut := read("client=2&auth=sha256&title=4752470000000001&password=file:" + secret); code != 0 || !strings.Contains(out, "0-0:1.0.0") {
		t.Errorf("%d, %s%s", code, out, errOut)
	}

	s, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Reserve(security.Title([]byte("GRG\x00\x00\x00\x00\x01")), testKey(t, 0).ID(), 1)
	if err != nil || first < 1<<16+3*1000 {
		t.Errorf("after three reads the next counter is %d, %v", first, err)
	}
	if code, _, errOut := read(gmac); code != 1 || !strings.Contains(errOut, "two that count apart would use one counter twice") {
		t.Errorf("while another has the counters: %d, %s", code, errOut)
	}
	agent := serveCounters(t, s, dir)
	code, out, errOut := cmdline(t, "read", "dlms+wrapper://"+where+"?"+gmac, "0-0:1.0.0", "-counters", dir, "-control", agent)
	if next, err := s.Reserve(security.Title([]byte("GRG\x00\x00\x00\x00\x01")), testKey(t, 0).ID(), 1); code != 0 || err != nil || next <= first+1000 {
		t.Errorf("while the agent has the counters: %d, %s%s; the agent's next is %d after %d, %v", code, out, errOut, next, first, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	for query, want := range map[string]string{
		strings.Replace(gmac, "ek=00", "ek=FF", 1):                                          "the meter refused client 1: authentication failed (it cannot decipher: wrong ek, ak, suite or title?)",
		strings.Replace(gmac, "ak=D0", "ak=FF", 1):                                          "the meter refused client 1: authentication failed (it cannot decipher: wrong ek, ak, suite or title?)",
		strings.Replace(gmac, "client=1", "client=9", 1):                                    "the meter refused client 9 (does it know this client, are keys and title right?)",
		strings.Replace(gmac, "ek="+testEK, "ek="+testEK[2:], 1):                            "ek: want 32 hexadecimal digits, the key of suite 0",
		gmac + "&ic=0-0:43.1.99":                                                            "",
		"client=2&auth=sha256&title=4752470000000001&password=HunterXX":                     "the meter refused client 2: authentication failed (wrong password or title?)",
		strings.Replace(gmac, "title=4752470000000001", "title=GRG-two!&ic=0-0:43.1.99", 1): "is it in another object, ic=OBIS, or in none, ic=none?",
	} {
		code, out, errOut := read(query)
		if want == "" { // the key is known: nothing is asked of the object
			if code != 0 {
				t.Errorf("%s: %d, %s", query, code, errOut)
			}
			continue
		}
		if code != 1 || out != "" || !strings.Contains(errOut, want) {
			t.Errorf("%s: %d, %s%s\nwant %q", query, code, out, errOut, want)
		}
		for _, secret := range []string{testEK[4:], testAK[4:], "HunterXX"} {
			if strings.Contains(errOut, secret) {
				t.Errorf("%s: a secret is printed: %s", query, errOut)
			}
		}
	}
}
