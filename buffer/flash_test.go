package buffer_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// flash is a disk that counts what is written to it.
type flash struct {
	dir  string
	stat string // of the loop device; empty where there is none
}

// newFlash makes an ext4 file system on a loop device, which takes root. Without
// it the octets of write calls are counted, in which the journal is missing.
func newFlash(b testing.TB) *flash {
	b.Helper()
	dir := b.TempDir()
	if os.Getuid() != 0 {
		b.Log("not root: octets of write calls, not of a device")
		return &flash{dir: dir}
	}
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	tool := func(name string, args ...string) string {
		out, err := exec.CommandContext(b.Context(), name, args...).CombinedOutput()
		if err != nil {
			b.Fatalf("%s: %v\n%s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.Mkdir(mount, 0o700); err != nil {
		b.Fatal(err)
	}
	tool("truncate", "-s", "256M", image)
	tool("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	loop := tool("losetup", "--find", "--show", image)
	b.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	tool("mount", "-o", "noatime", loop, mount)
	b.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			b.Error(err)
		}
	})
	return &flash{dir: mount, stat: filepath.Join("/sys/block", filepath.Base(loop), "stat")}
}

// written gives the octets that have been written to the device, all of them.
func (f *flash) written(b testing.TB) int64 {
	b.Helper()
	if f.stat == "" {
		return written(b)
	}
	syscall.Sync()
	text, err := os.ReadFile(f.stat)
	if err != nil {
		b.Fatal(err)
	}
	sectors, err := strconv.ParseInt(strings.Fields(string(text))[6], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return sectors * 512
}

// site is the reference site: 1,000 devices of 8 channels on 20 lines, read
// every quarter hour, whose rows come in four windows.
type site struct {
	random *rand.Rand
	values [8000]int64
	rounds int64
}

const (
	siteWindows = 4
	siteDay     = 96 * siteWindows // commits
	siteRows    = 8000 / siteWindows
	awayWindows = 4  // that share a commit while the fog is away
	warmDays    = 12 // until what is acknowledged has to make room
)

func newSite() *site { return &site{random: rand.New(rand.NewPCG(1, 2))} }

// window gives the rows of the next window: of each channel a random walk, as
// of registers of energy, voltages, currents and powers.
func (s *site) window(n int) []meter.Row {
	if n%siteWindows == 0 {
		s.rounds++
	}
	rows := make([]meter.Row, 0, siteRows)
	first := n % siteWindows * siteRows / 8
	for m := first; m < first+siteRows/8; m++ {
		at := 1_700_006_400_000 + s.rounds*900_000 + int64(n%siteWindows)*225_000 + int64(m%50)*4000 + s.random.Int64N(300)
		for c := range 8 {
			v := &s.values[m*8+c]
			if c < 4 {
				*v += s.random.Int64N(120)
			} else {
				*v += s.random.Int64N(41) - 20
			}
			rows = append(rows, meter.Row{
				Meter: meter.ID(fmt.Sprintf("house-%03d-m%d", m/5, m%5)), Serial: fmt.Sprintf("SN%08d", 41_000_000+m),
				Channel: meter.Channel([]string{
					"1-0:1.8.0*255/3:2", "1-0:2.8.0*255/3:2", "1-0:3.8.0*255/3:2", "1-0:4.8.0*255/3:2",
					"1-0:32.7.0*255/3:2", "1-0:31.7.0*255/3:2", "1-0:1.7.0*255/3:2", "1-0:14.7.0*255/3:2",
				}[c]),
				Stamp: meter.Stamp{Time: at, Boot: 1, Mono: at - 1_700_000_000_000, Bound: 20},
				Value: meter.IntValue(1_000_000+*v, -1), Unit: meter.WattHour, Lane: meter.Instant,
			})
		}
	}
	return rows
}

// work appends windows, so many in one commit, and acknowledges each commit after
// the next one, as when all is delivered as it comes; or does not. It gives the
// octets of the chunks.
func (s *site) work(b testing.TB, store *buffer.Store, windows, together int, delivered bool) (payload int64) {
	b.Helper()
	for n := 0; n < windows; n += together {
		var rows []meter.Row // as the intake orders them
		for i := range together {
			rows = append(rows, s.window(n+i)...)
		}
		payload += int64(buffer.PayloadOf(rows))
		before := store.Last(meter.Instant)
		if err := store.Append(b.Context(), meter.Append{Rows: rows}); err != nil {
			b.Fatal(err)
		}
		if delivered {
			if err := store.Ack(meter.Instant, before); err != nil {
				b.Fatal(err)
			}
		}
	}
	return payload
}

func commitCount(b *testing.B, s *buffer.Store) uint64 {
	b.Helper()
	st, err := s.Stat()
	if err != nil {
		b.Fatal(err)
	}
	return st.Commits
}

// siteOptions are the agent's, of the default configuration.
func siteOptions() buffer.Options {
	return buffer.Options{
		BootID: "b", MaxSize: 44 << 20, HotBytes: 32 << 20,
		Quota: buffer.Quota{Total: buffer.Limit{Bytes: 32 << 20}},
	}
}

func openSite(b testing.TB, dir string, o buffer.Options) *buffer.Store {
	b.Helper()
	s, err := buffer.Open(dir, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// BenchmarkFlashDay is a day of the reference site, delivered as it comes, once
// the hot store is full. The budget is 12 MB and 400 commits.
func BenchmarkFlashDay(b *testing.B) {
	f := newFlash(b)
	store, site := openSite(b, f.dir, siteOptions()), newSite()
	site.work(b, store, warmDays*siteDay, 1, true)
	var octets, payload int64
	var count uint64
	for b.Loop() {
		from, at := f.written(b), commitCount(b, store)
		payload += site.work(b, store, siteDay, 1, true)
		octets += f.written(b) - from
		count += commitCount(b, store) - at
	}
	n := float64(b.N)
	b.ReportMetric(float64(octets)/n/1e6, "MB/day")
	b.ReportMetric(float64(count)/n, "commits/day")
	b.ReportMetric(float64(payload)/n/1e6, "payload-MB/day")
	b.ReportMetric(float64(octets)/float64(payload), "written/payload")
}

// outage is what an outage costs.
type outage struct {
	chunks        int64   // octets of the chunks that it brought: the payload
	filled, all   int64   // octets written until its end, and until all was drained
	before, later float64 // octets that a commit writes on a day before and after
	values        int
}

// measureOutage measures an outage of some days, filled and drained, between two
// days in which all is delivered as it comes. warm is how many days come first.
func measureOutage(b testing.TB, f *flash, o buffer.Options, warm, days int) (r outage) {
	store, site := openSite(b, f.dir, o), newSite()
	site.work(b, store, warm*siteDay, 1, true)
	start := f.written(b)
	site.work(b, store, siteDay, 1, true)
	r.before = float64(f.written(b)-start) / siteDay

	start = f.written(b)
	r.chunks, r.values = site.work(b, store, days*siteDay, awayWindows, false), days*siteDay*siteRows
	r.filled = f.written(b) - start
	const portion, flush = 500, 50_000
	for after, last, at := store.Acked(meter.Instant), store.Last(meter.Instant), uint64(0); after < last; {
		span, err := store.Peek(meter.Instant, after, portion)
		if err != nil {
			b.Fatal(err)
		}
		after = span.Last
		if err := store.Ack(meter.Instant, after); err != nil {
			b.Fatal(err)
		}
		if after-at > flush || after == last {
			at = after
			if err := store.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	r.all = f.written(b) - start

	start = f.written(b)
	site.work(b, store, siteDay, 1, true)
	r.later = float64(f.written(b)-start) / siteDay
	if n := store.Lost(meter.Instant); n > 0 {
		b.Errorf("%d rows were given up", n)
	}
	return r
}

// judge holds an outage to what is wanted of it: at most 3 octets written for an
// octet of chunk, and commits that cost no more afterwards, but for a page in
// twenty.
func (r outage) judge(b testing.TB) {
	if r.all > 3*r.chunks {
		b.Errorf("%d octets written for %d octets of chunks: %.2f, at most 3 wanted", r.all, r.chunks, float64(r.all)/float64(r.chunks))
	}
	if r.later > r.before+4096/20 {
		b.Errorf("a commit writes %.0f octets, %.0f before the outage", r.later, r.before)
	}
}

// TestOutageWrites is BenchmarkFlashOutage in small: a day, and the octets of
// write calls instead of a device's. No other test may run meanwhile.
func TestOutageWrites(t *testing.T) { //nolint:paralleltest // it counts what the process writes
	o := siteOptions()
	o.HotBytes, o.Quota.Total.Bytes, o.MaxSize = 4<<20, 4<<20, 12<<20
	r := measureOutage(t, &flash{dir: t.TempDir()}, o, 2, 1)
	r.judge(t)
	t.Logf("%+v: %.2f for an octet of chunk", r, float64(r.all)/float64(r.chunks))
}

// BenchmarkFlashOutage is an outage of seven days, filled and drained. While the
// fog is away four windows share a commit, as intake.window_offline has it.
//
//	payload-MB  octets of the chunks: the payload
//	written/payload  octets written to the device for each of these, at most 3 wanted
//	B/value     octets written to the device for a value, filled and drained
func BenchmarkFlashOutage(b *testing.B) {
	for b.Loop() {
		r := measureOutage(b, newFlash(b), siteOptions(), warmDays, 7)
		r.judge(b)
		b.ReportMetric(float64(r.filled)/float64(r.chunks), "filled/payload")
		b.ReportMetric(float64(r.all)/float64(r.chunks), "written/payload")
		b.ReportMetric(float64(r.chunks)/1e6, "payload-MB")
		b.ReportMetric(float64(r.all)/1e6, "written-MB")
		b.ReportMetric(float64(r.all)/float64(r.values), "B/value")
		b.ReportMetric(float64(r.chunks)/float64(r.values), "payload-B/value")
		b.ReportMetric(r.before/1e3, "kB/commit-before")
		b.ReportMetric(r.later/1e3, "kB/commit-after")
	}
}
