package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

// gatewayActions gives the actions that need no meter's protocol.
func gatewayActions() []Action {
	return []Action{
		{Name: "read", Role: order.Command, AfterCut: Repeat, Targets: Some, Most: 10 * time.Minute, New: newRead},
		{Name: "profile", Role: order.Command, AfterCut: Repeat, Targets: Some, Most: 6 * time.Hour, New: newProfile},
		{Name: "resend", Role: order.Command, AfterCut: Repeat, New: newResend},
		{Name: "set-clock", Role: order.Command, AfterCut: Resume, Targets: Some, Most: 10 * time.Minute, New: newSetClock},
		{Name: "restart", Role: order.Command, AfterCut: Resume, Most: 10 * time.Minute, New: newRestart},
		{Name: "log-level", Role: order.Command, AfterCut: Repeat, New: newLogLevel},
		{Name: "buffer-stat", Role: order.Command, AfterCut: Repeat, New: newBufferStat},
		{Name: "bundle", Role: order.Command, AfterCut: Repeat, New: newBundle},
		{Name: "output", Role: order.Control, AfterCut: Resume, New: newOutput},
	}
}

// wrong says what is wrong with a parameter.
func wrong(key, format string, args ...any) error {
	return fmt.Errorf("%w: with.%s: %w", order.ErrMalformed, key, fmt.Errorf(format, args...))
}

// moment reads a time.
func moment(key, text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, wrong(key, "%q; want a time such as 2026-11-22T10:00:00Z", clip(text))
	}
	return t, nil
}

// span reads a duration with a unit, of at least a second.
func span(key, text string, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > most {
		return 0, wrong(key, "%q; want a duration with a unit, such as 90m, of 1s to %v", clip(text), most)
	}
	return d, nil
}

// read reads registers now.
type read struct {
	groups   []string
	channels []meter.Channel
}

// mostChannels bounds what one command reads of a meter.
const mostChannels = 256

