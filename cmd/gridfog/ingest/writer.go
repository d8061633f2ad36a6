package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gridgate/agent/batch"
	"gridgate/internal/backoff"
	"gridgate/internal/mqtt"
)

const (
	// maxPack bounds what one transaction stores, in bytes of messages: some
	// 30,000 readings.
	maxPack = 64 << 10
	// maxPackLetters bounds it in messages.
	maxPackLetters = 500
	// maxInbox bounds what waits for a writer, in bytes of messages.
	maxInbox = 64 << 20
	// transactionTime bounds one attempt to store a pack.
	transactionTime = 5 * time.Minute
	// maxCatalogues is how many catalogues are kept in memory.
	maxCatalogues = 4096
)

// writer stores letters: it takes what waits, decodes it and commits it in one
// transaction, then tells who sent it. A transaction that fails is tried again
// with the same letters until it succeeds; a letter that the database refuses by
// itself becomes a dead letter.
type writer struct {
	url      string
	log      *slog.Logger
	counts   *counters
	wait     time.Duration // for a catalogue
	inbox    *inbox
	retry    backoff.Backoff
	deadRate map[string]*allowance
	limits   limits

	conn       *pgx.Conn // nil while there is none
	decoder    decoder
	names      names
	streams    map[streamKey]*streamRef
	catalogues map[batch.Hash]*batch.Catalogue
	weeks      map[int64]bool // that have a partition; nil for a hypertable
	waiting    waiting
	allLearnt  map[[2]string]*learnt
	staged     int // for how many packs rows pass through the stage

	// commitAs is commit; a test puts a wrong one here, to see that it finds out.
	commitAs func(ctx context.Context, p *pack, now time.Time) (*outcome, error)
}

// streamRef is a stream's number in the database.
type streamRef struct{ id int32 }

// inbox is what waits for a writer.
type inbox struct {
	kick chan struct{} // has a token when there is something

	mu      sync.Mutex
	letters []*letter
	bytes   int
}

func newInbox() *inbox { return &inbox{kick: make(chan struct{}, 1)} }

// put adds a letter; false says that too much waits already.
func (b *inbox) put(l *letter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes > 0 && b.bytes+len(l.payload) > maxInbox {
		return false
	}
	b.letters, b.bytes = append(b.letters, l), b.bytes+len(l.payload)
	select {
	case b.kick <- struct{}{}:
	default:
	}
	return true
}

// take gives what one transaction is to store.
func (b *inbox) take() []*letter {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, size := 0, 0
	for n < len(b.letters) && n < maxPackLetters && (n == 0 || size+len(b.letters[n].payload) <= maxPack) {
		size += len(b.letters[n].payload)
		n++
	}
	taken := b.letters[:n:n]
	b.letters, b.bytes = b.letters[n:], b.bytes-size
	if len(b.letters) == 0 {
		b.letters = nil
	} else {
		select {
		case b.kick <- struct{}{}:
		default:
		}
	}
	return taken
}

func (b *inbox) waits() (letters, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.letters), b.bytes
}

// run stores until ctx is cancelled.
func (w *writer) run(ctx context.Context) {
	defer w.disconnect(ctx)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.inbox.kick:
		case <-tick.C:
		}
		late := w.waiting.late(time.Now().Add(-w.wait))
		letters := append(w.inbox.take(), late...)
		if len(letters) == 0 {
			continue
		}
		if err := w.store(ctx, letters); err != nil {
			return // ctx has ended: what was not committed was not acknowledged
		}
		w.waiting.done(setOf(late))
	}
}

func setOf(letters []*letter) map[*letter]bool {
	s := map[*letter]bool{}
	for _, l := range letters {
		s[l] = true
	}
	return s
}

// store commits letters, however often that takes. Its only error is ctx's.
func (w *writer) store(ctx context.Context, letters []*letter) error {
	said := ""
	for tries := 1; ; tries++ {
		err := w.attempt(ctx, letters)
		if err == nil {
			if said != "" {
				w.log.Info("the database stores again")
			}
			w.retry.Reset()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.counts.add(func(c *Counts) { c.Retries++ })
		if text := err.Error(); text != said {
			said = text
			w.log.Warn("the database does not store; trying again", "error", err)
		}
		clear(w.weeks) // one may have been dropped
		if isData(err) && tries > 1 {
			return w.divide(ctx, letters, err)
		}
		if isDead(err) || w.conn == nil || w.conn.IsClosed() {
			w.disconnect(ctx)
		}
		if w.retry.Wait(ctx) != nil {
			return ctx.Err()
		}
	}
}

// divide stores letters one by one, so that the one that the database refuses is
// found: it becomes a dead letter.
func (w *writer) divide(ctx context.Context, letters []*letter, cause error) error {
	if len(letters) == 1 {
		if letters[0].fault != nil { // even as a dead letter
			w.log.Error("a message cannot be stored, not even as a dead letter; it is dropped", "topic", letters[0].name, "error", cause)
			letters[0].ack()
			return nil //nolint:nilerr // it is said
		}
		if l := letters[0]; l.topic.Kind == mqtt.Catalogue && !l.alone {
			return w.apart(ctx, l)
		}
		letters[0].fault = refused(reasonDatabase, "%v", cause)
		return w.store(ctx, letters)
	}
	for _, l := range letters {
		if err := w.store(ctx, []*letter{l}); err != nil {
			return err
		}
	}
	return nil
}

// apart stores a catalogue, and then one by one the batches that wait for it:
// the database may refuse one of those.
func (w *writer) apart(ctx context.Context, l *letter) error {
	l.alone = true
	if err := w.store(ctx, []*letter{l}); err != nil {
		return err
	}
	for _, waits := range w.waiting.of(batch.Hash(l.topic.Hash)) {
		if err := w.store(ctx, []*letter{waits}); err != nil {
			return err
		}
		w.waiting.done(setOf([]*letter{waits}))
	}
	return nil
}

// isData says that an error is about the values, and comes again with them.
func isData(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) || len(e.Code) != 5 {
		return false
	}
	// 23505 is two transactions that revise one reading: the next attempt sees the other's.
	return e.Code[:2] == "22" || e.Code[:2] == "23" && e.Code != "23505" || e.Code[:2] == "54"
}

