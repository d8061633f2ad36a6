package command

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// limiter bounds what is answered to documents that are not carried out.
type limiter struct {
	told   [][sha256.Size]byte // retained ones
	minute time.Time
	n      int

	hour    time.Time
	written int
}

const (
	toldKept  = 64
	perMinute = 30 // that are answered
	perHour   = 30 // that are written down
)

// mayWrite says whether one more may be written down within this hour; last that
// it is the last one.
func (l *limiter) mayWrite(now time.Time) (may, last bool) {
	if now.Sub(l.hour) >= time.Hour || now.Before(l.hour) {
		l.hour, l.written = now, 0
	}
	l.written++
	return l.written <= perHour, l.written == perHour
}

func (l *limiter) first(in Incoming, why string, now time.Time) bool {
	if in.Retained {
		h := sha256.New()
		h.Write(in.Data)
		h.Write([]byte(why))
		sum := [sha256.Size]byte(h.Sum(nil))
		if slices.Contains(l.told, sum) {
			return false
		}
		if l.told = append(l.told, sum); len(l.told) > toldKept {
			l.told = l.told[1:]
		}
	}
	if now.Sub(l.minute) >= time.Minute || now.Before(l.minute) {
		l.minute, l.n = now, 0
	}
	l.n++
	return l.n <= perMinute
}

// hourly counts disconnects within an hour, over restarts.
type hourly struct {
	store store

	mu    sync.Mutex
	times []int64 // seconds since 1970, rising
	err   error   // why they cannot be read
}

// hourID names the file of hourly; it is no id, so that no command has it.
const hourID = "_hour"

func openHourly(dir string) *hourly {
	h := &hourly{store: store{dir}}
	b, err := h.store.get(hourID, "")
	if err == nil {
		err = json.Unmarshal(b, &h.times)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return h
	}
	if err != nil { // as if the hour were full: it ends
		h.err = err
		if info, statErr := os.Stat(h.store.path(hourID, "")); statErr == nil && time.Since(info.ModTime()) > time.Hour {
			h.err = nil
		}
	}
	return h
}

// take counts n more within an hour, when that is not more than most. It is
// durable on return.
func (h *hourly) take(n, most int, now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return fmt.Errorf("%w: how many were within this hour cannot be read: %w", ErrCap, h.err)
	}
	at := now.Unix()
	times := slices.DeleteFunc(slices.Clone(h.times), func(t int64) bool { return t <= at-3600 || t > at+3600 })
	if len(times)+n > most {
		return fmt.Errorf("%w: %d an hour, and %d were within the last", ErrCap, most, len(times))
	}
	for range n {
		times = append(times, at)
	}
	b, err := json.Marshal(times)
	if err == nil {
		err = h.store.put(hourID, "", b)
	}
	if err != nil {
		return fmt.Errorf("disconnects cannot be counted: %w", err)
	}
	h.times = times
	return nil
}
