package fleet

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"gridgate/cmd/gridfog/ingest"
	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/meter"
)

// database is an empty one, as ingest makes it.
func database(t *testing.T) *pgx.Conn {
	t.Helper()
	server := pgtest.Start(t)
	url := server.Database()
	if err := ingest.Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	// Ingest makes a partition a week as rows come.
	server.Exec(url, "CREATE TABLE readings_of_tests PARTITION OF readings DEFAULT")
	return server.Connect(url)
}

// The shares by what a real database holds, in the schema of ingest, at a time
// of our choosing.
func TestStoredShares(t *testing.T) {
	t.Parallel()
	db := database(t)
	run := func(q string, args ...any) {
		t.Helper()
		if _, err := db.Exec(t.Context(), q, args...); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	run(`INSERT INTO sites (name, time_zone) VALUES ('north', 'Europe/Berlin'), ('south', 'UTC')`)
	run(`INSERT INTO meters (site, serial, gateway, name) VALUES ('north', 'S1', 'gw-1', 'a'), ('north', 'S2', 'gw-1', 'b'), ('north', 'S3', 'gw-2', 'c'), ('north', 'S4', 'gw-2', 'd'), ('south', 'S5', 'gw-3', 'e')`)
	run(`INSERT INTO channels (name) VALUES ('1-0:1.29.0*255/3:2'), ('1-0:2.29.0*255/3:2'), ('completeness.interval')`)
	run(`INSERT INTO series SELECT m.id, c.id FROM meters m CROSS JOIN channels c`)
	// rows of a series: from the first interval to the last, each stored at received.
	rows := func(meterID, channel int, begin, end string, period int, quality meter.Quality, received string, revision int) {
		t.Helper()
		run(`INSERT INTO readings (time, meter, channel, occurrence, revision, lane, kind, unit, source, stream, quality, period, sequence, received, value)
			SELECT g, $1, $2, 0, $8, 2, 2, 30, 1, 1, $6, $5, 1, $7::timestamptz, 7
			FROM generate_series($3::timestamptz + make_interval(secs => $5::bigint), $4::timestamptz, make_interval(secs => $5::bigint)) g`,
			meterID, channel, begin, end, period, int64(quality), received, revision)
	}
	// The tenth of January in Berlin: 80 in time for both hours, 10 for the second
	// (of which one is a later revision of a value that was there), 5 too late, 1 never.
	rows(1, 1, "2026-01-09T23:00:00Z", "2026-01-10T19:00:00Z", 900, 0, "2026-01-11T06:59:59Z", 0)
	rows(1, 1, "2026-01-10T19:00:00Z", "2026-01-10T21:30:00Z", 900, 0, "2026-01-11T07:00:00Z", 0)
	rows(1, 1, "2026-01-10T21:30:00Z", "2026-01-10T22:45:00Z", 900, 0, "2026-01-11T11:00:00Z", 0)
	rows(1, 1, "2026-01-09T23:00:00Z", "2026-01-10T00:00:00Z", 900, 0, "2026-01-11T09:00:00Z", 1)
	rows(1, 2, "2026-01-09T23:00:00Z", "2026-01-10T23:00:00Z", 3600, meter.IntervalMissing, "2026-01-11T00:00:00Z", 0) // told, and without values
	rows(1, 3, "2026-01-09T23:00:00Z", "2026-01-10T23:00:00Z", 86400, 0, "2026-01-11T07:00:00Z", 0)                    // no interval of a day
	rows(2, 1, "2026-01-01T23:00:00Z", "2026-01-02T23:00:00Z", 3600, 0, "2026-01-03T00:00:00Z", 0)                     // silent since
	rows(3, 1, "2026-01-11T00:00:00Z", "2026-01-11T02:00:00Z", 3600, 0, "2026-01-11T02:00:00Z", 0)                     // new
	rows(4, 1, "2025-11-01T00:00:00Z", "2025-12-01T00:00:00Z", 3600, 0, "2025-12-01T00:00:00Z", 0)                     // silent for longer than a month
	rows(5, 1, "2026-01-10T00:00:00Z", "2026-01-11T00:00:00Z", 900, 0, "2026-01-11T00:00:01Z", 0)

	sites, err := (&Database{db}).Sites(t.Context())
	if d := cmp.Diff(map[string]string{"north": "Europe/Berlin", "south": "UTC"}, sites); d != "" || err != nil {
		t.Errorf("%s%v", d, err)
	}
	for _, c := range []struct {
		site, zone, now string
		want            map[string][]Share
	}{
		{"north", "Europe/Berlin", "2026-01-11T11:00:00Z", map[string][]Share{"gw-1": {{"2026-01-10", 8, 96 + 24 + 24, 80}, {"2026-01-10", 12, 96 + 24 + 24, 90}}}},
		// Before the deadline the figure is the day before's.
		{"north", "Europe/Berlin", "2026-01-11T10:59:59Z", map[string][]Share{"gw-1": {{"2026-01-10", 8, 96 + 24 + 24, 80}, {"2026-01-09", 12, 24, 0}}}},
		{"south", "UTC", "2026-01-11T12:00:00Z", map[string][]Share{"gw-3": {{"2026-01-10", 8, 96, 96}, {"2026-01-10", 12, 96, 96}}}},
		{"east", "UTC", "2026-01-11T12:00:00Z", map[string][]Share{}},
	} {
		got, err := (&Database{db}).Shares(t.Context(), c.site, moment(t, c.now), zone(t, c.zone))
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s at %s: %v\n%s", c.site, c.now, err, d)
		}
	}
}

