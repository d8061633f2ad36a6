package cosem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
)

// serving is a load profile that is selected from in some ways only.
func serving(best dlms.Selector, rows func(*dlmstest.Selection) []axdr.Value) dlmstest.Object {
	o := dlmstest.Profile(obisOf(load), columns(), 900, rows)
	read := o.Read
	o.Read = func(id int8, s *dlmstest.Selection) (axdr.Value, bool) {
		if s != nil && (best == dlms.Whole || best == dlms.ByEntry && s.Last == 0) {
			return axdr.Value{}, false
		}
		return read(id, s)
	}
	return o
}

// TestProfileHoweverItIsSelected follows a profile of some days through visits:
// what the meter refuses is refused once, and no row is missing or twice.
func TestProfileHoweverItIsSelected(t *testing.T) {
	t.Parallel()
	for _, best := range []dlms.Selector{dlms.ByTime, dlms.ByEntry, dlms.Whole} {
		for _, told := range []bool{false, true} {
			t.Run(fmt.Sprint(best, told), func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				now := start()
				rows := func(s *dlmstest.Selection) []axdr.Value {
					mu.Lock()
					defer mu.Unlock()
					return stored(start().AddDate(0, 0, -20), now, nil)(s)
				}
				r := newRig(t, listing(serving(best, rows)))
				clock := &turnable{at: start()}
				cfg := Config{Now: clock.now}
				if told {
					cfg.Quirks.Selector = best
				}
				m := r.driver(t, cfg)
				cursor := start().AddDate(0, 0, -10)
				for visit, want := range []int{959, 8, 0} {
					r.asked()
					got, err := m.Visit(t.Context(), since(t, cursor))
					if err != nil || len(got.Failures) != 0 || len(got.Rows) != want {
						t.Fatalf("visit %d: %d rows, %v, %v", visit, len(got.Rows), err, got.Failures)
					}
					for _, row := range got.Rows {
						if cursor = cursor.Add(quarter); !row.Stamp.UTC().Equal(cursor) || row.Occurrence != 0 {
							t.Fatalf("row of %v, want %v", row.Stamp.UTC(), cursor)
						}
					}
					most := map[dlms.Selector][]int{dlms.ByTime: {3, 1, 1}, dlms.ByEntry: {17, 4, 3}, dlms.Whole: {3, 1, 1}}[best][visit]
					if asked := strings.Count(strings.Join(r.asked(), " "), "99.1.0*255/7:2"); asked > most {
						t.Errorf("visit %d: the buffer was asked for %d times, want at most %d", visit, asked, most)
					}
					mu.Lock()
					now = now.Add(2 * time.Hour)
					mu.Unlock()
					clock.turn(2 * time.Hour)
					if visit == 1 {
						mu.Lock()
						now = cursor.Add(quarter) // no row more
						mu.Unlock()
					}
				}
			})
		}
	}
}

// TestTooMuchToTakeWhole: a meter that gives all rows or none, and has too many.
func TestTooMuchToTakeWhole(t *testing.T) {
	t.Parallel()
	r := newRig(t, listing(serving(dlms.Whole, stored(start().AddDate(0, 0, -60), start(), nil))))
	got, err := r.driver(t, Config{}).Visit(t.Context(), since(t, start().Add(-time.Hour)))
	if err != nil || len(got.Rows)+len(got.Cursors) != 0 || len(got.Failures) != 1 ||
		!strings.Contains(got.Failures[0].Error(), "5760 rows, and the meter gives all or none") {
		t.Errorf("%v, %s", err, describe(got))
	}
}

// TestAVisitThatEndsKeepsItsPages ends visits in the middle of a profile: the
// pages that came are kept, the cursor is at their end, the next visit goes on
// from there with shorter ones.
func TestAVisitThatEndsKeepsItsPages(t *testing.T) {
	t.Parallel()
	var windows []dlmstest.Selection
	r := newRig(t, listing(serving(dlms.ByTime, stored(start().AddDate(0, 0, -10), start(), &windows))))
	m := r.driver(t, Config{Timeout: time.Hour})
	enough := errors.New("enough")
	cursor := start().AddDate(0, 0, -10).Add(-quarter)
	for visit, want := range []struct{ rows, window int }{{384, 384}, {192, 192}, {96, 96}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		pages := 0
		r.spoil(func(request, frame []byte) []byte {
			if name(request) == "1-0:99.1.0*255/7:2" {
				if pages++; pages == 2 {
					cancel(enough)
					return nil
				}
			}
			return frame
		})
		windows = nil
		got, err := m.Visit(ctx, since(t, cursor))
		if !errors.Is(err, enough) && !errors.Is(err, context.Canceled) || len(got.Cursors) != 1 || len(got.Rows) < want.rows-1 || len(got.Rows) > want.rows+1 {
			t.Fatalf("visit %d: %v, %d rows, cursors %v", visit, err, len(got.Rows), got.Cursors)
		}
		for _, row := range got.Rows {
			if cursor = cursor.Add(quarter); !row.Stamp.UTC().Equal(cursor) {
				t.Fatalf("row of %v, want %v", row.Stamp.UTC(), cursor)
			}
		}
		if got.Cursors[0].Time != cursor.UnixMilli() {
			t.Errorf("visit %d: cursor %v, want %v", visit, got.Cursors[0].Time, cursor)
		}
		if w := windows[0]; w.To.Sub(w.From) > time.Duration(want.window)*quarter {
			t.Errorf("visit %d asked for %v", visit, w.To.Sub(w.From))
		}
		cancel(nil)
	}
	r.spoil(nil)
	got, err := m.Visit(t.Context(), since(t, cursor))
	if err != nil || len(got.Rows) == 0 || !got.Rows[len(got.Rows)-1].Stamp.UTC().Equal(start().Add(-quarter)) {
		t.Errorf("the rest: %v, %d rows", err, len(got.Rows))
	}
}

