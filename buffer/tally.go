package buffer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// bucketDropped has, under "c", how many rows of which meter and channel were
// given up for the quota. It is made when the first one is.
const bucketDropped = "dropped"

// maxTally bounds the pairs of a meter and a channel that are told apart, and
// so the octets that counting costs; the rest is counted without a name.
const maxTally = 16384

// Dropped is how many rows of a channel were given up for the quota since the
// epoch began, undelivered. Rows that became part of a sum are among them.
type Dropped struct {
	Meter   meter.ID
	Channel meter.Channel // empty, as Meter, for all that is not told apart
	Rows    uint64
}

type tallyKey struct {
	id      meter.ID
	channel meter.Channel
}

// tally counts rows; negative counts take back.
type tally map[tallyKey]int64

func (t tally) add(r *meter.Row, n int64) { t[tallyKey{r.Meter, r.Channel}] += n }

// sortedDropped gives counts in order of meter and channel.
func sortedDropped(t tally) []Dropped {
	list := make([]Dropped, 0, len(t))
	for k, n := range t {
		if n > 0 {
			list = append(list, Dropped{Meter: k.id, Channel: k.channel, Rows: uint64(n)})
		}
	}
	slices.SortFunc(list, func(a, b Dropped) int {
		return cmp.Or(cmp.Compare(a.Meter, b.Meter), cmp.Compare(a.Channel, b.Channel))
	})
	return list
}

// The value, sealed: the channels (how many, each with its length before it),
// then for each meter its name, how many of its channels follow, and of each
// its number and its count. All numbers are varints.
func appendTally(b []byte, t tally) []byte {
	list := sortedDropped(t)
	var channels []meter.Channel
	numbers := map[meter.Channel]uint64{}
	for _, d := range list {
		if _, ok := numbers[d.Channel]; !ok {
			numbers[d.Channel] = uint64(len(channels))
			channels = append(channels, d.Channel)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(channels)))
	for _, c := range channels {
		b = append(binary.AppendUvarint(b, uint64(len(c))), c...)
	}
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].Meter == list[0].Meter {
			n++
		}
		b = append(binary.AppendUvarint(b, uint64(len(list[0].Meter))), list[0].Meter...)
		b = binary.AppendUvarint(b, uint64(n))
		for _, d := range list[:n] {
			b = binary.AppendUvarint(binary.AppendUvarint(b, numbers[d.Channel]), d.Rows)
		}
		list = list[n:]
	}
	return b
}

// tallyReader takes a value apart; bad is set when it is not one.
type tallyReader struct {
	b   []byte
	bad bool
}

func (r *tallyReader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *tallyReader) text() string {
	n := r.number()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func parseTally(b []byte) (tally, bool) {
	r := tallyReader{b: b}
	t := tally{}
	n := r.number()
	if n > uint64(len(b)) {
		return nil, false
	}
	channels := make([]meter.Channel, 0, n)
	for range n {
		channels = append(channels, meter.Channel(r.text()))
	}
	for len(r.b) > 0 && !r.bad {
		id := meter.ID(r.text())
		for range min(r.number(), uint64(len(r.b))) {
			c, count := r.number(), r.number()
			if c >= uint64(len(channels)) || int64(count) < 0 {
				return nil, false
			}
			t[tallyKey{id, channels[c]}] += int64(count)
		}
	}
	return t, !r.bad
}

// readTally gives what was counted so far. A damaged count begins anew: what
// was lost stands in the holes all the same.
func readTally(tx *bolt.Tx) tally {
	b := tx.Bucket([]byte(bucketDropped))
	if b == nil {
		return tally{}
	}
	k := []byte(keyOne)
	v, whole := unseal(k, b.Get(k))
	if t, ok := parseTally(v); whole && ok {
		return t
	}
	return tally{}
}

// saveTally adds what this transaction dropped.
func (w *writeTx) saveTally() error {
	if len(w.dropped) == 0 {
		return nil
	}
	t := readTally(w.tx)
	for k, n := range w.dropped {
		if _, ok := t[k]; !ok && len(t) >= maxTally {
			k = tallyKey{}
		}
		t[k] = max(0, t[k]+n)
	}
	b, err := w.tx.CreateBucketIfNotExists([]byte(bucketDropped))
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucketDropped, err)
	}
	k := []byte(keyOne)
	return b.Put(k, seal(k, appendTally(nil, t)))
}

// Dropped tells what was given up for the quota since the epoch began, in
// order of meter and channel.
func (s *Store) Dropped() (list []Dropped, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		list = sortedDropped(readTally(tx))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("buffer: dropped: %w", err)
	}
	return list, nil
}
