package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/drivers/drivertest"
	"gridgate/internal/cli"
)

// plcOptions are the flags of the verb.
type plcOptions struct {
	kind, listen, link, prefix, delay string
	pty                               bool
	nodes, network                    int
	loss, duplicates, churn           float64
	seed                              uint64
	capture                           time.Duration
	secured                           securedOptions
	clock                             clockOptions

	least, most time.Duration // -delay
}

// The kinds of bridges.
const (
	plcPrime   = "prime"
	plcGateway = "gateway"
	plcG3      = "g3"
	plcHDLC    = "hdlc"
)

func plcVerb() cli.Verb {
	return cli.Verb{
		Name:    "plc",
		Summary: "DLMS meters on a power line, behind its bridge; slow, lossy, and with nodes that leave",
		Example: []string{
			"metersim plc -kind prime -nodes 200 -loss 0.1 -delay 1s-8s -churn 0.05",
			"metersim plc -kind gateway -listen 127.0.0.1:4060 -nodes 5",
			"metersim plc -kind gateway -pty -link /tmp/plc",
			"metersim plc -kind g3 -listen '[::1]:4059' -nodes 5",
			"metersim plc -kind hdlc -nodes 5 -delay 200ms-1s",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var o plcOptions
			fs.StringVar(&o.kind, "kind", plcPrime, "prime (the TCP protocol of a base node), gateway (DLMS gateway header, by TCP or with -pty by HDLC),\n"+
				"g3 (UDP, a port a node) or hdlc (a transparent bridge to HDLC meters)")
			fs.StringVar(&o.listen, "listen", "127.0.0.1:4059", "the bridge's `host:port`; of g3 the first node's, the others take the ports after it; port 0 takes free ones")
			fs.BoolVar(&o.pty, "pty", false, "gateway, hdlc: on a pseudo-terminal; prints its path")
			fs.StringVar(&o.link, "link", "", "with -pty: make a symbolic link to the terminal at this `path`")
			fs.StringVar(&o.prefix, "serial-prefix", "GRG", "what serial numbers start with; six digits follow")
			fs.IntVar(&o.nodes, "nodes", 5, "how many meters")
			fs.IntVar(&o.network, "network", 0, "gateway: the number of the network")
			fs.Float64Var(&o.loss, "loss", 0, "the `part` of frames that is lost, each way")
			fs.StringVar(&o.delay, "delay", "0s", "how long a frame takes, each way: a duration, or a `range` 1s-8s")
			fs.Float64Var(&o.duplicates, "duplicates", 0, "the `part` of frames that come twice (not hdlc, not -pty)")
			fs.Float64Var(&o.churn, "churn", 0, "the `part` of nodes that leave for 2 to 10 minutes, after 5 to 20")
			fs.Uint64Var(&o.seed, "seed", 1, "of all that is random")
			fs.DurationVar(&o.capture, "capture", 15*time.Minute, "the capture period of the load profile 1-0:99.1.0, which goes back 40 days")
			o.clock.flags(fs)
			o.secured.flags(fs)
			return func(ctx context.Context, env cli.Env, args []string) error {
				if len(args) > 0 {
					return cli.Usagef("plc: unexpected argument %q", args[0])
				}
				return runPLC(ctx, env, o)
			}
		},
	}
}

func (o *plcOptions) check() error {
	part := func(v float64) bool { return v >= 0 && v < 1 }
	least, most, isRange := strings.Cut(o.delay, "-")
	var err, err2 error
	o.least, err = time.ParseDuration(least)
	if o.most = o.least; isRange {
		o.most, err2 = time.ParseDuration(most)
	}
	switch {
	case o.kind != plcPrime && o.kind != plcGateway && o.kind != plcG3 && o.kind != plcHDLC:
		return cli.Usagef("plc: -kind %q: want prime, gateway, g3 or hdlc", o.kind)
	case o.nodes < 1 || o.nodes > 2000:
		return cli.Usagef("plc: -nodes %d: want 1 to 2000", o.nodes)
	case o.network < 0 || o.network > 255:
		return cli.Usagef("plc: -network %d: want 0 to 255", o.network)
	case !part(o.loss) || !part(o.duplicates) || o.churn < 0 || o.churn > 1:
		return cli.Usagef("plc: -loss, -duplicates and -churn: want a part, 0 to 1, such as 0.1")
	case err != nil || err2 != nil || o.least < 0 || o.most < o.least || o.most > time.Minute:
		return cli.Usagef("plc: -delay %q: want a duration or a range, such as 1s-8s, up to 1m", o.delay)
	case o.pty && o.kind != plcGateway && o.kind != plcHDLC:
		return cli.Usagef("plc: -pty is for -kind gateway and hdlc")
	case o.link != "" && !o.pty:
		return cli.Usagef("plc: -link needs -pty")
	case o.capture < time.Second || o.capture%time.Second != 0:
		return cli.Usagef("plc: -capture %v: want whole seconds", o.capture)
	}
	return nil
}

