package ingest

import (
	"testing"

	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// TestTimeZoneOfTheGateway: a site has the zone that its gateway tells, until the
// operator says another one.
func TestTimeZoneOfTheGateway(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	url := database(t, server)
	conn := server.Connect(url)
	c, err := joinGroup(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close(t.Context())
	if err := c.know(t.Context(), []string{"north", "south"}); err != nil {
		t.Fatal(err)
	}
	config := Config{Log: logger(t)}
	h := &holding{site: newSite("north", "1", &config, newInbox(), newCounters(), nil)}
	m := &member{cfg: config, have: map[string]*holding{"north": h}}
	tell := func(gateway, zone, want string) {
		t.Helper()
		h.state(mqtt.Topic{Site: "north", Gateway: meter.ID(gateway), Kind: mqtt.State}, []byte(`{"state":"online","time_zone":"`+zone+`"}`))
		if err := m.zones(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		var is, other string
		if err := conn.QueryRow(t.Context(), "SELECT time_zone, (SELECT time_zone FROM sites WHERE name = 'south') FROM sites WHERE name = 'north'").Scan(&is, &other); err != nil {
			t.Fatal(err)
		}
		if is != want || other != "UTC" {
			t.Errorf("%s tells %s: the zone is %s, want %s; that of the other site is %s", gateway, zone, is, want, other)
		}
	}
	tell("gw-2", "Mars/Olympus", "UTC")
	tell("gw-2", `a\u0000b`, "UTC")
	tell("gw-2", "Europe/Berlin", "Europe/Berlin")
	tell("gw-3", "Asia/Tokyo", "Europe/Berlin") // a second gateway does not move it
	tell("gw-1", "Europe/Paris", "Europe/Paris")
	tell("gw-1", "", "Europe/Paris")
	server.Exec(url, "UPDATE sites SET time_zone = 'UTC' WHERE name = 'north'")
	tell("gw-1", "Europe/Rome", "UTC") // the operator's
	server.Exec(url, "UPDATE sites SET time_zone = 'America/Lima' WHERE name = 'north'")
	tell("gw-1", "Europe/Berlin", "America/Lima")
}
