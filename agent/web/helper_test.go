package web

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what a server shows in tests; every field of it is filled in.
type world struct {
	mu   sync.Mutex
	snap Snapshot
}

func ptr[T any](v T) *T { return &v }

const testTime = "2026-03-01T12:15:00.25Z"

func newWorld() *world {
	m := Meter{
		ID: "house-01", Line: "/dev/ttyS1", Protocol: "dlms", State: "ok", Serial: "GRG000001", Last: testTime, Success: ptr(0.5),
		SuccessOf: 4, Signal: ptr(97), Clock: ptr(-1.5), ClockBad: true, Error: "x",
	}
	two := Meter{ID: "house-02", Line: "127.0.0.1:502", State: "failing"}
	return &world{snap: Snapshot{
		Overview: Overview{
			Conditions: []Condition{{"meters-failing", Warn, 1, "1 of 2 meters do not answer"}},
			Version:    "v1", Site: "here", Gateway: "gw1", TimeZone: "Asia/Baghdad", UTCOffset: 10800, Now: testTime, Started: testTime, Uptime: 7,
			Clock:   GatewayClock{"holdover", "x", "agent", "ntp-1.example", ptr(0.5), 0.25, testTime},
			Uplink:  Uplink{"ssl://fog.example:8883", true, "x", 1, 2, 3, 4, 5, true, []string{"billing"}},
			Modem:   &Modem{"ok", "x", "registered", "Zone 3 Mobile", "LTE", ptr(-81), true, 1},
			Intake:  Intake{1, 2, 3, 4, 5, 6, testTime, "x"},
			Backlog: []Backlog{{"alarm", 1, 2}},
			Config:  RunsWith{"0123456789abcdef", 3, []string{"here/gw1 version 7"}, "x", "x"},
			Meters:  Counts{2, 0, 1, 0, 1, 0, 0}, Memory: Memory{1 << 24, 1 << 23, 1 << 26}, Disk: Disk{1 << 27, 1 << 26, 1 << 24, 1 << 23},
		},
		Lines: []Line{
			{"/dev/ttyS1", "serial", 1, 1, ptr(0.5), testTime, true, nil, 0, "x"},
			{"127.0.0.1:502", "plc", 1, 0, nil, "", false, ptr(false), 12, ""},
		},
		Meters: []Meter{m, two},
		Events: []Alarm{{"2", testTime, "house-01", "event.meter-exchanged", json.RawMessage(`"x"`), "test"}, {"1", testTime, "gw1", "event.store-closed", json.RawMessage("null"), ""}},
	}}
}

func (w *world) snapshot() Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.snap
	s.Meters = append([]Meter(nil), s.Meters...)
	s.Events = append([]Alarm(nil), s.Events...)
	return s
}

func (w *world) change(f func(*Snapshot)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.snap.Meters = append([]Meter(nil), w.snap.Meters...)
	f(&w.snap)
}

func (w *world) meter(id string) (MeterDetail, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.snap.Meters {
		if m.ID != id {
			continue
		}
		return MeterDetail{
			Meter: m, Configured: "GRG000009", Model: "idis", Visits: 4, Answered: 2, Rows: 8, Gaps: 900, Groups: []string{"household"},
			ClockDetail: &MeterClock{-1.5, 0.5, true, testTime, true, "set", true, testTime, "x"},
			Link:        &Link{"present", 1.4, 400, 12, 2, testTime},
			Values: []Value{
				{"1-0:1.8.0*255/3:2", "1-0:1.8.0", testTime, json.RawMessage("123456.7"), "Wh", "good", true, "instant", 900},
				{"0-0:96.1.0*255/1:2", "0-0:96.1.0", testTime, json.RawMessage(`"` + m.ID + `"`), "", "test", false, "instant", 0},
			},
		}, true
	}
	return MeterDetail{}, false
}

func (w *world) curve(_ context.Context, id, channel, day string) (Curve, error) {
	switch channel {
	case "bad":
		return Curve{}, &ProblemError{"channel: no such channel"}
	case "closed":
		return Curve{}, io.ErrClosedPipe
	}
	return Curve{
		id, channel, day, "Asia/Baghdad", testTime, testTime, "interval", false, 900, "Wh", true,
		[]Point{{testTime, json.RawMessage("1.5"), "estimated"}, {testTime, json.RawMessage("null"), ""}},
	}, nil
}

// Tokens of the tests.
const (
	viewerToken     = "viewer-token"
	technicianToken = "technician-token"
	consumerToken   = "consumer-token"
)

// served is a server that runs.
type served struct {
	*Server
	world *world
	url   string
	stop  func() error
}

// serve runs a server until the test ends.
func serve(t *testing.T, change ...func(*Server)) *served {
	t.Helper()
	w := newWorld()
	c := Config{
		Listen: "127.0.0.1:0",
		Source: Source{Snapshot: w.snapshot, Meter: w.meter, Curve: w.curve, Metrics: func(b []byte) []byte { return append(b, "up 1\n"...) }},
		Page:   packed(t, "<p>page</p>"), ETag: `"1"`, Policy: "default-src 'none'; script-src 'sha256-x'", Log: slog.New(slog.DiscardHandler),
	}
	for _, k := range []struct {
		text  string
		role  Role
		meter string
	}{{viewerToken, Viewer, ""}, {technicianToken, Technician, ""}, {consumerToken, Consumer, "house-01"}} {
		c.Tokens = append(c.Tokens, Token{string(k.role), k.role, k.meter, sha256.Sum256([]byte(k.text))})
	}
	s := New(c)
	s.look, s.feed.fresh = 5*time.Millisecond, 0
	for _, f := range change {
		f(s)
	}
	l, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return run(t, s, w, l)
}

func run(t *testing.T, s *Server, w *world, l net.Listener) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	out := &served{s, w, "http://" + l.Addr().String(), sync.OnceValue(func() error {
		cancel()
		return <-ended
	})}
	t.Cleanup(func() {
		if err := out.stop(); err != nil {
			t.Error(err)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return out
}

// get makes a request with a token, "" for none.
func (s *served) get(t *testing.T, token, path string, header ...string) (got, string) {
	t.Helper()
	r := s.request(t, token, path, header...)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got{answer.StatusCode, answer.Header}, string(b)
}

// got is what came of a request, beside its body.
type got struct {
	StatusCode int
	Header     http.Header
}

func (s *served) request(t *testing.T, token, path string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Set(k, v)
	}
	return r
}
