package dlms

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/dlms/axdr"
)

// Selector is how the rows of a profile are selected (IEC 62056-6-2, 4.3.6,
// selective access).
type Selector uint8

// The ways to select, the better first.
const (
	ByTime  Selector = iota // by the time of their capture: range_descriptor
	ByEntry                 // by their number in the buffer: entry_descriptor
	Whole                   // not at all: all rows come or none
)

func (a Selector) String() string {
	switch a {
	case ByTime:
		return "by time"
	case ByEntry:
		return "by entry"
	case Whole:
		return "whole"
	}
	return fmt.Sprintf("selector %d", uint8(a))
}

// Pages reads the rows of a profile page by page. Make it with Client.Pages; it
// is good as long as the association. The pages come in the order of capture:
// when one came, no row before its newest is in those to come, but for rows
// that a clock that was set back dates so. Rows that were not asked for may be
// among them, at both ends: those of an earlier page, and all that there are
// from meters that select nothing.
type Pages struct {
	// Selector is how rows are selected. It begins as the quirks of the model say;
	// where the meter refuses it becomes the next. A caller may set it before
	// the first page to what an earlier reading left there.
	Selector Selector

	client *Client
	layout *Layout
	want   Rows
	from   time.Time // what was captured before it was read
	done   bool

	span time.Duration // ByTime: of the next page; 0 is to the end

	// ByEntry: rows are counted from the oldest on, from 1. next is the first to
	// be read and last the last; 0 when they are not known. edge is when the row
	// before next was captured, the zero time where that is not known.
	next, last uint32
	edge       time.Time
	moved      int // how often rows had got other numbers
}

// errNoOrder says that the numbers of rows say nothing of when they were captured.
var errNoOrder = errors.New("rows are in no order of time")

// Pages begins to read what is wanted by time. It sends nothing.
func (c *Client) Pages(l *Layout, want Rows) *Pages {
	return &Pages{
		Selector: c.options.Quirks.Selector,
		client:   c, layout: l, want: want, from: want.Since, span: time.Duration(want.Page) * l.Period,
	}
}

// More says whether there is another page, which may turn out to be empty.
func (p *Pages) More() bool { return !p.done }

// Next reads a page. After an error it may be called again.
func (p *Pages) Next(ctx context.Context) ([]ProfileRow, error) {
	before := p.Selector
	var first error
	for {
		rows, err := p.read(ctx)
		switch {
		case err == nil:
			return rows, nil
		case first == nil:
			first = err
		}
		switch served := !isUnserved(err); {
		case served && !errors.Is(err, errNoOrder):
			return nil, err
		case p.Selector == Whole && isUnserved(first):
			p.Selector = before // there are other reasons than how it is asked
			return nil, first
		case p.Selector == Whole:
			return nil, err
		}
		p.Selector++
	}
}

func (p *Pages) read(ctx context.Context) ([]ProfileRow, error) {
	switch p.Selector {
	case ByTime:
		return p.byTime(ctx)
	case ByEntry:
		return p.byEntry(ctx)
	case Whole:
	}
	return p.whole(ctx)
}

// isUnserved says whether an error may be about how rows were selected.
func isUnserved(err error) bool {
	var exception *ExceptionError
	var service *ServiceError
	var refused AccessError
	switch {
	case errors.As(err, &refused):
		switch refused { //nolint:exhaustive // the others are about the object, or about the moment
		case ReadWriteDenied, ObjectClassInconsistent, ObjectUnavailable, TypeUnmatched, ScopeViolated, BlockUnavailable, OtherReason:
			return true
		}
		return false
	case errors.As(err, &exception):
		return exception.Service != DecipheringError && exception.Service != InvocationCounterError
	}
	return errors.As(err, &service) || errors.Is(err, ErrNotGranted)
}

// byTime reads the rows of the next span, which begins with the newest that came.
// One without new rows makes the next twice as long: the meter was off, or keeps
// nothing that old.
func (p *Pages) byTime(ctx context.Context) ([]ProfileRow, error) {
	to := p.want.Until
	if end := p.from.Add(p.span); p.span > 0 && end.Before(to) {
		to = end
	}
	from, to := p.outside(p.from, to)
	data, err := p.client.GetRange(ctx, p.layout.Buffer, p.client.rangeOf(p.layout, Rows{
		Since: from, Until: to, Zone: p.want.Zone, Local: p.want.Local,
	}))
	if err != nil {
		return nil, err
	}
	rows, err := p.parse(data)
	if err != nil {
		return nil, err
	}
	newest := p.newestOf(rows)
	switch {
	case !newest.After(p.from):
		if p.from = to; p.span < 1<<62 {
			p.span *= 2
		}
	case to.Before(p.want.Until), p.mayBeCut(rows, newest):
		p.from = newest // and not to: some meters give no more rows than they like, and do not say so
	default:
		p.from = p.want.Until
	}
	p.done = !p.from.Before(p.want.Until)
	return rows, nil
}

