// Package agent is the conductor: the only importer of every stage. It opens
// the stores, starts a poller for each line, the intake, the uplink and the
// control socket, and stops them in the order that loses nothing:
//
//	pollers ──> intake ──> buffer ──> uplink ──> broker
//	   1           2          4          3
//
// Start reading at New and Run.
package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"gridgate/agent/bundle"
	"gridgate/agent/command"
	"gridgate/agent/intake"
	"gridgate/agent/status"
	"gridgate/agent/update"
	"gridgate/agent/uplink"
	"gridgate/agent/validate"
	"gridgate/agent/vault"
	"gridgate/buffer/state"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/sys"
)

// gather is how long an alarm waits for others: of 500 meters that a feeder
// leaves behind, each commit takes what came since the one before.
const gather = 200 * time.Millisecond

// Options are what an agent gets from its process.
type Options struct {
	Version string
	Log     *slog.Logger
	Getenv  func(string) string // resolves env: secrets
	// Recent keeps the last log lines for a support bundle; nil: none are kept.
	Recent *bundle.Ring
	// StoreChecker is the command line of a process that calls
	// buffer.CheckChild; none for no such check. See buffer.Options.
	StoreChecker []string
	// ConfigPath is the file that the configuration was read from. What is
	// pushed lies on it; without it nothing can be.
	ConfigPath string
	// Slots are where firmware runs from; nil: those of the environment, if any.
	Slots update.Slots
	// Level is that of Log, where a command may set it; may be nil.
	Level *slog.LevelVar
}

// Agent is a running gateway. Make one with New; Run does the work, and Apply
// changes the configuration meanwhile.
type Agent struct {
	opts      Options
	log       *slog.Logger
	started   time.Time
	store     *readings
	state     *state.State
	intake    *intake.Intake
	control   *status.Control
	orders    *orders
	vault     *vault.Vault
	commands  *commands
	updates   *updates
	keys      command.KeyStore // where the keys of meters are; nil: nowhere
	tunnels   tunnels
	changing  changing
	used      bool // there was a state before this start, or should have been
	outputs   *outputs
	clock     atomic.Pointer[runningClock]
	committed chan struct{}
	failed    chan error // holds the first fatal error
	limits    atomic.Pointer[map[meter.ID]validate.Limits]
	runs      atomic.Pointer[configs.Config] // cfg, for who must not wait for mu
	gate      chan struct{}                  // a place for each visit that is not on a serial port
	reached   reach                          // when the fog was, last
	mending   mending
	modem     atomic.Pointer[runningModem]
	sends     atomic.Pointer[uplink.Uplink] // that of uplink, for who must not wait for mu
	beats     beats
	live      atomic.Pointer[live] // what the page shows of readings; nil without one

	// uplinkStore is what the uplink sees of the store; a test replaces it to
	// show what an early removal does.
	uplinkStore uplinkStore

	// applying is held while a configuration is applied, also where mu is not.
	applying sync.Mutex

	mu      sync.Mutex
	cfg     *configs.Config
	running bool // Run has started the lines and the uplink
	lines   map[string]*runningLine
	uplink  *runningUplink
	push    *runningPush
	page    *runningPage
	notes   []string // what to tell an operator, beside meters and uplink
}

// uplinkStore is the uplink's view of the store.
type uplinkStore interface {
	Epoch() uint64
	Peek(lane meter.Lane, after uint64, maxRows int) (meter.Span, error)
	Ack(lane meter.Lane, through uint64) error
	Acked(lane meter.Lane) uint64
	Last(lane meter.Lane) uint64
	Catalogue() ([]byte, error)
	SaveCatalogue(ctx context.Context, b []byte) error
}

