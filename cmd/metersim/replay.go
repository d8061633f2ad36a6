package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"gridgate/dlms/dlmstest"
	"gridgate/internal/cli"
)

func replayVerb() cli.Verb {
	return cli.Verb{
		Name:    "replay",
		Summary: "a meter that plays a captured DLMS conversation",
		Example: []string{
			"metersim replay -listen 127.0.0.1:4059 -trace conversation.txt",
			"metersim replay -trace conversation.txt -strict",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			listen := fs.String("listen", "127.0.0.1:4059", "`host:port`; port 0 takes a free one")
			file := fs.String("trace", "", "the captured conversation: a `file` of lines \"TX: time<tab>octets\" and \"RX: …\"")
			strict := fs.Bool("strict", false, "want every octet of the client as in the trace, and end with the first conversation;\n"+
				"else each request gets the answer that it got in the trace, in any order")
			return func(ctx context.Context, env cli.Env, args []string) error {
				switch {
				case len(args) > 0:
					return cli.Usagef("replay: unexpected argument %q", args[0])
				case *file == "":
					return cli.Usagef("replay: want -trace FILE")
				}
				return runReplay(ctx, env, *listen, *file, *strict)
			}
		},
	}
}

// errPlayed ends a strict replay that went well.
var errPlayed = errors.New("played to the end")

func runReplay(ctx context.Context, env cli.Env, listen, file string, strict bool) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	trace, err := dlmstest.ParseTrace(f)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	listening := func(_ int, at net.Addr) { fmt.Fprintf(env.Stdout, "%s plays %s\n", at, file) }
	if !strict {
		answer := trace.Answer
		if trace.IsHDLC() {
			answer = trace.AnswerHDLC
		}
		return listenAll(ctx, listen, []func(context.Context, io.ReadWriter) error{func(_ context.Context, stream io.ReadWriter) error {
			return answer(stream, func(request []byte) {
				fmt.Fprintf(env.Stderr, "not in the trace: %s\n", dlmstest.Describe(request))
			})
		}}, listening)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err = listenAll(ctx, listen, []func(context.Context, io.ReadWriter) error{func(_ context.Context, stream io.ReadWriter) error {
		err := trace.Serve(stream)
		if err == nil {
			err = errPlayed
		}
		cancel(err)
		return err
	}}, listening)
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, errPlayed) && !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("%s: %w", file, cause)
	}
	return err
}
