package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

// plan is one run.
type plan struct {
	Root    string // of the repository
	Broker  string // nats, mosquitto or rabbitmq
	Confirm string // fog, broker, or mixed
	Members int    // of gridfog ingest
	Fleet   fleet
	Faults  bool // kill a node and a member on the way
	Log     io.Writer
	// After is called when all was found as it should be, for a test of the finding.
	After func(ctx context.Context, url string) error
}

func (p *plan) say(format string, args ...any) { fmt.Fprintf(p.Log, "  "+format+"\n", args...) }

// outcome is what a run came to.
type outcome struct {
	plan    plan
	took    time.Duration // from the first reading until all were in the database
	end     progress
	verdict verdict
	room    int64 // of the readings in the database, in bytes
	node    int   // memory of a node of the broker, in bytes
}

// run makes the fleet, the broker, the database and the fog, has the meters read
// and looks at what arrived. The error is for what is missing or double, too.
func (p plan) run(ctx context.Context) (o outcome, err error) {
	s, err := newStage()
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r := &running{plan: &p, stage: s}
	if err := r.prepare(ctx); err != nil {
		return o, err
	}
	o.plan = p
	begun := time.Now()
	if err := r.stream(ctx); err != nil {
		return o, err
	}
	o.took, o.end = time.Since(begun), r.crowd.progress()
	last := r.broker.nodes[len(r.broker.nodes)-1]
	if o.node, err = groupMemory(last.cmd.Process.Pid); err != nil {
		return o, err
	}
	for _, m := range r.members {
		if err := m.stop(); err != nil {
			return o, err
		}
	}
	if o.room, err = room(ctx, r.url); err != nil {
		return o, err
	}
	if o.verdict, err = check(ctx, r.url, p.Fleet); err != nil {
		return o, err
	}
	if err := o.verdict.err(); err != nil || p.After == nil {
		return o, err
	}
	return o, p.After(ctx, r.url)
}

// running is a run under way.
type running struct {
	*plan
	stage   *stage
	broker  *broker
	url     string // of the database
	fog     string // gridfog
	members []*process
	crowd   *crowd
}

func (r *running) file(name string) string { return filepath.Join(r.stage.dir, "certs", name) }

func (r *running) prepare(ctx context.Context) (err error) {
	configs := filepath.Join(r.Root, "configs", "fog")
	begun := time.Now()
	if r.broker, err = startBroker(ctx, r.stage, r.Broker, configs, r.Fleet); err != nil {
		return err
	}
	if r.url, err = startPostgres(ctx, r.stage, configs); err != nil {
		return err
	}
	if r.fog, err = gridfog(ctx, r.Root, r.stage.dir); err != nil {
		return err
	}
	for i := range r.Members {
		if err := r.startMember(i); err != nil {
			return err
		}
	}
	if err := r.membersReady(ctx, 0); err != nil {
		return err
	}
	r.crowd, err = startGateways(r.stage, gatewayOptions{
		Fleet: r.Fleet, Dir: filepath.Join(r.stage.dir, "stores"), Brokers: r.broker.addresses,
		CA: r.file("ca.pem"), Certs: r.file(""), Confirm: r.Confirm,
	})
	if err != nil {
		return err
	}
	if err != nil {
		return err
	}
	err = r.crowd.until(ctx, "all gateways are connected", func() bool { return r.crowd.progress().Connected == r.Fleet.Gateways })
	if err == nil {
		err = r.membersReady(ctx, min(r.Fleet.Sites, r.Fleet.Gateways))
	}
	if err == nil {
		err = r.subscribed(ctx, min(r.Fleet.Sites, r.Fleet.Gateways))
	}
	if err == nil {
		r.say("%s, PostgreSQL, %d members of gridfog ingest, %d gateways with %d meters each: up in %.1f s",
			r.Broker, r.Members, r.Fleet.Gateways, r.Fleet.Meters, time.Since(begun).Seconds())
	}
	return err
}

// stream has the meters read, cuts off a node and a member on the way, and
// waits until all is stored.
func (r *running) stream(ctx context.Context) error {
	half := r.Fleet.Quarters / 2
	if err := r.crowd.begin(half); err != nil {
		return err
	}
	if r.Faults {
		if err := r.cut(ctx); err != nil {
			return err
		}
	}
	if err := r.crowd.begin(r.Fleet.Quarters - half); err != nil {
		return err
	}
	if err := r.crowd.until(ctx, "all is acknowledged", func() bool { return r.crowd.progress().Done }); err != nil {
		return fmt.Errorf("%w\n%+v\n%s", err, r.crowd.progress(), r.members[len(r.members)-1].tail())
	}
	// Acknowledged by the broker is not stored yet.
	return await(ctx, "all is stored", func() bool {
		n, err := stored(ctx, r.url)
		return err == nil && n >= r.Fleet.rows()
	})
}

// cut kills a node of the broker and a member while readings come in.
func (r *running) cut(ctx context.Context) error {
	some := func(part int) func() bool {
		return func() bool { return int(r.crowd.progress().Acked) >= r.Fleet.rows()/part }
	}
	if err := r.crowd.until(ctx, "the first readings are acknowledged", some(20)); err != nil {
		return err
	}
	r.broker.kill(0)
	r.say("killed %s after %d of %d values", r.broker.nodes[0].name, r.crowd.progress().Acked, r.Fleet.rows())
	if len(r.broker.nodes) == 1 {
		if err := r.broker.restart(ctx, 0); err != nil {
			return err
		}
	}
	if err := r.crowd.until(ctx, "more readings are acknowledged", some(4)); err != nil {
		return err
	}
	r.members[0].kill()
	r.say("killed %s after %d of %d values", r.members[0].name, r.crowd.progress().Acked, r.Fleet.rows())
	r.members = r.members[1:]
	return nil
}
