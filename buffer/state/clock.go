package state

import (
	"encoding/binary"
	"math"
	"time"
)

// LastTime gives the last time that was known to be right, in whole seconds;
// zero when none was stored.
func (s *State) LastTime() time.Time {
	v, n := binary.Uvarint(s.get(kindLastTime, ""))
	if n <= 0 || v > math.MaxInt64 {
		return time.Time{}
	}
	return time.Unix(int64(v), 0).UTC()
}

// SetLastTime stores a time that was known to be right. It does not go back.
func (s *State) SetLastTime(t time.Time) error {
	if t.Unix() <= 0 || !t.After(s.LastTime()) {
		return nil
	}
	return s.set(kindLastTime, "", binary.AppendUvarint(nil, uint64(t.Unix())))
}
