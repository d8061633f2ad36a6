package bridge

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/track"
)

const now = at + 60_000

// text gives messages in short: a line each, and one a metric.
func short(messages []told) string {
	var b strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&b, "%s %s %d\n", m.kind, m.device, m.seq)
		for _, x := range m.metrics {
			fmt.Fprintf(&b, "  %s#%d type %d at %d %s", x.name, x.alias, x.kind, int64(x.timestamp)-at, x.value)
			if x.null {
				b.WriteString("null")
			}
			if x.historical {
				b.WriteString(" historical")
			}
			fmt.Fprintf(&b, " [%s]\n", x.properties)
		}
	}
	return b.String()
}

func compare(t *testing.T, what string, messages []told, want string) {
	t.Helper()
	if diff := cmp.Diff(strings.TrimLeft(want, "\n"), short(messages)); diff != "" {
		t.Errorf("%s: want -, got +\n%s", what, diff)
	}
}

func TestALifeOfANode(t *testing.T) {
	t.Parallel()
	r, h := &reader{t: t}, newHost(t)
	n := NewNode("north", "gw-7", NodeOptions{})
	n.SetSoftware("1.2.3")
	will := r.read(n.Connect(now))
	waiting := []track.Reading{
		reading(energy, at, uintOf(1200, 1), 30), reading(energy, at+1000, uintOf(1201, 1), 30), reading(voltage, at-3_600_000, uintOf(2301, -1), 35, of("house-2")),
	}
	births := r.all(n.Birth(waiting, at+1500))
	h.hear(births...)
	h.hear(will)
	h.hear(births...)
	compare(t, "births", births, `
NBIRTH  0
  bdSeq#0 type 4 at 1500 long 0 []
  Node Control/Rebirth#0 type 11 at 1500 boolean false []
  Properties/Software#1 type 12 at 1500 string 1.2.3 []
DBIRTH house-1 1
  instant/1-0:1.8.0#3 type 8 at 1000 long 12010 [Quality=192,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  Properties/Serial#2 type 12 at 1500 string 4711 []
DBIRTH house-2 2
  instant/1-0:32.7.0#5 type 10 at -3600000 double 230.1 [Quality=500,Channel=1-0:32.7.0*255/3:2,engUnit=V]
  Properties/Serial#4 type 12 at 1500 string of-house-2 []
`)
	flushed := r.all(n.Data(waiting, now))
	h.hear(flushed...)
	compare(t, "what waited", flushed, `
DDATA house-1 3
  #3 type 8 at 0 long 12000 historical []
  #3 type 8 at 1000 long 12010 historical []
DDATA house-2 4
  #5 type 10 at -3600000 double 230.1 historical [Quality=192]
`)
	live := r.all(n.Data([]track.Reading{
		reading(energy, at+3000, uintOf(1203, 1), 30), reading(energy, at+2000, uintOf(1202, 1), 30),
		reading(energy, at+4000, uintOf(1, 1), 30, quality(batch.RanBackwards)), reading(energy, at+5000, uintOf(1, 1), 30, quality(batch.RanBackwards)),
		reading(energy, at+6000, uintOf(1204, 1), 30, quality(batch.PowerFailure)), reading(energy, at+7000, uintOf(1205, 1), 30), reading(energy, at+8000, uintOf(1206, 1), 30),
		reading(energy, at+9000, batch.Value{}, 30, quality(batch.Overflow)),
	}, now))
	h.hear(live...)
	compare(t, "what is new", live, `
DDATA house-1 5
  #3 type 8 at 2000 long 12020 []
  #3 type 8 at 3000 long 12030 []
  #3 type 8 at 4000 long 10 [Quality=0,Flags=ran-backwards]
  #3 type 8 at 5000 long 10 [Quality=0,Flags=ran-backwards]
  #3 type 8 at 6000 long 12040 [Quality=192,Flags=power-failure]
  #3 type 8 at 7000 long 12050 [Quality=192,Flags=good]
  #3 type 8 at 8000 long 12060 []
  #3 type 8 at 9000 null [Quality=0,Flags=overflow]
`)
	late := r.all(n.Data([]track.Reading{reading(voltage, at+1499, uintOf(2302, -1), 35, of("house-2"))}, now))
	h.hear(late...)
	compare(t, "what was read before the birth and came after it", late, `
DDATA house-2 6
  #5 type 10 at 1499 double 230.2 historical []
`)
	refreshed := r.all(n.Refresh(now))
	h.hear(refreshed...)
	compare(t, "what is current", refreshed, `
DBIRTH house-2 7
  instant/1-0:32.7.0#5 type 10 at 1499 double 230.2 [Quality=192,Channel=1-0:32.7.0*255/3:2,engUnit=V]
  Properties/Serial#4 type 12 at 60000 string of-house-2 []
`)
	if more := n.Refresh(now); more != nil {
		t.Error(short(r.all(more)))
	}
	again := r.all(n.Birth(nil, now))
	h.hear(again...)
	compare(t, "births again", again[:2], `
NBIRTH  0
  bdSeq#0 type 4 at 60000 long 0 []
  Node Control/Rebirth#0 type 11 at 60000 boolean false []
  Properties/Software#1 type 12 at 60000 string 1.2.3 []
DBIRTH house-1 1
  instant/1-0:1.8.0#3 type 8 at 9000 null [Quality=0,Flags=overflow,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  Properties/Serial#2 type 12 at 60000 string 4711 []
`)
	h.hear(r.read(n.Death(now)))
}

