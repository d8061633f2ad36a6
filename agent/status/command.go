package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Commands is who carries out commands, which may be given at the gateway too.
type Commands interface {
	// Command takes a signed command and gives how far it is.
	Command(document []byte) (json.RawMessage, error)
	// CommandResult gives what is known of one, nil for nothing.
	CommandResult(id string) (json.RawMessage, error)
}

type commandReply struct {
	OK     bool            `json:"ok"`
	Result json.RawMessage `json:"result,omitempty"`
}

// command hands a command on, or, where there is an id, tells what came of one.
func (c *Control) command(conn *net.UnixConn, in *bufio.Reader, size int, id string) {
	if c.cfg.Commands == nil {
		answer(conn, reply{Error: "command: none are taken here"})
		return
	}
	var result json.RawMessage
	var err error
	if id != "" {
		result, err = c.cfg.Commands.CommandResult(id)
	} else {
		if size <= 0 || size > documentMost {
			answer(conn, reply{Error: fmt.Sprintf("command: want a size of 1 to %d octets, and the document after this line", documentMost)})
			return
		}
		document := make([]byte, size)
		_ = conn.SetReadDeadline(time.Now().Add(requestTime))
		if _, err := io.ReadFull(in, document); err != nil {
			answer(conn, reply{Error: "command: the document is cut short"})
			return
		}
		result, err = c.cfg.Commands.Command(document)
	}
	if err != nil {
		answer(conn, reply{Error: err.Error()})
		return
	}
	answer(conn, commandReply{OK: true, Result: result})
}

// Command gives a signed command to the agent at path, and gives how far it is.
// The error says why it is refused, or is ErrNoAgent.
func Command(ctx context.Context, path string, document []byte) (json.RawMessage, error) {
	if len(document) == 0 || len(document) > documentMost {
		return nil, errors.New("the document has no content, or more than a document has")
	}
	return askCommand(ctx, path, request{Verb: "command", Size: len(document)}, document...)
}

// CommandResult asks what is known of a command; nil is nothing.
func CommandResult(ctx context.Context, path, id string) (json.RawMessage, error) {
	return askCommand(ctx, path, request{Verb: "command", ID: id})
}

func askCommand(ctx context.Context, path string, r request, body ...byte) (json.RawMessage, error) {
	conn, line, err := call(ctx, path, r, body...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	var got commandReply
	if err := json.Unmarshal(line, &got); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return got.Result, nil
}
