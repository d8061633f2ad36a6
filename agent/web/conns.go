package web

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// conns bounds the connections. When there are too many, that one goes which
// has gone longest without a whole request: who opens connections and says
// nothing takes nobody's place.
type conns struct {
	most int

	mu    sync.Mutex
	known map[net.Conn]*place
}

// place is that of a connection.
type place struct {
	serving bool // a request is being answered
	since   time.Time
}

type placeKey struct{}

// watch is http.Server.ConnState.
func (c *conns) watch(conn net.Conn, s http.ConnState) {
	switch s {
	case http.StateClosed, http.StateHijacked:
		c.mu.Lock()
		delete(c.known, conn)
		c.mu.Unlock()
	case http.StateNew, http.StateActive, http.StateIdle:
	}
}

// add is http.Server.ConnContext: it takes a place for a connection.
func (c *conns) add(ctx context.Context, conn net.Conn) context.Context {
	p := &place{since: time.Now()}
	c.mu.Lock()
	victim := conn
	if len(c.known) >= c.most {
		oldest := p.since.Add(time.Second)
		for k, o := range c.known {
			if !o.serving && o.since.Before(oldest) {
				victim, oldest = k, o.since
			}
		}
		delete(c.known, victim)
	}
	full := len(c.known) >= c.most // all of them are being answered
	if !full {
		c.known[conn] = p
	}
	c.mu.Unlock()
	if full || victim != conn {
		if t, ok := victim.(*tls.Conn); ok {
			victim = t.NetConn() // no words of farewell, which may block
		}
		_ = victim.Close() // its task sees that, and says so by watch
	}
	return context.WithValue(ctx, placeKey{}, p)
}

// serve notes that the request of a connection is being answered, until done.
func (c *conns) serve(ctx context.Context) (done func()) {
	p, _ := ctx.Value(placeKey{}).(*place)
	if p == nil {
		return func() {}
	}
	set := func(serving bool) {
		c.mu.Lock()
		p.serving, p.since = serving, time.Now()
		c.mu.Unlock()
	}
	set(true)
	return func() { set(false) }
}
