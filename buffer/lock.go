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
type lockFile struct{ f *os.File }

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
	// The name is for people only: a full disk must not keep the store shut.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return &lockFile{f: f}, nil
}

// holder reads the process id that the holder wrote, 0 when there is none.
func holder(f *os.File) int {
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, 0, 32), 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
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
