package buffer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// lockFile is a lock on a store: flock on a file beside it that names the
// holder's process. The kernel lets go of it when the process dies.
type lockFile struct {
	f      *os.File
	deaths int // processes in a row that died between takeLock and opened
}

// takeLock locks the store whose file is path. It does not wait: another
// holder is an *InUseError. readOnly is for a look at a store that may belong
// to another user: it makes no file that this user could not open later.
func takeLock(path string, readOnly bool) (*lockFile, error) {
	name, flag := path+".lock", os.O_RDWR|os.O_CREATE
	if readOnly {
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if readOnly && errors.Is(err, fs.ErrNotExist) {
		return &lockFile{}, nil // nobody ever had the store open for writing
	}
	if readOnly && err != nil {
		f, err = os.Open(name)
	}
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &InUseError{Path: path, PID: holder(f)}
		}
		return nil, fmt.Errorf("lock file %s: %w", name, err)
	}
	l := &lockFile{f: f}
	if readOnly {
		l.write("")
		return l, nil
	}
	if _, died, ok := strings.Cut(content(f), opening); ok {
		n, _ := strconv.Atoi(strings.TrimSpace(died))
		l.deaths = max(n, 0) + 1
	}
	l.write(opening + strconv.Itoa(l.deaths) + "\n")
	return l, nil
}

// opening stands in the lock file while a store is being opened, and behind it
// how many processes died before this one: a process that dies over a damaged
// file cannot tell anybody else.
const opening = "opening "

// opened says that the process lives, and the store is open.
func (l *lockFile) opened() { l.write("") }

// write writes the process's number and a line. A full disk must not keep the
// store shut, so errors are nobody's business.
func (l *lockFile) write(line string) {
	_ = l.f.Truncate(0)
	_, _ = l.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"+line), 0)
}

func content(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, 64), 64))
	if err != nil {
		return ""
	}
	return string(b)
}

// holder reads the process id that the holder wrote, 0 when there is none.
func holder(f *os.File) int {
	line, _, _ := strings.Cut(content(f), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// release lets go of the lock. The file stays: removing it would let two
// processes hold locks on two files of one name.
func (l *lockFile) release() {
	if l.f == nil {
		return
	}
	_ = l.f.Truncate(0)
	// Closing alone would leave the lock to a child between fork and exec.
	_ = syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN)
	_ = l.f.Close()
	l.f = nil
}
