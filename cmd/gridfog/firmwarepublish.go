package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
	"gridgate/internal/mqtt"
)

// rollout is one call of a verb of firmware that talks with the broker.
type rollout struct {
	client
	objects, site, membersFile, trustFile string
	waveLists                             []string
	maxFailures                           int
	maxPending                            allowance
	wait                                  time.Duration
	rate                                  int64
	again, json                           bool

	env     cli.Env
	waves   []*wave
	members *accessList          // that were named; nil: none
	packed  map[string][]*object // by document's path

	mu       sync.Mutex
	steps    int               // things done for the first time, and words of gateways
	sent     map[string]bool   // objects, by the topics of their indexes
	gateways map[string]*heard // by SITE/GATEWAY
	retained map[string][]byte // what the broker had, by topic
	changed  chan struct{}
}

func newRollout() *rollout {
	return &rollout{client: client{verb: "firmware"}, packed: map[string][]*object{}, sent: map[string]bool{}, gateways: map[string]*heard{}, retained: map[string][]byte{}, changed: make(chan struct{}, 1)}
}

func (r *rollout) addWave(s string) error {
	r.waveLists = append(r.waveLists, s)
	return nil
}

func (r *rollout) setPending(s string) (err error) {
	r.maxPending, err = parseAllowance(s)
	return err
}

// errStopped is why a roll-out went no further.
type errStopped struct{ text string }

func (e *errStopped) Error() string { return e.text }

// publish rolls firmware out, wave by wave.
func (r *rollout) publish(ctx context.Context, env cli.Env, args []string) error {
	r.env = env
	if len(args) > 0 {
		r.waveLists = append(r.waveLists, strings.Join(args, ","))
	}
	switch {
	case len(r.waveLists) == 0:
		return cli.Usagef("firmware publish: want signed DOCUMENTS, or waves of them")
	case r.wait == 0 && len(r.waveLists) > 1:
		return cli.Usagef("firmware publish: with -wait 0 nobody would be waited for between the waves")
	case r.wait < 0 || r.rate < 0 || r.maxFailures < 0:
		return cli.Usagef("firmware publish: -wait, -rate and -max-failures are not negative")
	}
	if err := r.readAll(); err != nil {
		return fmt.Errorf("firmware publish: %w", err)
	}
	if err := r.prepare(nil); err != nil {
		return err
	}
	err := r.keepOn(ctx, r.roll)
	for _, w := range r.waves {
		if serr := r.show(w); serr != nil {
			return serr
		}
	}
	if err != nil {
		return fmt.Errorf("firmware publish: %w", err)
	}
	return nil
}

// readAll reads and checks all that is to be published: nothing is, when any of
// it is wrong.
func (r *rollout) readAll() error {
	if err := r.readMembers(); err != nil {
		return err
	}
	var trust *order.Trust
	if r.trustFile != "" {
		text, err := readDocument(r.trustFile)
		if err != nil {
			return err
		}
		if trust, _, err = order.FirstTrust(text); err != nil {
			return fmt.Errorf("%s: %w", r.trustFile, err)
		}
	}
	targets := map[string]string{}
	for i, list := range r.waveLists {
		all, err := readReleases(list)
		if err != nil {
			return err
		}
		for _, one := range all {
			if trust != nil {
				if _, err := trust.Verify(one.data); err != nil {
					return fmt.Errorf("%s: %w", one.path, err)
				}
			}
			if other, twice := targets[one.topic()]; twice {
				return fmt.Errorf("%s: it is for %s, and so is %s: the broker keeps one", one.path, one.d.Target, other)
			}
			targets[one.topic()] = one.path
			if r.objects == "" {
				if one.manifest.URL == "" {
					return fmt.Errorf("%s: it is fetched from the broker: name its parts with -objects", one.path)
				}
				continue
			}
			if r.packed[one.path], err = one.objectsIn(r.objects); err != nil {
				return err
			}
		}
		r.waves = append(r.waves, &wave{number: i + 1, releases: all})
	}
	return nil
}

func (r *rollout) readMembers() error {
	if r.membersFile == "" {
		return nil
	}
	text, err := os.ReadFile(r.membersFile)
	if err != nil {
		return err
	}
	if r.members, err = parseAccessList(r.membersFile, text); err != nil {
		return err
	}
	for name := range r.members.gateways {
		r.gateways[name] = &heard{}
	}
	return nil
}

