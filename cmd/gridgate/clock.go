package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"gridgate/agent"
	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/internal/cli"
)

func clockVerb() cli.Verb {
	return cli.Verb{
		Name: "clock", Summary: "show what time it is, how sure that is, and what the time servers and the meters say",
		Example: []string{"gridgate clock", "gridgate clock -config /etc/gridgate/gridgate.yaml -json"},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			socket := fs.String("control", "", "the control `SOCKET` (default: that of -config)")
			path := fs.String("config", defaultConfig, "the configuration `FILE`; where no agent runs its servers are asked")
			asJSON := fs.Bool("json", false, "print one JSON object")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("clock: takes no arguments: %q", args)
				}
				c, err := clockNow(ctx, env, *socket, *path)
				if err != nil {
					return err
				}
				if *asJSON {
					return json.NewEncoder(env.Stdout).Encode(c)
				}
				return printClock(env.Stdout, c, time.Now())
			}
		},
	}
}

// clockReport is what `gridgate clock -json` prints.
type clockReport struct {
	// Measured says that no agent runs, and the servers were asked just now.
	Measured bool                `json:"measured"`
	Gateway  status.GatewayClock `json:"gateway"`
	Meters   []meterClock        `json:"meters"`
}

// meterClock is a meter's clock as last compared.
type meterClock struct {
	Meter string        `json:"meter"`
	Clock *status.Clock `json:"clock,omitempty"` // absent when it was not compared
}

// clockNow asks the agent, or the time servers where none runs.
func clockNow(ctx context.Context, env cli.Env, socket, path string) (clockReport, error) {
	at, err := controlSocket(socket, path)
	if err != nil {
		return clockReport{}, err
	}
	c := clockReport{Meters: []meterClock{}}
	r, err := status.Ask(ctx, at)
	switch {
	case err == nil:
		c.Gateway = r.Clock
		for _, m := range r.Meters {
			c.Meters = append(c.Meters, meterClock{m.Meter, m.Clock})
		}
		return c, nil
	case !errors.Is(err, status.ErrNoAgent) || socket != "":
		return clockReport{}, err
	}
	cfg, err := configs.Load(path)
	if err != nil {
		return clockReport{}, err
	}
	if n := len(cfg.Time.Servers); n > 0 {
		fmt.Fprintf(env.Stderr, "no agent runs here; asking %s…\n", count(n, "time server"))
	} else {
		fmt.Fprintln(env.Stderr, "no agent runs here, and no time servers are configured: this is what the kernel says")
	}
	c.Measured = true
	c.Gateway, err = agent.MeasureClock(ctx, cfg)
	return c, err
}

func printClock(out io.Writer, c clockReport, now time.Time) error {
	g := c.Gateway
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "time\t%s\n", g.Time.Format("2006-01-02T15:04:05.000Z"))
	state := g.State
	if g.Reason != "" {
		state += ": " + g.Reason
	}
	fmt.Fprintf(w, "state\t%s\n", state)
	if g.Bound != nil {
		fmt.Fprintf(w, "off by\tat most %s\n", seconds(*g.Bound))
	} else {
		fmt.Fprintf(w, "off by\tnobody knows\n")
	}
	if g.LastSync != nil {
		offset := signed(g.Offset)
		if g.Slewing != 0 {
			offset += ", being corrected slowly"
		}
		fmt.Fprintf(w, "correction\t%s\n", offset)
		fmt.Fprintf(w, "last majority\t%s ago\n", now.Sub(*g.LastSync).Round(time.Second))
	} else {
		fmt.Fprintf(w, "last majority\tnone\n")
	}
	if g.DriftError > 0 {
		fmt.Fprintf(w, "drift\t%+.1f ppm, known to %.0f ppm\n", g.Drift, g.DriftError)
	}
	fmt.Fprintf(w, "source\t%s\n", orDash(g.Source))
	fmt.Fprintf(w, "discipline\t%s\n", discipline(g.Discipline))
	if !c.Measured && len(g.Servers) > 0 {
		fmt.Fprintf(w, "next poll\tevery %s\n", seconds(g.Interval))
	}
	if g.Leap != 0 {
		fmt.Fprintf(w, "leap second\t%+d s at the end of the month\n", g.Leap)
	}
	fmt.Fprintf(w, "not before\t%s\n", g.NotBefore.Format(time.RFC3339))
	for _, warning := range g.Warnings {
		fmt.Fprintf(w, "warning\t%s\n", warning)
	}
	if len(g.Servers) > 0 {
		fmt.Fprintln(w, "\nSERVER\tVERDICT\tOFFSET\tROUND TRIP\tROOT DISTANCE\tSTRATUM\tANSWERED\tREASON")
	}
	for _, s := range g.Servers {
		offset, trip, distance, stratum := "-", "-", "-", "-"
		if s.Stratum > 0 {
			offset, trip, distance, stratum = signed(s.Offset), seconds(s.Trip), "±"+seconds(s.Distance), fmt.Sprint(s.Stratum)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d of %d\t%s\n", s.Server, s.Verdict, offset, trip, distance, stratum, s.Polls, s.Polls+s.Failures, s.Reason)
	}
	if len(c.Meters) > 0 {
		fmt.Fprintln(w, "\nMETER\tCLOCK\tOFFSET\tKNOWN TO\tMEASURED\tPOLICY\tLAST SET\tNOT SET BECAUSE")
	}
	for _, m := range c.Meters {
		printMeterClock(w, m, now)
	}
	return w.Flush()
}

func printMeterClock(w io.Writer, m meterClock, now time.Time) {
	if m.Clock == nil {
		fmt.Fprintf(w, "%s\t%s\n", m.Meter, clockText(nil))
		return
	}
	k := m.Clock
	known, set, why := "±"+seconds(k.Uncertainty), "-", k.Why
	if k.Unsynchronised {
		known += " of an unsure clock"
	}
	if k.LastSet != nil {
		set = now.Sub(*k.LastSet).Round(time.Second).String() + " ago"
	}
	if k.Pending {
		why = "it is about to be"
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s ago\t%s\t%s\t%s\n",
		m.Meter, clockText(k), signed(k.Offset), known, now.Sub(k.Measured).Round(time.Second), k.Policy, set, orDash(why))
}

func discipline(name string) string {
	if name == string(configs.DisciplineAgent) {
		return "agent: this program keeps the system clock right"
	}
	return "observe: another program keeps the system clock right"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// seconds writes seconds for people.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d.Abs() >= 10*time.Second:
		return d.Round(time.Second).String()
	case d.Abs() >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func signed(s float64) string {
	if s >= 0 {
		return "+" + seconds(s)
	}
	return seconds(s)
}