// mayBeCut says whether the meter may have more rows up to the end of all that
// is wanted than the last page has.
func (p *Pages) mayBeCut(rows []ProfileRow, newest time.Time) bool {
	const few = 8 // what nobody cuts
	switch period := p.layout.Period; {
	case p.want.Now.IsZero():
		return false
	case !p.want.Until.After(p.want.Now):
		return !newest.After(p.want.Until.Add(-period)) && newest.Before(p.want.Until)
	case !newest.Before(p.want.Now.Add(-2 * period)): // the next may not be captured yet
		return false
	}
	fresh := 0
	for _, r := range rows {
		if r.Time.After(p.from) {
			fresh++
		}
	}
	return fresh >= few
}

// newestOf gives when the newest of the rows was captured that is not after all
// that is wanted.
func (p *Pages) newestOf(rows []ProfileRow) (newest time.Time) {
	for _, r := range rows {
		if r.Time.After(newest) && !r.Time.After(p.want.Until) {
			newest = r.Time
		}
	}
	return newest
}

// whole reads all rows, if there are not too many.
func (p *Pages) whole(ctx context.Context) ([]ProfileRow, error) {
	if p.want.Most > 0 {
		n, err := p.count(ctx)
		switch {
		case err == nil && n > p.want.Most:
			return nil, fmt.Errorf("get %v: %w: %d rows, and the meter gives all or none", p.layout.Buffer, ErrTooLarge, n)
		case err != nil && !isRefused(err) && !isUnserved(err) && !errors.Is(err, ErrMalformed):
			return nil, err
		}
	}
	data, err := p.client.Get(ctx, p.layout.Buffer)
	if err != nil {
		return nil, err
	}
	rows, err := p.parse(data)
	p.done = err == nil
	return rows, err
}

// parse gives rows with the oldest first, as far as they are sorted by time.
func (p *Pages) parse(data axdr.Value) ([]ProfileRow, error) {
	rows, err := p.client.parseRows(p.layout, data, p.want.Zone)
	newest := p.layout.Sort == SortedNewest
	if n := len(rows); p.layout.Sort == SortUnknown && n > 1 && rows[0].Time.After(rows[n-1].Time) && !rows[n-1].Time.IsZero() {
		newest = true
		for i := range rows {
			if rows[i].Values[p.layout.Clock].Tag == axdr.TagNull {
				rows[i].Time = time.Time{} // it was counted on the wrong way
			}
		}
	}
	if newest {
		slices.Reverse(rows)
	}
	p.unfold(rows)
	return rows, err
}

// unfold tells the passes of an hour that clocks repeat apart by the order of the
// rows, where the meter does not tell: what is not captured after the row before
// it in the first pass was in the second.
func (p *Pages) unfold(rows []ProfileRow) {
	zone, clock := p.want.Zone, p.layout.Clock
	if zone == nil || clock < 0 || p.layout.Sort > SortedNewest {
		return
	}
	var last time.Time
	if !p.edge.IsZero() {
		last = p.edge.Add(-1) // of rows by number, the first is the last of the page before
	}
	for i, never := 0, false; i < len(rows); i++ { // it never says that it is daylight saving time
		r := &rows[i]
		if r.Time.IsZero() {
			continue
		}
		if r.Clock.Deviation == NoDeviation && r.Values[clock].Tag != axdr.TagNull {
			_, _, twice := Repeated(r.Time, zone)
			switch {
			case twice && (r.Clock.Status == statusNotGiven || never):
				r.Time = Behind(r.Time, last, zone)
			case !twice && r.Time.In(zone).IsDST():
				never = !r.Clock.Has(StatusDaylightSaving)
			}
		}
		last = r.Time
	}
}

// outside puts a bound of a range outside an hour that clocks repeat, where the
// meter knows no deviation: it cannot be asked for a part of that.
func (p *Pages) outside(from, to time.Time) (time.Time, time.Time) {
	if !p.want.Local || p.want.Zone == nil {
		return from, to
	}
	if begin, _, ok := Repeated(from, p.want.Zone); ok {
		from = begin.Add(-p.layout.Period) // with a row of before, which shows whether the meter tells them apart
	}
	if _, end, ok := Repeated(to, p.want.Zone); ok {
		to = end
	}
	return from, to
}

func isRefused(err error) bool {
	var refused AccessError
	return errors.As(err, &refused)
}

