package line_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gridgate/drivers/line"
)

// serve accepts connections and gives them to f, one after another.
func serve(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f(c)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

func TestTCPReconnectsAfterAHangUp(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 8)
	addr := serve(t, func(c net.Conn) { // answers once, then hangs up
		b := make([]byte, 1)
		if _, err := c.Read(b); err == nil {
			b[0]++
			_, _ = c.Write(b)
		}
		_ = c.Close()
		closed <- struct{}{}
	})
	l := closing(t, line.TCP(addr, line.Options{}))
	for i := range 3 {
		if err := ask(t.Context(), l, byte(i)); err != nil {
			t.Fatalf("exchange %d: %v", i, err)
		}
		<-closed
	}
	if got := opened(t, l); got < 3 {
		t.Errorf("opened %d times, want 3 or more", got)
	}
}

func opened(t *testing.T, l *line.Line) (n uint64) {
	t.Helper()
	if err := l.Do(t.Context(), line.Settings{}, func(context.Context, line.Port) error { n = l.Opened(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTCPDropAndTimeout(t *testing.T) {
	t.Parallel()
	addr := serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	l := closing(t, line.TCP(addr, line.Options{}))
	err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
		if err := p.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			return err
		}
		_, err := p.Read(make([]byte, 1))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		if err := p.Discard(); err != nil { // past the deadline it works all the same
			t.Errorf("discard: %v", err)
		}
		p.Drop()
		_, err = p.Read(make([]byte, 1))
		return err
	})
	if !errors.Is(err, line.ErrClosed) {
		t.Errorf("read after Drop: %v", err)
	}
	if got := opened(t, l); got != 2 {
		t.Errorf("opened %d times, want 2", got)
	}
}

func TestTCPDiscard(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{})
	more := make(chan struct{})
	addr := serve(t, func(c net.Conn) {
		_, _ = c.Write([]byte("late"))
		close(sent)
		<-more
		_, _ = c.Write([]byte("x"))
	})
	l := closing(t, line.TCP(addr, line.Options{}))
	err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
		<-sent
		one := make([]byte, 1)
		if _, err := p.Read(one); err != nil { // it has arrived
			return err
		}
		if err := p.Discard(); err != nil {
			return err
		}
		close(more)
		if _, err := p.Read(one); err != nil || one[0] != 'x' {
			t.Errorf("read %q, %v", one, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTCPRefusedSaysWhatToDo(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	err = ask(t.Context(), line.TCP(addr, line.Options{}), 1)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.HasPrefix(err.Error(), "line "+addr+": ") || !strings.Contains(err.Error(), "is the port number right") {
		t.Fatalf("got %v", err)
	}
}

func TestOfPassesErrorsOn(t *testing.T) {
	t.Parallel()
	want := errors.New("not today")
	l := line.Of("x", func(context.Context, line.Settings) (line.Medium, error) { return nil, want })
	if err := ask(t.Context(), l, 1); !errors.Is(err, want) || !strings.HasPrefix(err.Error(), "line x: ") {
		t.Fatalf("got %v", err)
	}
}
