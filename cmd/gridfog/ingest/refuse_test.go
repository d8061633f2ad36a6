package ingest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
)

// TestHostileStreams: each bad message is a dead letter with its reason, and what
// comes with it is stored all the same.
func TestHostileStreams(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	conn := s.Connect(url)
	w, box := newTestWriter(t, url), &postbox{}
	good := &sender{site: "north", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(2, 2, 3)}
	payload := good.batch(t, 1, 4)
	topic := good.topic()

	future := &sender{site: "north", gateway: "g", epoch: 2, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(2, 2, 1)}
	for i := range future.rows {
		future.rows[i].Serial = "F"
	}
	future.rows[1].Stamp.Time = time.Now().AddDate(3, 0, 0).UnixMilli()
	future.rows[2].Stamp.Time = -1 << 62
	other := &sender{site: "north", gateway: "h", epoch: 1, lane: batch.Interval, catalogue: good.catalogue, rows: good.rows}
	travels := future.batch(t, 1, 4)
	high := batch.Span{Lane: batch.Interval, Rows: good.rows[:1], Runs: []batch.Run{{First: 1 << 63, Count: 1}}, Last: 1 << 63}
	high.Rows[0].Lane = batch.Interval
	far, err := batch.Append(nil, good.header(), high, good.catalogue)
	if err != nil {
		t.Fatal(err)
	}
	_, catalogue := good.catalog()
	broken := bytes.Clone(payload)
	broken[len(broken)-3] ^= 0xFF
	newer := bytes.Clone(payload)
	newer[1] = 99
	const up = "gridgate/1/north/g/up/"
	bad := []struct {
		topic   string
		payload []byte
		reason  string
	}{
		{topic, []byte("\xff\xff no protobuf"), reasonGarbled},
		{topic, newer, reasonFormat},
		{topic, bytes.Repeat([]byte{0x4a}, 1<<20), reasonTooLong},
		{topic, other.batch(t, 1, 4), reasonName},
		{"gridgate/1/south/g/up/readings/interval", payload, reasonName},
		{up + "readings/billing", payload, reasonName},
		{up + "readings/everything", payload, reasonTopic},
		{topic, far, reasonNumber},
		{topic, travels, reasonTime},
		{up + "catalog/0123456789abcdef", catalogue, reasonHash},
		{up + "catalog/0123456789abcdef", []byte("\xff"), reasonGarbled},
		{up + "catalog/NOHEX", catalogue, reasonTopic},
	}
	letters := []*letter{box.message(good.catalog()), box.message(future.catalog())}
	for _, b := range bad {
		letters = append(letters, box.message(b.topic, b.payload))
	}
	letters = append(letters, box.message(topic, broken), box.message(topic, payload), box.message(topic, good.batch(t, 5, 12)))
	if err := w.store(t.Context(), letters); err != nil {
		t.Fatal(err)
	}
	if box.acked != len(letters) {
		t.Errorf("%d of %d messages were acknowledged", box.acked, len(letters))
	}
	for _, b := range bad {
		if n := scalar(t, conn, "SELECT count(*) FROM dead_letters WHERE topic = $1 AND reason = $2 AND size = $3", b.topic, b.reason, len(b.payload)); n == 0 {
			t.Errorf("%s: no dead letter of reason %s", b.topic, b.reason)
		}
		if w.counts.c.Refused[b.reason] == 0 {
			t.Errorf("%s is not counted", b.reason)
		}
	}
	if n := scalar(t, conn, "SELECT count(*) FROM readings r JOIN streams s ON s.id = r.stream WHERE s.epoch LIKE '%1'"); n != 12 {
		t.Errorf("%d rows of 12 are stored", n)
	}
	// Of the batch from the future what can be true is stored; the rest is named.
	if n := scalar(t, conn, "SELECT through FROM streams WHERE epoch LIKE '%2'"); n != 4 {
		t.Errorf("it is stored through %d", n)
	}
	if n := scalar(t, conn, "SELECT count(*) FROM gaps WHERE state = 'lost' AND reason = 'time'"); n != 2 {
		t.Errorf("%d rows are declared refused", n)
	}
	if n := scalar(t, conn, "SELECT sum(letters) FROM refusals WHERE site = 'north' AND gateway = 'g'"); n < int64(len(bad)-2) {
		t.Errorf("the view has %d", n)
	}
	// The same again is counted, and kept once.
	before := scalar(t, conn, "SELECT count(*) FROM dead_letters")
	if err := w.store(t.Context(), []*letter{box.message(bad[0].topic, bad[0].payload)}); err != nil {
		t.Fatal(err)
	}
	if n, times := scalar(t, conn, "SELECT count(*) FROM dead_letters"), scalar(t, conn, "SELECT max(times) FROM dead_letters"); n != before || times != 2 {
		t.Errorf("%d dead letters, were %d; %d times", n, before, times)
	}
}

