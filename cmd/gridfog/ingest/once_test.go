package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
)

// content is what is compared of two readings under one key.
type content struct {
	bits    uint64
	quality batch.Quality
}

// model is what the database should hold: under each key the contents that came.
type model map[string]map[content]bool

func (m model) add(r *batch.Row) {
	key := fmt.Sprint(r.Serial, r.Channel, r.Stamp.Time, r.Occurrence)
	if m[key] == nil {
		m[key] = map[content]bool{}
	}
	m[key][content{r.Value.Bits, r.Quality}] = true
}

// compare holds the rows of a site against the model.
func (m model) compare(t *testing.T, conn *pgx.Conn, site string) (revisions int) {
	t.Helper()
	rows, err := conn.Query(context.Background(), `SELECT serial, channel, (extract(epoch FROM time) * 1000)::bigint, occurrence, revision,
		(value * 100)::bigint, quality_bits FROM all_readings WHERE site = $1 ORDER BY 1, 2, 3, 4, 5`, site)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	total, next, last := 0, 0, ""
	for rows.Next() {
		var serial, channel string
		var at, value, quality int64
		var occurrence uint8
		var revision int
		if err := rows.Scan(&serial, &channel, &at, &occurrence, &revision, &value, &quality); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(serial, channel, at, occurrence)
		if key != last {
			last, next = key, 0
		}
		c := content{uint64(value), batch.Quality(quality)}
		if !m[key][c] || revision != next {
			t.Errorf("%s: revision %d has %v, which is not due there: want %v", key, revision, c, m[key])
		}
		delete(m[key], c) // a second one is too much
		next++
		total++
		if revision > 0 {
			revisions++
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for key, left := range m {
		for c := range left {
			t.Errorf("%s: %v is missing", key, c)
		}
	}
	if total == 0 {
		t.Error("nothing is stored")
	}
	return revisions
}

// chaos sends the rows of some gateways in batches that come in any order, more
// than once and of several epochs, by two members at a time whose connections
// are cut, and in the end once more what is missing.
type chaos struct {
	t       *testing.T
	random  *rand.Rand
	box     *postbox
	writers []*writer
	senders []*sender
	model   model
}

func newChaos(t *testing.T, url, site string, seed uint64) *chaos {
	c := &chaos{t: t, random: rand.New(rand.NewPCG(seed, 7)), box: &postbox{}, model: model{}}
	c.writers = []*writer{newTestWriter(t, url), newTestWriter(t, url)}
	for g := range 3 {
		rows := profile(2, 2, 4+c.random.IntN(20))
		for i := range rows {
			rows[i].Serial = fmt.Sprint(g, rows[i].Serial)
			if c.random.IntN(10) == 0 { // read twice, and not always the same
				again := rows[c.random.IntN(i+1)]
				if again.Meter != "" {
					again.Value.Bits += uint64(c.random.IntN(2))
					again.Quality = batch.Quality(c.random.IntN(2)) << 5
					again.Occurrence = uint8(c.random.IntN(2))
					again.Serial = fmt.Sprint(g, again.Serial[1:])
					rows[i] = again
				}
			}
			if c.random.IntN(20) == 0 {
				rows[i] = batch.Row{} // a hole
			}
		}
		catalogue := batch.NewCatalogue()
		for epoch := range uint64(1 + c.random.IntN(3)) { // what was in the store comes again from the next one
			s := &sender{site: site, gateway: fmt.Sprint("g", g), epoch: 1 + epoch, lane: batch.Interval, catalogue: catalogue}
			s.rows = append(s.rows, rows[c.random.IntN(len(rows)/2):]...)
			c.senders = append(c.senders, s)
			for i := range s.rows {
				if s.rows[i].Meter != "" {
					c.model.add(&s.rows[i])
				}
			}
		}
	}
	return c
}

// send gives letters to one of the members, and perhaps cuts it off meanwhile.
func (c *chaos) send(letters []*letter) {
	w := c.writers[c.random.IntN(len(c.writers))]
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	cut := c.random.IntN(4) == 0
	if cut {
		ctx, cancel = context.WithTimeout(c.t.Context(), time.Duration(c.random.IntN(6_000_000)))
	}
	defer cancel()
	err := w.attempt(ctx, letters)
	if err != nil && !cut {
		c.t.Fatal(err)
	}
	if err != nil || c.random.IntN(10) == 0 {
		w.disconnect(context.Background()) // a member that died
	}
}

func (c *chaos) run() {
	var letters []*letter
	for range 60 {
		s := c.senders[c.random.IntN(len(c.senders))]
		first := 1 + c.random.IntN(len(s.rows))
		last := min(first+c.random.IntN(8), len(s.rows))
		b := c.box.message(s.topic(), s.batch(c.t, first, last))
		letters = append(letters, c.box.message(s.catalog()), b)
		if c.random.IntN(3) == 0 {
			c.random.Shuffle(len(letters), func(i, j int) { letters[i], letters[j] = letters[j], letters[i] })
		}
		if c.random.IntN(3) > 0 {
			n := c.random.IntN(len(letters) + 1)
			c.send(letters[:n])
			if c.random.IntN(3) > 0 {
				letters = letters[n:] // else they come again
			}
		}
	}
	for _, s := range c.senders { // what a gateway does for what was not confirmed
		if err := c.writers[0].attempt(c.t.Context(), []*letter{c.box.message(s.catalog()), c.box.message(s.topic(), s.batch(c.t, 1, len(s.rows)))}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestOnce: whatever happens on the way, in the end each reading is stored once,
// and each that differs as a revision.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	conn := s.Connect(url)
	revisions := 0
	for seed := range uint64(8) {
		c := newChaos(t, url, fmt.Sprint("site", seed), seed)
		c.run()
		revisions += c.model.compare(t, conn, fmt.Sprint("site", seed))
		for _, s := range c.senders {
			k := streamKey{s.site, s.gateway, s.epoch, s.lane}
			if p := c.box.progress[k]; p.through != int64(len(s.rows)) || len(p.missing) > 0 {
				t.Errorf("%+v: %+v of %d", k, p, len(s.rows))
			}
		}
		if len(c.box.dead) > 0 {
			t.Errorf("refused: %v", c.box.dead[0].refusal)
		}
		for _, w := range c.writers {
			w.disconnect(context.Background())
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if revisions == 0 {
		t.Error("there were no revisions to look at")
	}
	if n := scalar(t, conn, "SELECT count(*) FROM (SELECT FROM readings GROUP BY stream, sequence HAVING count(*) > 1) x"); n > 0 {
		t.Errorf("%d numbers have two rows", n)
	}
}

// TestWatermarkOutsideLoses is the negative control of TestOnce: with how far a
// stream is committed in a transaction of its own, a member that dies between the
// two loses rows, and nobody asks for them.
func TestWatermarkOutsideLoses(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	for _, outside := range []bool{false, true} {
		url := database(t, s)
		w, box := newTestWriter(t, url), &postbox{}
		died := errors.New("died")
		from := sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(1, 1, 10)}
		payload := from.batch(t, 1, 10)
		letters := []*letter{box.message(from.catalog()), box.message(from.topic(), payload)}
		w.commitAs = func(ctx context.Context, p *pack, now time.Time) (*outcome, error) {
			tx, err := w.conn.Begin(ctx)
			if err != nil {
				return nil, err
			}
			defer func() { _ = tx.Rollback(ctx) }()
			done, err := lockStreams(ctx, tx, p)
			if err != nil {
				return nil, err
			}
			_ = done.take(p, now)
			err = done.save(ctx, tx, now)
			if err == nil && outside {
				err = tx.Commit(ctx)
			}
			return nil, errors.Join(err, died)
		}
		if err := w.attempt(t.Context(), letters); !errors.Is(err, died) {
			t.Fatal(err)
		}
		w.disconnect(context.Background())
		if box.acked != 0 || len(box.progress) != 0 {
			t.Error("what was not committed was acknowledged")
		}
		again := newTestWriter(t, url)
		if err := again.attempt(t.Context(), letters); err != nil {
			t.Fatal(err)
		}
		want := int64(10)
		if outside {
			want = 0
		}
		if n := scalar(t, s.Connect(url), "SELECT count(*) FROM readings"); n != want {
			t.Errorf("watermark outside %v: %d rows, want %d", outside, n, want)
		}
		again.disconnect(context.Background())
	}
}

// TestTwoHoldOneSite: two members that get the same messages at the same time, as
// when one does not know yet that it has lost a site, store them once.
func TestTwoHoldOneSite(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := database(t, s)
	want := model{}
	from := &sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(10, 3, 20)}
	for i := range from.rows {
		want.add(&from.rows[i])
	}
	var payloads [][]byte
	for n := 1; n <= len(from.rows); n += 20 {
		payloads = append(payloads, from.batch(t, n, n+19))
	}
	var both sync.WaitGroup
	for member := range uint64(2) {
		w, box := newTestWriter(t, url), &postbox{}
		random := rand.New(rand.NewPCG(member, 3))
		both.Go(func() {
			letters := []*letter{box.message(from.catalog())}
			for _, i := range random.Perm(len(payloads)) {
				letters = append(letters, box.message(from.topic(), payloads[i]))
				if random.IntN(2) == 0 {
					if err := w.store(t.Context(), letters); err != nil {
						t.Error(err)
					}
					letters = nil
				}
			}
			if err := w.store(t.Context(), append(letters, box.message(from.catalog()))); err != nil {
				t.Error(err)
			}
			w.disconnect(t.Context())
		})
	}
	both.Wait()
	if n := want.compare(t, s.Connect(url), "s"); n != 0 {
		t.Errorf("%d revisions", n)
	}
}
