package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"gridgate/cmd/gridfog/bridge"
	"gridgate/cmd/gridfog/track"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
	"gridgate/internal/secret"
)

func bridgeVerb() cli.Verb {
	return cli.Verb{
		Name:    "bridge",
		Summary: "give readings to consumers of SenML (RFC 8428) or Sparkplug B 3.0",
		Args:    "senml|sparkplug",
		Example: []string{
			"gridfog bridge senml -broker mqtt://127.0.0.1:1883 -out -",
			"gridfog bridge senml -broker mqtts://broker.example:8883 -ca ca.pem -cert fog.pem -key fog.key -prefix senml",
			"gridfog bridge sparkplug -broker mqtt://127.0.0.1:1883 -state /var/lib/gridfog/sparkplug",
			"gridfog bridge sparkplug -broker mqtt://127.0.0.1:1883 -to mqtt://scada.example:1883 -primary scada -state /var/lib/gridfog/sparkplug",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			b := &bridging{}
			fs.StringVar(&b.broker, "broker", "mqtt://127.0.0.1:1883", "the `URL` of the broker of the gateways: mqtt:// (or tcp://), or mqtts:// for TLS")
			fs.StringVar(&b.to, "to", "", "the `URL` of the consumers' broker; without it the same one")
			fs.StringVar(&b.tls.CAFile, "ca", "", "trust these authorities only: a PEM `FILE`")
			fs.StringVar(&b.tls.CertFile, "cert", "", "client certificate, a PEM `FILE`")
			fs.StringVar(&b.tls.KeyFile, "key", "", "its key, a PEM `FILE`")
			fs.StringVar(&b.user, "user", "", "user `NAME` at the brokers")
			fs.StringVar(&b.passwordFile, "password-file", "", "`FILE` with the user's password")
			fs.StringVar(&b.site, "site", "", "this `SITE` only")
			fs.StringVar(&b.gateway, "gateway", "", "this `GATEWAY` only")
			fs.StringVar(&b.session, "session", "1", "the `NAME` of the session that the broker keeps while the bridge is away; two bridges need two")
			fs.BoolVar(&b.ask, "ask", true, "ask gateways in delta mode for what the bridge cannot decode after a start; nothing else is said to gateways")
			fs.DurationVar(&b.limit, "for", 0, "end by itself after this `TIME`, as 90s or 2h")
			fs.StringVar(&b.out, "out", "", "senml: a pack a line into this `FILE`, - for the standard output, instead of publishing")
			fs.StringVar(&b.prefix, "prefix", "senml", "senml: publish at `TOPIC`/<site>/<gateway>/<lane>")
			fs.StringVar(&b.base, "base", bridge.DefaultBase, "senml: what `NAME`s begin with, before <site>/<gateway>/<meter>/")
			fs.BoolVar(&b.resolved, "resolved", false, "senml: whole name and time in each record, no base fields")
			fs.StringVar(&b.primary, "primary", "", "sparkplug: tell nothing while this `HOST` application is offline")
			fs.StringVar(&b.state, "state", "", "sparkplug: keep bdSeq, metrics and aliases over a restart in this `DIR`")
			fs.DurationVar(&b.historical, "historical-after", bridge.DefaultHistoricalAfter, "sparkplug: rows older than this `AGE` are historical")
			fs.IntVar(&b.rate, "rate", 1000, "sparkplug: send at most this `NUMBER` of messages a second")
			fs.BoolVar(&b.strict, "strict", false, "sparkplug: no data types in DDATA, for hosts that mind them")
			return b.run
		},
	}
}

// bridging is one run of the verb.
type bridging struct {
	broker, to, user, passwordFile, site, gateway, session string
	out, prefix, base, primary, state                      string
	limit, historical                                      time.Duration
	rate                                                   int
	strict, ask, resolved                                  bool
	tls                                                    mqtt.TLS
}

func (b *bridging) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) != 1 || args[0] != "senml" && args[0] != "sparkplug" {
		return cli.Usagef("bridge: want senml or sparkplug, and flags")
	}
	if err := b.check(args[0]); err != nil {
		return err
	}
	source, err := b.options(b.broker, "-broker")
	if err != nil {
		return err
	}
	if b.to == "" {
		b.to = b.broker
	}
	to, err := b.options(b.to, "-to")
	if err != nil {
		return err
	}
	source.ClientID, source.Persistent = "gridfog-"+args[0]+"-in-"+b.session, true
	to.ClientID, to.KeepAlive = "gridfog-"+args[0]+"-"+b.session, 30*time.Second
	to.MaxInbound = 0 // hosts say little
	if b.limit > 0 {
		var release context.CancelFunc
		ctx, release = context.WithTimeout(ctx, b.limit)
		defer release()
	}
	var mu sync.Mutex
	note := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(env.Stderr, "gridfog bridge:", text)
	}
	from := bridge.Source{MQTT: source, Site: b.site, Gateway: b.gateway}
	if args[0] == "senml" {
		return b.runSenML(ctx, env, from, to, note)
	}
	s := bridge.Sparkplug{
		Source: from, Ask: b.ask, To: to, PrimaryHost: b.primary, Store: bridge.Store{Dir: b.state}, Rate: b.rate, Note: note, Now: time.Now,
		Node: bridge.NodeOptions{HistoricalAfter: b.historical, Strict: b.strict},
	}
	if err := s.CheckIDs(); err != nil {
		return cli.Usagef("bridge: %v", err)
	}
	c := s.Run(ctx)
	_, err = fmt.Fprintf(env.Stdout, "told %d rows in %d messages, %d births; %s\n", c.Rows, c.Messages, c.Births, received(c.Source))
	return err
}

