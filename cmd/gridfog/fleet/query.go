package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"gridgate/internal/meter"
)

// query gives, by gateway, how many intervals of a day were expected, and how
// many of them stored before a deadline. It asks for each series by its key, so
// that its time follows the number of series and not that of the readings.
//
//	$1 site  $2 begin of the day  $3 its end  $4 deadline
//	$5 31 days before  $6 longest interval  $7 quality bit of a missing interval
const query = `
SELECT m.gateway,
       sum((extract(epoch FROM $3::timestamptz - $2::timestamptz)::bigint / p.period))::bigint,
       sum(least(c.came, extract(epoch FROM $3::timestamptz - $2::timestamptz)::bigint / p.period))::bigint
FROM meters m
JOIN series s ON s.meter = m.id
CROSS JOIN LATERAL (
    SELECT r.period FROM readings r
    WHERE r.meter = s.meter AND r.channel = s.channel AND r.time > $5 AND r.time <= $3
      AND r.lane = 2 AND r.period BETWEEN 1 AND $6
    ORDER BY r.time DESC LIMIT 1) p
CROSS JOIN LATERAL (
    SELECT count(DISTINCT r.time) AS came FROM readings r
    WHERE r.meter = s.meter AND r.channel = s.channel AND r.time > $2 AND r.time <= $3
      AND r.lane = 2 AND r.period = p.period AND r.quality & $7 = 0 AND r.kind <> 0 AND r.received < $4) c
WHERE m.site = $1
GROUP BY m.gateway`

// Judged names the days that the shares are of at a moment: while it stays the
// same, so do they, but for what is learnt of series that nobody knew.
func Judged(now time.Time, zone *time.Location) string {
	return lastDay(now, FirstHour, zone).name(zone) + " " + lastDay(now, SecondHour, zone).name(zone)
}

// Database is what ingest fills.
type Database struct{ conn *pgx.Conn }

// CheckURL says whether a URL of a database can be read. Its error does not
// quote it, since a password may be in it.
func CheckURL(url string) error {
	if _, err := pgx.ParseConfig(url); err != nil {
		return errors.New("want postgres://user@host/name")
	}
	return nil
}

// Open connects to a database.
func Open(ctx context.Context, url string) (*Database, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return &Database{conn}, nil
}

// Close ends the connection.
func (d *Database) Close(ctx context.Context) { _ = d.conn.Close(ctx) } // it was only read

// Shares asks for the shares of a site's gateways, at each of the two hours. The
// map is by gateway.
func (d *Database) Shares(ctx context.Context, site string, now time.Time, zone *time.Location) (map[string][]Share, error) {
	shares := map[string][]Share{}
	for _, hour := range []int{FirstHour, SecondHour} {
		day := lastDay(now, hour, zone)
		rows, err := d.conn.Query(ctx, query, site, day.Begin, day.End, day.deadline(hour, zone),
			day.Begin.AddDate(0, 0, -knownDays), longestInterval, int64(meter.IntervalMissing))
		if err != nil {
			return nil, fmt.Errorf("database: intervals of site %s: %w", site, err)
		}
		var gateway string
		share := Share{Day: day.name(zone), Hour: hour}
		_, err = pgx.ForEachRow(rows, []any{&gateway, &share.Expected, &share.Complete}, func() error {
			shares[gateway] = append(shares[gateway], share)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("database: intervals of site %s: %w", site, err)
		}
	}
	return shares, nil
}

// Sites asks for the sites that it knows, and their time zones.
func (d *Database) Sites(ctx context.Context) (map[string]string, error) {
	rows, err := d.conn.Query(ctx, `SELECT name, time_zone FROM sites`)
	if err != nil {
		return nil, fmt.Errorf("database: does ingest fill it? %w", err)
	}
	sites := map[string]string{}
	var name, zone string
	_, err = pgx.ForEachRow(rows, []any{&name, &zone}, func() error {
		sites[name] = zone
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("database: does ingest fill it? %w", err)
	}
	return sites, nil
}
