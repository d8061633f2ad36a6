package buffer

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// maxCaches bounds what waits for a commit, in meters, and maxCacheLen a cache.
const (
	maxCaches   = 4096
	maxCacheLen = 64 << 10
)

// keptCache is what a driver wants kept of a meter, and is not committed yet.
type keptCache struct {
	serial string
	octets []byte
}

// SaveCache keeps what a driver learnt of a meter, one for each name: that of
// another serial number takes its place. It has no commit of its own but rides
// the next one; a power cut before it loses it, and nothing that matters with
// it. What cannot be kept is left out. octets are kept and must not change.
func (s *Store) SaveCache(id meter.ID, serial string, octets []byte) {
	if id == "" || len(id) > 255 || len(serial) > 255 || len(octets) > maxCacheLen {
		return
	}
	s.state.Lock()
	defer s.state.Unlock()
	if _, ok := s.caches[id]; !ok && len(s.caches) >= maxCaches {
		return
	}
	if s.caches == nil {
		s.caches = make(map[meter.ID]keptCache)
	}
	s.caches[id] = keptCache{serial, octets}
}

// Cache gives what SaveCache kept of the meter of that name and serial number,
// nil when there is none or it is damaged. It must not be changed.
func (s *Store) Cache(id meter.ID, serial string) (octets []byte, err error) {
	s.state.Lock()
	waiting, ok := s.caches[id]
	s.state.Unlock()
	if ok {
		if waiting.serial != serial {
			return nil, nil
		}
		return waiting.octets, nil
	}
	if id == "" {
		return nil, nil
	}
	err = s.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketCaches))
		if b == nil {
			return nil // a store of an earlier version
		}
		v, whole := unseal([]byte(id), b.Get([]byte(id)))
		if whole && len(v) > 0 && len(v) > int(v[0]) && string(v[1:1+v[0]]) == serial {
			octets = append([]byte{}, v[1+v[0]:]...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("buffer: cache of meter %s: %w", id, err)
	}
	return octets, nil
}

// addCaches writes what waits, as long as rows have room enough, and gives what
// it wrote.
func (w *writeTx) addCaches(waiting map[meter.ID]keptCache) (written map[meter.ID]keptCache, err error) {
	if len(waiting) == 0 {
		return nil, nil
	}
	b, err := w.tx.CreateBucketIfNotExists([]byte(bucketCaches))
	if err != nil {
		return nil, fmt.Errorf("%w: bucket %s: %w", ErrDamaged, bucketCaches, err)
	}
	room := int64(w.room) - int64(w.need) - 2*headroom
	written = make(map[meter.ID]keptCache, len(waiting))
	for id, c := range waiting {
		if room -= int64(footprint(len(c.octets))); room < 0 {
			break
		}
		v := append([]byte{byte(len(c.serial))}, c.serial...)
		if err := b.Put([]byte(id), seal([]byte(id), append(v, c.octets...))); err != nil {
			return nil, err
		}
		written[id] = c
	}
	return written, nil
}

// waitingCaches gives what a commit is to write. The caller holds s.state.
func (s *Store) waitingCaches() map[meter.ID]keptCache {
	if len(s.caches) == 0 {
		return nil
	}
	waiting := make(map[meter.ID]keptCache, len(s.caches))
	for id, c := range s.caches {
		waiting[id] = c
	}
	return waiting
}

// cachesKept forgets what was committed, if it was not saved anew meanwhile.
func (s *Store) cachesKept(written map[meter.ID]keptCache) {
	s.state.Lock()
	defer s.state.Unlock()
	for id, c := range written {
		if now, ok := s.caches[id]; ok && now.serial == c.serial && len(now.octets) == len(c.octets) &&
			(len(c.octets) == 0 || &now.octets[0] == &c.octets[0]) {
			delete(s.caches, id)
		}
	}
}
