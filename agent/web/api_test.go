package web

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unlimited lets one address do what it likes.
func unlimited(s *Server) { s.limits.requests.most, s.limits.wrongs.most = 1e9, 1e9 }

// Each role has its paths and no others.
func TestRoles(t *testing.T) {
	t.Parallel()
	s := serve(t, unlimited)
	for _, c := range []struct {
		path                                 string
		viewer, technician, consumer, nobody int
	}{
		{"/", 200, 200, 200, 200},
		{"/api/1/start", 200, 200, 200, 401},
		{"/api/1/overview", 200, 200, 403, 401},
		{"/api/1/lines", 200, 200, 403, 401},
		{"/api/1/meters", 200, 200, 403, 401},
		{"/api/1/meters/house-01", 200, 200, 403, 401},
		{"/api/1/meters/house-09", 404, 404, 403, 401},
		{"/api/1/meters/house-01/curve?channel=1-0:1.8.0", 403, 200, 403, 401},
		{"/api/1/alarms", 200, 200, 403, 401},
		{"/api/1/me", 403, 403, 200, 401},
		{"/api/1/me/curve?channel=1-0:1.8.0", 403, 403, 200, 401},
		{"/api/1/events?meter=house-02", 403, 0, 403, 401},
		{"/api/1/events?meter=house-09", 403, 404, 403, 401},
		{"/metrics", 200, 200, 403, 401},
		{"/api/1/", 404, 404, 404, 401},
		{"/api/1", 404, 404, 404, 401},
		{"/api/1/meters/", 404, 404, 404, 401},
		{"/api/1/meters//curve", 404, 404, 404, 401},
		{"/api/1/meters/a/b", 404, 404, 404, 401},
		{"/../etc/passwd", 404, 404, 404, 401},
		{"/index.html", 404, 404, 404, 401},
		{"/debug/pprof/", 404, 404, 404, 401},
	} {
		for token, want := range map[string]int{viewerToken: c.viewer, technicianToken: c.technician, consumerToken: c.consumer, "": c.nobody, "wrong": c.nobody} {
			if want == 0 {
				continue // a stream, which does not end
			}
			if a, body := s.get(t, token, c.path); a.StatusCode != want {
				t.Errorf("%s as %q: %d, want %d: %s", c.path, token, a.StatusCode, want, body)
			}
		}
	}
}

// Nobody sees readings that are not for him.
func TestReadings(t *testing.T) {
	t.Parallel()
	s := serve(t, unlimited)
	const reading = "123456.7"
	for _, c := range []struct {
		token, path string
		want        bool
	}{
		{technicianToken, "/api/1/meters/house-01", true},
		{viewerToken, "/api/1/meters/house-01", false},
		{viewerToken, "/api/1/start", false},
		{technicianToken, "/api/1/start", false}, // as small as it can be
		{consumerToken, "/api/1/start", true},
		{consumerToken, "/api/1/me", true},
	} {
		_, body := s.get(t, c.token, c.path)
		if strings.Contains(body, reading) != c.want {
			t.Errorf("%s as %s: %s", c.path, c.token, body)
		}
		if c.token == consumerToken && strings.Contains(body, "house-02") {
			t.Errorf("%s tells a consumer of others: %s", c.path, body)
		}
	}
	// A consumer cannot name another meter.
	if a, _ := s.get(t, consumerToken, "/api/1/me/curve?channel=1-0:1.8.0&meter=house-02"); a.StatusCode != http.StatusBadRequest {
		t.Errorf("a parameter that is unknown: %d", a.StatusCode)
	}
}

// A parameter that is wrong is told.
func TestParameters(t *testing.T) {
	t.Parallel()
	s := serve(t, unlimited)
	for path, want := range map[string]string{
		"/api/1/meters?state=dead":                             "state: want one of waiting, ok",
		"/api/1/meters?sort=id":                                "it takes: line, state",
		"/api/1/meters?line=a&line=b":                          "one twice",
		"/api/1/meters?line=%zz":                               "the query cannot be read",
		"/api/1/meters/house-01/curve":                         "channel: missing",
		"/api/1/meters/house-01/curve?channel=bad":             "no such channel",
		"/api/1/meters/house-01/curve?channel=closed&day=2026": "the store cannot be read now",
	} {
		a, body := s.get(t, technicianToken, path)
		want503 := strings.Contains(path, "closed")
		if !strings.Contains(body, want) || want503 != (a.StatusCode == 503) || !want503 && a.StatusCode != 400 {
			t.Errorf("%s: %d %s, want %q", path, a.StatusCode, body, want)
		}
	}
	for path, want := range map[string]int{
		"/api/1/meters?line=/dev/ttyS1":               1,
		"/api/1/meters?state=failing":                 1,
		"/api/1/meters?state=failing&line=/dev/ttyS1": 0,
		"/api/1/meters":                               2,
	} {
		_, body := s.get(t, technicianToken, path)
		var got struct{ Meters []Meter }
		if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Meters) != want || got.Meters == nil {
			t.Errorf("%s: %v, %s, want %d", path, err, body, want)
		}
	}
}

// The page comes packed or not, and only once.
func TestPage(t *testing.T) {
	t.Parallel()
	s := serve(t)
	a, body := s.get(t, "", "/", "Accept-Encoding: identity")
	if body != "<p>page</p>" || a.Header.Get("Content-Encoding") != "" {
		t.Errorf("%q %v", body, a.Header)
	}
	a, body = s.get(t, "", "/", "Accept-Encoding: br, gzip")
	if a.Header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(body, "\x1f\x8b") {
		t.Errorf("%q %v", body, a.Header)
	}
	if a.Header.Get("Content-Security-Policy") != s.cfg.Policy || a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("%v", a.Header)
	}
	if a, body = s.get(t, "", "/", "If-None-Match: "+a.Header.Get("ETag")); a.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("%d %q", a.StatusCode, body)
	}
}

