package main

import (
	"flag"
	"slices"
	"strings"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// rowFilter says which readings are shown. Of each kind any may fit; none is
// all.
type rowFilter struct {
	meters, laneNames, channelNames []string

	lanes    []meter.Lane
	channels []meter.Channel
	prefixes []string // of channels
}

func (f *rowFilter) flags(fs *flag.FlagSet) {
	add := func(to *[]string, name, usage string) {
		fs.Func(name, usage, func(s string) error {
			*to = append(*to, s)
			return nil
		})
	}
	add(&f.meters, "meter", "show this `METER` only, by its name or its serial number; may be repeated")
	add(&f.laneNames, "lane", "show this `LANE` only: alarm, billing, interval or instant; may be repeated")
	add(&f.channelNames, "channel", "show this `CHANNEL` only, as 1-0:1.8.0, or event.* for all that begin so; may be repeated")
}

// prepare checks the flags.
func (f *rowFilter) prepare(verb string) error {
	for _, s := range f.laneNames {
		lane, err := meter.ParseLane(s)
		if err != nil {
			return cli.Usagef("%s: -lane: %v", verb, err)
		}
		f.lanes = append(f.lanes, lane)
	}
	for _, s := range f.channelNames {
		if prefix, found := strings.CutSuffix(s, "*"); found {
			f.prefixes = append(f.prefixes, prefix)
			continue
		}
		channel, err := meter.ParseChannel(s)
		if err != nil {
			return cli.Usagef("%s: -channel: %v", verb, err)
		}
		f.channels = append(f.channels, channel)
	}
	if slices.Contains(f.meters, "") {
		return cli.Usagef("%s: -meter: want a name or a serial number", verb)
	}
	return nil
}

func (f *rowFilter) fits(r *track.Reading) bool {
	row := &r.Row
	if len(f.meters) > 0 && !slices.Contains(f.meters, string(row.Meter)) && (row.Serial == "" || !slices.Contains(f.meters, row.Serial)) {
		return false
	}
	if len(f.lanes) > 0 && !slices.Contains(f.lanes, r.Lane) {
		return false
	}
	return len(f.channels)+len(f.prefixes) == 0 || slices.Contains(f.channels, row.Channel) ||
		slices.ContainsFunc(f.prefixes, func(p string) bool { return strings.HasPrefix(string(row.Channel), p) })
}
