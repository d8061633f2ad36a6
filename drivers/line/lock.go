package line

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// BusyError says that another program has the serial port.
type BusyError struct {
	Line   string // as configured
	Holder string // program and process id, or "another program"
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("in use by %s: stop it, or let the running agent lend the line", e.Holder)
}

// lockDevice takes the device's lock file and writes the holder into it. The
// exclusive mode of terminals does not stop root, which the agent often is.
// The file stays when the lock goes: removing it would race with the next
// holder. The kernel lets go of the lock when the process dies.
func lockDevice(device, name string, o Options) (*os.File, error) {
	file, err := openLock(o.LockDir, "gridgate."+strings.ReplaceAll(strings.TrimPrefix(device, "/dev/"), "/", "-")+".lock")
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := readHolder(file)
		_ = file.Close()
		return nil, &BusyError{Line: name, Holder: holder}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file.Name(), err), file.Close())
	}
	program := o.Program
	if program == "" {
		program = filepath.Base(os.Args[0])
	}
	// Who holds it is for people; a lock file of another user is still a lock.
	if file.Truncate(0) == nil {
		_, _ = file.WriteAt(fmt.Appendf(nil, "%s (pid %d)\n", program, os.Getpid()), 0)
	}
	return file, nil
}

// unlock lets go of the lock before it closes the file: a process that is being
// started right now may have a copy of the descriptor for a moment.
func unlock(file *os.File) error {
	return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
}

// openLock opens the lock file in dir, or in the first of the usual places
// that can be written.
func openLock(dir, name string) (*os.File, error) {
	dirs := []string{dir}
	if dir == "" {
		dirs = []string{"/run/lock", os.TempDir()}
	}
	var errs []error
	for _, d := range dirs {
		path := filepath.Join(d, name)
		// Without O_CREATE first: in a sticky directory the kernel refuses
		// O_CREATE on a file of another user.
		for _, flags := range []int{os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREATE} {
			file, err := os.OpenFile(path, flags, 0o666)
			if err == nil {
				return file, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, errs[len(errs)-1]
}

func readHolder(file *os.File) string {
	b, _ := io.ReadAll(io.NewSectionReader(file, 0, 128))
	if who := strings.TrimSpace(string(b)); who != "" {
		return who
	}
	return "another program"
}
