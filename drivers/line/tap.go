package line

import (
	"slices"
	"sync"
	"time"
)

// Passed is octets that an exchange sent or received.
type Passed struct {
	At       time.Time
	Sent     bool     // by us
	Settings Settings // of a serial port; else zero
	Data     []byte
	Lost     int // chunks before this one that nobody took in time
}

const (
	maxTaps  = 4
	tapQueue = 256 // chunks
)

// taps are those who listen to what passes on a line.
type taps struct {
	mu  sync.Mutex
	all []*tap
}

type tap struct {
	out  chan Passed
	lost int
	once sync.Once
}

func (t *tap) end() { t.once.Do(func() { close(t.out) }) }

// Tap gives a copy of what passes on the line from now on, without getting in its
// way: who does not keep up misses chunks, and is told how many. The line need not
// be open, and a loan to another process is not heard. stop ends it, and closes
// the channel, as Close does. ok is false when enough others listen.
func (l *Line) Tap() (passed <-chan Passed, stop func(), ok bool) {
	l.taps.mu.Lock()
	defer l.taps.mu.Unlock()
	if len(l.taps.all) >= maxTaps {
		return nil, nil, false
	}
	t := &tap{out: make(chan Passed, tapQueue)}
	l.taps.all = append(l.taps.all, t)
	return t.out, func() {
		l.taps.mu.Lock()
		defer l.taps.mu.Unlock()
		l.taps.all = slices.DeleteFunc(l.taps.all, func(o *tap) bool { return o == t })
		t.end()
	}, true
}

// endTaps is for a line that is closed.
func (l *Line) endTaps() {
	l.taps.mu.Lock()
	defer l.taps.mu.Unlock()
	for _, t := range l.taps.all {
		t.end()
	}
	l.taps.all = nil
}

// pass tells those who listen.
func (l *Line) pass(sent bool, b []byte) {
	if len(b) == 0 {
		return
	}
	l.taps.mu.Lock()
	defer l.taps.mu.Unlock()
	if len(l.taps.all) == 0 {
		return
	}
	var settings Settings
	if _, ok := l.medium.(bus); ok {
		settings = l.settings
	}
	for _, t := range l.taps.all {
		select {
		case t.out <- Passed{At: time.Now(), Sent: sent, Settings: settings, Data: slices.Clone(b), Lost: t.lost}:
			t.lost = 0
		default:
			t.lost++
		}
	}
}
