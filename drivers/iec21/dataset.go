package iec21

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// errLine says that a line is not one of data sets.
var errLine = errors.New("not a line of data sets")

const (
	maxLine   = 4096 // octets; the standard has 78, makes write more
	maxValues = 512  // of a line
)

// dataSet is one data set (IEC 62056-21, 5.9.1 item 15): an address, which may
// be left out, and values with their units as they came.
//
//	1.8.0(001234.5*kWh)      1.6.0(0.123*kW)(2609151230)      (0.5)(0.25)
type dataSet struct {
	address string
	values  []string // each what stood between parentheses
}

// parseLine reads a line without its end. A line has one or more data sets.
func parseLine(b []byte) ([]dataSet, error) {
	wrong := func() ([]dataSet, error) {
		return nil, fmt.Errorf("%w: %q", errLine, b[:min(len(b), 80)])
	}
	if len(b) == 0 || len(b) > maxLine {
		return wrong()
	}
	var sets []dataSet
	count := 0
	for rest := b; len(rest) > 0; {
		open := bytes.IndexByte(rest, '(')
		if open < 0 {
			return wrong()
		}
		end := bytes.IndexByte(rest[open:], ')')
		if end < 0 {
			return wrong()
		}
		address, value := rest[:open], rest[open+1:open+end]
		rest = rest[open+end+1:]
		if !isAddressText(address) || !isValueText(value) {
			return wrong()
		}
		if len(address) > 0 || len(sets) == 0 {
			sets = append(sets, dataSet{address: string(address)})
		}
		if count++; count > maxValues {
			return wrong()
		}
		last := &sets[len(sets)-1]
		last.values = append(last.values, string(value))
	}
	return sets, nil
}

// appendLine is the inverse of parseLine.
func appendLine(b []byte, sets []dataSet) []byte {
	for _, s := range sets {
		b = append(b, s.address...)
		for _, v := range s.values {
			b = append(append(append(b, '('), v...), ')')
		}
	}
	return b
}

func isAddressText(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c > '~' || strings.IndexByte("()/!", c) >= 0 {
			return false
		}
	}
	return len(b) <= 32
}

// isValueText is more than the standard allows: some write '/' and '!' in texts.
func isValueText(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '(' {
			return false
		}
	}
	return true
}

// cutUnit takes the unit off a value: 001234.5*kWh.
func cutUnit(s string) (value, unit string) {
	value, unit, _ = strings.Cut(s, "*")
	return strings.TrimSpace(value), strings.TrimSpace(unit)
}

// textLine is a line of a block, and where in the block it ends.
type textLine struct {
	text []byte
	end  int
}

// lines gives the lines of a block, and whether its end, '!', was there. What
// stands behind '!' is not of the block.
func lines(body []byte) (all []textLine, ended bool) {
	for at := 0; at < len(body) && !ended; {
		line, _, _ := bytes.Cut(body[at:], []byte("\n"))
		end := at + len(line)
		at = end + 1
		line = bytes.TrimRight(line, "\r")
		// '!' ends a block; in a text it stands between parentheses.
		if bytes.HasSuffix(line, []byte("!")) {
			line, ended = line[:len(line)-1], true
		}
		if len(line) > 0 {
			all = append(all, textLine{line, end})
		}
	}
	return all, ended
}

// isRefusal says whether a value is an error message (IEC 62056-21, 5.9.1
// item 19): ERROR, ERR3, ER05.
func isRefusal(value string) bool {
	rest, ok := strings.CutPrefix(strings.ToUpper(strings.TrimSpace(value)), "ER")
	if !ok {
		return false
	}
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "ROR"), "R")
	return strings.Trim(rest, "0123456789 ,.-:") == "" || strings.HasPrefix(rest, " ")
}
