// Package uplink carries rows from the store to the broker: MQTT with QoS 1,
// the most important lane first, strictly in order within a lane.
//
//	store ── Peek ──> cut ──> ready ──> under way ── PUBACK ──> Ack ──> store
//	                            ^           │
//	                            └───────────┘ the connection was lost
//
// A row leaves the store's queue after the PUBACK of the message that holds
// it, and of all before it in its lane; or, with Config.FogConfirms, when the
// fog says that it has stored it. What was under way when a connection ended is
// sent again over the next one, with the same sequence numbers; so the fog may
// get a row twice, under one number, and never misses one.
//
// The fog may ask for numbers again, which come out of the store as long as it
// has them, at half the link's rate at most.
//
// How much is under way, and how long a message may be, follows the measured
// link (see pace), so that an alarm finds a short queue before it.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"gridgate/agent/batch"
	"gridgate/internal/backoff"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// Defaults of Config.
const (
	DefaultMaxMessage = 16 << 10
	DefaultStopGrace  = 2 * time.Second
	DefaultMinPause   = time.Second
	DefaultMaxPause   = 2 * time.Minute
	// DefaultFogPatience is how long an uplink waits for the fog before it
	// doubts that the fog gets what it sends.
	DefaultFogPatience = 2 * time.Minute
	// DefaultStateEvery is how often what changes all the time is told.
	DefaultStateEvery = time.Hour
)

// maxInbound is the longest message that is taken: a document with its topic.
const maxInbound = 1 << 20

// store is what the uplink needs of the buffer.
type store interface {
	Epoch() uint64
	Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error)
	Ack(lane meter.Lane, through uint64) error
	Acked(lane meter.Lane) uint64
	Last(lane meter.Lane) uint64
	Catalogue() ([]byte, error)
	SaveCatalogue(ctx context.Context, b []byte) error
}

// Config is what an Uplink works with. Site, Gateway, MQTT.Address, Store and
// Log are needed.
type Config struct {
	Site    meter.ID
	Gateway meter.ID
	Version string // of the program, for the state topic
	// MQTT says how to connect. Will is set here, and ClientID when empty.
	MQTT mqtt.Options
	// Paths are the ways to the fog, the preferred one first; none is
	// MQTT.Address and MQTT.Interface alone. One that works is kept, and left
	// for one before it after ReturnAfter or so.
	Paths       []Path
	ReturnAfter time.Duration
	Store       store
	// Wake tells that rows were stored. What was there before is found anyway.
	Wake       <-chan struct{}
	MaxMessage int           // longest batch in bytes; 0 is DefaultMaxMessage
	KeepAlive  time.Duration // the first, 0 is DefaultKeepAlive; it adapts itself
	StopGrace  time.Duration // how long a stop waits for PUBACKs
	MinPause   time.Duration // between attempts to connect; jittered, doubling
	MaxPause   time.Duration
	// FogConfirms keeps rows in the queue until the fog says that it has them.
	// FogPatience is how long that may take before a row is sent again.
	FogConfirms bool
	// Delta writes batches as deltas against what the fog has confirmed, but for
	// alarms; it needs FogConfirms and a fog that can read them (batch.Decoder).
	Delta bool
	// Budget bounds what is spent, Ledger keeps it over restarts and may be nil.
	Budget Budget
	Ledger Ledger
	// Sure says whether the clock is right; nil: it always is.
	Sure func() bool
	// Schedules say when each lane is sent, in TimeZone; nil is UTC.
	Schedules [meter.Instant + 1]Schedule
	TimeZone  *time.Location
	// StartJitter is what the first connection waits a random part of.
	StartJitter time.Duration
	FogPatience time.Duration
	// Orders takes signed documents that come down, to this gateway or to a
	// group of Groups; it must not block. nil: they are not listened to.
	Orders func(Order)
	Groups []meter.ID
	// Outbox has what is to be said beside readings; may be nil.
	Outbox *Outbox
	// Parts is asked for parts of firmware; may be nil.
	Parts *Parts
	// State, when not nil, gives more members of the state, as JSON without the
	// braces around them. They are told with each connection and at its end, a
	// while into it (a twelfth of StateEvery), then every StateEvery, and after
	// Restate. It is called from several goroutines.
	State      func() []byte
	StateEvery time.Duration
	// Pulse, when not nil, is called whenever the uplink gets on, connected or not:
	// every few minutes at least.
	Pulse func()
	Log   *slog.Logger
}

