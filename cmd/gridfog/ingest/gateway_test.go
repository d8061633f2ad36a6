package ingest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gridgate/agent/batch"
	"gridgate/agent/uplink"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// testGateway is the real uplink over a store in memory.
type testGateway struct {
	t          *testing.T
	site, name string
	fog        bool
	store      *buffertest.Memory
	wake       chan struct{}
	rows       int // appended
	stop       func()
}

func startGateway(t *testing.T, broker, site, name string, fog bool) *testGateway {
	g := &testGateway{t: t, site: site, name: name, fog: fog, wake: make(chan struct{}, 1)}
	g.store = buffertest.NewMemory(uint64(len(site)*1000+len(name)) + 77)
	u := uplink.New(uplink.Config{
		Site: meter.ID(site), Gateway: meter.ID(name), MQTT: mqtt.Options{Address: broker}, Store: g.store, Wake: g.wake, FogConfirms: fog,
		MaxMessage: 2048, MinPause: 50 * time.Millisecond, MaxPause: time.Second, FogPatience: 3 * time.Second, Log: logger(t),
	})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = u.Run(ctx) })
	g.stop = sync.OnceFunc(func() {
		cancel()
		run.Wait()
	})
	t.Cleanup(g.stop)
	return g
}

// read stores one round of ten meters.
func (g *testGateway) read() {
	g.t.Helper()
	rows := profile(10, 4, 1)
	for i := range rows {
		rows[i].Serial = fmt.Sprint(g.name, rows[i].Serial)
		rows[i].Stamp.Time += int64(g.rows) * 1000
		rows[i].Value.Bits += uint64(g.rows)
		rows[i].Lane = batch.Interval
	}
	if err := g.store.Append(g.t.Context(), meter.Append{Rows: rows}); err != nil {
		g.t.Fatal(err)
	}
	g.rows += len(rows)
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// delivered says whether all is stored, and, of a gateway that wants it,
// confirmed.
func (g *testGateway) delivered(conn *pgx.Conn) bool {
	var n int
	err := conn.QueryRow(context.Background(), `SELECT count(*) FROM readings r JOIN streams s ON s.id = r.stream WHERE s.site = $1 AND s.gateway = $2`, g.site, g.name).Scan(&n)
	return err == nil && n >= g.rows && (!g.fog || g.store.Acked(meter.Interval) == g.store.Last(meter.Interval))
}

// check holds what is stored against what was read.
func (g *testGateway) check(conn *pgx.Conn) {
	g.t.Helper()
	const from = ` FROM readings r JOIN streams s ON s.id = r.stream WHERE s.site = $1 AND s.gateway = $2`
	if n := scalar(g.t, conn, "SELECT count(*)"+from, g.site, g.name); n != int64(g.rows) {
		g.t.Errorf("%s/%s: %d rows are stored, %d were read", g.site, g.name, n, g.rows)
	}
	if n := scalar(g.t, conn, "SELECT count(DISTINCT (meter, channel, time))"+from, g.site, g.name); n != int64(g.rows) {
		g.t.Errorf("%s/%s: %d different rows are stored, %d were read", g.site, g.name, n, g.rows)
	}
	if n := scalar(g.t, conn, "SELECT count(*)"+from+" AND revision > 0", g.site, g.name); n != 0 {
		g.t.Errorf("%s/%s: %d revisions", g.site, g.name, n)
	}
}
