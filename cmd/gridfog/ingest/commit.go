package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// stageTable is where rows wait, within a transaction, for the look whether
// they are there already.
const stageTable = `CREATE TEMP TABLE IF NOT EXISTS stage (
	time timestamptz, meter int, channel int, occurrence smallint, lane smallint, kind smallint, unit smallint, source smallint, stream int,
	quality bigint, period bigint, bound bigint, sequence bigint, value numeric, text text, octets bytea, status numeric) ON COMMIT DELETE ROWS`

// merge stores what has no row under its key yet.
const merge = `INSERT INTO readings (` + stageColumns + `, revision) SELECT ` + stageColumns + `, 0 FROM stage
	ORDER BY meter, channel, time, occurrence, stream, sequence ON CONFLICT DO NOTHING`

// equal compares a row r that is stored with s of the stage, of one key.
const (
	sameKey = `r.meter = s.meter AND r.channel = s.channel AND r.time = s.time AND r.occurrence = s.occurrence`
	equal   = sameKey + ` AND r.value IS NOT DISTINCT FROM s.value AND r.text IS NOT DISTINCT FROM s.text
		AND r.octets IS NOT DISTINCT FROM s.octets AND r.unit = s.unit AND r.quality = s.quality AND r.period = s.period
		AND r.status IS NOT DISTINCT FROM s.status`
)

// revise stores what differs from all rows under its key as its next revisions.
const revise = `INSERT INTO readings (` + stageColumns + `, revision)
	SELECT ` + stageColumns + `, (SELECT max(r.revision) FROM readings r WHERE ` + sameKey + `)
			+ row_number() OVER (PARTITION BY meter, channel, time, occurrence ORDER BY stream, sequence)
	FROM (SELECT DISTINCT ON (meter, channel, time, occurrence, value, text, octets, unit, quality, period, status) * FROM stage s
		WHERE NOT EXISTS (SELECT FROM readings r WHERE ` + equal + `)
		ORDER BY meter, channel, time, occurrence, value, text, octets, unit, quality, period, status, stream, sequence) s`

// promote gives a reading that came again by a more important lane that lane: a
// row of a load profile may be a bill too.
const promote = `UPDATE readings r SET lane = s.lane FROM stage s WHERE ` + equal + ` AND s.lane < r.lane`

// outcome is what a commit did.
type outcome struct {
	streams map[int32]*stream
	keys    map[int32]streamKey

	stored  int64 // rows, revisions included
	revised int64
	again   int64 // rows whose number was stored already
	equal   int64 // rows that were stored under another number
	lost    int64 // numbers newly declared lost
	holes   []holeRow
}

type holeRow struct {
	stream      int32
	first, last int64
	reason      string
	count       int64
}

// commit stores a pack in one transaction: rows, how far the streams are,
// holes, catalogues, dead letters.
func (w *writer) commit(ctx context.Context, p *pack, now time.Time) (done *outcome, err error) {
	tx, err := w.conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil && !w.conn.IsClosed() {
			_ = tx.Rollback(context.WithoutCancel(ctx))
		}
	}()
	done, err = lockStreams(ctx, tx, p)
	if err != nil {
		return nil, err
	}
	if err = w.rows(ctx, tx, done.take(p, now), done); err == nil {
		err = done.save(ctx, tx, now)
	}
	if err == nil {
		err = w.others(ctx, tx, p)
	}
	if err != nil {
		return nil, err
	}
	if err = tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return done, nil
}

// lockStreams reads the streams of a pack for this transaction alone. That makes
// a row stored once even when two members hold one site for a moment.
func lockStreams(ctx context.Context, tx pgx.Tx, p *pack) (*outcome, error) {
	o := &outcome{streams: map[int32]*stream{}, keys: map[int32]streamKey{}}
	for _, b := range p.batches {
		o.keys[b.stream.id] = b.key
	}
	if len(o.keys) == 0 {
		return o, nil
	}
	rows, err := tx.Query(ctx, `SELECT id, floor, stored::text, lost::text, high, rows, gap_since FROM streams WHERE id = ANY($1) ORDER BY id FOR UPDATE`,
		slices.Sorted(maps.Keys(o.keys)))
	if err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		s, err := scanStream(rows)
		if err != nil {
			return nil, fmt.Errorf("streams: %w", err)
		}
		o.streams[s.id] = s
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	if len(o.streams) != len(o.keys) {
		return nil, fmt.Errorf("streams: %d of %d are gone", len(o.keys)-len(o.streams), len(o.keys))
	}
	return o, nil
}

