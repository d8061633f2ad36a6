package dlms_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
)

// ring is a profile of limited room, oldest row first.
type ring struct {
	times  []time.Time // of the rows that there were, numbered in the order of capture
	room   int
	sort   uint8 // as the meter says it; 0 is that it does not
	lifo   bool
	serves dlms.Selector // the best
	asked  int           // for rows
	nulls  bool          // rows leave out their time, but for the first
	most   int           // rows in an answer; 0 is any number
	before func(asked int)
}

func (r *ring) rows() []axdr.Value {
	first := max(len(r.times)-r.room, 0)
	var rows []axdr.Value
	for i, at := range r.times[first:] {
		rows = append(rows, axdr.Structure(axdr.OctetString(dlmstest.DateTime(at)), axdr.DoubleLongUnsigned(uint32(first+i))))
	}
	if r.lifo {
		slices.Reverse(rows)
	}
	return rows
}

func (r *ring) object() dlmstest.Object {
	columns := []dlmstest.Column{{Class: 8, Code: wireCode("0-0:1.0.0"), ID: 2}, {Class: 1, Code: wireCode("0-0:96.8.0"), ID: 2}}
	p := dlmstest.Profile(wireCode("1-0:99.1.0"), columns, 900, nil)
	read := p.Read
	p.Read = func(id int8, s *dlmstest.Selection) (axdr.Value, bool) {
		switch id {
		case 2:
		case 5:
			return axdr.Enum(r.sort), r.sort != 0
		case 7:
			return axdr.DoubleLongUnsigned(uint32(len(r.rows()))), true
		default:
			return read(id, s)
		}
		r.asked++
		if r.before != nil {
			r.before(r.asked)
		}
		if s != nil && (r.serves == dlms.Whole || r.serves == dlms.ByEntry && s.Last == 0) {
			return axdr.Value{}, false
		}
		found := r.rows()
		switch {
		case s == nil:
		case s.Last != 0:
			last := min(int(s.Last), len(found))
			found = found[min(int(s.First)-1, last):last]
		default:
			found = slices.DeleteFunc(found, func(row axdr.Value) bool {
				at := r.times[row.Items[1].Num]
				return at.Before(s.From) || at.After(s.To)
			})
		}
		if r.most > 0 {
			found = found[:min(r.most, len(found))]
		}
		for i := 1; r.nulls && i < len(found); i++ {
			found[i].Items[0] = axdr.Null()
		}
		return axdr.Array(found...), true
	}
	return p
}

// reader gives a client of the meter with the ring, and the ring's layout.
func (r *ring) reader(t *testing.T) (*dlms.Client, *dlms.Layout) {
	t.Helper()
	o := dlmstest.Options{MaxPDU: 1024, Objects: []dlmstest.Object{r.object()}, Clients: map[uint16]dlmstest.Login{16: {}}}
	client := dlms.NewClient(&desk{session: dlmstest.NewMeter(o).NewSession(), client: 16}, dlms.Options{})
	if _, err := client.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	layout, err := client.ReadColumns(t.Context(), wireCode("1-0:99.1.0"))
	if err != nil || layout.Sort != dlms.SortMethod(r.sort) {
		t.Fatalf("%+v, %v", layout, err)
	}
	return client, layout
}

// read gives the numbers of the rows from since on, each once, in the order in
// which pages bring them.
func (r *ring) read(t *testing.T, client *dlms.Client, layout *dlms.Layout, want dlms.Rows) (numbers []uint32, pages *dlms.Pages) {
	t.Helper()
	pages = client.Pages(layout, want)
	newest := want.Since.Add(-1)
	for pages.More() {
		rows, err := pages.Next(t.Context())
		if err != nil {
			t.Fatalf("%+v: %v", *r, err)
		}
		for _, row := range rows {
			if n := uint32(row.Values[1].Num); row.Time.After(newest) {
				if newest = row.Time; !row.Time.Equal(r.times[n]) {
					t.Fatalf("row %d is of %v, want %v", n, row.Time, r.times[n])
				}
				numbers = append(numbers, n)
			}
		}
	}
	return numbers, pages
}

