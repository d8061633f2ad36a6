package line

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"
)

// Serial gives the line that is the serial port at path, which may be a
// symbolic link (/dev/serial/by-id/…) and is resolved at each opening. It
// opens nothing. While it is open, the port is locked against other programs.
func Serial(path string, o Options) *Line {
	return Of(path, func(ctx context.Context, s Settings) (Medium, error) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		device, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, portError(err)
		}
		lock, err := lockDevice(device, path, o)
		if err != nil {
			return nil, err
		}
		p, err := openSerial(device, s)
		if err != nil {
			if errors.Is(err, syscall.EBUSY) {
				err = &BusyError{Line: path, Holder: "another program"}
			}
			_ = unlock(lock)
			return nil, portError(err)
		}
		p.lock = lock
		if err := direct(p.file, o.Direction); err != nil {
			return nil, errors.Join(err, p.Close())
		}
		return p, nil
	})
}

// portError says what to do about a port that did not open.
func portError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("no such port: is the adapter plugged in? (%w)", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission: does the user belong to the group dialout? (%w)", err)
	}
	return err
}

// port is the Medium of a serial line. The settings go through the serial
// library; the bytes go through a descriptor of our own on the same device,
// because that one has deadlines, interrupts writes as well as reads, and
// tells a time-out from an end.
type port struct {
	file *os.File
	mode serial.Port
	lock *os.File
}

func openSerial(device string, s Settings) (*port, error) {
	// Ours first: the library's makes the port exclusive.
	file, err := os.OpenFile(device, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := file.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not a serial port: %w", device, err), file.Close())
	}
	mode, err := openMode(device, s)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s is not a serial port, or not with %v: %w", device, s, err), file.Close())
	}
	return &port{file: file, mode: mode}, nil
}

// openMode opens the library's descriptors. It opens them without O_CLOEXEC,
// so processes are kept from being started until that is mended; otherwise a
// child would hold the port, and its lock, for as long as it lives.
func openMode(device string, s Settings) (serial.Port, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	mode, err := serial.Open(device, s.mode())
	if err != nil {
		return nil, err
	}
	if err := closeOnExec(device); err != nil {
		return nil, errors.Join(err, mode.Close())
	}
	return mode, nil
}

// closeOnExec marks every descriptor of the device, and every pipe (the
// library makes one to interrupt its reads).
func closeOnExec(device string) error {
	var want unix.Stat_t
	if err := unix.Stat(device, &want); err != nil {
		return fmt.Errorf("stat %s: %w", device, err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		var got unix.Stat_t
		if err != nil || fd <= 2 || unix.Fstat(fd, &got) != nil {
			continue
		}
		if kind := got.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFCHR && got.Rdev == want.Rdev {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// Read says of a terminal that was hung up what Write does: it is an end only
// where somebody else can begin anew.
func (p *port) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	if errors.Is(err, io.EOF) {
		err = &fs.PathError{Op: "read", Path: p.file.Name(), Err: syscall.EIO}
	}
	return n, err
}

func (p *port) Write(b []byte) (int, error)   { return p.file.Write(b) }
func (p *port) SetDeadline(t time.Time) error { return p.file.SetDeadline(t) }
func (p *port) Apply(s Settings) error        { return p.mode.SetMode(s.mode()) }
func (p *port) Discard() error                { return p.mode.ResetInputBuffer() }

// IsBus says that nobody hangs up at the other end.
func (p *port) IsBus() {}

// Stale looks for an adapter that was unplugged while the line was idle.
func (p *port) Stale() bool {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return err != nil || gone
}

// Close drops what was not sent first: closing a port would wait for it.
func (p *port) Close() error {
	_ = p.mode.ResetOutputBuffer()
	return errors.Join(p.file.Close(), p.mode.Close(), unlock(p.lock))
}

func (s Settings) mode() *serial.Mode {
	m := &serial.Mode{BaudRate: s.Baud, DataBits: s.DataBits, Parity: serial.NoParity, StopBits: serial.OneStopBit}
	switch s.Parity {
	case 'E':
		m.Parity = serial.EvenParity
	case 'O':
		m.Parity = serial.OddParity
	}
	if s.StopBits == 2 {
		m.StopBits = serial.TwoStopBits
	}
	return m
}
