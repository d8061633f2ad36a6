package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
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
	debug.SetGCPercent(50)     // as gridgate run has it
	runtime.GOMAXPROCS(1)      // on more, a loaded machine collects late
	runtime.MemProfileRate = 0 // as in a program that writes no profiles
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
	site := newSite()
	ctx := context.Background()
	stop, done := make(chan struct{}), make(chan struct{})
	var steady, most, failed atomic.Int64
	thins := &atomic.Bool{}
	go func() { // looks all the time, in the middle of commits too
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			now, err := rssAnon()
			switch {
			case err != nil:
				failed.Add(1)
			case thins.Load():
				most.Store(max(most.Load(), int64(now)))
			default:
				steady.Store(max(steady.Load(), int64(now)))
			}
		}
	}()
	for n := range siteDay / 2 {
		if err := s.Append(ctx, meter.Append{Rows: site.window(n)}); err != nil {
			return err
		}
		if err := s.Ack(meter.Instant, s.Last(meter.Instant)); err != nil {
			return err
		}
	}
	thins.Store(true)
	for n := range 4 * siteDay {
		rows := site.window(n)
		for i := range rows {
			rows[i].Lane = meter.Interval // which is thinned
		}
		if err := s.Append(ctx, meter.Append{Rows: rows}); err != nil {
			return err
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
	close(stop)
	<-done
	fmt.Printf("start %d steady %d most %d end %d lost %d failed %d\n", start, int(steady.Load())-start, int(most.Load())-start,
		end-start, lost, failed.Load())
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

// TestMemory holds the store, with the rows of one window beside it, to 6 MB while
// all is delivered, and to 10 MiB while it thins and is drained: 6 MB are wanted
// there too; docs/bench.md has what it takes.
func TestMemory(t *testing.T) {
	var start, steady, most, end, lost, failed int
	out := run(t, "memory", t.TempDir())
	_, err := fmt.Sscanf(out, "start %d steady %d most %d end %d lost %d failed %d", &start, &steady, &most, &end, &lost, &failed)
	if err != nil || lost == 0 || failed > 0 {
		t.Fatalf("%q %v", out, err)
	}
	t.Logf("KiB: %s", out)
	const limit, thinning = 6_000_000 / 1024, 10 << 10
	if steady > limit || most > thinning {
		t.Errorf("%d KiB, at most %d wanted; %d while it thins, at most %d", steady, limit, most, thinning)
	}
}
