package plc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// TestPrimeOnTheWire: what goes out and comes in, octet by octet.
func TestPrimeOnTheWire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, b := newHead(t, Config{Kind: Prime})
		h.answer = func(f []byte) {
			switch f[8] {
			case 3:
				h.sendBytes(newDevice(0x0107, "ZIV7", 7))
			case 0xC0:
				h.send("0001" + "0107" + "0011" + "0001" + "EE") // for client 17: nobody's
				h.send("0001" + "0108" + "0010" + "0001" + "EE") // of a node that there is not
				h.send("0001" + "0107" + "0010" + "0002" + "C401")
			}
		}
		got, err := exchange(t.Context(), b.Node("ziv7"), []byte{0xC0, 1}, time.Second)
		if err != nil || hex.EncodeToString(got) != "0001000100100002c401" {
			t.Errorf("%x, %v", got, err)
		}
		if sent := h.frames(); !slices.Equal(sent, []string{"000100010000000103", "0001001001070002c001"}) {
			t.Errorf("sent %q", sent)
		}
		if s := b.Table(); s.Strange != 1 || len(s.Nodes) != 1 || s.Nodes[0].Late != 1 || s.Nodes[0].Device != 0x107 || !s.Connected {
			t.Errorf("%+v", s)
		}
		if b.Node("00:80:E1:00:00:07") == b.Node("ZIV7") || b.Node("ziv7") != b.Node("ZIV7") {
			t.Error("names of nodes")
		}
	})
}

func TestGatewayOnTheWire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, b := newHead(t, Config{Kind: Gateway})
		h.answer = func(f []byte) {
			if bytes.Contains(f, []byte{0x0B}) {
				return // the other node is silent
			}
			h.send("00010001001000" + "06" + "E70301" + "0CC401") // of another
			h.send("00010001001000" + "06" + "E60301" + "0AC401") // a request
			h.send("00010001001000" + "06" + "E70301" + "0AC401")
		}
		one, other := b.Node(GatewayNode(3, []byte{0x0A})), b.Node(GatewayNode(3, []byte{0x0B}))
		var both sync.WaitGroup
		both.Go(func() {
			if _, err := exchange(t.Context(), other, []byte{0xC0, 1}, time.Minute); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("of the silent node came %v", err)
			}
		})
		synctest.Wait()
		got, err := exchange(t.Context(), one, []byte{0xC0, 1}, time.Second)
		if err != nil || hex.EncodeToString(got) != "0001000100100002c401" {
			t.Errorf("%x, %v", got, err)
		}
		both.Wait()
		if sent := h.frames(); !slices.Equal(sent, []string{"0001001000010006e603010bc001", "0001001000010006e603010ac001"}) {
			t.Errorf("sent %q", sent)
		}
		if s := b.Table(); s.Strange != 2 || s.Nodes[0].Asked != 1 || s.Nodes[1].Lost != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestNodesComeAndGo: a node that is not there, or leaves, fails at once; one