// count reads how many rows there are.
func (p *Pages) count(ctx context.Context) (uint32, error) {
	a := p.layout.Buffer
	a.ID = 7 // entries_in_use
	v, err := p.client.Get(ctx, a)
	if err != nil {
		return 0, err
	}
	n, ok := v.Uint64()
	if !ok || n >= 1<<32 {
		return 0, malformed("%v is %v, want a number of rows", a, v.Tag)
	}
	return uint32(n), nil
}

// byEntry reads the next rows by number, and the row before them again: a
// capture since that was read may have given all of them other numbers, and
// then their places are looked for anew.
func (p *Pages) byEntry(ctx context.Context) ([]ProfileRow, error) {
	for {
		if p.last == 0 {
			if err := p.find(ctx); err != nil || p.done {
				return nil, err
			}
		}
		first, to := p.next, p.last
		again := first > 1 && !p.edge.IsZero()
		if again {
			first--
		}
		if page := p.want.Page; page > 0 && p.last-p.next >= page {
			to = p.next + page - 1
		}
		rows, err := p.numbers(ctx, first, to)
		if err != nil {
			return nil, err
		}
		if again && (len(rows) == 0 || !rows[0].Time.Equal(p.edge)) {
			if p.moved++; p.moved > 3 {
				return nil, malformed("%v: rows do not keep their numbers", p.layout.Buffer)
			}
			p.last = 0
			continue
		}
		if came := first + uint32(len(rows)) - 1; p.layout.Sort != SortedNewest && len(rows) > 0 && came < to {
			if to = came; to < p.next { // the row before is all that comes
				p.edge = time.Time{}
				continue
			}
		}
		if again {
			rows = rows[1:]
		}
		p.edge = time.Time{}
		if len(rows) > 0 {
			p.edge = rows[len(rows)-1].Time
		}
		if newest := p.newestOf(rows); newest.After(p.from) {
			p.from = newest
		}
		p.next, p.done = to+1, to >= p.last
		return rows, nil
	}
}

// numbers reads rows, counted from the oldest.
func (p *Pages) numbers(ctx context.Context, first, last uint32) ([]ProfileRow, error) {
	e := Entries{From: first, To: last}
	if p.layout.Sort == SortedNewest {
		e.From, e.To = p.last+1-last, p.last+1-first
	}
	data, err := p.client.GetEntries(ctx, p.layout.Buffer, e)
	if err != nil {
		return nil, err
	}
	return p.parse(data)
}

// timeOf reads when a row was captured.
func (p *Pages) timeOf(ctx context.Context, number uint32) (time.Time, error) {
	rows, err := p.numbers(ctx, number, number)
	if err != nil {
		return time.Time{}, err
	}
	if len(rows) != 1 || rows[0].Time.IsZero() {
		return time.Time{}, fmt.Errorf("%v: row %d has no time: %w", p.layout.Buffer, number, errNoOrder)
	}
	return rows[0].Time, nil
}

// find looks for the place of the first row that is wanted.
func (p *Pages) find(ctx context.Context) error {
	const slack = 32 // rows that may be read in vain: it takes turns to have fewer
	if p.layout.Sort > SortedNewest {
		return fmt.Errorf("%v: %w", p.layout.Buffer, errNoOrder)
	}
	p.edge = time.Time{}
	n, err := p.count(ctx)
	if err != nil {
		return err
	}
	if p.done = n == 0; p.done {
		return nil
	}
	p.last = n
	end, err := p.timeOf(ctx, n)
	if err == nil && p.layout.Sort == SortUnknown && n > 1 {
		end, err = p.direction(ctx, end)
	}
	if err != nil {
		p.last = 0
		return err
	}
	if p.done = end.Before(p.from); p.done {
		return nil
	}
	// What is wanted begins after low, and at high at the latest.
	low, high := uint32(0), n
	for try := p.guess(end); high-low > slack; try = low + (high-low)/2 {
		at, err := p.timeOf(ctx, try)
		if err != nil {
			p.last = 0
			return err
		}
		if at.Before(p.from) {
			low, p.edge = try, at
		} else {
			high = try
		}
	}
	p.next = low + 1
	return nil
}

// direction finds out at which end the newest row is, and gives when it was
// captured; end is when that with the highest number was.
func (p *Pages) direction(ctx context.Context, end time.Time) (time.Time, error) {
	begin, err := p.timeOf(ctx, 1)
	if err != nil || !begin.After(end) {
		return end, err
	}
	l := *p.layout
	l.Sort, p.layout = SortedNewest, &l
	return begin, nil
}

// guess gives where a row before all that is wanted should be, if none is
// missing: between 1 and the last.
func (p *Pages) guess(end time.Time) uint32 {
	back := int64(p.last) / 2
	if p.layout.Period > 0 {
		back = int64(end.Sub(p.from)/p.layout.Period) + 1
	}
	return uint32(min(max(int64(p.last)-back, 1), int64(p.last)))
}