// TestDatabaseRefuses: values that the database does not take go, alone, to the
// dead letters.
func TestDatabaseRefuses(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	s.Exec(url, "ALTER TABLE readings ADD CHECK (value IS DISTINCT FROM 6.66)")
	w, box := newTestWriter(t, url), &postbox{}
	from := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(3, 1, 2)}
	from.rows[2].Value.Bits = 666
	letters := []*letter{nil, box.message(from.topic(), from.batch(t, 1, 2)), box.message(from.topic(), from.batch(t, 3, 4)), box.message(from.topic(), from.batch(t, 5, 6))}
	letters[0] = box.message(from.catalog())
	if err := w.store(t.Context(), letters); err != nil {
		t.Fatal(err)
	}
	conn := s.Connect(url)
	if n := scalar(t, conn, "SELECT count(*) FROM readings"); n != 4 || box.acked != 4 {
		t.Errorf("%d rows, %d acknowledged", n, box.acked)
	}
	if n := scalar(t, conn, "SELECT count(*) FROM dead_letters WHERE reason = 'database'"); n != 1 {
		t.Errorf("%d dead letters", n)
	}
	if p := box.progress[streamKey{"s", "g", 1, batch.Interval}]; p.through != 2 || len(p.missing) != 1 {
		t.Errorf("%+v", p)
	}
}

