package ingest

import (
	"fmt"
	"strings"
	"testing"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
)

// TestGatewayIsLimited: what one gateway invents goes to the dead letters from
// some point on; what it says of known things is stored, and so is what others
// say.
func TestGatewayIsLimited(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	conn := s.Connect(url)
	w, box := newTestWriter(t, url), &postbox{}
	from := func(gateway string, epoch uint64, meters int) *sender {
		f := &sender{site: "s", gateway: gateway, epoch: epoch, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(meters, 1, 20)}
		for i := range f.rows {
			f.rows[i].Serial = gateway + f.rows[i].Serial
		}
		return f
	}
	store := func(topic string, payload []byte) {
		t.Helper()
		if err := w.store(t.Context(), []*letter{box.message(topic, payload)}); err != nil {
			t.Fatal(err)
		}
	}
	dead := func(want int, what string) {
		t.Helper()
		if len(box.dead) != want {
			t.Fatalf("%d dead letters, want %d", len(box.dead), want)
		}
		if d := box.dead[want-1]; d.reason != reasonLimit || !strings.Contains(d.detail, what) {
			t.Errorf("%s: %s", d.reason, d.detail)
		}
	}
	w.limits = limits{streams: 3, names: 11, catalogues: 1 << 20} // two meters of one channel are five names
	good := from("g", 1, 2)
	first := good.batch(t, 1, 4)
	store(good.catalog())
	store(good.topic(), first)
	for epoch := uint64(2); epoch <= 3; epoch++ {
		good.epoch = epoch
		store(good.topic(), good.batch(t, 1, 2))
	}
	good.epoch = 4
	store(good.topic(), good.batch(t, 1, 2))
	dead(1, "3 streams")
	good.epoch = 1
	for i := range 2 { // six more names, then ten more: that is above the limit
		more := from("g", 1, 5+5*i)
		payload := more.batch(t, 5+10*i, 14+10*i)
		store(more.catalog())
		store(more.topic(), payload)
	}
	dead(2, "11 meters")
	if p := box.progress[streamKey{"s", "g", 1, batch.Interval}]; p.through != 14 || p.missing.String() != "{[15,25)}" {
		t.Errorf("%+v", p)
	}
	store(good.topic(), good.batch(t, 25, 28))
	if n := scalar(t, conn, "SELECT count(*) FROM streams WHERE gateway = 'g'"); n != 3 {
		t.Errorf("%d streams", n)
	}
	if n := scalar(t, conn, "SELECT rows FROM streams WHERE gateway = 'g' AND epoch LIKE '%1'"); n != 18 {
		t.Errorf("%d rows", n)
	}
	other := from("h", 9, 2)
	store(other.topic(), other.batch(t, 1, 4))
	store(other.catalog())
	if n := scalar(t, conn, "SELECT rows FROM streams WHERE gateway = 'h'"); n != 4 {
		t.Errorf("%d rows of another gateway", n)
	}
	w.limits.catalogues = w.learnt("s", "h", box.dead[0].letter.at).catalogues
	store(other.catalog()) // it is known
	more := from("h", 9, 30)
	more.batch(t, 1, 30)
	store(more.catalog())
	dead(3, fmt.Sprintf("%d bytes of catalogues", w.limits.catalogues))
	if box.acked == 0 || scalar(t, conn, "SELECT count(*) FROM dead_letters WHERE reason = 'limit'") != 3 {
		t.Error("not all are kept")
	}
}
