package update

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of a request over HTTP.
const (
	maxHead     = 16 << 10 // octets of an answer's head
	answerTime  = time.Minute
	slowestRate = 256 // octets a second: what is slower is given up
)

// HTTP is a web server that has objects and indexes by their SHA-256 below a
// URL, over https or http: hashes prove what comes, TLS only hides it. Parts
// that follow one another are asked for as one range. From a server that knows
// no ranges a whole object is read, once where nothing interrupts it. Redirects
// are not followed.
type HTTP struct {
	base *url.URL
	tls  *tls.Config
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	conn net.Conn
	head *io.LimitedReader // bounds what is read of conn
	in   *bufio.Reader
	body *body // of an answer that is whole, read as far as was wanted
}

// body is an answer with all of an object.
type body struct {
	object [32]byte
	at     int64
	r      io.ReadCloser
}

// NewHTTP gives the server of a manifest's url. Of config, which may be nil, a
// copy with the server's name is used. A nil dial is the system's.
func NewHTTP(base string, config *tls.Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*HTTP, error) {
	u, err := url.Parse(base)
	if err == nil {
		err = checkURL(base)
	}
	if err == nil && base == "" {
		err = errors.New("there is none")
	}
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	h := &HTTP{base: u, dial: dial}
	if h.dial == nil {
		h.dial = (&net.Dialer{Timeout: answerTime}).DialContext
	}
	if u.Scheme == "https" {
		if h.tls = config.Clone(); h.tls == nil {
			h.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		h.tls.ServerName, h.tls.NextProtos = u.Hostname(), nil
	}
	return h, nil
}

// Close ends the connection, where there is one. The next Fetch makes another.
func (h *HTTP) Close() {
	if h.conn != nil {
		_ = h.conn.Close()
	}
	h.conn, h.head, h.in, h.body = nil, nil, nil, nil
}

// Fetch asks for ranges. After an error the connection is given up.
func (h *HTTP) Fetch(ctx context.Context, wants []Want, take func(w Want, data []byte)) error {
	for len(wants) > 0 {
		n := 1 // parts of one range
		for n < len(wants) && wants[n].Object == wants[0].Object && wants[n].Offset == wants[n-1].Offset+wants[n-1].Size {
			n++
		}
		if err := h.fetch(ctx, wants[:n], take); err != nil {
			h.Close()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s: %s from %s: %w", wants[0].Name, hex.EncodeToString(wants[0].Object[:8]), h.base.Host, err)
		}
		wants = wants[n:]
	}
	return nil
}

// fetch asks for one range.
func (h *HTTP) fetch(ctx context.Context, wants []Want, take func(w Want, data []byte)) error {
	fresh := h.conn == nil
	err := h.once(ctx, wants, take)
	// A server closes a connection that was idle: that is no failure.
	if gone := (*goneError)(nil); !fresh && errors.As(err, &gone) && ctx.Err() == nil {
		h.Close()
		err = h.once(ctx, wants, take)
	}
	return err
}

// goneError says that a connection ended before an answer began.
type goneError struct{ err error }

func (e *goneError) Error() string { return "no answer: " + e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

func (h *HTTP) once(ctx context.Context, wants []Want, take func(w Want, data []byte)) error {
	first, last := wants[0], wants[len(wants)-1]
	end := last.Offset + last.Size
	if h.body != nil && (h.body.object != first.Object || h.body.at > first.Offset) {
		h.Close() // the rest of it is of no use, and would have to be read
	}
	if h.conn == nil {
		if err := h.connect(ctx); err != nil {
			return err
		}
	}
	conn := h.conn
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if h.body != nil {
		if err := h.allow(ctx, end-h.body.at); err != nil {
			return err
		}
		return h.readWhole(wants, take)
	}
	if err := h.allow(ctx, end-first.Offset); err != nil {
		return err
	}
	request := fmt.Sprintf("GET %s/%x HTTP/1.1\r\nHost: %s\r\nUser-Agent: gridgate\r\nAccept-Encoding: identity\r\nRange: bytes=%d-%d\r\n\r\n",
		strings.TrimSuffix(h.base.EscapedPath(), "/"), first.Object, h.base.Host, first.Offset, end-1)
	if _, err := io.WriteString(conn, request); err != nil {
		return &goneError{err}
	}
	h.head.N = maxHead
	if _, err := h.in.Peek(1); err != nil {
		return &goneError{err}
	}
	answer, err := readAnswer(h.in, first.Offset, end, first.Whole)
	if err != nil {
		return err
	}
	h.head.N = maxHead + first.Whole*2 // with the sizes of chunks
	if answer.whole {
		if err := h.allow(ctx, end); err != nil {
			return err
		}
		h.body = &body{object: first.Object, r: answer.body}
		return h.readWhole(wants, take)
	}
	if err := readParts(answer.body, wants, take); err != nil {
		return err
	}
	if answer.last || !drained(answer.body) {
		h.Close()
	}
	return nil
}

// allow gives what follows the time that n octets may take.
func (h *HTTP) allow(ctx context.Context, n int64) error {
	// A connection that takes no deadline any more is closed: reading tells.
	_ = h.conn.SetDeadline(time.Now().Add(answerTime + time.Duration(n)*time.Second/slowestRate))
	return ctx.Err() // the end of ctx sets a deadline too, which this may have undone
}

func (h *HTTP) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*answerTime)
	defer cancel()
	port := h.base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[h.base.Scheme]
	}
	conn, err := h.dial(ctx, "tcp", net.JoinHostPort(h.base.Hostname(), port))
	if err != nil {
		return err
	}
	if h.tls != nil {
		secure := tls.Client(conn, h.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return errors.Join(fmt.Errorf("tls: %w", err), conn.Close())
		}
		conn = secure
	}
	h.conn = conn
	h.head = &io.LimitedReader{R: conn}
	h.in = bufio.NewReaderSize(h.head, 4<<10)
	return nil
}

