package batch_test

import (
	"cmp"
	"fmt"
	"slices"

	"gridgate/agent/batch"
)

// numbers first to last, both included.
type numbers struct{ first, last uint64 }

// stream is how far one lane of one epoch of a gateway has come: a fog keeps one
// for each, in the transaction that stores the rows.
type stream struct {
	through uint64    // all numbers up to here came, or were declared lost
	above   []numbers // what came or was declared lost above, rising and apart
}

func (s *stream) has(number uint64) bool {
	return number <= s.through || slices.ContainsFunc(s.above, func(n numbers) bool { return n.first <= number && number <= n.last })
}

// take notes numbers, whether they carry rows or are a hole. A hole may be of any
// length: they are not counted one by one.
func (s *stream) take(first, last uint64) {
	s.above = append(s.above, numbers{first, last})
	slices.SortFunc(s.above, func(a, b numbers) int { return cmp.Compare(a.first, b.first) })
	apart := s.above[:0]
	for _, n := range s.above {
		switch end := len(apart) - 1; {
		case n.first <= s.through+1:
			s.through = max(s.through, n.last)
		case end >= 0 && n.first <= apart[end].last+1:
			apart[end].last = max(apart[end].last, n.last)
		default:
			apart = append(apart, n)
		}
	}
	s.above = apart
}

// missing gives the first numbers that neither came nor were declared lost,
// though later ones did.
func (s *stream) missing() (first, last uint64, some bool) {
	if len(s.above) == 0 {
		return 0, 0, false
	}
	return s.through + 1, s.above[0].first - 1, true
}

// A stream is followed by its numbers: a number that one has is a duplicate and
// its row is dropped; one in a hole never comes; one below the highest that is
// neither is missing.
func Example_gaps() {
	gateway := newGateway()
	var decoders batch.Decoders
	var s stream
	for _, payload := range [][]byte{
		gateway.batch(1, 2301, 2302),
		gateway.batch(2, 2302, 2303), // sent again after a lost connection, cut otherwise
		gateway.batch(7, 2307),
		gateway.hole(4, 5),
		gateway.batch(6, 2306),
	} {
		_, span, err := decoders.Parse(payload, gateway.find)
		if err != nil {
			fmt.Println(err)
			return
		}
		row := 0
		for _, run := range span.Runs {
			for number := run.First; number < run.First+run.Count; number++ {
				if s.has(number) {
					fmt.Printf("%d is here already\n", number)
				} else {
					fmt.Printf("%d: %s %s\n", number, span.Rows[row].Value, span.Rows[row].Unit)
				}
				row++
			}
			s.take(run.First, run.First+run.Count-1)
		}
		for _, hole := range span.Holes {
			fmt.Printf("%d to %d never come: %s\n", hole.First, hole.Last, hole.Reason)
			s.take(hole.First, hole.Last)
		}
		if first, last, some := s.missing(); some {
			fmt.Printf("%d to %d are missing\n", first, last)
		}
	}
	// Output:
	// 1: 230.1 V
	// 2: 230.2 V
	// 2 is here already
	// 3: 230.3 V
	// 7: 230.7 V
	// 4 to 6 are missing
	// 4 to 5 never come: quota
	// 6 to 6 are missing
	// 6: 230.6 V
}
