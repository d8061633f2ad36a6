package web

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// request is one that was let in.
type request struct {
	*http.Request
	token *Token
	query url.Values
}

// route is a path, what it takes, and who may have it.
type route struct {
	path   string // with {id} for the name of a meter
	roles  string
	params []string
	do     func(s *Server, w http.ResponseWriter, r request, id string)
}

const (
	everybody = "viewer technician consumer"
	staff     = "viewer technician"
)

func routes() []route {
	return []route{
		{"/api/1/start", everybody, nil, (*Server).start},
		{"/api/1/overview", staff, nil, (*Server).overview},
		{"/api/1/lines", staff, nil, (*Server).lines},
		{"/api/1/meters", staff, []string{"line", "state"}, (*Server).meters},
		{"/api/1/meters/{id}", staff, nil, (*Server).meter},
		{"/api/1/meters/{id}/curve", "technician", []string{"channel", "day"}, (*Server).curve},
		{"/api/1/alarms", staff, nil, (*Server).alarms},
		{"/api/1/me", "consumer", nil, (*Server).me},
		{"/api/1/me/curve", "consumer", []string{"channel", "day"}, (*Server).curve},
		{"/api/1/events", everybody, []string{"after", "meter"}, (*Server).events},
		{"/metrics", staff, nil, (*Server).metrics},
	}
}

// match finds the route of a path, and the id in it.
func match(path string) (found *route, id string) {
	for _, r := range routes() {
		before, after, has := strings.Cut(r.path, "{id}")
		if !has {
			if path == r.path {
				return &r, ""
			}
			continue
		}
		middle, ok := strings.CutPrefix(path, before)
		if middle, fits := strings.CutSuffix(middle, after); ok && fits && middle != "" && !strings.Contains(middle, "/") {
			return &r, middle
		}
	}
	return nil, ""
}

// counted counts the statuses of answers, and packs long ones.
type counted struct {
	http.ResponseWriter
	s    *Server
	zips bool // the client unpacks
}

