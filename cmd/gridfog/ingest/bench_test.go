package ingest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
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
