package buffer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// unsureRow is a row whose time nobody vouches for.
func unsureRow(boot uint32, mono int64) meter.Row {
	return meter.Row{
		Meter: "m", Serial: "S", Channel: "1-0:1.8.0*255/3:2", Lane: meter.Interval, Value: meter.IntValue(mono, 0),
		Stamp: meter.Stamp{Time: mono, Mono: mono, Boot: boot, Source: meter.FromGateway, Bound: meter.UnknownBound},
	}
}

func openWith(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put appends rows to a lane, of so many octets that do not deflate.
func put(ctx context.Context, s *Store, lane meter.Lane, rows, octets int) error {
	r := rand.New(rand.NewPCG(7, 7))
	a := meter.Append{}
	for i := range rows {
		b := make([]byte, octets)
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		row := unsureRow(1, int64(i))
		row.Lane, row.Value, row.Stamp.Bound = lane, meter.OctetsValue(b), 0
		a.Rows = append(a.Rows, row)
	}
	return s.append(ctx, a)
}

// soon waits for done.
func soon(t *testing.T, done <-chan error, what string) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s waits for ever", what)
	}
}

// TestLettingGoBesideCompaction: a Peek that lets rows go commits, and waits for
// no compaction that waits for it.
func TestLettingGoBesideCompaction(t *testing.T) {
	t.Parallel()
	var s *Store
	compacted, peeked := make(chan error, 1), make(chan error, 1)
	begun := false
	s = openWith(t, Options{BootID: "b", Waits: func() bool {
		if begun {
			return false
		}
		begun = true
		go func() { compacted <- s.Compact(t.Context()) }()
		for s.write.TryLock() { // until the compaction has it
			s.write.Unlock()
		}
		return false
	}})
	if err := s.Append(t.Context(), meter.Append{Rows: []meter.Row{unsureRow(s.Boot(), 5)}}); err != nil {
		t.Fatal(err)
	}
	go func() {
		span, err := s.Peek(meter.Interval, 0, 10)
		if err == nil && len(span.Rows) != 1 {
			err = fmt.Errorf("%d rows", len(span.Rows))
		}
		peeked <- err
	}()
	soon(t, peeked, "Peek")
	soon(t, compacted, "Compact")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestNothingIsThinnedOnItsWay: rows that a Peek is about to hand out while a
// commit thins are not thinned by it: the fog would get a sum beside its parts.
func TestNothingIsThinnedOnItsWay(t *testing.T) {
	t.Parallel()
	var s *Store
	thinned := make(chan error, 1)
	s = openWith(t, Options{BootID: "b", Waits: func() bool {
		go func() {
			thinned <- s.commit(commitAlways, func(w *writeTx) error { _, err := w.thin(meter.Interval); return err })
		}()
		select { // it ends before rows are handed out, or waits until they are
		case err := <-thinned:
			thinned <- err
		case <-time.After(time.Second):
		}
		return true
	}})
	const rows = 8
	var a meter.Append
	for i := range int64(rows) {
		r := unsureRow(s.Boot(), 1000*i)
		r.Stamp.Bound = 5
		a.Rows = append(a.Rows, r)
	}
	if err := s.Append(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	held := meter.Append{Rows: []meter.Row{unsureRow(s.Boot(), 9000)}}
	if err := s.Append(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	span, err := s.Peek(meter.Interval, 0, 100)
	if err != nil || len(span.Rows) != rows {
		t.Fatalf("%d rows, %v", len(span.Rows), err)
	}
	soon(t, thinned, "the commit")
	err = s.Query(Query{}, func(n uint64, r *meter.Row) error {
		if n > rows && r.Stamp.Mono < 9000 {
			t.Errorf("number %d is what is left of rows that were handed out: %+v", n, r)
		}
		return nil
	})
	if err = errors.Join(err, s.Close()); err != nil {
		t.Error(err)
	}
}

// TestThinnedFromMemory: a chunk that Peek has decoded, of which rows wait for
// their time, and that is thinned then, is not handed out from memory.
func TestThinnedFromMemory(t *testing.T) {
	t.Parallel()
	waits := true
	s := openWith(t, Options{BootID: "b", Waits: func() bool { return waits }})
	var a meter.Append
	for i := range int64(8) {
		a.Rows = append(a.Rows, unsureRow(s.Boot(), 1000*i))
	}
	if err := s.Append(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if span, err := s.Peek(meter.Interval, 0, 100); err != nil || len(span.Rows) != 0 {
		t.Fatalf("%+v, %v", span, err)
	}
	err := s.commit(commitAlways, func(w *writeTx) error { _, err := w.thin(meter.Interval); return err })
	if err != nil {
		t.Fatal(err)
	}
	waits = false
	span, err := s.Peek(meter.Interval, 0, 100)
	if err != nil || len(span.Rows) != 1 || len(span.Holes) != 1 || span.Holes[0].Count != 7 {
		t.Errorf("%+v, %v", span, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestThinnedByTheRightTime: rows of two boots that both began in 1970 are thinned
// by the times that they had, not to one row of an hour in 1970.
func TestThinnedByTheRightTime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const day, begin = 86_400_000, 1_800_057_600_000
	for boot := range int64(2) {
		s, err := Open(dir, Options{BootID: fmt.Sprint(boot), Waits: func() bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		a := meter.Append{Rows: []meter.Row{unsureRow(s.Boot(), 60_000), unsureRow(s.Boot(), 120_000)}}
		err = errors.Join(s.Append(t.Context(), a),
			s.Correct(t.Context(), Correction{Mono: 180_000, Offset: begin + boot*day, Bound: 5}), s.Close())
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(dir, Options{BootID: "3"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // chunks that nothing is thinned of, and that thin the others
		if err := put(t.Context(), s, meter.Interval, 1, 100); err != nil {
			t.Fatal(err)
		}
	}
	err = s.commit(commitAlways, func(w *writeTx) error { _, err := w.thin(meter.Interval); return err })
	if err != nil {
		t.Fatal(err)
	}
	var days []int64
	err = s.Query(Query{}, func(_ uint64, r *meter.Row) error {
		if r.Value.Kind == meter.Int {
			if r.Quality&meter.TimeCorrected == 0 {
				t.Errorf("%+v", r)
			}
			days = append(days, (r.Stamp.Time-begin)/day)
		}
		return nil
	})
	if err != nil || !slices.Equal(days, []int64{0, 1}) {
		t.Errorf("rows of days %v, %v", days, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// fill appends to a lane until nothing more fits.
func fill(t *testing.T, s *Store, lane meter.Lane) {
	t.Helper()
	for range 1000 {
		err := put(t.Context(), s, lane, 4, 60_000)
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		err := put(t.Context(), s, lane, 1, 10)
		if errors.Is(err, ErrFull) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("it does not fill")
}

// TestFullWithAWrongCounter: what is counted and is not there, as after damage,
// does not keep an append looking for it for ever.
func TestFullWithAWrongCounter(t *testing.T) {
	t.Parallel()
	s := openWith(t, Options{BootID: "b", MaxSize: 6 << 20, HotBytes: -1, Quota: Quota{Total: Limit{Bytes: 1 << 40}}})
	fill(t, s, meter.Billing)
	err := s.commit(commitAlways, func(w *writeTx) error { w.lanes[meter.Interval].bytes = 16 << 10; return nil })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		err := put(t.Context(), s, meter.Billing, 4, 60_000)
		if errors.Is(err, ErrFull) {
			err = nil
		} else {
			err = fmt.Errorf("not full: %w", err)
		}
		done <- err
	}()
	soon(t, done, "Append")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestMendMakesRoom: damage is declared in a full store too, as long as something
// in it may be given up.
func TestMendMakesRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{BootID: "b", MaxSize: 6 << 20}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s, meter.Interval)
	last := s.Last(meter.Interval)
	if err := errors.Join(s.Ack(meter.Interval, 40), s.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ChunksOf(b) {
		if c, err := parseChunkInfo(b[p.At : p.At+p.Len]); err == nil && c.last() == last {
			b[p.At+p.Len-1] ^= 1
		}
	}
	if err := os.WriteFile(s.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, o); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Peek(meter.Interval, last-1, 10); err != nil || !s.NeedsMending() {
		t.Fatalf("to be mended: %t, %v", s.NeedsMending(), err)
	}
	m, err := s.Mend(t.Context(), func(Mended) []meter.Row {
		r := unsureRow(1, 1)
		r.Lane = meter.Alarm
		return []meter.Row{r}
	})
	if err != nil || m.Stretches != 1 || s.NeedsMending() || s.Last(meter.Alarm) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestGapBesideUnknownTimes: what is read again of a damaged chunk does not end
// where a clock of 1970 says that the next chunk does.
func TestGapBesideUnknownTimes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	const taken = 1_800_000_000_000
	profile := unsureRow(s.Boot(), 5)
	profile.Stamp.Time, profile.Stamp.Source, profile.Stamp.Bound = taken, meter.FromMeter, 5
	for _, r := range []meter.Row{profile, unsureRow(s.Boot(), 9)} {
		if err := s.Append(t.Context(), meter.Append{Rows: []meter.Row{r}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.commit(commitAlways, func(w *writeTx) error {
		q, err := w.queue(meter.Interval)
		if err != nil {
			return err
		}
		b := q.Bucket(sequenceKey(1))
		chunk := slices.Clone(b.Get([]byte(keyOne)))
		chunk[31] ^= 0x40 // of its lowest stamp
		return b.Put([]byte(keyOne), chunk)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Peek(meter.Interval, 0, 10); err != nil {
		t.Fatal(err)
	}
	m, err := s.Mend(t.Context(), nil)
	if err != nil || m.Lost != 1 || m.Gap.From >= taken || m.Gap.To < taken {
		t.Errorf("%+v, %v", m, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestExportOfCorrectedTimes: rows are exported by the time that they have, not by
// that which they were stored with.
func TestExportOfCorrectedTimes(t *testing.T) {
	t.Parallel()
	s := openWith(t, Options{BootID: "b", Waits: func() bool { return true }})
	const begin = 1_800_000_000_000
	err := errors.Join(
		s.Append(t.Context(), meter.Append{Rows: []meter.Row{unsureRow(s.Boot(), 1000)}}),
		s.Correct(t.Context(), Correction{Mono: 5000, Offset: begin, Bound: 5}))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	info, err := s.Export(&b, Query{From: begin, To: begin + 10_000}, ExportOptions{})
	if err != nil || info.Rows != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSalvageSplitsOlderChunks: of a chunk whose dictionary is not packed, which
// is half acknowledged, both parts read after a salvage.
func TestSalvageSplitsOlderChunks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), s, meter.Billing, 100, 4); err != nil {
		t.Fatal(err)
	}
	unpack := func(w *writeTx) error {
		q, err := w.queue(meter.Billing)
		if err != nil {
			return err
		}
		return unpackFirst(q.Bucket(sequenceKey(1)))
	}
	if err := errors.Join(s.commit(commitAlways, unpack), s.Ack(meter.Billing, 30), s.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	b[pageHeader+60] ^= 1 // the checksum of a meta page
	if err := os.WriteFile(s.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{BootID: "b"}); err != nil || s.Recovered() == nil {
		t.Fatalf("%v, not salvaged", err)
	}
	span, err := s.Peek(meter.Billing, 0, 200)
	if err != nil || len(span.Rows) != 100 || len(span.Holes) > 0 || s.Acked(meter.Billing) != 30 {
		t.Errorf("%d rows, holes %+v, acknowledged %d, %v", len(span.Rows), span.Holes, s.Acked(meter.Billing), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// unpackFirst makes of a chunk one whose names are not packed.
func unpackFirst(b *bolt.Bucket) error {
	chunk := slices.Clone(b.Get([]byte(keyOne)))
	c, err := parseChunkInfo(chunk)
	if err != nil {
		return err
	}
	dict, err := chunkDict(chunk, c)
	if err != nil {
		return err
	}
	names, err := dict.AppendBinary(nil)
	if err != nil {
		return err
	}
	out := append(append(slices.Clone(chunk[:chunkHeader]), names...), chunk[chunkHeader+c.dict:]...)
	out[7] &^= chunkPacked
	le := binary.LittleEndian
	le.PutUint32(out[44:], uint32(len(names)))
	le.PutUint32(out[52:], chunkSum(out))
	return b.Put([]byte(keyOne), out)
}
