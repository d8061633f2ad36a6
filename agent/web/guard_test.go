package web

import (
	"crypto/sha256"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

func TestFind(t *testing.T) {
	t.Parallel()
	tokens := []Token{{Name: "a", SHA256: sha256.Sum256([]byte("one"))}, {Name: "b", SHA256: sha256.Sum256([]byte("two"))}}
	for header, want := range map[string]string{
		"Bearer one": "a", "bearer two": "b", "Bearer three": "", "Bearer ": "", "": "", "one": "", "Basic one": "", "Bearer  one": "", "Bearer one ": "",
	} {
		r := &http.Request{Header: http.Header{"Authorization": {header}}}
		got := ""
		if k := find(tokens, r); k != nil {
			got = k.Name
		}
		if got != want {
			t.Errorf("%q: %q, want %q", header, got, want)
		}
	}
	if k := find(nil, &http.Request{Header: http.Header{"Authorization": {"Bearer one"}}}); k != nil {
		t.Errorf("of no tokens: %v", k)
	}
}

// A bucket gives what it holds, then what comes back.
func TestBucket(t *testing.T) {
	t.Parallel()
	var b bucket
	now := time.Unix(1e9, 0)
	of := bound{3, 0.5}
	for i := range 3 {
		if _, ok := b.take(now, of); !ok {
			t.Errorf("%d: refused", i)
		}
	}
	if wait, ok := b.take(now, of); ok || wait != 2*time.Second {
		t.Errorf("%v %v, want to wait 2 s", wait, ok)
	}
	if wait, ok := b.take(now.Add(time.Second), of); ok || wait != time.Second {
		t.Errorf("%v %v, want to wait 1 s more", wait, ok)
	}
	if _, ok := b.take(now.Add(2*time.Second), of); !ok {
		t.Error("refused what came back")
	}
	if _, ok := b.take(now.Add(-time.Hour), of); ok {
		t.Error("a clock that is set back gives more")
	}
}

// One address takes nothing from another, and many cost no more memory than some.
func TestLimiter(t *testing.T) {
	t.Parallel()
	l := newLimiter()
	now := time.Unix(1e9, 0)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for range 60 {
		if _, ok := l.request(a, now); !ok {
			t.Fatal("refused too early")
		}
	}
	if wait, ok := l.request(a, now); ok || wait <= 0 {
		t.Errorf("%v %v", wait, ok)
	}
	if _, ok := l.request(netip.MustParseAddr("::ffff:192.0.2.1"), now); ok {
		t.Error("the same address, written as one of version 6, is let in")
	}
	if _, ok := l.request(b, now); !ok {
		t.Error("another address is refused")
	}
	firsts := 0
	for range 20 {
		if _, _, first := l.wrong(b, now); first {
			firsts++
		}
	}
	if firsts != 1 {
		t.Errorf("told %d times, want once", firsts)
	}
	for range 10 {
		_, _, _ = l.wrong(netip.MustParseAddr("2001:db8::1"), now)
	}
	if _, ok, _ := l.wrong(netip.MustParseAddr("2001:db8::2"), now); ok {
		t.Error("who has a network has as many tries as addresses")
	}
	for i := range 3 * maxAddresses {
		l.request(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now.Add(time.Second))
	}
	if len(l.known) > maxAddresses {
		t.Errorf("%d addresses are kept", len(l.known))
	}
}

// Who asks too often is told when to come back; who tries tokens is, too, and
// whoever has a right one is let in meanwhile.
func TestTooMany(t *testing.T) {
	t.Parallel()
	s := serve(t, func(s *Server) { s.limits.requests, s.limits.wrongs = bound{15, 1e-6}, bound{10, 1e-3} })
	for i := range 12 {
		a, _ := s.get(t, "wrong", "/api/1/start")
		want := http.StatusUnauthorized
		if i >= 10 {
			want = http.StatusTooManyRequests
		}
		if a.StatusCode != want {
			t.Errorf("try %d: %d, want %d", i, a.StatusCode, want)
		}
		if n, err := strconv.Atoi(a.Header.Get("Retry-After")); i >= 10 && (err != nil || n < 1 || n > 1000) {
			t.Errorf("try %d: Retry-After %q", i, a.Header.Get("Retry-After"))
		}
	}
	for range 3 {
		if a, _ := s.get(t, viewerToken, "/api/1/start"); a.StatusCode != http.StatusOK {
			t.Errorf("with a token: %d", a.StatusCode)
		}
	}
	if a, _ := s.get(t, viewerToken, "/api/1/start"); a.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the sixteenth: %d", a.StatusCode)
	}
	if st := s.Stats(); st.Wrong != 12 || st.Requests[2] != 3 || st.Requests[4] != 13 {
		t.Errorf("%+v", st)
	}
}