// that comes back is told of, and read.
func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := make(chan string, 8)
		h, b := newHead(t, Config{Kind: Prime, Listed: func(node string) { back <- node }})
		var quiet atomic.Bool
		h.answer = func(f []byte) {
			switch {
			case f[8] == 3:
				h.sendBytes(newDevice(1, "A", 1))
				h.sendBytes(newDevice(2, "B", 2))
			case !quiet.Load():
				h.sendBytes([]byte{0, 1, f[4], f[5], 0, 16, 0, 1, f[5]})
			}
		}
		took := func(name string, want error, most time.Duration) {
			t.Helper()
			begin := time.Now()
			got, err := exchange(t.Context(), b.Node(name), []byte{0xC0}, 30*time.Second)
			if !errors.Is(err, want) || want == nil && err != nil || time.Since(begin) > most {
				t.Errorf("%s: %x, %v after %v, want %v within %v", name, got, err, time.Since(begin), want, most)
			}
			if want != nil && !errors.Is(want, os.ErrDeadlineExceeded) && !errors.Is(err, meter.ErrNoAnswer) {
				t.Errorf("%v is not ErrNoAnswer", err)
			}
		}
		took("A", nil, 0)
		took("00:80:E1:00:00:02", nil, 0) // B, by its EUI-48
		took("C", ErrAbsent, listQuiet)
		took("C", ErrAbsent, 0)
		h.sendBytes(newDevice(3, "C", 3))
		if name := <-back; name != "C" {
			t.Errorf("%s came back", name)
		}
		took("C", nil, 0)

		quiet.Store(true)
		time.AfterFunc(time.Second, func() { h.sendBytes(removeDevice(1)) })
		took("A", ErrLeft, time.Second) // in the middle of an exchange
		took("A", ErrWaiting, 0)        // its answer could still come
		time.Sleep(Lifetime)
		took("A", ErrLeft, 0)
		quiet.Store(false)
		h.sendBytes(newDevice(9, "A", 1)) // with another device id
		if name := <-back; name != "A" {
			t.Errorf("%s came back", name)
		}
		took("A", nil, 0)
		h.sendBytes(newDevice(9, "D", 4)) // a device id is given again
		took("A", ErrLeft, Lifetime)
		h.hangUp()
		time.Sleep(Lifetime)
		took("00:80:E1:00:00:02", nil, 0) // connects anew
		took("C", ErrAbsent, listQuiet)
		if h.dials() != 2 {
			t.Errorf("%d connections", h.dialed)
		}
		var rows []string
		for _, s := range b.Table().Nodes {
			rows = append(rows, fmt.Sprintf("%s %s %d %s %s", s.Node, s.Serial, s.Device, s.EUI48, s.State))
		}
		want := []string{
			"A A 1 00:80:E1:00:00:01 present", "00:80:E1:00:00:02 B 2 00:80:E1:00:00:02 present",
			"C C 3 00:80:E1:00:00:03 absent", " D 9 00:80:E1:00:00:04 absent",
		}
		if !slices.Equal(rows, want) {
			t.Errorf("%q", rows)
		}
	})
}

// TestSilentNode: a node that says nothing costs two conversations, and then
// one every quarter of an hour, until it is reported again.
func TestSilentNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		back := make(chan string, 1)
		h, b := newHead(t, Config{Kind: Prime, Listed: func(node string) { back <- node }})
		h.answer = func(f []byte) {
			if f[8] == 3 {
				h.sendBytes(newDevice(1, "A", 1))
			}
		}
		n := b.Node("A")
		asked := 0
		for range 3 * 60 {
			if _, err := exchange(t.Context(), n, []byte{0xC0}, time.Second); errors.Is(err, os.ErrDeadlineExceeded) {
				asked++
			} else if !errors.Is(err, ErrSilent) && !errors.Is(err, ErrWaiting) {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if asked < 3*4 || asked > 2+3*4+1 {
			t.Errorf("asked %d times in three hours", asked)
		}
		if s := b.Table().Nodes[0]; s.State != Silent {
			t.Errorf("%+v", s)
		}
		h.sendBytes(newDevice(1, "A", 1))
		<-back
		time.Sleep(Lifetime)
		if _, err := exchange(t.Context(), n, []byte{0xC0}, time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it was not asked: %v", err)
		}
	})
}

