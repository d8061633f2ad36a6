package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

func watchVerb() cli.Verb {
	return cli.Verb{
		Name:    "watch",
		Summary: "show readings as they arrive at a broker, and count what is missing",
		Example: []string{
			"gridfog watch -broker mqtt://127.0.0.1:1883",
			"gridfog watch -site north -lane alarm -lane billing -channel 'event.*'",
			"gridfog watch -broker mqtts://broker.example:8883 -ca ca.pem -cert fog.pem -key fog.key -site north -json",
			"gridfog watch -broker mqtt://127.0.0.1:1883 -session count -from-start -quiet -for 1h -summary summary.json",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			w := &watch{client: client{verb: "watch"}}
			w.flags(fs, "mqtt://127.0.0.1:1883")
			fs.StringVar(&w.site, "site", "", "this `SITE` only")
			fs.StringVar(&w.gateway, "gateway", "", "this `GATEWAY` only")
			w.filter.flags(fs)
			fs.StringVar(&w.session, "session", "", "keep a session of this `NAME` at the broker, so that nothing is missed while away")
			fs.BoolVar(&w.table, "table", false, "a live table, also when the output is no terminal; alarms are red where it is one, unless NO_COLOR is set")
			fs.BoolVar(&w.json, "json", false, "a JSON object a row")
			fs.BoolVar(&w.quiet, "quiet", false, "no rows, only the line at the end")
			fs.BoolVar(&w.fromStart, "from-start", false, "count numbers below the first that comes as missing too: the gateway's store was new")
			fs.BoolVar(&w.confirm, "confirm", false, "tell gateways with confirm: fog what came, once it is shown and recorded")
			fs.BoolVar(&w.resend, "resend", false, "ask gateways for what came as a delta (uplink.delta) against rows from before this run; -confirm does too")
			fs.StringVar(&w.summary, "summary", "", "at the end write the counts as JSON to this `FILE`")
			fs.StringVar(&w.record, "record", "", "keep every message as a file in this `DIR`, for decode")
			fs.DurationVar(&w.limit, "for", 0, "end by itself after this `TIME`, as 90s or 2h")
			return w.run
		},
	}
}

// watch is one run of the verb.
type watch struct {
	client
	filter                                         rowFilter
	site, gateway, summary, record                 string
	table, json, quiet, fromStart, confirm, resend bool
	limit                                          time.Duration

	stop context.CancelFunc // ends the run

	mu       sync.Mutex // guards what follows: the handler and the table use it
	receiver *track.Receiver
	show     shower
	messages int
	problem  error // of show or record
}

// shower shows readings.
type shower interface {
	reading(r track.Reading) error
	// note shows what goes on with the connection and with messages.
	note(text string)
	// end leaves the output as it should stay.
	end() error
}

func (w *watch) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) > 0 {
		return cli.Usagef("watch: %q: it takes flags only", args[0])
	}
	if err := w.prepare(); err != nil {
		return err
	}
	if w.limit > 0 {
		var release context.CancelFunc
		ctx, release = context.WithTimeout(ctx, w.limit)
		defer release()
	}
	ctx, w.stop = context.WithCancel(ctx)
	defer w.stop()
	w.receiver = track.NewReceiver(track.New(track.Options{FromStart: w.fromStart}))
	var redraw sync.WaitGroup
	switch {
	case w.quiet:
		w.show = &lines{out: bufio.NewWriter(io.Discard), notes: env.Stderr}
	case w.json:
		w.show = &lines{out: bufio.NewWriter(env.Stdout), notes: env.Stderr, json: true}
	case w.table || isTerminal(env.Stdout):
		t := newTable(env.Stdout)
		t.color = isTerminal(env.Stdout) && !noColor(env)
		w.show = t
		redraw.Go(func() { w.redraw(ctx, t) })
	default:
		w.show = &lines{out: bufio.NewWriter(env.Stdout), notes: env.Stderr}
	}
	w.follow(ctx, w.note, w.connect)
	w.stop()
	redraw.Wait()
	return w.finish(env)
}

// prepare checks the flags.
func (w *watch) prepare() error {
	if w.json && w.table {
		return cli.Usagef("watch: -json and -table exclude one another")
	}
	for name, id := range map[string]string{"site": w.site, "gateway": w.gateway} {
		if err := checkID("watch", name, id); err != nil {
			return err
		}
	}
	if err := w.filter.prepare("watch"); err != nil {
		return err
	}
	if err := w.client.prepare(w.take); err != nil {
		return err
	}
	if w.record != "" {
		if err := os.MkdirAll(w.record, 0o755); err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	return nil
}

// connect is one connection, until it is lost or ctx ends.
func (w *watch) connect(ctx context.Context, conn *mqtt.Conn, connected func()) error {
	if err := conn.Subscribe(ctx, mqtt.UpFilter(meter.ID(w.site), meter.ID(w.gateway)), w.take); err != nil {
		return err
	}
	if w.confirm { // what was confirmed earlier is retained there
		if err := conn.Subscribe(ctx, mqtt.AckFilter(meter.ID(w.site), meter.ID(w.gateway)), w.take); err != nil {
			return err
		}
	}
	connected()
	tick := time.NewTicker(confirmEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			w.drain(conn)
			return w.settle(context.WithoutCancel(ctx), conn)
		case <-conn.Done():
			return conn.Err()
		case <-tick.C:
			if err := w.settle(ctx, conn); err != nil {
				return err
			}
		}
	}
}

