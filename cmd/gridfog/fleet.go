package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
	_ "time/tzdata" // a fog in a container may have no zone files

	"golang.org/x/sync/errgroup"

	"gridgate/agent/batch"
	"gridgate/cmd/gridfog/fleet"
	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

func fleetVerb() cli.Verb {
	return cli.Verb{
		Name:    "fleet",
		Summary: "show which gateways are alive, what waits, how clocks are, and how much of yesterday came",
		Example: []string{
			"gridfog fleet -broker mqtt://127.0.0.1:1883",
			"gridfog fleet -broker mqtts://broker.example:8883 -ca ca.pem -cert fog.pem -key fog.key -db postgres:///readings -json",
			"gridfog fleet -listen 127.0.0.1:9464 -session fleet     # metrics for Prometheus at /metrics",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			f := &fleeting{client: client{verb: "fleet"}}
			f.flags(fs, "mqtt://127.0.0.1:1883")
			fs.StringVar(&f.site, "site", "", "this `SITE` only")
			fs.BoolVar(&f.json, "json", false, "a JSON object a gateway, instead of a table")
			fs.StringVar(&f.listen, "listen", "", "stay, and serve metrics at http://`HOST:PORT`/metrics, JSON at /fleet and the table at /")
			fs.StringVar(&f.session, "session", "", "with -listen: keep a session of this `NAME` at the broker, so that nothing is missed while away")
			fs.StringVar(&f.database, "database", "", "the same as -db")
			fs.StringVar(&f.database, "db", "", "take the shares of yesterday's intervals from the database that ingest fills, a `URL` as postgres://user@host/name.\nWithout it they are counted from what arrives while this runs, and known after a whole day")
			fs.StringVar(&f.zoneName, "time-zone", "UTC", "`ZONE` of gateways that do not tell theirs")
			fs.DurationVar(&f.wait, "wait", 10*time.Second, "without -listen: wait at most this `TIME` for what the broker has retained; it ends when nothing has come for a second")
			return f.run
		},
	}
}

// fleeting is one run of the verb.
type fleeting struct {
	client
	site, listen, database, zoneName string
	json                             bool
	wait                             time.Duration

	mu       sync.Mutex // guards what follows
	fleet    *fleet.Fleet
	receiver *track.Receiver
	tool     fleet.Tool
	came     time.Time // the last message
	asked    map[string]asking
	notes    io.Writer
}

const (
	// fleetQuiet ends a single look, when nothing came for so long.
	fleetQuiet = time.Second
	// databaseEvery is how often the database is looked at, databaseAnew after how
	// long a site's shares are asked for again when they should be the same, and
	// databaseTime how long all answers may take.
	databaseEvery = 5 * time.Minute
	databaseAnew  = time.Hour
	databaseTime  = 30 * time.Minute
	// fleetRemember is how many rows of a stream are remembered, to tell a row
	// that came twice from another with its number.
	fleetRemember = 100
)

// asking is what was asked last of a site.
type asking struct {
	judged string
	at     time.Time
}

func (f *fleeting) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) > 0 {
		return cli.Usagef("fleet: %q: it takes flags only", args[0])
	}
	if err := checkID("fleet", "site", f.site); err != nil {
		return err
	}
	zone, err := time.LoadLocation(f.zoneName)
	if err != nil {
		return cli.Usagef("fleet: -time-zone %q: want a name as Europe/Berlin", f.zoneName)
	}
	switch {
	case f.listen != "" && f.json:
		return cli.Usagef("fleet: -json is for a single look: with -listen it is at /fleet")
	case f.listen == "" && f.session != "":
		return cli.Usagef("fleet: -session goes with -listen")
	case f.wait <= 0:
		return cli.Usagef("fleet: -wait %v: want more than 0s", f.wait)
	}
	if f.database != "" {
		if err := fleet.CheckURL(f.database); err != nil {
			return cli.Usagef("fleet: -database: %v", err)
		}
	}
	if err := f.prepare(f.take); err != nil {
		return err
	}
	f.notes = env.Stderr
	f.start(zone)
	if f.listen != "" {
		return f.serve(ctx, env)
	}
	return f.look(ctx, env)
}

func (f *fleeting) start(zone *time.Location) {
	f.asked = map[string]asking{}
	f.fleet = fleet.New(zone)
	f.receiver = track.NewReceiver(track.New(track.Options{Remember: fleetRemember}))
}

