package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"gridgate/agent/status"
	"gridgate/internal/cli"
)

func statusVerb() cli.Verb {
	return cli.Verb{
		Name: "status", Summary: "show what the running agent is doing: health, lines, meters with the worst first, clock, uplink, buffer, modem",
		Example: []string{
			"gridgate status", "gridgate status -config configs/demo.yaml -json",
			"gridgate status -metrics   # for node_exporter's textfile collector",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			socket := fs.String("control", "", "the control `SOCKET` (default: that of -config)")
			path := fs.String("config", defaultConfig, "the agent's configuration `FILE`")
			asJSON := fs.Bool("json", false, "print one JSON object")
			metrics := fs.Bool("metrics", false, "print the metrics, in the text format of Prometheus")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("status: takes no arguments: %q", args)
				}
				at, err := controlSocket(*socket, *path)
				if err != nil {
					return err
				}
				if *metrics {
					return printMetrics(ctx, env.Stdout, at)
				}
				r, err := status.Ask(ctx, at)
				if errors.Is(err, status.ErrNoAgent) {
					return noAgent(err)
				}
				if err != nil {
					return err
				}
				if *asJSON {
					return json.NewEncoder(env.Stdout).Encode(r)
				}
				return printStatus(env.Stdout, r, time.Now())
			}
		},
	}
}

// noAgent says what to do where no agent runs.
func noAgent(err error) error {
	return fmt.Errorf("%w; start one with `gridgate run`, or name its socket with -control", err)
}

// printMetrics prints the metrics of the agent whose control socket that is.
func printMetrics(ctx context.Context, out io.Writer, at string) error {
	text, err := status.AskMetrics(ctx, at)
	if errors.Is(err, status.ErrNoAgent) {
		return noAgent(err)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text)
	return err
}

// printOrders shows what the utility has ordered, if it may.
func printOrders(w io.Writer, o status.Orders) {
	if o.Trust == 0 {
		return
	}
	layers := "the gateway's own file"
	if len(o.Layers) > 0 {
		layers += ", on it " + strings.Join(o.Layers, ", ")
	}
	fmt.Fprintf(w, "orders\ttrust version %d; configuration: %s\n", o.Trust, layers)
	if o.Trial != "" {
		fmt.Fprintf(w, "trial\t%s\n", o.Trial)
	}
	if o.Last != "" {
		fmt.Fprintf(w, "last order\t%s\n", o.Last)
	}
	for _, c := range o.Commands {
		fmt.Fprintf(w, "command\t%s\n", c)
	}
}

func printStatus(out io.Writer, r status.Report, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "gridgate %s\tsite %s, gateway %s, pid %d, up %s\n", r.Version, r.Site, r.Gateway, r.PID, now.Sub(r.Started).Round(time.Second))
	printHealth(w, r.Health)
	fmt.Fprintf(w, "read\t%d rows, %d stored, %d waiting, %d dropped, %d commits%s\n",
		r.Intake.Read, r.Intake.Stored, r.Intake.Waiting, r.Intake.Dropped, r.Intake.Commits, problem(r.Intake.Error))
	fmt.Fprintf(w, "clock\t%s\n", clockLine(r.Clock))
	up := "down"
	if r.Uplink.Connected {
		up = "up"
	}
	fmt.Fprintf(w, "uplink\t%s %s, %d batches, %d rows, %d bytes%s\n", r.Uplink.Broker, up, r.Uplink.Batches, r.Uplink.Rows, r.Uplink.Bytes, problem(r.Uplink.Error))
	for _, l := range r.Lanes {
		fmt.Fprintf(w, "%s\t%d of %d delivered\n", l.Lane, l.Acked, l.Last)
	}
	printMachine(w, r, now)
	printOrders(w, r.Orders)
	printSlots(w, r.Firmware)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note\t%s\n", n)
	}
	if len(r.Lines) > 0 {
		printLines(w, r.Lines)
	}
	meters := worstFirst(r.Meters)
	fmt.Fprintln(w, "\nMETER\tSERIAL\tSTATE\tVISITS\tROWS\tLAST GOOD\tCLOCK\tGAPS\tLINE")
	for _, m := range meters {
		last := "never"
		if m.Good != nil {
			last = now.Sub(*m.Good).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n",
			m.Meter, m.Serial, m.State, m.Visits, m.Rows, last, clockText(m.Clock), gapText(m.Gaps), m.Line)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, b := range r.Bridges {
		if err := printBridge(out, b, now); err != nil {
			return err
		}
	}
	for _, m := range meters {
		if m.Error != "" {
			if _, err := fmt.Fprintf(out, "%s: %s\n", m.Meter, m.Error); err != nil {
				return err
			}
		}
	}
	return nil
}

// clockLine says what the gateway's clock is worth; `gridgate clock` says more.
func clockLine(c status.GatewayClock) string {
	switch {
	case c.Bound != nil && c.Reason == "":
		return fmt.Sprintf("%s, at most %s off", c.State, seconds(*c.Bound))
	case c.Bound != nil:
		return fmt.Sprintf("%s, at most %s off: %s", c.State, seconds(*c.Bound), c.Reason)
	}
	return c.State + problem(c.Reason)
}

// clockText says how far a meter's clock is off, in seconds.
func clockText(c *status.Clock) string {
	switch {
	case c == nil:
		return "-"
	case !c.Valid:
		return "invalid"
	case max(c.Offset, -c.Offset) <= c.Uncertainty:
		return "right"
	}
	return fmt.Sprintf("%+.0f s", c.Offset)
}

// gapText says how much of a meter's profiles is still to be filled in.
func gapText(seconds int64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f d", float64(seconds)/86400)
}

func problem(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
