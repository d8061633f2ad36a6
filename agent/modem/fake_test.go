package modem

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// fake is a modem in memory: answer gives what it says to a command. It may be
// used in a bubble of testing/synctest.
type fake struct {
	answer func(command string) string

	in       bytes.Buffer
	deadline time.Time
	asked    []string
	dropped  int
}

func (f *fake) Write(p []byte) (int, error) {
	command := strings.TrimSuffix(string(p), "\r")
	f.asked = append(f.asked, command)
	f.in.WriteString(f.answer(command))
	return len(p), nil
}

func (f *fake) Read(p []byte) (int, error) {
	if f.in.Len() == 0 {
		time.Sleep(time.Until(f.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	return f.in.Read(p[:min(len(p), 7)]) // in pieces
}

func (f *fake) SetDeadline(t time.Time) error { f.deadline = t; return nil }
func (f *fake) Discard() error                { f.in.Reset(); return nil }
func (f *fake) Drop()                         { f.dropped++ }

// tries keeps tries in memory, over as many modems as it is given to.
type tries struct {
	mu    sync.Mutex
	noted map[string]bool
	full  bool // nothing can be written
}

var errFull = errors.New("disk full")

func (k *tries) Tried(sim, pin string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.noted[sim+pin], nil
}

func (k *tries) Note(sim, pin string) error { return k.set(sim+pin, true) }

func (k *tries) Forget(sim, pin string) error { return k.set(sim+pin, false) }

func (k *tries) set(name string, to bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.full {
		return errFull
	}
	if k.noted == nil {
		k.noted = map[string]bool{}
	}
	k.noted[name] = to
	return nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