// The same rows give the same shares, counted as they arrive and asked of the
// database, for each minute of a day in which they come late and twice.
func TestStoredAndCountedAgree(t *testing.T) {
	t.Parallel()
	db := database(t)
	z := zone(t, "America/New_York")
	if _, err := db.Exec(t.Context(), `INSERT INTO sites (name) VALUES ('north');
		INSERT INTO meters (site, serial, gateway, name) SELECT 'north', 'S' || n, 'gw-1', 'm' || n FROM generate_series(0, 9) n;
		INSERT INTO channels (name) VALUES ('1-0:1.29.0'); INSERT INTO series SELECT id, 1 FROM meters`); err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 3, 7, 0, 0, 0, 0, z) // the eighth is an hour short
	var v Intervals
	v.Watch(begin)
	insert := &pgx.Batch{}
	for n := range 10 {
		for at := begin.Add(15 * time.Minute); !at.After(begin.AddDate(0, 0, 3)); at = at.Add(15 * time.Minute) {
			late := time.Duration(n*n) * 20 * time.Minute // up to 27 h
			if n == 4 && at.Hour() == 13 {
				continue
			}
			id := "m" + string(rune('0'+n))
			row := interval(id, "1-0:1.29.0", at, 900)
			row.Serial = "S" + id[1:]
			v.Count("north", "gw-1", row, at.Add(late), z)
			insert.Queue(`INSERT INTO readings (time, meter, channel, occurrence, revision, lane, kind, unit, source, stream, quality, period, sequence, received, value)
				VALUES ($1, $2, 1, 0, 0, 2, 2, 30, 1, 1, 0, 900, 1, $3, 7)`, at, n+1, at.Add(late))
		}
	}
	if err := db.SendBatch(t.Context(), insert).Close(); err != nil {
		t.Fatal(err)
	}
	for now := begin.AddDate(0, 0, 2); now.Before(begin.AddDate(0, 0, 4)); now = now.Add(4 * time.Hour) {
		stored, err := (&Database{db}).Shares(t.Context(), "north", now, z)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stored["gw-1"] {
			counted, ok := v.Share("north", "gw-1", s.Hour, now, z)
			if !ok || counted != s || s.Complete == 0 || s.Complete == s.Expected {
				t.Errorf("at %v: counted %+v, stored %+v", now, counted, s)
			}
		}
	}
}