// TestLend: the connection is closed while another has the bridge, and what he
// left on the line is waited out.
func TestLend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, b := newHead(t, Config{Kind: Prime})
		h.answer = func(f []byte) {
			if f[8] == 3 {
				h.sendBytes(newDevice(1, "A", 1))
				return
			}
			time.AfterFunc(time.Second, func() { h.sendBytes([]byte{0, 1, f[4], f[5], 0, 16, 0, 1, 0xC4}) })
		}
		n := b.Node("A")
		var reading sync.WaitGroup
		reading.Go(func() {
			if _, err := exchange(t.Context(), n, []byte{0xC0}, time.Minute); err != nil {
				t.Errorf("the exchange under way: %v", err)
			}
		})
		synctest.Wait()
		giveBack, err := b.Lend(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		reading.Wait()
		if b.Table().Connected {
			t.Error("still connected")
		}
		limited, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := exchange(limited, n, []byte{0xC0}, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while it is lent: %v", err)
		}
		giveBack()
		begin := time.Now()
		if _, err := exchange(t.Context(), n, []byte{0xC0}, time.Minute); err != nil || time.Since(begin) < Lifetime {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if _, err := b.Lend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if _, err := exchange(t.Context(), n, []byte{0xC0}, time.Minute); err == nil {
			t.Error("a bridge that is closed answers")
		}
	})
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, b := newHead(t, Config{Kind: Gateway})
		nobody := errors.New("nobody there")
		h.refuses(nobody)
		if _, err := exchange(t.Context(), b.Node("\x00A"), []byte{0xC0}, time.Second); !errors.Is(err, nobody) || !strings.Contains(err.Error(), "line base:4059 node 0/41: ") {
			t.Errorf("%v", err)
		}
		if s := b.Table(); s.Connected || !errors.Is(s.Err, nobody) {
			t.Errorf("%+v", s)
		}
		h.refuses(nil)
		h.answer = func([]byte) { h.send("474554202F20485454") }
		if _, err := exchange(t.Context(), b.Node("\x00A"), []byte{0xC0}, time.Minute); err == nil || !strings.Contains(err.Error(), "wrapper") {
			t.Errorf("what is no wrapper: %v", err)
		}
	})
}

func TestPace(t *testing.T) {
	t.Parallel()
	var p pace
	if w := p.wait(firstWait); w != firstWait {
		t.Errorf("at first %v", w)
	}
	p.measure(8 * time.Second)
	if w := p.wait(firstWait); w != 24*time.Second { // RFC 6298, 2.2: R + 4·R/2
		t.Errorf("after one answer %v", w)
	}
	p.lost()
	if w := p.wait(firstWait); w != 24*time.Second {
		t.Errorf("the first loss: %v", w)
	}
	p.lost()
	if w := p.wait(firstWait); w != 48*time.Second {
		t.Errorf("the second loss: %v", w)
	}
	for range 20 {
		p.lost()
	}
	if w := p.wait(firstWait); w != mostWait {
		t.Errorf("many losses: %v", w)
	}
	for range 100 {
		p.measure(100 * time.Millisecond)
	}
	if w := p.wait(firstWait); w != leastWait {
		t.Errorf("a fast line: %v", w)
	}
}

// FuzzDemux: whatever a base node or a gateway sends, nobody panics, and what a
// node's line gives are whole frames, from server to client.
func FuzzDemux(f *testing.F) {
	f.Add(false, append(newDevice(1, "A", 1), 0, 1, 0, 1, 0, 16, 0, 2, 0xC4, 1))
	f.Add(false, append(removeDevice(1), newDevice(2, "A", 1)...))
	f.Add(true, []byte{0, 1, 0, 1, 0, 16, 0, 6, 0xE7, 0, 1, 'A', 0xC4, 1})
	f.Add(true, []byte{0, 1, 0, 1, 0, 16, 0, 6, 0xE7, 0, 9, 'A', 0xC4, 1})
	f.Fuzz(func(t *testing.T, isGateway bool, stream []byte) {
		kind, name := Prime, "A"
		if isGateway {
			kind, name = Gateway, GatewayNode(0, []byte("A"))
		}
		client, server := net.Pipe()
		b := New(Config{Kind: kind, Dial: func(context.Context) (Stream, error) { return client, nil }, Listed: func(string) {}})
		var serving sync.WaitGroup
		serving.Go(func() {
			whole := append(newDevice(1, "A", 1), stream...)
			if isGateway {
				whole = stream
			}
			var first [9]byte // it asks, or asks for the list
			if _, err := io.ReadFull(server, first[:]); err != nil {
				return
			}
			serving.Go(func() { _, _ = io.Copy(io.Discard, server) })
			_, _ = server.Write(whole)
			_ = server.Close()
		})
		got, err := exchange(t.Context(), b.Node(name), []byte{0xC0}, 10*time.Second)
		if err == nil && (len(got) < 8 || int(got[6])<<8|int(got[7]) != len(got)-8 && len(got) < 1024 || got[5] != 16) {
			t.Errorf("%x", got)
		}
		b.Table()
		_ = b.Close()
		_ = server.Close()
		serving.Wait()
	})
}
