package uplink

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"gridgate/internal/mqtt"
)

const (
	// DefaultReturnAfter is when an uplink that is not on its first path looks
	// for a better one, at first.
	DefaultReturnAfter = 10 * time.Minute
	// maxReturn bounds how far apart such looks get while there is none.
	maxReturn = 4 * time.Hour
	// steady is how long a connection over the first path has to last to count
	// as good again.
	steady = time.Hour
)

// Path is one way to the fog: a broker, and the interface over which it is
// spoken to, a device or an address of this machine; "" leaves that to the
// system.
type Path struct {
	Address   string // host:port
	Interface string
}

func (p Path) String() string {
	if p.Interface == "" {
		return p.Address
	}
	return p.Address + " over " + p.Interface
}

// options are those of a connection over p.
func (u *Uplink) options(p Path, mail *mailbox) mqtt.Options {
	o := u.cfg.MQTT
	o.Address, o.Interface, o.Handler = p.Address, p.Interface, mail.put
	o.Will = &mqtt.Message{Topic: mqtt.StateTopic(u.cfg.Site, u.cfg.Gateway), Payload: u.offline("lost"), Retained: true}
	return o
}

// link is a connection with its path.
type link struct {
	path int
	conn *mqtt.Conn
	mail *mailbox
}

func (u *Uplink) dial(ctx context.Context, path int) (*link, error) {
	u.count(func(s *Stats) { s.Attempts++ })
	mail := newMailbox()
	conn, err := mqtt.Dial(ctx, u.options(u.cfg.Paths[path], mail))
	if err != nil {
		return nil, err
	}
	return &link{path, conn, mail}, nil
}

// failed chooses the path for the next attempt, and says whether to pause
// before it. A path that worked is kept: it gets a second chance. Others are
// tried in turn, and after all of them comes a pause.
func (u *Uplink) failed(worked bool) (pause bool) {
	if worked {
		u.tried = 0
		return true
	}
	u.tried++
	if u.path++; u.path == len(u.cfg.Paths) {
		u.path = 0
	}
	return u.tried%len(u.cfg.Paths) == 0
}

// errMoved ends a session because a better path is there.
var errMoved = errors.New("moved")

// search looks for a path before the session's own until it has found one or
// ctx ends. A session has at most one.
type search struct {
	found chan *link
	stop  context.CancelFunc
	all   sync.WaitGroup
}

// newSearch begins to look; on the first path there is nothing to look for.
func (u *Uplink) newSearch(ctx context.Context, path int) *search {
	ctx, stop := context.WithCancel(ctx)
	s := &search{found: make(chan *link, 1), stop: stop}
	if path > 0 {
		every := max(u.returnAfter, u.cfg.ReturnAfter)
		s.all.Go(func() { s.run(ctx, u, path, every) })
	}
	return s
}

func (s *search) run(ctx context.Context, u *Uplink, path int, every time.Duration) {
	for {
		// Jittered, so that not all gateways return to a broker at once.
		pause := time.NewTimer(every/2 + rand.N(every)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		for better := range path {
			if l, err := u.dial(ctx, better); err == nil {
				s.found <- l
				return
			}
		}
		every = min(2*every, maxReturn)
	}
}

// end stops looking, and gives what was found and not taken.
func (s *search) end() *link {
	s.stop()
	s.all.Wait()
	select {
	case l := <-s.found:
		return l
	default:
		return nil
	}
}
