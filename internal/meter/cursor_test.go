package meter

import (
	"math/rand/v2"
	"testing"
)

// TestGapsForgetNothing holds gaps against a set of moments: what was added and
// not read since is in a gap, whatever else is.
func TestGapsForgetNothing(t *testing.T) {
	t.Parallel()
	const span = 200
	random := rand.New(rand.NewPCG(1, 2))
	var g Gaps
	var want [span + 1]bool
	exact := 0
	for range 20000 {
		from := random.Int64N(span)
		gap := Gap{From: from, To: from + random.Int64N(span+1-from)}
		add := random.IntN(2) == 0
		if add {
			g = g.With(gap)
		} else {
			g = g.Without(gap)
		}
		for at := gap.From + 1; at <= gap.To; at++ {
			want[at] = add
		}
		var have [span + 1]bool
		list := g.List()
		for i, gap := range list {
			if gap.From >= gap.To || i > 0 && gap.To >= list[i-1].From {
				t.Fatalf("not in order: %v", list)
			}
			for at := gap.From + 1; at <= gap.To; at++ {
				have[at] = true
			}
		}
		for at := range want {
			if want[at] && !have[at] {
				t.Fatalf("%d was not read and is forgotten: %v", at, list)
			}
		}
		if have == want {
			exact++
		}
		want = have // joined gaps are gaps from now on
	}
	if exact < 19000 {
		t.Errorf("gaps were exact %d times of 20000", exact)
	}
}

func TestTooManyGapsJoinTheNearest(t *testing.T) {
	t.Parallel()
	var g Gaps
	for i := range int64(MaxGaps) {
		g = g.With(Gap{From: 100 * i, To: 100*i + 50})
	}
	g = g.With(Gap{From: 251 + 40, To: 295}) // 5 before the one that begins at 300
	list := g.List()
	if len(list) != MaxGaps || list[4] != (Gap{From: 291, To: 350}) {
		t.Errorf("%v", list)
	}
	if got := g.Without(Gap{}); got != g {
		t.Errorf("nothing read, and the gaps are %v", got)
	}
}