func (b *bridging) runSenML(ctx context.Context, env cli.Env, from bridge.Source, to mqtt.Options, note func(string)) error {
	s := bridge.SenMLRun{Source: from, Ask: b.ask, SenML: bridge.SenML{Base: b.base, Resolved: b.resolved}, To: to, Prefix: b.prefix, Note: note}
	summary := env.Stdout
	var file *os.File
	switch b.out {
	case "":
	case "-":
		s.Out, summary = env.Stdout, env.Stderr
	default:
		var err error
		if file, err = os.OpenFile(b.out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
			return fmt.Errorf("output: %w", err)
		}
		s.Out = file
	}
	c, err := s.Run(ctx)
	if file != nil {
		if cerr := file.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("output: %w", cerr)
		}
	}
	fmt.Fprintf(summary, "told %d rows in %d packs, %d rows without a time left out, %d packs not sent; %s\n",
		c.Rows, c.Packs, c.Timeless, c.Unwritten, received(c.Source))
	return err
}

func received(t track.Totals) string {
	return fmt.Sprintf("received %d rows in %d batches: %d missing, %d duplicates, %d conflicts, %d messages undecoded",
		t.Delivered, t.Batches, t.Missing, t.Duplicates, t.Conflicts, t.Undecoded)
}

// check checks the flags that need no look at the world.
func (b *bridging) check(kind string) error {
	for name, id := range map[string]string{"site": b.site, "gateway": b.gateway, "session": b.session} {
		if _, err := meter.ParseID(id); err != nil && (id != "" || name == "session") {
			return cli.Usagef("bridge: -%s: %v", name, err)
		}
	}
	foreign := map[string]bool{ // flags of the other kind that were set
		"-primary": b.primary != "", "-state": b.state != "", "-strict": b.strict,
	}
	if kind == "sparkplug" {
		foreign = map[string]bool{"-out": b.out != "", "-prefix": b.prefix != "senml", "-base": b.base != bridge.DefaultBase, "-resolved": b.resolved}
	}
	for name, set := range foreign {
		if set {
			return cli.Usagef("bridge: %s is not for %s", name, kind)
		}
	}
	switch {
	case b.rate < 1 || b.rate > 1_000_000:
		return cli.Usagef("bridge: -rate %d: want 1 to 1000000", b.rate)
	case b.historical <= 0:
		return cli.Usagef("bridge: -historical-after %v: want more than 0", b.historical)
	case b.prefix == "" || strings.ContainsAny(b.prefix, "+#\x00") || len(b.prefix) > math.MaxUint16/2:
		return cli.Usagef("bridge: -prefix %q: a topic without wildcards", b.prefix)
	case strings.HasPrefix(b.prefix+"/", "gridgate/"):
		return cli.Usagef("bridge: -prefix %q: that is where gateways are", b.prefix)
	}
	if err := bridge.CheckBase(b.base); err != nil {
		return cli.Usagef("bridge: -base: %v", err)
	}
	return nil
}

// options says how to connect to a broker.
func (b *bridging) options(url, flag string) (mqtt.Options, error) {
	address, secure, err := mqtt.ParseURL(strings.Replace(url, "tcp://", "mqtt://", 1))
	if err != nil {
		return mqtt.Options{}, cli.Usagef("bridge: %s: %v", flag, err)
	}
	o := mqtt.Options{Address: address, Username: b.user, KeepAlive: time.Minute, MaxInbound: maxMessage}
	if secure {
		if o.TLS, err = b.tls.Config(); err != nil {
			return mqtt.Options{}, fmt.Errorf("broker %s: %w", address, err)
		}
	} else if b.tls != (mqtt.TLS{}) && !strings.HasPrefix(b.broker, "mqtts:") && !strings.HasPrefix(b.to, "mqtts:") {
		return mqtt.Options{}, cli.Usagef("bridge: -ca, -cert and -key go with an mqtts:// broker")
	}
	if b.passwordFile != "" {
		text, err := os.ReadFile(b.passwordFile)
		if err != nil {
			return mqtt.Options{}, fmt.Errorf("password: %w", err)
		}
		o.Password = secret.Of(strings.TrimRight(string(text), "\r\n"))
	}
	return o, nil
}
