package main

import (
	"flag"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/internal/cli"
)

// clockOptions say how wrong the meters' clocks are. What a meter captures, it
// captures by its own.
type clockOptions struct {
	offset time.Duration
	drift  float64
}

func (o *clockOptions) flags(fs *flag.FlagSet) {
	fs.DurationVar(&o.offset, "offset", 0, "how far ahead the meters' clocks are; negative for behind")
	fs.Float64Var(&o.drift, "drift", 0, "how fast they are, in `seconds` a day; negative for slow")
}

func (o *clockOptions) check(verb string) error {
	const most = 100 * 365 * day
	if o.offset.Abs() > most || o.drift < -86400/2 || o.drift > 86400 {
		return cli.Usagef("%s: -offset %v, -drift %v: want at most a hundred years, and -43200 to 86400 s a day", verb, o.offset, o.drift)
	}
	return nil
}

// meterClock is the clock of one meter: free runs by itself, and what it was set
// to is in wrong.
type meterClock struct {
	free  func() time.Time
	wrong *dlmstest.Wrong
}

func (o *clockOptions) clock() *meterClock {
	began, options := time.Now(), *o
	return &meterClock{wrong: new(dlmstest.Wrong), free: func() time.Time {
		now := time.Now()
		return now.Add(options.offset + time.Duration(options.drift/86400*float64(now.Sub(began))))
	}}
}

func (c *meterClock) now() time.Time { return c.free().Add(c.wrong.By()) }

// set sets the clock to a time.
func (c *meterClock) set(t time.Time) { c.wrong.Add(t.Sub(c.now())) }
