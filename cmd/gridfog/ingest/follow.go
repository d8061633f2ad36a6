package ingest

import "time"

// Defaults of Config.
const (
	DefaultAskAfter = 2 * time.Second
	DefaultAskEvery = 30 * time.Second
	DefaultAsks     = 8
	// maxAskEvery bounds the growing pause between requests for the same numbers.
	maxAskEvery = 15 * time.Minute
	// asksAtOnce is how many stretches are asked for at a time.
	asksAtOnce = 8
)

// follow is what a site does about a stream: it tells the gateway how far it is
// stored, and asks for what is missing.
//
//	all is there ── numbers missing, AskAfter ──> asked ── Asks times in vain ──> given up
//	     ^                                         │  ^
//	     └───────────── they come ─────────────────┘  └── some come: from the start
type follow struct {
	progress

	news  bool // a commit has touched it since it was told
	told  time.Time
	last  int64 // what was told
	asked int
	next  time.Time // when to ask; zero is now
	// earlier is what was confirmed before this database knew the stream, and
	// history what is asked for once because of that.
	earlier int64
	history numbers
}

// update notes how far a stream is after a commit.
func (f *follow) update(p progress, now time.Time, after time.Duration) {
	before := f.missing.count()
	f.progress, f.news = p, true
	switch {
	case len(p.missing) == 0:
		f.asked = 0
	case before == 0:
		f.asked, f.next = 0, now.Add(after)
	case p.missing.count() < before:
		f.asked = 0
	}
}

// tells says whether the gateway is to be told now, and notes that it is.
func (f *follow) tells(now time.Time) bool {
	every := tellEvery
	if f.through == f.last {
		every = repeatEvery
	}
	if !f.news || f.through == 0 || now.Sub(f.told) < every {
		return false
	}
	f.news, f.told, f.last = false, now, f.through
	return true
}

// asks gives what is to be asked for now; s.mu is held. What was asked for too
// often, or belongs to a store that is no more, is given up.
func (s *site) asks(key streamKey, f *follow, now time.Time) numbers {
	g := s.gateway(key.Gateway)
	over := g.epoch != 0 && g.epoch != key.Epoch
	if len(f.history) > 0 && !g.offline {
		h := f.history
		f.history = nil
		if s.cfg.History && !over {
			return h
		}
	}
	if len(f.missing) == 0 || now.Before(f.next) {
		return nil
	}
	if over || f.asked >= s.cfg.Asks {
		reason := reasonNeverCame
		if over {
			reason = reasonEpochOver
		}
		s.log.Warn("missing numbers are given up", "gateway", key.Gateway, "lane", key.Lane.String(), "numbers", f.missing.count(), "reason", reason)
		s.giveUp(key, f.missing, reason)
		f.asked, f.next = 0, now.Add(maxAskEvery)
		return nil
	}
	if g.offline {
		return nil
	}
	f.next = now.Add(min(min(s.cfg.AskEvery, maxAskEvery)<<min(f.asked, 20), maxAskEvery))
	f.asked++
	return f.missing[:min(len(f.missing), asksAtOnce)]
}
