package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connect opens a connection to the database. url is of libpq's kinds and may be
// empty: then PGHOST and its like say where it is, and ~/.pgpass the password.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err) // pgx takes the password out
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "gridfog ingest"
	}
	// The server finds out within half a minute that this machine is gone, and
	// frees its locks.
	for name, value := range map[string]string{"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4", "timezone": "UTC"} {
		c.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("database: %w", advise(err))
	}
	// What is confirmed to gateways has to survive a crash of the server.
	var mode string
	err = conn.QueryRow(ctx, "SELECT current_setting('synchronous_commit')").Scan(&mode)
	if err == nil && mode == "off" {
		_, err = conn.Exec(ctx, "SET synchronous_commit = on")
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("database: %w", err)
	}
	return conn, nil
}

// advise adds what to do about the errors that a new set-up meets.
func advise(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case "3D000":
		return fmt.Errorf("%w (createdb makes it)", err)
	case "28P01", "28000":
		return fmt.Errorf("%w (the password comes from PGPASSWORD or ~/.pgpass)", err)
	}
	return err
}

// partitions makes the partitions that a pack needs.
func (w *writer) partitions(ctx context.Context, p *pack) error {
	if w.weeks == nil {
		return nil
	}
	for n := range p.weeks {
		if w.weeks[n] {
			continue
		}
		if err := pgx.BeginFunc(ctx, w.conn, func(tx pgx.Tx) error { return partition(ctx, tx, n) }); err != nil {
			return fmt.Errorf("partition of the week of %s: %w", weekBegin(n).Format(time.DateOnly), err)
		}
		w.weeks[n] = true
	}
	return nil
}

// partition makes the partition of a week, unless it is there. Attaching holds
// up nobody who writes.
func partition(ctx context.Context, tx pgx.Tx, n int64) error {
	const day = "20060102"
	name := "readings_" + weekBegin(n).Format(day)
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, 1)", lockMigrate); err != nil {
		return err
	}
	var there bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'readings'::regclass AND c.relname = $1)`, name).Scan(&there)
	if err != nil || there {
		return err
	}
	_, err = tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %s (LIKE readings INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
		ALTER TABLE readings ATTACH PARTITION %s FOR VALUES FROM ('%s+00') TO ('%s+00')`,
		name, name, weekBegin(n).Format(time.DateTime), weekBegin(n+1).Format(time.DateTime)))
	return err
}
