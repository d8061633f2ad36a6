package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "gateways" { // the test's own child
		main()
		return
	}
	os.Exit(m.Run())
}

// Every value that the meters showed is in the database once, though the broker,
// or a node of it, and a member of gridfog ingest were killed on the way. Every
// second gateway waits for the fog's confirmation, the others for the broker's.
func TestOnce(t *testing.T) {
	for _, kind := range []string{"nats", "mosquitto", "rabbitmq"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := plan{
				Root: root, Broker: kind, Confirm: "mixed", Members: 2, Faults: true, Log: t.Output(),
				Fleet: fleet{Gateways: 10, Meters: 20, Quarters: 4, Sites: 3, Start: time.Now().Truncate(15 * time.Minute).Add(-75 * time.Minute)},
			}
			if kind == "mosquitto" {
				p.After = func(ctx context.Context, url string) error { return tamper(ctx, url, p.Fleet) }
			}
			o, err := p.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			report(t.Output(), []outcome{o})
		})
	}
}

// tamper sees whether check finds what is missing, wrong, double and strange.
func tamper(ctx context.Context, url string, f fleet) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, q := range []string{
		"DELETE FROM readings WHERE ctid = (SELECT min(ctid) FROM readings)",
		"UPDATE readings SET value = value + 0.1 WHERE ctid = (SELECT min(ctid) FROM readings)",
		"INSERT INTO readings (SELECT (r).* FROM (SELECT jsonb_populate_record(x, '{\"revision\": 7}') r FROM readings x LIMIT 1 OFFSET 50) y)",
		"INSERT INTO readings (SELECT (r).* FROM (SELECT jsonb_populate_record(x, jsonb_build_object('time', time + interval '1 ms')) r FROM readings x LIMIT 1 OFFSET 70) y)",
	} {
		if _, err := c.Exec(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	v, err := check(ctx, url, f)
	if want := (verdict{Expected: f.rows(), Stored: f.rows() + 1, Missing: 1, Double: 1, Wrong: 1, Strange: 1}); err == nil && v != want {
		err = fmt.Errorf("found %+v, want %+v", v, want)
	}
	if err == nil && v.err() == nil {
		err = errors.New("no error of it")
	}
	return err
}
