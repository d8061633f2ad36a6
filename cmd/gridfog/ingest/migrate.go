package ingest

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"gridgate/internal/meter"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrNewerSchema says that the database was made by a newer program.
var ErrNewerSchema = errors.New("the database's schema is newer than this program: update gridfog, or name another database")

// lockMigrate keeps two members from migrating at once. Advisory locks share
// one space of numbers in a database: these are "gf" and a number.
const (
	lockMigrate = 0x67660000
	lockMember  = 0x67660001
	lockSite    = 0x67660002
)

// oldestServer is the first with multiranges.
const oldestServer = 140_000

// migrate brings the schema to what this program knows, each version in a
// transaction of its own, and says what it did.
func migrate(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	var server int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&server); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	if server < oldestServer {
		return fmt.Errorf("schema: the server is PostgreSQL %d; it takes %d or newer", server/10_000, oldestServer/10_000)
	}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1, 0)", lockMigrate); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	defer func() {
		_, _ = conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1, 0)", lockMigrate)
	}()
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	have, err := schemaVersion(ctx, conn)
	if err != nil {
		return fmt.Errorf("schema: %w", permission(err))
	}
	if have > len(files) {
		return fmt.Errorf("schema: it has version %d, this program knows %d: %w", have, len(files), ErrNewerSchema)
	}
	for version := have + 1; version <= len(files); version++ {
		text, err := migrations.ReadFile(files[version-1])
		if err == nil {
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return apply(ctx, tx, version, string(text)) })
		}
		if err != nil {
			return fmt.Errorf("schema: version %d: %w", version, permission(err))
		}
		log.Info("database schema migrated", "version", version)
	}
	return dictionaries(ctx, conn)
}

// schemaVersion gives the version of the schema, 0 for none.
func schemaVersion(ctx context.Context, conn *pgx.Conn) (version int, err error) {
	const create = `CREATE TABLE IF NOT EXISTS gridfog_schema (version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())`
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('gridfog_schema') IS NOT NULL").Scan(&there); err != nil {
		return 0, err
	}
	if !there {
		if _, err := conn.Exec(ctx, create); err != nil {
			return 0, err
		}
	}
	err = conn.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM gridfog_schema").Scan(&version)
	return version, err
}

// apply makes one version. Where TimescaleDB is installed in the database the
// readings are a hypertable, otherwise a table with a partition a week.
func apply(ctx context.Context, tx pgx.Tx, version int, text string) error {
	if strings.Contains(text, partitionMark) {
		scale, err := hasTimescale(ctx, tx)
		if err != nil {
			return err
		}
		by := "PARTITION BY RANGE (time)"
		if scale {
			by = ""
			text += "\nSELECT create_hypertable('readings', 'time', chunk_time_interval => INTERVAL '7 days', create_default_indexes => false);"
		}
		text = strings.ReplaceAll(text, partitionMark, by)
	}
	if _, err := tx.Exec(ctx, text); err != nil { // many statements, without parameters
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO gridfog_schema (version) VALUES ($1)", version)
	return err
}

const partitionMark = "/*partition*/"

// hasTimescale says whether the extension is in this database. It is not
// created here: that is the administrator's to decide.
func hasTimescale(ctx context.Context, tx pgx.Tx) (there bool, err error) {
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')").Scan(&there)
	return there, err
}

// dictionaries fills the tables of names, which a newer program may know more
// of.
func dictionaries(ctx context.Context, conn *pgx.Conn) error {
	var b pgx.Batch
	for u := range 256 {
		if s := meter.Unit(u).String(); !strings.HasPrefix(s, "unit(") {
			b.Queue("INSERT INTO units VALUES ($1, $2) ON CONFLICT DO NOTHING", u, s)
		}
	}
	for bit := range 32 {
		if s := meter.Quality(1 << bit).String(); !strings.HasPrefix(s, "bit") {
			b.Queue("INSERT INTO quality_bits VALUES ($1, $2) ON CONFLICT DO NOTHING", bit, s)
		}
	}
	for _, l := range meter.Lanes() {
		b.Queue("INSERT INTO lanes VALUES ($1, $2) ON CONFLICT DO NOTHING", int(l), l.String())
	}
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("schema: %w", permission(err))
	}
	return nil
}

// permission adds advice to the errors that a new database gives most.
func permission(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code == "42501" {
		return fmt.Errorf("%w (the user needs rights in this schema: make it the database's owner, or GRANT CREATE, USAGE ON SCHEMA public TO it)", err)
	}
	return err
}
