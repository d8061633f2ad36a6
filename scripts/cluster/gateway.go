package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"gridgate/agent/intake"
	"gridgate/agent/uplink"
	"gridgate/agent/validate"
	"gridgate/buffer"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// unbounded is a budget that nobody spends: with a budget an uplink counts what
// it sends and receives, headers of IP included.
const unbounded = 1 << 50

// gateway is an agent from behind its pollers on: intake, buffer and uplink are
// the agent's own.
type gateway struct {
	number int
	store  *buffer.Store
	intake *intake.Intake
	up     *uplink.Uplink
}

// gatewayOptions are the same for all gateways.
type gatewayOptions struct {
	Fleet   fleet
	Dir     string   // of their stores
	Brokers []string // HOST:PORT; gateways begin with different ones
	CA      string   // a file; empty is without TLS
	Certs   string   // folder of SITE.GATEWAY.pem and .key
	Confirm string   // fog, broker, or mixed: every second gateway
}

func openGateway(o *gatewayOptions, number int, log *slog.Logger) (*gateway, error) {
	g := &gateway{number: number}
	site, id := o.Fleet.site(number), o.Fleet.gateway(number)
	name := fmt.Sprintf("%s.%s", site, id)
	options := mqtt.Options{ClientID: fmt.Sprintf("%s_%s", site, id)} // the default of configs
	if o.CA != "" {
		base := filepath.Join(o.Certs, name)
		config, err := mqtt.TLS{CAFile: o.CA, CertFile: base + ".pem", KeyFile: base + ".key"}.Config()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		options.TLS = config
	}
	var paths []uplink.Path
	for i := range o.Brokers {
		paths = append(paths, uplink.Path{Address: o.Brokers[(number+i)%len(o.Brokers)]})
	}
	var err error
	if g.store, err = buffer.Open(filepath.Join(o.Dir, name), buffer.Options{BootID: name}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	committed := make(chan struct{}, 1)
	g.intake = intake.New(intake.Config{
		Store: g.store, Validator: validate.New(validate.Config{}), Log: log,
		Gather: time.Millisecond, MaxWaiting: 4 << 20, Committed: committed,
	})
	g.up = uplink.New(uplink.Config{
		Site: site, Gateway: id, Version: "cluster", MQTT: options, Paths: paths, Store: g.store, Wake: committed,
		FogConfirms: o.Confirm == "fog" || o.Confirm == "mixed" && number%2 == 0, Budget: uplink.Budget{Day: unbounded}, Log: log.With("gateway", name),
	})
	return g, nil
}

// run works until ctx ends.
func (g *gateway) run(ctx context.Context) error {
	var all sync.WaitGroup
	var errs [2]error
	all.Go(func() { errs[0] = g.intake.Run(ctx) })
	all.Go(func() { errs[1] = g.up.Run(ctx) })
	all.Wait()
	return errors.Join(errs[0], errs[1], g.store.Close())
}

// read submits a round and waits until it is stored.
func (g *gateway) read(ctx context.Context, f fleet, quarter int) error {
	stored := make(chan struct{})
	g.intake.Submit(f.round(g.number, quarter, g.store.Boot()), nil, func() { close(stored) })
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// counts are of gateways together.
type counts struct {
	Connected  int    // gateways
	Last       uint64 // rows numbered
	Acked      uint64 // of them, acknowledged
	Bytes      uint64 // of MQTT, published
	Wire       uint64 // of IP, both directions
	Batches    uint64
	Reconnects uint64
	Resent     uint64
	Lost       uint64 // rows that a store declared lost
}

func (g *gateway) count(c *counts) {
	s := g.up.Stats()
	if s.Connected {
		c.Connected++
	}
	c.Bytes += s.Bytes
	c.Wire += uint64(s.DayBytes)
	c.Batches += s.Batches
	c.Reconnects += s.Reconnects
	c.Resent += s.Resent
	for _, lane := range meter.Lanes() {
		c.Last += g.store.Last(lane)
		c.Acked += g.store.Acked(lane)
	}
	c.Lost += g.intake.Stats().Dropped
}
