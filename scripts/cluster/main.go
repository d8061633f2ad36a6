// Command cluster runs a fleet of simulated gateways against a broker, members
// of `gridfog ingest` and a PostgreSQL server, all on the loopback device; kills
// some of them on the way; and compares what is in the database with what the
// meters showed, value by value.
//
//	make cluster GATEWAYS=250 METERS=100
//
// What is simulated ends at the pollers: intake, buffer, batches and uplink are
// the agent's own code, and brokers run with the files of configs/fog.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) error {
	if len(args) == 1 && args[0] == "gateways" {
		return serveGateways(ctx, in, out, errs)
	}
	p := plan{Log: out}
	fs := flag.NewFlagSet("cluster", flag.ContinueOnError)
	fs.SetOutput(errs)
	gateways := fs.String("gateways", "25,250", "how many gateways, one run for each `NUMBER` of a list")
	fs.IntVar(&p.Fleet.Meters, "meters", 100, "meters of each gateway")
	fs.IntVar(&p.Fleet.Quarters, "quarters", 4, "quarter hours, read as fast as can be")
	fs.IntVar(&p.Fleet.Sites, "sites", 12, "sites that the gateways are dealt out to")
	fs.IntVar(&p.Members, "members", 3, "members of gridfog ingest")
	fs.StringVar(&p.Broker, "broker", "nats", "nats, mosquitto or rabbitmq")
	fs.StringVar(&p.Confirm, "confirm", "fog", "what takes a row off a gateway's queue: fog, broker, or mixed: every second gateway")
	fs.BoolVar(&p.Faults, "faults", true, "kill a node of the broker and a member on the way")
	fs.StringVar(&p.Root, "root", ".", "the repository's `FOLDER`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var outcomes []outcome
	for n := range strings.SplitSeq(*gateways, ",") {
		number, err := strconv.Atoi(n)
		if err == nil {
			p.Fleet.Gateways = number
			err = p.valid()
		}
		if err != nil {
			return fmt.Errorf("-gateways %q: %w", *gateways, err)
		}
		fmt.Fprintf(out, "%d gateways with %d meters each, %d quarter hours, %d values\n", number, p.Fleet.Meters, p.Fleet.Quarters, p.Fleet.rows())
		// Whole quarter hours that are over, so that nothing is of the future.
		p.Fleet.Start = time.Now().Truncate(15 * time.Minute).Add(-time.Duration(p.Fleet.Quarters+1) * 15 * time.Minute)
		o, err := p.run(ctx)
		if err != nil {
			return err
		}
		outcomes = append(outcomes, o)
	}
	report(out, outcomes)
	return nil
}

// valid says whether a plan can be run.
func (p *plan) valid() error {
	f := &p.Fleet
	switch {
	case f.Gateways < 1 || f.Meters < 1 || f.Quarters < 2 || f.Sites < 1:
		return errors.New("want a gateway, a meter, a site and two quarter hours at least")
	case p.Members < 1 || p.Faults && p.Members < 2:
		return errors.New("want a member at least, and two where one is killed")
	case f.Gateways > 9999 || f.Meters > 99_999:
		return errors.New("serial numbers have no room for so many")
	}
	return nil
}
