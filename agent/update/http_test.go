package update_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/agent/update"
	"gridgate/internal/linktest"
)

// fetchFrom does an update from a source and compares what is staged.
func fetchFrom(t *testing.T, files []update.File, running slot, contents map[string][]byte, from update.Source) {
	t.Helper()
	j := begin(t, openStore(t, t.TempDir()), files, running)
	if err := j.Fetch(t.Context(), from, update.Options{Tell: func(why error, _ time.Duration) { t.Error(why) }}); err != nil {
		t.Fatal(err)
	}
	staged, err := j.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkStaged(t, staged, contents)
}

func newHTTP(t testing.TB, url string, config *tls.Config) *update.HTTP {
	t.Helper()
	h, err := update.NewHTTP(url, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// TestHTTP fetches from net/http's file server, in the clear and by TLS.
func TestHTTP(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, contents, running := release(t, p)
	var requests, connections atomic.Int64
	handler := http.FileServer(http.Dir(p.lay(t)))
	count := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1); r.Header.Get("Range") == "" {
			t.Errorf("no range: %v", r.Header)
		}
		http.StripPrefix("/firmware", handler).ServeHTTP(w, r)
	})
	server := httptest.NewUnstartedServer(count)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	fetchFrom(t, files, running, contents, newHTTP(t, server.URL+"/firmware/", nil))
	if r, c := requests.Load(), connections.Load(); r < 5 || r > 12 || c != 1 {
		t.Errorf("%d requests over %d connections", r, c)
	}
	secure := httptest.NewUnstartedServer(count)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the stranger below
	secure.StartTLS()
	t.Cleanup(secure.Close)
	ca := x509.NewCertPool()
	ca.AddCert(secure.Certificate())
	fetchFrom(t, files, running, contents, newHTTP(t, secure.URL+"/firmware", &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS12}))
	err := newHTTP(t, secure.URL, nil).Fetch(t.Context(), wantsOf(p, files[1]), func(update.Want, []byte) { t.Error("taken from a stranger") })
	if err == nil || !strings.Contains(err.Error(), "tls: ") {
		t.Error(err)
	}
}

// wantsOf gives all parts of a file.
func wantsOf(p *pile, f update.File) (wants []update.Want) {
	index := p.things[f.Index]
	for i := range f.Parts() {
		at := int64(i) * f.Part
		wants = append(wants, update.Want{Name: f.Name, Sum: [32]byte(index[i*32:]), Size: min(f.Part, f.Packed-at), Object: f.Object, Offset: at, Whole: f.Packed})
	}
	return wants
}

// TestNoRanges fetches from Python's web server, which knows none: each object
// is read once.
func TestNoRanges(t *testing.T) {
	t.Parallel()
	p := newPile()
	files, contents, running := release(t, p)
	cmd := exec.CommandContext(t.Context(), "python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1", "0")
	cmd.Dir = p.lay(t)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscanf(line, "Serving HTTP on 127.0.0.1 port %d", &port); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	fetchFrom(t, files, running, contents, newHTTP(t, fmt.Sprintf("http://127.0.0.1:%d", port), nil))
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, f := range files[:2] {
		if n := strings.Count(said.String(), fmt.Sprintf("/%x ", f.Object)); n != 1 {
			t.Errorf("%s was asked for %d times:\n%s", f.Name, n, said.String())
		}
	}
}