// TestProfileEncodings has the same rows in all the ways that there are to
// write them shorter.
func TestProfileEncodings(t *testing.T) {
	t.Parallel()
	at := start().Add(-time.Hour)
	stamp := dlmstest.DateTime(at)
	octets := func(s string) string { return string(rune(len(s))) + s }
	for title, c := range map[string]struct {
		buffer axdr.Value
		quirks dlms.Quirks
		want   string
	}{
		"array":            {axdr.Array(row(when(at, 0), axdr.Unsigned(1), units(100)), row(when(at.Add(quarter), 0), axdr.Unsigned(1), units(103))), dlms.Quirks{}, "10.0 10.3"},
		"delta":            {axdr.Array(row(when(at, 0), axdr.Unsigned(1), units(100)), row(axdr.Null(), axdr.Null(), axdr.Delta(axdr.TagDeltaInteger, 3))), dlms.Quirks{}, "10.0 10.3"},
		"delta of nothing": {axdr.Array(row(when(at, 0), axdr.Unsigned(1), axdr.Null()), row(axdr.Null(), axdr.Null(), axdr.Delta(axdr.TagDeltaInteger, 3))), dlms.Quirks{}, " "},
		"null is nothing":  {axdr.Array(row(when(at, 0), axdr.Unsigned(1), units(100)), row(axdr.Null(), axdr.Null(), axdr.Null())), dlms.Quirks{}, "10.0 "},
		"null is the same": {axdr.Array(row(when(at, 0), axdr.Unsigned(1), units(100)), row(axdr.Null(), axdr.Null(), axdr.Null())), dlms.Quirks{NullUnchanged: true}, "10.0 10.0"},
		"compact-array": {
			compact(t, "\x02\x03\x09\x11\x06", octets(stamp)+"\x01\x00\x00\x00\x64"+octets(dlmstest.DateTime(at.Add(quarter)))+"\x01\x00\x00\x00\x67"),
			dlms.Quirks{},
			"10.0 10.3",
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			profile := dlmstest.Profile(obisOf(load), columns(), 900, nil)
			read := profile.Read
			profile.Read = func(id int8, s *dlmstest.Selection) (axdr.Value, bool) {
				if id == 2 {
					return c.buffer, true
				}
				return read(id, s)
			}
			r := newRig(t, listing(profile))
			got, err := r.driver(t, Config{Quirks: c.quirks}).Visit(t.Context(), since(t, at.Add(-quarter)))
			if err != nil || len(got.Failures) != 0 || len(got.Rows) != 2 {
				t.Fatalf("%v, %s", err, describe(got))
			}
			if text := got.Rows[0].Value.String() + " " + got.Rows[1].Value.String(); text != c.want ||
				got.Rows[1].Stamp.Time != at.Add(quarter).UnixMilli() || got.Rows[1].Status != 1 || !got.Rows[1].HasStatus {
				t.Errorf("%q, want %q: %s", text, c.want, describe(got))
			}
		})
	}
}

// compact gives a compact-array of elements that are described so.
func compact(t *testing.T, description, contents string) axdr.Value {
	t.Helper()
	v, _, err := axdr.Parse([]byte("\x13" + description + string(rune(len(contents))) + contents))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestColumnsOfOneAttribute: elements of an attribute have no names of their
// own, so that their values are not given; what is captured twice is once.
func TestColumnsOfOneAttribute(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		index  byte
		rows   int
		failed error
	}{"twice": {0, 1, nil}, "elements": {1, 0, errElements}} {
		profile := dlmstest.Profile(obisOf(load), columns(dlmstest.Column{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 2}), 900,
			given(row(when(start(), 0), axdr.Unsigned(0), units(7), units(8))))
		read := profile.Read
		profile.Read = func(id int8, s *dlmstest.Selection) (axdr.Value, bool) {
			v, ok := read(id, s)
			if id == 3 {
				v = axdr.Array(append(append([]axdr.Value(nil), v.Items[:3]...), axdr.Structure(append(append([]axdr.Value(nil), v.Items[3].Items[:3]...), axdr.LongUnsigned(uint16(c.index)))...))...)
			}
			return v, ok
		}
		r := newRig(t, listing(profile))
		got, err := r.driver(t, Config{}).Visit(t.Context(), since(t, start().Add(-time.Hour)))
		if err != nil || len(got.Rows) != c.rows || c.rows > 0 && got.Rows[0].Value.String() != "0.7" ||
			(len(got.Failures) > 0) != (c.failed != nil) || c.failed != nil && !errors.Is(got.Failures[0], c.failed) {
			t.Errorf("%s: %v, %s", title, err, describe(got))
		}
	}
}

