package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gridgate/internal/sortby"
)

// maxProblems bounds what one document can bring up.
const maxProblems = 100

// Problem is one thing that is wrong with a document, and where.
type Problem struct {
	File   string
	Line   int // from 1; 0 when it is about the file as a whole
	Column int // from 1
	Key    string
	Value  string // what stands there; empty where it may be a secret
	Want   string // what is wrong or what should stand there
}

// Error gives the problem in one line: demo.yaml:12: meters[3].id: "A": want ….
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	b.WriteByte(':')
	if p.Line > 0 {
		b.WriteString(strconv.Itoa(p.Line) + ":")
	}
	b.WriteByte(' ')
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	if p.Value != "" {
		b.WriteString(strconv.Quote(p.Value) + ": ")
	}
	b.WriteString(p.Want)
	return b.String()
}

// Problems is everything that is wrong with a document, in the order of its
// lines.
type Problems []*Problem

// Error gives a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the problems one by one.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// sorted gives the problems in the order of the document, at most maxProblems.
func (ps Problems) sorted() Problems {
	ps = slices.Clone(ps)
	sortby.Stable(ps, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(ps) - maxProblems; more > 0 {
		ps = append(ps[:maxProblems:maxProblems], &Problem{
			File: ps[0].File, Want: fmt.Sprintf("and %d more problems", more),
		})
	}
	return ps
}

// suggest gives the candidate that s is a slip of the hand away from.
func suggest(s string, candidates []string) (string, bool) {
	best, at := 3, -1
	if len(s) > 64 {
		return "", false
	}
	for i, c := range candidates {
		if d := distance(s, c); d < best && 2*d < len(c) {
			best, at = d, i
		}
	}
	if at < 0 {
		return "", false
	}
	return candidates[at], true
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to make b of a.
func distance(a, b string) int {
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
