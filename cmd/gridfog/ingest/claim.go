package ingest

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// A group divides the sites among its members by session-level advisory locks
// of PostgreSQL and by nothing else:
//
//	(lockMember, which sites)  shared, held by each member that takes part
//	(lockSite, number)         exclusive, held by the member that has the site
//
// pg_locks tells who holds what. A member takes sites that nobody has while it
// has no more than any other, and leaves one when another has two less. Locks
// end with the connection that holds them, and with it the member's hold on its
// sites. Two that hold one site for a moment, as after a partition of the
// network, do no harm but work: the streams' rows are locked in each transaction.

// patience is for how many looks a site may be free before any member takes it,
// whatever it has already.
const patience = 3

// claims is what a member knows of the group.
type claims struct {
	conn   *pgx.Conn
	group  int32 // of the members that may have the same sites
	only   []string
	free   map[string]int // for how many looks in a row nobody had a site
	member int            // count
}

// joinGroup opens the connection that holds the locks.
func joinGroup(ctx context.Context, url string, only []string) (*claims, error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	sorted := slices.Clone(only)
	slices.Sort(sorted)
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.Join(sorted, ",")))
	c := &claims{conn: conn, group: int32(h.Sum32()), only: sorted, free: map[string]int{}}
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1, $2)", lockMember, c.group); err != nil {
		_ = conn.Close(ctx)
		return nil, fmt.Errorf("database: %w", err)
	}
	return c, nil
}

// look is the state of the group at a moment.
type look struct {
	sites   map[string]int32 // that this member may have
	holders map[int32]uint32 // of sites
	members map[uint32]int   // of the same sites, by their process, with how many they have
	me      uint32
	names   map[int32]string
}

// look asks the database who holds what.
func (c *claims) look(ctx context.Context) (*look, error) {
	l := &look{sites: map[string]int32{}, holders: map[int32]uint32{}, members: map[uint32]int{}, me: c.conn.PgConn().PID(), names: map[int32]string{}}
	rows, err := c.conn.Query(ctx, "SELECT id, name FROM sites")
	if err != nil {
		return nil, err
	}
	var id int32
	var name string
	_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error {
		if len(c.only) == 0 || slices.Contains(c.only, name) {
			l.sites[name], l.names[id] = id, name
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows, err = c.conn.Query(ctx, `SELECT pid, classid::bigint, objid::bigint FROM pg_locks
		WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid IN ($1, $2)
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, uint32(lockMember), uint32(lockSite))
	if err != nil {
		return nil, err
	}
	var pid uint32
	var class, object int64
	_, err = pgx.ForEachRow(rows, []any{&pid, &class, &object}, func() error {
		switch {
		case class == lockSite:
			l.holders[int32(uint32(object))] = pid
		case int32(uint32(object)) == c.group:
			l.members[pid] += 0
		}
		return nil
	})
	for id, pid := range l.holders {
		if _, ok := l.members[pid]; ok && l.names[id] != "" {
			l.members[pid]++
		}
	}
	return l, err
}

// fewest is how many sites the member with the fewest has, this one aside.
func (l *look) fewest() int {
	least := len(l.sites) + 1
	for pid, n := range l.members {
		if pid != l.me {
			least = min(least, n)
		}
	}
	return least
}

// balance takes and leaves sites: start is called for one that was taken, stop
// for one that is to be left, and returns when it was.
func (c *claims) balance(ctx context.Context, have map[string]*holding, start func(name string) error, stop func(name string)) (*look, error) {
	l, err := c.look(ctx)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	c.member = len(l.members)
	for name := range have {
		if id, known := l.sites[name]; !known || l.holders[id] != l.me {
			stop(name) // the site was deleted, or the lock is gone
		}
	}
	others := l.fewest()
	if len(have) > others+1 {
		names := slices.Sorted(maps.Keys(have))
		name := names[rand.IntN(len(names))]
		stop(name)
		if _, err := c.conn.Exec(ctx, "SELECT pg_advisory_unlock($1, $2)", lockSite, l.sites[name]); err != nil {
			return nil, fmt.Errorf("database: %w", err)
		}
		c.free[name] = -patience // this member leaves it to the others for a while
		return l, nil
	}
	return l, c.takeFree(ctx, l, have, start)
}

func (c *claims) takeFree(ctx context.Context, l *look, have map[string]*holding, start func(name string) error) error {
	var free []string
	for name, id := range l.sites {
		if l.holders[id] != 0 || have[name] != nil {
			delete(c.free, name)
			continue
		}
		c.free[name]++
		free = append(free, name)
	}
	// Each begins elsewhere, so that they seldom try for the same one; those that
	// were free longest come first.
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	slices.SortStableFunc(free, func(a, b string) int { return cmp.Compare(c.free[b], c.free[a]) })
	share := (len(l.sites) + max(1, len(l.members)) - 1) / max(1, len(l.members))
	for _, name := range free {
		if c.free[name] <= 0 || len(have) >= share && c.free[name] < patience {
			continue
		}
		var mine bool
		if err := c.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", lockSite, l.sites[name]).Scan(&mine); err != nil {
			return fmt.Errorf("database: %w", err)
		}
		if !mine {
			continue
		}
		delete(c.free, name)
		if err := start(name); err != nil {
			return err
		}
	}
	return nil
}

// know adds sites that were heard of.
func (c *claims) know(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if _, err := c.conn.Exec(ctx, "INSERT INTO sites (name) SELECT n FROM unnest($1::text[]) n WHERE NOT EXISTS (SELECT FROM sites WHERE name = n) ON CONFLICT DO NOTHING", names); err != nil {
		return fmt.Errorf("sites: %w", err)
	}
	return nil
}

// follows gives the streams of a site that there is something to do about: the
// newest of each lane, and those with numbers missing.
func (c *claims) follows(ctx context.Context, name string, after time.Duration) (map[streamKey]*follow, error) {
	rows, err := c.conn.Query(ctx, `SELECT id, floor, stored::text, lost::text, high, rows, gap_since, gateway, epoch, lane, newest FROM (
			SELECT *, last_at = max(last_at) OVER (PARTITION BY gateway, lane) AS newest FROM streams WHERE site = $1) s
		WHERE newest OR gap_since IS NOT NULL`, name)
	if err != nil {
		return nil, fmt.Errorf("streams of site %s: %w", name, err)
	}
	defer rows.Close()
	all := map[streamKey]*follow{}
	for rows.Next() {
		k := streamKey{Site: name}
		var epoch string
		var lane int16
		var newest bool
		s, err := scanStream(rows, &k.Gateway, &epoch, &lane, &newest)
		if err == nil {
			_, err = fmt.Sscanf(epoch, "%016x", &k.Epoch)
		}
		if err != nil {
			return nil, fmt.Errorf("streams of site %s: %w", name, err)
		}
		k.Lane = laneOf(lane)
		f := &follow{}
		f.update(progress{through: s.through(), high: s.high, missing: s.missing()}, time.Now(), after)
		f.news = newest // who had the site before may not have told
		all[k] = f
	}
	return all, rows.Err()
}

// holding is a site that this member holds, with its task.
type holding struct {
	*site
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (h *holding) stop() {
	h.cancel()
	h.done.Wait()
}
