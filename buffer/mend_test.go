package buffer_test

import (
	"errors"
	"os"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// TestADamagedChunkIsMended flips an octet in one chunk of a sound file and wants
// it declared for good, told, and its time in every cursor's gaps.
func TestADamagedChunkIsMended(t *testing.T) {
	t.Parallel()
	for name, offset := range map[string]int{"body": 200, "header's time": 31} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mendOne(t, offset)
		})
	}
}

func mendOne(t *testing.T, offset int) {
	dir := t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	const chunks, rows, hurt = 5, 1000, 2
	for range chunks {
		appendN(t, s, meter.Interval, rows)
	}
	newest := rowOf(meter.Interval, chunks*rows).Stamp.Time
	cursors := []meter.Cursor{
		{Meter: "a", Serial: "1", Profile: "p", Time: newest},
		{Meter: "b", Serial: "2", Profile: "p", Time: newest + 900_000},
		{Meter: "early", Serial: "3", Profile: "p", Time: rowOf(meter.Interval, 1).Stamp.Time},
	}
	if err := errors.Join(s.Append(t.Context(), meter.Append{Cursors: cursors}), s.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	places := buffer.ChunksOf(file)
	if len(places) != chunks {
		t.Fatalf("%d chunks", len(places))
	}
	first := uint64(0)
	for _, p := range places { // they lie in no order
		if first = uint64(file[p.At+8]) | uint64(file[p.At+9])<<8; first == hurt*rows+1 {
			file[p.At+offset] ^= 0x40
			break
		}
	}
	if first != hurt*rows+1 {
		t.Fatal("no such chunk")
	}
	if err := os.WriteFile(fileOf(dir), file, 0o600); err != nil {
		t.Fatal(err)
	}

	if s, err = buffer.Open(dir, buffer.Options{BootID: "b"}); err != nil || s.Recovered() != nil {
		t.Fatalf("open: %v %v", err, s.Recovered())
	}
	if s.NeedsMending() {
		t.Error("damage is known before anybody met it")
	}
	check := func(when string) {
		t.Helper()
		n, holes, err := readLane(s, meter.Interval, 0, 500)
		if err != nil || n != (chunks-1)*rows {
			t.Errorf("%s: %d rows: %v", when, n, err)
		}
		var lost uint64
		for _, h := range holes {
			if h.Reason != meter.Damaged || h.First < first || h.Last >= first+rows {
				t.Errorf("%s: %+v", when, h)
			}
			lost += h.Last - h.First + 1
		}
		if lost != rows {
			t.Errorf("%s: %d numbers in holes", when, lost)
		}
	}
	check("met")
	if !s.NeedsMending() {
		t.Fatal("damage was met, and nothing is to be mended")
	}
	m, err := s.Mend(t.Context(), func(m buffer.Mended) []meter.Row {
		return []meter.Row{{Meter: "gw", Channel: "event.x", Lane: meter.Alarm, Value: meter.UintValue(m.Lost, 0)}}
	})
	if err != nil || m.Stretches != 1 || m.First != first || m.Last != first+rows-1 || m.Lost != rows || len(m.Cursors) != 2 {
		t.Errorf("%+v %v", m, err)
	}
	if s.NeedsMending() || s.Lost(meter.Interval) != rows {
		t.Errorf("to be mended: %t; lost %d", s.NeedsMending(), s.Lost(meter.Interval))
	}
	check("mended")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := buffer.Check(dir); err != nil || !r.Sound() {
		t.Errorf("check: %v %v", err, r.Problems)
	}

	if s, err = buffer.Open(dir, buffer.Options{BootID: "b"}); err != nil {
		t.Fatal(err)
	}
	check("opened again")
	if s.NeedsMending() {
		t.Error("what was mended is met again")
	}
	var from, to int64 // of the rows that are gone
	for i := range uint64(rows) {
		at := rowOf(meter.Interval, first+i).Stamp.Time
		if from == 0 || at < from {
			from = at
		}
		to = max(to, at)
	}
	for i, c := range cursors {
		got, ok, err := s.Cursor(c.Meter, c.Serial, c.Profile)
		if err != nil || !ok || got.Time != c.Time {
			t.Errorf("%+v %v", got, err)
		}
		gaps := got.Gaps.List()
		if i == 2 { // it had not read so far
			if len(gaps) != 0 {
				t.Errorf("%+v", got)
			}
			continue
		}
		if len(gaps) != 1 || gaps[0].From >= from || gaps[0].To < to || gaps[0].To > c.Time {
			t.Errorf("gaps %v, want one around %d to %d", gaps, from, to)
		}
	}
	if span, err := s.Peek(meter.Alarm, 0, 10); err != nil || len(span.Rows) != 1 || span.Rows[0].Value.Bits != rows {
		t.Errorf("%+v %v", span, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDeliveredDamageIsNoLoss pins that a damaged chunk which the fog has costs no
// reading and needs no mending.
func TestDeliveredDamageIsNoLoss(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Interval, 1000)
	appendN(t, s, meter.Interval, 1000)
	if err := errors.Join(s.Ack(meter.Interval, 1000), s.Close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range buffer.ChunksOf(file) {
		if file[p.At+8] == 1 && file[p.At+9] == 0 {
			file[p.At+200] ^= 1
		}
	}
	if err := os.WriteFile(fileOf(dir), file, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = buffer.Open(dir, buffer.Options{BootID: "b"}); err != nil {
		t.Fatal(err)
	}
	if n, _, err := readLane(s, meter.Interval, 0, 500); err != nil || n != 1000 {
		t.Errorf("%d rows: %v", n, err)
	}
	m, err := s.Mend(t.Context(), func(buffer.Mended) []meter.Row {
		t.Error("something is reported")
		return nil
	})
	if err != nil || m.Stretches != 0 || s.Lost(meter.Interval) != 0 || s.NeedsMending() {
		t.Errorf("%+v %v, lost %d", m, err, s.Lost(meter.Interval))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestQueryEndsWhereItBegan pins that rows which come while a query is under way
// are not in it.
func TestQueryEndsWhereItBegan(t *testing.T) {
	t.Parallel()
	s, err := buffer.Open(t.TempDir(), buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	appendN(t, s, meter.Interval, 1000)
	n := 0
	err = s.Query(buffer.Query{}, func(sequence uint64, r *meter.Row) error {
		if n++; n%500 == 1 {
			appendN(t, s, meter.Interval, 100)
		}
		if *r != rowOf(meter.Interval, sequence) {
			t.Errorf("number %d: %+v", sequence, r)
		}
		return nil
	})
	if err != nil || n != 1000 {
		t.Errorf("%d rows: %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
