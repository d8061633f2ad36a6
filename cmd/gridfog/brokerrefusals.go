package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// maxRefusals bounds how many refusals are told apart.
const maxRefusals = 1000

// refusal is who was refused what.
type refusal struct{ who, what, which string }

func (r refusal) String() string {
	if r.which == "" {
		return r.who + ": " + r.what
	}
	return r.who + ": " + r.what + ": " + r.which
}

// refusals counts what the broker refused, and says it: the first time, the
// tenth, the hundredth and so on, since who is refused comes again.
type refusals struct {
	mu     sync.Mutex
	out    io.Writer
	counts map[refusal]uint64
}

func newRefusals(out io.Writer) *refusals {
	return &refusals{out: out, counts: map[refusal]uint64{}}
}

func (r *refusals) add(who, what, which string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := refusal{who, what, which}
	if _, known := r.counts[key]; !known && len(r.counts) >= maxRefusals {
		key = refusal{"others", what, ""}
	}
	r.counts[key]++
	n := r.counts[key]
	for t := n; t >= 1; t /= 10 {
		if t == 1 {
			fmt.Fprintf(r.out, "refused %s (%s)\n", key, times(n))
			return
		}
		if t%10 != 0 {
			return
		}
	}
}

// summary says what was refused altogether; nothing when nothing was.
func (r *refusals) summary(out io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var total uint64
	for _, n := range r.counts {
		total += n
	}
	if total == 0 {
		return
	}
	fmt.Fprintf(out, "refused altogether %s:\n", times(total))
	keys := slices.SortedFunc(maps.Keys(r.counts), func(a, b refusal) int {
		return cmp.Or(cmp.Compare(r.counts[b], r.counts[a]), cmp.Compare(a.String(), b.String()))
	})
	for _, k := range keys {
		fmt.Fprintf(out, "%8d  %s\n", r.counts[k], k)
	}
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