func newRead(decode func(any) error) (Executor, error) {
	var with struct {
		Groups   []string `yaml:"groups"`
		Channels []string `yaml:"channels"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	if len(with.Channels) > mostChannels {
		return nil, wrong("channels", "%d; want at most %d", len(with.Channels), mostChannels)
	}
	r := read{groups: with.Groups}
	for i, text := range with.Channels {
		c, err := meter.ParseChannel(text)
		if err != nil {
			return nil, wrong(fmt.Sprintf("channels[%d]", i), "%q; want an OBIS code such as 1-0:1.8.0, or a register's name", clip(text))
		}
		r.channels = append(r.channels, c)
	}
	return r, nil
}

func (r read) Do(ctx context.Context, j *Job) Outcome {
	var ask meter.Ask
	have := j.Gateway.Groups(j.Meter)
	for _, g := range have {
		wanted := len(r.groups)+len(r.channels) == 0 || slices.Contains(r.groups, g.Name)
		if g.Profile == "" && wanted {
			ask.Groups = append(ask.Groups, g.Group)
		}
	}
	for _, name := range r.groups {
		i := slices.IndexFunc(have, func(g Group) bool { return g.Name == name })
		switch {
		case i < 0:
			return Refuse("it has no group %q", clip(name))
		case have[i].Profile != "":
			return Refuse("the group %s is a profile: order the action profile", name)
		}
	}
	if len(r.channels) > 0 {
		ask.Groups = append(ask.Groups, meter.Group{Name: "ordered", Lane: meter.Instant, Channels: r.channels})
	}
	if len(ask.Groups) == 0 {
		return Refuse("it has no groups of registers: name channels")
	}
	got, err := j.Visit(ctx, ask)
	rows := rowsOf(got.Rows)
	switch {
	case got.Identity.Exchanged():
		return Outcome{State: Failed, Text: exchanged(got.Identity), Data: rows}
	case err != nil:
		return Outcome{State: Failed, Text: err.Error(), Data: rows}
	case len(got.Failures) > 0:
		state := Done
		if len(rows) == 0 {
			state = Failed
		}
		return Outcome{State: state, Text: fmt.Sprintf("%d values, and %d could not be read: %v", len(rows), len(got.Failures), got.Failures[0]), Data: rows}
	}
	return DoneWith(fmt.Sprintf("%d values", len(rows)), rows)
}

func exchanged(i meter.Identity) string {
	return fmt.Sprintf("another meter answers: configured %s, found %s", i.Want, i.Found)
}

// rowsOf gives rows as every tool prints them.
func rowsOf(rows []meter.Row) []json.RawMessage {
	all := make([]json.RawMessage, len(rows))
	for i := range rows {
		all[i] = rows[i].AppendJSON(nil)
	}
	return all
}

// profile reads a stretch of a profile and stores it, as if it had not been read
// before.
type profile struct {
	group    string
	channel  meter.Channel
	from, to time.Time
}

// mostProfile is the longest stretch, and profileStep how much of it a visit
// reads: others have their turn between.
const (
	mostProfile = 400 * 24 * time.Hour
	profileStep = 24 * time.Hour
)

func newProfile(decode func(any) error) (Executor, error) {
	var with struct {
		Group   string `yaml:"group"`
		Profile string `yaml:"profile"`
		From    string `yaml:"from"`
		To      string `yaml:"to"`
	}
	err := decode(&with)
	if err != nil {
		return nil, err
	}
	p := profile{group: with.Group}
	if (with.Group == "") == (with.Profile == "") {
		return nil, wrong("profile", "want profile, an OBIS code such as 1-0:99.1.0, or group, the name of a group that is one")
	}
	if with.Profile != "" {
		if p.channel, err = meter.ParseChannel(with.Profile); err != nil {
			return nil, wrong("profile", "%q; want an OBIS code such as 1-0:99.1.0", clip(with.Profile))
		}
	}
	if p.from, err = moment("from", with.From); err != nil {
		return nil, err
	}
	if p.to, err = moment("to", with.To); err != nil {
		return nil, err
	}
	if !p.from.Before(p.to) || p.to.Sub(p.from) > mostProfile {
		return nil, wrong("to", "%s is not after from, or more than 400 days after it", with.To)
	}
	return p, nil
}

func (p profile) Do(ctx context.Context, j *Job) Outcome {
	ask := meter.Profile{Channel: p.channel, Lane: meter.Interval}
	found := p.group == ""
	for _, g := range j.Gateway.Groups(j.Meter) {
		if g.Profile != "" && (g.Name == p.group || p.group == "" && g.Profile == p.channel) {
			ask.Channel, ask.Lane, found = g.Profile, g.Lane, true
		}
	}
	if !found {
		return Refuse("it has no profile group %q", clip(p.group))
	}
	rows, days := 0, int64((p.to.Sub(p.from)+profileStep-1)/profileStep)
	for day := range days {
		from := p.from.Add(time.Duration(day) * profileStep)
		to := from.Add(profileStep)
		if to.After(p.to) {
			to = p.to
		}
		ask.Since, ask.Until = from.UnixMilli()-1, to.UnixMilli()
		n, err := p.stretch(ctx, j, ask)
		rows += n
		if err != nil {
			return Outcome{State: Failed, Text: fmt.Sprintf("%d rows were stored; then, from %s: %v", rows, from.UTC().Format(time.RFC3339), err)}
		}
		j.Progress(day+1, days, fmt.Sprintf("%d rows", rows))
	}
	return DoneWith(fmt.Sprintf("%d values stored; they come with the readings", rows), nil)
}

// stretch reads and stores one, in as many visits as it takes.
func (p profile) stretch(ctx context.Context, j *Job, ask meter.Profile) (rows int, err error) {
	for ask.Since < ask.Until {
		got, err := j.Visit(ctx, meter.Ask{Profiles: []meter.Profile{ask}})
		switch {
		case got.Identity.Exchanged():
			return rows, errors.New(exchanged(got.Identity))
		case len(got.Rows) > 0:
			if serr := j.Gateway.Store(ctx, got.Rows); serr != nil {
				return rows, serr
			}
			rows += len(got.Rows)
		}
		if err == nil && len(got.Failures) > 0 {
			err = got.Failures[0]
		}
		if err != nil {
			return rows, err
		}
		i := slices.IndexFunc(got.Cursors, func(c meter.Cursor) bool { return c.Profile == ask.Channel })
		if i < 0 || got.Cursors[i].Time <= ask.Since {
			return rows, nil // it has no more
		}
		ask.Since = got.Cursors[i].Time
	}
	return rows, nil
}

// resend has rows sent again that the buffer still has.
type resend struct {
	lane        meter.Lane
	first, last uint64
	from, to    time.Time
}

func newResend(decode func(any) error) (Executor, error) {
	var with struct {
		Lane  string `yaml:"lane"`
		First uint64 `yaml:"first"`
		Last  uint64 `yaml:"last"`
		From  string `yaml:"from"`
		To    string `yaml:"to"`
	}
	err := decode(&with)
	if err != nil {
		return nil, err
	}
	r := resend{first: with.First, last: with.Last}
	if r.lane, err = meter.ParseLane(with.Lane); err != nil {
		return nil, wrong("lane", "%q; want alarm, billing, interval or instant", clip(with.Lane))
	}
	numbers, times := with.First != 0 || with.Last != 0, with.From != "" || with.To != ""
	switch {
	case numbers == times:
		return nil, wrong("first", "want first and last, numbers of the lane, or from and to, times")
	case numbers && (r.first == 0 || r.last < r.first):
		return nil, wrong("last", "%d; want first from 1 on, and last not below it", r.last)
	case numbers:
		return r, nil
	}
	if r.from, err = moment("from", with.From); err != nil {
		return nil, err
	}
	if r.to, err = moment("to", with.To); err != nil {
		return nil, err
	}
	if !r.from.Before(r.to) {
		return nil, wrong("to", "%s is not after from", with.To)
	}
	return r, nil
}

func (r resend) Do(_ context.Context, j *Job) Outcome {
	first, last := r.first, r.last
	if first == 0 {
		var n int
		var err error
		if first, last, n, err = j.Gateway.Range(r.lane, r.from, r.to); err != nil {
			return Fail(err)
		} else if n == 0 {
			return Refuse("lane %s has no rows of that time", r.lane)
		}
	}
	if err := j.Gateway.Again(r.lane, first, last); err != nil {
		return Fail(err)
	}
	return DoneWith(fmt.Sprintf("lane %s, numbers %d to %d: on their way behind what is live", r.lane, first, last),
		map[string]any{"lane": r.lane.String(), "first": first, "last": last})
}

// restart ends the agent, which begins anew.
type restart struct{}

func newRestart(decode func(any) error) (Executor, error) {
	return restart{}, decode(&struct{}{})
}

func (restart) Do(ctx context.Context, j *Job) Outcome {
	if j.Resumed {
		return DoneWith(fmt.Sprintf("started at %s, version %s", j.Gateway.Started.UTC().Format(time.RFC3339), j.Gateway.Version), nil)
	}
	j.Gateway.Restart()
	<-ctx.Done() // by the stop
	return Fail(context.Cause(ctx))
}

// logLevel has more logged, or less, for a time.
type logLevel struct {
	level string
	d     time.Duration
}

func newLogLevel(decode func(any) error) (Executor, error) {
	with := struct {
		Level string `yaml:"level"`
		For   string `yaml:"for"`
	}{For: "30m"}
	err := decode(&with)
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, with.Level) {
		return nil, wrong("level", "%q; want debug, info, warn or error", clip(with.Level))
	}
	d, err := span("for", with.For, 24*time.Hour)
	return logLevel{with.Level, d}, err
}

func (l logLevel) Do(_ context.Context, j *Job) Outcome {
	if err := j.Gateway.LogLevel(l.level, l.d); err != nil {
		return Fail(err)
	}
	return DoneWith(fmt.Sprintf("%s for %v, or until the agent starts anew", l.level, l.d), nil)
}

// bufferStat tells what is in the buffer.
type bufferStat struct{}

func newBufferStat(decode func(any) error) (Executor, error) {
	return bufferStat{}, decode(&struct{}{})
}

func (bufferStat) Do(_ context.Context, j *Job) Outcome {
	b, err := j.Gateway.BufferStat()
	if err != nil {
		return Fail(err)
	}
	return DoneWith("", b)
}

// bundle sends what support wants to see.
type bundle struct{}

func newBundle(decode func(any) error) (Executor, error) {
	return bundle{}, decode(&struct{}{})
}

func (bundle) Do(ctx context.Context, j *Job) Outcome {
	b, err := j.Gateway.Bundle(ctx)
	if err != nil {
		return Fail(err)
	}
	return Outcome{State: Done, Text: fmt.Sprintf("%d octets", len(b)), File: &File{Name: "bundle.tar.gz", Type: "application/gzip", Data: b}}
}

// output switches a relay of the gateway on for a time, or lets it go.
type output struct {
	name   string
	d      time.Duration // 0: let go
	jitter time.Duration
}

func newOutput(decode func(any) error) (Executor, error) {
	var with struct {
		Output  string `yaml:"output"`
		For     string `yaml:"for"`
		Jitter  string `yaml:"jitter"`
		Release bool   `yaml:"release"`
	}
	err := decode(&with)
	if err != nil {
		return nil, err
	}
	o := output{name: with.Output}
	if _, err := meter.ParseID(o.name); err != nil {
		return nil, wrong("output", "%q; want the name of one", clip(o.name))
	}
	if with.Release {
		if with.For != "" || with.Jitter != "" {
			return nil, wrong("release", "want it alone: it lets the output go at once")
		}
		return o, nil
	}
	const most = 31 * 24 * time.Hour
	if o.d, err = span("for", with.For, most); err != nil {
		return nil, err
	}
	if o.jitter = min(o.d/10, 10*time.Minute); with.Jitter != "" && with.Jitter != "0" && with.Jitter != "0s" {
		if o.jitter, err = span("jitter", with.Jitter, most); err != nil {
			return nil, err
		}
	} else if with.Jitter != "" {
		o.jitter = 0
	}
	return o, nil
}

func (o output) String() string {
	if o.d == 0 {
		return o.name + " let go"
	}
	return fmt.Sprintf("%s for %v", o.name, o.d)
}

// switched is what is noted of an output before it is switched: a cut does not
// make it longer.
type switched struct {
	Until time.Time `json:"until"`
}

func (o output) Do(_ context.Context, j *Job) Outcome {
	most, err := j.Gateway.Most(o.name)
	switch {
	case err != nil:
		return Refuse("%w", err)
	case o.d > most:
		return Refuse("%v is longer than the %v that the output %s may be on", o.d, most, o.name)
	}
	if o.d == 0 {
		if err := j.Gateway.Output(o.name, time.Time{}); err != nil {
			return Fail(err)
		}
		return DoneWith("let go", j.Gateway.Outputs())
	}
	var until switched
	if j.Noted != nil {
		if err := json.Unmarshal(j.Noted, &until); err != nil {
			return Lost(err)
		}
	} else {
		if j.Resumed {
			return Fail(errors.New("the gateway was cut off before it was switched"))
		}
		until.Until = time.Now().Add(o.d).Round(0)
		if o.jitter > 0 {
			until.Until = until.Until.Add(rand.N(o.jitter)) //nolint:gosec // no secret
		}
		if err := j.Note(until); err != nil {
			return Fail(err)
		}
	}
	if !time.Now().Before(until.Until) {
		return DoneWith("its time was over when the gateway came back", j.Gateway.Outputs())
	}
	if err := j.Gateway.Output(o.name, until.Until); err != nil {
		return Fail(err)
	}
	return DoneWith("on until "+until.Until.UTC().Format(time.RFC3339), j.Gateway.Outputs())
}
