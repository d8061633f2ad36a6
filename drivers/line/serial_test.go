package line_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

func pty(t *testing.T) *drivertest.Terminal {
	t.Helper()
	tty, err := drivertest.Pty()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return tty
}

// options keep the lock files of tests to themselves.
func options(t *testing.T) line.Options {
	return line.Options{LockDir: t.TempDir(), Program: "the-test"}
}

func closing(t *testing.T, l *line.Line) *line.Line {
	t.Helper()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// echo answers each byte b with b+1 until the terminal is closed.
func echo(t *testing.T, rw io.ReadWriter) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 64)
		for {
			n, err := rw.Read(b)
			if err != nil {
				return
			}
			for i := range b[:n] {
				b[i]++
			}
			if _, err := rw.Write(b[:n]); err != nil {
				return
			}
		}
	})
	if c, ok := rw.(io.Closer); ok {
		t.Cleanup(func() { _ = c.Close(); wg.Wait() })
	}
}

// ask writes b and expects b+1.
func ask(ctx context.Context, l *line.Line, b byte) error {
	return l.Do(ctx, line.Settings{}, func(_ context.Context, p line.Port) error {
		if err := p.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := p.Write([]byte{b}); err != nil {
			return err
		}
		var got [1]byte
		if _, err := io.ReadFull(p, got[:]); err != nil {
			return err
		}
		if got[0] != b+1 {
			return fmt.Errorf("asked %d, got %d", b, got[0])
		}
		return nil
	})
}

