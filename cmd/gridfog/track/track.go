// Package track follows the sequence numbers of gateways at the fog: which rows
// arrived, which twice, which are missing and which were declared lost.
package track

import (
	"cmp"
	"hash/maphash"
	"slices"
	"time"

	"gridgate/agent/batch"
)

// Stream is one sequence of numbers.
type Stream struct {
	Site, Gateway string
	Epoch         uint64
	Lane          batch.Lane
}

// Tracker follows all streams. Make one with New. It is not safe for concurrent
// use.
type Tracker struct {
	fromStart bool
	remember  int
	seed      maphash.Seed
	streams   map[Stream]*stream
	totals    Totals
}

// Totals counts rows over all streams.
type Totals struct {
	Delivered  uint64 `json:"delivered"`    // rows, each number once
	Duplicates uint64 `json:"duplicates"`   // rows that came again with their number
	Missing    uint64 `json:"missing"`      // numbers below the highest that neither came nor were declared lost
	Conflicts  uint64 `json:"conflicts"`    // rows that came with another row's number: must never be
	OutOfOrder uint64 `json:"out_of_order"` // rows that came first after a higher number
	Batches    uint64 `json:"batches"`
	Undecoded  uint64 `json:"undecoded"` // messages that could not be read, or whose catalogue never came
}

// Lane is what became of one stream.
type Lane struct {
	Site    string `json:"site"`
	Gateway string `json:"gateway"`
	Epoch   string `json:"epoch"` // 16 hexadecimal digits
	Lane    string `json:"lane"`
	First   uint64 `json:"first"` // the lowest number that came or was declared lost
	Last    uint64 `json:"last"`  // the highest
	Rows    uint64 `json:"rows"`
	Missing uint64 `json:"missing"`
	Holes   uint64 `json:"holes"` // numbers declared lost
	Lost    uint64 `json:"lost"`  // rows that the holes say were lost, where they know
}

// Summary is what became of all streams. The totals come last.
type Summary struct {
	Lanes []Lane `json:"lanes"`
	Totals
}

type stream struct {
	rows, holes set
	lost        uint64
	first, last uint64
	settled     uint64 // every number up to here came, was declared lost or was confirmed
	gap         uint64 // the first number behind settled, when later ones came
	gapSince    time.Time
	gapAsked    bool
	// The hashes of the latest rows, to tell a duplicate from a conflict: by
	// number, and the numbers in the order of their arrival, a ring.
	hashes map[uint64]uint64
	ring   []uint64
	at     int
}

// Options of a Tracker.
type Options struct {
	// FromStart takes numbers below the first that came for missing too: the
	// tracker was there when the store was new.
	FromStart bool
	// Remember is how many rows of a stream are compared with what comes again;
	// 0 is 100,000. Older ones count as duplicates unseen.
	Remember int
}

// New gives a tracker that has seen nothing.
func New(o Options) *Tracker {
	if o.Remember <= 0 {
		o.Remember = 100_000
	}
	return &Tracker{fromStart: o.FromStart, remember: o.Remember, seed: maphash.MakeSeed(), streams: map[Stream]*stream{}}
}

// Reading is a row with its place in its stream.
type Reading struct {
	Stream
	Sequence uint64
	Row      batch.Row
}

// Conflict is a row that came with the number of another.
type Conflict struct {
	Reading
}

// Add counts a batch, and gives the rows in it that are new and those that
// contradict an earlier one.
func (t *Tracker) Add(h batch.Header, span batch.Span) (fresh []Reading, conflicts []Conflict) {
	name := Stream{h.Site, h.Gateway, h.Epoch, h.Lane}
	s := t.stream(name)
	t.totals.Batches++
	row := 0
	for _, run := range span.Runs {
		for n := run.First; n < run.First+run.Count; n++ {
			r := Reading{name, n, span.Rows[row]}
			row++
			hash := maphash.Comparable(t.seed, r.Row)
			if s.rows.has(n) {
				t.totals.Duplicates++
				if was, ok := s.hashes[n]; ok && was != hash {
					t.totals.Duplicates--
					t.totals.Conflicts++
					conflicts = append(conflicts, Conflict{r})
				}
				continue
			}
			if n < s.rows.highest() {
				t.totals.OutOfOrder++
			}
			t.totals.Delivered++
			s.rows.add(n, n)
			s.keep(n, hash, t.remember)
			fresh = append(fresh, r)
		}
		s.reach(run.First, run.First+run.Count-1)
	}
	for _, hole := range span.Holes {
		if !s.holes.has(hole.First) {
			s.lost += hole.Count
		}
		s.holes.add(hole.First, hole.Last)
		s.reach(hole.First, hole.Last)
	}
	return fresh, conflicts
}

func (t *Tracker) stream(name Stream) *stream {
	s := t.streams[name]
	if s == nil {
		s = &stream{hashes: map[uint64]uint64{}}
		t.streams[name] = s
	}
	return s
}

func (s set) highest() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].last
}

func (s *stream) reach(first, last uint64) {
	if s.first == 0 || first < s.first {
		s.first = first
	}
	s.last = max(s.last, last)
}

func (s *stream) keep(n, hash uint64, limit int) {
	if len(s.ring) < limit {
		s.ring = append(s.ring, n)
	} else {
		delete(s.hashes, s.ring[s.at])
		s.ring[s.at] = n
		s.at = (s.at + 1) % limit
	}
	s.hashes[n] = hash
}

// missing gives the numbers that neither came nor were declared lost.
func (s *stream) missing(fromStart bool) (n uint64) {
	low := s.first
	if fromStart {
		low = 1
	}
	if s.last == 0 {
		return 0
	}
	for _, gap := range s.rows.gaps(low, s.last) {
		n += gap.last - gap.first + 1 - s.holes.count(gap.first, gap.last)
	}
	return n
}

// Undecoded counts a message that could not be read.
func (t *Tracker) Undecoded() { t.totals.Undecoded++ }

// Totals gives the counts so far.
func (t *Tracker) Totals() Totals {
	totals := t.totals
	for _, s := range t.streams {
		totals.Missing += s.missing(t.fromStart)
	}
	return totals
}

// Gateways gives how many gateways sent anything.
func (t *Tracker) Gateways() int {
	seen := map[[2]string]bool{}
	for name, s := range t.streams {
		if s.last == 0 {
			continue
		}
		seen[[2]string{name.Site, name.Gateway}] = true
	}
	return len(seen)
}

// Summary gives the counts so far, and those of each stream.
func (t *Tracker) Summary() Summary {
	sum := Summary{Lanes: []Lane{}, Totals: t.Totals()}
	for name, s := range t.streams {
		if s.last == 0 {
			continue // confirmed earlier, and nothing came since
		}
		sum.Lanes = append(sum.Lanes, Lane{
			Site: name.Site, Gateway: name.Gateway, Epoch: epochText(name.Epoch), Lane: name.Lane.String(),
			First: s.first, Last: s.last, Rows: s.rows.count(0, ^uint64(0)), Missing: s.missing(t.fromStart),
			Holes: s.holes.count(0, ^uint64(0)), Lost: s.lost,
		})
	}
	slices.SortFunc(sum.Lanes, func(a, b Lane) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Lane, b.Lane))
	})
	return sum
}

// MissingBy gives what is missing of each gateway, by site and gateway, where
// it is not nothing.
func (t *Tracker) MissingBy() map[[2]string]uint64 {
	all := map[[2]string]uint64{}
	for name, s := range t.streams {
		if n := s.missing(t.fromStart); n > 0 {
			all[[2]string{name.Site, name.Gateway}] += n
		}
	}
	return all
}
