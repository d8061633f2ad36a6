package status

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// documentMost is the longest document that is taken, in octets.
const documentMost = 1 << 20

// order hands a document on and tells whether it is taken.
func (c *Control) order(ctx context.Context, conn *net.UnixConn, in *bufio.Reader, size int) {
	if c.cfg.Submit == nil || size <= 0 || size > documentMost {
		answer(conn, reply{Error: fmt.Sprintf("order: want a size of 1 to %d octets, and the document after this line", documentMost)})
		return
	}
	document := make([]byte, size)
	_ = conn.SetReadDeadline(time.Now().Add(requestTime))
	if _, err := io.ReadFull(in, document); err != nil {
		answer(conn, reply{Error: "order: the document is cut short"})
		return
	}
	if err := c.cfg.Submit(ctx, document); err != nil {
		answer(conn, reply{Error: err.Error()})
		return
	}
	answer(conn, reply{OK: true})
}

// Submit gives a signed document to the agent at path. The error says why it is
// refused, or is ErrNoAgent; nil says that it is being carried out.
func Submit(ctx context.Context, path string, document []byte) error {
	if len(document) == 0 || len(document) > documentMost {
		return errors.New("the document has no content, or more than a document has")
	}
	conn, _, err := call(ctx, path, request{Verb: "order", Size: len(document)}, document...)
	if err != nil {
		return err
	}
	return conn.Close()
}
