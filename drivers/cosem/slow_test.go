package cosem

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// trickle is a stream on which what is written comes in pieces of 16 octets, a
// pause before each.
type trickle struct {
	io.ReadWriter
	pause time.Duration
}

func (s trickle) Write(b []byte) (int, error) {
	for piece := range slices.Chunk(b, 16) {
		<-time.NewTimer(s.pause).C
		if _, err := s.ReadWriter.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// TestSlowAnswers: an answer in the wrapper may take long, as long as it goes on.
func TestSlowAnswers(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		pause time.Duration
		words string // "" is well
		least time.Duration
		most  time.Duration
	}{
		"goes on":        {500 * time.Millisecond, "", 6 * time.Second, 20 * time.Second},
		"stops":          {3 * time.Second, "no answer within 2s", 2 * time.Second, 3 * time.Second},
		"takes for ever": {1900 * time.Millisecond, "it stopped on its way, for 2s, or takes over 20 times that long", 40 * time.Second, 60 * time.Second},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var served sync.WaitGroup
				m := dlmstest.NewMeter(dlmstest.Options{Objects: append(objects("A1"), dlmstest.Data(obisOf("0-0:96.13.0"), fixed(axdr.OctetString(strings.Repeat("x", 400)))))})
				l := line.Of("slow", func(context.Context, line.Settings) (line.Medium, error) {
					here, there := net.Pipe()
					served.Go(func() {
						_ = m.Serve(trickle{there, c.pause})
						_ = there.Close()
					})
					return hose{here}, nil
				})
				begin := time.Now()
				got, err := New(Config{ID: "m1", Timeout: 2 * time.Second, Now: (&turnable{at: start()}).now}, l).Visit(t.Context(), registers(t, "0-0:96.13.0/1:2"))
				took := time.Since(begin)
				switch {
				case took < c.least || took > c.most:
					t.Errorf("it took %v", took)
				case c.words == "" && (err != nil || len(got.Rows) != 1):
					t.Errorf("%v, %s", err, describe(got))
				case c.words != "" && (!errors.Is(err, meter.ErrNoAnswer) || !strings.Contains(err.Error(), c.words)):
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
