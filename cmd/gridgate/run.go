package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/signal"
	rtdebug "runtime/debug"
	"syscall"

	"gridgate/agent"
	"gridgate/agent/bundle"
	"gridgate/buffer"
	"gridgate/internal/cli"
)

func runVerb() cli.Verb {
	return cli.Verb{
		Name: "run", Summary: "poll the meters of a configuration until SIGTERM",
		Example: []string{
			"gridgate run -config /etc/gridgate/gridgate.yaml",
			"kill -HUP $(pidof gridgate)   # apply what changed in the file",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			path := fs.String("config", defaultConfig, "the configuration `FILE`")
			debug := fs.Bool("debug", false, "log more")
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("run: takes no arguments: %q", args)
				}
				level := new(slog.LevelVar)
				if *debug {
					level.Set(slog.LevelDebug)
				}
				if env.Getenv("GOGC") == "" {
					rtdebug.SetGCPercent(collectAt)
				}
				recent := new(bundle.Ring)
				log := slog.New(slog.NewJSONHandler(io.MultiWriter(recent, env.Stderr), &slog.HandlerOptions{Level: level}))
				launch(ctx, log)
				err := run(ctx, *path, agent.Options{
					Version: version, Log: log, Level: level, Recent: recent, Getenv: env.Getenv, StoreChecker: []string{"/proc/self/exe", buffer.ChildVerb},
				})
				if errors.Is(err, agent.ErrRestart) {
					log.Info("gridgate starts anew", "why", err.Error())
					return again()
				}
				return err
			}
		},
	}
}

// collectAt is by how many percent the heap grows before garbage is collected, where
// GOGC does not say otherwise: memory is dearer on a gateway than time.
const collectAt = 50

// run runs the agent until ctx ends. SIGHUP reads the configuration again and
// applies the difference; one that is wrong is refused and the old one goes on.
func run(ctx context.Context, path string, o agent.Options) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	o.ConfigPath = path
	a, err := agent.New(cfg, o)
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	reloaded := make(chan struct{})
	go func() {
		defer close(reloaded)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				reload(ctx, a, o.Log)
			}
		}
	}()
	err = a.Run(ctx)
	cancel()
	signal.Stop(hangups)
	<-reloaded
	return err
}

func reload(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	if err := a.Reload(ctx); err != nil {
		log.Error("the new configuration is refused; the old one goes on", "error", err)
	}
}
