package line_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/line"
)

// hose is one end of a line in memory as a medium.
type hose struct{ net.Conn }

func (hose) Discard() error            { return nil }
func (hose) Apply(line.Settings) error { return nil }
func (hose) Stale() bool               { return false }

// silentLine is a line on which nothing comes.
func silentLine(t *testing.T) (l *line.Line, opens *int) {
	t.Helper()
	opens = new(int)
	l = line.Of("wire", func(context.Context, line.Settings) (line.Medium, error) {
		here, there := net.Pipe()
		*opens++
		t.Cleanup(func() { there.Close() })
		return hose{here}, nil
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, opens
}

// cutShort has an exchange whose context ends, with a farewell.
func cutShort(t *testing.T, l *line.Line, limit time.Duration, say func(context.Context, line.Port) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	err := l.Do(ctx, line.Settings{}, func(_ context.Context, p line.Port) error {
		cancel()
		p.Farewell(limit, say)
		_, err := p.Read(make([]byte, 1))
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cut short: %v", err)
	}
}

func TestFarewell(t *testing.T) {
	t.Parallel()
	wait := func(_ context.Context, p line.Port) error { // for two seconds, and nothing comes
		if err := p.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		_, err := p.Read(make([]byte, 1))
		return err
	}
	for title, c := range map[string]struct {
		limit time.Duration
		say   func(context.Context, line.Port) error
		after time.Duration // the line is free
		opens int
	}{
		"well": {time.Minute, func(ctx context.Context, p line.Port) error {
			if err := wait(ctx, p); !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
				t.Errorf("it was interrupted: %v", err)
			}
			return nil
		}, 2 * time.Second, 1},
		"failed":   {time.Minute, wait, 2 * time.Second, 2},
		"too long": {time.Second, wait, time.Second, 2},
		"dropped":  {time.Minute, func(_ context.Context, p line.Port) error { p.Drop(); return nil }, 0, 2},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, opens := silentLine(t)
				begin := time.Now()
				cutShort(t, l, c.limit, c.say)
				if took := time.Since(begin); took != 0 {
					t.Errorf("the caller waited for %v", took)
				}
				giveBack, err := l.Lend(t.Context())
				if took := time.Since(begin); err != nil || took != c.after {
					t.Errorf("lent after %v, %v", took, err)
				}
				giveBack()
				// Lend closes the port; what the farewell left shows without it.
				cutShort(t, l, c.limit, c.say)
				if err := l.Settle(t.Context()); err != nil {
					t.Error(err)
				}
				err = l.Do(t.Context(), line.Settings{}, func(context.Context, line.Port) error { return nil })
				if err != nil || *opens != 1+c.opens {
					t.Errorf("%d times opened, %v", *opens, err)
				}
			})
		})
	}
}

// TestFarewellWaitsForNobody: who has given up waiting for a line that is in a
// farewell is told so at once, and Close ends the farewell.
func TestFarewellWaitsForNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _ := silentLine(t)
		var farewell error
		cutShort(t, l, time.Hour, func(_ context.Context, p line.Port) error {
			_, farewell = io.ReadFull(p, make([]byte, 1))
			return farewell
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Settle(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("settled: %v", err)
		}
		begin := time.Now()
		if err := l.Close(); err != nil || time.Since(begin) != 0 || !errors.Is(farewell, line.ErrClosed) {
			t.Errorf("closed after %v, %v; the farewell ended with %v", time.Since(begin), err, farewell)
		}
		if err := l.Settle(t.Context()); !errors.Is(err, line.ErrClosed) {
			t.Errorf("settled when closed: %v", err)
		}
	})
}

// TestFarewellOfAClosedLine: an exchange that Close ended has none.
func TestFarewellOfAClosedLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _ := silentLine(t)
		done := make(chan error)
		go func() {
			done <- l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error {
				p.Farewell(time.Hour, func(context.Context, line.Port) error {
					t.Error("the line is closed, and somebody speaks on it")
					return nil
				})
				_, err := p.Read(make([]byte, 1))
				return err
			})
		}()
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, line.ErrClosed) {
			t.Error(err)
		}
	})
}
