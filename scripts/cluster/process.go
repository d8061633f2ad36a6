package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds what must happen; it says nothing about how long that takes.
const patience = 10 * time.Minute

// stage owns all that a run starts: a folder and processes. Close ends them,
// the last one first, and removes the folder.
type stage struct {
	dir string

	mu        sync.Mutex
	processes []*process
	locks     []*os.File // of ports
}

func newStage() (*stage, error) {
	dir, err := os.MkdirTemp("", "gridgate-cluster-") // a socket's path must be short
	if err != nil {
		return nil, err
	}
	// PostgreSQL runs as a user of its own and must get through.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &stage{dir: dir}, nil
}

// folder makes a folder in the stage's.
func (s *stage) folder(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, os.MkdirAll(dir, 0o755) //nolint:gosec // as in newStage
}

// Close ends the processes, none of which has anything left to do, and removes
// the folder.
func (s *stage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.processes) - 1; i >= 0; i-- {
		s.processes[i].kill()
	}
	for _, l := range s.locks {
		_ = l.Close()
	}
	return os.RemoveAll(s.dir)
}

// process is a program that runs, its output in a file.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string // a file
	ended chan struct{}
	last  syscall.Signal // what ends it at once
	group bool           // a script whose children do the work
}

// start starts a program. what may change the command before, and be nil.
func (s *stage) start(name string, what func(*exec.Cmd), path string, args ...string) (*process, error) {
	logs, err := s.folder("log")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	file := fmt.Sprintf("%d-%s", len(s.processes), name)
	s.mu.Unlock()
	p := &process{name: name, log: filepath.Join(logs, file), ended: make(chan struct{}), last: syscall.SIGKILL}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(path, args...) //nolint:noctx // Close ends it
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A process group of its own: an interrupt at the terminal is ours to
	// handle. Should we be killed, the kernel ends what we started.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if what != nil {
		what(p.cmd)
	}
	if err := errors.Join(p.cmd.Start(), out.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w (scripts/setup.sh installs what is needed)", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its state tells
		close(p.ended)
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
	return p, nil
}

// output runs a program to its end and gives what it printed.
func output(ctx context.Context, what func(*exec.Cmd), path string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	if what != nil {
		what(cmd)
	}
	var said strings.Builder
	if cmd.Stderr == nil {
		cmd.Stderr = &said
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", filepath.Base(path), err, out, said.String())
	}
	return out, nil
}

// kill ends the process as a power cut does.
func (p *process) kill() {
	p.signal(p.last)
	<-p.ended
}

func (p *process) signal(sig syscall.Signal) {
	if p.group {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig)
		return
	}
	_ = p.cmd.Process.Signal(sig)
}

// stop asks the process to end, and kills it when it does not.
func (p *process) stop() error {
	select {
	case <-p.ended:
		return nil
	default:
	}
	p.signal(syscall.SIGTERM)
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	select {
	case <-p.ended:
		return nil
	case <-late.C:
		p.kill()
		return fmt.Errorf("%s did not end when it was asked to", p.name)
	}
}

// tail gives the last lines of what the process said.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	const most = 3000
	return strings.TrimSpace(string(b[max(len(b)-most, 0):]))
}

// says waits until the process has said something.
func (p *process) says(ctx context.Context, text string) error {
	return p.until(ctx, fmt.Sprintf("it says %q", text), func() bool {
		b, err := os.ReadFile(p.log)
		return err == nil && strings.Contains(string(b), text)
	})
}

// until waits until done is true, and fails when the process ends before.
func (p *process) until(ctx context.Context, what string, done func() bool) error {
	var died error
	err := await(ctx, what, func() bool {
		if done() {
			return true
		}
		select {
		case <-p.ended:
			died = fmt.Errorf("%s ended: %s:\n%s", p.name, p.cmd.ProcessState, p.tail())
		default:
		}
		return died != nil
	})
	if died != nil {
		return died
	}
	if err != nil {
		return fmt.Errorf("%s: %w:\n%s", p.name, err, p.tail())
	}
	return nil
}

// await waits until done is true.
func await(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// lines calls do for each line of r.
func lines(r io.Reader, do func([]byte) error) error {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if err := do(s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}
