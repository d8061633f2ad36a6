package drivertest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudo-terminal: what is written to it is read at Path, and
// the other way round. Reads have deadlines; Close interrupts them.
type Terminal struct {
	*os.File        // the meter's end
	Path     string // the client's end
	hold     *os.File
}

// Pty makes a raw pseudo-terminal. It holds the client's end open too, so that
// the meter's end can be read before a client comes and after one has gone.
func Pty() (*Terminal, error) {
	master, err := os.OpenFile("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t := &Terminal{File: master}
	if err := t.set(); err != nil {
		return nil, errors.Join(fmt.Errorf("pseudo-terminal: %w", err), t.Close())
	}
	return t, nil
}

func (t *Terminal) set() error {
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var number uint32
	cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		number, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN)
	})
	if err := errors.Join(cerr, err); err != nil {
		return err
	}
	t.Path = fmt.Sprintf("/dev/pts/%d", number)
	t.hold, err = os.OpenFile(t.Path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	raw, err = t.hold.SyscallConn()
	if err != nil {
		return err
	}
	cerr = raw.Control(func(fd uintptr) { err = makeRaw(int(fd)) })
	return errors.Join(cerr, err)
}

// makeRaw is cfmakeraw: every byte passes as it is, and there is no echo.
func makeRaw(fd int) error {
	s, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	s.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	s.Oflag &^= unix.OPOST
	s.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	s.Cflag = s.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	s.Cc[unix.VMIN], s.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, s)
}

// Close closes both ends: to a client the adapter is unplugged.
func (t *Terminal) Close() error {
	var err error
	if t.hold != nil {
		err = t.hold.Close()
	}
	return errors.Join(err, t.File.Close())
}
