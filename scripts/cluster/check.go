package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// verdict is what the database has of what the meters showed, in values.
type verdict struct {
	Expected int // values that the meters showed
	Stored   int // rows in the database
	Missing  int // values that are not there
	Double   int // rows beyond the first of a value
	Wrong    int // values that are another number
	Strange  int // rows that no meter showed
}

func (v verdict) err() error {
	if v.Missing+v.Double+v.Wrong+v.Strange == 0 && v.Expected == v.Stored && v.Expected > 0 {
		return nil
	}
	return fmt.Errorf("%d values: %d rows stored, %d missing, %d double, %d wrong, %d that no meter showed",
		v.Expected, v.Stored, v.Missing, v.Double, v.Wrong, v.Strange)
}

// check computes what the meters showed once more, and compares it with what is
// in the database, value by value.
func check(ctx context.Context, url string, f fleet) (v verdict, err error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	if _, err := c.Exec(ctx, `CREATE TEMPORARY TABLE shown (
		site text, gateway text, meter text, serial text, channel text, time timestamptz, value numeric)`); err != nil {
		return v, err
	}
	if _, err := c.CopyFrom(ctx, pgx.Identifier{"shown"}, []string{"site", "gateway", "meter", "serial", "channel", "time", "value"}, &shown{fleet: f}); err != nil {
		return v, err
	}
	err = c.QueryRow(ctx, `
		WITH stored AS (
			SELECT site, gateway, meter, serial, channel, time, count(*) AS rows, min(value) AS low, max(value) AS high
			FROM all_readings GROUP BY site, gateway, meter, serial, channel, time)
		SELECT count(w.site), coalesce(sum(s.rows), 0),
			count(*) FILTER (WHERE s.site IS NULL),
			coalesce(sum(s.rows - 1), 0),
			count(*) FILTER (WHERE s.low <> w.value OR s.high <> w.value OR s.site IS NOT NULL AND s.low IS NULL),
			count(*) FILTER (WHERE w.site IS NULL)
		FROM shown w FULL JOIN stored s USING (site, gateway, meter, serial, channel, time)`).Scan(
		&v.Expected, &v.Stored, &v.Missing, &v.Double, &v.Wrong, &v.Strange)
	return v, err
}

// room gives the bytes that the readings take in the database, with their index.
func room(ctx context.Context, url string) (n int64, err error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	err = c.QueryRow(ctx, `SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'readings'::regclass`).Scan(&n)
	return n, errors.Join(err, c.Close(ctx))
}

// stored counts the rows in the database.
func stored(ctx context.Context, url string) (n int, err error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	err = c.QueryRow(ctx, "SELECT count(*) FROM readings").Scan(&n)
	return n, errors.Join(err, c.Close(ctx))
}

// shown gives all that the meters showed, for COPY. The zero place is before
// the first.
type shown struct {
	fleet
	next    [4]int // gateway, quarter, meter, channel
	started bool
}

func (s *shown) Next() bool {
	limits := [4]int{s.Gateways, s.Quarters, s.Meters, len(channels)}
	if !s.started {
		s.started = true
		return s.rows() > 0
	}
	for i := len(limits) - 1; i >= 0; i-- {
		if s.next[i]++; s.next[i] < limits[i] {
			return true
		}
		s.next[i] = 0
	}
	return false
}

func (s *shown) Values() ([]any, error) {
	g, q, n, i := s.next[0], s.next[1], s.next[2], s.next[3]
	c := &channels[i]
	value := pgtype.Numeric{Int: big.NewInt(s.mantissa(g, n, i, q)), Exp: int32(c.scale), Valid: true}
	return []any{
		string(s.site(g)), string(s.gateway(g)), meterName(n), s.serial(g, n), string(c.name),
		time.UnixMilli(s.stamp(n, i, q)).UTC(), value,
	}, nil
}

func (s *shown) Err() error { return nil }
