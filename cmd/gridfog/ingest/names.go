package ingest

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"gridgate/agent/batch"
)

// names are the numbers that the database has for meters and channels. They are
// committed before the rows that need them, so a cache never knows one that is
// not there.
type names struct {
	meters   map[meterKey]*meterRef
	channels map[batch.Channel]int32
	series   map[[2]int32]bool
	made     int // by the last resolve
}

// meterKey tells meters apart: by site and serial, or where there is none by
// gateway and name.
type meterKey struct{ site, serial, gateway, name string }

type meterRef struct {
	id            int32
	gateway, name string    // as the database has them
	changed       time.Time // when they were last written
	made          int       // 1 when that made it
}

// maxNames bounds each cache; a full one begins anew.
const maxNames = 1 << 20

// nameEvery is how often a meter's gateway and name are written at most: two
// gateways may read one meter in turn.
const nameEvery = time.Minute

func (n *names) clear() {
	n.meters, n.channels, n.series = map[meterKey]*meterRef{}, map[batch.Channel]int32{}, map[[2]int32]bool{}
}

func keyOf(site, gateway string, r *batch.Row) meterKey {
	if r.Serial != "" {
		return meterKey{site: site, serial: r.Serial}
	}
	return meterKey{site: site, gateway: gateway, name: string(r.Meter)}
}

// of gives the numbers of a row's meter and channel, which resolve has found.
func (n *names) of(site, gateway string, r *batch.Row) (meter, channel int32) {
	return n.meters[keyOf(site, gateway, r)].id, n.channels[r.Channel]
}

// clean makes a name one that the database takes: what is no text comes in
// hexadecimal.
func clean(s string) string {
	if isText(s) {
		return s
	}
	return "hex:" + hex.EncodeToString([]byte(s))
}

// know says whether all meters, channels and series in rows are known here.
func (n *names) know(site, gateway string, rows []batch.Row) bool {
	for i := range rows {
		m, c := n.meters[keyOf(site, gateway, &rows[i])], n.channels[rows[i].Channel]
		if m == nil || c == 0 || !n.series[[2]int32{m.id, c}] {
			return false
		}
	}
	return true
}

// resolve finds or makes the numbers of all meters, channels and series in rows,
// and says how many it made.
func (n *names) resolve(ctx context.Context, conn *pgx.Conn, site, gateway string, rows []batch.Row, now time.Time) (fresh int, err error) {
	n.made = 0
	err = n.find(ctx, conn, site, gateway, rows, now)
	return n.made, err
}

func (n *names) find(ctx context.Context, conn *pgx.Conn, site, gateway string, rows []batch.Row, now time.Time) error {
	if n.meters == nil || len(n.meters) > maxNames || len(n.channels) > maxNames || len(n.series) > maxNames {
		n.clear()
	}
	meters, channels := map[meterKey]*batch.Row{}, map[batch.Channel]bool{}
	var last *batch.Row
	for i := range rows {
		r := &rows[i]
		if last == nil || last.Serial != r.Serial || last.Meter != r.Meter {
			k := keyOf(site, gateway, r)
			if ref := n.meters[k]; ref == nil || (ref.gateway != gateway || ref.name != string(r.Meter)) && now.Sub(ref.changed) > nameEvery {
				meters[k] = r
			}
		}
		last = r
		if _, ok := n.channels[r.Channel]; !ok {
			channels[r.Channel] = true
		}
	}
	for c := range channels {
		if err := n.channel(ctx, conn, c); err != nil {
			return err
		}
	}
	if len(meters) > 0 {
		if err := n.findMeters(ctx, conn, site, gateway, meters, now); err != nil {
			return err
		}
	}
	return n.findSeries(ctx, conn, site, gateway, rows)
}

func (n *names) channel(ctx context.Context, conn *pgx.Conn, c batch.Channel) error {
	var id int32
	const find = `SELECT id FROM channels WHERE name = $1`
	err := conn.QueryRow(ctx, find, clean(string(c))).Scan(&id)
	if err == pgx.ErrNoRows { //nolint:errorlint // pgx gives it bare
		n.made++
		if _, err = conn.Exec(ctx, `INSERT INTO channels (name) VALUES ($1) ON CONFLICT DO NOTHING`, clean(string(c))); err == nil {
			err = conn.QueryRow(ctx, find, clean(string(c))).Scan(&id)
		}
	}
	if err != nil {
		return fmt.Errorf("channel %q: %w", c, err)
	}
	n.channels[c] = id
	return nil
}

// findMeters finds or makes meters, and writes where they were read last.
func (n *names) findMeters(ctx context.Context, conn *pgx.Conn, site, gateway string, rows map[meterKey]*batch.Row, now time.Time) error {
	var b pgx.Batch
	found := map[meterKey]*meterRef{} // when one fails, none of them is there
	for k, r := range rows {
		name := clean(string(r.Meter))
		if k.serial != "" {
			b.Queue(`INSERT INTO meters (site, serial, gateway, name) VALUES ($1, $2, $3, $4)
				ON CONFLICT (site, serial) WHERE serial <> '' DO UPDATE SET gateway = $3, name = $4 RETURNING id, (xmax = 0)::int`,
				site, clean(k.serial), gateway, name).QueryRow(scanMeter(found, k, gateway, r, now))
		} else {
			b.Queue(`INSERT INTO meters (site, serial, gateway, name) VALUES ($1, '', $2, $3)
				ON CONFLICT (site, gateway, name) WHERE serial = '' DO UPDATE SET name = $3 RETURNING id, (xmax = 0)::int`,
				site, gateway, name).QueryRow(scanMeter(found, k, gateway, r, now))
		}
	}
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("meters of site %s: %w", site, err)
	}
	maps.Copy(n.meters, found)
	for _, ref := range found {
		n.made += ref.made
	}
	return nil
}

func scanMeter(found map[meterKey]*meterRef, k meterKey, gateway string, r *batch.Row, now time.Time) func(pgx.Row) error {
	ref := &meterRef{gateway: gateway, name: string(r.Meter), changed: now}
	return func(row pgx.Row) error {
		if err := row.Scan(&ref.id, &ref.made); err != nil {
			return err
		}
		found[k] = ref
		return nil
	}
}

// findSeries notes which meter has which channel.
func (n *names) findSeries(ctx context.Context, conn *pgx.Conn, site, gateway string, rows []batch.Row) error {
	var meters, channels []int32
	var fresh [][2]int32
	seen := map[[2]int32]bool{}
	for i := range rows {
		m, c := n.of(site, gateway, &rows[i])
		s := [2]int32{m, c}
		if !n.series[s] && !seen[s] {
			seen[s] = true
			meters, channels, fresh = append(meters, m), append(channels, c), append(fresh, s)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	tag, err := conn.Exec(ctx, `INSERT INTO series SELECT * FROM unnest($1::int[], $2::int[]) s(m, c) ORDER BY m, c ON CONFLICT DO NOTHING`, meters, channels)
	if err != nil {
		return fmt.Errorf("series of site %s: %w", site, err)
	}
	n.made += int(tag.RowsAffected())
	for _, s := range fresh {
		n.series[s] = true
	}
	return nil
}
