package cosem

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/dlms/hdlc"
	"gridgate/internal/meter"
)

// tap sees what a client sends, as control fields of its frames.
type tap struct {
	mu   sync.Mutex
	seen []string
	// edit, if not nil, is what becomes of octets on their way to the meter
	// and from it.
	edit func(toMeter bool, b []byte) []byte
}

type tapped struct {
	io.ReadWriter
	*tap
	frames hdlc.Splitter
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.ReadWriter.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames.Feed(b[:n])
	for raw, ok := c.frames.Next(); ok; raw, ok = c.frames.Next() {
		f, err := hdlc.ParseFrame(raw)
		if err != nil {
			return 0, err
		}
		c.seen = append(c.seen, strings.Fields(f.Control.String())[0])
	}
	if c.edit != nil && n > 0 {
		n = copy(b, c.edit(true, b[:n]))
	}
	return n, err
}

func (c *tapped) Write(b []byte) (int, error) {
	c.mu.Lock()
	edit := c.edit
	c.mu.Unlock()
	out := b
	if edit != nil {
		out = edit(false, b)
	}
	if _, err := c.ReadWriter.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// count gives how often the client sent a frame of a kind.
func (t *tap) count(kind string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seen {
		if s == kind {
			n++
		}
	}
	return n
}

// hdlcRig answers as the meter of trace 02 did.
func hdlcRig(t *testing.T) (*rig, *tap) {
	t.Helper()
	f, err := os.Open("../../dlms/testdata/02-hdlc-ln-none-clock-range.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := dlmstest.ParseTrace(f)
	if err != nil {
		t.Fatal(err)
	}
	if !trace.IsHDLC() {
		t.Fatal("the trace is not taken for HDLC")
	}
	seen := &tap{}
	r := &rig{serve: func(stream io.ReadWriter) error {
		return trace.AnswerHDLC(&tapped{ReadWriter: stream, tap: seen}, nil)
	}}
	r.listen(t)
	return r, seen
}

func askOf02(t *testing.T) meter.Ask {
	t.Helper()
	return meter.Ask{
		Clock: true,
		Groups: []meter.Group{{Lane: meter.Alarm, Channels: []meter.Channel{
			channel(t, "0-0:1.0.0"), channel(t, "1-1:21.25.0"),
		}}},
		Profiles: []meter.Profile{{
			Channel: channel(t, "1-0:99.1.0"), Lane: meter.Interval,
			Since: time.Date(2026, 11, 21, 8, 40, 26, 0, time.UTC).UnixMilli(),
		}},
	}
}

func TestHDLC(t *testing.T) {
	t.Parallel()
	r, seen := hdlcRig(t)
	m := r.driver(t, Config{HDLC: &HDLC{}})
	for visit := range 3 {
		got, err := m.Visit(t.Context(), askOf02(t))
		if err != nil || len(got.Failures) > 0 {
			t.Fatalf("visit %d: %v, %v", visit, err, got.Failures)
		}
		if len(got.Rows) != 2+96 {
			t.Fatalf("visit %d: %d rows", visit, len(got.Rows))
		}
		at := slices.IndexFunc(got.Rows, func(row meter.Row) bool { return row.Channel == channel(t, "1-1:21.25.0") })
		if v := got.Rows[at]; v.Value.String() != "0.34" || v.Unit != meter.WattHour {
			t.Errorf("register %v %v", v.Value, v.Unit)
		}
	}
	if n := seen.count("SNRM"); n != 1 {
		t.Errorf("%d connections for 3 visits", n)
	}
	if err := m.Close(); err != nil || seen.count("DISC") != 1 {
		t.Errorf("closed with %d DISC, %v", seen.count("DISC"), err)
	}
}

// TestHDLCReleases ends the connection after each visit, and makes it anew.
func TestHDLCReleases(t *testing.T) {
	t.Parallel()
	r, seen := hdlcRig(t)
	m := r.driver(t, Config{HDLC: &HDLC{}, Release: true})
	for range 2 {
		if got, err := m.Visit(t.Context(), askOf02(t)); err != nil || len(got.Rows) != 98 {
			t.Fatalf("%d rows, %v", len(got.Rows), err)
		}
	}
	if seen.count("SNRM") != 2 || seen.count("DISC") != 2 {
		t.Errorf("%q", seen.seen)
	}
}

// TestHDLCForgotten: a meter that dropped the connection between visits says
// DM, and is read all the same.
func TestHDLCForgotten(t *testing.T) {
	t.Parallel()
	r, seen := hdlcRig(t)
	m := r.driver(t, Config{HDLC: &HDLC{}})
	if _, err := m.Visit(t.Context(), askOf02(t)); err != nil {
		t.Fatal(err)
	}
	once := true
	seen.mu.Lock()
	seen.edit = func(toMeter bool, b []byte) []byte {
		if toMeter || !once {
			return b
		}
		once = false
		dm, _ := hdlc.Frame{Destination: hdlc.ClientAddress(16), Source: hdlc.Address{Upper: 1, Size: 1}, Control: hdlc.DM}.AppendBinary(nil)
		return dm
	}
	seen.mu.Unlock()
	if got, err := m.Visit(t.Context(), askOf02(t)); err != nil || len(got.Rows) != 98 || seen.count("SNRM") != 2 {
		t.Errorf("%d rows, %v, %d connections", len(got.Rows), err, seen.count("SNRM"))
	}
}

// TestHDLCEcho reads through an optical head that gives back what is sent.
func TestHDLCEcho(t *testing.T) {
	t.Parallel()
	r, seen := hdlcRig(t)
	r.mu.Lock()
	serve := r.serve
	r.serve = func(stream io.ReadWriter) error {
		return serve(struct {
			io.Reader
			io.Writer
		}{io.TeeReader(stream, stream), stream})
	}
	r.mu.Unlock()
	m := r.driver(t, Config{HDLC: &HDLC{}})
	if got, err := m.Visit(t.Context(), askOf02(t)); err != nil || len(got.Rows) != 98 || seen.count("SNRM") != 1 {
		t.Errorf("%d rows, %v", len(got.Rows), err)
	}
}

func TestHDLCFailures(t *testing.T) {
	t.Parallel()
	r, _ := hdlcRig(t)
	for name, c := range map[string]struct {
		config Config
		want   error
		words  string
	}{
		"another server":  {Config{Server: 2, HDLC: &HDLC{}, Timeout: 20 * time.Millisecond}, meter.ErrNoAnswer, "does it know client 16 and server 2"},
		"another device":  {Config{HDLC: &HDLC{Physical: 17}, Timeout: 20 * time.Millisecond}, meter.ErrNoAnswer, "no answer within 20ms (is the meter on"},
		"too high client": {Config{Client: 128, HDLC: &HDLC{}}, hdlc.ErrAddress, "client 128 over HDLC: want 1 to 127"},
		"too high server": {Config{Server: 200, HDLC: &HDLC{AddrLen: 1}}, hdlc.ErrAddress, "logical device 200"},
	} {
		if _, err := r.driver(t, c.config).Visit(t.Context(), askOf02(t)); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	time.AfterFunc(10*time.Millisecond, func() { cancel(enough) })
	if _, err := r.driver(t, Config{Server: 2, HDLC: &HDLC{}}).Visit(ctx, askOf02(t)); !errors.Is(err, enough) {
		t.Errorf("cancelled: %v", err)
	}
}
