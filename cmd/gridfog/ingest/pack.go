package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/mqtt"
)

// letter is a message of the broker on its way into the database.
type letter struct {
	topic   mqtt.Topic
	name    string // of the topic, as it came
	payload []byte
	at      time.Time
	from    mailer
	ack     func() // sends the PUBACK
	fault   *refusal
	loss    *loss // numbers that are given up; then it is no message at all
	alone   bool  // of a catalogue: what waits for it is stored apart
}

// loss is numbers of a stream that are waited for no more.
type loss struct {
	key         streamKey
	first, last int64
	reason      string
}

// mailer is who a letter came from, and who gets what comes of it. Its methods
// do not block.
type mailer interface {
	// settled tells how far a stream is after a commit.
	settled(key streamKey, s progress)
	// refused tells of a dead letter.
	refused(d deadLetter)
	// wantsCatalogue tells that a gateway's catalogue is not known.
	wantsCatalogue(gateway string)
}

// progress is how far a stream is.
type progress struct {
	through int64
	high    int64
	missing numbers
}

// deadLetter is a message that was refused.
type deadLetter struct {
	letter *letter
	refusal
}

// packed is a batch whose rows are ready for COPY.
type packed struct {
	letter *letter
	key    streamKey
	stream *streamRef
	runs   []stretch
	holes  []holeRow
	rows   []byte // tuples, one after the other
	ends   []int  // where each row's tuple ends; one that is refused has none
	bad    []stretch
	base   bool // it could not be decoded, its base is not known: nothing is stored
}

// pack is what one transaction stores.
type pack struct {
	letters    []*letter
	batches    []*packed
	catalogues []*letter
	dead       []deadLetter
	weeks      map[int64]bool
	waits      map[*letter]bool // which wait for their catalogue, and are no part of it
}

// open decodes letters and makes a pack of them. Errors are of the database;
// what is wrong with a letter is in the pack.
func (w *writer) open(ctx context.Context, letters []*letter, now time.Time) (*pack, error) {
	p := &pack{letters: letters, weeks: map[int64]bool{}, waits: map[*letter]bool{}}
	for _, l := range letters {
		var err error
		switch {
		case p.waits[l]: // its catalogue has come at the last moment
		case l.loss != nil:
			err = w.openLoss(ctx, p, l)
		case l.fault != nil:
			p.refuse(l, l.fault)
		case l.topic.Kind == mqtt.Catalogue:
			err = w.openCatalogue(ctx, p, l, now)
		default:
			err = w.openBatch(ctx, p, l, now)
		}
		var over *refusal
		if errors.As(err, &over) {
			p.refuse(l, err)
		} else if err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pack) refuse(l *letter, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		r = refused(reasonGarbled, "%v", err)
	}
	p.dead = append(p.dead, deadLetter{l, *r})
}

// openLoss gives numbers up.
func (w *writer) openLoss(ctx context.Context, p *pack, l *letter) error {
	ref, err := w.stream(ctx, l.loss.key)
	if err != nil {
		return err
	}
	hole := holeRow{ref.id, l.loss.first, l.loss.last, l.loss.reason, 0}
	p.batches = append(p.batches, &packed{letter: l, key: l.loss.key, stream: ref, holes: []holeRow{hole}, base: true})
	return nil
}

// openCatalogue takes a catalogue, and the batches that wait for it.
func (w *writer) openCatalogue(ctx context.Context, p *pack, l *letter, now time.Time) error {
	c, err := parseCatalogue(l.topic, l.payload)
	if err != nil {
		p.refuse(l, err)
		return nil
	}
	known, err := w.catalogue(ctx, c.Hash())
	if err != nil {
		return err
	}
	if from := w.learnt(string(l.topic.Site), string(l.topic.Gateway), now); known == nil {
		if from.catalogues+len(l.payload) > w.limits.catalogues {
			return tooMany("%d bytes of catalogues", w.limits.catalogues)
		}
		from.catalogues += len(l.payload)
	}
	p.catalogues = append(p.catalogues, l)
	w.remember(c)
	if l.alone {
		return nil
	}
	return w.openWaiting(ctx, p, c.Hash(), now)
}

