package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"gridgate/agent/web"
	"gridgate/agent/web/page"
	"gridgate/buffer"
	"gridgate/configs"
	"gridgate/internal/meter"
	"gridgate/internal/sortby"
)

// runningPage is the local page with its task.
type runningPage struct {
	server atomic.Pointer[web.Server] // nil while it cannot be served
	task   *task
}

func (p *runningPage) stop() {
	if p != nil {
		p.task.stop()
	}
}

// noPage is told where the page cannot be served.
const noPage = "page: not served"

// The pauses between attempts to serve the page.
const (
	pageFirst = time.Second
	pageMost  = time.Minute
)

// startPage starts the local page, where there is to be one. mu is held.
func (a *Agent) startPage(ctx context.Context, cfg *configs.Config) {
	a.page = nil
	if cfg.Page.Listen == "" {
		a.live.Store(nil)
		return
	}
	fresh := a.live.Load() == nil
	if fresh {
		a.live.Store(newLive())
	}
	p := &runningPage{}
	p.task = a.start(ctx, "page", func(ctx context.Context) error {
		if fresh {
			a.recallEvents(ctx)
		}
		a.servePage(ctx, cfg, p)
		return nil
	})
	a.page = p
}

// servePage serves until ctx ends, and tries again while it cannot: that the page
// is missing keeps nobody from reading meters.
func (a *Agent) servePage(ctx context.Context, cfg *configs.Config, p *runningPage) {
	pause := pageFirst
	for ctx.Err() == nil {
		s := web.New(a.pageConfig(cfg))
		l, err := s.Listen(ctx)
		if err == nil {
			a.log.Info("the page is served", "address", l.Addr().String(), "tls", cfg.Page.Certificate != "")
			a.untell(noPage)
			p.server.Store(s)
			err = s.Run(ctx, l)
			p.server.Store(nil)
		}
		if ctx.Err() != nil {
			break
		}
		if pause == pageFirst {
			a.log.Error("the page cannot be served; tried again", "error", err)
		}
		a.untell(noPage)
		a.orders.tell(fmt.Sprintf("%s: %v", noPage, err))
		wait := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
		pause = min(2*pause, pageMost)
	}
	a.untell(noPage)
}

// untell takes a note back.
func (a *Agent) untell(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(what)
}

// swapPage serves the page as next says. It gives false when the agent stops
// meanwhile. mu is held, but not while requests end that wait for it.
func (a *Agent) swapPage(ctx context.Context, next *configs.Config) bool {
	old := a.page
	a.mu.Unlock()
	old.stop()
	a.mu.Lock()
	if a.lines == nil {
		return false
	}
	a.startPage(ctx, next)
	return true
}

func (a *Agent) pageConfig(cfg *configs.Config) web.Config {
	c := web.Config{
		Listen: cfg.Page.Listen, Certificate: cfg.Page.Certificate, Key: cfg.Page.Key,
		Page: page.Compressed(), ETag: page.ETag(), Policy: page.Policy(), Log: a.log,
		Source: web.Source{Snapshot: a.snapshot, Meter: a.meterDetail, Curve: a.curve, Metrics: a.Metrics},
	}
	for _, t := range cfg.Page.Tokens {
		c.Tokens = append(c.Tokens, web.Token{Name: string(t.Name), Role: web.Role(t.Role), Meter: string(t.Meter), SHA256: t.SHA256})
	}
	return c
}

// recallBack is how far back the events of a start reach.
const recallBack = 31 * 24 * time.Hour

// recallEvents takes up the events that the store has.
func (a *Agent) recallEvents(ctx context.Context) {
	l := a.live.Load()
	q := buffer.Query{From: time.Now().Add(-recallBack).UnixMilli(), Lanes: []meter.Lane{meter.Alarm}}
	err := a.store.get().Query(q, func(_ uint64, r *meter.Row) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.event(r)
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		a.log.Warn("earlier events cannot be read", "error", a.store.look(err))
	}
}

// maxPoints bounds a curve, and maxCurveRows what is gathered for one.
const (
	maxPoints    = 400
	maxCurveRows = 90000
)

