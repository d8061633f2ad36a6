package state

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"gridgate/internal/meter"
)

// maxRefusals bounds how many credentials are remembered as refused: far above
// the meters of a gateway. The oldest make room.
const maxRefusals = 4096

// Salt gives the random number that Credentials of this state are made with. It
// is made when it is first asked for.
func (s *State) Salt() ([]byte, error) {
	if salt := s.get(kindSalt, ""); len(salt) > 0 {
		return salt, nil
	}
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return salt, s.set(kindSalt, "", salt)
}

// Credentials names a place and the secrets that were shown there, so that the
// same are told from others: "" for no secrets.
//
// The name must not give a password away: not to who reads a log, therefore the
// salt; and not to who has this file with the salt in it and tries all
// passwords, which no salt hinders and a slow hash only for a while (a meter's
// has 8 digits). So of the secrets there are 16 bits in it: of a million
// passwords 15 fit, and a corrected password counts as the old one once in 65536
// times.
func Credentials(salt []byte, place string, secrets ...[]byte) string {
	h := hmac.New(sha256.New, salt)
	some := false
	for _, secret := range secrets {
		some = some || len(secret) > 0
		_, _ = h.Write(binary.AppendUvarint(nil, uint64(len(secret)))) // a hash has no error
		_, _ = h.Write(secret)
	}
	if !some {
		return ""
	}
	where := sha256.Sum256([]byte(place))
	return hex.EncodeToString(where[:12]) + hex.EncodeToString(h.Sum(nil)[:2])
}

// Refusals gives how often in a row a meter refused these credentials, and when
// it did last.
func (s *State) Refusals(credentials string) (n int, last time.Time) {
	return refusals(s.get(kindRefusals, credentials))
}

func refusals(v []byte) (n int, last time.Time) {
	count, size := binary.Uvarint(v)
	if size <= 0 {
		return 0, time.Time{}
	}
	at, _ := binary.Uvarint(v[size:])
	return int(min(count, 1<<30)), time.Unix(int64(min(at, 1<<40)), 0)
}

// Refused counts a refusal of these credentials, and gives how many there are.
func (s *State) Refused(credentials string, at time.Time) (n int, err error) {
	if credentials == "" {
		return 0, nil
	}
	n, _ = s.Refusals(credentials)
	n++
	s.makeRoom(credentials)
	v := binary.AppendUvarint(nil, uint64(n))
	return n, s.set(kindRefusals, credentials, binary.AppendUvarint(v, uint64(max(at.Unix(), 0))))
}

// makeRoom drops the refusals that are oldest when there are too many.
func (s *State) makeRoom(credentials string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	count, oldest, first := 0, "", time.Time{}
	for _, r := range s.records {
		if r.kind != kindRefusals {
			continue
		}
		if _, at := refusals(r.value); oldest == "" || at.Before(first) {
			oldest, first = r.key, at
		}
		count++
	}
	if _, known := s.find(kindRefusals, credentials); !known && count >= maxRefusals {
		if s.put(kindRefusals, oldest, nil); s.held != nil { // written with the new one
			s.touched[recordKey{kindRefusals, oldest}] = true
		}
	}
}

// Accepted forgets the refusals of credentials, which the meter took, and
// remembers that it did. That is no write of its own when there were none: a
// crash may lose it.
func (s *State) Accepted(credentials string) error {
	if credentials == "" {
		return nil
	}
	s.mu.Lock()
	if _, known := s.find(kindAccepted, credentials); !known && !s.closed {
		s.put(kindAccepted, credentials, []byte{1})
		if s.pending = true; s.held != nil {
			s.touched[recordKey{kindAccepted, credentials}] = true
		}
	}
	s.mu.Unlock()
	return s.set(kindRefusals, credentials, nil)
}

// WasAccepted says whether the meter took these credentials before.
func (s *State) WasAccepted(credentials string) bool {
	return credentials != "" && s.get(kindAccepted, credentials) != nil
}

// Exchanged gives the foreign serial number that an alarm was given for, "" when
// there is none.
func (s *State) Exchanged(id meter.ID) string { return string(s.get(kindExchanged, string(id))) }

// SetExchanged stores the foreign serial number that an alarm was given for; ""
// removes it.
func (s *State) SetExchanged(id meter.ID, found string) error {
	if found == "" {
		return s.set(kindExchanged, string(id), nil)
	}
	return s.set(kindExchanged, string(id), []byte(found))
}
