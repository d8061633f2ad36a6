package ppp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Line disciplines of the kernel (linux/tty.h).
const (
	disciplineTTY = 0
	disciplinePPP = 3
)

const (
	frameMost = 1600 // octets of a frame of negotiation
	dtrTime   = time.Second
)

// tty is the modem's port, which takes commands before it carries frames.
type tty struct {
	*os.File
	fd int // of File, which has no other user of it
}

// openTTY opens the port with nobody's carrier needed, and no octet changed on the way.
func openTTY(c Conf) (*tty, error) {
	fd, err := unix.Open(c.Device, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Device, err)
	}
	t := &tty{File: os.NewFile(uintptr(fd), c.Device), fd: fd} //nolint:gosec // a descriptor
	if err := t.mode(c, unix.CLOCAL); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is no serial port: %w", c.Device, err), t.File.Close())
	}
	return t, nil
}

func (t *tty) mode(c Conf, local uint32) error {
	m := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.HUPCL | local | speeds()[c.Baud], Iflag: unix.IGNBRK | unix.IGNPAR}
	if c.RTSCTS {
		m.Cflag |= unix.CRTSCTS
	}
	m.Cc[unix.VMIN] = 1
	return unix.IoctlSetTermios(t.fd, unix.TCSETS, &m)
}

// Discard drops what was not read.
func (t *tty) Discard() error { return unix.IoctlSetInt(t.fd, unix.TCFLSH, unix.TCIFLUSH) }

// Drop has nothing to close: the dialler gives up with the port.
func (t *tty) Drop() {}

// hangUp takes DTR away for a while. A port that has none, as some emulated ones, is
// hung up by its end.
func (t *tty) hangUp(ctx context.Context) {
	if unix.IoctlSetPointerInt(t.fd, unix.TIOCMBIC, unix.TIOCM_DTR) != nil {
		return
	}
	pause(ctx, dtrTime)
	_ = unix.IoctlSetPointerInt(t.fd, unix.TIOCMBIS, unix.TIOCM_DTR|unix.TIOCM_RTS) // as above
}

// line is a connected modem in the hands of the kernel: a channel, which frames of the
// link go by, and a unit, which is the network interface and has frames of IPCP.
type line struct {
	t             *tty
	channel, unit *os.File
	channelFD     int
	name          string

	in      chan []byte
	closing chan struct{}
	readers sync.WaitGroup
}

// attach gives the port to the kernel.
func (t *tty) attach(c Conf) (*line, error) {
	if err := t.mode(c, 0); err != nil { // from here on a lost carrier ends the line
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(t.fd, unix.TIOCSETD, disciplinePPP); err != nil {
		return nil, fmt.Errorf("the kernel's PPP: %w", err)
	}
	l := &line{t: t, in: make(chan []byte), closing: make(chan struct{})}
	if err := l.connect(); err != nil {
		l.close()
		return nil, fmt.Errorf("the kernel's PPP: %w", err)
	}
	for _, f := range []*os.File{l.channel, l.unit} {
		l.readers.Go(func() { l.read(f) })
	}
	go func() {
		l.readers.Wait()
		close(l.in)
	}()
	return l, nil
}

// openPPP opens /dev/ppp and makes it a channel or a unit. Only then may Go's runtime
// have it: the kernel tells a poller nothing about one that was neither when it asked.
func openPPP(name string, request uint, value int) (*os.File, int, error) {
	fd, err := unix.Open("/dev/ppp", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("/dev/ppp: %w", err)
	}
	if err := unix.IoctlSetPointerInt(fd, request, value); err != nil {
		return nil, 0, errors.Join(fmt.Errorf("%s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "/dev/ppp"), fd, nil //nolint:gosec // a descriptor
}

func (l *line) connect() (err error) {
	channel, err := unix.IoctlGetInt(l.t.fd, unix.PPPIOCGCHAN)
	if err != nil {
		return fmt.Errorf("PPPIOCGCHAN: %w", err)
	}
	if l.channel, l.channelFD, err = openPPP("PPPIOCATTCHAN", unix.PPPIOCATTCHAN, channel); err != nil {
		return err
	}
	var unitFD int
	if l.unit, unitFD, err = openPPP("PPPIOCNEWUNIT", unix.PPPIOCNEWUNIT, -1); err != nil { // any number
		return err
	}
	unit, err := unix.IoctlGetInt(unitFD, unix.PPPIOCGUNIT)
	if err != nil {
		return fmt.Errorf("PPPIOCGUNIT: %w", err)
	}
	l.name = fmt.Sprintf("ppp%d", unit)
	if err := unix.IoctlSetPointerInt(l.channelFD, unix.PPPIOCCONNECT, unit); err != nil {
		return fmt.Errorf("PPPIOCCONNECT: %w", err)
	}
	return nil
}

// linked sets how the peer wants to be sent to, and that it need not escape anything.
func (l *line) linked(accm uint32, mru int) error {
	for _, c := range []struct {
		name    string
		request uint
		value   uint32
	}{
		{"PPPIOCSASYNCMAP", unix.PPPIOCSASYNCMAP, accm},
		{"PPPIOCSRASYNCMAP", unix.PPPIOCSRASYNCMAP, 0},
		{"PPPIOCSMRU", unix.PPPIOCSMRU, uint32(max(mru, defaultMRU))}, //nolint:gosec // 16 bits
	} {
		if err := unix.IoctlSetPointerInt(l.channelFD, c.request, int(int32(c.value))); err != nil { //nolint:gosec // bits
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// send hands a frame to the kernel: those of networks to the unit, those of the link
// to the channel.
func (l *line) send(frame []byte) error {
	f := l.channel
	if frame[0] < 0xc0 {
		f = l.unit
	}
	_, err := f.Write(frame)
	return err
}

// read ends with the line: the kernel says end of file then.
func (l *line) read(f *os.File) {
	buf := make([]byte, frameMost)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return
		}
		select {
		case l.in <- append([]byte(nil), buf[:n]...):
		case <-l.closing:
			return
		}
	}
}

func (l *line) frames() <-chan []byte { return l.in }
func (l *line) ifname() string        { return l.name }

// close takes the interface away, and gives the port back.
func (l *line) close() {
	close(l.closing)
	for _, f := range []*os.File{l.unit, l.channel} {
		if f != nil {
			_ = f.Close() // nothing is to be lost
		}
	}
	l.readers.Wait()
	_ = unix.IoctlSetPointerInt(l.t.fd, unix.TIOCSETD, disciplineTTY) // a port that is gone has none
}
