package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// childMemory fills a store over its quota with the reference site's rows and
// drains it, in the way that memory is limited on a gateway, and says how much
// memory that is no file's it has at the end and at most, beside what it had
// before.
func childMemory(dir string) error {
	debug.SetGCPercent(50)
	start, err := rssAnon()
	if err != nil {
		return err
	}
	s, err := buffer.Open(dir, buffer.Options{
		BootID: "b", MaxSize: 12 << 20, HotBytes: 4 << 20, Quota: buffer.Quota{Total: buffer.Limit{Bytes: 4 << 20}},
		Now: func() time.Time { return time.UnixMilli(1_700_006_400_000) },
	})
	if err != nil {
		return err
	}
	site, most, steady := newSite(), 0, 0
	ctx := context.Background()
	for n := range siteDay / 2 {
		if err := s.Append(ctx, meter.Append{Rows: site.window(n)}); err != nil {
			return err
		}
		if err := s.Ack(meter.Instant, s.Last(meter.Instant)); err != nil {
			return err
		}
		now, err := rssAnon()
		if err != nil {
			return err
		}
		steady = max(steady, now)
	}
	for n := range 4 * siteDay {
		rows := site.window(n)
		for i := range rows {
			rows[i].Lane = meter.Interval // which is thinned
		}
		if err := s.Append(ctx, meter.Append{Rows: rows}); err != nil {
			return err
		}
		if n%8 == 0 {
			now, err := rssAnon()
			if err != nil {
				return err
			}
			most = max(most, now)
		}
	}
	for after, last := uint64(0), s.Last(meter.Interval); after < last; {
		span, err := s.Peek(meter.Interval, after, 500)
		if err != nil {
			return err
		}
		after = span.Last
		if err := s.Ack(meter.Interval, after); err != nil {
			return err
		}
	}
	end, err := rssAnon()
	if err != nil {
		return err
	}
	lost := s.Lost(meter.Interval)
	fmt.Printf("start %d steady %d most %d end %d lost %d\n", start, steady-start, max(most, end)-start, end-start, lost)
	return errors.Join(s.Flush(ctx), s.Close())
}

// rssAnon gives the memory of this process that is no file's, in KiB.
func rssAnon() (int, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
	}
	return 0, errors.New("no RssAnon")
}

// TestMemory holds the store, with the rows of one window beside it, to 8 MiB
// while all is delivered, and to 20 MiB while it thins; docs/bench.md has what it
// takes.
func TestMemory(t *testing.T) {
	var start, steady, most, end, lost int
	out := run(t, "memory", t.TempDir())
	if _, err := fmt.Sscanf(out, "start %d steady %d most %d end %d lost %d", &start, &steady, &most, &end, &lost); err != nil || lost == 0 {
		t.Fatalf("%q %v", out, err)
	}
	t.Logf("KiB: %s", out)
	if steady > 8<<10 || most > 20<<10 {
		t.Error("more than it may")
	}
}
