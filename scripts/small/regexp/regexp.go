// Package regexp stands for the standard library's in the modules that
// scripts/small.sh copies: an eighth of it, which compiles the dozen constant
// patterns of theirs and no others. Sets are of octets. The time that a match
// takes is linear in the text.
package regexp

import "strings"

// Regexp is a compiled pattern. It may be used from several goroutines.
type Regexp struct {
	program []step
	groups  int // with that of the whole
}

type kind byte

const (
	one   kind = iota // an octet of the set
	start             // of the text
	end               // of the text
	save              // where the text is, in slot x
	fork              // go on at x, or else at y
)

// step is one of the program; its end is beyond the last.
type step struct {
	kind kind
	set  [256 / 32]uint32
	x, y int
}

func (s *step) add(from, to byte) {
	for c := int(from); c <= int(to); c++ {
		s.set[c/32] |= 1 << (c % 32)
	}
}

func (s *step) has(c byte) bool { return s.set[c/32]&(1<<(c%32)) != 0 }

func (s *step) invert() {
	for i := range s.set {
		s.set[i] = ^s.set[i]
	}
}

// QuoteMeta gives a pattern that matches text and nothing else.
func QuoteMeta(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if strings.IndexByte(`\.+*?()|[]{}^$`, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// MustCompile compiles a pattern. It panics with what it does not know.
func MustCompile(pattern string) *Regexp {
	c := compiler{rest: pattern, groups: 1}
	p := c.alternatives()
	if c.rest != "" {
		panic("regexp: in " + pattern + ": not known: " + c.rest)
	}
	return &Regexp{p, c.groups}
}

// MatchString says whether the pattern is somewhere in text.
func (r *Regexp) MatchString(text string) bool { return r.find(text) != nil }

// FindStringSubmatch gives the leftmost match and those of its groups; nil for
// none.
func (r *Regexp) FindStringSubmatch(text string) []string {
	at := r.find(text)
	if at == nil {
		return nil
	}
	found := make([]string, r.groups)
	for i := range found {
		if at[2*i+1] > 0 {
			found[i] = text[at[2*i]-1 : at[2*i+1]-1]
		}
	}
	return found
}

// thread is a place in the program, and the slots on the way there: where the
// text was, and 1, so that none is 0.
type thread struct {
	pc    int
	slots []int
}

// machine goes through a text with all ways through the program at once, the
// preferred first.
type machine struct {
	program []step
	text    string
	seen    []int // at which place of the text a step was reached last, and 1
	next    []thread
}

func (r *Regexp) find(text string) []int {
	m := machine{program: r.program, text: text, seen: make([]int, len(r.program)+1)}
	anchored := len(r.program) > 0 && r.program[0].kind == start
	var best []int
	for at := 0; ; at++ {
		now := m.next
		m.next = nil
		for _, t := range now { // those that have taken what is before at
			m.reach(t.pc, at, t.slots)
		}
		if best == nil && (at == 0 || !anchored) {
			slots := make([]int, 2*r.groups)
			slots[0] = at + 1
			m.reach(0, at, slots)
		}
		now, m.next = m.next, nil
		for _, t := range now {
			if t.pc == len(m.program) {
				t.slots[1] = at + 1
				best = t.slots
				break // the others are less preferred
			}
			if at < len(text) && m.program[t.pc].has(text[at]) {
				m.next = append(m.next, thread{t.pc + 1, t.slots})
			}
		}
		if at == len(text) || len(m.next) == 0 && (anchored || best != nil) {
			return best
		}
	}
}

// reach follows the program to where it takes an octet, or ends.
func (m *machine) reach(pc, at int, slots []int) {
	if m.seen[pc] == at+1 {
		return
	}
	m.seen[pc] = at + 1
	if pc == len(m.program) {
		m.next = append(m.next, thread{pc, append([]int(nil), slots...)})
		return
	}
	switch s := &m.program[pc]; {
	case s.kind == one:
		m.next = append(m.next, thread{pc, slots})
	case s.kind == fork:
		m.reach(pc+s.x, at, slots)
		m.reach(pc+s.y, at, slots)
	case s.kind == save:
		slots = append([]int(nil), slots...)
		slots[s.x] = at + 1
		m.reach(pc+1, at, slots)
	case s.kind == start && at == 0, s.kind == end && at == len(m.text):
		m.reach(pc+1, at, slots)
	}
}
