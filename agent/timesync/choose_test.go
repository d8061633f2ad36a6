package timesync

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func between(lo, hi int) interval { return interval{ms(lo), ms(hi)} }

// says makes candidates of pairs: the best guess and how far it may be off, in
// milliseconds.
func says(pairs ...int) (list []candidate) {
	for i := 0; i < len(pairs); i += 2 {
		best, width := ms(pairs[i]), ms(pairs[i+1])
		list = append(list, candidate{i / 2, best, interval{best - width, best + width}})
	}
	return list
}

func TestChoose(t *testing.T) {
	t.Parallel()
	nowhere := interval{-time.Hour, -time.Hour}
	here := between(-1, 1)
	tests := []struct {
		name       string
		configured int
		candidates []candidate
		witness    interval
		is         interval
		chosen     []int
		reason     string
	}{
		{"nobody", 3, nil, here, interval{}, nil, "none of 3 servers answers"},
		{"one of one", 1, says(100, 20), nowhere, between(80, 120), []int{0}, ""},
		{"one of two", 2, says(100, 20), nowhere, interval{}, nil, "no majority: 1 of 2 agree, 2 are needed"},
		{"one of three", 3, says(100, 20), nowhere, interval{}, nil, "no majority: 1 of 3 agree, 2 are needed"},
		{"two of two", 2, says(100, 20, 110, 20), nowhere, between(90, 120), []int{0, 1}, ""},
		{"two of two apart", 2, says(100, 20, 200, 20), nowhere, interval{}, nil, "no majority: 1 of 2"},
		// One of the two may be the one of three that is wrong.
		{"two of three", 3, says(100, 20, 110, 20), nowhere, between(80, 130), []int{0, 1}, ""},
		{"three", 3, says(100, 20, 110, 20, 105, 5), nowhere, between(90, 120), []int{0, 1, 2}, ""},
		{"three, the best in the middle of none", 3, says(100, 20, 130, 20, 118, 1), nowhere, between(110, 120), []int{0, 1, 2}, ""},
		{"one off", 3, says(100, 20, 5000, 20, 105, 20), nowhere, between(85, 120), []int{0, 2}, ""},
		{"two off apart", 3, says(0, 20, 5000, 20, -5000, 20), here, interval{}, nil, "no majority: 1 of 3"},
		{"two off together", 3, says(0, 20, 5000, 20, 5010, 20), here, interval{}, nil, "no majority: 2 of 3 agree, but another agrees with this clock"},
		{"a clock that is as wrong as nobody", 3, says(0, 20, 5000, 20, 5010, 20), nowhere, between(4990, 5020), []int{1, 2}, ""},
		{"all moved", 3, says(5000, 20, 5000, 20, 5010, 20), here, between(4980, 5020), []int{0, 1, 2}, ""},
		{"three off together of four", 4, says(0, 20, 5000, 20, 5010, 20, 5020, 20), here, between(5000, 5020), []int{1, 2, 3}, ""},
		{"three of five", 5, says(0, 20, 10, 20, 20, 20, 5000, 20, 5000, 20), here, between(0, 20), []int{0, 1, 2}, ""},
		{"two of five", 5, says(0, 20, 10, 20, 5000, 20, 5000, 20, 7000, 20), here, interval{}, nil, "no majority: 2 of 5"},
		// A wide one reaches both groups: the truth may be with either.
		{"two groups", 3, says(0, 50, 100, 100, 190, 40), nowhere, between(0, 200), []int{0, 1, 2}, ""},
	}
	for _, tt := range tests {
		for range 5 { // in any order
			c := choose(tt.configured, tt.candidates, tt.witness)
			slices.Sort(c.chosen)
			if c.ok != (tt.reason == "") || !strings.HasPrefix(c.reason, tt.reason) || c.ok && (c.is != tt.is || !slices.Equal(c.chosen, tt.chosen)) {
				t.Errorf("%s: %+v; want %v, %v, %q", tt.name, c, tt.is, tt.chosen, tt.reason)
			}
			if c.ok && (c.best < c.is.lo || c.best > c.is.hi) {
				t.Errorf("%s: the best, %v, is not in %v", tt.name, c.best, c.is)
			}
			rand.Shuffle(len(tt.candidates), func(i, j int) { tt.candidates[i], tt.candidates[j] = tt.candidates[j], tt.candidates[i] })
		}
	}
}

// Whatever up to f servers of 2f+1 say, what is chosen has the truth in it.
func TestChooseHasTheTruth(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	chose := 0
	for range 200_000 {
		n := 1 + r.IntN(8)
		wrong, silent := r.IntN((n-1)/2+1), r.IntN(n)
		var list []candidate
		for i := range n {
			width := time.Duration(1 + r.IntN(1000))
			best := time.Duration(r.IntN(int(2*width)+1)) - width // the truth is 0
			if i < wrong {
				best = time.Duration(r.IntN(6000) - 3000)
			}
			list = append(list, candidate{i, best, interval{best - width, best + width}})
		}
		r.Shuffle(n, func(i, j int) { list[i], list[j] = list[j], list[i] })
		c := choose(n, list[:n-silent], interval{time.Duration(r.IntN(2000) - 1000), 1000}) //nolint:gosec // small
		if !c.ok {
			continue
		}
		chose++
		if c.is.lo > 0 || c.is.hi < 0 {
			t.Fatalf("%d servers, %d of them wrong: %+v of %+v", n, wrong, c, list)
		}
	}
	if chose < 50_000 {
		t.Errorf("chose %d times only", chose)
	}
}
