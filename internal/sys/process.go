package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// NoCoreDumps makes this process, and those that it starts, leave no image of
// their memory behind when they crash, and keeps other processes of the same user
// from reading its memory (prctl(2), PR_SET_DUMPABLE). Reading /proc/self stays
// possible. What it starts may be looked into again: execve(2) resets that.
func NoCoreDumps() error {
	err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	if err != nil {
		err = fmt.Errorf("RLIMIT_CORE: %w", err)
	}
	if perr := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); perr != nil {
		err = errors.Join(err, fmt.Errorf("PR_SET_DUMPABLE: %w", perr))
	}
	return err
}

// IsTerminal says whether somebody types there.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS) //nolint:gosec // a file descriptor is small
	return err == nil
}

// ErrInterrupted says that who types wants no more.
var ErrInterrupted = errors.New("interrupted")

// ReadHidden reads a line from a terminal that does not show it, of at most that
// many octets.
func ReadHidden(f *os.File, most int) (line []byte, err error) {
	fd := int(f.Fd()) //nolint:gosec // a file descriptor is small
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	hidden := *was
	hidden.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	hidden.Cc[unix.VMIN], hidden.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &hidden); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETSF, was)) }()
	const interrupt, end, backspace, kill, remove = 3, 4, 8, 21, 127
	for {
		var b [1]byte
		if n, err := f.Read(b[:]); err != nil || n == 0 {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		switch b[0] {
		case '\r', '\n', end:
			return line, nil
		case interrupt:
			return nil, ErrInterrupted
		case backspace, remove:
			_, size := utf8.DecodeLastRune(line)
			line = line[:len(line)-size]
		case kill:
			line = line[:0]
		default:
			if len(line) == most {
				return nil, fmt.Errorf("more than %d octets", most)
			}
			line = append(line, b[0])
		}
	}
}
