package state

import (
	"encoding/hex"
)

// The kinds of records. A number is never used for another thing.
const (
	kindLost         = 1  // key "": 1, the state began anew after ErrLost
	kindAuthFailures = 2  // no longer written: counts by meter
	kindConfigHash   = 3  // key "": 32 octets
	kindCounter      = 4  // key title, then key id, 8 octets each: the first counter not reserved (uvarint)
	kindReceived     = 5  // key title, key id, direction (1 octet): the highest counter received (uvarint)
	kindRefusals     = 6  // key Credentials: count (uvarint), then seconds since 1970 of the last (uvarint)
	kindAccepted     = 7  // key Credentials: 1, a meter took them
	kindExchanged    = 8  // key meter: the foreign serial number that an alarm was given for
	kindSalt         = 9  // key "": 16 octets, of Credentials
	kindDocument     = 10 // key kind, zero octet, target: version (uvarint), then 32 octets
	kindTrust        = 11 // key "": the keys that documents are verified with, as its owner writes them
	kindAudit        = 12 // key "": number of the last entry (uvarint), then 32 octets; key "sent": that of the last that reached the fog (uvarint)
	kindCommand      = 13 // key id: stage (1 octet), seconds since 1970 of its end (uvarint), then the result
	kindTrial        = 14 // key "": step (1 octet), seconds since 1970 of the deadline (uvarint), then twice 32 octets
	kindLastTime     = 20 // key "": seconds since 1970 of the last time that was known to be right (uvarint)
)

// Lost says that the state was once lost and begun anew: what it would have
// known of orders and counters is gone.
func (s *State) Lost() bool { return s.get(kindLost, "") != nil }

// SetLost says that the state is lost: it is not there, and should be.
func (s *State) SetLost() error { return s.set(kindLost, "", []byte{1}) }

// Anchor ends what Lost says: the fog has told what the state no longer knew.
func (s *State) Anchor() error { return s.set(kindLost, "", nil) }

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