// TestCatalogueComesLate: a batch waits for its catalogue, is asked for, and is
// refused when it never comes.
func TestCatalogueComesLate(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	conn := s.Connect(url)
	w, box := newTestWriter(t, url), &postbox{}
	from := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(3, 1, 2)}
	never := &sender{site: "s", gateway: "h", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(4, 1, 2)}
	one, two, lost := from.batch(t, 1, 3), from.batch(t, 4, 6), never.batch(t, 1, 8)
	for _, payload := range [][]byte{one, two} {
		if err := w.store(t.Context(), []*letter{box.message(from.topic(), payload)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.store(t.Context(), []*letter{box.message(never.topic(), lost)}); err != nil {
		t.Fatal(err)
	}
	if box.wants != 3 || len(w.waiting.all) != 3 || box.acked != 3 {
		t.Fatalf("asked %d times, %d wait, %d acknowledged", box.wants, len(w.waiting.all), box.acked)
	}
	if err := w.store(t.Context(), []*letter{box.message(from.catalog())}); err != nil {
		t.Fatal(err)
	}
	if n := scalar(t, conn, "SELECT count(*) FROM readings"); n != 6 || len(w.waiting.all) != 1 {
		t.Errorf("%d rows, %d wait", n, len(w.waiting.all))
	}
	late := w.waiting.late(time.Now().Add(time.Hour))
	if err := w.store(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	w.waiting.done(setOf(late))
	if len(w.waiting.all) != 0 || len(box.dead) != 1 || box.dead[0].reason != reasonCatalogue {
		t.Errorf("%d wait, dead: %+v", len(w.waiting.all), box.dead)
	}
	// Another member, or this one after a restart, has it from the database.
	w.disconnect(context.Background())
	other := newTestWriter(t, url)
	from.epoch = 2
	if err := other.store(t.Context(), []*letter{box.message(from.topic(), from.batch(t, 1, 6))}); err != nil || len(other.waiting.all) != 0 {
		t.Errorf("%d wait, %v", len(other.waiting.all), err)
	}
	other.disconnect(context.Background())
	many := waiting{}
	for range maxWaiting + 3 {
		if gone := many.put(box.message(from.topic(), one), batch.Hash{}, time.Now()); (gone != nil) != (len(many.all) >= maxWaiting && gone != nil) {
			t.Fatal("what waits is not bounded")
		}
	}
	if len(many.all) != maxWaiting || many.bytes != maxWaiting*len(one) {
		t.Errorf("%d wait, %d bytes", len(many.all), many.bytes)
	}
}

// TestDeltaMode: after a restart the base of a delta is not known; its numbers
// are missing then, and are asked for.
func TestDeltaMode(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	w, box := newTestWriter(t, url), &postbox{}
	from := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(5, 2, 6)}
	from.catalogue.Add(from.rows)
	e := batch.NewEncoder(96)
	next := func(first int) []byte {
		span := batch.Span{Lane: batch.Interval, Runs: []batch.Run{{First: uint64(first), Count: 10}}, Last: uint64(first + 9)}
		span.Rows = append(span.Rows, from.rows[first-1:first+9]...)
		for i := range span.Rows {
			span.Rows[i].Lane = batch.Interval
		}
		b, err := e.Append(nil, from.header(), span, from.catalogue)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := w.store(t.Context(), []*letter{box.message(from.catalog())}); err != nil {
		t.Fatal(err)
	}
	key := streamKey{"s", "g", 1, batch.Interval}
	for n := 1; n <= 31; n += 10 {
		if err := w.store(t.Context(), []*letter{box.message(from.topic(), next(n))}); err != nil {
			t.Fatal(err)
		}
		if p := box.progress[key]; p.through != int64(n+9) {
			t.Fatalf("%+v after %d", p, n)
		}
		e.Confirmed(1, uint64(n+9))
	}
	w.disconnect(context.Background())
	fresh := newTestWriter(t, url)
	if err := fresh.store(t.Context(), []*letter{box.message(from.topic(), next(41))}); err != nil {
		t.Fatal(err)
	}
	if p := box.progress[key]; p.through != 40 || p.missing.String() != "{[41,51)}" || box.acked != 6 || len(box.dead) > 0 {
		t.Fatalf("%+v, %d acknowledged, dead %v", p, box.acked, box.dead)
	}
	again := from.batch(t, 41, 50) // as the gateway sends what it is asked for
	e.Restart()
	if err := fresh.store(t.Context(), []*letter{box.message(from.topic(), again), box.message(from.topic(), next(51))}); err != nil {
		t.Fatal(err)
	}
	if p := box.progress[key]; p.through != 60 || len(p.missing) > 0 {
		t.Errorf("%+v", p)
	}
	if n := scalar(t, s.Connect(url), "SELECT count(*) FROM readings"); n != 60 {
		t.Errorf("%d rows", n)
	}
}

func TestMigrations(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	if err := Migrate(t.Context(), url, logger(t)); err != nil {
		t.Errorf("a second time: %v", err)
	}
	s.Exec(url, "INSERT INTO gridfog_schema (version) VALUES (99)")
	err := Migrate(t.Context(), url, logger(t))
	if err == nil || !strings.Contains(err.Error(), "version 99") || !strings.Contains(err.Error(), "update gridfog") {
		t.Errorf("a newer schema: %v", err)
	}
	err = Run(t.Context(), Config{Database: url, Log: logger(t)})
	if err == nil || !strings.Contains(err.Error(), "update gridfog") {
		t.Errorf("a newer schema: %v", err)
	}
	s.Exec(s.URL(), "CREATE ROLE guest LOGIN")
	err = Migrate(t.Context(), strings.Replace(s.Database(), "postgres@", "guest@", 1), logger(t))
	if err == nil || !strings.Contains(err.Error(), "GRANT") {
		t.Errorf("without rights: %v", err)
	}
	err = Run(t.Context(), Config{Database: strings.Replace(url, "/test", "/nosuch", 1), Log: logger(t)})
	if err == nil || !strings.Contains(err.Error(), "createdb") {
		t.Errorf("no such database: %v", err)
	}
	if !strings.Contains(migrationText(t), partitionMark) {
		t.Error("no migration makes a hypertable where there are such")
	}
}

func migrationText(t *testing.T) string {
	t.Helper()
	b, err := migrations.ReadFile("migrations/0001_readings.sql")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDeadLettersAreBounded: who sends nothing but rubbish fills no disk.
func TestDeadLettersAreBounded(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	w, box := newTestWriter(t, url), &postbox{}
	for round := range 5 {
		var letters []*letter
		for n := range 250 {
			letters = append(letters, box.message("gridgate/1/s/g/up/readings/alarm", fmt.Appendf(nil, "%0200000d", 250*round+n)))
		}
		if err := w.store(t.Context(), append(letters, box.message("gridgate/1/s/h/up/readings/alarm", []byte("?")))); err != nil {
			t.Fatal(err)
		}
	}
	conn := s.Connect(url)
	if n := scalar(t, conn, "SELECT count(*) FROM dead_letters WHERE gateway = 'g'"); n != keptLetters || w.counts.c.Refused[reasonGarbled] != 5*251 {
		t.Errorf("%d are kept, %d are counted", n, w.counts.c.Refused[reasonGarbled])
	}
	if n := scalar(t, conn, "SELECT count(*) FROM dead_letters WHERE gateway = 'h' AND times = 5"); n != 1 {
		t.Error("the other gateway's is not there")
	}
	if n := scalar(t, conn, "SELECT sum(length(payload)) FROM dead_letters"); n > 3*lettersAMinute*maxDeadLetter {
		t.Errorf("%d bytes are kept", n)
	}
}
