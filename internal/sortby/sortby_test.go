package sortby

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestStable(t *testing.T) {
	t.Parallel()
	type pair struct{ key, at int }
	byKey := func(a, b pair) int { return cmp.Compare(a.key, b.key) }
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test's
	for n := range 200 {
		ours := make([]pair, n)
		for i := range ours {
			ours[i] = pair{rng.IntN(10), i}
		}
		theirs := slices.Clone(ours)
		Stable(ours, byKey)
		slices.SortStableFunc(theirs, byKey)
		if !slices.Equal(ours, theirs) {
			t.Fatalf("%v, want %v", ours, theirs)
		}
	}
}
