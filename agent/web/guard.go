package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Role is what a token is good for.
type Role string

// The roles.
const (
	Viewer     Role = "viewer"     // how the gateway and its meters do; no readings
	Technician Role = "technician" // that, and the readings
	Consumer   Role = "consumer"   // the readings of one meter
)

// Token lets somebody in. Tokens are random and 160 bits long or longer, so that
// their plain SHA-256 tells nobody what they are.
type Token struct {
	Name   string
	Role   Role
	Meter  string // of a consumer
	SHA256 [sha256.Size]byte
}

// maxToken bounds what is hashed.
const maxToken = 256

// find gives the token that a request carries, nil for none that is known. It
// takes as long for every token.
func find(tokens []Token, r *http.Request) *Token {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || text == "" || len(text) > maxToken {
		return nil
	}
	sum := sha256.Sum256([]byte(text))
	found := -1
	for i := range tokens {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], tokens[i].SHA256[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	return &tokens[found]
}

// bucket is what an address may still do.
type bucket struct {
	left float64
	at   time.Time
}

// bound is how many fit into a bucket, and how many come back a second.
type bound struct{ most, rate float64 }

// take takes one out. wait is how long until there is one again.
func (b *bucket) take(now time.Time, of bound) (wait time.Duration, ok bool) {
	if b.at.IsZero() {
		b.left = of.most
	}
	b.left = min(of.most, b.left+max(0, now.Sub(b.at).Seconds())*of.rate)
	b.at = now
	if b.left < 1 {
		return time.Duration((1 - b.left) / of.rate * float64(time.Second)), false
	}
	b.left--
	return 0, true
}

// maxAddresses bounds the memory of them; the one that was quiet longest is
// forgotten.
const maxAddresses = 256

// newLimiter gives what an address may do: a page that is opened makes a handful
// of requests.
func newLimiter() limiter {
	return limiter{requests: bound{60, 10}, wrongs: bound{10, 0.1}, known: map[netip.Addr]*dealings{}}
}

// limiter bounds what single addresses may do.
type limiter struct {
	requests, wrongs bound

	mu    sync.Mutex
	known map[netip.Addr]*dealings
}

// dealings are those with one address.
type dealings struct {
	all, wrong bucket
	warned     bool // that it tries tokens
	seen       time.Time
}

// request says whether an address may make a request.
func (l *limiter) request(a netip.Addr, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(a, now).all.take(now, l.requests)
}

// wrong counts a request without a token that is known. first says that this is
// the first one too many.
func (l *limiter) wrong(a netip.Addr, now time.Time) (wait time.Duration, ok, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.of(a, now)
	wait, ok = d.wrong.take(now, l.wrongs)
	first = !ok && !d.warned
	d.warned = !ok
	return wait, ok, first
}

// of gives the dealings with an address. mu is held.
func (l *limiter) of(a netip.Addr, now time.Time) *dealings {
	if a = a.Unmap(); a.Is6() { // whoever has one address of a network has all
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	d := l.known[a]
	if d == nil {
		if len(l.known) >= maxAddresses {
			var oldest netip.Addr
			at := now
			for k, o := range l.known {
				if !o.seen.After(at) {
					oldest, at = k, o.seen
				}
			}
			delete(l.known, oldest)
		}
		d = &dealings{}
		l.known[a] = d
	}
	d.seen = now
	return d
}

// remote gives the address that a request came from.
func remote(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}
