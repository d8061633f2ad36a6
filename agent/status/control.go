// Package status shows how the agent does, and lends its lines to tools, over
// a control socket.
//
// The protocol is a line of JSON each way on a Unix stream socket:
//
//	{"verb":"status"}                      -> a Report
//	{"verb":"metrics"}                     -> {"ok":true,"metrics":"…"}: in the text format of Prometheus
//	{"verb":"lend","line":"/dev/ttyS1"}    -> {"ok":true}, when the line is free;
//	                                          the agent stays off it until the connection ends
//	{"verb":"tap","line":"/dev/ttyS1"}     -> {"ok":true}, and behind it a Passed for all that passes
//	                                          on the line, until the connection ends
//	{"verb":"counters","counters":{…}}     -> {"ok":true,"known":…,"first":…}: invocation counters,
//	                                          reserved for a tool as for the agent, and those received
//	{"verb":"refusals","refusals":{…}}     -> {"ok":true,"salt":…,"count":…,"last":…}: how often meters
//	                                          refused credentials, counted for tools as for the agent
//	{"verb":"order","size":N}, then N octets
//	                                       -> {"ok":true}: a signed document is taken and being carried out
//	{"verb":"command","size":N}, then N octets
//	                                       -> {"ok":true,"result":{…}}: a signed command is kept, and carried out
//	                                          in its turn; the result is that of up/result/<id>
//	{"verb":"command","id":"…"}            -> {"ok":true,"result":{…}}: what is known of a command, if anything is
//	{"verb":"buffer","buffer":{"dir":…}}   -> {"ok":true,"stat":…}: what is in the buffer
//	{"verb":"buffer","buffer":{"dir":…,"query":{…}}}
//	                                       -> {"ok":true}, and behind that line an archive of it
//	{"verb":"secret","secret":{"do":…}}    -> {"ok":true,…}: the gateway's public keys, the names of its
//	                                          secrets; with "set" and a size a sealed one follows the line
//	{"verb":"update","update":{"do":…}}    -> {"ok":true,"report":{…}}: what up/firmware says; with "apply" and a
//	                                          size a signed manifest follows the line
//	{"verb":"bundle"}                      -> {"ok":true,"parts":{"log.jsonl":…}}: parts of a support bundle
//	anything that cannot be done           -> {"error":"…"}
package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Config is what a Control works with.
type Config struct {
	Path   string // of the socket; its folder is made when it is missing
	Report func() Report
	// Metrics appends the metrics; nil: there are none.
	Metrics func(b []byte) []byte
	// Lend keeps the agent off a line until giveBack is called. It waits for
	// the exchange under way, as long as ctx lasts.
	Lend func(ctx context.Context, line string) (giveBack func(), err error)
	// Tap gives each what passes on a line, until ctx or each ends it; nil: nobody listens.
	Tap func(ctx context.Context, line string, each func(Passed) error) error
	// Counters are given to tools too, which know them by StateDir; nil: none are.
	Counters Counters
	StateDir string
	// Refusals are counted by tools too; nil: they are not.
	Refusals Refusals
	// Submit is given signed documents; it gives an error when one is refused.
	Submit func(ctx context.Context, document []byte) error
	// Commands is given signed commands; nil: none are taken here.
	Commands Commands
	// Updates looks after firmware; nil: nobody does.
	Updates Updates
	// Parts gives parts of a support bundle; may be nil.
	Parts func() map[string]string
	// Readings is the buffer, which tools know by StateDir too; nil: nobody looks at it.
	Readings Readings
	// Secrets are looked after by tools; nil: there are none.
	Secrets Secrets
	Log     *slog.Logger
}

// Control is the task that serves the control socket.
type Control struct {
	cfg      Config
	listener *net.UnixListener
}

const (
	requestMost = 4096
	requestTime = 5 * time.Second
	acceptPause = time.Second
	pathMost    = 107 // sockaddr_un, with its final 0
)

type request struct {
	Verb string `json:"verb"`
	Line string `json:"line,omitempty"`
	Size int    `json:"size,omitempty"`
	ID   string `json:"id,omitempty"`

	Counters *counting `json:"counters,omitempty"`
	Refusals *refusing `json:"refusals,omitempty"`
	Buffer   *looking  `json:"buffer,omitempty"`

	Secret *secretRequest `json:"secret,omitempty"`
	Update *updateRequest `json:"update,omitempty"`
}

type reply struct {
	OK     bool   `json:"ok,omitempty"`
	Error  string `json:"error,omitempty"`
	Unused bool   `json:"unused,omitempty"` // the error is ErrUnused
}