// powerLine is what frames travel on, and the nodes on it.
type powerLine struct {
	plcOptions
	ctx   context.Context //nolint:containedctx // of all that travels
	nodes []*plcNode

	mu    sync.Mutex // also of the nodes
	fates *rand.Rand
	last  uint16            // device id given
	told  func(body []byte) // what a base node tells its client; nil for none
}

// plcNode is a meter on a power line.
type plcNode struct {
	number   int
	serial   string
	eui      [6]byte
	device   uint16 // PRIME; 0 when it is away
	away     bool
	meter    *dlmstest.Meter
	sessions map[string]*dlmstest.Session // by client
}

func runPLC(ctx context.Context, env cli.Env, o plcOptions) error {
	if err := cmp.Or(o.check(), o.clock.check("plc")); err != nil {
		return err
	}
	secured, err := o.secured.parse()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &powerLine{plcOptions: o, ctx: ctx, fates: rand.New(rand.NewPCG(o.seed, 0))}
	for i := range o.nodes {
		n := &plcNode{number: i, serial: fmt.Sprintf("%s%06d", o.prefix, i+1), sessions: map[string]*dlmstest.Session{}}
		n.eui = [6]byte{0x02, 0x47, 0x52, 0x47, byte((i + 1) >> 8), byte(i + 1)}
		n.device = uint16(i + 1)
		clock := o.clock.clock()
		h := household{number: i, serial: n.serial, capture: o.capture, now: clock.now, clock: clock}
		n.meter = dlmstest.NewMeter(dlmstest.Options{
			Clients: secured.clients(), Security: secured.security(i), Zone: time.Local, Name: h.deviceName(),
			Objects: append(h.objects(), l.objects(n)...),
		})
		l.nodes = append(l.nodes, n)
	}
	l.last = uint16(o.nodes)
	var churning sync.WaitGroup
	defer churning.Wait()
	defer cancel()
	for _, n := range l.nodes[:int(o.churn*float64(o.nodes))] {
		churning.Go(func() { l.churns(n) })
	}
	say := func(format string, args ...any) { fmt.Fprintf(env.Stdout, format+"\n", args...) }
	switch o.kind {
	case plcG3:
		return l.serveG3(ctx, say)
	case plcHDLC:
		return l.serveBridge(say, l.serveHDLC, func(where string, n *plcNode) string {
			return fmt.Sprintf("dlms+hdlc://%s?physical=%d&timeout=20s serial %s", where, firstPhysical+n.number, n.serial)
		})
	case plcGateway:
		return l.serveBridge(say, l.serveGateway, func(where string, n *plcNode) string {
			return fmt.Sprintf("plc+gateway://%s?network=%d&node=%X serial %s", where, o.network, n.address(), n.serial)
		})
	}
	return l.serveBridge(say, l.servePrime, func(where string, n *plcNode) string {
		return fmt.Sprintf("plc+prime://%s?node=%s eui48 %X device %d", where, n.serial, n.eui, n.device)
	})
}

// address is the physical device address behind a gateway.
func (n *plcNode) address() []byte {
	return []byte{0xA0, byte((n.number + 1) >> 8), byte(n.number + 1)}
}

// objects gives what a meter says of its place in the network: of the PRIME
// classes 81, 83 and 84, or of the G3 class 90.
func (l *powerLine) objects(n *plcNode) []dlmstest.Object {
	number := func(v int) axdr.Value { return axdr.DoubleLongUnsigned(uint32(v)) }
	of := func(class uint16, d byte, values map[int8]axdr.Value) dlmstest.Object {
		c := byte(28)
		if l.kind == plcG3 {
			c = 29
		}
		return dlmstest.Cells(class, obis.Code{0, 0, c, d, 0, 255}, values)
	}
	i := n.number
	switch l.kind {
	case plcPrime:
		return []dlmstest.Object{
			of(81, 1, map[int8]axdr.Value{2: axdr.LongUnsigned(uint16(i)), 3: axdr.LongUnsigned(0), 4: axdr.LongUnsigned(0)}),
			of(83, 3, map[int8]axdr.Value{2: axdr.Long(int16(i + 1)), 6: axdr.Enum(1), 8: axdr.Unsigned(uint8(i % 4))}),
			of(84, 4, map[int8]axdr.Value{2: number(1000 + i), 3: number(2000 + i), 6: number(i)}),
		}
	case plcG3:
		return []dlmstest.Object{of(90, 0, map[int8]axdr.Value{
			2: number(1000 + i), 3: number(2000 + i), 7: number(i), 8: number(i % 7),
		})}
	}
	return nil
}