// New opens the stores and the control socket. It polls nothing yet. Close
// them with Run, which every Agent that New gave must be given to.
func New(cfg *configs.Config, o Options) (*Agent, error) {
	boot, err := sys.BootID()
	if err != nil {
		return nil, err
	}
	a := &Agent{
		opts: o, log: o.Log, started: time.Now(), cfg: cfg,
		committed: make(chan struct{}, 1), failed: make(chan error, 1),
		gate:  make(chan struct{}, cfg.Poll.Parallel),
		lines: make(map[string]*runningLine),
	}
	a.reached.touch()
	a.tellMemory()
	options := bufferOptions(cfg, boot)
	options.Child, options.Now, options.Waits = o.StoreChecker, a.sureTime, a.waitsForTime
	var closed, deaf error
	if a.store, closed = openReadings(cfg, options); isForOthers(closed) {
		return nil, closed
	}
	a.store.taken = func(rows []meter.Row) {
		if l := a.live.Load(); l != nil {
			l.take(rows, false)
		}
	}
	if r := a.store.get().Recovered(); r != nil {
		a.recovered(r)
	}
	if err := a.openState(cfg.Buffer.Path); err != nil {
		return nil, errors.Join(err, a.store.Close())
	}
	a.openVault(cfg.Buffer.Path)
	a.orders = a.newOrders(cfg.Buffer.Path, cfg.Trust.File)
	a.updates = a.newUpdates(cfg.Update.Path)
	a.outputs = newOutputs(cfg.Buffer.Path, cfg, o.Log)
	a.commands = a.newCommands()
	a.restore()
	cfg = a.cfg
	a.tellSecrets(cfg)
	a.clock.Store(a.newClock(cfg))
	if deaf = a.openControl(cfg); deaf != nil && !isUnwritable(deaf) {
		return nil, errors.Join(deaf, a.orders.close(), a.state.Close(), a.store.Close())
	}
	a.uplinkStore = a.store
	a.judge(cfg)
	v := validate.New(validate.Config{Limits: func(id meter.ID) validate.Limits { return (*a.limits.Load())[id] }, TimeZone: cfg.TimeZone})
	a.intake = intake.New(intake.Config{
		Store: a.store, Validator: v, Log: o.Log,
		Report: func() []meter.Row { return v.Complete(a.started, a.now()) },
		Gather: gather, Window: cfg.Intake.Window, Offline: cfg.Intake.Offline, Away: a.reached.away, MaxWaiting: int(cfg.Intake.MaxWaiting), Committed: a.committed,
		Pulse: a.beats.intake.beat,
	})
	if closed != nil {
		a.tellClosed(noBuffer, closed)
	}
	if held := a.state.Held(); held != nil {
		a.tellClosed(noState, held)
	}
	if deaf != nil {
		a.log.Error("the control socket cannot be opened; tried again", "error", deaf)
		a.note(noControl + ": " + deaf.Error())
	}
	return a, nil
}

// openState opens the small second file. When both its copies are lost, or when
// it cannot be written, the gateway reads on: what it must not forget is told as
// lost, and what takes a counter is not read.
func (a *Agent) openState(dir string) (err error) {
	// Rows tell that there was a state, and so does an audit log: a gateway whose
	// meters have not been read yet takes commands too.
	if a.used = a.store.wasUsed() || hasFiles(filepath.Join(dir, "audit")); a.used {
		a.state, err = state.OpenUsed(dir)
	} else {
		a.state, err = state.Open(dir)
	}
	if errors.Is(err, state.ErrLost) {
		a.log.Error("the state is lost and begins anew", "error", err)
		a.note("state: " + err.Error())
		a.state, err = state.Renew(dir, time.Now())
	}
	switch {
	case err == nil:
		return a.checkFresh()
	case isForOthers(err):
		return err
	}
	a.state = state.Hold(dir, err)
	return nil
}

// Run polls, stores and sends until ctx ends, or until a stage cannot go on.
// It stops within 5 s, in order, and everything that was read is stored then.
func (a *Agent) Run(ctx context.Context) error {
	control := a.start(ctx, "control", a.serveControl)
	taker := a.start(ctx, "intake", a.intake.Run)
	flusher := a.start(ctx, "flush", a.flushAcks)
	keeper := a.start(ctx, "store", a.keepStore)
	a.startClock(ctx, a.clock.Load())
	a.mu.Lock()
	a.running = true
	cfg := a.cfg
	a.startModem(ctx, cfg)
	a.startUplink(ctx, cfg)
	for _, l := range cfg.Lines() {
		a.startLine(ctx, cfg, l)
	}
	a.startPush(ctx, cfg)
	a.startPage(ctx, cfg)
	a.keepHash(cfg)
	a.mu.Unlock()
	watchdog, leds := a.start(ctx, "watchdog", a.feedWatchdog), a.start(ctx, "leds", a.showHealth)
	taking := a.start(ctx, "orders", a.orders.run)
	commanded := a.start(ctx, "commands", a.commands.run)
	updating := a.start(ctx, "updates", a.updates.run)
	relays := a.start(ctx, "outputs", a.outputs.run)
	a.log.Info("gridgate runs", "version", a.opts.Version, "site", string(cfg.Site), "gateway", string(cfg.Gateway),
		"meters", len(cfg.Meters), "lines", len(cfg.Lines()), "epoch", fmt.Sprintf("%016x", a.store.Epoch()))
	defer time.AfterFunc(waitMost, a.tellUplink).Stop() // what waits to learn the time, waits no longer
	var err error
	select {
	case <-ctx.Done():
	case err = <-a.failed:
	}
	a.tellSystemd("STOPPING=1")
	commanded.stop()
	relays.stop()
	taking.stop()
	updating.stop()
	watchdog.stop()
	leds.stop()
	return errors.Join(err, a.shutdown(control, taker, flusher, keeper))
}