// counted is a stream of the meter's side that counts octets and turns: a turn
// is what the client sends in a row and what it gets for it.
type counted struct {
	io.ReadWriter
	mu            sync.Mutex
	octets, turns int
	answering     bool
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadWriter.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.octets += n; n > 0 && (c.answering || c.turns == 0) {
		c.answering = false
		c.turns++
	}
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.octets, c.answering = c.octets+len(b), true
	c.mu.Unlock()
	return c.ReadWriter.Write(b)
}

// take gives what there was since it was called last.
func (c *counted) take() (octets, turns int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	octets, turns = c.octets, c.turns
	c.octets, c.turns = 0, 0
	return octets, turns
}

// TestEconomy counts what visits with ten registers and 96 rows of 28 octets
// cost on a line of HDLC. The model of a client that knows columns and scalers,
// with link and association kept open, is 3645 octets in 28 turns at 128 octets
// and one frame, and 3002 in 3 at 2030 octets and seven frames; that of four
// rows is 406 in 2. The first visit opens both, and reads the serial number,
// the scalers, the columns and the meter's clock besides.
func TestEconomy(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		info, window int
		pdu          uint16
		first, then  [2]int // octets and turns, at most
		incremental  [2]int
	}{
		"128/1":  {128, 1, 512, [2]int{4300, 35}, [2]int{3650, 28}, [2]int{406, 2}},
		"2030/7": {2030, 7, 4096, [2]int{3600, 7}, [2]int{3002, 2}, [2]int{406, 2}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r, wire := economyRig(t, c.info, c.window, c.pdu)
			clock := &turnable{at: start()}
			m := r.driver(t, Config{Now: clock.now, HDLC: &HDLC{Info: c.info, Window: c.window}})
			var names []string
			for i := range 10 {
				names = append(names, fmt.Sprintf("1-0:%d.8.0", i+1))
			}
			ask := registers(t, names...)
			for visit, want := range [][2]int{c.first, c.then, c.incremental} {
				from := start().AddDate(0, 0, -1).Add(-time.Second)
				rows := 96
				if visit == 2 {
					from, rows = start().Add(-3*quarter-time.Second), 4
				}
				ask.Profiles = since(t, from).Profiles
				wire.take()
				got, err := m.Visit(t.Context(), ask)
				if err != nil || len(got.Failures) != 0 || len(got.Rows) != 10+2*rows {
					t.Fatalf("%v, %d rows, %v", err, len(got.Rows), got.Failures)
				}
				octets, turns := wire.take()
				t.Logf("visit %d: %d octets in %d turns", visit+1, octets, turns)
				if octets > want[0] || turns > want[1] {
					t.Errorf("visit %d: %d octets in %d turns, want at most %d in %d", visit+1, octets, turns, want[0], want[1])
				}
			}
		})
	}
}

func economyRig(t *testing.T, info, window int, pdu uint16) (*rig, *counted) {
	t.Helper()
	o := dlmstest.Options{
		MaxPDU:  pdu,
		Clients: map[uint16]dlmstest.Login{16: {Conformance: dlmstest.Reading &^ 0x200000}},
		Objects: []dlmstest.Object{
			dlmstest.Clock(obisOf("0-0:1.0.0"), start),
			dlmstest.Data(obisOf("0-0:96.1.0"), fixed(axdr.OctetString("GRG1"))),
		},
	}
	for i := range 10 {
		o.Objects = append(o.Objects, dlmstest.Register(obisOf(fmt.Sprintf("1-0:%d.8.0", i+1)), 0, 30, fixed(axdr.DoubleLongUnsigned(uint32(i)))))
	}
	o.Objects = append(o.Objects, dlmstest.Profile(obisOf(load), columns(dlmstest.Column{Class: 3, Code: obisOf("1-0:2.8.0"), ID: 2}), 900,
		func(s *dlmstest.Selection) (rows []axdr.Value) {
			for i := range 96 {
				if at := start().Add(time.Duration(i-95) * quarter); s == nil || !at.Before(s.From) && !at.After(s.To) {
					rows = append(rows, row(when(at, 0), axdr.Unsigned(0), units(1000+i), units(i)))
				}
			}
			return rows
		}))
	wire := &counted{}
	m := dlmstest.NewMeter(o)
	r := &rig{serve: func(stream io.ReadWriter) error {
		wire.ReadWriter = stream
		return m.ServeHDLC(wire, dlmstest.Station{MaxInfo: info, Window: window})
	}}
	r.listen(t)
	return r, wire
}
