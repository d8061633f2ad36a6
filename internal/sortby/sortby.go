// Package sortby sorts slices with one copy of the algorithm for all types:
// slices.SortStableFunc makes one for each, 4 KB of firmware a type.
package sortby

import "sort"

// Stable sorts s by compare, and keeps the order of what is equal.
func Stable[T any](s []T, compare func(a, b T) int) {
	sort.SliceStable(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
}
