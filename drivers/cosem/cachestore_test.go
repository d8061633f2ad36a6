package cosem

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gridgate/dlms"
	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

// flash keeps caches as the buffer does, and counts.
type flash struct {
	kept  map[string][]byte
	saves int
}

func (f *flash) Cache(id meter.ID, serial string) []byte { return f.kept[string(id)+"/"+serial] }

func (f *flash) SaveCache(id meter.ID, serial string, cache []byte) {
	f.saves++
	if f.kept == nil {
		f.kept = map[string][]byte{}
	}
	f.kept[string(id)+"/"+serial] = cache
}

// cached is a meter with a profile, and what a visit reads of it.
func cached(t *testing.T, columns []dlmstest.Column, rows ...axdr.Value) (*rig, meter.Ask) {
	t.Helper()
	r := newRig(t, dlmstest.Options{Objects: append(objects("A1"), dlmstest.Profile(obisOf(load), columns, 900, given(rows...)))})
	ask := since(t, start().Add(-2*time.Hour))
	ask.Groups = []meter.Group{{Lane: meter.Instant, Channels: []meter.Channel{channel(t, "1-0:2.8.0")}}}
	return r, ask
}

func aRow() axdr.Value { return row(when(start().Add(-time.Hour), 0), axdr.Unsigned(1), units(7)) }

// asks says whether one of the requests was for an attribute, 99.1.0*255/7:3.
func asks(requests []string, what string) bool {
	return slices.ContainsFunc(requests, func(r string) bool { return strings.Contains(r, what) })
}

// After a restart what the meter said of its objects is not asked for again; but
// of another meter, client or form it is, and when it is too old.
func TestCacheSurvivesARestart(t *testing.T) {
	t.Parallel()
	r, ask := cached(t, columns(), aRow())
	clock := &turnable{at: start()}
	f := &flash{}
	first := r.driver(t, Config{Serial: "A1", Caches: f, Now: clock.now})
	want, err := first.Visit(t.Context(), ask)
	if err != nil || len(want.Rows) != 2 || len(want.Failures) != 0 {
		t.Fatalf("%v, %s", err, describe(want))
	}
	asked := r.asked()
	if !asks(asked, "99.1.0*255/7:3") || !asks(asked, "1.8.0*255/3:3") || f.saves != 1 {
		t.Fatalf("asked %q, %d saves", asked, f.saves)
	}
	for title, c := range map[string]struct {
		cfg   Config
		spoil func(b []byte) []byte
		after time.Duration
		again bool
	}{
		"kept":           {Config{}, nil, time.Minute, false},
		"two days":       {Config{}, nil, 48 * time.Hour, false},
		"eight days":     {Config{}, nil, 8 * 24 * time.Hour, true},
		"clock set back": {Config{}, nil, -time.Minute, true},
		"another client": {Config{Quirks: dlms.Quirks{ListMax: 3}}, nil, time.Minute, true},
		"damaged":        {Config{}, func(b []byte) []byte { b[20] ^= 1; return b }, time.Minute, true},
		"cut":            {Config{}, func(b []byte) []byte { return b[:len(b)-1] }, time.Minute, true},
		"newer form":     {Config{}, func(b []byte) []byte { b[0]++; return sealed(b) }, time.Minute, true},
		"none":           {Config{}, func([]byte) []byte { return nil }, time.Minute, true},
	} {
		kept := slices.Clone(f.kept["m1/A1"])
		if c.spoil != nil {
			kept = c.spoil(kept)
		}
		c.cfg.Serial, c.cfg.Caches = "A1", &flash{kept: map[string][]byte{"m1/A1": kept}}
		c.cfg.Now = (&turnable{at: start().Add(c.after)}).now
		r.asked()
		got, err := r.driver(t, c.cfg).Visit(t.Context(), ask)
		if err != nil || len(got.Failures) != 0 || len(got.Rows) != 2 || got.Rows[0].Value != want.Rows[0].Value || got.Rows[1].Value != want.Rows[1].Value {
			t.Errorf("%s: %v, %s", title, err, describe(got))
		}
		asked := r.asked()
		if again := asks(asked, "99.1.0*255/7:3") && asks(asked, "2.8.0*255/3:3"); again != c.again {
			t.Errorf("%s: asked %q", title, asked)
		}
	}
}

// sealed gives octets with a checksum that fits.
func sealed(b []byte) []byte {
	end := len(b) - crc32.Size
	return binary.LittleEndian.AppendUint32(b[:end:end], crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)))
}

