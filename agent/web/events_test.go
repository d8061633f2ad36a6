package web

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// events reads a stream.
type events struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Reader
}

// event is one of a stream.
type event struct{ name, id, data string }

// open opens a stream.
func (s *served) open(t *testing.T, token, path string, header ...string) *events {
	t.Helper()
	a, err := http.DefaultClient.Do(s.request(t, token, path, header...))
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "text/event-stream" {
		b, _ := io.ReadAll(a.Body)
		t.Fatalf("%d %v %s", a.StatusCode, a.Header, b)
	}
	t.Cleanup(func() { _ = a.Body.Close() })
	return &events{t, a.Body, bufio.NewReader(a.Body)}
}

// next gives the next event that is none of the time.
func (e *events) next() (v event) {
	e.t.Helper()
	for {
		line, err := e.in.ReadString('\n')
		if err != nil {
			e.t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "event":
			v.name = value
		case "id":
			v.id = value
		case "data":
			v.data = value
			if !json.Valid([]byte(value)) {
				e.t.Errorf("not JSON: %s", value)
			}
		case "":
			if v.name != "" && v.name != "now" {
				return v
			}
			v = event{}
		}
	}
}

// close ends a stream, and waits until the server has seen it.
func (s *served) close(e *events) {
	before := s.Stats().Streams
	_ = e.body.Close()
	for s.Stats().Streams >= before {
		<-time.After(time.Millisecond)
	}
}

// begin gives the place of a start.
func (s *served) begin(t *testing.T, token string) string {
	t.Helper()
	_, body := s.get(t, token, "/api/1/start")
	var got start
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Place == "" {
		t.Fatalf("%v: %s", err, body)
	}
	return got.Place
}

// What changed comes, and nothing else; after a break what changed meanwhile
// comes once.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := serve(t)
	place := s.begin(t, viewerToken)
	e := s.open(t, viewerToken, "/api/1/events?after="+place)
	s.world.change(func(w *Snapshot) { w.Meters[1].State = "ok" })
	first := e.next()
	if first.name != "meters" || first.id == "" || first.id == place || strings.Contains(first.data, "house-01") || !strings.Contains(first.data, `"id":"house-02"`) || !strings.Contains(first.data, `"state":"ok"`) {
		t.Errorf("%+v", first)
	}
	_ = e.body.Close()
	for _, state := range []string{"failing", "partial", "locked"} {
		s.world.change(func(w *Snapshot) { w.Meters[1].State = state })
		s.begin(t, viewerToken) // somebody looks
	}
	s.world.change(func(w *Snapshot) {
		w.Overview.Uplink.Connected = false
		w.Overview.Now, w.Overview.Uptime = "2026-03-01T12:16:00Z", 8
		w.Events = append([]Alarm{{"3", testTime, "house-02", "event.x", json.RawMessage("1"), ""}}, w.Events...)
	})
	e = s.open(t, viewerToken, "/api/1/events?after="+place, "Last-Event-ID: "+first.id)
	got := []event{e.next(), e.next(), e.next()}
	if got[0].name != "overview" || got[1].name != "meters" || got[2].name != "alarm" || !strings.Contains(got[1].data, "locked") || !strings.Contains(got[2].data, "event.x") {
		t.Errorf("%+v", got)
	}
	if got[0].id != "" || got[1].id != "" || got[2].id == "" {
		t.Errorf("the place is not in the last event alone: %+v", got)
	}
}

// Who comes from elsewhere begins anew, and so does everybody when the
// configuration changes.
func TestReset(t *testing.T) {
	t.Parallel()
	s := serve(t)
	place := s.begin(t, viewerToken)
	instance, _, _ := strings.Cut(place, "-")
	for _, p := range []string{"00000000-1", "x", instance + "-999", instance + "-x"} {
		e := s.open(t, viewerToken, "/api/1/events?after="+p)
		if v := e.next(); v.name != "reset" || !strings.HasPrefix(v.id, instance) {
			t.Errorf("%s: %+v", p, v)
		}
		s.close(e)
	}
	e := s.open(t, viewerToken, "/api/1/events?after="+place)
	s.world.change(func(w *Snapshot) { w.Overview.Config.Hash, w.Meters = "fedcba9876543210", w.Meters[:1] })
	if v := e.next(); v.name != "reset" || strings.HasPrefix(v.id, instance) {
		t.Errorf("%+v", v)
	}
}