// carry takes a frame over the line. Where it arrives, arrive is called, once,
// twice or never.
func (l *powerLine) carry(arrive func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for copies := 1; copies > 0; copies-- {
		if l.fates.Float64() < l.duplicates {
			copies++
		}
		if l.fates.Float64() < l.loss {
			continue
		}
		time.AfterFunc(l.took(), func() {
			if l.ctx.Err() == nil {
				arrive()
			}
		})
	}
}

// took gives how long a frame takes. mu is held.
func (l *powerLine) took() time.Duration {
	if l.most == l.least {
		return l.least
	}
	return l.least + time.Duration(l.fates.Int64N(int64(l.most-l.least)))
}

// pass is carry for who waits for it; it says whether the frame arrived.
func (l *powerLine) pass() bool {
	l.mu.Lock()
	lost, took := l.fates.Float64() < l.loss, l.took()
	l.mu.Unlock()
	return wait(l.ctx, took) && !lost
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// answers gives what a node answers to a client, who may be one of several by
// the name.
func (l *powerLine) answers(n *plcNode, who string, client uint16, apdu []byte) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.away {
		return nil
	}
	who = fmt.Sprint(who, " ", client)
	s := n.sessions[who]
	if s == nil {
		if len(n.sessions) >= maxSessions {
			clear(n.sessions)
		}
		s = n.meter.NewSession()
		n.sessions[who] = s
	}
	return s.Answer(client, apdu)
}

// isAway says whether the node left.
func (l *powerLine) isAway(n *plcNode) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return n.away
}

// churns has a node leave and come back. It has forgotten all associations
// then, and on PRIME it has another device id.
func (l *powerLine) churns(n *plcNode) {
	between := func(least, most time.Duration) time.Duration {
		l.mu.Lock()
		defer l.mu.Unlock()
		return least + time.Duration(l.fates.Int64N(int64(most-least)))
	}
	for {
		if !wait(l.ctx, between(5*time.Minute, 20*time.Minute)) {
			return
		}
		l.mu.Lock()
		l.tell(primeRemove(n))
		n.away, n.device = true, 0
		clear(n.sessions)
		l.mu.Unlock()
		if !wait(l.ctx, between(2*time.Minute, 10*time.Minute)) {
			return
		}
		l.mu.Lock()
		l.last++
		n.away, n.device = false, l.last
		l.tell(primeNew(n))
		l.mu.Unlock()
	}
}

func (l *powerLine) tell(body []byte) {
	if l.told != nil {
		l.told(body)
	}
}

// serveBridge serves the bridge on a port, or on a terminal, and says where its
// nodes are.
func (l *powerLine) serveBridge(say func(string, ...any), serve func(io.ReadWriter) error, describe func(string, *plcNode) string) error {
	tell := func(where string) {
		for _, n := range l.nodes {
			say("%s", describe(where, n))
		}
		say("ready %s", where)
	}
	if !l.pty {
		each := func(_ context.Context, stream io.ReadWriter) error { return serve(&lockedWriter{ReadWriter: stream}) }
		return listenAll(l.ctx, l.listen, []func(context.Context, io.ReadWriter) error{each}, func(_ int, at net.Addr) { tell(at.String()) })
	}
	tty, err := drivertest.Pty()
	if err != nil {
		return err
	}
	defer func() { _ = tty.Close() }()
	path := tty.Path
	if l.link != "" {
		remove, err := symlink(tty.Path, l.link)
		if err != nil {
			return err
		}
		defer remove()
		path = l.link
	}
	stop := context.AfterFunc(l.ctx, func() { _ = tty.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	tell(path)
	if err = serve(tty); l.ctx.Err() != nil {
		return nil
	}
	return errors.Join(fmt.Errorf("%s: the terminal ended", path), err)
}
