package track

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gridgate/agent/batch"
	"gridgate/internal/mqtt"
)

// gateway writes rows of one stream in delta mode.
type gateway struct {
	e *batch.Encoder
	c *batch.Catalogue
	r *Receiver
	t *testing.T
}

func newGateway(t *testing.T, keyEvery int) *gateway {
	g := &gateway{batch.NewEncoder(keyEvery), batch.NewCatalogue(), nil, t}
	g.c.Add(span(1, 1).Rows)
	g.fog()
	return g
}

// fog begins anew there.
func (g *gateway) fog() {
	g.r = NewReceiver(New(Options{}))
	b, _ := g.c.AppendBinary(nil)
	if _, err := g.take(mqtt.CatalogueTopic("north", "gw-1", g.c.Hash()), b); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) take(topic string, payload []byte) (rows int, err error) {
	fresh, err := g.r.Take(topic, payload)
	return len(fresh), err
}

func (g *gateway) write(first, last uint64) []byte {
	g.t.Helper()
	b, err := g.e.Append(nil, header(), span(first, last), g.c)
	if err != nil {
		g.t.Fatal(err)
	}
	return b
}

func (g *gateway) batch(b []byte) (int, error) {
	return g.take(mqtt.ReadingsTopic("north", "gw-1", batch.Instant), b)
}

func (g *gateway) asks(now time.Time, want ...[2]uint64) {
	g.t.Helper()
	var got [][2]uint64
	for _, a := range g.r.Asks(now) {
		got = append(got, [2]uint64{a.First, a.Last})
	}
	if d := cmp.Diff(want, got); d != "" {
		g.t.Error(d)
	}
}

func TestWhatCannotBeFollowedIsAskedFor(t *testing.T) {
	t.Parallel()
	g, now := newGateway(t, 9), time.Unix(0, 0)
	key := g.write(1, 10)
	g.e.Confirmed(7, 10)
	delta := g.write(11, 20)
	if n, err := g.batch(delta); n != 0 || err == nil {
		t.Errorf("%d rows, %v", n, err)
	}
	g.asks(now, [2]uint64{11, 20})
	g.asks(now)
	if n, err := g.batch(key); n != 10 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if n, err := g.batch(delta); n != 10 || err != nil {
		t.Errorf("after its base %d rows, %v", n, err)
	}
	// A delta that comes again when its base has moved on is no loss.
	g.e.Confirmed(7, 20)
	if n, err := g.batch(g.write(21, 30)); n != 10 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if n, err := g.batch(delta); n != 0 || err != nil {
		t.Errorf("a second time %d rows, %v", n, err)
	}
	g.asks(now)
	if s := g.r.Summary(); s.Undecoded != 1 || s.Duplicates != 10 || s.Delivered != 30 {
		t.Errorf("%+v", s)
	}
}

func TestGapsAreAskedFor(t *testing.T) {
	t.Parallel()
	g, now := newGateway(t, 0), time.Unix(0, 0)
	tick := func(d time.Duration, want ...[2]uint64) {
		t.Helper()
		now = now.Add(d)
		g.r.Tracker.Settle()
		g.asks(now, want...)
	}
	// What came before the first is none of ours, until something was confirmed.
	if _, err := g.batch(g.write(101, 110)); err != nil {
		t.Fatal(err)
	}
	tick(0)
	tick(time.Hour)
	g.r.Tracker.Confirmed(Stream{"north", "gw-1", 7, batch.Instant}, 90)
	tick(time.Second)
	tick(askAfter - time.Second)
	tick(time.Second, [2]uint64{91, 100})
	tick(time.Minute)
	tick(time.Minute, [2]uint64{91, 100})
	if _, err := g.batch(g.write(91, 95)); err != nil {
		t.Fatal(err)
	}
	tick(time.Second)
	tick(askAfter, [2]uint64{96, 100})
	if _, err := g.batch(g.write(96, 100)); err != nil {
		t.Fatal(err)
	}
	tick(time.Hour)
	tick(time.Hour)
	if _, err := g.batch(g.write(100_000, 100_000)); err != nil {
		t.Fatal(err)
	}
	tick(0)
	tick(askAfter, [2]uint64{111, 10_110})
}