// Stats counts since the start.
type Stats struct {
	Path       Path   // in use, or tried next
	Connected  bool   // a PUBACK has come over the present connection
	Batches    uint64 // batches sent, repetitions included
	Rows       uint64 // rows acknowledged by the broker
	Bytes      uint64 // bytes published, with topics and MQTT's headers
	Lanes      [meter.Instant + 1]LaneStats
	Attempts   uint64 // to connect
	Reconnects uint64 // connections after the first
	Resent     uint64 // rows sent again because the fog asked, or did not confirm
	DayBytes   int64  // spent today and this month, with a Budget
	MonthBytes int64
	Withheld   bool   // the budget is spent: interval and instant wait
	Ignored    uint64 // messages of the fog that were foreign, impossible or unreadable
	// Unconfirmed are the lanes of which the fog confirms nothing, though the
	// broker has acknowledged rows for longer than FogPatience.
	Unconfirmed []meter.Lane
	// Err is why there is no connection, or why a lane cannot be sent over it;
	// nil when all is well.
	Err    error
	Rest   time.Duration // that a connection is left before it is proven
	Window int           // bytes that may be under way
	Rate   float64       // of the link as measured, bytes a second; 0 is not known
	Puback time.Duration // from publishing to PUBACK, smoothed
}

// LaneStats counts what was published of a lane, repetitions included.
type LaneStats struct{ Batches, Bytes uint64 }

// Uplink is the task. Make one with New; Run may be called once. Stats may be
// called from everywhere.
type Uplink struct {
	cfg       Config
	lanes     []*lane
	catalogue *batch.Catalogue
	saved     batch.Hash // of the catalogue as the store has it
	earlier   map[batch.Hash]*batch.Catalogue
	published []batch.Hash // what earlier has, the oldest first
	resends   []*resend    // what the fog asked for, in the order of service
	backoff   backoff.Backoff
	connects  int

	rest rest

	traffic  *mqtt.Traffic
	spending spending
	withheld bool
	spread   float64 // this gateway's place among others, 0 to 1
	owed     int     // bytes of alarms sent while bills waited

	path        int           // of Paths: in use, or tried next
	last        int           // of Paths: the last that had a connection
	tried       int           // paths that failed since one worked
	found       *link         // to a better path, dialed already
	returnAfter time.Duration // grown, while better paths turn out not to last

	members   []byte      // of State, as told last
	retell    time.Time   // when they are to be told anew
	connected time.Time   // when the present connection began
	restated  atomic.Bool // they are to be told anew

	long map[string]bool // topics whose retained order was too long

	kind error // of the error that was logged last, nil while up
	deaf error // why the fog cannot be heard

	mu    sync.Mutex
	stats Stats
}

// New gives an uplink that has done nothing yet.
func New(c Config) *Uplink {
	def(&c.MaxMessage, DefaultMaxMessage)
	def(&c.StopGrace, DefaultStopGrace)
	def(&c.MinPause, DefaultMinPause)
	def(&c.MaxPause, DefaultMaxPause)
	def(&c.FogPatience, DefaultFogPatience)
	def(&c.ReturnAfter, DefaultReturnAfter)
	def(&c.StateEvery, DefaultStateEvery)
	if len(c.Paths) == 0 {
		c.Paths = []Path{{c.MQTT.Address, c.MQTT.Interface}}
	}
	def(&c.KeepAlive, DefaultKeepAlive)
	def(&c.MQTT.KeepAlive, max(MostKeepAlive, c.KeepAlive))
	def(&c.MQTT.SendBuffer, sendBuffer)
	def(&c.MQTT.ReceiveBuffer, sendBuffer)
	def(&c.MQTT.MaxInbound, maxInbound)
	if c.TimeZone == nil {
		c.TimeZone = time.UTC
	}
	c.MQTT.Traffic = new(mqtt.Traffic)
	c.MQTT.OwnPings = true
	c.MQTT.CutLong = true    // an order that is too long is refused, and what follows it heard
	c.MQTT.Persistent = true // what the fog asks for survives while we are away
	def(&c.MQTT.ClientID, mqtt.ClientID(c.Site, c.Gateway))
	u := &Uplink{cfg: c, earlier: map[batch.Hash]*batch.Catalogue{}, long: map[string]bool{}, traffic: c.MQTT.Traffic, spread: rand.Float64(), rest: rest{first: c.KeepAlive}, backoff: backoff.Backoff{Min: c.MinPause, Max: c.MaxPause}}
	for _, id := range meter.Lanes() {
		keyEvery := 0
		if c.Delta && c.FogConfirms && id != meter.Alarm { // an alarm is read whatever the fog has lost
			keyEvery = batch.DefaultKeyEvery
		}
		u.lanes = append(u.lanes, &lane{id: id, fog: patience{base: c.FogPatience}, encoder: batch.NewEncoder(keyEvery)})
	}
	return u
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Stats gives the counts.
func (u *Uplink) Stats() Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stats
}