// maxLost is how often in a row a connection may be lost within briefTime of its
// beginning with nothing done: some brokers refuse by ending it.
const (
	maxLost   = 5
	briefTime = time.Minute
)

// keepOn has use do its work, over as many connections as it takes. That the
// first one cannot be made is an error.
func (r *rollout) keepOn(ctx context.Context, use func(context.Context, *mqtt.Conn) error) error {
	lost, steps := 0, 0
	attempt := func(ctx context.Context, conn *mqtt.Conn) error {
		begun := time.Now()
		err := use(ctx, conn)
		r.mu.Lock()
		defer r.mu.Unlock()
		if lost++; r.steps != steps || time.Since(begun) > briefTime {
			lost, steps = 0, r.steps
		}
		if errors.Is(err, mqtt.ErrLost) && lost >= maxLost {
			return &errStopped{err.Error() + ", again and again; may this client publish firmware there?"}
		}
		return err
	}
	err := r.once(ctx, attempt)
	if errors.Is(err, mqtt.ErrLost) {
		fmt.Fprintln(r.env.Stderr, err.Error()+"; trying again")
		r.follow(ctx, func(text string) { fmt.Fprintln(r.env.Stderr, text) }, func(ctx context.Context, conn *mqtt.Conn, connected func()) error {
			connected()
			if err = attempt(ctx, conn); !errors.Is(err, mqtt.ErrLost) {
				return errEnough
			}
			return err
		})
	}
	if ctx.Err() != nil {
		return &errStopped{"interrupted; the same command goes on where it was"}
	}
	return err
}

