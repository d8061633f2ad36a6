package buffer_test

import (
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// round gives a round of profile rows: every meter's energy of the quarter hour
// that ends at n quarters after a midnight, and its register.
func round(meters, n int) []meter.Row {
	rows := make([]meter.Row, 0, 2*meters)
	for m := range meters {
		r := rowOf(meter.Interval, uint64(m))
		r.Meter = meter.ID("m" + string(rune('a'+m%26)) + string(rune('a'+m/26)))
		r.Stamp = meter.Stamp{Time: 1_700_006_400_000 + int64(n+1)*900_000, Boot: 1, Source: meter.FromMeter}
		r.Channel, r.Period, r.Quality, r.HasStatus, r.Status = "1-0:1.29.0*255/3:2", 900, 0, false, 0
		r.Value = meter.UintValue(uint64(1+m+n%7*1000), 0)
		rows = append(rows, r)
		r.Channel, r.Value = "1-0:1.8.0*255/3:2", meter.UintValue(uint64(m*n*1013), 0)
		rows = append(rows, r)
	}
	return rows
}

// tellAll reads a lane: its rows, the numbers of which no row is there, and the
// rows that these are said to have had.
func tellAll(t *testing.T, s *buffer.Store, lane meter.Lane) (rows []meter.Row, holes []meter.Hole, lost uint64) {
	t.Helper()
	next := uint64(1)
	for {
		span, err := s.Peek(lane, next-1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if span.Last == 0 {
			break
		}
		runs, hs := span.Runs, span.Holes
		for next <= span.Last {
			switch {
			case len(runs) > 0 && runs[0].First == next:
				next, runs = next+runs[0].Count, runs[1:]
			case len(hs) > 0 && hs[0].First == next:
				lost += hs[0].Count
				next, holes, hs = hs[0].Last+1, append(holes, hs[0]), hs[1:]
			default:
				t.Fatalf("lane %s: number %d in no run and no hole", lane, next)
			}
		}
		rows = append(rows, span.Rows...)
	}
	if next != s.Last(lane)+1 {
		t.Fatalf("lane %s ends at %d, last is %d", lane, next-1, s.Last(lane))
	}
	return rows, holes, lost
}

// TestQuotaThinsBeforeItDrops fills a lane far beyond its quota: no energy is
// lost while rows can be thinned, and every row that is gone is counted.
func TestQuotaThinsBeforeItDrops(t *testing.T) {
	t.Parallel()
	const limit, meters, rounds = 128 << 10, 50, 96 * 8
	dir := t.TempDir()
	o := buffer.Options{BootID: "b", Quota: buffer.Quota{Lanes: [4]buffer.Limit{meter.Interval: {Bytes: limit}}}}
	s := buffertest.OpenDir(t, dir, o)
	var energy, appended uint64
	for n := range rounds {
		rows := round(meters, n)
		for _, r := range rows {
			if r.Channel == "1-0:1.29.0*255/3:2" {
				energy += r.Value.Bits
			}
		}
		appended += uint64(len(rows))
		if err := s.Append(t.Context(), meter.Append{Rows: rows}); err != nil {
			t.Fatal(err)
		}
		st, err := s.Stat()
		if err != nil || st.Lanes[meter.Interval].Bytes > limit {
			t.Fatalf("round %d: %+v %v", n, st.Lanes[meter.Interval], err)
		}
	}
	rows, holes, lost := tellAll(t, s, meter.Interval)
	var kept, covered uint64
	for _, r := range rows {
		if r.Channel != "1-0:1.29.0*255/3:2" {
			continue
		}
		kept += r.Value.Bits
		covered += uint64(r.Period)
		if (r.Quality == meter.Substituted) != (r.Period > 900) {
			t.Fatalf("%+v", r)
		}
	}
	if kept != energy || covered != meters*rounds*900 {
		t.Errorf("energy %d of %d, %d s of %d", kept, energy, covered, meters*rounds*900)
	}
	if lost == 0 || uint64(len(rows))+lost != appended {
		t.Errorf("%d rows appended, %d are there, %d declared in %d holes", appended, len(rows), lost, len(holes))
	}
	dropped, err := s.Dropped()
	var counted uint64
	for _, d := range dropped {
		counted += d.Rows
	}
	if err != nil || counted != lost || len(dropped) != 2*meters {
		t.Errorf("%d counted for %d channels, %v", counted, len(dropped), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := buffertest.OpenDir(t, dir, o)
	if after, err := again.Dropped(); err != nil || len(after) != len(dropped) || after[0] != dropped[0] {
		t.Errorf("after a restart %v %v", after, err)
	}
}

// TestQuotaOrder fills all lanes: acknowledged rows go first, then instant, then
// interval, and what is left is billing and alarm.
func TestQuotaOrder(t *testing.T) {
	t.Parallel()
	const limit = 512 << 10
	s := buffertest.Open(t, buffer.Options{HotBytes: 1 << 30, Quota: buffer.Quota{Total: buffer.Limit{Bytes: limit}}})
	lanes := func() map[meter.Lane]buffer.LaneStat {
		st, err := s.Stat()
		if err != nil {
			t.Fatal(err)
		}
		m := map[meter.Lane]buffer.LaneStat{}
		var total uint64
		for _, l := range st.Lanes {
			m[l.Lane] = l
			total += l.Bytes
		}
		if total > limit {
			t.Fatalf("%d octets over %d", total, limit)
		}
		return m
	}
	fill := func(lane meter.Lane, until func(map[meter.Lane]buffer.LaneStat) bool) {
		t.Helper()
		for range 500 {
			appendN(t, s, lane, 1000)
			if until(lanes()) {
				return
			}
		}
		t.Fatalf("filling %s changed nothing: %+v", lane, lanes())
	}
	appendN(t, s, meter.Billing, 5000)
	if err := s.Ack(meter.Billing, 5000); err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Instant, 5000)
	appendN(t, s, meter.Interval, 5000)
	fill(meter.Billing, func(m map[meter.Lane]buffer.LaneStat) bool { return m[meter.Billing].First > 4000 })
	if m := lanes(); m[meter.Instant].Lost > 0 || m[meter.Interval].Lost > 0 {
		t.Errorf("lost while something was acknowledged: %+v", m)
	}
	fill(meter.Billing, func(m map[meter.Lane]buffer.LaneStat) bool { return m[meter.Instant].Rows == 0 })
	if m := lanes(); m[meter.Instant].Lost != 5000 || m[meter.Billing].Lost > 0 {
		t.Errorf("%+v", m)
	}
	fill(meter.Billing, func(m map[meter.Lane]buffer.LaneStat) bool { return m[meter.Interval].Rows == 0 })
	if m := lanes(); m[meter.Billing].Lost > 0 || m[meter.Interval].Lost != 5000 {
		t.Errorf("%+v", m)
	}
	fill(meter.Alarm, func(m map[meter.Lane]buffer.LaneStat) bool { return m[meter.Billing].Rows == 0 })
	if m := lanes(); m[meter.Alarm].Lost > 0 {
		t.Errorf("%+v", m)
	}
	fill(meter.Alarm, func(m map[meter.Lane]buffer.LaneStat) bool { return m[meter.Alarm].Lost > 0 })
	for _, lane := range meter.Lanes() {
		rows, _, lost := tellAll(t, s, lane)
		if appended := s.Last(lane); lane != meter.Interval && uint64(len(rows))+lost != appended {
			t.Errorf("%s: %d rows and %d lost of %d", lane, len(rows), lost, appended)
		}
	}
}

func TestQuotaOfAge(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_006_400_000).Add(40 * 24 * time.Hour)
	dir := t.TempDir()
	open := func(o buffer.Options) *buffer.Store {
		o.BootID, o.Now = "b", func() time.Time { return now }
		return buffertest.OpenDir(t, dir, o)
	}
	s := open(buffer.Options{})
	for n := 0; n < 96*40; n += 96 {
		if err := s.Append(t.Context(), meter.Append{Rows: round(20, n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ack(meter.Interval, 10*40); err != nil { // ten days
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	age := buffer.Options{Quota: buffer.Quota{Total: buffer.Limit{Age: 7 * 24 * time.Hour}, Lanes: [4]buffer.Limit{meter.Interval: {Age: 20 * 24 * time.Hour}}}}
	now = now.Add(-60 * 24 * time.Hour) // a clock that is behind keeps everything
	s = open(age)
	if rows, _, lost := tellAll(t, s, meter.Interval); len(rows) != 40*40 || lost != 0 {
		t.Errorf("%d rows, %d lost", len(rows), lost)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(3000 * 24 * time.Hour) // one that is years ahead is held to the newest row
	s = open(age)
	rows, holes, lost := tellAll(t, s, meter.Interval)
	// From the newest row on, 7 days of rounds, one of them at the limit.
	if len(rows) != 8*40 || len(holes) != 2 || holes[0].Last != 400 || lost != 400+(32-10)*40 {
		t.Errorf("%d rows, %d lost, %+v", len(rows), lost, holes)
	}
}