func scanStream(row pgx.Row, more ...any) (*stream, error) {
	s := &stream{}
	var stored, lost string
	var since *time.Time
	err := row.Scan(append([]any{&s.id, &s.floor, &stored, &lost, &s.high, &s.rows, &since}, more...)...)
	if err == nil {
		s.stored, err = parseNumbers(stored)
	}
	if err == nil {
		s.lost, err = parseNumbers(lost)
	}
	if since != nil {
		s.gapSince = *since
	}
	return s, err
}

// take moves the streams on by a pack, and gives the tuples of the rows that
// are not stored yet, framed for COPY.
func (o *outcome) take(p *pack, now time.Time) []byte {
	tuples := []byte(copyHeader)
	for _, b := range p.batches {
		s := o.streams[b.stream.id]
		for _, r := range b.runs {
			s.high = max(s.high, r.last)
		}
		if !b.base {
			tuples = o.takeRows(tuples, b, s)
		}
		for _, h := range b.holes {
			o.lose(s, h.first, h.last, h.reason, h.count)
		}
		if len(s.stored)+len(s.lost) > maxStretches {
			gaps := s.missing()
			for _, gap := range gaps[:(len(gaps)+1)/2] {
				o.lose(s, gap.first, gap.last, reasonManyGaps, 0)
			}
			s.settle(now)
		}
	}
	for _, s := range o.streams {
		s.settle(now)
	}
	return append(tuples, copyTrailer...)
}

// maxStretches bounds how scattered the numbers of a stream may be.
const maxStretches = 10_000

func (o *outcome) takeRows(tuples []byte, b *packed, s *stream) []byte {
	row := 0
	for _, r := range b.runs {
		for _, part := range s.stored.without(max(r.first, s.floor+1), r.last) {
			from, to := row+int(part.first-r.first), row+int(part.last-r.first)
			begin := 0
			if from > 0 {
				begin = b.ends[from-1]
			}
			tuples = append(tuples, b.rows[begin:b.ends[to]]...)
			fresh := part.last - part.first + 1
			s.rows += fresh
			o.stored += fresh
		}
		row += int(r.last - r.first + 1)
		o.again += r.last - r.first + 1
		s.store(r.first, r.last)
	}
	for _, r := range b.bad {
		o.holes = append(o.holes, holeRow{s.id, r.first, r.last, reasonTime, 1})
	}
	return tuples
}

// lose declares numbers lost that are neither stored nor lost yet.
func (o *outcome) lose(s *stream, first, last int64, reason string, count int64) {
	for i, f := range s.lose(first, last) {
		if i > 0 {
			count = 0 // how the rows lie among the parts nobody knows
		}
		o.holes = append(o.holes, holeRow{s.id, f.first, f.last, reason, count})
		o.lost += f.last - f.first + 1
	}
}

// stagedPacks is for how many packs rows pass through the stage after one had
// rows that were there already.
const stagedPacks = 20

// rows stores tuples. Straight into the table is half the work; when some are
// there already that fails, and they pass through the stage.
func (w *writer) rows(ctx context.Context, tx pgx.Tx, tuples []byte, o *outcome) error {
	candidates := o.stored
	o.again -= candidates
	o.stored = 0
	if len(tuples) == len(copyHeader)+len(copyTrailer) {
		return nil
	}
	if w.staged > 0 {
		w.staged--
		return stageRows(ctx, tx, tuples, o)
	}
	err := pgx.BeginFunc(ctx, tx, func(within pgx.Tx) (err error) { // a savepoint
		o.stored, err = copyRows(ctx, within, "readings", tuples)
		return err
	})
	var known *pgconn.PgError
	if errors.As(err, &known) && known.Code == "23505" {
		w.staged = stagedPacks
		return stageRows(ctx, tx, tuples, o)
	}
	return err
}

// copyRows copies tuples into a table and gives how many.
func copyRows(ctx context.Context, tx pgx.Tx, table string, tuples []byte) (int64, error) {
	tag, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(tuples), "COPY "+table+" ("+stageColumns+") FROM STDIN BINARY")
	if err != nil {
		return 0, fmt.Errorf("copy: %w", err)
	}
	return tag.RowsAffected(), nil
}

// stageRows stores what is not there yet.
func stageRows(ctx context.Context, tx pgx.Tx, tuples []byte, o *outcome) error {
	staged, err := copyRows(ctx, tx, "stage", tuples)
	if err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, merge)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	o.stored = tag.RowsAffected()
	if o.stored == staged {
		return nil
	}
	if _, err := tx.Exec(ctx, "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if tag, err = tx.Exec(ctx, revise); err != nil {
		return fmt.Errorf("store revisions: %w", err)
	}
	o.revised = tag.RowsAffected()
	o.stored += o.revised
	o.equal = staged - o.stored
	if _, err = tx.Exec(ctx, promote); err != nil {
		return fmt.Errorf("store lanes: %w", err)
	}
	return nil
}

