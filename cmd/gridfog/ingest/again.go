package ingest

import (
	"time"

	"gridgate/agent/batch"
)

// tellAgain has every gateway told once more how far its streams are: nobody
// knows what of the last connection arrived. Of several streams of a lane only
// the one that was told of last is: the topic is retained, and an older store's
// word must not come to stand there.
func (s *site) tellAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	type lane struct {
		gateway string
		batch.Lane
	}
	newest := map[lane]*follow{}
	for key, f := range s.follows {
		l := lane{key.Gateway, key.Lane}
		if other := newest[l]; !f.told.IsZero() && (other == nil || f.told.After(other.told)) {
			newest[l] = f
		}
	}
	for _, f := range newest {
		f.news, f.told = true, time.Time{}
	}
}