// openWaiting opens the batches that wait for a catalogue. They stay among the
// waiting until the pack is committed.
func (w *writer) openWaiting(ctx context.Context, p *pack, hash batch.Hash, now time.Time) error {
	for _, l := range w.waiting.of(hash) {
		if p.waits[l] {
			continue
		}
		p.waits[l] = true
		p.letters = append(p.letters, l)
		err := w.openBatch(ctx, p, l, now)
		var over *refusal
		if errors.As(err, &over) {
			p.refuse(l, err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// openBatch decodes a batch and makes its tuples. Its errors are of the database,
// or a refusal.
func (w *writer) openBatch(ctx context.Context, p *pack, l *letter, now time.Time) error {
	var dberr error
	find := func(h batch.Hash) (c *batch.Catalogue) {
		c, dberr = w.catalogue(ctx, h)
		return c
	}
	h, span, err := w.decoder.parse(l.topic, l.payload, find)
	if dberr != nil {
		return dberr
	}
	var unknown *batch.UnknownCatalogueError
	if errors.As(err, &unknown) {
		if gone := w.waiting.put(l, unknown.Hash, now); gone != nil {
			p.refuse(gone, refused(reasonCatalogue, "catalogue %s did not come", unknown.Hash))
		}
		l.from.wantsCatalogue(h.Gateway)
		return nil
	}
	var base *batch.UnknownBaseError
	if err != nil && !errors.As(err, &base) {
		p.refuse(l, err)
		if len(span.Runs) == 0 && len(span.Holes) == 0 {
			return nil
		}
	}
	b := &packed{letter: l, key: streamKey{h.Site, h.Gateway, h.Epoch, h.Lane}, base: err != nil}
	if b.stream, err = w.stream(ctx, b.key); err != nil {
		return err
	}
	for _, r := range span.Runs {
		b.runs = append(b.runs, stretch{int64(r.First), int64(r.First + r.Count - 1)})
	}
	for _, h := range span.Holes {
		b.holes = append(b.holes, holeRow{b.stream.id, int64(h.First), int64(min(h.Last, maxNumber)), h.Reason.String(), int64(min(h.Count, maxNumber))})
	}
	if !b.base {
		err := w.encode(ctx, p, b, span, now)
		var over *refusal
		if errors.As(err, &over) {
			p.refuse(l, err)
			b.base = true // its numbers are missed, and asked for
		} else if err != nil {
			return err
		}
	}
	p.batches = append(p.batches, b)
	return nil
}

// encode makes the tuples of a batch. Rows of a time that cannot be are left
// out, and the batch is a dead letter beside what is stored of it.
func (w *writer) encode(ctx context.Context, p *pack, b *packed, span batch.Span, now time.Time) error {
	from := w.learnt(b.key.Site, b.key.Gateway, now)
	if from.names >= w.limits.names && !w.names.know(b.key.Site, b.key.Gateway, span.Rows) {
		return tooMany("%d meters, channels and channels of meters", w.limits.names)
	}
	fresh, err := w.names.resolve(ctx, w.conn, b.key.Site, b.key.Gateway, span.Rows, now)
	if from.names += fresh; err != nil {
		return err
	}
	b.rows, b.ends = make([]byte, 0, 160*len(span.Rows)), make([]int, 0, len(span.Rows))
	var first *batch.Row
	bad, row := 0, 0
	for _, run := range b.runs {
		for n := run.first; n <= run.last; n++ {
			r := &span.Rows[row]
			row++
			if plausible(r.Stamp.Time, now) {
				at := place{stream: b.stream.id, sequence: n}
				at.meter, at.channel = w.names.of(b.key.Site, b.key.Gateway, r)
				b.rows = appendTuple(b.rows, at, r)
				p.weeks[week(r.Stamp.Time)] = true
			} else {
				if first == nil {
					first = r
				}
				bad++
				b.bad = append(b.bad, stretch{n, n})
			}
			b.ends = append(b.ends, len(b.rows))
		}
	}
	if first != nil {
		p.refuse(b.letter, refused(reasonTime, "%d of %d rows are of before 2000 or more than %v ahead, as meter %s, channel %s, %s",
			bad, len(span.Rows), maxAhead, first.Meter, first.Channel, timeText(first.Stamp.Time)))
	}
	return nil
}

func timeText(ms int64) string {
	if t := time.UnixMilli(ms).UTC(); t.Year() > -10_000 && t.Year() < 100_000 {
		return t.Format(time.RFC3339)
	}
	return fmt.Sprintf("%d ms", ms)
}

// The bounds of what waits for its catalogue; the oldest gives way.
const (
	maxWaiting      = 4096
	maxWaitingBytes = 32 << 20
	// DefaultCatalogueWait is how long a batch waits for its catalogue.
	DefaultCatalogueWait = 2 * time.Minute
)

// waiting are batches whose catalogue is not known yet. They are in memory: a
// member that dies leaves numbers missing, which are asked for again.
type waiting struct {
	all   []waiter
	bytes int
}

type waiter struct {
	*letter
	hash  batch.Hash
	since time.Time
}

// put adds a letter, and gives the one that had to give way, if any.
func (w *waiting) put(l *letter, hash batch.Hash, now time.Time) (gone *letter) {
	for _, o := range w.all {
		if o.letter == l {
			return nil
		}
	}
	if len(w.all) > 0 && (len(w.all) >= maxWaiting || w.bytes+len(l.payload) > maxWaitingBytes) {
		gone = w.all[0].letter
		w.drop(0)
	}
	w.all, w.bytes = append(w.all, waiter{l, hash, now}), w.bytes+len(l.payload)
	return gone
}

func (w *waiting) drop(i int) {
	w.bytes -= len(w.all[i].payload)
	w.all = append(w.all[:i], w.all[i+1:]...)
}

func (w *waiting) of(hash batch.Hash) (letters []*letter) {
	for _, o := range w.all {
		if o.hash == hash {
			letters = append(letters, o.letter)
		}
	}
	return letters
}

// done takes letters out that were stored or refused.
func (w *waiting) done(opened map[*letter]bool) {
	for i := len(w.all) - 1; i >= 0; i-- {
		if opened[w.all[i].letter] {
			w.drop(i)
		}
	}
}

// late gives the letters that have waited too long; done takes them out.
func (w *waiting) late(before time.Time) (letters []*letter) {
	for _, o := range w.all {
		if o.since.Before(before) {
			l := o.letter
			l.fault = refused(reasonCatalogue, "catalogue %s did not come", o.hash)
			letters = append(letters, l)
		}
	}
	return letters
}
