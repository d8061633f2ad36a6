//go:build soak

package buffertest_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// TestSoakFull fills a store of the default size, opens it again and drains it.
// A 32-bit machine has to have room for that in 1 GiB of addresses:
//
//	GOARCH=386 go test -c -tags soak -o /tmp/b ./buffer/buffertest && (ulimit -v 1048576; /tmp/b -test.run SoakFull -test.v)
func TestSoakFull(t *testing.T) {
	dir := t.TempDir()
	s := buffertest.OpenDir(t, dir, buffer.Options{BootID: "b"})
	for {
		err := s.Append(t.Context(), meter.Append{Rows: fatRows(4)})
		if errors.Is(err, buffer.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := s.Stat()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d octets; %s", st.FileBytes, anonymous(t))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = buffertest.OpenDir(t, dir, buffer.Options{BootID: "b"})
	if s.Recovered() != nil {
		t.Fatal(s.Recovered().Reason)
	}
	for after := uint64(0); after < s.Last(meter.Interval); {
		span, err := s.Peek(meter.Interval, after, 100)
		if err != nil || len(span.Holes) > 0 || span.Last == 0 {
			t.Fatalf("after %d: %+v %v", after, span.Holes, err)
		}
		after = span.Last
	}
	if err := errors.Join(s.Ack(meter.Interval, s.Last(meter.Interval)), s.Flush(t.Context())); err != nil {
		t.Fatal(err)
	}
	for range 1000 { // each gives up a part of what was acknowledged
		if err := s.Append(t.Context(), meter.Append{Rows: []meter.Row{{Meter: "m", Channel: "c", Lane: meter.Billing}}}); err != nil {
			t.Fatal(err)
		}
		if s.Wasteful() {
			break
		}
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err = s.Stat(); err != nil {
		t.Fatal(err)
	}
	t.Logf("compacted to %d octets; %s", st.FileBytes, anonymous(t))
}

// fatRows gives n rows of 60,000 octets each that do not deflate.
func fatRows(n int) []meter.Row {
	rows := make([]meter.Row, n)
	b := make([]byte, 60_000)
	random := rand.NewChaCha8([32]byte{byte(n)})
	for i := range rows {
		_, _ = random.Read(b) // never fails
		rows[i] = meter.Row{Meter: "m", Channel: "c", Lane: meter.Interval, Value: meter.OctetsValue(b)}
	}
	return rows
}

// anonymous gives the line of /proc/self/status on memory that is no file's.
func anonymous(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "RssAnon") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