// A device is born again when it has something new, before its data.
func TestWhatIsNewIsBornFirst(t *testing.T) {
	t.Parallel()
	r, h := &reader{t: t}, newHost(t)
	n := NewNode("north", "gw-7", NodeOptions{})
	n.Connect(now)
	h.hear(r.all(n.Birth(nil, at))...)
	step := func(what, want string, rows ...track.Reading) {
		t.Helper()
		got := r.all(n.Data(rows, now))
		h.hear(got...)
		compare(t, what, got, want)
	}
	step("a meter", `
DBIRTH house-1 1
  instant/1-0:1.8.0#3 type 8 at 0 long 7 [Quality=192,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  Properties/Serial#2 type 12 at 60000 string 4711 []
DDATA house-1 2
  #3 type 8 at 0 long 7 historical []
`, reading(energy, at, uintOf(7, 0), 30))
	step("another channel, no value yet", `
DBIRTH house-1 3
  instant/1-0:1.8.0#3 type 8 at 0 long 7 [Quality=192,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  instant/1-0:32.7.0#4 type 10 at 1 null [Quality=0,Flags=no-value,Channel=1-0:32.7.0*255/3:2,engUnit=V]
  Properties/Serial#2 type 12 at 60000 string 4711 []
DDATA house-1 4
  #4 type 10 at 1 null historical [Quality=0,Flags=no-value]
`, reading(voltage, at+1, batch.Value{}, 35))
	step("a value of the type that was guessed", `
DDATA house-1 5
  #4 type 10 at 2 double 230.1 [Quality=192,Flags=good]
`, reading(voltage, at+2, uintOf(2301, -1), 35))
	step("another scale", `
DBIRTH house-1 6
  instant/1-0:32.7.0#4 type 10 at 2 double 230.1 [Quality=192,Channel=1-0:32.7.0*255/3:2,engUnit=V]
  instant/1-0:1.8.0#3 type 10 at 4 double 9 [Quality=192,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  Properties/Serial#2 type 12 at 60000 string 4711 []
DDATA house-1 7
  #3 type 10 at 3 double 0.8 historical []
  #3 type 10 at 4 double 9 historical []
`, reading(energy, at+3, uintOf(8, -1), 30), reading(energy, at+4, uintOf(9, 0), 30))
}

func TestWhatATypeDoesNotHold(t *testing.T) {
	t.Parallel()
	r := &reader{t: t}
	n := NewNode("north", "gw-7", NodeOptions{Strict: true})
	n.Connect(now)
	n.Birth([]track.Reading{reading(energy, at, uintOf(7, -3), 30)}, at)
	for _, c := range []struct {
		row  track.Reading
		want string
	}{
		{reading(energy, at+1, uintOf(math.MaxUint64, -3), 30), "  #3 type -1 at 1 null [Quality=0,Exact=18446744073709551.615 Wh]\n"},
		{reading(energy, at+2, uintOf(9, -3), 30), "  #3 type -1 at 2 double 0.009 [Quality=192,Exact=-]\n"},
		{reading(energy, at-9, uintOf(9, -3), 32), "  #3 type -1 at -9 null historical [Quality=0,Flags=unit-differs,Exact=0.009 varh]\n"},
		{reading(energy, at-8, uintOf(9, -3), 30, func(r *batch.Row) { r.Serial = "old" }), "  #3 type -1 at -8 double 0.009 historical [Quality=192,Flags=good,Serial=old,Exact=-]\n"},
		{reading(energy, at-7, uintOf(9, -3), 30, func(r *batch.Row) { r.Occurrence = 1 }), "  #3 type -1 at -7 double 0.009 historical [Quality=192,Serial=-,Occurrence=1]\n"},
		{reading(energy, at+3, uintOf(9, -3), 30), "  #3 type -1 at 3 double 0.009 [Quality=192,Occurrence=0]\n"},
	} {
		got := short(r.all(n.Data([]track.Reading{c.row}, now)))
		if _, metrics, _ := strings.Cut(got, "\n"); metrics != c.want || !strings.HasPrefix(got, "DDATA") {
			t.Errorf("%s, want\n%s", got, c.want)
		}
	}
	births := short(r.all(n.Data([]track.Reading{reading(energy, at+9, uintOf(9, -3), 30, func(r *batch.Row) { r.Serial = "4712" })}, now)))
	if !strings.HasPrefix(births, "DBIRTH") || !strings.Contains(births, "string 4712") {
		t.Errorf("another meter: %s", births)
	}
}

