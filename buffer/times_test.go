package buffer_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// timeWorld is a gateway that is restarted and started anew, whose clock is
// wrong until it comes to know the time.
type timeWorld struct {
	t       *testing.T
	random  *rand.Rand
	dir     string
	boot    int
	mono    int64
	offset  int64 // of this boot: right time less mono
	wrong   int64 // what its clock says less the right time, while it is unsure
	sure    bool
	waits   bool
	store   *buffer.Store
	offsets map[uint32]int64
	seen    map[string]meter.Row // what left, by lane and number
	left    int                  // with its time put right
}

func (w *timeWorld) open() {
	var err error
	w.store, err = buffer.Open(w.dir, buffer.Options{
		BootID: fmt.Sprintf("boot-%d", w.boot), Waits: func() bool { return w.waits },
		Now: func() time.Time { return time.Time{} },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.offsets[w.store.Boot()] = w.offset
}

func (w *timeWorld) close() {
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// reboot begins a boot without a hardware clock.
func (w *timeWorld) reboot() {
	w.boot++
	w.mono, w.sure, w.waits = w.random.Int64N(5000), false, w.random.IntN(3) > 0
	w.offset = 1_800_000_000_000 + int64(w.boot)*86_400_000
	w.wrong = []int64{-w.offset, -7_200_000, 10 * 365 * 86_400_000}[w.random.IntN(3)]
}

func (w *timeWorld) stamp() meter.Stamp {
	w.mono += 1 + w.random.Int64N(60_000)
	s := meter.Stamp{Time: w.mono + w.offset, Mono: w.mono, Boot: w.store.Boot(), Bound: 5}
	if !w.sure {
		s.Time, s.Bound = s.Time+w.wrong, meter.UnknownBound
	}
	return s
}

func (w *timeWorld) append() {
	var rows []meter.Row
	for range 1 + w.random.IntN(20) {
		r := rowOf(meter.Lanes()[w.random.IntN(4)], w.random.Uint64N(1000))
		r.Stamp, r.Quality = w.stamp(), 0
		rows = append(rows, r)
	}
	if err := w.store.Append(w.t.Context(), meter.Append{Rows: rows}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *timeWorld) correct() {
	// The true time, known to 20 ms, by an oscillator that is up to 100 ppm off.
	c := buffer.Correction{Mono: w.mono, Offset: w.offset + w.random.Int64N(40) - 20, Bound: 20, Rate: 100_000}
	if err := w.store.Correct(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
	w.sure, w.waits = true, false
}

// check holds a row that leaves against what left before, and against the time.
func (w *timeWorld) check(lane meter.Lane, number uint64, r meter.Row) {
	key := fmt.Sprint(lane, number)
	if before, ok := w.seen[key]; ok && before != r {
		w.t.Fatalf("lane %s number %d left as\n%+v\nand now\n%+v", lane, number, before, r)
	} else if !ok && r.Quality&meter.TimeCorrected != 0 {
		w.left++
	}
	w.seen[key] = r
	off := r.Stamp.Time - r.Stamp.Mono - w.offsets[r.Stamp.Boot]
	if r.Stamp.Bound != meter.UnknownBound && max(off, -off) > int64(r.Stamp.Bound) {
		w.t.Fatalf("lane %s number %d: %+v is %d ms off", lane, number, r.Stamp, off)
	}
	if r.Stamp.Bound == meter.UnknownBound && r.Quality&meter.TimeCorrected != 0 {
		w.t.Fatalf("flagged as put right: %+v", r)
	}
}

func (w *timeWorld) peek() {
	lane := meter.Lanes()[w.random.IntN(4)]
	after := w.store.Acked(lane)
	for range 1 + w.random.IntN(4) {
		span, err := w.store.Peek(lane, after, 1+w.random.IntN(30))
		if err != nil {
			w.t.Fatal(err)
		}
		w.checkSpan(span)
		after = max(after, span.Last)
	}
	if w.random.IntN(2) == 0 {
		if err := w.store.Ack(lane, after); err != nil {
			w.t.Fatal(err)
		}
	}
	span, err := w.store.Resend(lane, 0, after, 50)
	if err != nil {
		w.t.Fatal(err)
	}
	w.checkSpan(span)
}

func (w *timeWorld) checkSpan(span meter.Span) {
	at := 0
	for _, run := range span.Runs {
		for i := range run.Count {
			w.check(span.Lane, run.First+i, span.Rows[at])
			at++
		}
	}
}

// TestTimesArePutRightOnce: whatever is restarted when, rows that no clock
// vouched for leave with the right time as soon as it is known, or flagged, and
// what left once leaves the same again.
func TestTimesArePutRightOnce(t *testing.T) {
	t.Parallel()
	corrected, rows := 0, 0
	for seed := range uint64(6) {
		w := &timeWorld{t: t, random: rand.New(rand.NewPCG(seed, 8)), dir: t.TempDir(), offsets: map[uint32]int64{}, seen: map[string]meter.Row{}}
		w.reboot()
		w.open()
		for range 80 {
			switch n := w.random.IntN(20); {
			case n < 9:
				w.append()
			case n < 15:
				w.peek()
			case n < 17:
				w.correct()
			case n < 18:
				w.close()
				w.open()
			case n < 19:
				w.sure = false // suspended: unsure again
				w.waits = true
			default:
				w.close()
				w.reboot()
				w.open()
			}
		}
		err := w.store.Query(buffer.Query{}, func(n uint64, r *meter.Row) error {
			if before, ok := w.seen[fmt.Sprint(r.Lane, n)]; ok && before != *r {
				t.Errorf("lane %s number %d left as %+v, and a query gives %+v", r.Lane, n, before, *r)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		w.close()
		w.exported()
		corrected, rows = corrected+w.left, rows+len(w.seen)
	}
	t.Logf("%d rows left, %d with their time put right", rows, corrected)
	if corrected < rows/20 || corrected == rows {
		t.Errorf("of %d rows %d had their time put right", rows, corrected)
	}
}

// exported holds an archive against what left.
func (w *timeWorld) exported() {
	var b bytes.Buffer
	if _, err := buffer.Export(w.dir, &b, buffer.ExportOptions{}); err != nil {
		w.t.Fatal(err)
	}
	_, err := buffer.ReadArchive(bytes.NewReader(b.Bytes()), func(_ *buffer.ArchiveHead, span meter.Span) error {
		w.checkSpan(span)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestReleasedRowsStay is the reason for the numbers that a correction keeps:
// without them a row that left comes again with another time.
func TestReleasedRowsStay(t *testing.T) {
	t.Parallel()
	row := meter.Row{Stamp: meter.Stamp{Time: 5000, Boot: 1, Mono: 5000, Bound: meter.UnknownBound}}
	b := buffer.BootTimes{}
	b.Released[meter.Interval] = 10
	if !b.Add(buffer.Correction{Mono: 9000, Offset: 1000, Bound: 3, Rate: 1_000_000}) || b.Add(buffer.Correction{Mono: 9000}) {
		t.Fatal("a correction is taken once")
	}
	for number, want := range map[uint64]int64{10: 5000, 11: 6000} {
		r := row
		if b.Correct(meter.Interval, number, &r); r.Stamp.Time != want || (r.Stamp.Bound == 8) != (want == 6000) {
			t.Errorf("number %d: %+v", number, r)
		}
	}
	b.Corrections[0].After[meter.Interval] = 0
	if b.Correct(meter.Interval, 10, &row); row.Stamp.Time == 5000 {
		t.Error("nothing depends on the numbers")
	}
}

// TestUnknownTimesDoNotExpire: rows of a clock in 1970 are as old as what came
// behind them, and those of a clock in the future make no others old.
func TestUnknownTimesDoNotExpire(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now, dir := time.Time{}, t.TempDir()
	right := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	o := buffer.Options{BootID: "b", Now: func() time.Time { return now }}
	o.Quota.Lanes[meter.Instant].Age = 30 * day
	s, err := buffer.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	add := func(at time.Time, bound uint32) {
		r := rowOf(meter.Instant, 1)
		r.Stamp = meter.Stamp{Time: at.UnixMilli(), Boot: s.Boot(), Mono: 1, Bound: bound}
		if err := s.Append(t.Context(), meter.Append{Rows: []meter.Row{r}}); err != nil {
			t.Fatal(err)
		}
	}
	count := func() (n int) {
		if err := s.Query(buffer.Query{}, func(uint64, *meter.Row) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	add(right.Add(-time.Hour), 5)
	add(time.Unix(100, 0), meter.UnknownBound)
	add(right.Add(10*365*day), meter.UnknownBound)
	now = right
	for i := range 3 {
		add(right.Add(time.Duration(i)*time.Minute), 5)
		now = now.Add(day)
	}
	if n := count(); n != 6 {
		t.Fatalf("%d rows are left of 6", n)
	}
	now = right.Add(40 * day)
	add(now, 5)
	if now = now.Add(2 * day); true {
		add(now, 5)
	}
	if n := count(); n != 2 {
		t.Errorf("%d rows are left of the last 30 days, want 2", n)
	}
}

// TestCorrectionThatCameBeforeItsRows puts them right, also in a lane whose rows
// are let go as they come.
func TestCorrectionThatCameBeforeItsRows(t *testing.T) {
	t.Parallel()
	s, err := buffer.Open(t.TempDir(), buffer.Options{BootID: "boot", Waits: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	store := func(mono int64) {
		t.Helper()
		r := rowOf(meter.Interval, uint64(mono))
		r.Stamp, r.Quality = meter.Stamp{Time: mono, Mono: mono, Boot: s.Boot(), Bound: meter.UnknownBound}, 0
		if err := s.Append(t.Context(), meter.Append{Rows: []meter.Row{r}}); err != nil {
			t.Fatal(err)
		}
	}
	correct := func(mono int64) {
		t.Helper()
		if err := s.Correct(t.Context(), buffer.Correction{Mono: mono, Offset: 1_800_000_000_000, Bound: 5}); err != nil {
			t.Fatal(err)
		}
	}
	left := func() []meter.Row {
		t.Helper()
		span, err := s.Peek(meter.Interval, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		return span.Rows
	}
	store(1000)
	before := left() // as it is: nobody knows the time
	correct(2000)
	correct(4000) // there is nothing to put right by it yet
	store(3000)   // captured before, and stored behind it
	rows := left()
	if len(before) != 1 || len(rows) != 2 || rows[0] != before[0] || rows[0].Stamp.Time != 1000 {
		t.Fatalf("%+v, then %+v", before, rows)
	}
	if rows[1].Stamp.Time != 1_800_000_003_000 || rows[1].Quality&meter.TimeCorrected == 0 {
		t.Errorf("left as %+v", rows[1])
	}
	store(5000) // no correction is for that
	if rows = left(); len(rows) != 3 || rows[2].Stamp.Bound != meter.UnknownBound {
		t.Errorf("%+v", rows)
	}
	correct(6000)
	if again := left(); len(again) != 3 || again[2] != rows[2] || again[1] != rows[1] {
		t.Errorf("left as %+v and then as %+v", rows, again)
	}
}