// look takes what the broker has retained, shows it, and ends.
func (f *fleeting) look(ctx context.Context, env cli.Env) error {
	err := f.once(ctx, func(ctx context.Context, conn *mqtt.Conn) error {
		for _, filter := range []string{mqtt.StateTopic(meter.ID(orAny(f.site)), "+"), mqtt.ConfigFilter(meter.ID(f.site))} {
			if err := conn.Subscribe(ctx, filter, f.take); err != nil {
				return err
			}
		}
		f.mu.Lock()
		f.came = time.Now() // over a slow link that took a while
		f.mu.Unlock()
		return f.settle(ctx, conn)
	})
	if err != nil {
		return err
	}
	if f.database != "" {
		if err := f.ask(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.fleet.Gateways(time.Now(), false)
	if f.json {
		return writeFleetJSON(env.Stdout, all)
	}
	return writeFleetTable(env.Stdout, all, time.Now())
}

func orAny(id string) string {
	if id == "" {
		return "+"
	}
	return id
}

// settle waits until nothing has come for a while.
func (f *fleeting) settle(ctx context.Context, conn *mqtt.Conn) error {
	limit := time.NewTimer(f.wait)
	defer limit.Stop()
	tick := time.NewTicker(fleetQuiet / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.Done():
			return conn.Err()
		case <-limit.C:
			return nil
		case now := <-tick.C:
			f.mu.Lock()
			quiet := now.Sub(f.came) >= fleetQuiet
			f.mu.Unlock()
			if quiet {
				return nil
			}
		}
	}
}

// take takes a message of the broker.
func (f *fleeting) take(m mqtt.Message) { f.takeAt(m.Topic, m.Payload, m.Retained, time.Now()) }

func (f *fleeting) takeAt(name string, payload []byte, retained bool, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.came = now
	f.tool.Messages++
	topic, err := mqtt.ParseTopic(name)
	switch {
	case errors.Is(err, mqtt.ErrForeignTopic):
		return
	case err != nil:
	case topic.Kind == mqtt.State:
		err = f.fleet.State(topic, payload, retained, now)
		if err != nil {
			err = fmt.Errorf("topic %s: %w", name, err)
		}
	case topic.Kind == mqtt.ConfigReport:
		err = f.fleet.Config(topic, payload)
		if err != nil {
			err = fmt.Errorf("topic %s: %w", name, err)
		}
	default:
		var fresh []track.Reading
		fresh, err = f.receiver.Take(name, payload)
		f.receiver.Asks(now) // whoever stores asks for what is missing
		if rerr := f.rows(fresh, now); err == nil {
			err = rerr
		}
	}
	if err != nil {
		f.tool.Refused++
		fmt.Fprintln(f.notes, "gridfog fleet:", clip(err.Error(), 1000))
	}
}

// rows hands readings on, gateway by gateway.
func (f *fleeting) rows(fresh []track.Reading, now time.Time) error {
	var errs []error
	for len(fresh) > 0 {
		first, n := fresh[0], 1
		for n < len(fresh) && fresh[n].Site == first.Site && fresh[n].Gateway == first.Gateway {
			n++
		}
		rows := make([]batch.Row, n)
		for i := range rows {
			rows[i] = fresh[i].Row
		}
		errs = append(errs, f.fleet.Rows(first.Site, first.Gateway, rows, now))
		fresh = fresh[n:]
	}
	return errors.Join(errs...)
}

// ask takes the shares from the database.
func (f *fleeting) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	db, err := fleet.Open(ctx, f.database)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	sites, err := db.Sites(ctx)
	if err != nil {
		return err
	}
	for site, zone := range sites {
		if f.site != "" && site != f.site {
			continue
		}
		now := time.Now()
		f.mu.Lock()
		at := f.fleet.ZoneOfSite(site, zone)
		last, judged := f.asked[site], fleet.Judged(now, at)
		f.mu.Unlock()
		if last.judged == judged && now.Sub(last.at) < databaseAnew {
			continue
		}
		shares, err := db.Shares(ctx, site, now, at)
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.fleet.SetShares(site, shares)
		f.asked[site] = asking{judged, now}
		f.mu.Unlock()
	}
	return nil
}

// serve follows the broker and answers HTTP until ctx ends.
func (f *fleeting) serve(ctx context.Context, env cli.Env) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("fleet: -listen: %w", err)
	}
	server := &http.Server{Handler: f.pages(), ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	fmt.Fprintf(env.Stdout, "listening on %s\n", l.Addr())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("fleet: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		f.follow(ctx, f.note, f.connect)
		return nil
	})
	if f.database != "" {
		group.Go(func() error { return f.askOften(ctx) })
	}
	return group.Wait()
}

func (f *fleeting) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintln(f.notes, "gridfog fleet:", text)
}

// connect is one connection, until it is lost or ctx ends.
func (f *fleeting) connect(ctx context.Context, conn *mqtt.Conn, connected func()) error {
	if err := conn.Subscribe(ctx, mqtt.UpFilter(meter.ID(f.site), ""), f.take); err != nil {
		return err
	}
	connected()
	f.reached(true)
	defer f.reached(false)
	select {
	case <-ctx.Done():
		return nil
	case <-conn.Done():
		return conn.Err()
	}
}

// reached notes whether there is a connection. What is counted begins with the
// first, and anew after each gap where no session keeps what came meanwhile.
func (f *fleeting) reached(is bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tool.Connected = is
	if is && (!f.fleet.Intervals.Watches() || f.session == "") {
		f.fleet.Intervals.Watch(time.Now())
	}
}

// askOften asks the database again and again until ctx ends.
func (f *fleeting) askOften(ctx context.Context) error {
	tick := time.NewTicker(databaseEvery)
	defer tick.Stop()
	for {
		err := f.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			f.note(err.Error())
		}
		well := err == nil
		f.mu.Lock()
		f.tool.Database = &well
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// pages answers HTTP.
func (f *fleeting) pages() http.Handler {
	mux := http.NewServeMux()
	page := func(pattern, kind string, write func(io.Writer, []fleet.Gateway, fleet.Tool) error) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, _ *http.Request) {
			all, tool := f.snapshot()
			w.Header().Set("Content-Type", kind)
			_ = write(w, all, tool) // whoever asked has gone
		})
	}
	page("/metrics", "text/plain; version=0.0.4; charset=utf-8", fleet.WriteMetrics)
	page("/fleet", "application/jsonl; charset=utf-8", func(w io.Writer, all []fleet.Gateway, _ fleet.Tool) error { return writeFleetJSON(w, all) })
	page("/{$}", "text/plain; charset=utf-8", func(w io.Writer, all []fleet.Gateway, _ fleet.Tool) error {
		return writeFleetTable(w, all, time.Now())
	})
	return mux
}

func (f *fleeting) snapshot() ([]fleet.Gateway, fleet.Tool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fleet.SetMissing(f.receiver.Tracker.MissingBy())
	return f.fleet.Gateways(time.Now(), f.database == ""), f.tool
}
