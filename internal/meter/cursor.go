package meter

import (
	"cmp"
	"slices"

	"gridgate/internal/sortby"
)

// Cursor says up to where a profile of a meter has been read. It is stored in
// the transaction that stores the rows it covers, never before.
type Cursor struct {
	Meter   ID
	Serial  string
	Profile Channel
	// Time is the capture time of the newest row that was taken, in
	// milliseconds since 1970 UTC; the next read asks for rows after it.
	Time int64
	// Gaps is what lies before Time and has not been read yet.
	Gaps Gaps
}

// Gap is a stretch of a profile that has not been read: rows captured after
// From and not after To, in milliseconds since 1970 UTC.
type Gap struct{ From, To int64 }

func (g Gap) isEmpty() bool { return g.From >= g.To }

// MaxGaps is how many stretches a cursor remembers.
const MaxGaps = 8

// Gaps are the stretches of a profile that have not been read, the newest
// first, none touching another; empty ones stand at the end.
type Gaps [MaxGaps]Gap

// List gives the gaps that there are, the newest first.
func (g Gaps) List() []Gap {
	n := 0
	for n < len(g) && !g[n].isEmpty() {
		n++
	}
	return g[:n:n]
}

// With gives g with one stretch more. When there would be too many, the two
// with the shortest way between them become one: rows read twice are harmless,
// rows forgotten are not.
func (g Gaps) With(add Gap) Gaps {
	return gapsOf(append(slices.Clone(g.List()), add))
}

// Without gives g without the stretch that was read.
func (g Gaps) Without(read Gap) Gaps {
	if read.isEmpty() {
		return g
	}
	var left []Gap
	for _, have := range g.List() {
		left = append(
			left, Gap{From: have.From, To: min(have.To, read.From)},
			Gap{From: max(have.From, read.To), To: have.To},
		)
	}
	return gapsOf(left)
}

// gapsOf puts stretches in order, joins those that touch, and then the nearest
// until there is room for all.
func gapsOf(all []Gap) (g Gaps) {
	all = slices.DeleteFunc(all, Gap.isEmpty)
	sortby.Stable(all, func(a, b Gap) int { return cmp.Or(cmp.Compare(b.To, a.To), cmp.Compare(b.From, a.From)) })
	for i := 0; i+1 < len(all); {
		if all[i].From > all[i+1].To {
			i++
			continue
		}
		all = join(all, i)
	}
	for len(all) > MaxGaps {
		nearest := 0
		for i := range len(all) - 1 {
			if all[i].From-all[i+1].To < all[nearest].From-all[nearest+1].To {
				nearest = i
			}
		}
		all = join(all, nearest)
	}
	copy(g[:], all)
	return g
}

// join makes one stretch of all[i] and the older one behind it.
func join(all []Gap, i int) []Gap {
	all[i].From = min(all[i].From, all[i+1].From)
	return slices.Delete(all, i+1, i+2)
}
