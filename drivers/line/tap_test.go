package line_test

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/drivertest"
	"gridgate/drivers/line"
)

func nine() line.Settings { return line.Settings{Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1} }

// echoed sends b on a line whose other end sends it back, and reads it.
func echoed(t *testing.T, l *line.Line, b string) {
	t.Helper()
	err := l.Do(t.Context(), nine(), func(_ context.Context, port line.Port) error {
		if err := port.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := port.Write([]byte(b)); err != nil {
			return err
		}
		_, err := io.ReadFull(port, make([]byte, len(b)))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// onEcho runs do on a line that echoes, in simulated time.
func onEcho(t *testing.T, do func(t *testing.T, l *line.Line)) {
	synctest.Test(t, func(t *testing.T) {
		w := drivertest.NewWire(nine())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(w.Meter(t.Context()), onlyReader{w.Meter(t.Context())}) })
		l := w.Line()
		do(t, l)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = w.Close()
		wg.Wait()
	})
}

type onlyReader struct{ io.Reader }

func TestTapHearsBothWays(t *testing.T) {
	t.Parallel()
	onEcho(t, func(t *testing.T, l *line.Line) {
		echoed(t, l, "before")
		passed, stop, ok := l.Tap()
		if !ok {
			t.Fatal("nobody else listens")
		}
		echoed(t, l, "hello")
		stop()
		stop()
		echoed(t, l, "after")
		var sent, heard bytes.Buffer
		for p := range passed {
			if p.Sent {
				sent.Write(p.Data)
			} else {
				heard.Write(p.Data)
			}
			if p.Settings != nine() || p.Lost != 0 || p.At.IsZero() {
				t.Errorf("%+v", p)
			}
		}
		if sent.String() != "hello" || heard.String() != "hello" {
			t.Errorf("sent %q, heard %q", &sent, &heard)
		}
	})
}

// Who does not keep up delays nobody, and is told how much is missing.
func TestATapThatSleepsLosesWhatItIsToldOf(t *testing.T) {
	t.Parallel()
	onEcho(t, func(t *testing.T, l *line.Line) {
		passed, stop, _ := l.Tap()
		defer stop()
		const rounds = 400 // a piece each way, at least
		for range rounds {
			echoed(t, l, "x")
		}
		got := 0
		for len(passed) > 0 {
			if p := <-passed; p.Lost != 0 {
				t.Errorf("lost %d before the queue was full", p.Lost)
			}
			got++
		}
		echoed(t, l, "y")
		p := <-passed
		if p.Lost+got != 2*rounds || p.Lost == 0 || string(p.Data) != "y" {
			t.Errorf("%d came, then %d were missing before %q; want %d in all", got, p.Lost, p.Data, 2*rounds)
		}
	})
}

func TestTapsEndWithTheLineAndAreFew(t *testing.T) {
	t.Parallel()
	onEcho(t, func(t *testing.T, l *line.Line) {
		var all []<-chan line.Passed
		for {
			passed, stop, ok := l.Tap()
			if !ok {
				break
			}
			defer stop() // after the line is closed
			if all = append(all, passed); len(all) > 100 {
				t.Fatal("there is no end of taps")
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for _, passed := range all {
			if _, open := <-passed; open {
				t.Error("a tap is open on a closed line")
			}
		}
		if len(all) < 2 {
			t.Errorf("%d taps", len(all))
		}
	})
}