// isDead says that a connection is of no use any more.
func isDead(err error) bool {
	var e *pgconn.PgError
	return !errors.As(err, &e) || e.Code[:2] == "57" || e.Code[:2] == "08" || e.Code[:2] == "XX"
}

// attempt is one try to commit letters.
func (w *writer) attempt(ctx context.Context, letters []*letter) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTime)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return err
	}
	now := time.Now()
	p, err := w.open(ctx, letters, now)
	if err != nil {
		return err
	}
	if err := w.partitions(ctx, p); err != nil {
		return err
	}
	done, err := w.commitAs(ctx, p, now)
	if err != nil {
		return err
	}
	w.waiting.done(p.waits)
	w.tell(p, done, now)
	return nil
}

// tell says what was committed, after the commit.
func (w *writer) tell(p *pack, done *outcome, now time.Time) {
	for _, l := range p.letters {
		l.ack()
	}
	for _, b := range p.batches {
		s := done.streams[b.stream.id]
		b.letter.from.settled(b.key, progress{through: s.through(), high: s.high, missing: s.missing()})
	}
	for _, d := range p.dead {
		d.letter.from.refused(d)
	}
	w.counts.add(func(c *Counts) {
		c.Transactions++
		c.Messages += uint64(len(p.letters))
		c.Rows += uint64(done.stored)
		c.Again += uint64(done.again)
		c.Equal += uint64(done.equal)
		c.Revisions += uint64(done.revised)
		c.Lost += uint64(done.lost)
		for _, d := range p.dead {
			c.Refused[d.reason]++
		}
		for _, l := range p.letters {
			c.Lag = max(c.Lag, now.Sub(l.at))
		}
		c.Late = time.Since(now)
	})
}

// connect opens the connection when there is none.
func (w *writer) connect(ctx context.Context) error {
	if w.conn != nil {
		return nil
	}
	conn, err := connect(ctx, w.url)
	if err != nil {
		return err
	}
	if err := w.prepare(ctx, conn); err != nil {
		_ = conn.Close(ctx)
		return err
	}
	w.conn = conn
	w.names.clear() // the database may have been restored from a backup
	w.streams, w.catalogues = map[streamKey]*streamRef{}, map[batch.Hash]*batch.Catalogue{}
	return nil
}

// prepare makes the table that rows pass through, and looks which partitions
// there are.
func (w *writer) prepare(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, stageTable); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	var kind string
	if err := conn.QueryRow(ctx, "SELECT relkind::text FROM pg_class WHERE oid = 'readings'::regclass").Scan(&kind); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	w.weeks = nil
	if kind == "p" {
		w.weeks = map[int64]bool{}
	}
	return nil
}

func (w *writer) disconnect(ctx context.Context) {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx)
	w.conn = nil
}

// stream gives a stream's number, which is committed before it is used. Its
// errors are of the database, or a refusal.
func (w *writer) stream(ctx context.Context, k streamKey) (*streamRef, error) {
	if s := w.streams[k]; s != nil {
		return s, nil
	}
	s := &streamRef{}
	const find = "SELECT id FROM streams WHERE site = $1 AND gateway = $2 AND epoch = $3 AND lane = $4"
	key := []any{k.Site, k.Gateway, epochText(k.Epoch), int(k.Lane)}
	err := w.conn.QueryRow(ctx, find, key...).Scan(&s.id)
	if errors.Is(err, pgx.ErrNoRows) {
		known := w.learnt(k.Site, k.Gateway, time.Now())
		if known.streams >= w.limits.streams {
			return nil, tooMany("%d streams (site, gateway, epoch, lane)", w.limits.streams)
		}
		known.streams++
		if _, err = w.conn.Exec(ctx, "INSERT INTO streams (site, gateway, epoch, lane) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", key...); err == nil {
			err = w.conn.QueryRow(ctx, find, key...).Scan(&s.id)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream of gateway %s: %w", k.Gateway, err)
	}
	if len(w.streams) > maxNames {
		clear(w.streams)
	}
	w.streams[k] = s
	return s, nil
}

func epochText(e uint64) string { return fmt.Sprintf("%016x", e) }

// catalogue gives a catalogue that was stored, nil when there is none of that
// hash.
func (w *writer) catalogue(ctx context.Context, h batch.Hash) (*batch.Catalogue, error) {
	if c := w.catalogues[h]; c != nil {
		return c, nil
	}
	var bytes []byte
	err := w.conn.QueryRow(ctx, "SELECT bytes FROM catalogues WHERE hash = $1", h.String()).Scan(&bytes)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", h, err)
	}
	c, err := batch.ParseCatalogue(bytes)
	if err != nil || c.Hash() != h {
		w.log.Error("a stored catalogue is unreadable", "hash", h.String(), "error", err)
		return nil, nil
	}
	w.remember(c)
	return c, nil
}

func (w *writer) remember(c *batch.Catalogue) {
	if len(w.catalogues) >= maxCatalogues {
		clear(w.catalogues)
	}
	w.catalogues[c.Hash()] = c
}
