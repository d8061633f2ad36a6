package ingest

import (
	"fmt"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
)

// TestMetersThatFailAreNotRemembered: what the database has taken back must not
// be in the cache; rows would be stored under a meter that nobody can find.
func TestMetersThatFailAreNotRemembered(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	s.Exec(url, "ALTER TABLE meters ADD CHECK (name <> 'bad')")
	conn := s.Connect(url)
	n := names{}
	n.clear()
	rows := map[meterKey]*batch.Row{}
	for i := range 50 {
		r := &batch.Row{Meter: batch.ID(fmt.Sprintf("m%d", i)), Serial: fmt.Sprintf("S%d", i)}
		rows[keyOf("s", "g", r)] = r
	}
	bad := &batch.Row{Meter: "bad", Serial: "B"}
	rows[keyOf("s", "g", bad)] = bad
	if err := n.findMeters(t.Context(), conn, "s", "g", rows, time.Now()); err == nil {
		t.Fatal("the database has taken all")
	}
	if there := scalar(t, conn, "SELECT count(*) FROM meters"); int64(len(n.meters)) > there {
		t.Errorf("%d meters are remembered, %d are there", len(n.meters), there)
	}
	delete(rows, keyOf("s", "g", bad))
	if err := n.findMeters(t.Context(), conn, "s", "g", rows, time.Now()); err != nil || len(n.meters) != 50 {
		t.Errorf("%d meters of 50, %v", len(n.meters), err)
	}
}

// TestPoisonBehindItsCatalogue: of the batches that waited for a catalogue the
// one that the database refuses becomes a dead letter, and nothing else.
func TestPoisonBehindItsCatalogue(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	s.Exec(url, "ALTER TABLE readings ADD CHECK (value IS DISTINCT FROM 6.66)")
	w, box := newTestWriter(t, url), &postbox{}
	from := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(3, 1, 2)}
	from.rows[2].Value.Bits = 666
	for n := 1; n <= 5; n += 2 {
		if err := w.store(t.Context(), []*letter{box.message(from.topic(), from.batch(t, n, n+1))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.store(t.Context(), []*letter{box.message(from.catalog())}); err != nil {
		t.Fatal(err)
	}
	conn := s.Connect(url)
	if n := scalar(t, conn, "SELECT count(*) FROM readings"); n != 4 || len(w.waiting.all) != 0 {
		t.Errorf("%d rows of 4, %d batches wait", n, len(w.waiting.all))
	}
	if n := scalar(t, conn, "SELECT count(*) FROM catalogues"); n != 1 {
		t.Errorf("%d catalogues", n)
	}
	if len(box.dead) != 1 || box.dead[0].reason != reasonDatabase || box.dead[0].letter.name != from.topic() {
		t.Errorf("dead: %+v", box.dead)
	}
}

// TestCatalogueComesAtTheLastMoment: with its catalogue in one transaction with it,
// a batch that has waited too long is stored, and is no dead letter.
func TestCatalogueComesAtTheLastMoment(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	w, box := newTestWriter(t, url), &postbox{}
	from := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(3, 1, 2)}
	if err := w.store(t.Context(), []*letter{box.message(from.topic(), from.batch(t, 1, 6))}); err != nil {
		t.Fatal(err)
	}
	late := w.waiting.late(time.Now().Add(time.Hour))
	if err := w.store(t.Context(), append([]*letter{box.message(from.catalog())}, late...)); err != nil {
		t.Fatal(err)
	}
	w.waiting.done(setOf(late))
	if n := scalar(t, s.Connect(url), "SELECT count(*) FROM readings"); n != 6 || len(late) != 1 || len(box.dead) != 0 || len(w.waiting.all) != 0 {
		t.Errorf("%d rows of 6, %d were late, %d dead letters, %d wait", n, len(late), len(box.dead), len(w.waiting.all))
	}
}
