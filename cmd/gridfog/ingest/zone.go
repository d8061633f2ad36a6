package ingest

import (
	"context"
	"fmt"
	"time"
)

// isZone says whether a name is one of a time zone.
func isZone(name string) bool {
	if name == "" || name == "Local" || len(name) > 100 {
		return false
	}
	_, err := time.LoadLocation(name)
	return err == nil
}

// told gives the time zone that a site's gateways tell, where the database does
// not know it yet. When they differ, the first gateway by its name is believed.
func (s *site) told() (zone string, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := ""
	for name, g := range s.gateways {
		if g.zone != "" && (first == "" || name < first) {
			first, zone = name, g.zone
		}
	}
	return zone, zone != "" && zone != s.zone
}

// zones notes the time zones that gateways tell, of the sites that this member
// has.
func (m *member) zones(ctx context.Context, c *claims) error {
	for name, h := range m.have { // only this goroutine changes it
		zone, fresh := h.told()
		if !fresh {
			continue
		}
		if err := c.zone(ctx, name, zone); err != nil {
			return err
		}
		h.mu.Lock()
		h.site.zone = zone
		h.mu.Unlock()
	}
	return nil
}

// zone sets the time zone of a site, unless the operator has.
func (c *claims) zone(ctx context.Context, site, zone string) error {
	_, err := c.conn.Exec(ctx, `UPDATE sites SET time_zone = $2, time_zone_told = $2 WHERE name = $1 AND time_zone_told IS DISTINCT FROM $2
		AND time_zone = coalesce(time_zone_told, 'UTC') AND EXISTS (SELECT FROM pg_timezone_names WHERE name = $2)`, site, zone)
	if err != nil {
		return fmt.Errorf("time zone of site %s: %w", site, err)
	}
	return nil
}