func TestOneExchangeAtATime(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	echo(t, tty)
	l := closing(t, line.Serial(tty.Path, options(t)))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if err := ask(t.Context(), l, byte(i*20+j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestReadTimesOut(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := closing(t, line.Serial(tty.Path, options(t)))
	err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
		if err := p.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			return err
		}
		_, err := io.ReadFull(p, make([]byte, 1)) // must not spin on (0, nil)
		return err
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(err.Error(), "line "+tty.Path+": ") {
		t.Fatalf("got %v", err)
	}
	echo(t, tty)
	if err := ask(t.Context(), l, 1); err != nil {
		t.Fatalf("the next exchange: %v", err)
	}
}

func TestDiscardDropsWhatCame(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := closing(t, line.Serial(tty.Path, options(t)))
	err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
		if _, err := tty.Write([]byte("late")); err != nil {
			return err
		}
		one := make([]byte, 1)
		if _, err := p.Read(one); err != nil { // it has arrived
			return err
		}
		if err := p.Discard(); err != nil {
			return err
		}
		if _, err := tty.Write([]byte("x")); err != nil {
			return err
		}
		if _, err := p.Read(one); err != nil || one[0] != 'x' {
			return fmt.Errorf("read %q, %w", one, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCancelInterruptsRead(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := closing(t, line.Serial(tty.Path, options(t)))
	why := errors.New("the reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := l.Do(ctx, line.Settings{}, func(_ context.Context, p line.Port) error {
		cancel(why)
		_, err := p.Read(make([]byte, 1)) // without any deadline
		if serr := p.SetDeadline(time.Now().Add(time.Hour)); serr != nil {
			return serr
		}
		_, again := p.Read(make([]byte, 1)) // a new deadline does not undo the cancellation
		if !errors.Is(again, why) {
			t.Errorf("second read: %v", again)
		}
		return err
	})
	if !errors.Is(err, why) {
		t.Fatalf("got %v, want the cause", err)
	}
	echo(t, tty)
	if err := ask(t.Context(), l, 1); err != nil {
		t.Fatalf("the next exchange: %v", err)
	}
}

func TestCancelEndsWaiting(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := closing(t, line.Serial(tty.Path, options(t)))
	err := l.Do(t.Context(), line.Settings{}, func(ctx context.Context, _ line.Port) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if err := ask(ctx, l, 1); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("waiting gave %w", err)
		}
		if _, err := l.Lend(ctx); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("lend gave %w", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPortIsVoidAfterTheExchange(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := closing(t, line.Serial(tty.Path, options(t)))
	var kept line.Port
	err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
		kept = p
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Write([]byte{1}); !errors.Is(err, line.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if _, err := kept.Read(make([]byte, 1)); !errors.Is(err, line.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	kept.Drop()
	echo(t, tty)
	if err := ask(t.Context(), l, 1); err != nil {
		t.Error(err)
	}
}

func TestSettingsChangeBetweenExchanges(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := closing(t, line.Serial(tty.Path, options(t)))
	for _, c := range []struct {
		s     line.Settings
		baud  uint32
		cstop bool
	}{
		{line.Settings{}, unix.B9600, false},
		{line.Settings{Baud: 2400, StopBits: 2}, unix.B2400, true},
		{line.Settings{Baud: 115200, Parity: 'E'}, unix.B115200, false},
		{line.Settings{Baud: 9600}, unix.B9600, false},
	} {
		err := l.Do(t.Context(), c.s, func(context.Context, line.Port) error {
			f, err := os.OpenFile(tty.Path, os.O_RDWR|unix.O_NOCTTY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			got, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
			if err != nil {
				return err
			}
			if got.Cflag&unix.CBAUD != c.baud || got.Cflag&unix.CSTOPB != 0 != c.cstop {
				return fmt.Errorf("%v gave flags %o", c.s, got.Cflag)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if err := l.Do(t.Context(), line.Settings{Parity: 'X'}, nil); err == nil || !strings.Contains(err.Error(), "parity") {
		t.Errorf("parity X: %v", err)
	}
}

func TestNoSuchPort(t *testing.T) {
	t.Parallel()
	l := closing(t, line.Serial("/dev/ttyNOT0", options(t)))
	err := ask(t.Context(), l, 1)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "line /dev/ttyNOT0: no such port: is the adapter plugged in?") {
		t.Fatalf("got %v", err)
	}
	file := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l = closing(t, line.Serial(file, options(t)))
	if err := ask(t.Context(), l, 1); err == nil || !strings.Contains(err.Error(), "not a serial port") || errors.Is(err, meter.ErrNoLine) {
		t.Fatalf("a plain file: %v", err)
	}
}

func TestBusyNamesTheHolder(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	echo(t, tty)
	o := options(t)
	first, second := closing(t, line.Serial(tty.Path, o)), closing(t, line.Serial(tty.Path, o))
	if err := ask(t.Context(), first, 1); err != nil {
		t.Fatal(err)
	}
	var busy *line.BusyError
	if err := ask(t.Context(), second, 1); !errors.As(err, &busy) || !errors.Is(err, meter.ErrNoLine) {
		t.Fatalf("got %v", err)
	}
	if want := fmt.Sprintf("the-test (pid %d)", os.Getpid()); busy.Holder != want || busy.Line != tty.Path {
		t.Errorf("got %+v, want the holder %s", busy, want)
	}
	giveBack, err := first.Lend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(t.Context(), second, 2); err != nil {
		t.Errorf("while the line is lent: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	giveBack()
	giveBack() // once is enough
	if err := ask(t.Context(), first, 3); err != nil {
		t.Errorf("given back: %v", err)
	}
}

func TestALineThatIsLentWaits(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	echo(t, tty)
	l := closing(t, line.Serial(tty.Path, options(t)))
	giveBack, err := l.Lend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- ask(t.Context(), l, 1) }()
	select {
	case err := <-done:
		t.Fatalf("the line was used while it was lent: %v", err)
	default:
	}
	giveBack()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A child that lives longer than the exchange must not keep the port.
func TestChildrenDoNotInheritThePort(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := closing(t, line.Serial(tty.Path, options(t)))
	err := l.Do(t.Context(), line.Settings{}, func(ctx context.Context, _ line.Port) error {
		out, err := exec.CommandContext(ctx, "ls", "-l", "/proc/self/fd").CombinedOutput()
		if strings.Contains(string(out), tty.Path+"\n") || strings.Contains(string(out), ".lock") {
			t.Errorf("a child inherits the port:\n%s", out)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnpluggedAndPluggedIn(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"in an exchange", "when idle"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "by-id")
			tty := pty(t)
			if err := os.Symlink(tty.Path, path); err != nil {
				t.Fatal(err)
			}
			l := closing(t, line.Serial(path, options(t)))
			err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
				if when == "when idle" {
					return nil
				}
				_ = tty.Close()
				_, err := p.Read(make([]byte, 1))
				if !errors.Is(err, meter.ErrNoLine) || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "input/output error") {
					t.Errorf("read from an unplugged port: %v", err)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			_ = tty.Close()
			_ = os.Remove(path)
			if err := ask(t.Context(), l, 1); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, meter.ErrNoLine) {
				t.Errorf("unplugged: %v", err)
			}
			tty = pty(t)
			echo(t, tty)
			if err := os.Symlink(tty.Path, path); err != nil {
				t.Fatal(err)
			}
			if err := ask(t.Context(), l, 2); err != nil {
				t.Errorf("plugged in again: %v", err)
			}
		})
	}
}

func TestCloseInterrupts(t *testing.T) {
	t.Parallel()
	tty := pty(t)
	l := line.Serial(tty.Path, options(t))
	reading := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
			close(reading)
			_, err := p.Read(make([]byte, 1))
			return err
		})
	}()
	<-reading
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, line.ErrClosed) {
		t.Fatalf("the exchange: %v", err)
	}
	if err := ask(t.Context(), l, 1); !errors.Is(err, line.ErrClosed) {
		t.Fatalf("after close: %v", err)
	}
}
