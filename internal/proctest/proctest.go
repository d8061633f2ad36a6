// Package proctest runs programs for end-to-end tests: the project's own,
// built from source, and peers from elsewhere. Every process that a test
// starts has ended when the test has.
package proctest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds waits for something that must happen. It is no claim about
// how long that takes.
const patience = 60 * time.Second

// Build builds commands of the module (cmd/NAME) into a folder of the test and
// gives the folder.
func Build(t testing.TB, names ...string) string {
	t.Helper()
	return BuildWith(t, nil, names...)
}

// BuildWith is Build with further build tags.
func BuildWith(t testing.TB, tags []string, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	tags = append([]string{"nethttpomithttp2"}, tags...) // as scripts/build.sh
	args := []string{"build", "-tags", strings.Join(tags, ","), "-o", dir + string(filepath.Separator)}
	for _, name := range names {
		args = append(args, "gridgate/cmd/"+name)
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = moduleRoot(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return dir
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no caller")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Process is a running program.
type Process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
	err  error // of Wait; valid when done is closed
}

// Start starts a program with its output (both streams) kept. The test's end
// kills it, if it still runs then.
func Start(t testing.TB, env []string, path string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: filepath.Base(path), done: make(chan struct{})}
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v (scripts/setup.sh installs what the tests need)", p.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s %s printed:\n%s", p.name, strings.Join(args, " "), tail(p.Output()))
		}
	})
	return p
}

// Output gives what the process has printed so far.
func (p *Process) Output() string { return p.out.String() }

// PID gives the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended says whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Await waits until the process has printed text, and gives all it printed.
func (p *Process) Await(text string) string {
	p.t.Helper()
	Until(p.t, fmt.Sprintf("%s prints %q", p.name, text), func() bool {
		if strings.Contains(p.Output(), text) {
			return true
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended (%v) before it printed %q:\n%s", p.name, p.err, text, tail(p.Output()))
		default:
		}
		return false
	})
	return p.Output()
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// Kill ends the process as a power cut would and waits for its end.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	p.Wait()
}

// Stop asks the process to end with SIGTERM and gives its exit code.
func (p *Process) Stop() int {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for the end and gives the exit code, -1 for one killed.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("%s does not end:\n%s", p.name, tail(p.Output()))
	}
	return p.cmd.ProcessState.ExitCode()
}

// Until waits until done is true.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// FreePorts gives the first of n consecutive TCP ports of 127.0.0.1 that are
// free, and no other test's until this one ends. They lie below the ports that
// the system gives out by itself: a client that dials one of those again and
// again, while its server is away, ends up connected to itself, and the server
// cannot have its port back.
func FreePorts(t testing.TB, n int) int {
	t.Helper()
	for range 1000 {
		first := 10000 + rand.IntN(22000-n)
		if reserve(t, first, n) {
			return first
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

// reserve keeps other tests, of this process and of others, off n ports by
// locks on files of their names, and looks whether the ports are free.
func reserve(t testing.TB, first, n int) bool {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("gridgate-test-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var locks []*os.File
	release := func() {
		for _, f := range locks {
			_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
			_ = f.Close()
		}
	}
	for port := first; port < first+n; port++ {
		f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		locks = append(locks, f)
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil || !isFree(port) {
			release()
			return false
		}
	}
	t.Cleanup(release)
	return true
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	return err == nil && l.Close() == nil
}

func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
