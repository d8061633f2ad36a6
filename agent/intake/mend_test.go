package intake

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/meter"
)

// TestNoRoundForgetsAGap pins that a gap which is added to a stored cursor stays:
// neither a round that waits nor one that is being read takes it away.
func TestNoRoundForgetsAGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		in, stop := start(t, m, time.Minute, 1<<20)
		profile := func(n uint64) []meter.Row { return []meter.Row{row(meter.Interval, n)} }
		cursor := func(id meter.ID, at int64) meter.Cursor {
			return meter.Cursor{Meter: id, Serial: "s", Profile: "p", Time: at}
		}
		gap := meter.Gap{From: 10, To: 50}
		ask := func(id meter.ID) meter.Cursor {
			c, _, err := in.Cursor(id, "s", "p")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		m.cursors = []meter.Cursor{cursor("waits", 100), cursor("reads", 100), cursor("later", 100)}
		waits, reads := ask("waits"), ask("reads")
		waits.Time, reads.Time = 200, 200
		in.Submit(profile(1), []meter.Cursor{waits}, nil)
		synctest.Wait()

		in.Mend(func(context.Context) (meter.Gap, []meter.Cursor) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for i := range m.cursors {
				m.cursors[i].Gaps = m.cursors[i].Gaps.With(gap)
			}
			return gap, m.cursors
		})
		synctest.Wait()
		in.Submit(profile(2), []meter.Cursor{reads}, nil) // asked before, brought after
		later := ask("later")
		later.Time = 200
		in.Submit(profile(3), []meter.Cursor{later}, nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()

		for _, id := range []meter.ID{"waits", "reads", "later"} {
			want := int64(200)
			if id == "reads" {
				want = 100 // its round was given up
			}
			c := ask(id)
			if got := c.Gaps.List(); c.Time != want || len(got) != 1 || got[0] != gap {
				t.Errorf("%s: read to %d, want %d; gaps %v, want %v", id, c.Time, want, got, gap)
			}
		}
		if s := in.Stats(); s.Reread != 1 || s.Stored != 2 {
			t.Errorf("%+v", s)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
