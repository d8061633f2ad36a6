package track

import "slices"

// stretch is the numbers first to last, both included.
type stretch struct{ first, last uint64 }

// set is a set of numbers as stretches that rise and do not touch.
type set []stretch

// at gives the first stretch that ends at n or after.
func (s set) at(n uint64) int {
	i, _ := slices.BinarySearchFunc(s, n, func(t stretch, n uint64) int {
		switch {
		case t.last < n:
			return -1
		case t.last > n:
			return 1
		}
		return 0
	})
	return i
}

func (s set) has(n uint64) bool {
	i := s.at(n)
	return i < len(s) && s[i].first <= n
}

// add adds first to last.
func (s *set) add(first, last uint64) {
	from := s.at(max(first, 1) - 1) // one that ends just before touches too
	to := from
	for to < len(*s) && (last == ^uint64(0) || (*s)[to].first <= last+1) {
		first, last = min(first, (*s)[to].first), max(last, (*s)[to].last)
		to++
	}
	*s = slices.Replace(*s, from, to, stretch{first, last})
}

// count gives how many numbers from low to high are in s.
func (s set) count(low, high uint64) (n uint64) {
	for _, t := range s {
		first, last := max(t.first, low), min(t.last, high)
		if first <= last {
			n += last - first + 1
		}
	}
	return n
}

// gaps gives the numbers from low to high that are not in s.
func (s set) gaps(low, high uint64) (gaps set) {
	for _, t := range s {
		if t.last < low {
			continue
		}
		if t.first > high {
			break
		}
		if t.first > low {
			gaps = append(gaps, stretch{low, t.first - 1})
		}
		if t.last >= high {
			return gaps
		}
		low = t.last + 1
	}
	if low <= high {
		gaps = append(gaps, stretch{low, high})
	}
	return gaps
}
