package buffertest_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// store is what both have; it fails to compile when they part.
type store interface {
	Epoch() uint64
	Boot() uint32
	Peek(meter.Lane, uint64, int) (meter.Span, error)
	Ack(meter.Lane, uint64) error
	Acked(meter.Lane) uint64
	Last(meter.Lane) uint64
	Cursor(meter.ID, string, meter.Channel) (meter.Cursor, bool, error)
	Catalogue() ([]byte, error)
}

var (
	_ store = (*buffer.Store)(nil)
	_ store = (*buffertest.Memory)(nil)
)

func rows() *rapid.Generator[meter.Row] {
	return rapid.Custom(func(t *rapid.T) meter.Row {
		return meter.Row{
			Meter:   meter.ID(fmt.Sprintf("m%d", rapid.IntRange(0, 20).Draw(t, "meter"))),
			Serial:  rapid.SampledFrom([]string{"", "A1", "A2"}).Draw(t, "serial"),
			Channel: rapid.SampledFrom([]meter.Channel{"1-0:1.8.0*255/3:2", "1-0:32.7.0*255/3:2", "thd.l1"}).Draw(t, "channel"),
			Stamp: meter.Stamp{
				Time: rapid.Int64Range(0, 1<<42).Draw(t, "time"), Boot: 1,
				Mono: rapid.Int64Range(0, 1<<40).Draw(t, "mono"), Bound: rapid.Uint32().Draw(t, "bound"),
			},
			Value:   meter.UintValue(rapid.Uint64().Draw(t, "value"), rapid.Int8Range(-4, 4).Draw(t, "scale")),
			Unit:    meter.WattHour,
			Quality: meter.Quality(rapid.Uint32Range(0, uint32(meter.KnownQuality)).Draw(t, "quality")),
			Lane:    rapid.SampledFrom(meter.Lanes()).Draw(t, "lane"),
			Period:  rapid.SampledFrom([]uint32{0, 900}).Draw(t, "period"),
		}
	})
}

// memoryDir is a directory in memory where there is one: syncs to a disk are
// what this test's time would go to, and they are tested elsewhere.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "buffertest")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestModel compares the store on flash with the one in memory over appends,
// peeks, acknowledgements, crashes and restarts.
func TestModel(t *testing.T) {
	t.Parallel()
	root := memoryDir(t)
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := fmt.Sprintf("%s/%d", root, runs)
		// All that is acknowledged is kept, so that both answer alike.
		o := buffer.Options{BootID: "one", HotBytes: 1 << 30}
		real, err := buffer.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = real.Close() }()
		model := buffertest.NewMemory(real.Epoch())
		lane := func() meter.Lane { return rapid.SampledFrom(meter.Lanes()).Draw(t, "lane") }
		both := func(what string, a, b any, aerr, berr error) {
			t.Helper()
			if (aerr == nil) != (berr == nil) {
				t.Fatalf("%s: store: %v, model: %v", what, aerr, berr)
			}
			if d := cmp.Diff(b, a); d != "" {
				t.Fatalf("%s: model (-), store (+):\n%s", what, d)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				a := meter.Append{Rows: rapid.SliceOfN(rows(), 0, 40).Draw(t, "rows")}
				if rapid.IntRange(0, 3).Draw(t, "loss") == 0 {
					a.Losses = []meter.Loss{{Lane: lane(), Reason: meter.MemoryFull, Count: rapid.Uint64().Draw(t, "count")}}
				}
				for i := range rapid.IntRange(0, 2).Draw(t, "cursors") {
					a.Cursors = append(a.Cursors, meter.Cursor{
						Meter: meter.ID(fmt.Sprintf("m%d", i)), Profile: "p", Time: rapid.Int64().Draw(t, "cursor"),
					})
				}
				both("append", nil, nil, real.Append(t.Context(), a), model.Append(t.Context(), a))
			},
			"ack": func(t *rapid.T) {
				l := lane()
				through := rapid.Uint64Range(0, model.Last(l)+1).Draw(t, "through")
				both("ack", nil, nil, real.Ack(l, through), model.Ack(l, through))
			},
			"flush": func(t *rapid.T) { both("flush", nil, nil, real.Flush(t.Context()), nil) },
			"catalogue": func(t *rapid.T) {
				c := rapid.SliceOf(rapid.Byte()).Draw(t, "catalogue")
				both("save", nil, nil, real.SaveCatalogue(t.Context(), c), model.SaveCatalogue(t.Context(), c))
			},
			"resend": func(t *rapid.T) {
				l := lane()
				after := rapid.Uint64Range(0, model.Last(l)+1).Draw(t, "after")
				through := rapid.Uint64Range(0, model.Last(l)+1).Draw(t, "through")
				n := rapid.IntRange(-1, 100).Draw(t, "max")
				a, aerr := real.Resend(l, after, through, n)
				b, berr := model.Resend(l, after, through, n)
				both("resend", a, b, aerr, berr)
			},
			"compact": func(t *rapid.T) { both("compact", nil, nil, real.Compact(t.Context()), nil) },
			"reopen": func(t *rapid.T) {
				if err := real.Close(); err != nil {
					t.Fatal(err)
				}
				if real, err = buffer.Open(dir, o); err != nil {
					t.Fatal(err)
				}
			},
			"peek": func(t *rapid.T) {
				l := lane()
				after := rapid.Uint64Range(0, model.Last(l)+1).Draw(t, "after")
				n := rapid.IntRange(-1, 100).Draw(t, "max")
				a, aerr := real.Peek(l, after, n)
				b, berr := model.Peek(l, after, n)
				both("peek", a, b, aerr, berr)
			},
			"": func(t *rapid.T) {
				both("epoch", real.Epoch(), model.Epoch(), nil, nil)
				both("boot", real.Boot(), model.Boot(), nil, nil)
				for _, l := range meter.Lanes() {
					both("last", real.Last(l), model.Last(l), nil, nil)
					both("acked", real.Acked(l), model.Acked(l), nil, nil)
				}
				for i := range 2 {
					a, aok, aerr := real.Cursor(meter.ID(fmt.Sprintf("m%d", i)), "", "p")
					b, bok, berr := model.Cursor(meter.ID(fmt.Sprintf("m%d", i)), "", "p")
					both("cursor", a, b, aerr, berr)
					both("cursor there", aok, bok, nil, nil)
				}
				a, aerr := real.Catalogue()
				b, berr := model.Catalogue()
				both("catalogue", a, b, aerr, berr)
			},
		})
		if err := real.Close(); err != nil {
			t.Fatal(err)
		}
		report, err := buffer.Check(dir)
		if err != nil || !report.Sound() {
			t.Fatalf("check: %v %v", err, report.Problems)
		}
	})
}

