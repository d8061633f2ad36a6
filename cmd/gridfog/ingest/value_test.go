package ingest

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
)

// TestValuesArriveExactly: what the database says of a value is what the meter
// said, digit by digit.
func TestValuesArriveExactly(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	w, box := newTestWriter(t, url), &postbox{}
	values := []batch.Value{
		{Kind: batch.Int, Bits: 1 << 63, Scale: -128},
		{Kind: batch.Int, Bits: 1 << 63, Scale: 127},
		{Kind: batch.Uint, Bits: math.MaxUint64, Scale: 3},
		{Kind: batch.Uint, Scale: -3},
		{Kind: batch.Uint, Bits: 10_000, Scale: 0},
		{Kind: batch.Uint, Bits: 10_000, Scale: -4},
		{Kind: batch.Uint, Bits: 120, Scale: -1},
		{Kind: batch.Float32, Bits: uint64(math.Float32bits(229.7))},
		{Kind: batch.Float64, Bits: math.Float64bits(-5e-324)},
		{Kind: batch.Float64, Bits: math.Float64bits(math.MaxFloat64), Scale: 2},
		{Kind: batch.Float32, Bits: uint64(math.Float32bits(0.1)), Scale: -2},
		{Kind: batch.Float64, Bits: math.Float64bits(math.NaN())},
		{Kind: batch.Float64, Bits: math.Float64bits(math.Inf(-1))},
		{Kind: batch.Float64, Bits: math.Float64bits(math.Inf(1))},
		{Kind: batch.Bool, Bits: 1},
		{Kind: batch.None},
		{Kind: batch.Text, Data: "Grüße"},
		{Kind: batch.Text, Data: "nul\x00"},
		{Kind: batch.Octets, Data: "\x00\xff"},
		{Kind: batch.DateTime, Data: strings.Repeat("\x07", 12)},
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		v := batch.Value{Kind: batch.Int, Bits: random.Uint64() >> random.IntN(64), Scale: int8(random.IntN(40) - 20)}
		if random.IntN(2) == 0 {
			v.Kind = batch.Uint
		} else if random.IntN(3) == 0 {
			v.Kind, v.Scale = batch.Float64, 0
			if f := math.Float64frombits(v.Bits); math.IsNaN(f) {
				continue
			}
		}
		values = append(values, v)
	}
	from := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Billing, catalogue: batch.NewCatalogue()}
	for i, v := range values {
		r := profile(1, 1, 1)[0]
		r.Stamp.Time, r.Value, r.Status, r.HasStatus = r.Stamp.Time+int64(i), v, math.MaxUint64-uint64(i), true
		if i == 0 {
			r.Stamp.Bound, r.Quality, r.Serial = math.MaxUint32, batch.Estimated|batch.RolledOver|1<<31, "SN\x00\xff"
		}
		from.rows = append(from.rows, r)
	}
	payload := from.batch(t, 1, len(values))
	if err := w.store(t.Context(), []*letter{box.message(from.catalog()), box.message(from.topic(), payload)}); err != nil {
		t.Fatal(err)
	}
	for _, d := range box.dead {
		t.Error(d.refusal)
	}
	rows, err := s.Connect(url).Query(t.Context(), `SELECT sequence, value::text, text, octets, status::text, quality, serial, clock_error_ms FROM all_readings ORDER BY sequence`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var sequence int64
		var number, text *string
		var octets []byte
		var status, quality, serial string
		var bound *int64
		if err := rows.Scan(&sequence, &number, &text, &octets, &status, &quality, &serial, &bound); err != nil {
			t.Fatal(err)
		}
		v := values[sequence-1]
		got := ""
		switch {
		case number != nil:
			got = strings.Replace(*number, "Infinity", "Inf", 1)
		case text != nil:
			got = *text
		case octets != nil:
			got = string(octets)
		}
		want := strings.Replace(v.String(), "+Inf", "Inf", 1)
		switch v.Kind {
		case batch.Bool:
			want = "1"
		case batch.Text, batch.Octets, batch.DateTime:
			want = v.Data
		case batch.Float32, batch.Float64: // the decimals that a scale shows beyond the digits
			if strings.Contains(want, ".") {
				got, want = strings.TrimRight(got, "0"), strings.TrimRight(want, "0")
			}
		default:
		}
		if got != want {
			t.Errorf("%+v: %q, want %q", v, got, want)
		}
		if n == 0 && (quality != "estimated+rolled-over+bit31" || serial != "hex:534e00ff" || bound != nil || status != "18446744073709551615") {
			t.Errorf("quality %s, serial %s, bound %v, status %s", quality, serial, bound, status)
		}
		n++
	}
	if n != len(values) {
		t.Errorf("%d values of %d", n, len(values))
	}
}