// shutdown stops the stages in the order that loses nothing.
func (a *Agent) shutdown(control, taker, flusher, keeper *task) error {
	a.mu.Lock()
	lines, up, push, page := a.lines, a.uplink, a.push, a.page
	a.lines = nil // nothing is lent or changed from here on
	a.mu.Unlock()
	page.stop()
	keeper.stop()
	a.clock.Load().task.stop()
	a.modem.Load().stop()
	push.stop()
	stopLines(lines)
	taker.stop()
	a.drain(up)
	up.stop()
	flusher.stop()
	control.stop()
	var err error
	select {
	case err = <-a.failed: // a stage that could not end well
	default:
	}
	err = errors.Join(err, a.orders.close(), a.store.Close(), a.state.Close())
	s := a.intake.Stats()
	a.log.Info("gridgate stopped", "rows_read", s.Read, "rows_stored", s.Stored, "rows_dropped", s.Dropped, "rows_reread", s.Reread)
	return err
}

// drainMost is how long a stop waits for the last rows to reach the broker.
// What does not reach it stays in the store.
const drainMost = 1500 * time.Millisecond

func (a *Agent) drain(up *runningUplink) {
	if up == nil || up.uplink == nil {
		return
	}
	deadline := time.NewTimer(drainMost)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for up.uplink.Stats().Connected && a.pending() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return
		}
	}
}

// pending says whether rows wait for the fog.
func (a *Agent) pending() bool {
	for _, lane := range meter.Lanes() {
		if a.store.Acked(lane) < a.store.Last(lane) {
			return true
		}
	}
	return false
}

// keepHash notes which configuration runs. A disk that is full keeps nobody
// from reading meters.
func (a *Agent) keepHash(cfg *configs.Config) {
	a.runs.Store(cfg)
	if a.uplink != nil && a.uplink.uplink != nil {
		a.uplink.uplink.Restate()
		select {
		case a.committed <- struct{}{}:
		default: // it wakes up anyway
		}
	}
	if err := a.state.SetConfigHash(configHash(cfg)); err != nil {
		a.log.Error("which configuration runs cannot be noted", "error", err)
	}
}

// judge makes the validator know what is possible where each meter is.
func (a *Agent) judge(cfg *configs.Config) {
	limits := make(map[meter.ID]validate.Limits, len(cfg.Meters))
	for _, m := range cfg.Meters {
		limits[m.ID] = validate.Limits{
			Amperes: m.Fuse.Amperes, Phases: m.Fuse.Phases, Voltage: cfg.Mains.Voltage, Frequency: cfg.Mains.Frequency,
		}
	}
	a.limits.Store(&limits)
}

// configHash is the document's hash as the state keeps it.
func configHash(cfg *configs.Config) (h state.Hash) {
	_, _ = hex.Decode(h[:], []byte(cfg.Hash())) // configs made it of a SHA-256
	return h
}

// fatal ends the agent with the first error of a stage.
func (a *Agent) fatal(stage string, err error) {
	select {
	case a.failed <- fmt.Errorf("%s: %w", stage, err):
	default:
		a.log.Error("stage ended", "stage", stage, "error", err)
	}
}

// ackIdle is how long an acknowledgement may wait for a commit to ride on.
const ackIdle = 5 * time.Minute

// flushAcks writes acknowledgements that found no commit to ride on, and notes
// when the fog was reached.
func (a *Agent) flushAcks(ctx context.Context) error {
	tick := time.NewTicker(ackIdle)
	defer tick.Stop()
	look := time.NewTicker(reachPause)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			a.mu.Lock()
			if a.uplink.isConnected() {
				a.reached.touch()
				a.reached.ever.Store(true)
			}
			a.mu.Unlock()
		case <-tick.C:
			if err := a.store.Flush(ctx); err != nil && ctx.Err() == nil && a.store.Epoch() != 0 {
				a.log.Warn("acknowledgements cannot be stored", "error", err)
			}
		}
	}
}

// runningUplink is the uplink with its task.
type runningUplink struct {
	cfg    configs.Uplink
	uplink *uplink.Uplink // nil when it could not be made
	err    error          // why
	task   *task
	// dates tells the connection's secrets from others.
	dates string
}

// isConnected says whether the broker takes what is sent.
func (u *runningUplink) isConnected() bool {
	return u != nil && u.uplink != nil && u.uplink.Stats().Connected
}

func (u *runningUplink) stop() {
	if u != nil {
		u.task.stop()
	}
}
