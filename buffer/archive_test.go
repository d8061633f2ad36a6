package buffer_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// exported gives an archive of a store with 5,000 rows of the interval lane, of
// which 3,000 are acknowledged, and a loss in the alarm lane.
func exported(t testing.TB, o buffer.ExportOptions) (archive []byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Interval, 5000)
	err = s.Append(t.Context(), meter.Append{Losses: []meter.Loss{{Lane: meter.Alarm, Reason: meter.MemoryFull, Count: 9}}})
	if err := errors.Join(err, s.Ack(meter.Interval, 3000), s.Close()); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	info, err := buffer.Export(dir, &b, o)
	if err != nil {
		t.Fatal(err)
	}
	if info.Holes != 1 || info.Head.Acked[meter.Interval] != 3000 {
		t.Errorf("%+v", info)
	}
	return b.Bytes(), dir
}

func none(*buffer.ArchiveHead, meter.Span) error { return nil }

func TestExportAndRead(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for _, o := range []buffer.ExportOptions{
		{}, {Site: "zone3", Gateway: "gw-1", Made: 1_700_000_000_000, Key: key}, {Waiting: true},
	} {
		b, _ := exported(t, o)
		rows := map[uint64]meter.Row{}
		var holes []meter.Hole
		info, err := buffer.ReadArchive(bytes.NewReader(b), func(h *buffer.ArchiveHead, span meter.Span) error {
			if h.Site != o.Site || h.Gateway != o.Gateway || h.Made != o.Made || h.Epoch == 0 {
				return fmt.Errorf("%+v", h)
			}
			for i, r := range span.Rows {
				rows[span.Runs[0].First+uint64(i)] = r
			}
			holes = append(holes, span.Holes...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		first := uint64(1)
		if o.Waiting {
			first = 3001
		}
		for n := first; n <= 5000; n++ {
			if rows[n] != rowOf(meter.Interval, n) {
				t.Fatalf("number %d: %+v", n, rows[n])
			}
		}
		if !slices.Equal(holes, []meter.Hole{{First: 1, Last: 1, Reason: meter.MemoryFull, Count: 9}}) || int(info.Rows) != len(rows) {
			t.Errorf("%+v %+v", info, holes)
		}
		if (o.Key != nil) != bytes.Equal(info.Signer, key.Public().(ed25519.PublicKey)) {
			t.Errorf("signer %x", info.Signer)
		}
	}
}

// TestArchiveDamaged pins that no archive with an octet wrong or missing is
// taken for a whole one.
func TestArchiveDamaged(t *testing.T) {
	t.Parallel()
	b, _ := exported(t, buffer.ExportOptions{Site: "s", Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	for i := range b {
		if i%7 != 0 && i > 300 && i < len(b)-300 {
			continue
		}
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if i >= 5 && i < 8 {
			continue // reserved; the digest covers it all the same
		}
		if _, err := buffer.ReadArchive(bytes.NewReader(bad), none); !errors.Is(err, buffer.ErrArchive) {
			t.Fatalf("octet %d flipped: %v", i, err)
		}
		if _, err := buffer.ReadArchive(bytes.NewReader(b[:i]), none); !errors.Is(err, buffer.ErrArchive) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func FuzzReadArchive(f *testing.F) {
	b, _ := exported(f, buffer.ExportOptions{})
	f.Add(b)
	f.Add(b[:200])
	f.Fuzz(func(t *testing.T, b []byte) {
		rows := uint64(0)
		info, err := buffer.ReadArchive(bytes.NewReader(b), func(_ *buffer.ArchiveHead, s meter.Span) error {
			rows += uint64(len(s.Rows))
			return nil
		})
		if err == nil && info.Rows != rows {
			t.Errorf("%d rows, said %d", rows, info.Rows)
		}
	})
}

func TestImport(t *testing.T) {
	t.Parallel()
	b, from := exported(t, buffer.ExportOptions{})
	if _, err := buffer.Import(t.Context(), from, bytes.NewReader(b), true, buffer.Options{}); !errors.Is(err, buffer.ErrSameEpoch) {
		t.Errorf("into the same store: %v", err)
	}
	for _, all := range []bool{false, true} {
		dir := t.TempDir()
		if _, err := buffer.Import(t.Context(), dir, bytes.NewReader(b[:len(b)-1]), all, buffer.Options{}); !errors.Is(err, buffer.ErrArchive) {
			t.Errorf("one that is cut short: %v", err)
		}
		info, err := buffer.Import(t.Context(), dir, bytes.NewReader(b), all, buffer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		first := uint64(3001)
		if all {
			first = 1
		}
		want := rowsOf(meter.Interval, first, int(5001-first))
		for i := range want {
			want[i].Stamp.Boot, want[i].Stamp.Mono = 0, 0
		}
		s := buffertest.OpenDir(t, dir, buffer.Options{})
		rows, _, _ := tellAll(t, s, meter.Interval)
		_, _, lost := tellAll(t, s, meter.Alarm)
		if !slices.Equal(rows, want) || lost != 9 || info.Rows != uint64(len(want)) || s.Acked(meter.Interval) != 0 {
			t.Errorf("%d rows, want %d, %d lost, %+v", len(rows), len(want), lost, info)
		}
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := buffertest.OpenDir(t, dir, buffer.Options{})
	const n = 20_000
	appendN(t, s, meter.Interval, n)
	appendN(t, s, meter.Instant, 100)
	if err := s.Ack(meter.Interval, n/2); err != nil {
		t.Fatal(err)
	}
	at := func(i uint64) int64 { return rowOf(meter.Interval, i).Stamp.Time }
	for _, q := range []buffer.Query{
		{},
		{Lanes: []meter.Lane{meter.Interval}},
		{Meter: "meter-3"},
		{Channel: "1-0:2.8.0*255/3:2"},
		{From: at(15_000)},
		{To: at(800)},
		{From: at(500), To: at(600), Meter: "meter-7", Lanes: []meter.Lane{meter.Interval}},
		{Meter: "nobody"},
	} {
		want := map[uint64]bool{}
		for _, lane := range meter.Lanes() {
			for i := uint64(1); i <= s.Last(lane); i++ {
				r := rowOf(lane, i)
				to := q.To
				if to == 0 {
					to = math.MaxInt64
				}
				if (q.Meter == "" || q.Meter == r.Meter) && (q.Channel == "" || q.Channel == r.Channel) &&
					r.Stamp.Time >= q.From && r.Stamp.Time < to && (len(q.Lanes) == 0 || slices.Contains(q.Lanes, lane)) {
					want[i<<3|uint64(lane)] = true
				}
			}
		}
		err := s.Query(q, func(i uint64, r *meter.Row) error {
			if *r != rowOf(r.Lane, i) || !want[i<<3|uint64(r.Lane)] {
				return fmt.Errorf("number %d of %s", i, r.Lane)
			}
			delete(want, i<<3|uint64(r.Lane))
			return nil
		})
		if err != nil || len(want) > 0 {
			t.Errorf("%+v: %d were not found, %v", q, len(want), err)
		}
	}
	stop := errors.New("stop")
	if err := s.Query(buffer.Query{}, func(uint64, *meter.Row) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

// TestResend reads acknowledged ranges again, under their numbers.
func TestResend(t *testing.T) {
	t.Parallel()
	s := buffertest.Open(t, buffer.Options{})
	appendN(t, s, meter.Billing, 3000)
	if err := s.Append(t.Context(), meter.Append{Losses: []meter.Loss{{Lane: meter.Billing, Count: 4}}}); err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Billing, 3000)
	if span, err := s.Resend(meter.Billing, 0, 6001, 100); err != nil || span.Last != 0 {
		t.Errorf("nothing is acknowledged: %+v %v", span, err)
	}
	if err := s.Ack(meter.Billing, 5000); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after, through, last uint64
		most                 int
		rows                 int
	}{
		{0, 6001, 100, 100, 100},
		{2990, 3005, 3005, 100, 14},
		{4990, 9000, 5000, 100, 10},
		{5000, 9000, 0, 100, 0},
		{3000, 3001, 3001, 9, 0},
		{2047, 2049, 2049, 100, 2},
		{7, 7, 0, 1, 0},
	} {
		span, err := s.Resend(meter.Billing, c.after, c.through, c.most)
		if err != nil || span.Last != c.last || len(span.Rows) != c.rows {
			t.Errorf("%+v: %d rows through %d, %v", c, len(span.Rows), span.Last, err)
		}
		i := 0
		for _, run := range span.Runs {
			for n := run.First; n < run.First+run.Count; n++ {
				if span.Rows[i] != rowOf(meter.Billing, n) {
					t.Fatalf("%+v: number %d", c, n)
				}
				i++
			}
		}
		if i != len(span.Rows) {
			t.Errorf("%+v: runs of %d", c, i)
		}
	}
}