// A clock that is wrong once does not keep what comes later from being current.
func TestTimesToComeAreNotCurrent(t *testing.T) {
	t.Parallel()
	r, h := &reader{t: t}, newHost(t)
	n := NewNode("north", "gw-7", NodeOptions{})
	n.Connect(now)
	h.hear(r.all(n.Birth(nil, now))...)
	const year = 365 * 86_400_000
	for i, c := range []struct {
		time       int64
		historical bool
	}{{at + year, true}, {now + 1, false}, {now + 2, false}, {at + year, true}, {now + 3, false}, {now + 3, true}, {at, true}} {
		got := r.all(n.Data([]track.Reading{reading(energy, c.time, uintOf(uint64(i), 0), 30)}, now))
		h.hear(got...)
		last := got[len(got)-1]
		if last.kind != "DDATA" || last.metrics[0].historical != c.historical {
			t.Errorf("row %d: %s", i, short(got))
		}
	}
	if got := r.all(n.Birth(nil, now)); !strings.Contains(short(got), "at 60003 long 5 ") {
		t.Errorf("born with %s", short(got))
	}
}

// The newest interval is current however old it is; a voltage of yesterday is
// not.
func TestTheNewestIntervalIsCurrent(t *testing.T) {
	t.Parallel()
	r, h := &reader{t: t}, newHost(t)
	n := NewNode("north", "gw-7", NodeOptions{})
	n.Connect(now)
	h.hear(r.all(n.Birth([]track.Reading{
		reading(energy, at-90_000_000, uintOf(1, 0), 30, interval(900)), reading(voltage, at-90_000_000, uintOf(2301, -1), 35),
	}, now-100))...)
	got := r.all(n.Data([]track.Reading{
		reading(energy, at-7_200_000, uintOf(2, 0), 30, interval(900)), reading(energy, at-6_300_000, uintOf(3, 0), 30, interval(900)),
	}, now))
	got = append(got, r.all(n.Refresh(now))...)
	h.hear(got...)
	compare(t, "intervals", got, `
DDATA house-1 2
  #3 type 8 at -7200000 long 2 historical []
  #3 type 8 at -6300000 long 3 historical []
DBIRTH house-1 3
  instant/1-0:32.7.0#4 type 10 at -90000000 double 230.1 [Quality=500,Channel=1-0:32.7.0*255/3:2,engUnit=V]
  interval/900s/1-0:1.8.0#3 type 8 at -6300000 long 3 [Quality=192,Channel=1-0:1.8.0*255/3:2,engUnit=Wh]
  Properties/Serial#2 type 12 at 60000 string 4711 []
`)
	got = r.all(n.Data([]track.Reading{reading(voltage, at-7_200_000, uintOf(2302, -1), 35)}, now))
	got = append(got, r.all(n.Refresh(now))...)
	h.hear(got...)
	compare(t, "a voltage", got, `
DDATA house-1 4
  #4 type 10 at -7200000 double 230.2 historical [Quality=192]
`)
}

func TestSequenceNumbersHaveNoGap(t *testing.T) {
	t.Parallel()
	r, h := &reader{t: t}, newHost(t)
	n := NewNode("north", "gw-7", NodeOptions{})
	n.Connect(now)
	h.hear(r.all(n.Birth(nil, now))...)
	heard := 0
	for i := range 700 {
		id := batch.ID(fmt.Sprintf("house-%d", i%9))
		got := r.all(n.Data([]track.Reading{reading(energy, at+int64(i), uintOf(uint64(i), 0), 30, of(id))}, now))
		h.hear(got...)
		heard += len(got)
	}
	many := make([]track.Reading, 2*maxDDATA+1)
	for i := range many {
		many[i] = reading(energy, at+int64(1000+i), uintOf(uint64(i), 0), 30, of("house-1"))
	}
	got := r.all(n.Data(many, now))
	h.hear(got...)
	if heard < 700 || len(got) != 3 || len(got[0].metrics) != maxDDATA || len(got[2].metrics) != 1 {
		t.Errorf("%d messages, then %d", heard, len(got))
	}
}

func TestBdSeqGoesRound(t *testing.T) {
	t.Parallel()
	r, h := &reader{t: t}, newHost(t)
	n := NewNode("north", "gw-7", NodeOptions{})
	for i := range 600 {
		n.Connect(now)
		n.Unsent()
		will := r.read(n.Connect(now))
		h.hear(r.all(n.Birth(nil, now))...)
		h.hear(will)
		if want := fmt.Sprint("long ", i%256); h.bdSeq != want {
			t.Fatalf("%s, want %s", h.bdSeq, want)
		}
	}
}
