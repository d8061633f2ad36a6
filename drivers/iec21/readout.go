package iec21

import (
	"context"
	"errors"
	"fmt"

	"gridgate/dlms/obis"
	"gridgate/internal/meter"
)

const (
	maxReadout = 1 << 16 // octets
	maxSets    = 2048    // data sets of a readout
)

// errSilent says that the meter answered the sign-on and then nothing.
var errSilent = errors.New("nothing follows the identification")

// entry is what a meter showed at one address.
type entry struct {
	code    obis.Code
	address string
	values  []string
	stamp   meter.Stamp
}

// readout is all that a meter showed.
type readout struct {
	entries   []entry
	at        map[obis.Code]int
	asked     meter.Stamp // when the meter was
	unchecked bool        // no check character stood behind it
}

// readout takes the data readout. A damaged one is asked for again.
func (s *session) readout(ctx context.Context) (readout, error) {
	asked := s.now()
	f, err := s.data(ctx)
	if errors.Is(err, errGarbled) && s.mode == ModeC && ctx.Err() == nil {
		if err := s.again(ctx); err != nil {
			return readout{}, err
		}
		second, again := s.data(ctx)
		switch {
		case isTimeout(again):
			return readout{}, fmt.Errorf("%w; asked for again, it sends nothing", err)
		case again != nil:
			return readout{}, fmt.Errorf("%w; asked for again: %w", err, again)
		}
		f, err = second, nil
	}
	if err != nil {
		return readout{}, silenceAs(err, errSilent)
	}
	r, err := parseReadout(&f)
	r.asked = asked
	return r, err
}

// silenceAs adds to a time-out what it means.
func silenceAs(err, means error) error {
	if isTimeout(err) {
		return fmt.Errorf("%w: %w", means, err)
	}
	return err
}

// data takes a readout's message.
func (s *session) data(ctx context.Context) (frame, error) {
	for range maxNoise {
		f, err := s.frame(ctx, s.mode == ModeA || s.mode == ModeB)
		switch {
		case err != nil:
			return f, err
		case f.kind == stx && f.partial:
			return f, fmt.Errorf("%w: a partial block in a readout", errGarbled)
		case f.kind == stx, f.kind == 0:
			return f, nil
		case f.kind == soh:
			return f, fmt.Errorf("%w: command %s instead of a readout", errGarbled, f.command)
		}
	}
	return frame{}, fmt.Errorf("%w: noise", errGarbled)
}

// again asks for the message before once more, when the line is silent.
func (s *session) again(ctx context.Context) error {
	if err := s.hush(ctx, s.pause); err != nil {
		return err
	}
	return s.write(ctx, []byte{nak})
}

// parseReadout takes a readout apart. In one with a check character lines that
// are not understood are the maker's; in one without they are damage.
func parseReadout(f *frame) (readout, error) {
	r := readout{at: map[obis.Code]int{}, unchecked: f.kind == 0}
	if len(f.body) > maxReadout {
		return r, fmt.Errorf("%w: a readout of %d octets", errGarbled, len(f.body))
	}
	all, ended := lines(f.body)
	if !ended && r.unchecked {
		return r, fmt.Errorf("%w: no end", errGarbled)
	}
	var last obis.Code
	for _, l := range all {
		sets, err := parseLine(l.text)
		if err != nil && r.unchecked {
			return r, fmt.Errorf("%w: %w", errGarbled, err)
		}
		for _, set := range sets {
			if len(r.entries) == maxSets {
				return r, fmt.Errorf("%w: more than %d data sets", errGarbled, maxSets)
			}
			code, err := parseAddress(set.address)
			if isPeriod(set.address) { // of the address before
				code, err = last, nil
				if !group(&code[5], set.address[1:]) {
					continue
				}
			}
			if err != nil {
				continue
			}
			last = code
			if _, twice := r.at[code]; twice {
				continue
			}
			r.at[code] = len(r.entries)
			r.entries = append(r.entries, entry{code: code, address: set.address, values: set.values, stamp: f.at(l.end)})
		}
	}
	return r, nil
}

// isPeriod says whether an address is a billing period alone: *01.
func isPeriod(s string) bool { return len(s) > 1 && (s[0] == '*' || s[0] == '&') }

// find gives the entry of a code.
func (r *readout) find(c obis.Code) (entry, bool) {
	i, ok := r.at[c]
	if !ok {
		return entry{}, false
	}
	return r.entries[i], true
}

// read gives the value of an entry, or the time that stands beside it. Where
// the time comes first the value is the second.
func (e entry) read(isTime bool) (reading, error) {
	value, beside := e.values[0], ""
	if len(e.values) > 1 {
		beside = e.values[1]
		if _, first := parseTime(value); first {
			if _, second := parseTime(beside); !second {
				value, beside = beside, value
			}
		}
	}
	if !isTime {
		return parseValue(e.code, value)
	}
	t, ok := parseTime(beside)
	if !ok {
		return reading{}, fmt.Errorf("%w: no time beside it", errNoValue)
	}
	return reading{value: t.value()}, nil
}
