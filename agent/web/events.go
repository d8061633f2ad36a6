package web

import (
	"encoding/json"
	"net/http"
	"time"
)

const (
	// lookEvery is how often changes are looked for, nowEvery how often the time
	// is told.
	lookEvery = 2 * time.Second
	nowEvery  = 10 * time.Second
	// slowest is how long a client may take to take what is sent.
	slowest = 10 * time.Second
)

// stream sends events to one client.
type stream struct {
	s     *Server
	w     http.ResponseWriter
	out   *http.ResponseController
	token *Token
	meter string // whose values are told; none for nobody's
	place string
	told  map[string]string // values as told, by channel
	me    string            // as told
	clock time.Time         // when the time was told
	err   error
}

// events streams until the client goes.
func (s *Server) events(w http.ResponseWriter, r request, id string) {
	meter := r.query.Get("meter")
	switch {
	case r.token.Role == Consumer && meter != "" && meter != id, r.token.Role == Viewer && meter != "":
		fail(w, http.StatusForbidden, "meter: the readings of this meter are not for this token")
		return
	case r.token.Role == Consumer:
		meter = id
	}
	if meter != "" {
		if _, ok := s.cfg.Source.Meter(meter); !ok {
			fail(w, http.StatusNotFound, "there is no meter of this name; /api/1/meters lists them")
			return
		}
	}
	if !s.enter(r.token) {
		w.Header().Set("Retry-After", "30")
		fail(w, http.StatusServiceUnavailable, "there is no place for another stream of events")
		return
	}
	defer s.leave(r.token)
	place := r.Header.Get("Last-Event-ID")
	if place == "" {
		place = r.query.Get("after")
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // the server's end with the request; a client that goes is seen by that
	st := &stream{s: s, w: w, out: out, token: r.token, meter: meter, place: place, told: map[string]string{}}
	st.write("retry: 2000\n\n")
	look := time.NewTicker(s.look)
	defer look.Stop()
	for st.look(time.Now()) {
		select {
		case <-r.Context().Done():
			return
		case <-look.C:
		}
	}
}

func (s *Server) enter(t *Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxStreams || s.streams[t.Name] >= maxOfToken {
		return false
	}
	s.total++
	s.streams[t.Name]++
	return true
}

func (s *Server) leave(t *Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.streams[t.Name]--; s.streams[t.Name] == 0 {
		delete(s.streams, t.Name)
	}
}

// look sends what changed. It gives false when the client is gone.
func (st *stream) look(now time.Time) bool {
	if now.Sub(st.clock) >= nowEvery-lookEvery/2 {
		st.clock = now
		st.event("now", "", map[string]string{"now": Time(now)})
	}
	c := st.s.feed.since(st.place)
	switch {
	case c.reset:
		st.event("reset", c.place, struct{}{})
	case st.token.Role == Consumer:
		st.own(c.snap)
	default:
		st.changes(c)
	}
	st.place = c.place
	if st.meter != "" {
		st.values()
	}
	if st.err == nil {
		_ = st.out.SetWriteDeadline(time.Now().Add(st.s.patience))
		st.err = st.out.Flush()
	}
	return st.err == nil
}

// changes tells what changed; the last event carries the place.
func (st *stream) changes(c changes) {
	type event struct {
		name string
		data any
	}
	var all []event
	if c.overview != nil {
		all = append(all, event{"overview", c.overview})
	}
	if len(c.lines) > 0 {
		all = append(all, event{"lines", map[string][]Line{"lines": c.lines}})
	}
	if len(c.meters) > 0 {
		all = append(all, event{"meters", map[string][]Meter{"meters": c.meters}})
	}
	for _, e := range c.events {
		all = append(all, event{"alarm", e})
	}
	for i, e := range all {
		place := ""
		if i == len(all)-1 {
			place = c.place
		}
		st.event(e.name, place, e.data)
	}
}

// own tells a consumer how his meter does.
func (st *stream) own(snap *Snapshot) {
	me, ok := st.s.meOf(snap, st.meter)
	me.Values = nil
	b, err := json.Marshal(me)
	if ok && err == nil && string(b) != st.me {
		st.me = string(b)
		st.event("me", "", me)
	}
}

// values tells the values of the meter that changed.
func (st *stream) values() {
	m, _ := st.s.cfg.Source.Meter(st.meter)
	var changed []Value
	for _, v := range m.Values {
		b, err := json.Marshal(v)
		if err == nil && st.told[v.Channel] != string(b) {
			st.told[v.Channel] = string(b)
			changed = append(changed, v)
		}
	}
	if len(changed) > 0 {
		st.event("values", "", struct {
			Meter  string  `json:"meter"`
			Values []Value `json:"values"`
		}{st.meter, changed})
	}
}

// event sends one event.
func (st *stream) event(name, id string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		return
	}
	if id != "" {
		id = "id: " + id + "\n"
	}
	st.write("event: " + name + "\n" + id + "data: " + string(b) + "\n\n")
}

func (st *stream) write(text string) {
	if st.err != nil {
		return
	}
	_ = st.out.SetWriteDeadline(time.Now().Add(st.s.patience))
	_, st.err = st.w.Write([]byte(text))
}
