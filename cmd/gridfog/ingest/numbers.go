package ingest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// stretch is the sequence numbers first to last, both included.
type stretch struct{ first, last int64 }

// numbers is a set of sequence numbers as stretches that rise and do not touch.
type numbers []stretch

// maxNumber bounds sequence numbers: the database has signed ones.
const maxNumber = 1 << 62

// at gives the index of the first stretch that ends at n or after.
func (s numbers) at(n int64) int {
	i, _ := slices.BinarySearchFunc(s, n, func(t stretch, n int64) int {
		if t.last < n {
			return -1
		}
		return 1
	})
	return i
}

func (s numbers) has(n int64) bool {
	i := s.at(n)
	return i < len(s) && s[i].first <= n
}

// add adds first to last.
func (s *numbers) add(first, last int64) {
	from := s.at(first - 1) // one that ends just before touches too
	to := from
	for to < len(*s) && (*s)[to].first <= last+1 {
		first, last = min(first, (*s)[to].first), max(last, (*s)[to].last)
		to++
	}
	*s = slices.Replace(*s, from, to, stretch{first, last})
}

// without gives what of first to last is not in s.
func (s numbers) without(first, last int64) (rest numbers) {
	for _, t := range s[s.at(first):] {
		if t.first > last || first > last {
			break
		}
		if t.first > first {
			rest = append(rest, stretch{first, t.first - 1})
		}
		first = t.last + 1
	}
	if first <= last {
		rest = append(rest, stretch{first, last})
	}
	return rest
}

// minus gives s without the numbers of t.
func (s numbers) minus(t numbers) (rest numbers) {
	for _, a := range s {
		rest = append(rest, t.without(a.first, a.last)...)
	}
	return rest
}

// count gives how many numbers there are.
func (s numbers) count() (n int64) {
	for _, t := range s {
		n += t.last - t.first + 1
	}
	return n
}

// String gives an int8multirange of PostgreSQL: {[1,5),[7,9)}.
func (s numbers) String() string {
	b := []byte{'{'}
	for i, t := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "[%d,%d)", t.first, t.last+1)
	}
	return string(append(b, '}'))
}

// parseNumbers reads what String gives, and PostgreSQL.
func parseNumbers(text string) (s numbers, err error) {
	body, open := strings.CutPrefix(text, "{")
	body, closed := strings.CutSuffix(body, "}")
	if !open || !closed {
		return nil, fmt.Errorf("multirange %q: want {[1,2),…}", text)
	}
	for body != "" {
		item, rest, ok := strings.Cut(body, ")")
		low, high, comma := strings.Cut(strings.TrimPrefix(item, "["), ",")
		first, lerr := strconv.ParseInt(low, 10, 64)
		end, herr := strconv.ParseInt(high, 10, 64)
		if !ok || !comma || lerr != nil || herr != nil || first >= end || len(s) > 0 && first <= s[len(s)-1].last {
			return nil, fmt.Errorf("multirange %q: want {[1,2),…}, rising", text)
		}
		s = append(s, stretch{first, end - 1})
		body = strings.TrimPrefix(rest, ",")
	}
	return s, nil
}
