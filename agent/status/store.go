package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// Readings is the buffer of the agent, for tools that look at what is in it.
type Readings interface {
	// StatJSON says how much is in it, as `gridgate buffer stat` prints it.
	StatJSON() (json.RawMessage, error)
	// Export writes an archive; w may be slow.
	Export(w io.Writer, q ReadingsQuery) error
}

// ReadingsQuery says what an archive is to have. The zero value wants all.
type ReadingsQuery struct {
	Lane    string `json:"lane,omitempty"` // empty is every lane
	From    int64  `json:"from,omitempty"` // in ms since 1970 UTC, in it
	To      int64  `json:"to,omitempty"`   // not in it; 0 is no bound
	Waiting bool   `json:"waiting,omitempty"`
	// Site and Gateway are named in the archive; empty for the agent's own.
	Site    string `json:"site,omitempty"`
	Gateway string `json:"gateway,omitempty"`
}

// looking asks what is in the buffer in Dir: with a Query for an archive, which
// follows the reply until the connection ends, else for figures.
type looking struct {
	Dir   string         `json:"dir"`
	Query *ReadingsQuery `json:"query,omitempty"`
}

type looked struct {
	OK   bool            `json:"ok"`
	Stat json.RawMessage `json:"stat,omitempty"`
}

// ErrOtherBuffer says that the agent has another buffer.
var ErrOtherBuffer = errors.New("the agent has another buffer")

// lookTime is how long a tool may take no octet of an archive.
const lookTime = time.Minute

// look answers a request to look at the buffer.
func (c *Control) look(conn *net.UnixConn, r *looking) {
	if r == nil || c.cfg.Readings == nil || !sameDir(r.Dir, c.cfg.StateDir) {
		answer(conn, reply{Error: ErrOtherBuffer.Error()})
		return
	}
	if r.Query == nil {
		stat, err := c.cfg.Readings.StatJSON()
		if err != nil {
			answer(conn, reply{Error: err.Error()})
			return
		}
		answer(conn, looked{OK: true, Stat: stat})
		return
	}
	answer(conn, looked{OK: true})
	out := bufio.NewWriterSize(patientWriter{conn}, 32<<10)
	err := c.cfg.Readings.Export(out, *r.Query)
	if err == nil {
		err = out.Flush()
	}
	if err != nil { // the tool sees that the archive has no end
		c.cfg.Log.Warn("archive for a tool", "error", err)
	}
}

// patientWriter gives each write the time that it may take.
type patientWriter struct{ conn net.Conn }

func (w patientWriter) Write(b []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(lookTime)); err != nil {
		return 0, err
	}
	return w.conn.Write(b)
}

// AskReadings asks the agent at path for the figures of the buffer in dir.
func AskReadings(ctx context.Context, path, dir string) (json.RawMessage, error) {
	conn, line, err := call(ctx, path, request{Verb: "buffer", Buffer: &looking{Dir: dir}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var r looked
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return r.Stat, nil
}

// Archive asks the agent at path for an archive of the buffer in dir. What is
// read from it is over when the archive is; Close ends it.
func Archive(ctx context.Context, path, dir string, q ReadingsQuery) (io.ReadCloser, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("control socket %s: %w", path, ErrNoAgent)
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	a := &archive{Reader: bufio.NewReader(conn), conn: conn, stop: stop}
	if err := a.begin(request{Verb: "buffer", Buffer: &looking{Dir: dir, Query: &q}}); err != nil {
		_ = a.Close()
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return a, nil
}

type archive struct {
	*bufio.Reader

	conn net.Conn
	stop func() bool
}

func (a *archive) begin(r request) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := a.conn.Write(append(b, '\n')); err != nil {
		return err
	}
	line, err := a.ReadBytes('\n')
	if err != nil {
		return err
	}
	var refused reply
	if err := json.Unmarshal(line, &refused); err != nil {
		return err
	}
	if refused.Error != "" {
		return errors.New(refused.Error)
	}
	return nil
}

func (a *archive) Close() error {
	a.stop()
	return a.conn.Close()
}