// readWhole reads on in an answer that is a whole object, as far as is wanted.
func (h *HTTP) readWhole(wants []Want, take func(w Want, data []byte)) error {
	b := h.body
	skipped, err := io.CopyN(io.Discard, b.r, wants[0].Offset-b.at)
	if b.at += skipped; err != nil {
		return fmt.Errorf("the server knows no ranges, and its answer ends after %d octets: %w", b.at, unexpected(err))
	}
	last := wants[len(wants)-1]
	if err := readParts(b.r, wants, take); err != nil {
		return err
	}
	if b.at = last.Offset + last.Size; b.at >= last.Whole {
		h.Close()
	}
	return nil
}

func readParts(r io.Reader, wants []Want, take func(w Want, data []byte)) error {
	var most int64
	for _, w := range wants {
		most = max(most, w.Size)
	}
	buf := make([]byte, most)
	for _, w := range wants {
		if n, err := io.ReadFull(r, buf[:w.Size]); err != nil {
			return fmt.Errorf("the answer ends %d octets into a part of %d: %w", n, w.Size, unexpected(err))
		}
		take(w, buf[:w.Size])
	}
	return nil
}

// unexpected is what an end is where more was to come.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// drained says whether an answer is at its end, so that another may follow.
func drained(r io.Reader) bool {
	var one [1]byte
	n, err := r.Read(one[:])
	return n == 0 && errors.Is(err, io.EOF)
}

// answer is one whose body begins where it was asked to, or at the object's
// first octet.
type answer struct {
	whole bool // from the first octet on
	last  bool // the server closes the connection
	body  io.ReadCloser
}

// readAnswer reads the head of an answer to a request for the octets from first
// to before end of an object that has whole.
func readAnswer(in *bufio.Reader, first, end, whole int64) (answer, error) {
	res, err := http.ReadResponse(in, nil) //nolint:bodyclose // it is the connection, which is kept or closed
	if err != nil {
		return answer{}, fmt.Errorf("its answer is none of HTTP: %w", unexpected(err))
	}
	a := answer{last: res.Close, body: res.Body}
	if how := res.Header.Get("Content-Encoding"); how != "" && how != "identity" {
		return a, fmt.Errorf("it answers in the encoding %q, which nobody asked for", clip(how))
	}
	switch res.StatusCode {
	case http.StatusOK:
		if n := res.ContentLength; n >= 0 && n != whole {
			return a, fmt.Errorf("its file has %d octets, not %d", n, whole)
		}
		a.whole = true
		return a, nil
	case http.StatusPartialContent:
		text := res.Header.Get("Content-Range")
		from, to, total, ok := contentRange(text)
		if !ok || from != first || to < from || to >= end {
			return a, fmt.Errorf("asked for the octets %d to %d it gives %q", first, end-1, clip(text))
		}
		if total != "*" && total != strconv.FormatInt(whole, 10) {
			return a, fmt.Errorf("its file has %s octets, not %d", clip(total), whole)
		}
		return a, nil
	}
	if to := res.Header.Get("Location"); to != "" {
		return a, fmt.Errorf("it answers %q and sends us elsewhere, which is not followed", clip(res.Status))
	}
	return a, fmt.Errorf("it answers %q", clip(res.Status))
}

// contentRange reads "bytes 0-99/1000" (RFC 9110, 14.4).
func contentRange(s string) (from, to int64, total string, ok bool) {
	unit, s, _ := strings.Cut(s, " ")
	span, total, _ := strings.Cut(s, "/")
	a, b, _ := strings.Cut(span, "-")
	from, err := strconv.ParseInt(a, 10, 64)
	to, err2 := strconv.ParseInt(b, 10, 64)
	return from, to, total, unit == "bytes" && err == nil && err2 == nil
}