// TestPages reads rings of all sorts from anywhere, in pages of any size: there
// is every row from there on, once, in order, however rows can be selected.
func TestPages(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for try := range 300 {
		r := ring{room: 1 + random.IntN(500), serves: dlms.Selector(random.IntN(3)), lifo: random.IntN(2) == 0}
		if random.IntN(3) > 0 {
			r.sort = 1
			if r.lifo {
				r.sort = 2
			}
		}
		at := wireStart()
		for range random.IntN(600) {
			if random.IntN(50) == 0 {
				at = at.Add(time.Duration(random.IntN(90)) * 24 * time.Hour) // it was off
			}
			at = at.Add(15 * time.Minute)
			r.times = append(r.times, at)
		}
		kept := r.times[max(len(r.times)-r.room, 0):]
		want := dlms.Rows{Since: wireStart(), Until: at.Add(24 * time.Hour), Page: uint32(random.IntN(200)), Most: 1000}
		if len(kept) > 0 {
			want.Since = kept[random.IntN(len(kept))].Add(time.Duration(random.IntN(3)-1) * time.Minute)
		}
		expect := len(kept)
		for expect > 0 && !kept[len(kept)-expect].After(want.Since.Add(-1)) {
			expect--
		}
		client, layout := r.reader(t)
		got, pages := r.read(t, client, layout, want)
		if len(got) != expect || pages.Selector != r.serves && !(len(kept) == 0 && r.serves == dlms.Whole) {
			t.Fatalf("try %d: %d rows, %v, want %d of %d, %v; %+v", try, len(got), pages.Selector, expect, len(kept), r.serves, want)
		}
		for i, n := range got {
			if int(n) != len(r.times)-expect+i {
				t.Fatalf("try %d: row %d is number %d of %d, %d wanted", try, i, n, len(r.times), expect)
			}
		}
	}
}

// full is a ring of n rows that has them all, every quarter of an hour.
func full(n int, serves dlms.Selector) *ring {
	r := &ring{room: n, sort: 1, serves: serves}
	for i := range n {
		r.times = append(r.times, wireStart().Add(time.Duration(i)*15*time.Minute))
	}
	return r
}

// TestPagesByEntryAsLittle counts the requests for the rows since yesterday.
func TestPagesByEntryAsLittle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ since, most int }{
		"nothing new":   {2001, 1},
		"one row":       {1999, 3},
		"an hour":       {1996, 3},
		"a day":         {1904, 6},
		"everything":    {0, 25},
		"before it all": {-500, 25},
	} {
		r := full(2000, dlms.ByEntry)
		client, layout := r.reader(t)
		pages := client.Pages(layout, dlms.Rows{
			Since: wireStart().Add(time.Duration(c.since) * 15 * time.Minute), Until: wireStart().AddDate(1, 0, 0), Page: 100,
		})
		pages.Selector = dlms.ByEntry
		n := 0
		for pages.More() {
			rows, err := pages.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			n += len(rows)
		}
		if wanted := 2000 - max(c.since, 0); n < wanted || n > wanted+33 || r.asked > c.most {
			t.Errorf("%s: %d rows in %d requests, want %d in %d", name, n, r.asked, wanted, c.most)
		}
	}
}

// TestPagesWhileRowsMove captures rows between the requests, so that each has
// another number then.
func TestPagesWhileRowsMove(t *testing.T) {
	t.Parallel()
	for _, lifo := range []bool{false, true} {
		r := full(500, dlms.ByEntry)
		if r.lifo = lifo; lifo {
			r.sort = 2
		}
		r.before = func(asked int) {
			if asked == 6 || asked == 9 {
				r.times = append(r.times, r.times[len(r.times)-1].Add(15*time.Minute))
			}
		}
		client, layout := r.reader(t)
		got, _ := r.read(t, client, layout, dlms.Rows{Since: r.times[100], Until: wireStart().AddDate(1, 0, 0), Page: 50})
		if r.times = r.times[100:]; len(got) < 400 || got[0] != 100 || !slices.IsSorted(got) || int(got[len(got)-1])-100 != len(got)-1 {
			t.Errorf("lifo %v: %d rows from %d to %d", lifo, len(got), got[0], got[len(got)-1])
		}
	}
	r := full(500, dlms.ByEntry)
	r.before = func(int) { r.times = append(r.times, r.times[len(r.times)-1].Add(15*time.Minute)) }
	client, layout := r.reader(t)
	pages := client.Pages(layout, dlms.Rows{Since: r.times[300], Until: wireStart().AddDate(1, 0, 0), Page: 50})
	var err error
	for pages.More() && err == nil {
		_, err = pages.Next(t.Context())
	}
	if !errors.Is(err, dlms.ErrMalformed) {
		t.Errorf("rows that always move: %v", err)
	}
}

