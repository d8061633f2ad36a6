package web

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
)

// feed knows when each thing changed last, as a number that rises. Who has seen
// all up to a number gets what is above it, as it is now: clients that are slow or
// come back cost no memory.
type feed struct {
	snapshot func() Snapshot
	fresh    time.Duration // how old a snapshot may be

	mu       sync.Mutex
	instance string // of the numbers; they mean nothing in another one
	config   string // that things belong to
	last     uint64 // the highest number given
	marks    map[string]mark
	snap     *Snapshot // nil when nobody asked lately
	at       time.Time
	idle     *time.Timer
}

// mark is when something changed.
type mark struct {
	hash   uint64
	number uint64
}

const (
	// fresh is how old a snapshot may be; it costs a while to make.
	fresh = time.Second
	// keep is how long it is kept when nobody asks.
	keep = 30 * time.Second
)

// now gives how everything does, and the place in the stream where that is.
func (f *feed) now() (*Snapshot, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(time.Now())
	return f.snap, f.place()
}

func (f *feed) place() string { return f.instance + "-" + strconv.FormatUint(f.last, 10) }

// forget lets go of the snapshot.
func (f *feed) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snap = nil
	if f.idle != nil {
		f.idle.Stop()
	}
}

// refresh looks for changes, if it has not lately. mu is held.
func (f *feed) refresh(now time.Time) {
	if f.idle == nil {
		f.idle = time.AfterFunc(keep, f.forget)
	} else {
		f.idle.Reset(keep)
	}
	if f.snap != nil && now.Sub(f.at) < f.fresh && !now.Before(f.at) {
		return
	}
	snap := f.snapshot()
	settle(&snap.Overview)
	f.snap, f.at = &snap, now
	if f.marks == nil || f.config != snap.Overview.Config.Hash {
		f.instance, f.config = fmt.Sprintf("%08x", rand.Uint32()), snap.Overview.Config.Hash
		f.last, f.marks = 1, map[string]mark{}
	}
	next := f.last + 1
	f.mark("o", next, steady(snap.Overview))
	for i := range snap.Lines {
		f.mark("l"+snap.Lines[i].Line, next, &snap.Lines[i])
	}
	for i := range snap.Meters {
		f.mark("m"+snap.Meters[i].ID, next, &snap.Meters[i])
	}
	for i := range snap.Events {
		f.mark("a"+snap.Events[i].ID, next, nil)
	}
	if len(f.marks) > 2*(len(snap.Lines)+len(snap.Meters)+len(snap.Events)+1)+64 {
		f.marks = nil // of events that are long gone; clients begin anew
	}
}

// mark notes that something is so, and that it changed with that number where it
// was not.
func (f *feed) mark(key string, number uint64, v any) {
	h := fnv.New64a()
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return
		}
		_, _ = h.Write(b) // a hash takes everything
	}
	if m, ok := f.marks[key]; !ok || m.hash != h.Sum64() {
		f.marks[key] = mark{h.Sum64(), number}
		f.last = number
	}
}

// settle fills in what follows.
func settle(o *Overview) {
	o.Health = "ok"
	for _, c := range o.Conditions {
		switch {
		case c.Level == Fail:
			o.Health = string(Fail)
		case c.Level == Warn && o.Health == "ok":
			o.Health = string(Warn)
		}
	}
	if o.Conditions == nil {
		o.Conditions = []Condition{}
	}
}

// steady gives an overview without what changes all the time.
func steady(o Overview) Overview {
	o.Now, o.Uptime = "", 0
	for _, n := range []*int64{&o.Memory.Resident, &o.Memory.Anonymous, &o.Memory.Available, &o.Disk.Free, &o.Disk.Written, &o.Disk.Buffer} {
		*n >>= 20
	}
	o.Clock.Offset = float64(int64(o.Clock.Offset * 100))
	if o.Clock.Bound != nil {
		b := float64(int64(*o.Clock.Bound * 10))
		o.Clock.Bound = &b
	}
	return o
}

// changes is what changed behind a place.
type changes struct {
	reset    bool
	place    string
	overview *Overview
	lines    []Line
	meters   []Meter
	events   []Alarm // the oldest first
	snap     *Snapshot
}

// since gives what changed behind a place, "" for nothing but where now is.
func (f *feed) since(place string) (c changes) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh(time.Now())
	c.place, c.snap = f.place(), f.snap
	if place == "" || place == c.place {
		return c
	}
	instance, text, _ := strings.Cut(place, "-")
	seen, err := strconv.ParseUint(text, 10, 64)
	if c.reset = err != nil || instance != f.instance || seen > f.last; c.reset {
		return c
	}
	is := func(key string) bool { return f.marks[key].number > seen }
	if is("o") {
		c.overview = &f.snap.Overview
	}
	for _, l := range f.snap.Lines {
		if is("l" + l.Line) {
			c.lines = append(c.lines, l)
		}
	}
	for _, m := range f.snap.Meters {
		if is("m" + m.ID) {
			c.meters = append(c.meters, m)
		}
	}
	for i := len(f.snap.Events) - 1; i >= 0; i-- {
		if e := f.snap.Events[i]; is("a" + e.ID) {
			c.events = append(c.events, e)
		}
	}
	return c
}
