package ingest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// TestFromMeterToDatabase: simulated meters, a real gateway, a real broker, an
// ingester, PostgreSQL; both ways to confirm.
func TestFromMeterToDatabase(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridfog", "gridgate", "metersim")
	s := pgtest.Start(t)
	url := s.Database()
	broker := mqtttest.Mosquitto(t, mqtttest.Config{Lines: []string{"max_queued_messages 0"}})
	port := proctest.FreePorts(t, 6)
	meters := proctest.Start(t, nil, filepath.Join(bin, "metersim"), "modbus", "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-count", "6", "-model", "eastron-sdm630")
	meters.Await(fmt.Sprint(port + 5))
	fog := proctest.Start(t, nil, filepath.Join(bin, "gridfog"), "ingest", "-broker", "mqtt://"+broker.Address, "-db", url, "-ask-every", "2s")
	var gateways []*proctest.Process
	for g, confirm := range []string{"fog", "broker"} {
		dir := t.TempDir()
		config := fmt.Sprintf(`version: 1
site: field
gateway: gw-%s
buffer: {path: %s/buffer}
control: {socket: %s/control.sock}
intake: {window: 1s}
uplink: {broker: "tcp://%s", start_jitter: 0s, confirm: %s}
groups:
  three-phase: {lane: instant, every: 1s, channels: [1-0:1.8.0, 1-0:16.7.0, 1-0:32.7.0]}
meters:
`, confirm, dir, dir, broker.Address, confirm)
		for i := range 3 {
			config += fmt.Sprintf("  - {id: m%d, serial: %d, groups: [three-phase], url: \"modbus+tcp://127.0.0.1:%d?unit=1&model=eastron-sdm630\"}\n", i, 20260001+3*g+i, port+3*g+i)
		}
		file := filepath.Join(dir, "gateway.yaml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		gateways = append(gateways, proctest.Start(t, nil, filepath.Join(bin, "gridgate"), "run", "-config", file))
	}
	conn := s.Connect(s.URL())
	proctest.Until(t, "the database has its schema", func() bool {
		return scalar(t, conn, "SELECT count(*) FROM pg_database") > 0 && schemaThere(t, s, url)
	})
	conn = s.Connect(url)
	proctest.Until(t, "both gateways' readings come", func() bool {
		return scalar(t, conn, "SELECT count(*) FROM (SELECT gateway FROM stream_states WHERE lane = 'instant' AND through > 60) g") == 2
	})
	for _, g := range gateways {
		if code := g.Stop(); code != 0 {
			t.Errorf("a gateway ended with %d", code)
		}
	}
	proctest.Until(t, "what they sent last is there", func() bool {
		return scalar(t, conn, "SELECT count(*) FROM gaps WHERE state = 'missing'") == 0
	})
	if code := fog.Stop(); code != 0 {
		t.Errorf("the ingester ended with %d", code)
	}
	rows, numbers := scalar(t, conn, "SELECT count(*) FROM readings"), scalar(t, conn, "SELECT sum(through) FROM streams WHERE lane = 3")
	if rows != numbers {
		t.Errorf("%d rows of %d numbers", rows, numbers)
	}
	if n := scalar(t, conn, "SELECT count(*) FROM latest_values WHERE serial BETWEEN '20260001' AND '20260006' AND unit IN ('Wh', 'W', 'V') AND quality IN ('good', 'clock-unsynchronised')"); n != 18 {
		t.Errorf("%d latest values of 18", n)
	}
	if n := scalar(t, conn, "SELECT count(*) FROM dead_letters"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

// schemaThere says whether an ingester has migrated a database.
func schemaThere(t *testing.T, s *pgtest.Server, url string) bool {
	t.Helper()
	c := s.Connect(url)
	return scalar(t, c, "SELECT count(*) FROM pg_tables WHERE tablename = 'lanes'") == 1 && scalar(t, c, "SELECT count(*) FROM lanes") == 4
}
