package ppp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"gridgate/agent/modem"
)

// Pauses between attempts: they double. A modem that is not there is looked for more
// often than one is dialled, which may cost money.
const (
	shortPause = 5 * time.Second
	longPause  = 10 * time.Minute
	lookPause  = time.Minute
	// steady is how long a connection has to last for the next one to be dialled at once.
	steady = time.Minute
)

var (
	errNoModem = errors.New("no modem")
	errLost    = errors.New("the line is gone: the carrier, or the modem")
)

// Keeper keeps a connection, for as long as Run runs.
type Keeper struct {
	Conf Conf
	// Tried is the file that keeps which PINs were tried. It lasts over restarts.
	Tried string
	// Say takes what a person wants to know, a line at a time.
	Say func(text string)
	// Up sets up the network interface of that name, and Down is told that it has gone.
	Up   func(name string, n Network) error
	Down func(name string)

	open func() (port, error) // a test's
}

// port is a modem's, between two connections.
type port interface {
	modem.Port
	hangUp(ctx context.Context)
	connect() (frames, error)
	Close() error
}

// frames is a connected modem.
type frames interface {
	ifname() string
	frames() <-chan []byte // closed when the line is gone
	send(frame []byte) error
	linked(accm uint32, mru int) error
	close()
}

// serial is the port of a Keeper outside tests.
type serial struct {
	*tty
	conf Conf
}

func (s serial) connect() (frames, error) { return s.attach(s.conf) }

func (k *Keeper) openPort() (port, error) {
	if k.open != nil {
		return k.open()
	}
	t, err := openTTY(k.Conf)
	if err != nil {
		return nil, err
	}
	return serial{t, k.Conf}, nil
}

// Run dials, and again when that fails or the connection ends. It gives an error when
// that is of no use any more: the SIM does not take the PIN.
func (k *Keeper) Run(ctx context.Context) error {
	said, wait := "", shortPause
	for {
		began := time.Now()
		up, err := k.once(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what err says then is that we hung up
		}
		var stop stopError
		if errors.As(err, &stop) {
			return fmt.Errorf("%w; it is not dialled until the gateway starts again", err)
		}
		most := longPause
		if errors.Is(err, errNoModem) {
			most = lookPause
		}
		if up {
			said = ""
			if time.Since(began) >= steady {
				wait = shortPause
			}
		}
		wait = min(wait, most)
		if text := err.Error(); text != said {
			said = text
			k.Say(fmt.Sprintf("%s; trying again, in %s at first", text, wait))
		}
		pause(ctx, wait)
		wait = min(2*wait, most)
	}
}

// once is one connection: up says that it had a network.
func (k *Keeper) once(ctx context.Context) (up bool, err error) {
	p, err := k.openPort()
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("%w: %s is not there", errNoModem, k.Conf.Device)
		}
		return false, fmt.Errorf("%w: %w", errNoModem, err)
	}
	defer func() { _ = p.Close() }() // nothing is to be lost
	p.hangUp(ctx)
	d := dialler{port: p, conf: k.Conf, tried: k.Tried, say: k.Say}
	if err := d.dial(ctx); err != nil {
		return false, fmt.Errorf("%s: %w", k.Conf.Device, err)
	}
	f, err := p.connect()
	if err != nil {
		return false, err
	}
	up, err = k.talk(ctx, f)
	f.close()
	p.hangUp(ctx)
	return up, err
}

// talk is a session, over frames, until it ends.
func (k *Keeper) talk(ctx context.Context, f frames) (up bool, err error) {
	var failed error
	s := NewSession(Config{
		User: k.Conf.User, Password: k.Conf.Password, Random: random,
		Send: func(frame []byte) { failed = errors.Join(failed, f.send(frame)) },
		Linked: func(accm uint32, mru int) {
			failed = errors.Join(failed, f.linked(accm, mru))
		},
		Up: func(n Network) {
			up = true
			failed = errors.Join(failed, k.Up(f.ifname(), n))
		},
		Down: func() { k.Down(f.ifname()) },
	}, time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		if over, err := s.Done(); over {
			if err == nil {
				err = ctx.Err()
			}
			return up, err
		}
		if failed != nil {
			s.Lost(failed)
			continue
		}
		if next := s.Next(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case frame, ok := <-f.frames():
			if !ok {
				s.Lost(errLost)
				continue
			}
			s.Receive(time.Now(), frame)
		case <-timer.C:
			s.Tick(time.Now())
		case <-stop:
			stop = nil
			s.Close(time.Now())
		}
	}
}

func random() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return binary.BigEndian.Uint32(b[:])
}

// Load reads a file as ParseConf does; false is that there is none.
func Load(path string) (Conf, bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Conf{}, false, nil
	}
	if err != nil {
		return Conf{}, true, err
	}
	c, err := ParseConf(path, b)
	return c, true, err
}
