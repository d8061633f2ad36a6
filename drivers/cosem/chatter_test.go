package cosem

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/hdlc"
	"gridgate/drivers/line"
)

// TestDeadAfterNonsense: a meter that says nonsense and then nothing costs the
// line one time-out.
func TestDeadAfterNonsense(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dead := false
		l := pipe(t, func(f hdlc.Frame) *hdlc.Frame {
			switch {
			case dead:
				return nil
			case f.Control == hdlc.SNRM:
				return &hdlc.Frame{Control: hdlc.UA}
			}
			dead = true
			return &hdlc.Frame{Control: hdlc.Information(0, 1, true), Info: []byte("nonsense")}
		})
		m := New(Config{ID: "m1", HDLC: &HDLC{}, Timeout: 8 * time.Second, Now: (&turnable{at: start()}).now}, l)
		begin := time.Now()
		_, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
		if took := time.Since(begin); !errors.Is(err, hdlc.ErrLLC) || took > 8500*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// babble is a medium on which something comes all the time.
type babble struct{ hose }

func (babble) Write(b []byte) (int, error)   { return len(b), nil }
func (babble) SetDeadline(t time.Time) error { return nil }
func (babble) Close() error                  { return nil }
func (babble) Read(b []byte) (int, error) {
	<-time.NewTimer(10 * time.Millisecond).C
	return copy(b, "~\xA0U"), nil
}

// TestBabble: a line that is never silent is given up, with what a meter may
// still have to say, too.
func TestBabble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := line.Of("babble", func(context.Context, line.Settings) (line.Medium, error) { return babble{}, nil })
		w := &wire{line: l, timeout: 8 * time.Second, open: true}
		begin := time.Now()
		w.due = begin.Add(8 * time.Second)
		err := l.Do(t.Context(), line.Settings{}, func(ctx context.Context, p line.Port) error {
			w.port = p
			return w.swallow(ctx, hdlc.ClientAddress(16))
		})
		if took := time.Since(begin); err != nil || w.open || took > time.Minute {
			t.Errorf("%v after %v, open %t", err, took, w.open)
		}
	})
}
