// Command cluster runs a fleet of gateways against a broker, members of
// `gridfog ingest` and a PostgreSQL server, all on the loopback device; cuts
// some of them off on the way; and compares what is in the database with what
// the meters showed.
//
//	make cluster GATEWAYS=250 METERS=100
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
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
	return fmt.Errorf("not yet")
}
