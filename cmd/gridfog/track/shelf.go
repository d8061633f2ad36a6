package track

import (
	"container/list"

	"gridgate/agent/batch"
)

// The bounds of the catalogues that are kept: those of a large fleet, and no more
// than that of one that invents some. What is used least recently gives way.
const (
	maxCatalogues     = 100_000
	maxCatalogueBytes = 256 << 20 // as messages
)

// shelf keeps catalogues by their hash.
type shelf struct {
	most, mostBytes int
	bytes           int
	order           *list.List // of *shelved, the latest used first
	by              map[batch.Hash]*list.Element
}

type shelved struct {
	c    *batch.Catalogue
	hash batch.Hash
	size int
}

func newShelf(most, mostBytes int) *shelf {
	return &shelf{most: most, mostBytes: mostBytes, order: list.New(), by: map[batch.Hash]*list.Element{}}
}

// get gives a catalogue, nil when it is not there.
func (s *shelf) get(h batch.Hash) *batch.Catalogue {
	e := s.by[h]
	if e == nil {
		return nil
	}
	s.order.MoveToFront(e)
	return e.Value.(*shelved).c //nolint:forcetypeassert // nothing else is in it
}

// put adds a catalogue that is size bytes long as a message.
func (s *shelf) put(c *batch.Catalogue, size int) {
	h := c.Hash()
	if s.get(h) != nil {
		return
	}
	s.by[h] = s.order.PushFront(&shelved{c, h, size})
	s.bytes += size
	for s.order.Len() > 1 && (s.order.Len() > s.most || s.bytes > s.mostBytes) {
		old := s.order.Remove(s.order.Back()).(*shelved) //nolint:forcetypeassert // nothing else is in it
		delete(s.by, old.hash)
		s.bytes -= old.size
	}
}
