package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Server works with.
type Config struct {
	Listen      string // HOST:PORT
	Certificate string // paths of PEM files; none for no TLS
	Key         string
	Tokens      []Token
	Source      Source
	// Page is what is served at /, compressed with gzip, with its ETag and its
	// Content-Security-Policy.
	Page         []byte
	ETag, Policy string
	Log          *slog.Logger
}

// Source is where the server gets what it shows. Its functions are called from
// several goroutines.
type Source struct {
	// Snapshot gives how everything does, at most once a second.
	Snapshot func() Snapshot
	// Meter gives one meter with its newest readings; false: there is none.
	Meter func(id string) (MeterDetail, bool)
	// Curve gives what a channel showed on a day of the site, "" for today. It
	// gives a *ProblemError where the fault is with what is asked for.
	Curve func(ctx context.Context, id, channel, day string) (Curve, error)
	// Metrics appends the metrics.
	Metrics func(b []byte) []byte
}

// ProblemError is what is wrong with a request.
type ProblemError struct{ Text string }

func (e *ProblemError) Error() string { return e.Text }

// Stats counts since the start.
type Stats struct {
	Requests [6]uint64 // by the first digit of the status
	Wrong    uint64    // without a token that is known
	Streams  int       // of events, now
}

// Server is the task. Make one with New; Run may be called once.
type Server struct {
	cfg      Config
	http     http.Server
	conns    conns
	limits   limiter
	feed     feed
	curves   chan struct{} // holds a place for each that is made
	look     time.Duration // how often changes are looked for
	patience time.Duration // that clients of streams may take

	certificate certificate
	requests    [6]atomic.Uint64
	wrong       atomic.Uint64

	life sync.RWMutex // held while a request is answered, and for good when Run has ended

	packing sync.Mutex

	mu      sync.Mutex
	streams map[string]int // by token
	total   int            // of streams
}

// Bounds.
const (
	maxConns   = 64
	maxStreams = 16
	maxOfToken = 4
	maxCurves  = 2
	maxHeader  = 8 << 10

	worthPacking = 4 << 10 // octets of an answer

	headerTime = 5 * time.Second
	readTime   = 10 * time.Second
	writeTime  = 30 * time.Second
	idleTime   = time.Minute
	stopTime   = time.Second
)

// New gives a server that does not listen yet.
func New(c Config) *Server {
	s := &Server{
		cfg: c, conns: conns{most: maxConns, known: map[net.Conn]*place{}}, limits: newLimiter(),
		curves: make(chan struct{}, maxCurves), streams: map[string]int{},
		look: lookEvery, patience: slowest,
	}
	s.feed.snapshot, s.feed.fresh = c.Source.Snapshot, fresh
	s.http = http.Server{
		Handler: s, ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, ConnState: s.conns.watch, ConnContext: s.conns.add,
		TLSNextProto:                 map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1 only
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Stats gives the counts.
func (s *Server) Stats() Stats {
	st := Stats{Wrong: s.wrong.Load()}
	for i := range s.requests {
		st.Requests[i] = s.requests[i].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Streams = s.total
	return st
}

// Listen opens the port.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	if s.cfg.Certificate != "" {
		s.certificate.paths = [2]string{s.cfg.Certificate, s.cfg.Key}
		if _, err := s.certificate.get(nil); err != nil {
			return nil, fmt.Errorf("page: tls: %w", err)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	if s.cfg.Certificate != "" {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: s.certificate.get})
	}
	return l, nil
}

// Run serves what comes to l until ctx ends; then every request is ended.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		last, done := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer done()
		if s.http.Shutdown(last) != nil {
			_ = s.http.Close()
		}
	})
	err := s.http.Serve(l)
	cancel()
	if !stop() {
		<-stopped
	}
	s.life.Lock() // none is answered any more, and none will be
	s.feed.forget()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("page: %w", err)
}

// certificate is read again when its files change.
type certificate struct {
	paths [2]string

	mu    sync.Mutex
	dates [2]time.Time
	pair  *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var dates [2]time.Time
	for i, path := range c.paths {
		if info, err := os.Stat(path); err == nil {
			dates[i] = info.ModTime()
		}
	}
	if c.pair != nil && dates == c.dates {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.paths[0], c.paths[1])
	switch {
	case err == nil:
		c.pair, c.dates = &pair, dates
	case c.pair == nil:
		return nil, err
	}
	return c.pair, nil // half of it may be written: the old one goes on
}

// fail answers with an error.
func fail(w http.ResponseWriter, status int, message string) {
	code := map[int]string{
		http.StatusBadRequest: "bad-request", http.StatusUnauthorized: "unauthorised", http.StatusForbidden: "forbidden",
		http.StatusNotFound: "not-found", http.StatusMethodNotAllowed: "method", http.StatusTooManyRequests: "too-many",
	}[status]
	if code == "" {
		code = "unavailable"
	}
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message = code, message
	answer(w, status, &body)
}

// answer answers with JSON.
func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusServiceUnavailable, []byte(`{"error":{"code":"unavailable","message":"the answer cannot be written as JSON"}}`)
	}
	send(w, status, "application/json", append(b, '\n'))
}

func send(w http.ResponseWriter, status int, kind string, b []byte) {
	h := w.Header()
	if c, ok := w.(counted); ok && c.zips && len(b) >= worthPacking && h.Get("Content-Encoding") == "" {
		c.s.packing.Lock() // one at a time: it takes most of a megabyte
		packed := pack(b)
		c.s.packing.Unlock()
		if packed != nil {
			h.Set("Content-Encoding", "gzip")
			h.Set("Vary", "Accept-Encoding")
			b = packed
		}
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone needs no answer
}
