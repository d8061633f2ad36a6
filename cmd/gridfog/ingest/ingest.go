// Package ingest stores what gateways send in PostgreSQL, every reading once.
//
//	broker ──QoS 1──> site ──> inbox ──> writer: decode, one transaction ──> PostgreSQL
//	   ^               │ a connection      rows, how far each stream is,       │
//	   │               │ a site            holes, catalogues, dead letters     │
//	   └── PUBACK, down/ack, down/resend, down/catalog, dead letters <── after the commit
//
// What makes it once: each stream (site, gateway, epoch, lane) has a row that says
// which of its numbers are stored, locked and written in the transaction that
// stores the readings. A reading that comes under another number, as after the
// gateway's store began anew, is known by its meter, channel, time and occurrence.
//
// Nothing is acknowledged to the broker or confirmed to a gateway before it is
// committed. So a member that dies loses nothing: what it had comes again, from
// the broker's session, which belongs to the site and not to the member, from a
// gateway that nobody confirmed to, or because its numbers are missed.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"gridgate/agent/batch"
	"gridgate/internal/backoff"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// DefaultDeadLetters is the topic below which refused messages are published:
// DeadLetters/SITE/GATEWAY.
const DefaultDeadLetters = "gridfog/1/dead"

// Config is what an ingester works with. MQTT.Address and Log are needed.
type Config struct {
	Database string       // of libpq's kinds; empty is PGHOST and its like
	MQTT     mqtt.Options // how to connect; ClientID, Persistent, OwnAcks and Handler are set here
	Sites    []string     // that this member may have; none is all
	Writers  int          // transactions at a time, 0 is 1
	Log      *slog.Logger
	// History asks gateways for what was confirmed before the database knew them.
	History     bool
	DeadLetters string // topic; empty is DefaultDeadLetters
	// CatalogueWait is how long a batch waits for its catalogue.
	CatalogueWait time.Duration
	// AskAfter is how long numbers are missing before they are asked for, AskEvery
	// the first pause until they are asked for again, which doubles, and Asks how
	// often that is done before they are given up.
	AskAfter, AskEvery time.Duration
	Asks               int
	// LookEvery is how often a member looks at the group.
	LookEvery time.Duration
	// ListenEvery is how often it asks the broker what sites there are.
	ListenEvery time.Duration
	// Report is called every ReportEvery, and at the end; nil is never.
	Report      func(Counts)
	ReportEvery time.Duration
}

func (c *Config) setDefaults() {
	def(&c.Writers, 1)
	def(&c.DeadLetters, DefaultDeadLetters)
	def(&c.CatalogueWait, DefaultCatalogueWait)
	def(&c.AskAfter, DefaultAskAfter)
	def(&c.AskEvery, DefaultAskEvery)
	def(&c.Asks, DefaultAsks)
	def(&c.LookEvery, 2*time.Second)
	def(&c.ListenEvery, 30*time.Second)
	def(&c.ReportEvery, time.Minute)
	// Whatever the broker lets through comes in: a message that ends the
	// connection would come again with the next one.
	def(&c.MQTT.MaxInbound, 256<<20)
	def(&c.MQTT.KeepAlive, time.Minute)
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func laneOf(n int16) batch.Lane { return batch.Lane(n) }

// Migrate brings the database's schema to what this program knows.
func Migrate(ctx context.Context, database string, log *slog.Logger) error {
	conn, err := connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it was only read from
	return migrate(ctx, conn, log)
}

// member is one ingester of a group.
type member struct {
	cfg          Config
	counts       *counters
	writers      []*writer
	installation string

	mu    sync.Mutex
	have  map[string]*holding
	heard map[string]bool // sites; true once the database knows them
}

// Run takes part in storing until ctx is cancelled. It waits for a database and
// a broker that are away; its errors are of what waiting does not mend.
func Run(ctx context.Context, c Config) error {
	c.setDefaults()
	m := &member{cfg: c, counts: newCounters(), have: map[string]*holding{}, heard: map[string]bool{}}
	for _, s := range c.Sites {
		m.heard[s] = false
	}
	if err := m.begin(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	storing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var tasks, writing sync.WaitGroup
	for range c.Writers {
		w := &writer{
			url: c.Database, log: c.Log, counts: m.counts, wait: c.CatalogueWait, inbox: newInbox(), limits: dayLimits(),
			retry: backoff.Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second},
		}
		w.commitAs = w.commit
		m.writers = append(m.writers, w)
		writing.Go(func() { w.run(storing) })
	}
	tasks.Go(func() { m.listen(ctx) })
	tasks.Go(func() { m.report(ctx) })
	err := m.hold(ctx)
	tasks.Wait()
	stop()
	writing.Wait()
	if c.Report != nil {
		c.Report(m.snapshot())
	}
	return err
}

// begin waits for the database, and migrates it.
func (m *member) begin(ctx context.Context) error {
	pause := backoff.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	said := ""
	for {
		err := m.prepare(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was stopped
		}
		if err == nil {
			return nil
		}
		var refused *pgconn.PgError
		var config *pgconn.ParseConfigError
		if errors.Is(err, ErrNewerSchema) || errors.As(err, &config) || errors.As(err, &refused) && refused.Code[:2] != "57" && refused.Code[:2] != "53" {
			return err
		}
		if err.Error() != said {
			said = err.Error()
			m.cfg.Log.Warn("no database; trying again", "error", err)
		}
		_ = pause.Wait(ctx) // the loop looks at ctx
	}
}

func (m *member) prepare(ctx context.Context) error {
	conn, err := connect(ctx, m.cfg.Database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is under way
	if err := migrate(ctx, conn, m.cfg.Log); err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, "SELECT id FROM installation").Scan(&m.installation); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return nil
}

// hold takes part in the group until ctx is cancelled. When the connection that
// holds the locks is lost, the sites are left, and taken anew.
func (m *member) hold(ctx context.Context) error {
	pause := backoff.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	said := ""
	for ctx.Err() == nil {
		err := m.join(ctx, func() {
			pause.Reset()
			said = ""
		})
		if errors.Is(err, ErrNewerSchema) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			if err.Error() != said {
				said = err.Error()
				m.cfg.Log.Warn("the group's database is lost; sites are left", "error", err)
			}
			_ = pause.Wait(ctx) // the loop looks at ctx
		}
	}
	return nil
}