// confirmEvery is how often gateways are told what came.
const confirmEvery = time.Second

// settle tells gateways what came since the last time. It is retained, so that
// a gateway that is away hears it later.
func (w *watch) settle(ctx context.Context, conn *mqtt.Conn) error {
	if !w.confirm && !w.resend {
		return nil
	}
	w.mu.Lock()
	further, asks := w.receiver.Tracker.Settle(), w.receiver.Asks(time.Now())
	if w.problem != nil || !w.confirm { // of the output or of -record: what came is not kept
		further = nil
	}
	w.mu.Unlock()
	for _, a := range asks {
		topic := mqtt.ResendTopic(meter.ID(a.Site), meter.ID(a.Gateway), a.Lane)
		if err := say(ctx, conn, topic, false, mqtt.Range{Epoch: a.Epoch, First: a.First, Last: a.Last}.AppendJSON(nil)); err != nil {
			return err
		}
	}
	for _, s := range further {
		topic := mqtt.AckTopic(meter.ID(s.Site), meter.ID(s.Gateway), s.Lane)
		if err := say(ctx, conn, topic, true, mqtt.Confirmation{Epoch: s.Epoch, Sequence: s.Through}.AppendJSON(nil)); err != nil {
			return err
		}
	}
	return nil
}

// say publishes and waits until the broker has it.
func say(ctx context.Context, conn *mqtt.Conn, topic string, retained bool, payload []byte) error {
	token, err := conn.Publish(ctx, topic, retained, payload)
	if err != nil {
		return err
	}
	select {
	case <-token.Done():
		return nil
	case <-conn.Done():
		return conn.Err()
	}
}

// drain takes what is on its way when the run ends: until nothing has come for
// a while, and not for long.
func (w *watch) drain(conn *mqtt.Conn) {
	for range 8 {
		before := w.count()
		quiet := time.NewTimer(250 * time.Millisecond)
		select {
		case <-quiet.C:
		case <-conn.Done():
			return
		}
		if w.count() == before {
			return
		}
	}
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.messages
}

func (w *watch) note(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.show.note(text)
}

// take takes a message of the broker.
func (w *watch) take(m mqtt.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages++
	if w.problem == nil {
		w.problem = w.keep(m)
	}
	fresh, err := w.receiver.Take(m.Topic, m.Payload)
	if err != nil {
		w.show.note(err.Error())
	}
	for _, r := range fresh {
		if w.problem == nil && w.filter.fits(&r) {
			w.problem = w.show.reading(r)
		}
	}
	if w.problem != nil {
		w.stop()
	}
}

// keep writes a message into the directory of -record.
func (w *watch) keep(m mqtt.Message) error {
	if w.record == "" || len(m.Payload) == 0 {
		return nil
	}
	topic, err := mqtt.ParseTopic(m.Topic)
	if err != nil || topic.Kind != mqtt.Readings && topic.Kind != mqtt.Catalogue {
		return nil //nolint:nilerr // nothing that decode reads
	}
	name := strings.NewReplacer("gridgate/1/", "", "/up/", "-", "/", "-").Replace(m.Topic)
	if err := os.WriteFile(filepath.Join(w.record, fmt.Sprintf("%08d-%s", w.messages, name)), m.Payload, 0o644); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// finish says what came of it.
func (w *watch) finish(env cli.Env) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	errs := []error{w.problem, w.show.end()}
	s := w.receiver.Summary()
	if w.summary != "" {
		b, err := json.Marshal(s)
		if err == nil {
			err = os.WriteFile(w.summary, append(b, '\n'), 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("summary: %w", err))
		}
	}
	to := env.Stdout
	if w.json {
		to = env.Stderr
	}
	_, err := fmt.Fprintf(to, "delivered %d rows in %d batches from %d gateways: %d missing, %d duplicates, %d conflicts, %d out of order, %d messages undecoded\n",
		s.Delivered, s.Batches, w.receiver.Tracker.Gateways(), s.Missing, s.Duplicates, s.Conflicts, s.OutOfOrder, s.Undecoded)
	errs = append(errs, err)
	if s.Conflicts > 0 {
		errs = append(errs, fmt.Errorf("%d rows came with the number of another row", s.Conflicts))
	}
	return errors.Join(errs...)
}

// lines shows a line a reading.
type lines struct {
	out   *bufio.Writer
	notes io.Writer
	json  bool
}

func (l *lines) reading(r track.Reading) error {
	if l.json {
		_, _ = l.out.Write(append(r.AppendJSON(l.out.AvailableBuffer()), '\n')) // Flush tells
	} else {
		row := &r.Row
		fmt.Fprintf(l.out, "%s  %-8s %8d  %-16s %-14s %16s %-4s %s\n", row.Stamp.UTC().Format("2006-01-02T15:04:05Z"),
			r.Lane, r.Sequence, clip(string(row.Meter), 0), clip(row.Channel.Short(), 0), clip(row.Value.String(), 0), row.Unit, row.Quality)
	}
	if err := l.out.Flush(); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

func (l *lines) note(text string) { fmt.Fprintln(l.notes, "gridfog watch:", clip(text, 1000)) }

func (l *lines) end() error { return nil }
