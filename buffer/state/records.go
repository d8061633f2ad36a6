package state

import (
	"encoding/binary"
	"encoding/hex"

	"gridgate/internal/meter"
)

// The kinds of records. A number is never used for another thing.
const (
	kindLost         = 1 // key "": 1, the state began anew after ErrLost
	kindAuthFailures = 2 // key meter: count (uvarint), then the fingerprint
	kindConfigHash   = 3 // key "": 32 octets
	kindCounter      = 4 // key title, then key id, 8 octets each: the first counter not reserved (uvarint)
)

// Lost says that the state was once lost and begun anew: what it would have
// known of orders and counters is gone.
func (s *State) Lost() bool { return s.get(kindLost, "") != nil }

// AuthFailures gives how often in a row a meter refused the credentials of the
// configuration with this fingerprint. Another fingerprint than the stored
// one counts from 0: the configuration changed.
func (s *State) AuthFailures(id meter.ID, fingerprint string) int {
	v := s.get(kindAuthFailures, string(id))
	n, size := binary.Uvarint(v)
	if size <= 0 || string(v[size:]) != fingerprint {
		return 0
	}
	return int(min(n, 1<<30))
}

// SetAuthFailures stores the count for a meter and the fingerprint of its
// configuration. 0 removes it.
func (s *State) SetAuthFailures(id meter.ID, fingerprint string, n int) error {
	if n <= 0 {
		return s.ResetAuthFailures(id)
	}
	return s.set(kindAuthFailures, string(id), append(binary.AppendUvarint(nil, uint64(n)), fingerprint...))
}

// ResetAuthFailures forgets a meter's count. It writes nothing when there is
// none.
func (s *State) ResetAuthFailures(id meter.ID) error {
	return s.set(kindAuthFailures, string(id), nil)
}

// Hash is a SHA-256.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ConfigHash gives the hash of the configuration that runs; ok is false when
// none was stored.
func (s *State) ConfigHash() (h Hash, ok bool) {
	v := s.get(kindConfigHash, "")
	return h, copy(h[:], v) == len(h)
}

// SetConfigHash stores the hash of the configuration that runs.
func (s *State) SetConfigHash(h Hash) error { return s.set(kindConfigHash, "", h[:]) }