func (c counted) WriteHeader(status int) {
	c.s.requests[min(status/100, 5)].Add(1)
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (c counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(plain http.ResponseWriter, r *http.Request) {
	if !s.life.TryRLock() {
		return
	}
	defer s.life.RUnlock()
	defer s.conns.serve(r.Context())()
	w := counted{plain, s, strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	now := time.Now()
	if wait, ok := s.limits.request(remote(r), now); !ok {
		tooMany(w, wait, "too many requests from this address")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		h.Set("Connection", "close") // its body is not read
		fail(w, http.StatusMethodNotAllowed, "nothing can be changed here: only GET and HEAD")
		return
	}
	if r.URL.Path == "/" {
		s.page(w, r)
		return
	}
	token := find(s.cfg.Tokens, r)
	if token == nil {
		s.refuse(w, r, now)
		return
	}
	s.route(w, r, token)
}

// route answers a request of somebody who is known.
func (s *Server) route(w http.ResponseWriter, r *http.Request, token *Token) {
	to, id := match(r.URL.Path)
	if to == nil {
		fail(w, http.StatusNotFound, "there is nothing at this path; docs/api.md lists what there is")
		return
	}
	if !slices.Contains(strings.Fields(to.roles), string(token.Role)) {
		fail(w, http.StatusForbidden, "this path is not for the role "+string(token.Role)+", but for "+strings.ReplaceAll(to.roles, " ", " and "))
		return
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, "the query cannot be read: is a % or a ; in it not escaped?")
		return
	}
	for key, values := range query {
		if !slices.Contains(to.params, key) || len(values) > 1 {
			fail(w, http.StatusBadRequest, "the query has a parameter that this path does not take, or one twice; it takes: "+strings.Join(to.params, ", "))
			return
		}
	}
	if token.Role == Consumer {
		id = token.Meter
	}
	to.do(s, w, request{r, token, query}, id)
}

// refuse answers one who has no token that is known.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, now time.Time) {
	s.wrong.Add(1)
	wait, ok, first := s.limits.wrong(remote(r), now)
	if first {
		s.cfg.Log.Warn("somebody tries tokens of the page", "address", remote(r).String())
	}
	if !ok {
		tooMany(w, wait, "too many requests without a token that is known")
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	fail(w, http.StatusUnauthorized, "want the header Authorization: Bearer TOKEN, with a token that the configuration knows; gridgate token new makes one")
}

func tooMany(w http.ResponseWriter, wait time.Duration, why string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	fail(w, http.StatusTooManyRequests, why)
}

// page serves the page.
func (s *Server) page(w counted, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", s.cfg.Policy)
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", s.cfg.ETag)
	h.Set("Vary", "Accept-Encoding")
	if s.cfg.ETag != "" && r.Header.Get("If-None-Match") == s.cfg.ETag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := s.cfg.Page
	if w.zips {
		h.Set("Content-Encoding", "gzip")
	} else {
		var err error
		if body, err = unpack(body); err != nil {
			fail(w, http.StatusServiceUnavailable, "the page cannot be unpacked")
			return
		}
	}
	send(w, http.StatusOK, "text/html; charset=utf-8", body)
}

func (s *Server) start(w http.ResponseWriter, r request, id string) {
	snap, place := s.feed.now()
	o := &snap.Overview
	out := start{
		Role: r.token.Role, Name: r.token.Name, Place: place, Now: Time(time.Now()), TimeZone: o.TimeZone, UTCOffset: o.UTCOffset,
	}
	if r.token.Role == Consumer {
		me, ok := s.meOf(snap, id)
		if !ok {
			fail(w, http.StatusNotFound, "there is no meter "+id+" any more")
			return
		}
		out.Me = &me
	} else {
		out.Overview, out.Lines, out.Meters = o, &snap.Lines, &snap.Meters
		out.Alarms = &alarms{o.Conditions, snap.Events}
	}
	answer(w, http.StatusOK, &out)
}

func (s *Server) overview(w http.ResponseWriter, _ request, _ string) {
	snap, _ := s.feed.now()
	answer(w, http.StatusOK, &snap.Overview)
}

func (s *Server) lines(w http.ResponseWriter, _ request, _ string) {
	snap, _ := s.feed.now()
	answer(w, http.StatusOK, map[string][]Line{"lines": snap.Lines})
}

func (s *Server) meters(w http.ResponseWriter, r request, _ string) {
	states := []string{"", "waiting", "ok", "partial", "failing", "exchanged", "locked"}
	line, state := r.query.Get("line"), r.query.Get("state")
	if !slices.Contains(states, state) {
		fail(w, http.StatusBadRequest, "state: want one of "+strings.Join(states[1:], ", "))
		return
	}
	snap, _ := s.feed.now()
	list := []Meter{}
	for _, m := range snap.Meters {
		if (line == "" || m.Line == line) && (state == "" || m.State == state) {
			list = append(list, m)
		}
	}
	answer(w, http.StatusOK, map[string][]Meter{"meters": list})
}

func (s *Server) meter(w http.ResponseWriter, r request, id string) {
	m, ok := s.cfg.Source.Meter(id)
	if !ok {
		fail(w, http.StatusNotFound, "there is no meter of this name; /api/1/meters lists them")
		return
	}
	if r.token.Role != Technician {
		m.Values = nil
	}
	answer(w, http.StatusOK, &m)
}

func (s *Server) alarms(w http.ResponseWriter, _ request, _ string) {
	snap, _ := s.feed.now()
	answer(w, http.StatusOK, &alarms{snap.Overview.Conditions, snap.Events})
}

func (s *Server) me(w http.ResponseWriter, _ request, id string) {
	snap, _ := s.feed.now()
	me, ok := s.meOf(snap, id)
	if !ok {
		fail(w, http.StatusNotFound, "there is no meter "+id+" any more")
		return
	}
	answer(w, http.StatusOK, &me)
}

// meOf gives what a consumer sees of his meter.
func (s *Server) meOf(snap *Snapshot, id string) (Me, bool) {
	m, ok := s.cfg.Source.Meter(id)
	return Me{ID: id, Site: snap.Overview.Site, Serial: m.Serial, State: m.State, Last: m.Last, Values: m.Values}, ok
}

// curveTime is how long a curve may take to make.
const curveTime = 20 * time.Second

func (s *Server) curve(w http.ResponseWriter, r request, id string) {
	channel := r.query.Get("channel")
	if channel == "" {
		fail(w, http.StatusBadRequest, "channel: missing; such as channel=1-0:1.8.0")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), curveTime)
	defer cancel()
	select {
	case s.curves <- struct{}{}:
		defer func() { <-s.curves }()
	case <-ctx.Done():
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, "others wait for their curves")
		return
	}
	c, err := s.cfg.Source.Curve(ctx, id, channel, r.query.Get("day"))
	var problem *ProblemError
	switch {
	case errors.As(err, &problem):
		fail(w, http.StatusBadRequest, problem.Text)
	case err != nil:
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusServiceUnavailable, "the store cannot be read now")
		s.cfg.Log.Debug("curve", "error", err)
	default:
		answer(w, http.StatusOK, &c)
	}
}

func (s *Server) metrics(w http.ResponseWriter, _ request, _ string) {
	send(w, http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", s.cfg.Source.Metrics(nil))
}
