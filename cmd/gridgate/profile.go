package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gridgate/agent/validate"
	"gridgate/drivers/cosem"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/sys/zone"
)

// profileFlags are the flags of profile.
type profileFlags struct {
	meterFlags
	from, to, zone, serial string
	json                   bool
}

func profileVerb() cli.Verb {
	return cli.Verb{
		Name: "profile", Summary: "read the rows of a load profile, billing profile or event log", Args: "URL OBIS",
		Example: []string{
			"gridgate profile 'dlms+wrapper://10.0.0.7?client=17&auth=lls&password=12345678' 1-0:99.1.0",
			"gridgate profile dlms+wrapper://10.0.0.7 1-0:99.1.0 -from 2026-03-01 -to 2026-03-02 -zone Asia/Baghdad",
			"gridgate profile dlms+wrapper://10.0.0.7 1-0:98.1.0 -from 2026-03-01T00:00:00Z -json",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f profileFlags
			fs.StringVar(&f.from, "from", "", "rows captured at this `TIME` or later: a date, whose midnight it is, or RFC 3339\n(default: 24 hours before -to)")
			fs.StringVar(&f.to, "to", "", "rows captured at this `TIME` or before (default: now)")
			fs.StringVar(&f.zone, "zone", "UTC", "the time `ZONE` of dates, of the table, and of a meter that does not tell its own")
			fs.StringVar(&f.serial, "serial", "", "the serial `NUMBER` that the meter must show")
			f.set(fs)
			fs.BoolVar(&f.json, "json", false, "print one JSON object a value")
			return func(ctx context.Context, env cli.Env, args []string) error {
				return f.run(ctx, env, args)
			}
		},
	}
}

func (f profileFlags) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) != 2 {
		return cli.Usagef("profile: want a URL and the OBIS code of a profile; `gridgate profile -h` shows examples")
	}
	addr, err := cosemAddress("profile", args[0])
	if err != nil {
		return err
	}
	channel, err := profileChannel(args[1])
	if err != nil {
		return err
	}
	zone, err := loadZone("profile", f.zone)
	if err != nil {
		return err
	}
	from, to, err := f.times(zone, time.Now())
	if err != nil {
		return err
	}
	t := f.target(addr)
	t.serial, t.zone = f.serial, zone
	p := meter.Profile{Channel: channel, Lane: meter.Interval, Since: from.UnixMilli() - 1}
	out := bufio.NewWriter(env.Stdout)
	table := &profileTable{out: out, zone: zone}
	var failures []error
	var plausible validate.Validator
	err = t.withCOSEM(ctx, env, "profile", func(m *cosem.Meter) error {
		return m.Rows(ctx, p, to.UnixMilli(), func(got meter.Got) error {
			plausible.Check(got.Rows)
			if f.json {
				printProfileJSON(out, got.Rows)
			} else {
				table.add(got.Rows)
			}
			failures = note(failures, got)
			return out.Flush()
		})
	})
	table.end()
	err = errors.Join(err, out.Flush())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, failure := range failures {
		fmt.Fprintf(env.Stderr, "gridgate: profile: %v\n", failure)
	}
	if err == nil && len(failures) > 0 {
		err = errors.New("profile: not read in full")
	}
	return err
}

// note adds what failed of a profile, once each.
func note(failures []error, got meter.Got) []error {
	add := func(err error) {
		if !slices.ContainsFunc(failures, func(f error) bool { return f.Error() == err.Error() }) {
			failures = append(failures, err)
		}
	}
	if got.Identity.Exchanged() {
		add(fmt.Errorf("another meter answers: want serial %s, found %s", got.Identity.Want, got.Identity.Found))
	}
	for _, f := range got.Failures {
		add(f)
	}
	return failures
}

// profileChannel reads the name of a profile: a code stands for its buffer,
// whatever is customary for it.
func profileChannel(text string) (meter.Channel, error) {
	c, err := meter.ParseChannel(text)
	if err != nil {
		return "", cli.Usagef("profile: %v", err)
	}
	code, class, id, ok := c.Attribute()
	if ok && !strings.Contains(text, "/") {
		class, id = meter.ClassProfile, 2
	}
	if !ok || class != meter.ClassProfile || id != 2 {
		return "", cli.Usagef("profile: %s: want the OBIS code of a profile, as in 1-0:99.1.0", text)
	}
	return meter.ChannelOf(code, class, id), nil
}

