package ingest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// BenchmarkStore stores a site's rounds, 1,000 devices of 8 channels in batches
// of 2,000 rows, without a broker: decoding, COPY and commit by one writer, with
// the disk flushed at each commit.
func BenchmarkStore(b *testing.B) {
	s := pgtest.Start(b, "fsync=on", "max_wal_size=8GB", "shared_buffers=1GB")
	for _, kind := range []string{"new", "again", "other epoch"} {
		b.Run(kind, func(b *testing.B) {
			w, box := newTestWriter(b, database(b, s)), &postbox{}
			const rounds = 40
			from := sender{site: "s", gateway: "g", epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: profile(1000, 8, rounds)}
			var letters []*letter
			pack := func() {
				letters = nil
				for n := 1; n <= len(from.rows); n += 2000 {
					letters = append(letters, box.message(from.topic(), from.batch(b, n, n+1999)))
				}
			}
			pack()
			topic, payload := from.catalog()
			send := func(letters []*letter) {
				for len(letters) > 0 {
					n := min(10, len(letters))
					if err := w.attempt(b.Context(), letters[:n]); err != nil {
						b.Fatal(err)
					}
					letters = letters[n:]
				}
			}
			send([]*letter{box.message(topic, payload)})
			if kind != "new" {
				send(letters)
			}
			if kind == "other epoch" {
				from.epoch = 2
				pack()
			}
			postgres := processorTime(b, int(w.conn.PgConn().PID()))
			b.ResetTimer()
			values := 0
			for range b.N {
				send(letters)
				values += len(from.rows)
				if kind != "again" {
					b.StopTimer()
					from.epoch++
					for i := range from.rows {
						if kind == "other epoch" {
							break
						}
						from.rows[i].Stamp.Time += 3600_000 * 10
					}
					pack()
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(values)/b.Elapsed().Seconds(), "values/s")
			b.ReportMetric((processorTime(b, int(w.conn.PgConn().PID()))-postgres)*1e6/float64(values), "postgres-µs/value")
			conn := s.Connect(w.url)
			size := scalar(b, conn, "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'readings'::regclass")
			b.ReportMetric(float64(size)/float64(scalar(b, conn, "SELECT count(*) FROM readings")), "bytes/value")
			if len(box.dead) > 0 {
				b.Fatal(fmt.Sprint(box.dead[0].refusal))
			}
		})
	}
}

// processorTime gives what a process has used, in seconds.
func processorTime(b *testing.B, pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, uerr := strconv.ParseFloat(fields[11], 64)
	system, serr := strconv.ParseFloat(fields[12], 64)
	if uerr != nil || serr != nil {
		b.Fatal(uerr, serr)
	}
	return (user + system) / 100
}

// BenchmarkBroker is a backlog of a site from mosquitto into PostgreSQL by one
// member: ten gateways of 100 devices and 8 channels, in batches of 800 rows.
func BenchmarkBroker(b *testing.B) {
	s := pgtest.Start(b, "fsync=on", "max_wal_size=8GB", "shared_buffers=1GB")
	url := database(b, s)
	s.Exec(url, "INSERT INTO sites (name) VALUES ('s')")
	broker := mqtttest.Mosquitto(b, mqtttest.Config{Lines: []string{"max_queued_messages 0"}})
	var gateways []*sender
	for g := range 10 {
		rows := profile(100, 8, 50)
		for i := range rows {
			rows[i].Serial = fmt.Sprint(g, rows[i].Serial)
		}
		gateways = append(gateways, &sender{site: "s", gateway: fmt.Sprint("g", g), epoch: 1, lane: batch.Interval, catalogue: batch.NewCatalogue(), rows: rows})
	}
	conn, err := mqtt.Dial(b.Context(), mqtt.Options{Address: broker.Address, ClientID: "gateways"})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	for _, g := range gateways {
		_ = g.batch(b, 1, 1)
		topic, payload := g.catalog()
		if _, err := conn.Publish(b.Context(), topic, true, payload); err != nil {
			b.Fatal(err)
		}
	}
	var stored, sites atomic.Uint64
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Database: url, MQTT: mqtt.Options{Address: broker.Address}, Log: logger(b), ReportEvery: 10 * time.Millisecond, Report: func(c Counts) {
			stored.Store(c.Rows)
			sites.Store(uint64(c.Sites))
		}})
	}()
	proctest.Until(b, "the member holds the site", func() bool {
		return sites.Load() == 1 && strings.Count(broker.Log(), "gridfog-ingest-") >= 2
	})
	b.ResetTimer()
	total := uint64(0)
	for range b.N {
		b.StopTimer()
		var payloads [][2]string
		for n := 1; n <= len(gateways[0].rows); n += 800 {
			for _, g := range gateways {
				payloads = append(payloads, [2]string{g.topic(), string(g.batch(b, n, n+799))})
			}
		}
		b.StartTimer()
		for _, p := range payloads {
			if _, err := conn.Publish(b.Context(), p[0], false, []byte(p[1])); err != nil {
				b.Fatal(err)
			}
		}
		total += uint64(len(gateways) * len(gateways[0].rows))
		proctest.Until(b, "all is stored", func() bool { return stored.Load() >= total })
		b.StopTimer()
		for _, g := range gateways {
			g.epoch++
			for i := range g.rows {
				g.rows[i].Stamp.Time += 3600_000 * 13
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "values/s")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