// Readings come to whom they are for, at first all, then what changed.
func TestValues(t *testing.T) {
	t.Parallel()
	s := serve(t)
	e := s.open(t, technicianToken, "/api/1/events?meter=house-02")
	if v := e.next(); v.name != "values" || v.id != "" || !strings.Contains(v.data, `"meter":"house-02"`) || strings.Count(v.data, "channel") != 2 {
		t.Errorf("%+v", v)
	}
	c := s.open(t, consumerToken, "/api/1/events")
	if v := c.next(); v.name != "me" || !strings.Contains(v.data, `"id":"house-01"`) || strings.Contains(v.data, "values") {
		t.Errorf("%+v", v)
	}
	if v := c.next(); v.name != "values" || !strings.Contains(v.data, `"meter":"house-01"`) {
		t.Errorf("%+v", v)
	}
	s.world.change(func(w *Snapshot) { w.Meters[1].State = "locked" }) // not his
	s.world.change(func(w *Snapshot) { w.Meters[0].State = "failing" })
	if v := c.next(); v.name != "me" || !strings.Contains(v.data, `"failing"`) {
		t.Errorf("%+v", v)
	}
	for _, path := range []string{"/api/1/events?meter=house-02"} {
		if a, _ := s.get(t, consumerToken, path); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s as a consumer: %d", path, a.StatusCode)
		}
	}
}

// There are so many places, and so many for one token.
func TestStreams(t *testing.T) {
	t.Parallel()
	s := serve(t)
	var all []*events
	for range maxOfToken {
		all = append(all, s.open(t, viewerToken, "/api/1/events"))
	}
	if a, body := s.get(t, viewerToken, "/api/1/events"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %d %s", a.StatusCode, body)
	}
	s.open(t, technicianToken, "/api/1/events")
	if n := s.Stats().Streams; n != maxOfToken+1 {
		t.Errorf("%d streams", n)
	}
	s.close(all[0])
	s.open(t, viewerToken, "/api/1/events")
}

// A stream goes on for longer than a request may take to read.
func TestLongStream(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	s := serve(t, func(s *Server) { s.http.ReadTimeout, s.http.WriteTimeout = limit, limit })
	e := s.open(t, viewerToken, "/api/1/events?after="+s.begin(t, viewerToken))
	for began, i := time.Now(), uint64(100); time.Since(began) < limit+limit/2; i++ {
		<-time.After(limit / 20)
		s.world.change(func(w *Snapshot) { w.Overview.Uplink.Rows = i })
		if v := e.next(); v.name != "overview" {
			t.Errorf("%+v", v)
		}
	}
}

// A client that takes nothing is left.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	s := serve(t, func(s *Server) { s.patience = 200 * time.Millisecond })
	e := s.open(t, viewerToken, "/api/1/events?after="+s.begin(t, viewerToken))
	_ = e
	text := strings.Repeat("x", 1<<20)
	for i := 0; s.Stats().Streams > 0; i++ { // each change is a megabyte more than it takes
		s.world.change(func(w *Snapshot) { w.Meters[0].Error = text[i%100:] })
		<-time.After(time.Millisecond)
	}
}

// A snapshot is made for all who ask within a second, and let go of.
func TestFeed(t *testing.T) {
	t.Parallel()
	w, n := newWorld(), 0
	f := feed{fresh: time.Hour, snapshot: func() Snapshot { n++; return w.snapshot() }}
	_, place := f.now()
	for range 5 {
		if _, again := f.now(); again != place {
			t.Errorf("%s, then %s", place, again)
		}
	}
	if n != 1 {
		t.Errorf("%d snapshots", n)
	}
	f.forget()
	if _, again := f.now(); n != 2 || again != place {
		t.Errorf("%d snapshots, %s, want 2 and %s", n, again, place)
	}
	f.forget()
	if f.snap != nil {
		t.Error("the snapshot is kept")
	}
	// Events that are long gone are forgotten.
	f.fresh = 0
	for i := range 1000 {
		w.change(func(s *Snapshot) { s.Events = []Alarm{{ID: string(rune('0' + i))}} })
		f.now()
		f.mu.Lock()
		if len(f.marks) > 100 {
			t.Fatalf("%d marks", len(f.marks))
		}
		f.mu.Unlock()
	}
	f.forget()
}
