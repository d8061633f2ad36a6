// Package pgtest runs Debian's PostgreSQL for tests: a cluster of its own in a
// folder of its own, on a free port of the loopback device, started and ended
// by the test. A test that needs it fails when it is not installed.
//
// PostgreSQL refuses to run as root; then it runs as the user postgres.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gridgate/internal/proctest"
)

// patience bounds a start and a stop. It is no claim about how long they take.
const patience = 2 * time.Minute

// Server is a PostgreSQL server on the same port over all restarts.
type Server struct {
	t        testing.TB
	dir      string
	bin      string
	port     int
	settings []string
	as       *syscall.Credential // nil is this user

	mu        sync.Mutex // guards what follows
	process   *exec.Cmd
	ended     chan struct{} // closed when process has ended
	databases int
	log       logBuffer
}

// Start makes a cluster and starts it. settings are of postgresql.conf, as in
// "max_wal_size=4GB". Nothing is flushed to the disk, which matters to no
// process that is killed; a benchmark sets "fsync=on". Anybody on the machine
// may connect, as the user postgres. The test's end removes it all.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := &Server{t: t, port: proctest.FreePorts(t, 1), settings: settings}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatal("PostgreSQL is not installed (apt-get install postgresql)")
	}
	slices.Sort(found)
	s.bin = found[len(found)-1]
	if s.dir, err = os.MkdirTemp("", "gridgate-pg"); err != nil { // a socket's path must be short
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Crash()
		if t.Failed() {
			t.Logf("PostgreSQL said:\n%s", s.log.tail())
		}
		if err := os.RemoveAll(s.dir); err != nil {
			t.Error(err)
		}
	})
	if os.Getuid() == 0 {
		s.as = credential(t)
	}
	s.Own(s.dir)
	initdb := s.command(context.Background(), "initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.Start()
	return s
}

// credential gives the user that the Debian package made.
func credential(t testing.TB) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("PostgreSQL does not run as root: %v", err)
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uerr, gerr); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return c
}

// Own gives a file or folder to the user that the server runs as.
func (s *Server) Own(path string) {
	s.t.Helper()
	if s.as == nil {
		return
	}
	if err := os.Chown(path, int(s.as.Uid), int(s.as.Gid)); err != nil {
		s.t.Fatal(err)
	}
}

// Start starts a server that was ended, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	args := []string{
		"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir, "-c", "listen_addresses=127.0.0.1",
		"-c", "fsync=off", "-c", "timezone=UTC", "-c", "max_connections=200",
	}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	c := s.command(context.Background(), "postgres", args...)
	c.Stdout, c.Stderr = &s.log, &s.log
	c.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := c.Start(); err != nil {
		s.t.Fatalf("postgres: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // its exit code says nothing that the log does not
		close(ended)
	}()
	s.process, s.ended = c, ended
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			_ = conn.Close(ctx)
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			s.t.Fatalf("postgres does not start:\n%s", s.log.tail())
		case <-ctx.Done():
			s.t.Fatalf("postgres does not answer: %v\n%s", err, s.log.tail())
		}
	}
}

// Stop ends the server as an administrator does: sessions are cut, what was
// committed is there.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

// Crash ends the server at once; the next start recovers from its log.
func (s *Server) Crash() { s.end(syscall.SIGQUIT) }

func (s *Server) end(signal os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(signal)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-s.ended:
	case <-late.C:
		_ = s.process.Process.Kill()
		<-s.ended
		s.t.Errorf("postgres did not end on %v", signal)
	}
	s.process = nil
}

// URL is of the database postgres, for administration. In a URL of another
// database only the path differs.
func (s *Server) URL() string { return s.url("postgres") }

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Database makes an empty database and gives its URL.
func (s *Server) Database() string {
	s.t.Helper()
	s.mu.Lock()
	s.databases++
	name := fmt.Sprintf("test%d", s.databases)
	s.mu.Unlock()
	s.Exec(s.URL(), "CREATE DATABASE "+name)
	return s.url(name)
}

// Exec runs statements in a database, each by itself.
func (s *Server) Exec(url string, statements ...string) {
	s.t.Helper()
	conn := s.Connect(url)
	for _, q := range statements {
		if _, err := conn.Exec(s.t.Context(), q); err != nil {
			s.t.Fatalf("%s: %v", q, err)
		}
	}
}

// Connect opens a connection that the test's end closes.
func (s *Server) Connect(url string) *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), url)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// logBuffer keeps what the server says.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 6000
	all := l.b.String()
	return strings.TrimSpace(all[max(len(all)-most, 0):])
}