// curve gives what a channel of a meter showed on a day of the site.
func (a *Agent) curve(ctx context.Context, id, text, day string) (web.Curve, error) {
	cfg := a.config()
	m, ok := cfg.Meter(meter.ID(id))
	if !ok {
		return web.Curve{}, &web.ProblemError{Text: "there is no meter of this name; /api/1/meters lists them"}
	}
	channel, err := meter.ParseChannel(text)
	if err != nil {
		return web.Curve{}, &web.ProblemError{Text: err.Error()}
	}
	if day == "" {
		day = time.Now().In(cfg.TimeZone).Format(time.DateOnly)
	}
	date, err := time.Parse(time.DateOnly, day)
	if err != nil || date.Year() < 1970 {
		return web.Curve{}, &web.ProblemError{Text: "day: want YYYY-MM-DD, such as " + time.Now().In(cfg.TimeZone).Format(time.DateOnly)}
	}
	from := meter.DayStart(date.Year(), date.Month(), date.Day(), cfg.TimeZone)
	to := meter.DayStart(date.Year(), date.Month(), date.Day()+1, cfg.TimeZone)
	c := web.Curve{
		Meter: id, Channel: string(channel), Day: day, TimeZone: cfg.TimeZone.String(), From: web.Time(from), To: web.Time(to),
		Kind: "register", Points: []web.Point{},
	}
	var rows []meter.Row
	q := buffer.Query{Meter: m.ID, Channel: channel, From: from.UnixMilli(), To: to.UnixMilli() + 1, Lanes: []meter.Lane{meter.Billing, meter.Interval, meter.Instant}}
	err = a.store.get().Query(q, func(_ uint64, r *meter.Row) error {
		if m.Serial == "" || r.Serial == "" || r.Serial == m.Serial { // of another meter nothing is shown
			rows = append(rows, *r)
		}
		if len(rows) > maxCurveRows {
			return &web.ProblemError{Text: "the day has too many readings for a curve"}
		}
		return ctx.Err()
	})
	if err != nil {
		return web.Curve{}, a.store.look(err)
	}
	draw(&c, rows)
	return c, nil
}

// draw makes the points of rows. Where a row was revised the later one is shown,
// and where a register was read beside a profile of intervals, the intervals.
func draw(c *web.Curve, rows []meter.Row) {
	if i := slices.IndexFunc(rows, coversPeriod); i >= 0 {
		c.Kind, c.Period = "interval", rows[i].Period
		rows = slices.DeleteFunc(rows, func(r meter.Row) bool { return r.Period == 0 })
	}
	sortby.Stable(rows, func(a, b meter.Row) int { return int(min(max(a.Stamp.Time-b.Stamp.Time, -1), 1)) })
	n := 0
	for i := range rows {
		if n > 0 && rows[n-1].Stamp.Time == rows[i].Stamp.Time && rows[n-1].Occurrence == rows[i].Occurrence {
			n--
		}
		rows[n] = rows[i]
		n++
	}
	rows = rows[:n]
	every := (n + maxPoints - 1) / maxPoints
	c.Thinned = every > 1
	for i := range rows {
		if every > 1 && i%every != every-1 && i != n-1 {
			continue
		}
		r := &rows[i]
		p := web.Point{Time: web.Time(r.Stamp.UTC()), Value: []byte("null"), Quality: quality(r.Quality)}
		if r.Value.IsNumber() {
			p.Value = r.Value.AppendJSON(nil)
		}
		if r.Unit.String() != "" {
			c.Unit = r.Unit.String()
		}
		c.Points = append(c.Points, p)
	}
	c.Points = c.Points[:min(len(c.Points), maxPoints)]
	c.Cumulative = c.Kind == "register" && isEnergy(c.Unit)
}

// coversPeriod says whether a row is of an interval. Profiles name their period for
// all that they capture; energy since ever (group D = 8) and instantaneous values
// (7) are of the moment all the same (IEC 62056-6-1, clause 5.5).
func coversPeriod(r meter.Row) bool {
	code, _, _, ok := r.Channel.Attribute()
	return r.Period > 0 && !(ok && code[0] == 1 && (code[3] == 7 || code[3] == 8))
}

// isEnergy says whether a register of this unit only rises.
func isEnergy(unit string) bool {
	return slices.Contains([]string{"Wh", "VAh", "varh", "m³", "l", "J"}, strings.TrimLeft(unit, "kM"))
}