// Listen opens the socket. A socket that a dead agent left is replaced; one
// that a living agent serves is an error.
func Listen(cfg Config) (*Control, error) {
	if len(cfg.Path) > pathMost {
		return nil, fmt.Errorf("control socket %s: the path has %d bytes, a Unix socket's at most %d: want a shorter control.socket", cfg.Path, len(cfg.Path), pathMost)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	addr := &net.UnixAddr{Name: cfg.Path, Net: "unix"}
	if c, err := net.DialUnix("unix", nil, addr); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("control socket %s: another agent serves it; stop that one, or give this one another control.socket", cfg.Path)
	}
	if info, err := os.Lstat(cfg.Path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("control socket %s: a file of that name is there and is no socket; move it away", cfg.Path)
		}
		if err := os.Remove(cfg.Path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(cfg.Path, 0o660); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Control{cfg: cfg, listener: l}, nil
}

// Run serves until ctx ends; then every connection is closed, and with it
// every loan ends.
func (c *Control) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = c.listener.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := c.listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("control socket: %w", err)
		case err != nil:
			c.cfg.Log.Warn("control socket", "error", err)
			pause := time.NewTimer(acceptPause) // out of files, say: not at once again
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
			continue
		}
		conns.Go(func() { c.serve(ctx, conn) })
	}
}

// serve answers one connection.
func (c *Control) serve(ctx context.Context, conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
	in := bufio.NewReaderSize(conn, requestMost)
	line, err := in.ReadSlice('\n')
	if err != nil {
		answer(conn, reply{Error: "want one line of JSON"})
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		answer(conn, reply{Error: "not JSON: " + err.Error()})
		return
	}
	switch r.Verb {
	case "status":
		answer(conn, c.cfg.Report())
	case "metrics":
		c.metrics(conn)
	case "lend":
		c.lend(ctx, conn, r.Line)
	case "tap":
		c.tap(ctx, conn, r.Line)
	case "counters":
		c.count(conn, r.Counters)
	case "refusals":
		c.refuse(conn, r.Refusals)
	case "order":
		c.order(ctx, conn, in, r.Size)
	case "command":
		c.command(conn, in, r.Size, r.ID)
	case "buffer":
		c.look(conn, r.Buffer)
	case "secret":
		c.secret(ctx, conn, in, r.Secret, r.Size)
	case "update":
		c.update(ctx, conn, in, r)
	case "bundle":
		c.bundle(conn)
	default:
		answer(conn, reply{Error: fmt.Sprintf("unknown verb %q: want status, metrics, lend, tap, counters, refusals, order, command, buffer, bundle, update or secret", r.Verb)})
	}
}

// lend lends a line for as long as the connection stands.
func (c *Control) lend(ctx context.Context, conn *net.UnixConn, line string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() { // joined below: a read ends when the borrower or serve closes conn
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
		cancel()
	}()
	defer func() {
		_ = conn.Close()
		<-gone
	}()
	giveBack, err := c.cfg.Lend(ctx, line)
	if err != nil {
		answer(conn, reply{Error: err.Error(), Unused: errors.Is(err, ErrUnused)})
		return
	}
	defer giveBack()
	c.cfg.Log.Info("line lent to a tool", "line", line)
	answer(conn, reply{OK: true})
	<-ctx.Done()
	c.cfg.Log.Info("line given back", "line", line)
}

func answer(conn *net.UnixConn, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(requestTime))
	_, _ = conn.Write(append(b, '\n')) // a borrower that is gone needs no answer
}

var (
	// ErrNoAgent says that no agent serves the socket.
	ErrNoAgent = errors.New("no agent runs here")
	// ErrUnused says that the agent has no such line, so that there is
	// nothing to borrow.
	ErrUnused = errors.New("the agent does not use this line")
)

// Ask asks the agent at path how it does. ErrNoAgent when there is none.
func Ask(ctx context.Context, path string) (Report, error) {
	conn, line, err := call(ctx, path, request{Verb: "status"})
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = conn.Close() }()
	var r Report
	if err := json.Unmarshal(line, &r); err != nil {
		return Report{}, fmt.Errorf("control socket %s: %w", path, err)
	}
	return r, nil
}

// Borrow borrows a line from the agent at path until giveBack is called. It
// waits for the exchange under way. ErrNoAgent and ErrUnused say that there is
// nothing to borrow.
func Borrow(ctx context.Context, path, line string) (giveBack func(), err error) {
	conn, _, err := call(ctx, path, request{Verb: "lend", Line: line})
	if err != nil {
		return nil, err
	}
	return func() { _ = conn.Close() }, nil
}

// call sends a request, with body after its line, and reads the reply line; conn
// is open on success.
func call(ctx context.Context, path string, r request, body ...byte) (net.Conn, []byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, nil, callError(path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := exchange(conn, r, body)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return conn, line, nil
}

func exchange(conn net.Conn, r request, body []byte) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(append(b, '\n'), body...)); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	return line, refusedReply(line)
}

// callError says why nobody was reached at path.
func callError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("control socket %s: %w", path, ErrNoAgent)
	}
	return fmt.Errorf("control socket: %w", err)
}

// refusedReply gives the error that a reply is, nil for none.
func refusedReply(line []byte) error {
	var refused reply
	switch err := json.Unmarshal(line, &refused); {
	case err != nil:
		return err
	case refused.Unused:
		return ErrUnused
	case refused.Error != "":
		return errors.New(refused.Error)
	}
	return nil
}
