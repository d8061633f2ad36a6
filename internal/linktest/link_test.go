package linktest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/linktest"
)

func gprs() linktest.Config {
	return linktest.Config{Rate: 20_000, Delay: 300 * time.Millisecond}
}

func pattern(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Pins: 1,360 bytes and 40 of headers at 20 kbit/s take 560 ms, and 300 ms more.
func TestRateAndDelayAreExact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := linktest.New(gprs()).Pipe()
		defer near.Close()
		defer far.Close()
		start := time.Now()
		if _, err := near.Write(make([]byte, 1360)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(far, make([]byte, 1360)); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(start), 860*time.Millisecond; got != want {
			t.Errorf("a segment took %v, want %v", got, want)
		}
	})
}

func TestABulkTransferRunsAtTheRateAndInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := linktest.New(gprs())
		near, far := link.Pipe()
		defer far.Close()
		sent := pattern(100 * 1360)
		start := time.Now()
		go func() {
			_, _ = near.Write(sent)
			_ = near.Close()
		}()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes of %d, equal %v, %v", len(got), len(sent), bytes.Equal(got, sent), err)
		}
		// The end of the stream is a segment of 40 bytes: 16 ms.
		if got, want := time.Since(start), 100*560*time.Millisecond+16*time.Millisecond+300*time.Millisecond; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
		out, back := link.Stats()
		if out.Bytes != 136_000 || out.Wire != 100*1400+40 || back.Bytes != 0 {
			t.Errorf("counted %+v and %+v", out, back)
		}
	})
}

func TestConnectionsShareTheWire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := linktest.New(gprs())
		var all sync.WaitGroup
		start := time.Now()
		for range 2 {
			near, far := link.Pipe()
			all.Go(func() { _, _ = near.Write(make([]byte, 10*1360)); _ = near.Close() })
			all.Go(func() { _, _ = io.Copy(io.Discard, far); _ = far.Close() })
		}
		all.Wait()
		if got, floor := time.Since(start), 20*560*time.Millisecond; got < floor {
			t.Errorf("two connections took %v, the wire needs %v", got, floor)
		}
	})
}

func TestWriteBlocksWhenTheQueueIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := gprs()
		c.Queue = 2800
		near, far := linktest.New(c).Pipe()
		defer near.Close()
		defer far.Close()
		if err := near.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := near.Write(make([]byte, 10*1360))
		if !errors.Is(err, os.ErrDeadlineExceeded) || n != 3*1360 {
			t.Errorf("wrote %d, %v; want three segments and the deadline", n, err)
		}
		if err := near.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, far) }()
		if n, err := near.Write(make([]byte, 10*1360)); n != 10*1360 || err != nil {
			t.Errorf("afterwards: %d, %v", n, err)
		}
	})
}

func TestWriteBlocksWhenNobodyReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := linktest.New(linktest.Config{Window: 5000}).Pipe()
		defer near.Close()
		defer far.Close()
		_ = near.SetWriteDeadline(time.Now().Add(time.Hour))
		if n, err := near.Write(make([]byte, 9000)); n != 5000 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
}

func TestDeadlinesWakeABlockedRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := linktest.New(gprs())
		near, far := link.Pipe()
		defer far.Close()
		start := time.Now()
		_ = near.SetReadDeadline(start.Add(3 * time.Second))
		_, err := near.Read(make([]byte, 1))
		var n net.Error
		if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &n) || !n.Timeout() || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		_ = near.SetReadDeadline(time.Time{})
		link.Set(linktest.BlackHole)
		go func() {
			time.Sleep(time.Second)
			_ = near.SetReadDeadline(time.Unix(1, 0)) // as a cancel does
		}()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a past deadline in a black hole: %v", err)
		}
		_ = near.Close()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// The negative control of every test that leans on outages: in one, nothing
// passes; afterwards what was on its way arrives, unharmed and in order.
func TestABlackHolePassesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := linktest.New(gprs())
		near, far := link.Pipe()
		defer far.Close()
		sent := pattern(20 * 1360)
		go func() { _, _ = near.Write(sent); _ = near.Close() }()
		head := make([]byte, 1360)
		if _, err := io.ReadFull(far, head); err != nil {
			t.Fatal(err)
		}
		link.Set(linktest.BlackHole)
		_ = far.SetReadDeadline(time.Now().Add(72 * time.Hour))
		if n, err := far.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("in the outage came %d bytes, %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := link.Dial(ctx, "", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dialing in the outage: %v", err)
		}
		_ = far.SetReadDeadline(time.Time{})
		link.Set(linktest.Up)
		rest, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(append(head, rest...), sent) {
			t.Errorf("afterwards %d bytes, %v", len(rest), err)
		}
	})
}

func TestANATForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := gprs()
		c.Forget, c.Window = 5*time.Minute, 5000
		near, far := linktest.New(c).Pipe()
		defer near.Close()
		defer far.Close()
		got := make([]byte, 1)
		for range 3 {
			time.Sleep(4 * time.Minute)
			_, _ = near.Write([]byte("x"))
			if _, err := io.ReadFull(far, got); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5*time.Minute + time.Second)
		for _, c := range []net.Conn{near, far} {
			_ = c.SetDeadline(time.Now().Add(time.Hour))
		}
		if n, err := near.Write(make([]byte, 9000)); n != 5000 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
		if n, err := far.Read(got); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
	})
}

func TestACutResetsAndRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := linktest.New(linktest.Config{})
		near, far := link.Pipe()
		defer near.Close()
		defer far.Close()
		go func() { time.Sleep(time.Second); link.Set(linktest.Cut) }()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if _, err := near.Write(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
		if _, err := link.Dial(t.Context(), "", ""); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		link.Set(linktest.Up)
		c, err := link.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
}

func TestDialTakesARoundTripAndAcceptGivesTheOtherEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		link := linktest.New(gprs())
		in := link.Listener()
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() {
			c, err := in.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(c, c)
			_ = c.Close()
		})
		start := time.Now()
		c, err := link.Dial(t.Context(), "tcp", "broker:1883")
		if err != nil || time.Since(start) != 600*time.Millisecond {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		_, _ = c.Write([]byte("x"))
		got := make([]byte, 1)
		if _, err := io.ReadFull(c, got); err != nil || got[0] != 'x' {
			t.Errorf("echo: %q, %v", got, err)
		}
		_ = c.Close()
		_ = in.Close()
		if _, err := in.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
	})
}

func TestLossDelaysAndKeepsTheOrder(t *testing.T) {
	t.Parallel()
	took := func(loss float64, seed uint64) (d time.Duration, lost uint64) {
		synctest.Test(t, func(t *testing.T) {
			c := gprs()
			c.Loss, c.Seed, c.Window = loss, seed, 1<<20
			link := linktest.New(c)
			near, far := link.Pipe()
			defer far.Close()
			sent := pattern(200 * 1360)
			start := time.Now()
			go func() { _, _ = near.Write(sent); _ = near.Close() }()
			got, err := io.ReadAll(far)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("loss %v: %d bytes, %v", loss, len(got), err)
			}
			out, _ := link.Stats()
			d, lost = time.Since(start), out.Lost
		})
		return d, lost
	}
	clean, none := took(0, 1)
	bad, some := took(0.1, 1)
	again, same := took(0.1, 1)
	if none != 0 || some < 5 || some > 50 || bad <= clean {
		t.Errorf("clean %v with %d lost, bad %v with %d lost", clean, none, bad, some)
	}
	if bad != again || some != same {
		t.Errorf("one seed, two runs: %v and %v", bad, again)
	}
}

func TestCloseIsSeenByThePeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := linktest.New(gprs()).Pipe()
		_ = near.Close()
		if _, err := far.Write([]byte("early")); err != nil {
			t.Errorf("before the news arrived: %v", err)
		}
		if n, err := far.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read: %d, %v", n, err)
		}
		if _, err := far.Write([]byte("late")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("after the news: %v", err)
		}
		_ = far.Close()
	})
}

func TestProxyCarriesRealSockets(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			all.Go(func() { _, _ = io.Copy(c, c); _ = c.Close() })
		}
	})
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link := linktest.New(linktest.Config{Delay: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	all.Go(func() {
		if err := link.Proxy(ctx, in, server.Addr().String()); err != nil {
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", in.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	sent := pattern(300_000)
	all.Go(func() { _, _ = c.Write(sent); _ = c.(*net.TCPConn).CloseWrite() })
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
	_ = c.Close()
	if out, back := link.Stats(); out.Bytes != 300_000 || back.Bytes != 300_000 {
		t.Errorf("counted %+v, %+v", out, back)
	}

	c, err = net.Dial("tcp", in.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	link.Set(linktest.Cut)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("in a cut the client sees %v", err)
	}
	_ = c.Close()
	cancel()
	_ = server.Close()
}
