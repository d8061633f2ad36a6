package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"gridgate/internal/meter"
)

// ChildVerb is the first argument of a program that is to call CheckChild with
// the second: no verb for people.
const ChildVerb = "check-readings-file"

// How the child ends.
const (
	childSound   = 0
	childFailed  = 1 // it could not look
	childDamaged = 3
)

const (
	// childMemory is what the child may take for its data, the map of the file
	// not counted.
	childMemory = 128 << 20
	// childRate is the slowest that a file may be read, in octets a second,
	// before the child counts as hanging; childTime comes on top.
	childRate = 1 << 20
	childTime = 30 * time.Second
)

// runChild has a child process look at the file. That it died, or found damage,
// is an error that wraps ErrDamaged. Where none can be started there is none:
// the tree has been walked, which finds nearly everything.
func runChild(command []string, path string, size int64) error {
	if len(command) == 0 {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil
	}
	defer func() { _ = r.Close() }()
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	args := append(append([]string(nil), command...), path)
	p, err := os.StartProcess(command[0], args, &os.ProcAttr{
		// Nothing of the agent's surroundings, which may hold secrets.
		Env:   []string{"GOTRACEBACK=single", "GOMAXPROCS=2"},
		Files: []*os.File{nil, nil, w},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	_ = w.Close()
	if err != nil {
		return nil
	}
	timer := time.AfterFunc(childTime+time.Duration(size/childRate)*time.Second, func() { _ = p.Kill(); _ = r.Close() })
	said, _ := io.ReadAll(io.LimitReader(r, 4096))
	_, _ = io.Copy(io.Discard, r)
	state, err := p.Wait()
	intime := timer.Stop()
	if err != nil {
		return nil
	}
	text := strings.TrimSpace(string(said[:max(0, lineEnd(said))]))
	status, _ := state.Sys().(syscall.WaitStatus)
	switch {
	case !intime:
		return fmt.Errorf("%w: the process that checked the file hung", ErrDamaged)
	case status.Exited() && (status.ExitStatus() == childSound || status.ExitStatus() == childFailed),
		status.Signaled() && status.Signal() == syscall.SIGKILL: // somebody else's doing
		return nil
	case status.Exited() && status.ExitStatus() == childDamaged:
		return fmt.Errorf("%w: %s", ErrDamaged, text)
	}
	return fmt.Errorf("%w: the process that checked the file died: %s: %s", ErrDamaged, state, text)
}

func lineEnd(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i
	}
	return len(b)
}

// CheckChild looks at the store's file at path as Open would, with bounds on
// time and memory, and writes what is wrong in a line to out. The process is to
// end with what it returns. Nothing is changed.
func CheckChild(path string, out io.Writer) int {
	if err := bound(path); err != nil {
		fmt.Fprintln(out, err)
		return childFailed
	}
	switch err := readAll(path); {
	case errors.Is(err, ErrDamaged):
		fmt.Fprintln(out, err)
		return childDamaged
	case err != nil:
		fmt.Fprintln(out, err)
		return childFailed
	}
	return childSound
}

// bound limits the process's memory and time.
func bound(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	seconds := uint64(childTime/time.Second) + uint64(st.Size())/(4*childRate)
	limits := map[int]unix.Rlimit{
		unix.RLIMIT_CPU:  {Cur: seconds, Max: seconds + 10},
		unix.RLIMIT_CORE: {},
	}
	if data, ok := dataSize(); ok {
		limits[unix.RLIMIT_DATA] = unix.Rlimit{Cur: data + childMemory, Max: data + childMemory}
	}
	for which, limit := range limits {
		// One that was lower stays.
		var have unix.Rlimit
		if unix.Getrlimit(which, &have) == nil {
			limit.Cur, limit.Max = min(limit.Cur, have.Cur), min(limit.Max, have.Max)
		}
		if err := unix.Setrlimit(which, &limit); err != nil {
			return fmt.Errorf("limit: %w", err)
		}
	}
	return nil
}

// dataSize is what the process has of private memory by now, in octets: the
// limit is on that, and some builds begin with much.
func dataSize() (uint64, bool) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(b)) // total resident shared text lib data
	if len(fields) < 6 {
		return 0, false
	}
	data, err := strconv.ParseUint(fields[5], 10, 64)
	return data * uint64(os.Getpagesize()), err == nil
}

// readAll has bbolt read its free list and all that hangs in the tree.
func readAll(path string) error {
	var db *bolt.DB
	err := guarded(func() (err error) {
		db, err = bolt.Open(path, 0, &bolt.Options{
			ReadOnly: true, PreLoadFreelist: true, FreelistType: bolt.FreelistMapType, Timeout: time.Second,
		})
		return err
	})
	if err != nil {
		return err
	}
	return guarded(func() error {
		return errors.Join(db.View(func(tx *bolt.Tx) error {
			for _, lane := range meter.Lanes() {
				queue := tx.Bucket([]byte(lane.String()))
				if queue == nil {
					return fmt.Errorf("%w: no bucket %s", ErrDamaged, lane)
				}
				w := walk(queue, lane, 1<<63)
				w.seek(0)
				for {
					e, ok := w.next()
					if !ok {
						break
					}
					if len(e.chunk) >= chunkHeader {
						_ = chunkSum(e.chunk) // a damaged chunk is no damaged store
					}
				}
			}
			return nil
		}), db.Close())
	})
}
