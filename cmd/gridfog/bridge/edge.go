package bridge

import (
	"context"
	"errors"
	"time"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/mqtt"
)

// edge is a gateway's task: its node and the connection of it.
//
//	idle -> connected -> born -> idle
//
// It leaves idle when its gateway is not offline or rows wait, and the primary
// host, if there is one, is online. It is born when it has seen for itself that
// the host is. It goes back when the gateway is offline and nothing waits, or
// the host is offline.
type edge struct {
	bridge *Sparkplug
	node   *Node         // of the task alone
	signal chan struct{} // has room for one: look again

	// What follows is guarded by the bridge's mu.
	rows    []track.Reading // what waits
	offline bool            // the gateway says so, or its broker
	version string
	rebirth bool // a host asks for births
	host    hostFollower
}

func (e *edge) poke() {
	select {
	case e.signal <- struct{}{}:
	default:
	}
}

// look gives what is to be done.
type look struct {
	wanted, ready, host, rebirth bool
	version                      string
}

func (e *edge) look() look {
	s := e.bridge
	s.mu.Lock()
	defer s.mu.Unlock()
	return look{!e.offline || len(e.rows) > 0, s.ready, s.PrimaryHost == "" || e.host.online, e.rebirth, e.version}
}

func (e *edge) run(ctx context.Context) {
	s := e.bridge
	if err := s.Store.Load(e.node); err != nil {
		s.Note(err.Error())
	}
	if s.Store.Dir == "" { // so that a new run hardly ever begins with the last one's
		e.node.bdSeq = uint8(s.Now().Unix())
	}
	retry := retrier{note: s.Note, what: "edge node " + e.node.Site + "/" + e.node.Gateway}
	for ctx.Err() == nil {
		if now := e.look(); !now.wanted || !now.ready {
			select {
			case <-e.signal:
			case <-ctx.Done():
			}
			continue
		}
		if err := e.session(ctx, retry.worked); err != nil {
			retry.failed(ctx, err)
		}
	}
}

// errHostOffline ends a session.
var errHostOffline = errors.New("the primary host is offline")

// session is one connection. It gives nil when it ended as it should.
func (e *edge) session(ctx context.Context, connected func()) error {
	s := e.bridge
	options := s.To
	options.ClientID = s.clientID(e.node.Site, e.node.Gateway)
	will := e.node.Connect(e.now())
	if err := s.Store.Save(e.node); err != nil { // a bdSeq must not come twice
		return err
	}
	options.Will = &mqtt.Message{Topic: will.Topic, Payload: will.Payload}
	conn, err := mqtt.Dial(ctx, options)
	if errors.Is(err, mqtt.ErrUnreachable) {
		e.node.Unsent()
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := e.subscribe(ctx, conn); err != nil {
		return err
	}
	connected()
	online, err := e.waitForHost(ctx, conn)
	if err != nil || !online {
		return err
	}
	err = e.live(ctx, conn)
	if err != nil && !errors.Is(err, errHostOffline) {
		return err
	}
	return e.die(ctx, conn)
}

func (e *edge) now() int64 { return e.bridge.Now().UnixMilli() }

// subscribe asks for commands and for the state of the primary host.
func (e *edge) subscribe(ctx context.Context, conn *mqtt.Conn) error {
	s := e.bridge
	err := conn.Subscribe(ctx, e.node.CommandTopic(), func(m mqtt.Message) {
		asks, err := asksForRebirth(m.Payload)
		if err != nil {
			s.Note("topic " + m.Topic + ": " + err.Error())
		}
		s.mu.Lock()
		e.rebirth = e.rebirth || asks
		s.mu.Unlock()
		e.poke()
	})
	if err != nil || s.PrimaryHost == "" {
		return err
	}
	s.mu.Lock()
	e.host = hostFollower{} // what this broker says now
	s.mu.Unlock()
	return conn.Subscribe(ctx, s.stateTopic(), func(m mqtt.Message) {
		s.mu.Lock()
		_, _ = e.host.take(m.Payload) // watchHost says what is wrong with it
		s.mu.Unlock()
		e.poke()
	})
}

// waitForHost waits until the primary host is online. It gives false when the
// host turns out not to be, or ctx ends.
func (e *edge) waitForHost(ctx context.Context, conn *mqtt.Conn) (online bool, err error) {
	for {
		switch now := e.look(); {
		case now.host:
			return true, nil
		case !now.ready:
			return false, nil
		}
		select {
		case <-e.signal:
		case <-conn.Done():
			return false, conn.Err()
		case <-ctx.Done():
			return false, nil
		}
	}
}

// live tells births and rows until the session is to end: nil when it is not
// wanted any more or ctx ends.
func (e *edge) live(ctx context.Context, conn *mqtt.Conn) error {
	if err := e.born(ctx, conn, true); err != nil {
		return err
	}
	ending, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends stopTime after ctx
	defer stop()
	end := context.AfterFunc(ctx, func() { after(ending, stopTime, stop) })
	defer end()
	for {
		now := e.look()
		switch {
		case !now.host:
			return errHostOffline
		case now.rebirth || e.node.SetSoftware(now.version):
			if err := e.born(ending, conn, false); err != nil {
				return quiet(ending, err)
			}
			continue
		}
		if rows := e.peek(maxPiece); len(rows) > 0 {
			if err := e.tell(ending, conn, rows); err != nil {
				return quiet(ending, err)
			}
			continue
		}
		if err := e.sendAll(ending, conn, e.node.Refresh(e.now())); err != nil {
			return quiet(ending, err)
		}
		if !now.wanted || ctx.Err() != nil {
			return nil
		}
		select {
		case <-e.signal:
		case <-ctx.Done():
		case <-conn.Done():
			return conn.Err()
		}
	}
}

// after calls f after a while, unless ctx ends before.
func after(ctx context.Context, while time.Duration, f func()) {
	timer := time.NewTimer(while)
	defer timer.Stop()
	select {
	case <-timer.C:
		f()
	case <-ctx.Done():
	}
}

// quiet takes the error away that comes of ctx's end.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it ended because it was to end
	}
	return err
}