// TestViews: the views say what a billing person and a grid engineer look for.
func TestViews(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	w, box := newTestWriter(t, url), &postbox{}
	s.Exec(url, "INSERT INTO sites (name, time_zone) VALUES ('s', 'Europe/Berlin')")
	bills := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Billing, catalogue: batch.NewCatalogue()}
	load := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: bills.catalogue, rows: profile(1, 1, 97)[1:]}
	for i := range load.rows { // the day of Berlin, an hour before that of UTC; two are missing, one comes late
		load.rows[i].Stamp.Time -= 3600_000
		load.rows[i].Channel = "1-0:1.29.0*255/3:2"
	}
	load.rows[7], load.rows[8] = batch.Row{}, batch.Row{}
	for day := range 3 {
		r := load.rows[0]
		r.Stamp.Time, r.Channel, r.Period = begin.AddDate(0, 0, day).Add(-time.Hour).UnixMilli(), "1-0:1.8.0*255/3:2", 0
		r.Value = batch.Value{Kind: batch.Uint, Bits: uint64(5000 + 125*day), Scale: 1}
		if day == 2 {
			r.Quality = batch.Estimated
		}
		bills.rows = append(bills.rows, r)
	}
	instant := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Instant, catalogue: bills.catalogue, rows: append([]batch.Row{}, bills.rows...)}
	instant.rows[0].Quality = batch.Test             // the same, with another quality: a revision
	_, _ = bills.batch(t, 1, 1), load.batch(t, 1, 1) // the catalogue has all of them
	letters := []*letter{
		box.message(instant.topic(), instant.batch(t, 2, 3)), // the same by a lesser lane, and first
		box.message(bills.topic(), bills.batch(t, 1, 3)), box.message(load.topic(), load.batch(t, 1, 96)),
	}
	if err := w.store(t.Context(), append([]*letter{box.message(bills.catalog()), box.message(load.catalog())}, letters...)); err != nil {
		t.Fatal(err)
	}
	conn := s.Connect(url)
	text := func(query string) (got string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), query).Scan(&got); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return got
	}
	for query, want := range map[string]string{
		`SELECT string_agg(concat_ws(' ', serial, obis, day, value, unit, quality), '; ' ORDER BY time) FROM billing_registers`: "S000000 1-0:1.8.0 2026-11-02 50000 Wh good; S000000 1-0:1.8.0 2026-11-03 51250 Wh good; S000000 1-0:1.8.0 2026-11-04 52500 Wh estimated",
		`SELECT string_agg(concat_ws(' ', first_day, next_day, consumed), '; ' ORDER BY first_day) FROM billing_periods`:        "2026-11-02 2026-11-03 1250; 2026-11-03 2026-11-04 1250; 2026-11-04",
		`SELECT concat_ws(' ', day, period, intervals, with_value, expected, by_8h) FROM interval_days`:                         "2026-11-02 900 94 94 96 0",
		`SELECT concat_ws(' ', begins AT TIME ZONE 'UTC', value, unit) FROM interval_energies ORDER BY ends LIMIT 1`:            "2026-11-01 23:00:00 0.10 Wh",
		`SELECT string_agg(concat_ws(' ', meter, obis, value), '; ' ORDER BY obis) FROM latest_values`:                          "m0 1-0:1.29.0 9.60; m0 1-0:1.8.0 52500",
		`SELECT concat_ws(' ', lane, first, last, numbers, state, reason) FROM gaps WHERE state = 'lost'`:                       "interval 8 9 2 lost quota",
		`SELECT concat_ws(' ', lane, first, last, numbers, state) FROM gaps WHERE state = 'missing'`:                            "instant 1 1 1 missing",
		`SELECT concat_ws(' ', through, high, missing) FROM stream_states WHERE lane = 'instant'`:                               "0 3 1",
	} {
		if got := text(query); got != want {
			t.Errorf("%s:\n got %s\nwant %s", query, got, want)
		}
	}
	if err := w.store(t.Context(), []*letter{box.message(instant.catalog()), box.message(instant.topic(), instant.batch(t, 1, 1))}); err != nil {
		t.Fatal(err)
	}
	if got := text(`SELECT string_agg(concat_ws(' ', revision, quality, lane), '; ' ORDER BY revision) FROM all_readings WHERE time = '2026-11-01 23:00+00' AND obis = '1-0:1.8.0'`); got != "0 good billing; 1 test instant" {
		t.Error(got)
	}
}

