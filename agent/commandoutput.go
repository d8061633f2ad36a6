package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gridgate/agent/command"
	"gridgate/configs"
	"gridgate/internal/sys"
)

// outputs is the task that keeps relays of the gateway as they were ordered, and
// lets them go when their time is over, through restarts and reboots.
type outputs struct {
	file  string
	order []configs.Output
	all   map[string]configs.Output
	log   *slog.Logger
	kick  chan struct{}

	mu   sync.Mutex
	on   map[string]switchedOn
	errs map[string]error // of the last writing
	is   map[string]bool  // what was written last: true is on
}

// switchedOn is an output that is on, as it is kept on flash.
type switchedOn struct {
	At    time.Time `json:"at"`
	Until time.Time `json:"until"`

	// latest is when it is let go at the latest, by the clock that never steps: that
	// of the wall may be wrong, after a reboot above all.
	latest time.Time
}

// from gives s as of now, when it was switched or read from flash.
func (s switchedOn) from(now time.Time) switchedOn {
	s.latest = now.Add(min(s.Until.Sub(now.Round(0)), s.Until.Sub(s.At)))
	return s
}

// outputPause is how often an output is written again that could not be.
const outputPause = 10 * time.Second

// newOutputs reads which outputs were on. What cannot be read is let go.
func newOutputs(dir string, cfg *configs.Config, log *slog.Logger) *outputs {
	o := &outputs{
		file: filepath.Join(dir, "outputs.json"), order: cfg.Outputs, all: outputsOf(cfg), log: log, kick: make(chan struct{}, 1),
		on: map[string]switchedOn{}, errs: map[string]error{}, is: map[string]bool{},
	}
	b, err := os.ReadFile(o.file)
	if err == nil {
		err = json.Unmarshal(b, &o.on)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("which outputs are on cannot be read: all are let go", "error", err)
		o.on = map[string]switchedOn{}
	}
	for name, on := range o.on {
		o.on[name] = on.from(time.Now())
	}
	return o
}

func (o *outputs) most(name string) (time.Duration, error) {
	c, ok := o.all[name]
	if !ok {
		return 0, fmt.Errorf("no output %q is configured", name)
	}
	return c.Most, nil
}

// set switches an output on until a time, or lets it go. That it is on is on the
// disk before it is: a cut lets it go in time.
func (o *outputs) set(name string, until time.Time) error {
	c, ok := o.all[name]
	if !ok {
		return fmt.Errorf("no output %q is configured", name)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	next := maps.Clone(o.on)
	if delete(next, name); !until.IsZero() {
		next[name] = switchedOn{At: time.Now().Round(0).UTC(), Until: until.Round(0).UTC()}.from(time.Now())
	}
	if !until.IsZero() {
		if err := o.keep(next); err != nil {
			return fmt.Errorf("output %s: it is left as it is, since that cannot be kept: %w", name, err)
		}
	}
	if err := o.write(c, !until.IsZero()); err != nil {
		if !until.IsZero() {
			_ = o.keep(o.on) // as before; else it is let go in time
			return err
		}
		return fmt.Errorf("%w; tried again", err)
	}
	if until.IsZero() {
		_ = o.keep(next) // where that fails it is let go once more
	}
	o.on = next
	o.rouse()
	return nil
}

func (o *outputs) rouse() {
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// keep makes durable what is on. mu is held.
func (o *outputs) keep(on map[string]switchedOn) error {
	b, err := json.Marshal(on)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(o.file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(o.file+".new", o.file)
	}
	if err != nil {
		return err
	}
	return sys.SyncDir(filepath.Dir(o.file))
}

// write switches an output. mu is held.
func (o *outputs) write(c configs.Output, on bool) error {
	text := c.Rest
	if on {
		text = c.On
	}
	f, err := os.OpenFile(c.Path, os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		_, err = f.WriteString(text + "\n")
		err = errors.Join(err, f.Close())
	}
	name := string(c.Name)
	if err != nil {
		err = fmt.Errorf("output %s: %w", name, err)
		if o.errs[name] == nil {
			o.log.Error("an output cannot be switched; tried again", "output", name, "on", on, "error", err)
		}
	} else {
		o.log.Info("output", "output", name, "on", on)
		o.is[name] = on
	}
	o.errs[name] = err
	return err
}

func (o *outputs) list() (all []command.Output) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.order {
		name := string(c.Name)
		out := command.Output{Name: name, On: o.is[name], Error: text(o.errs[name])}
		if on, is := o.on[name]; is {
			until := on.Until
			out.Until = &until
		}
		all = append(all, out)
	}
	return all
}

// run puts outputs as they should be, and lets them go in time, until ctx ends.
// They stay then as they are: an agent that starts anew switches nothing.
func (o *outputs) run(ctx context.Context) error {
	if len(o.all) == 0 {
		return nil
	}
	o.settle(true)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(o.settle(false))
		select {
		case <-ctx.Done():
			return nil
		case <-o.kick:
		case <-timer.C:
		}
	}
}

// settle writes what is not as it should be, all of it at a start, and gives when
// to look again.
func (o *outputs) settle(all bool) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := outputPause // the wall clock may be set
	now := time.Now()
	changed := false
	for name, on := range o.on {
		left := on.left(now)
		if _, known := o.all[name]; left <= 0 || !known {
			delete(o.on, name)
			changed = true
			continue
		}
		next = min(next, left)
	}
	for _, c := range o.order {
		name := string(c.Name)
		_, on := o.on[name]
		if all || o.errs[name] != nil || o.is[name] != on {
			_ = o.write(c, on) // it is told, and tried again
		}
	}
	if changed {
		if err := o.keep(o.on); err != nil {
			o.log.Error("which outputs are on cannot be kept", "error", err)
		}
	}
	return max(next, 10*time.Millisecond)
}

// left is how long it stays on.
func (s switchedOn) left(now time.Time) time.Duration {
	return min(s.Until.Sub(now.Round(0)), s.latest.Sub(now))
}