// TestPagesWithoutOrder has rows whose place says nothing of their time, and
// times that are left out.
func TestPagesWithoutOrder(t *testing.T) {
	t.Parallel()
	r := full(100, dlms.ByEntry)
	r.sort = 4
	client, layout := r.reader(t)
	want := dlms.Rows{Since: r.times[90], Until: r.times[99], Page: 5, Most: 100}
	if got, pages := r.read(t, client, layout, want); len(got) != 10 || pages.Selector != dlms.Whole {
		t.Errorf("sorted by value: %v, %v", got, pages.Selector)
	}
	want.Most = 99
	if rows, err := client.Pages(layout, want).Next(t.Context()); !errors.Is(err, dlms.ErrTooLarge) {
		t.Errorf("more than are taken: %d rows, %v", len(rows), err)
	}
	// Left-out times are counted on from the row before where that was captured
	// before; where the newest row comes first there is nothing to count.
	for _, lifo := range []bool{false, true} {
		r := full(10, dlms.ByTime)
		if r.nulls, r.lifo = true, lifo; lifo {
			r.sort = 2
		}
		client, layout := r.reader(t)
		rows, err := client.Profile(t.Context(), layout, dlms.Rows{Since: r.times[0], Until: r.times[9]})
		timed := 0
		for _, row := range rows {
			if !row.Time.IsZero() {
				if timed++; !row.Time.Equal(r.times[row.Values[1].Num]) {
					t.Errorf("row %d is of %v", row.Values[1].Num, row.Time)
				}
			}
		}
		if want := map[bool]int{false: 10, true: 1}[lifo]; err != nil || timed != want || len(rows) != 10 {
			t.Errorf("lifo %v: %d of %d rows have a time, want %d; %v", lifo, timed, len(rows), want, err)
		}
	}
}

func TestSelectorNames(t *testing.T) {
	t.Parallel()
	if got := fmt.Sprint(dlms.ByTime, dlms.ByEntry, dlms.Whole, dlms.Selector(9)); got != "by time by entry whole selector 9" {
		t.Error(got)
	}
}

// TestPagesOfFewerRows: a meter that gives fewer rows than it was asked for is
// asked for the others.
func TestPagesOfFewerRows(t *testing.T) {
	t.Parallel()
	for most := range 60 {
		for _, since := range []int{0, 150, 299} {
			r := full(300, dlms.ByEntry)
			r.most = most
			client, layout := r.reader(t)
			pages := client.Pages(layout, dlms.Rows{Since: r.times[since], Until: wireStart().AddDate(1, 0, 0), Page: 50})
			pages.Selector = dlms.ByEntry
			newest, n := r.times[since].Add(-1), 0
			for pages.More() {
				rows, err := pages.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, row := range rows {
					if row.Time.After(newest) {
						newest = row.Time
						n++
					}
				}
			}
			if n != 300-since {
				t.Errorf("%d rows an answer: %d of %d rows", most, n, 300-since)
			}
		}
	}
}

// TestPagesOfCutRanges: a meter that gives a part of the rows of a range, and
// does not say so, is asked for the others; one that gives all of them no more
// often than it has rows for, also where it was off for a while.
func TestPagesOfCutRanges(t *testing.T) {
	t.Parallel()
	for _, off := range []bool{false, true} {
		for _, page := range []uint32{0, 50, 1000} {
			for most, requests := range map[int]int{0: 1, 2: 1000, 7: 1000, 10: 1000, 49: 1000, 100: 1000} {
				r := full(300, dlms.ByTime)
				for i := 150; off && i < len(r.times); i++ {
					r.times[i] = r.times[i].Add(3 * time.Hour)
				}
				r.most = most
				client, layout := r.reader(t)
				now := r.times[299].Add(5 * time.Minute)
				want := dlms.Rows{Since: r.times[0], Until: now, Now: now, Page: page}
				r.asked = 0
				if got, _ := r.read(t, client, layout, want); len(got) != 300 {
					t.Errorf("off %t, pages of %d, %d rows an answer: %d rows", off, page, most, len(got))
				}
				if page == 50 && most == 0 {
					requests = 7
				}
				if r.asked > requests {
					t.Errorf("off %t, pages of %d, %d rows an answer: %d requests, want at most %d", off, page, most, r.asked, requests)
				}
				// The future, of which there may be rows another time.
				want.Until, r.asked = now.Add(24*time.Hour), 0
				got, _ := r.read(t, client, layout, want)
				if most >= 10 && len(got) != 300 || most == 0 && r.asked > requests+2 || len(got) == 0 {
					t.Errorf("off %t, pages of %d, %d rows an answer: %d rows in %d requests", off, page, most, len(got), r.asked)
				}
				for i, n := range got {
					if int(n) != i {
						t.Fatalf("off %t, pages of %d, %d rows an answer: row %d is number %d", off, page, most, i, n)
					}
				}
			}
		}
	}
}
