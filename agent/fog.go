package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"gridgate/agent/uplink"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// reach is when the fog was reached last.
type reach struct {
	at   atomic.Pointer[time.Time]
	ever atomic.Bool // since the start
}

// reachPause is how often the agent looks whether the fog is reached.
const reachPause = 15 * time.Second

func (r *reach) touch() {
	now := time.Now()
	r.at.Store(&now)
}

// away gives for how long the fog has not been reached.
func (r *reach) away() time.Duration { return time.Since(*r.at.Load()) }

// stopGrace is how long a stop waits for PUBACKs, after drain.
const stopGrace = time.Second

// startUplink starts the way to the fog. An uplink whose secret or certificate
// cannot be read is told and not started: readings wait in the buffer until
// the configuration is applied anew. mu is held.
func (a *Agent) startUplink(ctx context.Context, cfg *configs.Config) {
	a.runs.Store(cfg)
	u := &runningUplink{cfg: cfg.Uplink, dates: a.uplinkDates(cfg.Uplink)}
	a.uplink = u
	a.sends.Store(nil)
	options, paths, err := a.mqttOptions(cfg.Uplink)
	if err != nil {
		u.err = err
		a.log.Error("the uplink cannot start; readings wait in the buffer", "error", err)
		return
	}
	u.uplink = uplink.New(uplink.Config{
		Site: cfg.Site, Gateway: cfg.Gateway, Version: a.opts.Version, MQTT: options, Paths: paths,
		Store: a.uplinkStore, Wake: a.committed, MaxMessage: int(cfg.Uplink.MaxMessage),
		KeepAlive: cfg.Uplink.KeepAlive, StopGrace: stopGrace, FogConfirms: cfg.Uplink.Confirm == configs.ConfirmFog, Delta: cfg.Uplink.Delta,
		Budget: uplink.Budget(cfg.Uplink.Budget), Ledger: ledger(cfg.Buffer.Path), Sure: func() bool { return !a.sureTime().IsZero() },
		Schedules: schedules(cfg.Uplink.Lanes),
		TimeZone:  cfg.TimeZone, StartJitter: cfg.Uplink.StartJitter, Orders: a.orders.take, Groups: cfg.Trust.Groups, Outbox: a.orders.box, Parts: a.updates.parts,
		State: a.fogState, Pulse: a.beats.uplink.beat, Log: a.log,
	})
	a.sends.Store(u.uplink)
	u.task = a.start(ctx, "uplink", u.uplink.Run)
}

func schedules(c configs.Schedules) (all [meter.Instant + 1]uplink.Schedule) {
	for _, lane := range meter.Lanes() {
		s := c.Of(lane)
		all[lane].Latency = s.Latency
		for _, w := range s.Windows {
			all[lane].Windows = append(all[lane].Windows, uplink.Window(w))
		}
	}
	return all
}

// ledger keeps what the uplink spent, in the directory of that name. It is
// made only where there is a budget.
type ledger string

func (l ledger) path() string { return filepath.Join(string(l), "uplink.json") }

func (l ledger) Load() ([]byte, error) {
	b, err := os.ReadFile(l.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Save replaces the file. A power cut leaves the old one or the new one.
func (l ledger) Save(b []byte) error {
	next := l.path() + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(next, l.path())
}

func (a *Agent) mqttOptions(c configs.Uplink) (mqtt.Options, []uplink.Path, error) {
	ways := c.Interfaces
	if len(ways) == 0 {
		ways = []string{""}
	}
	var paths []uplink.Path
	for _, way := range ways {
		for _, broker := range c.Brokers {
			address, _, err := mqtt.ParseURL(broker)
			if err != nil {
				return mqtt.Options{}, nil, fmt.Errorf("uplink.broker: %w", err)
			}
			paths = append(paths, uplink.Path{Address: address, Interface: way})
		}
	}
	o := mqtt.Options{ClientID: c.ClientID, Username: c.Username}
	var err error
	if o.Password, err = c.Password.Resolve(a.sources()); err != nil {
		return o, nil, fmt.Errorf("uplink.password: %w", err)
	}
	if c.TLS() {
		files := mqtt.TLS{CAFile: c.CA, CertFile: c.Certificate, KeyFile: c.Key}
		if !c.KeySecret.IsZero() {
			files.Key = clientKey{a, c.KeySecret}
		}
		if o.TLS, err = files.Config(); err != nil {
			return o, nil, fmt.Errorf("uplink: %w", err)
		}
		o.Roots, o.TLS.Time = files.Roots(), a.certificateTime
	}
	return o, paths, nil
}

// uplinkDates tells one state of the uplink's secret files from another.
func (a *Agent) uplinkDates(c configs.Uplink) string {
	s := a.secretDate(c.Password) + a.secretDate(c.KeySecret)
	for _, path := range []string{c.CA, c.Certificate, c.Key} {
		if info, err := os.Stat(path); err == nil {
			s += info.ModTime().UTC().Format(time.RFC3339Nano)
		}
	}
	return s
}
