package cosem

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// troubled is the meter's end of a line, on which nth says what becomes of each
// frame of the meter: how late it is, and whether it comes at all.
type troubled struct {
	io.ReadWriter
	frames int
	nth    func(n int) (late time.Duration, lost bool)
}

func (s *troubled) Write(b []byte) (int, error) {
	s.frames++
	late, lost := s.nth(s.frames)
	<-time.NewTimer(late).C
	if lost {
		return len(b), nil
	}
	return s.ReadWriter.Write(b)
}

// TestLossesCostLittle: within a connection an answer that is lost is asked for
// again as soon as it is later than answers are, and one that is late is taken
// for what it answers. A meter that is gone is waited for as long as ever.
func TestLossesCostLittle(t *testing.T) {
	t.Parallel()
	const usual, timeout = 150 * time.Millisecond, 5 * time.Second
	at := start().Add(-100 * quarter)
	ask, all := whole(t, at)
	want, err := newRig(t, dlmstest.Options{Objects: all}).driver(t, Config{}).Visit(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	for title, c := range map[string]struct {
		nth         func(n int) (time.Duration, bool)
		least, most time.Duration
		fails       bool
	}{
		"all is well":   {func(int) (time.Duration, bool) { return usual, false }, 0, 15 * time.Second, false},
		"a third lost":  {func(n int) (time.Duration, bool) { return usual, n%3 == 0 && n > 3 }, 10 * time.Second, 40 * time.Second, false},
		"a third late":  {func(n int) (time.Duration, bool) { return []time.Duration{usual, usual, 2 * time.Second}[n%3], false }, 20 * time.Second, 60 * time.Second, false},
		"always slow":   {func(int) (time.Duration, bool) { return 3 * time.Second, false }, 60 * time.Second, 240 * time.Second, false},
		"gone":          {func(n int) (time.Duration, bool) { return usual, n > 10 }, 3 * timeout, 3*timeout + 5*time.Second, true},
		"silent at all": {func(int) (time.Duration, bool) { return usual, true }, timeout, timeout + time.Second, true},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var served sync.WaitGroup
				simulated := dlmstest.NewMeter(dlmstest.Options{Objects: all})
				l := line.Of("troubled", func(context.Context, line.Settings) (line.Medium, error) {
					here, there := net.Pipe()
					served.Go(func() {
						_ = simulated.ServeHDLC(&troubled{ReadWriter: newEnd(there, &busyMeter{}), nth: c.nth}, dlmstest.Station{})
						_ = there.Close()
					})
					return hose{here}, nil
				})
				m := New(Config{ID: "m1", HDLC: &HDLC{}, Timeout: timeout, Now: (&turnable{at: start()}).now}, l)
				begin := time.Now()
				got, err := m.Visit(t.Context(), ask)
				took := time.Since(begin)
				t.Logf("%v, %d rows", took, len(got.Rows))
				if took < c.least || took > c.most {
					t.Errorf("it took %v", took)
				}
				if wrong := asIfWhole(got, want); !c.fails && (err != nil || wrong != nil) {
					t.Errorf("%v, %v", err, wrong)
				} else if c.fails && !errors.Is(err, meter.ErrNoAnswer) {
					t.Error(err)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				served.Wait()
			})
		})
	}
}