// join is one connection to the group.
func (m *member) join(ctx context.Context, joined func()) error {
	c, err := joinGroup(ctx, m.cfg.Database, m.cfg.Sites)
	if err != nil {
		return err
	}
	defer func() {
		m.leaveAll()
		_ = c.conn.Close(context.WithoutCancel(ctx)) // frees the locks
	}()
	m.mu.Lock()
	for s := range m.heard { // the database may be another now
		m.heard[s] = false
	}
	m.mu.Unlock()
	tick := time.NewTicker(m.cfg.LookEvery)
	defer tick.Stop()
	for {
		if err := m.lookAround(ctx, c); err != nil {
			return err
		}
		joined()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// lookAround is one look at the group, with what follows from it.
func (m *member) lookAround(ctx context.Context, c *claims) error {
	within, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := m.know(within, c); err != nil {
		return err
	}
	l, err := c.balance(within, m.have, func(name string) error { return m.start(ctx, c, name) }, m.leave)
	if err != nil {
		return err
	}
	if err := m.zones(within, c); err != nil {
		return err
	}
	m.counts.add(func(k *Counts) { k.Members, k.SitesKnown = len(l.members), len(l.sites) })
	return nil
}

func (m *member) know(ctx context.Context, c *claims) error {
	m.mu.Lock()
	var fresh []string
	for s, known := range m.heard {
		if !known {
			fresh = append(fresh, s)
		}
	}
	m.mu.Unlock()
	if err := c.know(ctx, fresh); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range fresh {
		m.heard[s] = true
	}
	return nil
}

// start begins a site that was claimed.
func (m *member) start(ctx context.Context, c *claims, name string) error {
	follows, err := c.follows(ctx, name, m.cfg.AskAfter)
	if err != nil {
		return err
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	in := m.writers[int(hash.Sum32()%uint32(len(m.writers)))].inbox
	h := &holding{site: newSite(name, m.installation, &m.cfg, in, m.counts, follows)}
	var running context.Context
	running, h.cancel = context.WithCancel(ctx)
	h.done.Go(func() { _ = h.run(running) })
	m.mu.Lock()
	m.have[name] = h
	m.mu.Unlock()
	m.cfg.Log.Info("site taken", "site", name, "sites", len(m.have))
	return nil
}

func (m *member) leave(name string) {
	m.mu.Lock()
	h := m.have[name]
	delete(m.have, name)
	m.mu.Unlock()
	if h != nil {
		h.stop()
		m.cfg.Log.Info("site left", "site", name, "sites", len(m.have))
	}
}

func (m *member) leaveAll() {
	m.mu.Lock()
	all := m.have
	m.have = map[string]*holding{}
	m.mu.Unlock()
	for _, h := range all {
		h.cancel()
	}
	for _, h := range all {
		h.stop()
	}
}

// listen hears of sites: every gateway's state is retained.
func (m *member) listen(ctx context.Context) {
	pause := backoff.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	said := ""
	for ctx.Err() == nil {
		err := m.listenOnce(ctx, func() {
			pause.Reset()
			said = ""
		})
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			m.cfg.Log.Warn("no connection to the broker; trying again", "error", err)
		}
		if ctx.Err() == nil {
			_ = pause.Wait(ctx) // the loop looks at ctx
		}
	}
}

func (m *member) listenOnce(ctx context.Context, connected func()) error {
	o := m.cfg.MQTT
	o.ClientID = fmt.Sprintf("gridfog-ingest-%s--%08x", m.installation, rand.Uint32())
	conn, err := mqtt.Dial(ctx, o)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Again and again: each time the broker gives what it retains. A cluster's node
	// may not have had it yet when it was asked the first time.
	tick := time.NewTicker(m.cfg.ListenEvery)
	defer tick.Stop()
	for {
		if err := conn.Subscribe(ctx, mqtt.StateTopic("+", "+"), m.hear); err != nil {
			return err
		}
		connected()
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return conn.Err()
		case <-tick.C:
		}
	}
}

func (m *member) hear(message mqtt.Message) {
	t, err := mqtt.ParseTopic(message.Topic)
	if err != nil || !m.allowed(t.Site) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.heard[string(t.Site)]; !ok {
		m.heard[string(t.Site)] = false
	}
}

func (m *member) allowed(s meter.ID) bool {
	for _, o := range m.cfg.Sites {
		if o == string(s) {
			return true
		}
	}
	return len(m.cfg.Sites) == 0
}

// report calls Report in its time.
func (m *member) report(ctx context.Context) {
	if m.cfg.Report == nil {
		return
	}
	tick := time.NewTicker(m.cfg.ReportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.cfg.Report(m.snapshot())
		}
	}
}

func (m *member) snapshot() Counts {
	s := m.counts.snapshot(true)
	for _, w := range m.writers {
		n, _ := w.inbox.waits()
		s.Waiting += n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Sites = len(m.have)
	for _, h := range m.have {
		h.mu.Lock()
		for _, f := range h.follows {
			if n := f.missing.count(); n > 0 {
				s.Missing += n
				s.Gaps++
			}
		}
		h.mu.Unlock()
	}
	return s
}