// TestNumbers holds numbers and stream against sets of single numbers.
func TestNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := &stream{}
		stored, lost := map[int64]bool{}, map[int64]bool{}
		for range rapid.IntRange(0, 30).Draw(rt, "steps") {
			first := rapid.Int64Range(1, 40).Draw(rt, "first")
			last := first + rapid.Int64Range(0, 6).Draw(rt, "more")
			if rapid.Bool().Draw(rt, "store") {
				s.store(first, last)
				for n := first; n <= last; n++ {
					stored[n] = true
					delete(lost, n)
				}
			} else {
				fresh := s.lose(first, last)
				for n := first; n <= last; n++ {
					if fresh.has(n) != (!stored[n] && !lost[n]) {
						rt.Fatalf("%d is newly lost: %v", n, fresh.has(n))
					}
					if !stored[n] {
						lost[n] = true
					}
				}
			}
			s.settle(begin)
			text := s.stored.String()
			back, err := parseNumbers(text)
			if err != nil || back.String() != text {
				rt.Fatalf("%s: %s, %v", text, back, err)
			}
		}
		through, gap := int64(0), false
		for n := int64(1); n <= s.high; n++ {
			if !stored[n] && !lost[n] {
				gap = true
			}
			if !gap {
				through = n
			}
			if s.isStored(n) != stored[n] && n > s.floor || s.missing().has(n) != (!stored[n] && !lost[n]) {
				rt.Fatalf("%d: stored %v, missing %v: %+v", n, s.isStored(n), s.missing(), s)
			}
		}
		if s.through() != through || s.gapSince.IsZero() == gap {
			rt.Fatalf("through %d, want %d; since %v", s.through(), through, s.gapSince)
		}
	})
	for _, bad := range []string{"", "{", "{[1,2)", "[1,2)", "{[2,1)}", "{[5,6),[1,2)}", "{(1,2]}", "{[1,x)}"} {
		if n, err := parseNumbers(bad); err == nil {
			t.Errorf("%q: %v", bad, n)
		}
	}
}

// A stream whose numbers are scattered keeps to a bounded memory.
func TestScatteredNumbers(t *testing.T) {
	t.Parallel()
	s := &stream{id: 1}
	o := &outcome{streams: map[int32]*stream{1: s}}
	b := &packed{stream: &streamRef{1}}
	for n := range int64(3 * maxStretches) {
		b.runs, b.ends = append(b.runs, stretch{2 * (n + 1), 2 * (n + 1)}), append(b.ends, 0)
	}
	if tuples := o.take(&pack{batches: []*packed{b}}, begin); !bytes.HasPrefix(tuples, []byte(copyHeader)) {
		t.Error("no header")
	}
	if len(s.stored) > 2*maxStretches || len(o.holes) == 0 || o.holes[0].reason != reasonManyGaps {
		t.Errorf("%d stretches, %d holes", len(s.stored), len(o.holes))
	}
	for n := range int64(3 * maxLost) {
		s.lose(100_000+2*n, 100_000+2*n)
		s.store(100_001+2*n, 100_001+2*n)
		s.settle(begin)
	}
	s.lose(s.floor+1, 99_999)
	s.settle(begin)
	if len(s.lost) > maxLost || s.through() != 100_000+6*maxLost-1 {
		t.Errorf("%d lost stretches, through %d", len(s.lost), s.through())
	}
}

func TestWeeks(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2000-01-01T00:00:00Z": "1999-12-27", "2000-01-03T00:00:00Z": "2000-01-03", "2026-11-22T23:59:59Z": "2026-11-16", "2026-11-23T00:00:00Z": "2026-11-23",
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := weekBegin(week(at.UnixMilli())).Format(time.DateOnly); got != want {
			t.Errorf("%s: the week of %s, want %s", text, got, want)
		}
	}
	now := begin
	for ms, want := range map[int64]bool{postgresEpoch: true, postgresEpoch - 1: false, now.UnixMilli(): true, now.Add(maxAhead).UnixMilli() + 1: false, math.MinInt64: false, math.MaxInt64: false} {
		if plausible(ms, now) != want {
			t.Errorf("%d: %v", ms, !want)
		}
	}
}
