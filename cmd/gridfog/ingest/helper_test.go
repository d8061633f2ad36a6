package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/backoff"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// postbox is a mailer that keeps what it is told.
type postbox struct {
	mu       sync.Mutex
	progress map[streamKey]progress
	dead     []deadLetter
	wants    int
	acked    int
}

func (p *postbox) settled(k streamKey, s progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.progress == nil {
		p.progress = map[streamKey]progress{}
	}
	p.progress[k] = s
}

func (p *postbox) refused(d deadLetter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = append(p.dead, d)
}

func (p *postbox) wantsCatalogue(string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wants++
}

// message makes a letter.
func (p *postbox) message(topic string, payload []byte) *letter {
	t, err := mqtt.ParseTopic(topic)
	l := &letter{topic: t, name: topic, payload: payload, at: time.Now(), from: p, ack: func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.acked++
	}}
	if err != nil {
		l.fault = refused(reasonTopic, "%v", err)
	}
	return l
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	if os.Getenv("INGEST_LOG") != "" {
		_, _ = os.Stderr.Write(p)
	}
	return len(p), nil
}

// database makes a migrated database and gives its URL.
func database(t testing.TB, s *pgtest.Server) string {
	t.Helper()
	url := s.Database()
	if err := Migrate(t.Context(), url, logger(t)); err != nil {
		t.Fatal(err)
	}
	return url
}

func newTestWriter(t testing.TB, url string) *writer {
	w := &writer{
		url: url, log: logger(t), counts: newCounters(), wait: time.Minute, inbox: newInbox(), limits: dayLimits(),
		retry: backoff.Backoff{Min: 10 * time.Millisecond, Max: 100 * time.Millisecond},
	}
	w.commitAs = w.commit
	t.Cleanup(func() { w.disconnect(context.Background()) })
	return w
}

// sender makes the batches of one gateway's lane.
type sender struct {
	site, gateway string
	epoch         uint64
	lane          batch.Lane
	catalogue     *batch.Catalogue
	rows          []batch.Row // row n has number n+1, holes have a zero meter
}

func (s *sender) header() batch.Header {
	return batch.Header{Site: s.site, Gateway: s.gateway, Epoch: s.epoch, Lane: s.lane}
}

func (s *sender) topic() string {
	return mqtt.ReadingsTopic(meter.ID(s.site), meter.ID(s.gateway), s.lane)
}

// batch encodes the numbers first to last.
func (s *sender) batch(t testing.TB, first, last int) []byte {
	t.Helper()
	span := batch.Span{Lane: s.lane, Last: uint64(last)}
	for n := first; n <= last; n++ {
		r := s.rows[n-1]
		if r.Meter == "" {
			if k := len(span.Holes) - 1; k >= 0 && span.Holes[k].Last == uint64(n-1) {
				span.Holes[k].Last++
				span.Holes[k].Count++
			} else {
				span.Holes = append(span.Holes, batch.Hole{First: uint64(n), Last: uint64(n), Reason: batch.Quota, Count: 1})
			}
			continue
		}
		r.Lane = s.lane
		span.Rows = append(span.Rows, r)
		if k := len(span.Runs) - 1; k >= 0 && span.Runs[k].First+span.Runs[k].Count == uint64(n) {
			span.Runs[k].Count++
		} else {
			span.Runs = append(span.Runs, batch.Run{First: uint64(n), Count: 1})
		}
	}
	for i := range s.rows {
		if s.rows[i].Meter != "" {
			s.catalogue.Add(s.rows[i : i+1])
		}
	}
	b, err := batch.Append(nil, s.header(), span, s.catalogue)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// catalog gives the message of the catalogue.
func (s *sender) catalog() (topic string, payload []byte) {
	payload, _ = s.catalogue.AppendBinary(nil)
	return mqtt.CatalogueTopic(meter.ID(s.site), meter.ID(s.gateway), s.catalogue.Hash()), payload
}

// begin is the time of reading 0 of profile.
var begin = time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)

// profile makes rounds of a load profile: meters times channels rows each.
func profile(meters, channels, rounds int) (rows []batch.Row) {
	for round := range rounds {
		for m := range meters {
			for c := range channels {
				rows = append(rows, batch.Row{
					Meter: batch.ID(fmt.Sprintf("m%d", m)), Serial: fmt.Sprintf("S%06d", m), Channel: batch.Channel(fmt.Sprintf("1-0:%d.8.0*255/3:2", c+1)),
					Stamp: batch.Stamp{Time: begin.Add(time.Duration(round) * 15 * time.Minute).UnixMilli(), Source: batch.FromMeter, Bound: 2000},
					Value: batch.Value{Kind: batch.Uint, Bits: uint64(1000*m + 10*round + c), Scale: -2}, Unit: 30, Period: 900,
				})
			}
		}
	}
	return rows
}

// scalar asks the database for one number.
func scalar(t testing.TB, c *pgx.Conn, query string, args ...any) (n int64) {
	t.Helper()
	if err := c.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}
