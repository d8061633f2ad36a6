package state

import (
	"encoding/hex"
)

// The kinds of records. A number is never used for another thing.
const (
	kindLost         = 1 // key "": 1, the state began anew after ErrLost
	kindAuthFailures = 2 // no longer written: counts by meter
	kindConfigHash   = 3 // key "": 32 octets
	kindCounter      = 4 // key title, then key id, 8 octets each: the first counter not reserved (uvarint)
	kindReceived     = 5 // key title, key id, direction (1 octet): the highest counter received (uvarint)
	kindRefusals     = 6 // key Credentials: count (uvarint), then seconds since 1970 of the last (uvarint)
	kindAccepted     = 7 // key Credentials: 1, a meter took them
	kindExchanged    = 8 // key meter: the foreign serial number that an alarm was given for
	kindSalt         = 9 // key "": 16 octets, of Credentials
)

// Lost says that the state was once lost and begun anew: what it would have
// known of orders and counters is gone.
func (s *State) Lost() bool { return s.get(kindLost, "") != nil }

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