// TestModelQuota holds a store with a small quota to what must be true of it
// whatever it gives up: every number is accounted for once; a number never comes
// to mean another row; rows of alarm and billing are there while others are; what
// is gone and was not acknowledged is counted.
func TestModelQuota(t *testing.T) {
	t.Parallel()
	root := memoryDir(t)
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := fmt.Sprintf("%s/%d", root, runs)
		o := buffer.Options{BootID: "one", Quota: buffer.Quota{Total: buffer.Limit{Bytes: 24 << 10}}}
		real, err := buffer.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = real.Close() }()
		said := map[meter.Lane]map[uint64]meter.Row{}
		given := map[meter.Lane]uint64{}
		for _, l := range meter.Lanes() {
			said[l] = map[uint64]meter.Row{}
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				a := meter.Append{Rows: rapid.SliceOfN(rows(), 100, 300).Draw(t, "rows")}
				if err := real.Append(t.Context(), a); err != nil {
					t.Fatal(err)
				}
				for i := range a.Rows {
					given[a.Rows[i].Lane]++
				}
			},
			"ack": func(t *rapid.T) {
				l := rapid.SampledFrom(meter.Lanes()).Draw(t, "lane")
				if err := real.Ack(l, min(real.Last(l), real.Acked(l)+rapid.Uint64Range(0, 20).Draw(t, "more"))); err != nil {
					t.Fatal(err)
				}
			},
			"compact": func(t *rapid.T) {
				if err := real.Compact(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
			"reopen": func(t *rapid.T) {
				if err := real.Close(); err != nil {
					t.Fatal(err)
				}
				if real, err = buffer.Open(dir, o); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				st, err := real.Stat()
				if err != nil {
					t.Fatal(err)
				}
				var total uint64
				for _, l := range st.Lanes {
					total += l.Bytes
				}
				if total > 24<<10 {
					t.Fatalf("%d octets are kept", total)
				}
				if m := st.Lanes; m[meter.Billing].Lost > 0 && m[meter.Interval].Rows+m[meter.Instant].Rows > 400 {
					t.Fatalf("billing rows are given up before others: %+v", m)
				}
				for _, l := range meter.Lanes() {
					account(t, real, l, said[l], given[l])
				}
			},
		})
	})
}

// account goes through a lane as it is without Peek's noting what it handed out.
func account(t *rapid.T, s *buffer.Store, lane meter.Lane, said map[uint64]meter.Row, given uint64) {
	kept, acked := uint64(0), s.Acked(lane)
	err := s.Query(buffer.Query{Lanes: []meter.Lane{lane}}, func(n uint64, r *meter.Row) error {
		kept++
		if before, ok := said[n]; ok && before != *r {
			return fmt.Errorf("number %d was %+v and is %+v", n, before, *r)
		}
		said[n] = *r
		return nil
	})
	if err != nil {
		t.Fatalf("lane %s: %v", lane, err)
	}
	if lost := s.Lost(lane); kept+lost+acked < given {
		t.Fatalf("lane %s: %d rows appended, %d there, %d lost, %d acknowledged", lane, given, kept, lost, acked)
	}
}