// TestHostileServers: each answer gives an error that says what is wrong, in
// bounded time and room, and nothing wrong is taken.
func TestHostileServers(t *testing.T) {
	t.Parallel()
	content := noise(20_000, 9)
	const at = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4096-12287/20000\r\n"
	for name, c := range map[string]struct{ answer, want string }{
		"nothing":               {"", "no answer"},
		"garbage":               {"hello\r\n\r\n", "none of HTTP"},
		"not found":             {"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"},
		"moved":                 {"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n", "is not followed"},
		"continue":              {"HTTP/1.1 100 Continue\r\n\r\n", "100 Continue"},
		"a head without end":    {"HTTP/1.1 206 Partial Content\r\n" + strings.Repeat("X: y\r\n", 50_000), "none of HTTP"},
		"a long line":           {"HTTP/1.1 206 " + strings.Repeat("x", 100_000), "none of HTTP"},
		"other octets":          {"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-8191/20000\r\nContent-Length: 8192\r\n\r\n", "asked for the octets 4096 to 12287"},
		"more octets":           {"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4096-20479/20000\r\nContent-Length: 16384\r\n\r\n", "asked for the octets"},
		"no place":              {"HTTP/1.1 206 Partial Content\r\nContent-Length: 8192\r\n\r\n", "asked for the octets"},
		"negative":              {"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4096--1/20000\r\n\r\n", "asked for the octets"},
		"another size":          {"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4096-12287/20001\r\nContent-Length: 8192\r\n\r\n", "20001 octets, not 20000"},
		"several ranges":        {"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n--x\r\n", "asked for the octets"},
		"gzip":                  {at + "Content-Encoding: gzip\r\nContent-Length: 8192\r\n\r\n", "encoding \"gzip\""},
		"cut off":               {at + "Content-Length: 8192\r\n\r\n" + string(content[4096:9000]), "the answer ends 808 octets into a part of 4096"},
		"a short range":         {"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4096-4999/20000\r\nContent-Length: 904\r\n\r\n" + string(content[4096:5000]), "the answer ends 904 octets into a part"},
		"bad chunks":            {at + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n", "the answer ends"},
		"whole, of another":     {"HTTP/1.1 200 OK\r\nContent-Length: 20001\r\n\r\n", "its file has 20001 octets"},
		"whole, cut off":        {"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + string(content[:1000]), "knows no ranges"},
		"whole, without length": {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + string(content[:5000]), "the answer ends"},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPile()
			f := p.add(t, "f", content, content, update.PackNone, 4096)
			near, far := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer far.Close()
				if _, err := http.ReadRequest(bufio.NewReader(far)); err != nil {
					t.Error(name, err)
				}
				_, _ = io.WriteString(far, c.answer)
			}()
			h, err := update.NewHTTP("http://host", nil, func(context.Context, string, string) (net.Conn, error) { return near, nil })
			if err != nil {
				t.Fatal(err)
			}
			err = h.Fetch(t.Context(), wantsOf(p, f)[1:3], func(w update.Want, data []byte) {
				if sha256.Sum256(data) != w.Sum {
					t.Errorf("%s: wrong octets of the right place", name)
				}
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
				t.Errorf("%s: %v; want %q", name, err, c.want)
			}
			h.Close()
			<-done
		})
	}
}

// TestAnswersThatAreTaken: in chunks, and closed behind a range.
func TestAnswersThatAreTaken(t *testing.T) {
	t.Parallel()
	content := noise(20_000, 9)
	for name, answer := range map[string]string{
		"chunks":     "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4096-12287/*\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" + string(content[4096:8192]) + "\r\n1000\r\n" + string(content[8192:12288]) + "\r\n0\r\n\r\n",
		"closes":     "HTTP/1.0 206 Partial Content\r\ncontent-range: bytes 4096-12287/20000\r\n\r\n" + string(content[4096:12288]),
		"whole, 1.0": "HTTP/1.0 200 OK\r\n\r\n" + string(content),
		"whole":      "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + string(content),
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPile()
			f := p.add(t, "f", content, content, update.PackNone, 4096)
			near, far := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer far.Close()
				if _, err := http.ReadRequest(bufio.NewReader(far)); err != nil {
					t.Error(name, err)
				}
				_, _ = io.WriteString(far, answer)
			}()
			h, err := update.NewHTTP("http://host:80/x/", nil, func(context.Context, string, string) (net.Conn, error) { return near, nil })
			if err != nil {
				t.Fatal(err)
			}
			taken := 0
			err = h.Fetch(t.Context(), wantsOf(p, f)[1:3], func(w update.Want, data []byte) {
				if taken++; sha256.Sum256(data) != w.Sum {
					t.Errorf("%s: wrong octets", name)
				}
			})
			if err != nil || taken != 2 {
				t.Errorf("%s: %d, %v", name, taken, err)
			}
			h.Close()
			<-done
		})
	}
}