func (u *Uplink) count(f func(*Stats)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f(&u.stats)
}

// Run connects, sends, and connects again, until ctx is cancelled. Then it
// sends no further row, waits StopGrace at most for what is under way, says
// offline on the state topic, and returns nil.
func (u *Uplink) Run(ctx context.Context) error {
	u.load()
	u.loadSpending(time.Now())
	u.settle(time.Now())
	start := time.NewTimer(time.Duration(u.spread * float64(u.cfg.StartJitter)))
	defer start.Stop()
	for waiting := true; waiting; {
		u.pulse()
		turn := time.NewTimer(pulseEvery)
		select {
		case <-start.C:
			waiting = false
		case <-turn.C:
		case <-ctx.Done():
			waiting = false
		}
		turn.Stop()
	}
	for ctx.Err() == nil {
		u.pulse()
		u.count(func(s *Stats) { s.Path = u.cfg.Paths[u.path] })
		worked, err := u.once(ctx)
		if errors.Is(err, errMoved) || ctx.Err() != nil {
			continue
		}
		u.down(err)
		u.settle(time.Now())
		if u.failed(worked) {
			_ = u.backoff.Wait(ctx) // the loop sees its only error
		}
	}
	if u.found != nil {
		u.found.conn.Close()
	}
	u.settle(time.Now())
	u.saveSpending(time.Now())
	u.count(func(s *Stats) { s.Connected = false })
	return nil
}

// pulseEvery is how often an idle uplink tells that it gets on.
const pulseEvery = time.Minute

func (u *Uplink) pulse() {
	if u.cfg.Pulse != nil {
		u.cfg.Pulse()
	}
}

// load takes the catalogue from the store, and the place in each lane.
func (u *Uplink) load() {
	u.catalogue = batch.NewCatalogue()
	stored, err := u.cfg.Store.Catalogue()
	if err == nil && len(stored) > 0 {
		var c *batch.Catalogue
		if c, err = batch.ParseCatalogue(stored); err == nil {
			u.catalogue, u.saved = c, c.Hash()
		}
	}
	if err != nil {
		// A new one has another hash, so nothing is read with the wrong one.
		u.cfg.Log.Warn("stored catalogue is unreadable, beginning a new one", "error", err)
	}
	u.lanes[meter.Alarm].own = batch.NewCatalogue()
	for _, l := range u.lanes {
		l.taken = u.cfg.Store.Acked(l.id)
		l.published = l.taken
		l.company.draining = true       // what is there has waited already
		l.sent = u.cfg.Store.Last(l.id) // the process before may have sent all of it
	}
}

// once is one connection, from dialing to its end; worked says that a PUBACK
// came over it.
func (u *Uplink) once(ctx context.Context) (worked bool, err error) {
	l := u.found
	if u.found = nil; l == nil {
		if l, err = u.dial(ctx, u.path); err != nil {
			return false, err
		}
	}
	if l.path != u.last {
		u.elsewhere()
	}
	u.path, u.last = l.path, l.path
	u.count(func(s *Stats) { s.Path = u.cfg.Paths[u.path] })
	u.connects++
	if u.connects > 1 {
		u.count(func(s *Stats) { s.Reconnects++ })
	}
	began := time.Now()
	s := &session{u: u, conn: l.conn, mail: l.mail, announced: map[batch.Hash]bool{}}
	err = s.run(ctx)
	switch {
	case l.path > 0: // on a better one it did not last
	case time.Since(began) >= steady:
		u.returnAfter = 0
	default:
		u.returnAfter = min(2*max(u.returnAfter, u.cfg.ReturnAfter), maxReturn)
	}
	return s.up, err
}

// elsewhere begins anew with batches that stand alone: there may be another fog
// behind another broker.
func (u *Uplink) elsewhere() {
	for _, l := range u.lanes {
		if l.encoder.Since() > 0 {
			l.encoder.Restart()
			l.ready, l.taken, l.empty = nil, l.published, false
		}
	}
}

