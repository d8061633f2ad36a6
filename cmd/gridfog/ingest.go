package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"gridgate/cmd/gridfog/ingest"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

func ingestVerb() cli.Verb {
	return cli.Verb{
		Name:    "ingest",
		Summary: "store every reading once in PostgreSQL, and tell gateways what is stored",
		Example: []string{
			"gridfog ingest -broker mqtt://127.0.0.1:1883 -db postgres://fog@127.0.0.1/readings",
			"PGHOST=db PGDATABASE=readings gridfog ingest -broker mqtts://broker.example:8883 -ca ca.pem -cert fog.pem -key fog.key",
			"gridfog ingest -broker mqtt://127.0.0.1:1883 -db service=readings -site north,south -every 10s -json",
			"gridfog ingest -migrate -db postgres://fog@127.0.0.1/readings     # the schema only",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			i := &ingestRun{client: client{verb: "ingest"}}
			c := &i.config
			fs.StringVar(&c.Database, "db", "", "the database: a postgres:// `URL` or KEY=VALUE…, as psql takes; without it PGHOST, PGDATABASE and so on; the password from PGPASSWORD or ~/.pgpass")
			i.client.flags(fs, "mqtt://127.0.0.1:1883")
			fs.StringVar(&i.sites, "site", "", "these `SITES` only, with commas between them")
			fs.IntVar(&c.Writers, "writers", 1, "`NUMBER` of transactions at a time")
			fs.BoolVar(&c.History, "history", true, "ask gateways for readings that were confirmed before the database knew them")
			fs.DurationVar(&c.CatalogueWait, "catalogue-wait", ingest.DefaultCatalogueWait, "a batch waits for its catalogue for this `TIME`, then it is a dead letter")
			fs.DurationVar(&c.AskAfter, "ask-after", ingest.DefaultAskAfter, "ask for numbers that are missing for this `TIME`")
			fs.DurationVar(&c.AskEvery, "ask-every", ingest.DefaultAskEvery, "ask again after this `TIME`, which doubles")
			fs.IntVar(&c.Asks, "asks", ingest.DefaultAsks, "give missing numbers up when they were asked for in vain this `MANY` times")
			fs.StringVar(&c.DeadLetters, "dead-letters", ingest.DefaultDeadLetters, "publish refused messages below this `TOPIC`")
			fs.DurationVar(&c.ReportEvery, "every", time.Minute, "print a line of counts each `TIME`")
			fs.BoolVar(&i.json, "json", false, "the counts as JSON objects on standard output")
			fs.BoolVar(&i.migrate, "migrate", false, "bring the database's schema up to date, and end")
			return i.run
		},
	}
}

// ingestRun is one run of the verb.
type ingestRun struct {
	config        ingest.Config
	client        client
	sites         string
	json, migrate bool
}

func (i *ingestRun) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) > 0 {
		return cli.Usagef("ingest: %q: it takes flags only", args[0])
	}
	i.config.Log = slog.New(slog.NewTextHandler(env.Stderr, nil))
	if i.migrate {
		if err := ingest.Migrate(ctx, i.config.Database, i.config.Log); err != nil {
			return fmt.Errorf("ingest: %w", err)
		}
		return nil
	}
	if err := i.prepare(); err != nil {
		return err
	}
	var before ingest.Counts
	last := time.Now()
	i.config.Report = func(c ingest.Counts) {
		now := time.Now()
		if i.json {
			b, err := json.Marshal(c)
			if err == nil {
				_, _ = env.Stdout.Write(append(b, '\n')) // the counts are not worth ending for
			}
		} else {
			fmt.Fprintf(env.Stderr, "gridfog ingest: %s\n", c.Line(before, now.Sub(last)))
		}
		before, last = c, now
	}
	if err := ingest.Run(ctx, i.config); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	return nil
}

// prepare checks the flags.
func (i *ingestRun) prepare() error {
	c := &i.config
	if err := i.client.prepare(nil); err != nil {
		return err
	}
	c.MQTT = i.client.options
	if i.sites != "" {
		c.Sites = strings.Split(i.sites, ",")
	}
	for _, s := range c.Sites {
		if _, err := meter.ParseID(s); err != nil {
			return cli.Usagef("ingest: -site: %v", err)
		}
	}
	for name, ok := range map[string]bool{
		"writers": c.Writers > 0 && c.Writers <= 64, "asks": c.Asks > 0, "every": c.ReportEvery > 0, "ask-after": c.AskAfter > 0,
		"ask-every": c.AskEvery > 0, "catalogue-wait": c.CatalogueWait > 0, "dead-letters": c.DeadLetters != "" && !strings.ContainsAny(c.DeadLetters, "+#"),
	} {
		if !ok {
			return cli.Usagef("ingest: -%s: out of range", name)
		}
	}
	return nil
}
