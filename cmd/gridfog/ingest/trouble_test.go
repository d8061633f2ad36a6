package ingest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"gridgate/cmd/gridfog/pgtest"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// rig is an ingester in this process, with a broker, a database and gateways.
type rig struct {
	t        *testing.T
	server   *pgtest.Server
	url      string
	broker   *mqtttest.Broker
	gateways []*testGateway
	counts   *lastCounts
	stop     func()

	mu   sync.Mutex
	acks map[string]uint64 // the highest that was confirmed, by topic
}

type lastCounts struct {
	mu sync.Mutex
	c  Counts
}

func (l *lastCounts) get() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.c
}

func newRig(t *testing.T, s *pgtest.Server) *rig {
	r := &rig{t: t, server: s, url: s.Database(), counts: &lastCounts{}, acks: map[string]uint64{}}
	r.broker = mqtttest.Mosquitto(t, mqtttest.Config{Persistent: true, Lines: []string{"max_queued_messages 0"}})
	spy, err := mqtt.Dial(t.Context(), mqtt.Options{Address: r.broker.Address, ClientID: "spy"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(spy.Close)
	if err := spy.Subscribe(t.Context(), mqtt.AckFilter("", ""), r.heard); err != nil {
		t.Fatal(err)
	}
	r.gateways = []*testGateway{startGateway(t, r.broker.Address, "north", "fog", true), startGateway(t, r.broker.Address, "south", "broker", false)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{
			Database: r.url, MQTT: mqtt.Options{Address: r.broker.Address}, Log: logger(t), History: true, AskEvery: time.Second, LookEvery: 100 * time.Millisecond,
			ReportEvery: 50 * time.Millisecond, Report: func(c Counts) {
				r.counts.mu.Lock()
				defer r.counts.mu.Unlock()
				r.counts.c = c
			},
		})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	// What a gateway with confirm: broker sends before anybody has subscribed is
	// missed when it sends more.
	proctest.Until(t, "the ingester has sessions at the broker", func() bool {
		return r.counts.get().Sites == len(r.gateways) && strings.Count(r.broker.Log(), "gridfog-ingest-") > len(r.gateways)
	})
	for range 10 {
		r.read(1)
		pause(t, 100*time.Millisecond)
	}
	return r
}

func (r *rig) heard(m mqtt.Message) {
	c, err := mqtt.ParseConfirmation(m.Payload)
	if err != nil {
		r.t.Errorf("%s: %v", m.Topic, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks[m.Topic] = max(r.acks[m.Topic], c.Sequence)
}

func (r *rig) read(rounds int) {
	for range rounds {
		for _, g := range r.gateways {
			g.read()
		}
	}
}

// settle waits until all is stored, and checks it.
func (r *rig) settle() {
	r.t.Helper()
	conn := r.server.Connect(r.url)
	for _, g := range r.gateways {
		proctest.Until(r.t, fmt.Sprintf("all of %s/%s is stored", g.site, g.name), func() bool { return g.delivered(conn) })
		g.check(conn)
	}
	r.confirmed(conn)
}

// confirmed checks that nothing was confirmed that is not stored.
func (r *rig) confirmed(conn *pgx.Conn) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.acks) == 0 {
		r.t.Error("nothing was confirmed at all")
	}
	for topic, n := range r.acks {
		parsed, err := mqtt.ParseTopic(topic)
		if err != nil {
			r.t.Fatal(err)
		}
		if rows := scalar(r.t, conn, "SELECT count(*) FROM readings r JOIN streams s ON s.id = r.stream WHERE s.gateway = $1 AND r.sequence <= $2", string(parsed.Gateway), int64(n)); rows != int64(n) {
			r.t.Errorf("%s: %d is confirmed, %d rows up to it are stored", topic, n, rows)
		}
	}
}

// TestPostgresGoes: the server is killed, stopped for a while, and comes back:
// nothing is confirmed that is not stored, and all is stored in the end.
func TestPostgresGoes(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	r := newRig(t, s)
	r.read(5)
	r.settle()
	for _, end := range []func(){s.Crash, s.Stop, s.Crash} {
		r.read(3)
		end()
		r.read(5)
		proctest.Until(t, "the ingester leaves its sites", func() bool { return r.counts.get().Sites == 0 })
		s.Start()
		r.confirmed(s.Connect(r.url))
		r.settle()
	}
	r.read(2)
	r.broker.Stop()
	r.read(2)
	r.broker.Start()
	r.settle()
}

// TestDeadlock: a transaction that the server ends because of a deadlock is done
// again.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, "deadlock_timeout=300ms")
	r := newRig(t, s)
	r.read(5)
	r.settle()
	for attempt := 0; r.counts.get().Retries == 0; attempt++ {
		if attempt > 20 {
			t.Fatal("no deadlock was to be had")
		}
		other := s.Connect(r.url)
		tx, err := other.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// The stream first, which the ingester waits for having nothing; so let it
		// take one stream and want the other.
		ids := func(gateway string) string {
			return fmt.Sprintf("SELECT FROM streams WHERE gateway = '%s' FOR UPDATE", gateway)
		}
		if _, err := tx.Exec(t.Context(), ids("broker")+"; LOCK TABLE readings IN SHARE MODE"); err != nil {
			t.Fatal(err)
		}
		r.read(1)
		proctest.Until(t, "the ingester waits", func() bool {
			return scalar(t, s.Connect(r.url), "SELECT count(*) FROM pg_locks WHERE NOT granted") > 0
		})
		_, _ = tx.Exec(t.Context(), ids("fog")) // one of the two is ended
		_ = tx.Rollback(t.Context())
	}
	r.settle()
}

// TestDiskFull: the file system of the readings is full; nothing is confirmed
// meanwhile, and it goes on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Fatal("a small file system is mounted as root")
	}
	dir, err := os.MkdirTemp("", "gridgate-small")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	small := filepath.Join(dir, "fs")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=24m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) }) // after the server has ended
	s := pgtest.Start(t)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the server has to get at it
		t.Fatal(err)
	}
	s.Own(small)
	s.Exec(s.URL(), fmt.Sprintf("CREATE TABLESPACE small LOCATION '%s'", small), "ALTER SYSTEM SET default_tablespace = 'small'", "SELECT pg_reload_conf()")
	r := newRig(t, s)
	r.read(5)
	r.settle()
	var full syscall.Statfs_t
	if err := syscall.Statfs(small, &full); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(small, "filler")
	if err := os.WriteFile(filler, make([]byte, int64(full.Bavail)*full.Bsize), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := func() int { return r.gateways[0].rows }
	before := rows()
	for tries := 0; r.counts.get().Retries == 0; tries++ { // what is allotted already fills first
		if tries > 600 {
			t.Fatal("the disk does not get full")
		}
		r.read(5)
		pause(t, 100*time.Millisecond)
	}
	r.read(5)
	conn := s.Connect(r.url)
	stored := scalar(t, conn, "SELECT count(*) FROM readings")
	if stored >= int64(2*rows()) {
		t.Errorf("%d rows are stored of %d, on a full disk; before it was full %d", stored, 2*rows(), before)
	}
	if acked := r.gateways[0].store.Acked(meter.Interval); acked >= uint64(rows()) {
		t.Errorf("all %d rows are confirmed on a full disk", acked)
	}
	r.confirmed(conn)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.settle()
}

func pause(t *testing.T, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
