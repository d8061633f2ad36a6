package ingest

import (
	"testing"
	"time"

	"gridgate/agent/batch"
)

func TestTellAgain(t *testing.T) {
	t.Parallel()
	now := time.Now()
	key := func(epoch uint64, lane batch.Lane) streamKey {
		return streamKey{Site: "s", Gateway: "g", Epoch: epoch, Lane: lane}
	}
	old, last := key(1, batch.Instant), key(2, batch.Instant)
	other, never := key(2, batch.Alarm), key(2, batch.Billing)
	s := &site{follows: map[streamKey]*follow{
		old: {progress: progress{through: 9}}, last: {progress: progress{through: 5}},
		other: {progress: progress{through: 7}}, never: {},
	}}
	for _, k := range []streamKey{old, last, other} {
		s.follows[k].news = true
		if now = now.Add(time.Minute); !s.follows[k].tells(now) {
			t.Fatalf("%v is not told", k)
		}
	}
	for k, f := range s.follows {
		if f.tells(now.Add(time.Minute)) {
			t.Errorf("%v is told twice over one connection", k)
		}
	}
	s.tellAgain()
	for k, f := range s.follows {
		if want := k == last || k == other; f.tells(now) != want {
			t.Errorf("%v is told again: %v", k, !want)
		}
	}
}
