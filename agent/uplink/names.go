package uplink

import (
	"gridgate/agent/batch"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// names is the catalogue that a lane's batches name.
func (u *Uplink) names(l *lane) *batch.Catalogue {
	if l.own != nil {
		return l.own
	}
	return u.catalogue
}

// name adds rows to the lane's own catalogue, which begins anew when it is longer
// than a message may be.
func (l *lane) name(rows []meter.Row) *batch.Catalogue {
	if l.own.Len() > minMessage {
		l.own = batch.NewCatalogue()
	}
	if l.own.Add(rows) && l.own.Len() > minMessage {
		l.own = batch.NewCatalogue()
		l.own.Add(rows)
	}
	return l.own
}

// lookAhead adds what the rows behind after need to the catalogue, as long as
// they need something. Each state of the catalogue is published as a whole, so
// a site's first backlog is better looked through at once.
func (u *Uplink) lookAhead(id meter.Lane, after uint64) error {
	for range maxAhead {
		span, err := u.cfg.Store.Peek(id, after, maxRows)
		if err != nil {
			return err
		}
		if span.Last <= after || !u.catalogue.Add(span.Rows) {
			return nil
		}
		after = span.Last
	}
	return nil
}

func (u *Uplink) catalogueMessage(c *batch.Catalogue) *message {
	b, _ := c.AppendBinary(nil) // never fails
	hash := c.Hash()
	return &message{
		kind: mqtt.Catalogue, topic: mqtt.CatalogueTopic(u.cfg.Site, u.cfg.Gateway, hash), payload: b, retained: true, catalogue: hash,
	}
}

// keepEarlier keeps the catalogue that is published now for a fog that asks for
// it when it has grown.
func (u *Uplink) keepEarlier(c *batch.Catalogue) {
	hash := c.Hash()
	if u.earlier[hash] != nil {
		return
	}
	if len(u.published) == maxEarlier {
		delete(u.earlier, u.published[0])
		u.published = u.published[1:]
	}
	u.published = append(u.published, hash)
	u.earlier[hash] = c.Snapshot()
}

// catalogues is how many bytes of catalogues are under way.
func (s *session) catalogues() (n int) {
	for _, f := range s.flight {
		if f.kind == mqtt.Catalogue {
			n += f.size()
		}
	}
	return n
}
