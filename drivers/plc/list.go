package plc

import (
	"context"
	"strings"
	"time"
)

// listing is a node that the base node reported.
type listing struct {
	message
	node   *Node // that it is, if it is one that somebody wants to read
	since  time.Time
	heard  time.Time
	left   bool
	unsure bool // reported on a connection before
}

func (l *listing) isThere() bool { return !l.left && !l.unsure }

// manage takes a message of the base node. What is none is counted and passed
// over: the frames around it are in step.
func (b *Bridge) manage(c *conn, body []byte) {
	m, err := parseMessage(body)
	b.mu.Lock()
	var back *Node
	switch {
	case err == nil && m.kind == msgNewDevice:
		c.reported = time.Now()
		close(b.news)
		b.news = make(chan struct{})
		back = b.joined(m)
	case err == nil && m.kind == msgRemoveDevice:
		b.removed(b.devices[m.device])
	default:
		b.strange++
	}
	b.mu.Unlock()
	if back != nil && b.cfg.Listed != nil {
		b.cfg.Listed(back.name)
	}
}

// joined takes a node into the list, and gives the node that somebody waits
// for. mu is held.
func (b *Bridge) joined(m message) (back *Node) {
	now := time.Now()
	l := b.listed[m.eui]
	switch {
	case l == nil && len(b.listed) >= maxListed:
		b.strange++
		return nil
	case l == nil:
		l = &listing{since: now}
		b.listed[m.eui] = l
	case l.left || l.device != m.device || l.name != m.name:
		b.removed(l) // it began anew, and nobody told
		l.since = now
	}
	if other := b.devices[m.device]; other != nil && other != l {
		b.removed(other)
	}
	l.message, l.left, l.unsure = m, false, false
	b.devices[m.device] = l
	if l.node != nil && !l.node.isNamed(l) {
		l.node.listing, l.node = nil, nil
	}
	for _, n := range b.nodes {
		b.match(n, l)
	}
	if n := l.node; n != nil && (n.refused || n.quiet > 0) {
		n.refused, n.quiet, n.probe = false, 0, time.Time{}
		return n
	}
	return nil
}

// removed notes that a node left. mu is held.
func (b *Bridge) removed(l *listing) {
	if l == nil || l.left {
		return
	}
	l.left, l.since = true, time.Now()
	if b.devices[l.device] == l {
		delete(b.devices, l.device)
	}
	if l.node != nil && l.node.talk != nil {
		l.node.talk.end(ErrLeft)
	}
}

// match makes l the listing of n if it is, and is not another's by its other
// name: the newest that is there counts. mu is held.
func (b *Bridge) match(n *Node, l *listing) {
	if !n.isNamed(l) || l.node != nil || n.listing == l || n.listing != nil && n.listing.isThere() && !l.isThere() {
		return
	}
	if n.listing != nil {
		n.listing.node = nil
	}
	n.listing, l.node = l, n
}

// isNamed says whether l is the node that is meant.
func (n *Node) isNamed(l *listing) bool {
	return n.key == strings.ToUpper(strings.TrimSpace(l.name)) || n.eui != (EUI48{}) && n.eui == l.eui
}

// await waits until the base node has reported a node, or all nodes and not
// that one.
func (b *Bridge) await(ctx context.Context, c *conn, n *Node) error {
	timer := time.NewTimer(listQuiet)
	defer timer.Stop()
	for {
		b.mu.Lock()
		l := n.listing
		there, left := l != nil && l.isThere(), l != nil && l.left
		quiet, news := c.quietFor(), b.news
		n.refused = left || !there && quiet >= listQuiet
		refused := n.refused
		b.mu.Unlock()
		switch {
		case there:
			return nil
		case left:
			return ErrLeft
		case refused:
			return ErrAbsent
		}
		timer.Reset(listQuiet - quiet)
		select {
		case <-timer.C:
		case <-news:
		case <-c.gone:
			return c.why()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// quietFor gives for how long no node was reported. The bridge's mu is held.
func (c *conn) quietFor() time.Duration {
	if c.reported.After(c.since) {
		return time.Since(c.reported)
	}
	return time.Since(c.since)
}

// List connects to a PRIME base node and waits until it has reported its nodes,
// and for as long as it is told beyond.
func (b *Bridge) List(ctx context.Context, beyond time.Duration) error {
	c, err := b.connect(ctx)
	if err != nil {
		return err
	}
	timer := time.NewTimer(listQuiet)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.gone:
			return c.why()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b.mu.Lock()
		left := max(listQuiet-c.quietFor(), beyond-time.Since(c.since))
		b.mu.Unlock()
		if left <= 0 {
			return nil
		}
		timer.Reset(left)
	}
}