// save writes how far the streams are, and the holes.
func (o *outcome) save(ctx context.Context, tx pgx.Tx, now time.Time) error {
	if len(o.streams) == 0 {
		return nil
	}
	var ids []int32
	var through, floor, high, rows []int64
	var stored, lost []string
	var since []*time.Time
	for _, id := range slices.Sorted(maps.Keys(o.streams)) {
		s := o.streams[id]
		ids, through, floor, high, rows = append(ids, id), append(through, s.through()), append(floor, s.floor), append(high, s.high), append(rows, s.rows)
		stored, lost = append(stored, s.stored.String()), append(lost, s.lost.String())
		if s.gapSince.IsZero() {
			since = append(since, nil)
		} else {
			since = append(since, &s.gapSince)
		}
	}
	_, err := tx.Exec(ctx, `UPDATE streams t SET through = n.through, floor = n.floor, high = n.high, rows = n.rows,
			stored = n.stored::int8multirange, lost = n.lost::int8multirange, gap_since = n.since, last_at = $9
		FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::timestamptz[])
			n(id, through, floor, high, rows, stored, lost, since)
		WHERE t.id = n.id`, ids, through, floor, high, rows, stored, lost, since, now)
	if err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	return o.saveHoles(ctx, tx)
}

func (o *outcome) saveHoles(ctx context.Context, tx pgx.Tx) error {
	if len(o.holes) == 0 {
		return nil
	}
	var ids []int32
	var first, last, count []int64
	var reason []string
	for _, h := range o.holes {
		ids, first, last = append(ids, h.stream), append(first, h.first), append(last, h.last)
		count, reason = append(count, h.count), append(reason, h.reason)
	}
	_, err := tx.Exec(ctx, `INSERT INTO holes (stream, first, last, reason, count)
		SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[]) ON CONFLICT DO NOTHING`, ids, first, last, reason, count)
	if err != nil {
		return fmt.Errorf("holes: %w", err)
	}
	return nil
}

// maxDeadLetter is how much of a dead letter is kept, in bytes.
const maxDeadLetter = 128 << 10

// keptLetters is how many dead letters of a gateway are kept, the newest.
const keptLetters = 1000

// maxDetail bounds what is said of one, in bytes.
const maxDetail = 2000

// others stores catalogues and dead letters.
func (w *writer) others(ctx context.Context, tx pgx.Tx, p *pack) error {
	var b pgx.Batch
	for _, l := range p.catalogues {
		b.Queue("INSERT INTO catalogues (hash, site, gateway, bytes) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
			fmt.Sprintf("%x", l.topic.Hash), string(l.topic.Site), string(l.topic.Gateway), l.payload)
	}
	for _, d := range p.dead {
		l := d.letter
		digest := sha256.Sum256(l.payload)
		kept := l.payload[:min(len(l.payload), maxDeadLetter)]
		if !w.allowed(l) {
			kept = []byte{}
		}
		b.Queue(`INSERT INTO dead_letters (site, gateway, topic, reason, detail, size, payload, digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (topic, digest) DO UPDATE SET times = dead_letters.times + 1, last_at = now(), reason = $4, detail = $5`,
			string(l.topic.Site), string(l.topic.Gateway), clean(l.name), d.reason, clean(d.detail[:min(len(d.detail), maxDetail)]), len(l.payload), kept, digest[:])
	}
	from := map[[2]string]bool{}
	for _, d := range p.dead {
		from[[2]string{string(d.letter.topic.Site), string(d.letter.topic.Gateway)}] = true
	}
	for f := range from {
		b.Queue(`DELETE FROM dead_letters WHERE site = $1 AND gateway = $2 AND id <=
			(SELECT id FROM dead_letters WHERE site = $1 AND gateway = $2 ORDER BY id DESC OFFSET $3 LIMIT 1)`, f[0], f[1], keptLetters)
	}
	if b.Len() == 0 {
		return nil
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("catalogues and dead letters: %w", err)
	}
	return nil
}

// lettersAMinute is how many dead letters of a gateway are kept whole; of more
// only what is wrong with them.
const lettersAMinute = 60

// allowance counts the dead letters of a gateway within a minute.
type allowance struct{ minute, letters int64 }

func (w *writer) allowed(l *letter) bool {
	if w.deadRate == nil || len(w.deadRate) > maxCatalogues {
		w.deadRate = map[string]*allowance{}
	}
	name := string(l.topic.Site) + "/" + string(l.topic.Gateway)
	a := w.deadRate[name]
	if a == nil {
		a = &allowance{}
		w.deadRate[name] = a
	}
	if minute := time.Now().Unix() / 60; minute != a.minute {
		a.minute, a.letters = minute, 0
	}
	a.letters++
	return a.letters <= lettersAMinute
}
