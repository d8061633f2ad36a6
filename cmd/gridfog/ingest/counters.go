package ingest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Counts is what an ingester has done since it began.
type Counts struct {
	Members      int               `json:"members"` // of the group, this one included
	Sites        int               `json:"sites"`   // that this member holds
	SitesKnown   int               `json:"sites_known"`
	Messages     uint64            `json:"messages"`
	Transactions uint64            `json:"transactions"`
	Rows         uint64            `json:"rows"`      // stored, revisions included
	Again        uint64            `json:"again"`     // dropped: number stored before
	Equal        uint64            `json:"equal"`     // dropped: same reading under another number
	Revisions    uint64            `json:"revisions"` // readings that differ from what was stored under their key
	Lost         uint64            `json:"lost"`      // numbers declared lost
	Refused      map[string]uint64 `json:"refused"`   // dead letters by reason
	Asked        uint64            `json:"asked"`     // requests to gateways to send numbers again
	Missing      int64             `json:"missing"`   // numbers missing now
	Gaps         int               `json:"gaps"`      // streams with missing numbers now
	Waiting      int               `json:"waiting"`   // messages that wait to be stored
	Retries      uint64            `json:"retries"`   // transactions that failed
	// Lag is the longest that a message waited for its commit to begin since the
	// last line, Late how long the last transaction took.
	Lag  time.Duration `json:"lag_ns"`
	Late time.Duration `json:"transaction_ns"`
}

type counters struct {
	mu sync.Mutex
	c  Counts
}

func newCounters() *counters { return &counters{c: Counts{Refused: map[string]uint64{}}} }

func (c *counters) add(f func(*Counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.c)
}

// snapshot gives the counts; again says that Lag begins anew.
func (c *counters) snapshot(again bool) Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.c
	s.Refused = maps.Clone(c.c.Refused)
	if again {
		c.c.Lag = 0
	}
	return s
}

// DeadLetters counts messages that were refused.
func (c Counts) DeadLetters() (n uint64) {
	for _, k := range c.Refused {
		n += k
	}
	return n
}

// Line gives the counts in one line for people. before is an earlier one, over
// is how long ago.
func (c Counts) Line(before Counts, over time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows (%.0f/s), %d of %d sites, %d members, lag %v, %d waiting, %d again, %d equal, %d revisions, %d numbers lost, %d missing in %d streams, %d asked",
		c.Rows, float64(c.Rows-before.Rows)/over.Seconds(), c.Sites, c.SitesKnown, c.Members, c.Lag.Round(time.Millisecond), c.Waiting,
		c.Again, c.Equal, c.Revisions, c.Lost, c.Missing, c.Gaps, c.Asked)
	fmt.Fprintf(&b, ", %d dead letters", c.DeadLetters())
	for i, reason := range slices.Sorted(maps.Keys(c.Refused)) {
		sep := ", "
		if i == 0 {
			sep = " ("
		}
		fmt.Fprintf(&b, "%s%s %d", sep, reason, c.Refused[reason])
	}
	if len(c.Refused) > 0 {
		b.WriteByte(')')
	}
	if c.Retries > 0 {
		fmt.Fprintf(&b, ", %d transactions tried again", c.Retries)
	}
	return b.String()
}