// sites gives the sites that waves are for.
func (r *rollout) sites() []meter.ID {
	set := map[meter.ID]bool{}
	for _, w := range r.waves {
		for _, one := range w.releases {
			set[one.site()] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// listen subscribes to what gateways say. Those that were named are asked for
// one by one: some brokers give what is retained for exact topics only.
func (r *rollout) listen(ctx context.Context, conn *mqtt.Conn, sites []meter.ID) error {
	var filters []string
	for _, site := range sites {
		filters = append(filters, mqtt.FirmwareFilter(site))
		if site == "" {
			site = "+"
		}
		filters = append(filters, mqtt.StateTopic(site, "+"))
	}
	names := map[string]bool{}
	if r.members != nil {
		for name := range r.members.gateways {
			names[name] = true
		}
	}
	for _, w := range r.waves {
		for _, one := range w.releases {
			if one.d.Target.Gateway != "" {
				names[one.d.Target.String()] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		site, gateway, err := parseGateway(name)
		if err == nil && (slices.Contains(sites, site) || slices.Contains(sites, "")) {
			filters = append(filters, mqtt.FirmwareTopic(site, gateway), mqtt.StateTopic(site, gateway))
		}
	}
	for some := range slices.Chunk(filters, 64) {
		if err := conn.SubscribeAll(ctx, some, r.take); err != nil {
			return err
		}
	}
	return nil
}

// roll goes through the waves that are not over.
func (r *rollout) roll(ctx context.Context, conn *mqtt.Conn) error {
	r.mu.Lock()
	clear(r.retained) // a broker that was started anew may have less
	r.mu.Unlock()
	if err := r.listen(ctx, conn, r.sites()); err != nil {
		return err
	}
	for _, w := range r.waves {
		if w.passed {
			continue
		}
		if err := r.send(ctx, conn, w); err != nil {
			return err
		}
		if r.wait == 0 {
			return nil
		}
		if err := r.await(ctx, conn, w); err != nil {
			return err
		}
		w.passed = true
	}
	return nil
}

// send publishes what a wave lacks, and its documents when all of that is there.
func (r *rollout) send(ctx context.Context, conn *mqtt.Conn, w *wave) error {
	out := &sender{ctx: ctx, conn: conn, rate: r.rate}
	for _, one := range w.releases {
		if one.manifest.URL == "" {
			if err := r.sendObjects(out, one); err != nil {
				return err
			}
		}
	}
	if w.begun.IsZero() {
		w.begun = time.Now()
	}
	for _, one := range w.releases {
		if err := out.publish(one.topic(), one.data); err != nil {
			return err
		}
		if err := out.flush(); err != nil {
			return err
		}
		if !w.published {
			fmt.Fprintf(r.env.Stderr, "wave %d: %s: published on %s\n", w.number, one.path, one.topic())
		}
	}
	if !w.published {
		w.published = true
		r.step("")
	}
	return nil
}

// sendObjects publishes the objects of a release that its site lacks.
func (r *rollout) sendObjects(out *sender, one *release) error {
	all := r.packed[one.path]
	var lacks []*object
	if r.again {
		lacks = all
	} else {
		var topics []string
		for _, o := range all {
			topics = append(topics, o.indexTopic(one.site()))
		}
		there, err := r.look(out.ctx, out.conn, topics)
		if err != nil {
			return err
		}
		for _, o := range all {
			if sha256.Sum256(there[o.indexTopic(one.site())]) != o.Index {
				lacks = append(lacks, o)
			}
		}
	}
	parts, done := 0, 0
	for _, o := range lacks {
		parts += o.Parts() + 1
	}
	if parts == 0 {
		fmt.Fprintf(r.env.Stderr, "%s: the broker has all parts for the site %s\n", one.path, one.site())
		return nil
	}
	for _, o := range lacks {
		err := o.each(one.site(), func(topic string, payload []byte) error {
			if err := out.publish(topic, payload); err != nil {
				return err
			}
			if done++; done%max(parts/10, 1) == 0 || done == parts {
				fmt.Fprintf(r.env.Stderr, "%s: %d of %d parts for the site %s, %d octets\n", one.path, done, parts, one.site(), out.octets)
			}
			return nil
		})
		if err == nil {
			err = out.flush()
		}
		if err != nil {
			return err
		}
		r.step(o.indexTopic(one.site()))
	}
	return nil
}

// step counts what was done; what has a name, once.
func (r *rollout) step(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sent[name] {
		r.steps++
	}
	r.sent[name] = name != ""
}

// look gives what is retained on topics.
func (r *rollout) look(ctx context.Context, conn *mqtt.Conn, topics []string) (map[string][]byte, error) {
	for some := range slices.Chunk(topics, 64) {
		if err := conn.SubscribeAll(ctx, some, r.keep); err != nil {
			return nil, err
		}
	}
	err := r.settle(ctx, conn, func() bool {
		return !slices.ContainsFunc(topics, func(t string) bool { return r.retained[t] == nil })
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.retained), err
}

// keep takes what a broker has retained.
func (r *rollout) keep(m mqtt.Message) {
	r.mu.Lock()
	if r.retained[m.Topic] = slices.Clone(m.Payload); len(m.Payload) == 0 {
		delete(r.retained, m.Topic)
	}
	r.mu.Unlock()
	r.tell()
}

func (r *rollout) tell() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// settle waits until done, which is called with mu held, or until nothing more
// has come for a while.
func (r *rollout) settle(ctx context.Context, conn *mqtt.Conn, done func() bool) error {
	limit := time.NewTimer(settling)
	defer limit.Stop()
	for {
		r.mu.Lock()
		isDone := done()
		r.mu.Unlock()
		if isDone {
			return nil
		}
		select {
		case <-limit.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.Done():
			return conn.Err()
		case <-r.changed:
			limit.Reset(settling)
		}
	}
}

// inFlight is how many messages may wait for their PUBACK.
const inFlight = 16

// sender publishes retained messages, at a bounded rate.
type sender struct {
	ctx     context.Context //nolint:containedctx // it lives as long as one connection's work
	conn    *mqtt.Conn
	rate    int64 // octets a second; 0: no bound
	octets  int64
	waiting []mqtt.Token
	free    time.Time
}

func (s *sender) publish(topic string, payload []byte) error {
	if s.rate > 0 {
		t := time.NewTimer(time.Until(s.free))
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.conn.Done():
			return s.conn.Err()
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		s.free = time.Now().Add(time.Duration(float64(len(payload)) / float64(s.rate) * float64(time.Second)))
	}
	token, err := s.conn.Publish(s.ctx, topic, true, payload)
	if err != nil {
		return err
	}
	s.octets += int64(len(payload))
	if s.waiting = append(s.waiting, token); len(s.waiting) >= inFlight {
		err = s.await(s.waiting[0])
		s.waiting = s.waiting[1:]
	}
	return err
}

// flush waits until the broker has all.
func (s *sender) flush() error {
	for _, token := range s.waiting {
		if err := s.await(token); err != nil {
			return err
		}
	}
	s.waiting = nil
	return nil
}

func (s *sender) await(token mqtt.Token) error {
	select {
	case <-token.Done():
		return token.Err()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
