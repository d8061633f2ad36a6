package line_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/line"
)

// busHose is a hose that cannot be gone at its other end.
type busHose struct{ hose }

func (busHose) IsBus() {}

// TestDoubt: a medium in doubt stays as long as it is likely to be well.
func TestDoubt(t *testing.T) {
	t.Parallel()
	type step struct {
		pause time.Duration
		hears bool // else it is in doubt
		opens int  // after it, by the next exchange
	}
	for title, c := range map[string]struct {
		isBus bool
		steps []step
	}{
		"a bus that is heard":               {true, []step{{0, true, 1}, {time.Hour, false, 1}, {30 * time.Second, false, 1}, {time.Second, true, 1}, {29 * time.Second, false, 1}, {59 * time.Second, false, 1}}},
		"a bus that is deaf":                {true, []step{{0, false, 1}, {59 * time.Second, false, 1}, {time.Second, false, 2}, {0, false, 2}, {59 * time.Second, false, 2}}},
		"a connection never heard":          {false, []step{{0, false, 2}}},
		"a connection heard just before":    {false, []step{{0, true, 1}, {59 * time.Second, false, 1}, {time.Second, false, 2}, {0, false, 3}}},
		"a connection heard some time past": {false, []step{{0, true, 1}, {time.Minute, false, 2}}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				opens := 0
				var there net.Conn
				l := line.Of("wire", func(context.Context, line.Settings) (line.Medium, error) {
					var here net.Conn
					here, there = net.Pipe()
					opens++
					if c.isBus {
						return busHose{hose{here}}, nil
					}
					return hose{here}, nil
				})
				do := func(f func(line.Port)) {
					err := l.Do(t.Context(), line.Settings{}, func(_ context.Context, p line.Port) error { f(p); return nil })
					if err != nil {
						t.Fatal(err)
					}
				}
				for i, s := range c.steps {
					<-time.NewTimer(s.pause).C
					do(func(p line.Port) {
						if !s.hears {
							p.Doubt()
							p.Doubt()
							return
						}
						go func() { _, _ = there.Write([]byte{1}) }()
						if _, err := p.Read(make([]byte, 1)); err != nil {
							t.Error(err)
						}
					})
					if do(func(line.Port) {}); opens != s.opens {
						t.Errorf("after step %d: opened %d times, want %d", i, opens, s.opens)
					}
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