// born sends all births.
func (e *edge) born(ctx context.Context, conn *mqtt.Conn, first bool) error {
	s := e.bridge
	s.mu.Lock()
	e.rebirth = false
	version := e.version
	if first {
		s.counts.Nodes++
	}
	s.mu.Unlock()
	e.node.SetSoftware(version)
	messages := e.node.Birth(e.peek(maxPending), e.now())
	if err := s.Store.Save(e.node); err != nil {
		return err
	}
	return e.sendAll(ctx, conn, messages)
}

func (e *edge) sendAll(ctx context.Context, conn *mqtt.Conn, messages []Message) error {
	for _, m := range messages {
		if err := e.send(ctx, conn, m); err != nil {
			return err
		}
	}
	return nil
}

// peek gives the first rows that wait, limit at most.
func (e *edge) peek(limit int) []track.Reading {
	s := e.bridge
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(e.rows), limit)
	return e.rows[:n:n]
}

// tell sends rows, and takes them off what waits when all of them are sent.
// When it is interrupted, by a host that asks for births or goes, the rest
// comes later: with what of the piece was sent, which is then historical.
func (e *edge) tell(ctx context.Context, conn *mqtt.Conn, rows []track.Reading) error {
	s := e.bridge
	messages := e.node.Data(rows, e.now())
	if err := s.Store.Save(e.node); err != nil {
		return err
	}
	for _, m := range messages {
		if now := e.look(); now.rebirth || !now.host {
			return nil
		}
		if err := e.send(ctx, conn, m); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.rows = append([]track.Reading(nil), e.rows[len(rows):]...)
	s.pending -= len(rows)
	s.setGate()
	return nil
}

func (e *edge) send(ctx context.Context, conn *mqtt.Conn, m Message) error {
	s := e.bridge
	if err := s.pace.wait(ctx); err != nil {
		return err
	}
	if err := conn.Send(ctx, m.Topic, m.Payload); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Messages++
	s.counts.Rows += uint64(m.Rows)
	if m.Rows == 0 {
		s.counts.Births++
	}
	return nil
}

// die tells the node's death before the connection is closed
// (tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath).
func (e *edge) die(ctx context.Context, conn *mqtt.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	death := e.node.Death(e.now())
	token, err := conn.Publish(ctx, death.Topic, false, death.Payload)
	if err != nil {
		return err
	}
	s := e.bridge
	s.mu.Lock()
	s.counts.Messages++
	s.mu.Unlock()
	select {
	case <-token.Done():
		return token.Err()
	case <-conn.Done():
		return conn.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