// A meter that was set up anew is asked again, and what it says now is kept.
func TestCacheOfOtherColumns(t *testing.T) {
	t.Parallel()
	f := &flash{}
	r, ask := cached(t, columns(), aRow())
	if _, err := r.driver(t, Config{Serial: "A1", Caches: f}).Visit(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	more := columns(dlmstest.Column{Class: 3, Code: obisOf("1-0:2.8.0"), ID: 2})
	r, ask = cached(t, more, row(when(start().Add(-time.Hour), 0), axdr.Unsigned(1), units(7), units(8)))
	got, err := r.driver(t, Config{Serial: "A1", Caches: f}).Visit(t.Context(), ask)
	if err != nil || len(got.Rows) != 3 || !asks(r.asked(), "99.1.0*255/7:3") || f.saves != 2 {
		t.Errorf("%v, %d saves, %s", err, f.saves, describe(got))
	}
	r.asked()
	if _, err := r.driver(t, Config{Serial: "A1", Caches: f}).Visit(t.Context(), ask); err != nil || asks(r.asked(), "2.8.0*255/3:3") {
		t.Error("what was read anew is not kept")
	}
}

// TestAProfileOfAsManyOtherColumns: a meter that was set up anew between two
// associations, with as many columns as before, gives no value in a wrong
// channel, nor with the scaler of before; and none of another period.
func TestAProfileOfAsManyOtherColumns(t *testing.T) {
	t.Parallel()
	energies := func(codes ...string) (all []dlmstest.Column) {
		all = columns()[:2]
		for _, c := range codes {
			all = append(all, dlmstest.Column{Class: 3, Code: obisOf(c), ID: 2})
		}
		return all
	}
	values := row(when(start().Add(-time.Hour), 0), axdr.Unsigned(1), units(7), units(8))
	for title, c := range map[string]struct {
		columns []dlmstest.Column
		period  uint32
		scaler  int64
		want    string
	}{
		"same":     {energies("1-0:3.8.0", "1-0:4.8.0"), 900, 0, "1-0:3.8.0=70 900 1-0:4.8.0=8 900 "}, // nobody asks again
		"others":   {energies("1-0:3.8.0", "1-0:2.8.0"), 900, 0, "1-0:3.8.0=7 900 1-0:2.8.0=8000 900 "},
		"swapped":  {energies("1-0:4.8.0", "1-0:3.8.0"), 900, 0, "1-0:4.8.0=7 900 1-0:3.8.0=8 900 "},
		"a period": {energies("1-0:3.8.0", "1-0:4.8.0"), 3600, 0, "1-0:3.8.0=7 3600 1-0:4.8.0=8 3600 "},
	} {
		for _, restart := range []bool{false, true} {
			f := &flash{}
			var scaler atomic.Int64
			scaler.Store(1)
			var profile atomic.Pointer[dlmstest.Object]
			setUp := func(columns []dlmstest.Column, period uint32) {
				o := dlmstest.Profile(obisOf(load), columns, period, given(values))
				profile.Store(&o)
			}
			setUp(energies("1-0:3.8.0", "1-0:4.8.0"), 900)
			r := newRig(t, dlmstest.Options{Objects: append(objects("A1"),
				dlmstest.Register(obisOf("1-0:4.8.0"), 0, 30, fixed(units(0))),
				dlmstest.Attributes(3, obisOf("1-0:3.8.0"), map[int8]func() axdr.Value{
					2: fixed(units(0)), 3: func() axdr.Value { return axdr.Structure(axdr.Integer(int8(scaler.Load())), axdr.Enum(30)) },
				}),
				dlmstest.Object{Class: 7, Code: obisOf(load), Read: func(id int8, rows *dlmstest.Selection) (axdr.Value, bool) { return profile.Load().Read(id, rows) }},
			)})
			m := r.driver(t, Config{Serial: "A1", Caches: f, Release: true})
			ask := since(t, start().Add(-2*time.Hour))
			if got, err := m.Visit(t.Context(), ask); err != nil || len(got.Rows) != 2 {
				t.Fatalf("%v, %s", err, describe(got))
			}
			if restart {
				m = r.driver(t, Config{Serial: "A1", Caches: f})
			}
			setUp(c.columns, c.period)
			scaler.Store(c.scaler)
			got, err := m.Visit(t.Context(), ask)
			var text strings.Builder
			for _, r := range got.Rows {
				fmt.Fprintf(&text, "%s=%v %d ", r.Channel.Short(), r.Value, r.Period)
			}
			if err != nil || text.String() != c.want || len(got.Failures) != 0 {
				t.Errorf("%s, restart %t: %v, %s\nwant %s", title, restart, err, describe(got), c.want)
			}
		}
	}
}

// What does not change is written seldom; and read again daily all the same.
func TestCacheIsWrittenSeldom(t *testing.T) {
	t.Parallel()
	r, ask := cached(t, columns(), aRow())
	clock, f := &turnable{at: start()}, &flash{}
	m := r.driver(t, Config{Serial: "A1", Caches: f, Now: clock.now})
	reads := 0
	for range 7 * 24 {
		r.asked()
		if _, err := m.Visit(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
		if asks(r.asked(), "99.1.0*255/7:3") {
			reads++
		}
		clock.turn(2 * time.Hour) // its monotonic time is half as fast
	}
	if f.saves < 3 || f.saves > 6 || reads != 7 {
		t.Errorf("in 14 days of 7 by the monotonic clock: %d saves, %d reads", f.saves, reads)
	}
}

func someCache() cache {
	at := meter.Stamp{Boot: 1}
	l := dlms.NewLayout(dlms.Attribute{Class: 7, Code: obisOf(load), ID: 2}, []dlms.Column{
		{Attribute: dlms.Attribute{Class: 8, Code: obisOf("0-0:1.0.0"), ID: 2}},
		{Attribute: dlms.Attribute{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 2}, Index: 3},
	}, 15*time.Minute)
	l.Sort = dlms.SortedNewest
	c := cache{
		clockRead: true, lists: true, explored: true, listMax: kept[int]{5, at}, ratios: kept[dlms.Ratios]{dlms.Ratios{Current: 100, Voltage: 2}, at},
		scales: map[dlms.Attribute]kept[dlms.ScalerUnit]{
			{Class: 3, Code: obisOf("1-0:1.8.0"), ID: 3}: {dlms.ScalerUnit{Scaler: -2, Unit: 30}, at},
			{Class: 5, Code: obisOf("1-0:1.4.0"), ID: 4}: {dlms.ScalerUnit{Scaler: 1, Unit: 27}, at},
		},
		layouts: map[obis.Code]kept[*layout]{obisOf(load): {newLayout(l, dlms.ByEntry), at}},
		found: []Found{
			{Name: "auto-alarm", Lane: meter.Alarm, Every: time.Minute, Channels: []meter.Channel{"0-0:97.98.0*255/1:2", "0-0:97.98.20*255/1:2"}},
			{Name: "auto-interval-1-0-99-1-0", Lane: meter.Interval, Every: time.Hour, Profile: "1-0:99.1.0*255/7:2"},
		},
	}
	return c
}

func TestCacheRoundTrip(t *testing.T) {
	t.Parallel()
	c := someCache()
	b := c.append(nil, 77, meter.Stamp{Time: 5, Boot: 1})
	got, at, err := parseCache(b, 77)
	if err != nil || at != 5 {
		t.Fatalf("%v %d", err, at)
	}
	if again := dated(got, meter.Stamp{Boot: 1}).append(nil, 77, meter.Stamp{Time: 5, Boot: 1}); !slices.Equal(again, b) {
		t.Errorf("got  %x\nwant %x", again, b)
	}
	if diff := cmp.Diff(c.found, got.found); diff != "" {
		t.Error(diff)
	}
	if !got.explored || !got.clockRead || got.localTime || !got.lists || got.listMax.value != 5 || got.ratios.value.Current != 100 {
		t.Errorf("%+v", got)
	}
	for n := range b {
		if _, _, err := parseCache(b[:n], 77); err == nil {
			t.Errorf("%d octets of %d are a cache", n, len(b))
		}
		if n < len(b)-crc32.Size {
			if _, _, err := parseCache(sealed(append(slices.Clone(b[:n]), 0, 0, 0, 0)), 77); err == nil {
				t.Errorf("%d octets of %d, sealed, are a cache", n, len(b))
			}
		}
	}
	if _, _, err := parseCache(b, 78); err == nil {
		t.Error("of another hash")
	}
}

func dated(c cache, at meter.Stamp) *cache {
	c.date(at)
	return &c
}

// What is taken for a cache is written the same again.
func FuzzCache(f *testing.F) {
	c := someCache()
	f.Add(c.append(nil, 77, meter.Stamp{Time: 5, Boot: 1})[cacheHead:])
	f.Fuzz(func(t *testing.T, body []byte) {
		head := []byte{cacheVersion, 77, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}
		c, at, err := parseCache(sealed(append(append(head, body...), 0, 0, 0, 0)), 77)
		if err != nil {
			return
		}
		now := meter.Stamp{Time: at, Boot: 1}
		c.date(now)
		b := c.append(nil, 77, now)
		again, _, err := parseCache(b, 77)
		if err != nil {
			t.Fatalf("%v of %x", err, b)
		}
		again.date(now)
		if !slices.Equal(again.append(nil, 77, now), b) {
			t.Fatalf("%x is written differently", b)
		}
	})
}
