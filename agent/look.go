package agent

import (
	"encoding/json"
	"io"
	"time"

	"gridgate/agent/status"
	"gridgate/buffer"
	"gridgate/internal/meter"
)

// BufferStat is what `gridgate buffer stat` tells of a buffer.
type BufferStat struct {
	Stat    buffer.Stat
	Dropped []buffer.Dropped
}

// look shows tools what is in the buffer.
type look struct{ a *Agent }

func (l look) StatJSON() (json.RawMessage, error) {
	s := l.a.store.get()
	st, err := s.Stat()
	if err != nil {
		return nil, err
	}
	dropped, err := s.Dropped()
	if err != nil {
		return nil, err
	}
	return json.Marshal(BufferStat{st, dropped})
}

func (l look) Export(w io.Writer, q status.ReadingsQuery) error {
	l.a.mu.Lock()
	o := buffer.ExportOptions{
		Site: string(l.a.cfg.Site), Gateway: string(l.a.cfg.Gateway), Made: time.Now().UnixMilli(), Waiting: q.Waiting,
		Key: ArchiveKey(l.a.vault),
	}
	l.a.mu.Unlock()
	if q.Site != "" {
		o.Site = q.Site
	}
	if q.Gateway != "" {
		o.Gateway = q.Gateway
	}
	wanted := buffer.Query{From: q.From, To: q.To}
	if q.Lane != "" {
		lane, err := meter.ParseLane(q.Lane)
		if err != nil {
			return err
		}
		wanted.Lanes = []meter.Lane{lane}
	}
	_, err := l.a.store.get().Export(w, wanted, o)
	return l.a.store.look(err)
}