// TestSlowServer: who sends an octet now and then is given up.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4095/20000\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			p := newPile()
			content := noise(20_000, 9)
			f := p.add(t, "f", content, content, update.PackNone, 4096)
			near, far := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = http.ReadRequest(bufio.NewReader(far))
				_, err := io.WriteString(far, head)
				for err == nil {
					time.Sleep(time.Second)
					_, err = far.Write([]byte("H"))
				}
			}()
			h, err := update.NewHTTP("http://host", nil, func(context.Context, string, string) (net.Conn, error) { return near, nil })
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			err = h.Fetch(t.Context(), wantsOf(p, f)[:1], func(update.Want, []byte) { t.Error("taken") })
			if took := time.Since(begun); err == nil || took > 90*time.Second {
				t.Errorf("%v after %v", err, took)
			}
			<-done
		})
	}
}

// TestIdleConnection: a server that hangs up between two requests is no failure.
func TestIdleConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPile()
		files, _, _ := release(t, p)
		link := linktest.New(linktest.Config{Delay: 50 * time.Millisecond})
		server := &http.Server{Handler: http.FileServer(http.Dir(p.lay(t))), IdleTimeout: 5 * time.Second}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(link.Listener()) // until it is closed
		}()
		h, err := update.NewHTTP("http://host", nil, link.Dial)
		if err != nil {
			t.Fatal(err)
		}
		taken := 0
		for _, w := range wantsOf(p, files[1]) {
			if err := h.Fetch(t.Context(), []update.Want{w}, func(update.Want, []byte) { taken++ }); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		}
		if taken != files[1].Parts() {
			t.Errorf("%d taken", taken)
		}
		h.Close()
		_ = server.Close()
		<-done
	})
}

func TestFetchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPile()
		files, _, _ := release(t, p)
		near, far := net.Pipe()
		defer far.Close()
		h, err := update.NewHTTP("http://host", nil, func(context.Context, string, string) (net.Conn, error) { return near, nil })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if err := h.Fetch(ctx, wantsOf(p, files[1]), func(update.Want, []byte) {}); err == nil || ctx.Err() == nil || time.Since(begun) > 2*time.Second {
			t.Error(err)
		}
	})
}

func TestNewHTTPRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "host", "ftp://host", "https://", "https://u@host/", "https://host/?q=1"} {
		if _, err := update.NewHTTP(url, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "url: ") || strings.Contains(err.Error(), "%!") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// script is a connection that answers what it was made with.
type script struct {
	net.Conn
	answer io.Reader
}

func (s *script) Read(p []byte) (int, error)       { return s.answer.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswer: whatever a server says, nothing but parts of their sizes is given
// on, each once, and nil is returned only when all came.
func FuzzAnswer(f *testing.F) {
	content := noise(20_000, 9)
	f.Add([]byte("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4096-12287/20000\r\nContent-Length: 8192\r\n\r\n" + string(content[4096:12288])))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3000\r\n" + string(content[:0x3000]) + "\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n"))
	p := newPile()
	wants := wantsOf(p, p.add(f, "f", content, content, update.PackNone, 4096))[1:3]
	f.Fuzz(func(t *testing.T, answer []byte) {
		h, err := update.NewHTTP("http://host", nil, func(context.Context, string, string) (net.Conn, error) {
			return &script{answer: bytes.NewReader(answer)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		given := 0
		err = h.Fetch(t.Context(), wants, func(w update.Want, data []byte) {
			if given == len(wants) || w != wants[given] || int64(len(data)) != w.Size {
				t.Errorf("%d: %+v, %d octets", given, w, len(data))
			}
			given++
		})
		if (err == nil) != (given == len(wants)) && err == nil {
			t.Errorf("%d given, %v", given, err)
		}
	})
}
