package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"gridgate/agent/update"
	"gridgate/agent/uplink"
)

const (
	// stageRounds is how often what was fetched is verified, and fetched again where
	// the disk has damaged it.
	stageRounds = 3
	// roomPause is how long a disk without room for an update is left alone.
	roomPause = 10 * time.Minute
	// windowPause is how often it is looked whether firmware may be started.
	windowPause = 30 * time.Second
	// partsAtOnce are asked for; the uplink decides how many are under way.
	partsAtOnce = 4
)

// bring fetches a candidate, verifies it, and has it tried.
func (w *updates) bring(ctx context.Context, c *candidate) error {
	if w.hasEnded(c) { // resume takes it from the shelf
		return nil
	}
	w.begins(c.d, c.m, update.Waiting)
	if err := w.prepare(ctx, c); err != nil {
		return err
	}
	if !c.job.Same() {
		if err := w.fetch(ctx, c); err != nil {
			return err
		}
		if err := w.window(ctx, c); err != nil {
			return err
		}
	}
	return w.hand(ctx, c)
}

// prepare finds out what of a candidate is there. It waits for room.
func (w *updates) prepare(ctx context.Context, c *candidate) error {
	for {
		store, err := update.OpenStore(filepath.Join(w.dir, "fetched"))
		if err == nil {
			c.job, err = store.Begin(ctx, c.files, w.slots.Open)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		w.waits(err.Error())
		if err := pause(ctx, roomPause); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// fetch fetches all of a candidate and unpacks it.
func (w *updates) fetch(ctx context.Context, c *candidate) error {
	source, closes, err := w.source(c)
	for ; err != nil; source, closes, err = w.source(c) { // certificates that cannot be read just now
		w.waits(err.Error())
		if err := pause(ctx, roomPause); err != nil {
			return err
		}
	}
	defer closes()
	o := update.Options{
		Rate: w.a.config().Update.Rate / 8,
		Tell: func(why error, _ time.Duration) {
			if why == nil {
				w.waits("")
			} else {
				w.waits(why.Error())
			}
		},
		Took: func() { w.has(c.job.Progress()) },
	}
	if c.m.URL != "" {
		o.May = w.parts.May
	}
	for round := 1; ; round++ {
		w.step(update.Fetching)
		w.has(c.job.Progress())
		if err := c.job.Fetch(ctx, source, o); err != nil {
			return err
		}
		w.step(update.Verifying)
		if c.staged, err = c.job.Stage(ctx); err == nil {
			w.o.note("firmware.fetched", "", c.name())
			return nil
		}
		switch {
		case ctx.Err() != nil, errors.Is(err, update.ErrBroken):
			return err
		case !errors.Is(err, update.ErrDamaged): // the disk takes nothing for now
			w.waits(err.Error())
			if err := pause(ctx, roomPause); err != nil {
				return err
			}
		case round >= stageRounds:
			return err
		}
		if err := w.prepare(ctx, c); err != nil {
			return err
		}
	}
}

func (c *candidate) name() string {
	name := fmt.Sprintf("%s version %d", c.Target, c.Version)
	if c.m != nil {
		name += ": firmware " + c.m.Firmware
	}
	return name
}

// source is where the objects of a candidate come from.
func (w *updates) source(c *candidate) (s update.Source, closes func(), err error) {
	s, closes = brokerSource{w.parts}, func() {}
	if c.m.URL != "" {
		options, _, err := w.a.mqttOptions(w.a.config().Uplink)
		if err != nil {
			return nil, nil, err
		}
		if options.TLS != nil && options.Roots != nil {
			options.TLS.RootCAs = options.Roots()
		}
		h, err := update.NewHTTP(c.m.URL, options.TLS, nil)
		if err != nil {
			return nil, nil, err
		}
		s, closes = h, h.Close
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.local == c.sum && w.objects != "" {
		s = nearest{update.Dir(w.objects), s}
	}
	return s, closes, nil
}

// brokerSource has the parts that the broker retains.
type brokerSource struct{ parts *uplink.Parts }

// Fetch is update.Source's.
func (b brokerSource) Fetch(ctx context.Context, wants []update.Want, take func(update.Want, []byte)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan update.Want, len(wants))
	for _, want := range wants {
		next <- want
	}
	close(next)
	var one sync.Mutex
	var all sync.WaitGroup
	for range min(partsAtOnce, len(wants)) {
		all.Go(func() {
			for want := range next {
				data, err := b.parts.Get(ctx, [16]byte(want.Sum[:16]))
				if err != nil {
					cancel(fmt.Errorf("%s: part %x: %w", want.Name, want.Sum[:16], err))
					return
				}
				one.Lock()
				take(want, data)
				one.Unlock()
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// nearest looks in one place before another.
type nearest struct{ near, far update.Source }

// Fetch is update.Source's.
func (n nearest) Fetch(ctx context.Context, wants []update.Want, take func(update.Want, []byte)) error {
	got := map[update.Want]bool{}
	err := n.near.Fetch(ctx, wants, func(w update.Want, data []byte) {
		if sha256.Sum256(data) != w.Sum { // a stick that is damaged, or was filled by halves
			return
		}
		got[w] = true
		take(w, data)
	})
	if ctx.Err() != nil {
		return err
	}
	var rest []update.Want
	for _, w := range wants {
		if !got[w] {
			rest = append(rest, w)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return n.far.Fetch(ctx, rest, take)
}

// window waits until firmware may be started. Who brought it to the gateway does
// not wait.
func (w *updates) window(ctx context.Context, c *candidate) error {
	w.mu.Lock()
	local := w.local == c.sum
	w.mu.Unlock()
	for !local {
		cfg := w.a.config()
		switch {
		case len(cfg.Update.Windows) == 0:
			return nil
		case !w.o.trusted():
			w.waitsAt(update.Waiting, "the time to be known, for update.window")
		case cfg.Update.May(time.Now(), cfg.TimeZone):
			return nil
		default:
			w.waitsAt(update.Waiting, "update.window")
		}
		if err := pause(ctx, windowPause); err != nil {
			return err
		}
	}
	return nil
}

// hand gives a candidate to the task of orders, which tries it when its turn
// comes, and waits for that.
func (w *updates) hand(ctx context.Context, c *candidate) error {
	for {
		in := &incoming{data: c.Data, via: "update", verdict: make(chan error, 1), carry: func(ctx context.Context) { w.try(ctx, c) }}
		if lost := w.o.in.put(in); lost != nil {
			answer(lost, errBusy)
		}
		w.waitsAt(update.Waiting, "its turn")
		select {
		case <-ctx.Done():
			if w.o.in.withdraw(in) {
				return ctx.Err()
			}
			// It is dealt with, and answered when that ends.
			return errors.Join(<-in.verdict, ctx.Err())
		case err := <-in.verdict:
			if err == nil {
				return nil
			}
		}
		if err := pause(ctx, lookAgain); err != nil {
			return err
		}
	}
}