// Long answers are packed for who unpacks them.
func TestPacked(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.world.change(func(w *Snapshot) {
		for i := range 1000 {
			w.Meters = append(w.Meters, Meter{ID: fmt.Sprintf("house-%04d", i), Line: "/dev/ttyS1", State: "ok", Last: testTime, Success: ptr(1.0)})
		}
	})
	a, plain := s.get(t, viewerToken, "/api/1/meters", "Accept-Encoding: identity")
	if a.Header.Get("Content-Encoding") != "" || !json.Valid([]byte(plain)) {
		t.Errorf("%v", a.Header)
	}
	a, body := s.get(t, viewerToken, "/api/1/meters", "Accept-Encoding: gzip")
	if a.Header.Get("Content-Encoding") != "gzip" || len(body) > len(plain)/5 {
		t.Errorf("%d of %d octets, %v", len(body), len(plain), a.Header)
	}
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || string(got) != plain {
		t.Errorf("%v, %d octets of %d", err, len(got), len(plain))
	}
	if a, _ = s.get(t, viewerToken, "/api/1/meters?state=none", "Accept-Encoding: gzip"); a.Header.Get("Content-Encoding") != "" {
		t.Errorf("a short one: %v", a.Header)
	}
}

// Every answer keeps browsers from doing more with it than they should.
func TestHeaders(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, path := range []string{"/", "/api/1/start", "/nothing", "/metrics"} {
		for _, token := range []string{"", viewerToken} {
			a, _ := s.get(t, token, path)
			for k, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
				"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-",
			} {
				if !strings.HasPrefix(a.Header.Get(k), want) {
					t.Errorf("%s: %s: %q, want %q", path, k, a.Header.Get(k), want)
				}
			}
			if a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Set-Cookie") != "" || a.Header.Get("Server") != "" {
				t.Errorf("%s: %v", path, a.Header)
			}
		}
	}
}

// Nothing can be changed.
func TestMethods(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"} {
		r := s.request(t, technicianToken, "/api/1/start")
		r.Method = method
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		if a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, a.StatusCode)
		}
	}
}

// Answers are what docs/openapi.yaml says, with every field there is.
func TestContract(t *testing.T) {
	t.Parallel()
	s := serve(t, unlimited)
	var lines bytes.Buffer
	n := 0
	for _, token := range []string{viewerToken, technicianToken, consumerToken, ""} {
		for _, c := range []struct{ contract, path string }{
			{"/", "/"},
			{"/api/1/start", "/api/1/start"},
			{"/api/1/overview", "/api/1/overview"},
			{"/api/1/lines", "/api/1/lines"},
			{"/api/1/meters", "/api/1/meters"},
			{"/api/1/meters", "/api/1/meters?state=none"},
			{"/api/1/meters/{id}", "/api/1/meters/house-01"},
			{"/api/1/meters/{id}", "/api/1/meters/house-02"},
			{"/api/1/meters/{id}", "/api/1/meters/nobody"},
			{"/api/1/meters/{id}/curve", "/api/1/meters/house-01/curve?channel=1-0:1.8.0&day=2026-03-01"},
			{"/api/1/meters/{id}/curve", "/api/1/meters/house-01/curve?channel=closed"},
			{"/api/1/alarms", "/api/1/alarms"},
			{"/api/1/me", "/api/1/me"},
			{"/api/1/me/curve", "/api/1/me/curve?channel=1-0:1.8.0&day=2026-03-01"},
			{"/metrics", "/metrics"},
		} {
			a, body := s.get(t, token, c.path)
			entry := map[string]any{"path": c.contract, "status": a.StatusCode, "type": a.Header.Get("Content-Type")}
			if strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") {
				entry["body"] = json.RawMessage(body)
			}
			b, err := json.Marshal(entry)
			if err != nil {
				t.Fatal(err)
			}
			lines.Write(append(b, '\n'))
			n++
		}
	}
	validate(t, lines.Bytes())
	// A validator that takes everything would be none.
	wrong := []byte(`{"path":"/api/1/overview","status":200,"type":"application/json","body":{"health":"fine"}}` + "\n")
	if out, err := validator(t, wrong); err == nil || !strings.Contains(out, "'conditions' is a required property") {
		t.Errorf("a wrong answer: %v, %s", err, out)
	}
}

func validator(t *testing.T, lines []byte) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/validate.py", "../../docs/openapi.yaml")
	cmd.Stdin = bytes.NewReader(lines)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func validate(t *testing.T, lines []byte) {
	t.Helper()
	if out, err := validator(t, lines); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Every route is in the contract, with its roles, and nothing else is.
func TestContractRoutes(t *testing.T) {
	t.Parallel()
	var got struct {
		Paths map[string]struct {
			Get struct {
				Roles []string `json:"x-roles"`
			}
		}
	}
	b, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import json,yaml; print(json.dumps(yaml.safe_load(open('../../docs/openapi.yaml'))))").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, r := range routes() {
		p, ok := got.Paths[r.path]
		roles := strings.Join(p.Get.Roles, " ")
		if roles == "" {
			roles = everybody
		}
		if !ok || roles != r.roles {
			t.Errorf("%s: the contract has it %v, for %s; the code for %s", r.path, ok, roles, r.roles)
		}
		delete(got.Paths, r.path)
	}
	delete(got.Paths, "/")
	if len(got.Paths) > 0 {
		t.Errorf("only in the contract: %v", got.Paths)
	}
}