func loadZone(verb, name string) (*time.Location, error) {
	local, err := zone.Load(name)
	if err != nil || name == "" || name == "Local" {
		return nil, cli.Usagef("%s: -zone %q: want the name of a time zone, such as Europe/Berlin or UTC", verb, name)
	}
	return local, nil
}

// times gives the first and the last capture time that are wanted.
func (f profileFlags) times(zone *time.Location, now time.Time) (from, to time.Time, err error) {
	to = now
	if f.to != "" {
		if to, err = parseTime("-to", f.to, zone); err != nil {
			return from, to, err
		}
	}
	from = to.Add(-24 * time.Hour)
	if f.from != "" {
		if from, err = parseTime("-from", f.from, zone); err != nil {
			return from, to, err
		}
	}
	if from.After(to) {
		return from, to, cli.Usagef("profile: -from is after -to: %s, %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return from, to, nil
}

func parseTime(name, text string, zone *time.Location) (time.Time, error) {
	t, err := time.ParseInLocation(time.DateOnly, text, zone)
	if err != nil {
		t, err = time.Parse(time.RFC3339, text)
	}
	if err != nil || t.Year() < 1970 {
		return t, cli.Usagef("%s %q: want a date or a time, as in 2026-03-01 or 2026-03-01T06:00:00Z, from 1970 on", name, text)
	}
	return t, nil
}

// printProfileJSON prints a line a value, as every tool, with the status word
// of its row where there is one.
func printProfileJSON(out *bufio.Writer, rows []meter.Row) {
	for _, r := range rows {
		b := r.AppendJSONFields(append(out.AvailableBuffer(), '{'))
		if r.HasStatus {
			b = strconv.AppendUint(append(b, `,"status":`...), r.Status, 10)
		}
		_, _ = out.Write(append(b, "}\n"...)) // flush tells
	}
}

// profileTable prints a line a row of the profile, a column a channel. What
// belongs to one row comes one after the other.
type profileTable struct {
	out    *bufio.Writer
	zone   *time.Location
	row    []meter.Row // the one that is coming
	header string
	widths []int
}

func (p *profileTable) add(rows []meter.Row) {
	for _, r := range rows {
		if len(p.row) > 0 && !p.continues(r) {
			p.end()
		}
		p.row = append(p.row, r)
	}
}

// continues says whether r is of the row that is coming.
func (p *profileTable) continues(r meter.Row) bool {
	first := p.row[0]
	return r.Stamp.Time == first.Stamp.Time && r.Occurrence == first.Occurrence &&
		!slices.ContainsFunc(p.row, func(o meter.Row) bool { return o.Channel == r.Channel })
}

// end prints the row that is coming.
func (p *profileTable) end() {
	if len(p.row) == 0 {
		return
	}
	const lead = "%-25s  %10s"
	names := make([]string, len(p.row))
	for i, r := range p.row {
		if names[i] = r.Channel.Short(); r.Unit.String() != "" {
			names[i] += " [" + r.Unit.String() + "]"
		}
	}
	if header := strings.Join(names, "\n"); header != p.header {
		p.header, p.widths = header, nil
		fmt.Fprintf(p.out, lead, "TIME", "STATUS")
		for _, name := range names {
			width := max(utf8.RuneCountInString(name), 12)
			p.widths = append(p.widths, width)
			fmt.Fprintf(p.out, "  %*s", width, name)
		}
		fmt.Fprintln(p.out, "  QUALITY")
	}
	first := p.row[0]
	status := "-"
	if first.HasStatus {
		status = "0x" + strconv.FormatUint(first.Status, 16)
	}
	fmt.Fprintf(p.out, lead, first.Stamp.UTC().In(p.zone).Format(time.RFC3339), status)
	var quality meter.Quality
	for i, r := range p.row {
		value := r.Value.String()
		if r.Value.Kind == meter.None {
			value = "-"
		}
		fmt.Fprintf(p.out, "  %*s", p.widths[i], value)
		quality |= r.Quality
	}
	fmt.Fprintf(p.out, "  %v\n", quality)
	p.row = p.row[:0]
}
