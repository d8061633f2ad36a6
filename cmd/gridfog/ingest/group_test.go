package ingest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// TestGroup: two ingesters share the sites; one is killed in the middle of the
// stream, another joins; every reading is stored once, and gateways that want it
// are told of all.
func TestGroup(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridfog")
	s := pgtest.Start(t)
	url := s.Database()
	broker := mqtttest.Mosquitto(t, mqtttest.Config{Lines: []string{"max_queued_messages 0"}})
	start := func() *proctest.Process {
		p := proctest.Start(t, nil, filepath.Join(bin, "gridfog"), "ingest", "-broker", "mqtt://"+broker.Address, "-db", url, "-ask-every", "2s", "-every", "5s")
		p.Await("site taken")
		return p
	}
	var all []*testGateway
	for _, site := range []string{"north", "south", "east", "west"} {
		all = append(all, startGateway(t, broker.Address, site, "fog-"+site, true), startGateway(t, broker.Address, site, "broker-"+site, false))
	}
	rounds := func(n int) {
		for range n {
			for _, g := range all {
				g.read()
			}
		}
	}
	rounds(5)
	first := start()
	conn := s.Connect(url)
	stored := func(n int64) func() bool {
		return func() bool { return scalar(t, conn, "SELECT count(*) FROM readings") >= n }
	}
	proctest.Until(t, "the first member stores", stored(100))
	second := start()
	shared := `SELECT count(*) FROM (SELECT count(*) n FROM pg_locks WHERE locktype = 'advisory' AND classid = 1734737922 GROUP BY pid) h WHERE n = 2`
	proctest.Until(t, "each has two sites", func() bool { return scalar(t, conn, shared) == 2 })
	for range 3 {
		rounds(4)
		before := scalar(t, conn, "SELECT count(*) FROM readings")
		proctest.Until(t, "more is stored", stored(before+200))
		first.Kill()
		rounds(4)
		first, second = second, start()
	}
	rounds(3)
	for _, g := range all {
		proctest.Until(t, fmt.Sprintf("all of %s/%s is stored", g.site, g.name), func() bool { return g.delivered(conn) })
		g.check(conn)
	}
	proctest.Until(t, "each has two sites again", func() bool { return scalar(t, conn, shared) == 2 })
	if code := second.Stop(); code != 0 || !strings.Contains(second.Output(), "0 missing in 0 streams") {
		t.Errorf("exit code %d, it says\n%s", code, second.Output())
	}
	if n := scalar(t, conn, "SELECT count(*) FROM gaps WHERE state = 'missing'"); n != 0 {
		t.Errorf("%d gaps", n)
	}
}
