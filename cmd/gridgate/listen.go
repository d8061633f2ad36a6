package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/internal/cli"
)

// listenFlags are the flags of listen.
type listenFlags struct {
	zone string
	last time.Duration
	json bool
}

func listenVerb() cli.Verb {
	return cli.Verb{
		Name: "listen", Summary: "print what DLMS meters push", Args: "URL",
		Example: []string{
			"gridgate listen tcp://:4059",
			"gridgate listen dlms+udp://127.0.0.1:4059 -for 10m -json",
			"gridgate listen 'dlms+wrapper://0.0.0.0:4059?ek=file:/etc/gridgate/ek&ak=file:/etc/gridgate/ak'",
		},
		Setup: func(fs *flag.FlagSet) func(context.Context, cli.Env, []string) error {
			var f listenFlags
			fs.DurationVar(&f.last, "for", 0, "stop after this `DURATION` (default: with SIGINT)")
			fs.StringVar(&f.zone, "zone", "UTC", "the time `ZONE` of meters that do not tell their own")
			fs.BoolVar(&f.json, "json", false, "print one JSON object a value")
			return func(ctx context.Context, env cli.Env, args []string) error {
				return f.run(ctx, env, args)
			}
		},
	}
}

func (f listenFlags) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) != 1 {
		return cli.Usagef("listen: want one URL; `gridgate listen -h` shows examples")
	}
	at, err := parseListen(args[0])
	if err != nil {
		return cli.Usagef("listen: address: %v", err)
	}
	zone, err := loadZone("listen", f.zone)
	if err != nil {
		return err
	}
	if f.last < 0 {
		return cli.Usagef("listen: -for %v: want a duration above zero", f.last)
	}
	out := newRowPrinter(env.Stdout, f.json)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tell := func(from netip.AddrPort, err error) {
		fmt.Fprintf(env.Stderr, "gridgate: listen: from %v: %v\n", from, err)
	}
	r := &cosem.Receiver{Now: now, TimeZone: zone, Bad: tell, Got: func(from netip.AddrPort, p cosem.Pushed) {
		if len(p.Rows) == 0 {
			tell(from, fmt.Errorf("%v without values", p.Kind))
		}
		for _, row := range p.Rows {
			out.print(row)
		}
		if err := out.flush(); err != nil {
			cancel(err)
		}
	}}
	secrets, err := at.secrets.Resolve(env.Getenv, os.ReadFile)
	if err == nil {
		err = drivers.SetKeys(r, at.secrets.Security.Suite, secrets)
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if f.last > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, f.last)
		defer stop()
	}
	err = r.Listen(ctx, at.network, at.host, func(a net.Addr) {
		fmt.Fprintf(env.Stderr, "gridgate: listening on %s %v\n", at.network, a)
	})
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		err = cause // what was received could not be printed
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// listenAddress is where to listen.
type listenAddress struct {
	network, host string          // for net
	secrets       address.Address // the keys of the meters: nothing else in it counts
}

// parseListen reads an address of this machine:
//
//	tcp://[HOST][:4059], dlms+wrapper://… the same, dlms+udp://…
//
// with the keys ek, ak and suite. No host is every address of the machine.
// Errors quote nothing that may be a secret.
func parseListen(text string) (listenAddress, error) {
	const want = "want tcp://[HOST][:4059], dlms+wrapper://… or dlms+udp://…"
	var at listenAddress
	scheme, rest, ok := strings.Cut(text, "://")
	switch strings.ToLower(scheme) {
	case "tcp", "dlms+wrapper":
		at.network = "tcp"
	case "udp", "dlms+udp":
		at.network = "udp"
	default:
		ok = false
	}
	if !ok {
		return at, errors.New("unknown scheme: " + want)
	}
	where, query, _ := strings.Cut(rest, "?")
	where = strings.TrimSuffix(where, "/")
	if strings.Contains(where, "@") {
		return at, errors.New("credentials do not stand before the host")
	}
	if strings.LastIndexByte(where, ':') <= strings.LastIndexByte(where, ']') {
		where += ":4059"
	}
	host, port, err := net.SplitHostPort(where)
	_, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || strings.ContainsAny(host, "/ %") {
		return at, errors.New("neither host nor port: " + want)
	}
	at.host = net.JoinHostPort(host, port)
	return at, at.query(query)
}

func (a *listenAddress) query(query string) error {
	if query == "" {
		return nil
	}
	s := &a.secrets.Security
	for i, part := range strings.Split(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(value)
		if err != nil || value == "" {
			return fmt.Errorf("part %d of the query: want KEY=VALUE, with %%26 for '&'", i+1)
		}
		switch name {
		case "ek":
			s.EK, err = address.ParseSecret(value)
		case "ak":
			s.AK, err = address.ParseSecret(value)
		case "suite":
			var n uint64
			if n, err = strconv.ParseUint(value, 10, 8); err != nil || n > 2 {
				err = errors.New("want 0, 1 or 2")
			}
			s.Suite = uint8(n)
		default:
			return fmt.Errorf("part %d of the query: unknown key: want ek, ak or suite", i+1)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if s.EK.IsZero() && (!s.AK.IsZero() || s.Suite != 0) {
		return errors.New("ek: missing: ak and suite need the encryption key beside them")
	}
	return nil
}
