package buffer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
	"gridgate/internal/sortby"
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

// droppedOf gives the counts of a store, in order of meter and channel.
func droppedOf(tx *bolt.Tx) []Dropped {
	if list, ok := parseTally(readTally(tx)); ok {
		return list
	}
	return nil
}

// The value, sealed: the channels (how many, each with its length before it),
// then for each meter its name, how many of its channels follow, and of each
// its number and its count; the meters in order. All numbers are varints.

// tallyPair is the count of a channel, which it names by number.
type tallyPair struct{ channel, rows uint64 }

func appendTallyMeter(b []byte, id meter.ID, pairs []tallyPair) []byte {
	if len(pairs) == 0 {
		return b
	}
	b = append(binary.AppendUvarint(b, uint64(len(id))), id...)
	b = binary.AppendUvarint(b, uint64(len(pairs)))
	for _, p := range pairs {
		b = binary.AppendUvarint(binary.AppendUvarint(b, p.channel), p.rows)
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

// eachTally calls do for each meter of a value, with pairs that are do's only
// until it returns, and channels, which name them. ok is false where it is not one.
func eachTally(b []byte, begin func(channels []meter.Channel), do func(id meter.ID, pairs []tallyPair)) (ok bool) {
	r := tallyReader{b: b}
	n := r.number()
	if n > uint64(len(b)) {
		return false
	}
	channels := make([]meter.Channel, 0, n)
	for range n {
		channels = append(channels, meter.Channel(r.text()))
	}
	begin(channels)
	var pairs []tallyPair
	for len(r.b) > 0 && !r.bad {
		id := meter.ID(r.text())
		pairs = pairs[:0]
		for range min(r.number(), uint64(len(r.b))) {
			p := tallyPair{r.number(), r.number()}
			if p.channel >= uint64(len(channels)) || int64(p.rows) < 0 {
				return false
			}
			pairs = append(pairs, p)
		}
		if !r.bad {
			do(id, pairs)
		}
	}
	return !r.bad
}

// parseTally gives the counts of a value, in order of meter and channel.
func parseTally(b []byte) (list []Dropped, ok bool) {
	var channels []meter.Channel
	ok = eachTally(b, func(c []meter.Channel) { channels = c }, func(id meter.ID, pairs []tallyPair) {
		for _, p := range pairs {
			list = append(list, Dropped{Meter: id, Channel: channels[p.channel], Rows: p.rows})
		}
	})
	if !ok {
		return nil, false
	}
	sortby.Stable(list, func(a, b Dropped) int {
		return cmp.Or(cmp.Compare(a.Meter, b.Meter), cmp.Compare(a.Channel, b.Channel))
	})
	return list, true
}

// mergeTally gives the value of old, an empty or damaged one for none, with
// counts added. It holds the value and the counts, and nothing for each pair: it
// is done with ten thousand of them, on a gateway.
func mergeTally(old []byte, add tally) []byte {
	numbers := map[meter.Channel]uint64{}
	var channels []meter.Channel
	known := map[tallyKey]bool{} // of what is added
	pairs := 0
	ok := eachTally(old, func(c []meter.Channel) { channels = c }, func(id meter.ID, list []tallyPair) {
		pairs += len(list)
		for _, p := range list {
			if k := (tallyKey{id, channels[p.channel]}); add[k] != 0 {
				known[k] = true
			}
		}
	})
	if !ok {
		old, channels, pairs = nil, nil, 0
		clear(known)
	}
	for i, c := range channels {
		numbers[c] = uint64(i)
	}
	keys := make([]tallyKey, 0, len(add))
	others := add[tallyKey{}]
	for k, n := range add {
		switch {
		case n == 0 || k == tallyKey{}:
			continue
		case !known[k] && pairs >= maxTally:
			others += n
			continue
		case !known[k]:
			pairs++
		}
		keys = append(keys, k)
	}
	if others != 0 {
		keys = append(keys, tallyKey{})
	}
	sortby.Stable(keys, func(a, b tallyKey) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.channel, b.channel))
	})
	for _, k := range keys {
		if _, ok := numbers[k.channel]; !ok {
			numbers[k.channel] = uint64(len(channels))
			channels = append(channels, k.channel)
		}
	}
	b := binary.AppendUvarint(make([]byte, 0, len(old)+64), uint64(len(channels)))
	for _, c := range channels {
		b = append(binary.AppendUvarint(b, uint64(len(c))), c...)
	}
	var pending []tallyPair
	take := func(id meter.ID, have []tallyPair) { // adds what keys begin with, of that meter
		pending = append(pending[:0], have...)
		for ; len(keys) > 0 && keys[0].id == id; keys = keys[1:] {
			n := add[keys[0]]
			if (keys[0] == tallyKey{}) {
				n = others
			}
			number := numbers[keys[0].channel]
			at := slices.IndexFunc(pending, func(p tallyPair) bool { return p.channel == number })
			if at < 0 {
				at, pending = len(pending), append(pending, tallyPair{channel: number})
			}
			pending[at].rows = uint64(max(0, int64(pending[at].rows)+n))
		}
		b = appendTallyMeter(b, id, slices.DeleteFunc(pending, func(p tallyPair) bool { return p.rows == 0 }))
	}
	if len(old) > 0 {
		eachTally(old, func([]meter.Channel) {}, func(id meter.ID, list []tallyPair) {
			for len(keys) > 0 && keys[0].id < id {
				take(keys[0].id, nil)
			}
			take(id, list)
		})
	}
	for len(keys) > 0 {
		take(keys[0].id, nil)
	}
	return b
}

// readTally gives the value of what was counted so far. A damaged count begins
// anew: what was lost stands in the holes all the same.
func readTally(tx *bolt.Tx) []byte {
	b := tx.Bucket([]byte(bucketDropped))
	if b == nil {
		return nil
	}
	k := []byte(keyOne)
	if v, whole := unseal(k, b.Get(k)); whole {
		return v
	}
	return nil
}

// countDropped adds what was dropped since the last call to the value.
func (w *writeTx) countDropped() {
	if len(w.dropped) == 0 {
		return
	}
	if w.tally == nil {
		w.tally = readTally(w.tx)
	}
	w.tally = mergeTally(w.tally, w.dropped)
	clear(w.dropped)
}

// saveTally stores what this transaction dropped.
func (w *writeTx) saveTally() error {
	w.countDropped()
	if w.tally == nil {
		return nil
	}
	b, err := w.tx.CreateBucketIfNotExists([]byte(bucketDropped))
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucketDropped, err)
	}
	k := []byte(keyOne)
	return b.Put(k, seal(k, w.tally))
}

// Dropped tells what was given up for the quota since the epoch began, in
// order of meter and channel.
func (s *Store) Dropped() (list []Dropped, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		list = droppedOf(tx)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("buffer: dropped: %w", err)
	}
	return list, nil
}
