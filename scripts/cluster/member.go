package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// startMember starts a member of gridfog ingest.
func (r *running) startMember(i int) error {
	var brokers []string
	for _, address := range r.broker.addresses {
		brokers = append(brokers, "mqtts://"+address)
	}
	p, err := r.stage.start(fmt.Sprintf("ingest-%d", i+1), nil, r.fog, "ingest", "-db", r.url, "-every", "5s",
		"-broker", strings.Join(brokers, ","), "-ca", r.file("ca.pem"), "-cert", r.file("fog.pem"), "-key", r.file("fog.key"))
	if err == nil {
		r.members = append(r.members, p)
	}
	return err
}

// membersReady waits until the members know of one another and hold all sites
// that there are, at least so many.
func (r *running) membersReady(ctx context.Context, sites int) error {
	return r.members[0].until(ctx, fmt.Sprintf("%d members hold %d sites", len(r.members), sites), func() bool {
		members, held, err := group(ctx, r.url)
		return err == nil && members == len(r.members) && held >= sites
	})
}

// subscribed waits until members have subscribed to all sites. Before that a
// broker acknowledges what gateways send, and throws it away: nobody wants it.
func (r *running) subscribed(ctx context.Context, sites int) error {
	return r.members[0].until(ctx, fmt.Sprintf("members have subscribed to %d sites", sites), func() bool {
		seen := map[string]bool{}
		for _, m := range r.members {
			b, err := os.ReadFile(m.log)
			if err != nil {
				return false
			}
			for line := range strings.Lines(string(b)) {
				if _, site, found := strings.Cut(line, "msg=subscribed site="); found {
					seen[site] = true
				}
			}
		}
		return len(seen) >= sites
	})
}

// group counts the members of the group and the sites that are held: advisory
// locks of PostgreSQL.
func group(ctx context.Context, url string) (members, sites int, err error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, 0, err
	}
	err = c.QueryRow(ctx, `SELECT count(*) FILTER (WHERE mode = 'ShareLock'), count(*) FILTER (WHERE mode = 'ExclusiveLock')
		FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted`).Scan(&members, &sites)
	return members, sites, errors.Join(err, c.Close(ctx))
}