// up tells that the connection works: a PUBACK has come.
func (u *Uplink) up() {
	u.rest.back(time.Now())
	u.backoff.Reset()
	u.kind = nil
	u.count(func(s *Stats) { s.Connected = true })
	u.troubles()
	u.cfg.Log.Info("uplink up", "broker", u.cfg.Paths[u.path].String())
}

// down tells that there is no connection: once, and again when the kind of
// trouble is another one.
func (u *Uplink) down(err error) {
	u.count(func(s *Stats) { s.Connected, s.Err = false, err })
	kind := errStore
	for _, k := range []error{mqtt.ErrUnreachable, mqtt.ErrTLS, mqtt.ErrRefused, mqtt.ErrLost} {
		if errors.Is(err, k) {
			kind = k
			break
		}
	}
	if !errors.Is(u.kind, kind) {
		u.cfg.Log.Warn("uplink down", "error", err)
		u.kind = kind
	}
}

// faults notes that a lane can no longer be read, or can again.
func (u *Uplink) faults(l *lane, err error) {
	l.fault = err
	u.troubles()
}

// troubles tells what is wrong with lanes while the connection stands.
func (u *Uplink) troubles() {
	all := []error{u.deaf}
	var unconfirmed []meter.Lane
	for _, l := range u.lanes {
		all = append(all, l.fault)
		if l.fog.doubt {
			unconfirmed = append(unconfirmed, l.id)
			all = append(all, fmt.Errorf("lane %s: the fog confirms nothing after number %d: does it run, and may this gateway publish to %s?",
				l.id, u.cfg.Store.Acked(l.id), mqtt.ReadingsTopic(u.cfg.Site, u.cfg.Gateway, l.id)))
		}
	}
	u.count(func(s *Stats) { s.Err, s.Unconfirmed = errors.Join(all...), unconfirmed })
}

// errStore stands for all trouble on this side of the connection.
var errStore = errors.New("store")

// save stores the catalogue if the store has another one. It comes before any
// use, so that after a restart numbers go on to mean what they meant.
func (u *Uplink) save(ctx context.Context) error {
	hash := u.catalogue.Hash()
	if hash == u.saved {
		return nil
	}
	b, _ := u.catalogue.AppendBinary(nil) // never fails
	if err := u.cfg.Store.SaveCatalogue(ctx, b); err != nil {
		return err
	}
	u.saved = hash
	return nil
}

// online is the state while connected; the fields are part of the contract.
func (u *Uplink) online() []byte {
	b := append([]byte(nil), `{"state":"online","version":`...)
	b = meter.AppendJSONString(b, u.cfg.Version)
	b = fmt.Appendf(b, `,"epoch":"%016x"`, u.cfg.Store.Epoch())
	if u.cfg.State != nil {
		b = fmt.Appendf(b, `,"connected":%q`, u.connected.UTC().Format(time.RFC3339))
	}
	b = append(b, u.members...)
	if u.cfg.Store.Epoch() == 0 { // there is none: what is read waits in memory
		b = append(b, `,"buffer":"closed"`...)
	}
	b = u.lanesWith(b, "unconfirmed", func(l *lane) bool { return l.fog.doubt })
	b = u.lanesWith(b, "withheld", func(l *lane) bool { return u.waits(l.id) })
	return append(b, '}')
}

// lanesWith appends the names of the lanes of which is says so, if any.
func (u *Uplink) lanesWith(b []byte, name string, is func(*lane) bool) []byte {
	sep := fmt.Sprintf(`,"%s":["`, name)
	for _, l := range u.lanes {
		if is(l) {
			b = append(append(append(b, sep...), l.id.String()...), '"')
			sep = `,"`
		}
	}
	if sep == `,"` {
		b = append(b, ']')
	}
	return b
}

// offline is the state without a connection, as it is foreseen or just becoming.
func (u *Uplink) offline(reason string) []byte {
	b := meter.AppendJSONString([]byte(`{"state":"offline","reason":`), reason)
	if u.cfg.State != nil {
		b = append(meter.AppendJSONString(append(b, `,"version":`...), u.cfg.Version), u.more()...)
	}
	return append(b, '}')
}

// more asks for the further members of the state.
func (u *Uplink) more() []byte {
	if u.cfg.State == nil {
		return nil
	}
	return append([]byte{','}, u.cfg.State()...)
}

// Restate has the further members of the state told soon, because they are
// others. It may be called from everywhere.
func (u *Uplink) Restate() { u.restated.Store(true) }
