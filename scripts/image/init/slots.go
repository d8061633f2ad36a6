package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
)

// slots is what the first process does to the slots when gridgate asks for it. The
// one that runs is never written.
type slots struct {
	boot    string // folder of gw0.env and gw1.env
	board   string
	running string            // a, b, or f for the factory's
	dir     string            // where the files of that are
	parts   map[string]string // slot to device
	seeds   string            // folder with what an empty slot begins with
	roots   []string          // folders that gridgate may name files in
	// write does something while gw*.env may be written.
	write func(do func() error) error
	// restart begins the next start; it gives at once.
	restart func()

	mu        sync.Mutex // one request after another, and none while a slot proves itself
	installed bool       // since power on, and nothing has gone wrong with it since
	settled   bool       // the slot that runs has its tries, or is to have none
}

// Tries of a slot that is new.
const trialTries = 3

// slotState is what gridgate is told.
type slotState struct {
	Board   string         `json:"board"`
	Running string         `json:"running"`
	First   string         `json:"first"` // what the next start takes, as things are: a, b or f
	Trial   string         `json:"trial"`
	Tries   map[string]int `json:"tries"`
	Dir     string         `json:"dir"`
}

func (s *slots) state() slotState {
	t, _, err := readTries(s.boot)
	if err != nil {
		log.Printf("the counts of tries do not read, as if they were new: %v", err)
	}
	return slotState{
		Board: s.board, Running: s.running, First: t.next(), Trial: t.trial, Dir: s.dir,
		Tries: map[string]int{"a": t.left["a"], "b": t.left["b"]},
	}
}

// onTrial says whether the slot that runs waits for being confirmed. While a request
// is carried out it says no: who asks has a watchdog to feed.
func (s *slots) onTrial() bool {
	if !s.mu.TryLock() {
		return false
	}
	defer s.mu.Unlock()
	t, _, _ := readTries(s.boot) // what does not read is on trial no more
	return t.trial == s.running
}

func (s *slots) change(do func(*tries) error) error {
	return s.write(func() error { return writeTries(s.boot, do) })
}

// mayInstall says why the other slot may not be written now.
func (s *slots) mayInstall() error {
	t, _, _ := readTries(s.boot) // what does not read says nothing against it
	other := otherOf(s.running)
	switch {
	case t.trial == s.running:
		return fmt.Errorf("slot %s is on trial, and %s is what it goes back to: confirm, or go back first", s.running, other)
	case t.trial == other:
		return fmt.Errorf("slot %s is on trial: go back first", other)
	case t.next() == other:
		return fmt.Errorf("slot %s is what the next start takes", other)
	}
	return nil
}

// switchOver has the next starts try the other slot.
func (s *slots) switchOver() error {
	if !s.installed {
		return errors.New("nothing was installed since power on")
	}
	other := otherOf(s.running)
	return s.change(func(t *tries) error {
		t.first, t.trial, t.left[other] = other, other, trialTries
		if s.running != "f" { // it runs well enough to be asked for this
			t.left[s.running] = fullTries
		}
		return nil
	})
}

// confirm makes the slot that runs the one that starts come back to.
func (s *slots) confirm() error {
	if s.running == "f" {
		return errors.New("the factory's slot is never confirmed")
	}
	err := s.change(func(t *tries) error {
		if t.trial != "" && t.trial != s.running {
			return fmt.Errorf("slot %s is on trial, and slot %s runs: go back first", t.trial, s.running)
		}
		t.first, t.trial, t.left[s.running] = s.running, "", fullTries
		return nil
	})
	if err == nil {
		s.settled = true
	}
	return err
}

// back ends a trial.
func (s *slots) back() error {
	err := s.change(func(t *tries) error {
		if t.trial != "" {
			t.first, t.left[t.trial] = otherOf(t.trial), 0
			s.settled = s.settled || t.trial == s.running
			t.trial = ""
		}
		return nil
	})
	s.installed = s.installed && err != nil
	return err
}

// factory has the next start take the slot of the factory.
func (s *slots) factory() error {
	err := s.change(func(t *tries) error {
		t.left["a"], t.left["b"], t.trial = 0, 0, ""
		return nil
	})
	if err == nil {
		s.settled, s.installed = true, false
	}
	return err
}

// proven gives the slot that runs its tries back, once: it has run well for a
// while. One on trial is confirmed by who has more to go by. While a request is
// carried out it does nothing; it is called again.
func (s *slots) proven() {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if s.settled || s.running == "f" {
		return
	}
	errTrial := errors.New("on trial")
	err := s.change(func(t *tries) error {
		if t.trial == s.running {
			return errTrial
		}
		t.left[s.running] = fullTries
		return nil
	})
	s.settled = true
	switch {
	case errors.Is(err, errTrial):
	case err != nil:
		log.Printf("slot %s has proven itself, but that cannot be written: %v", s.running, err)
	default:
		log.Printf("slot %s has proven itself", s.running)
	}
}

// boardOf reads which board the image was made for.
func boardOf(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		log.Print(err)
	}
	return string(b)
}

func newSlots(d *disk, running string, restart func()) *slots {
	return &slots{
		boot: "/boot", board: boardOf("/etc/board"), running: running, dir: d.slotDir,
		parts: map[string]string{"a": d.parts[labelA], "b": d.parts[labelB]},
		seeds: "/lib/slots", roots: []string{"/data", filepath.Clean(d.slotDir)},
		write:   func(do func() error) error { return writable("/boot", do) },
		restart: restart,
	}
}
