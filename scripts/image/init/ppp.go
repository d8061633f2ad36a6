package main

import (
	"context"
	"log"
	"os"
	"slices"
	"strings"
	"sync"

	"gridgate/scripts/image/ppp"
)

// dial connects by the modem, where there is a ppp.conf, beside what is wired.
func dial(ctx context.Context, mods *modules) {
	const file = "/data/gridgate/etc/ppp.conf"
	conf, there, err := ppp.Load(file)
	if !there {
		return
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			log.Printf("no PPP: %s", strings.TrimSpace(line))
		}
		return
	}
	mods.load("ppp_async")
	// With its cable out, a wired interface's route would still be taken first.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown", []byte("1"), 0); err != nil {
		log.Print(err)
	}
	k := ppp.Keeper{
		Conf:  conf,
		Tried: "/data/gridgate/ppp.tried",
		Say:   func(text string) { log.Printf("PPP: %s", text) },
		Up: func(name string, n ppp.Network) error {
			if err := ppp.Configure(name, n); err != nil {
				return err
			}
			var servers []string
			for _, a := range n.DNS {
				servers = append(servers, a.String())
			}
			log.Printf("%s has %s by %s, name servers %s (%s after power on)", name, n.Local, conf.Device, servers, uptime())
			return nameServers().set(name, true, servers)
		},
		Down: func(name string) {
			log.Printf("%s is down", name)
			if err := nameServers().set(name, true, nil); err != nil {
				log.Print(err)
			}
			_ = ppp.Unconfigure(name) // it may be gone already
		},
	}
	if err := k.Run(ctx); err != nil {
		log.Printf("PPP: %v", err)
	}
}

// resolvers writes resolv.conf: the servers of wired interfaces come first.
type resolvers struct {
	path string
	mu   sync.Mutex
	by   map[string]servers // by interface
}

type servers struct {
	dialled bool
	addrs   []string
}

var nameServers = sync.OnceValue(func() *resolvers { //nolint:gochecknoglobals // there is one file
	return &resolvers{path: "/etc/resolv.conf", by: map[string]servers{}}
})

// set sets the servers of an interface; none are none.
func (r *resolvers) set(name string, dialled bool, addrs []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by[name] = servers{dialled, addrs}
	var names []string
	for n := range r.by {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if r.by[a].dialled != r.by[b].dialled {
			if r.by[a].dialled {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	for _, n := range names {
		for _, s := range r.by[n].addrs {
			b.WriteString("nameserver " + s + "\n")
		}
	}
	if err := os.WriteFile(r.path+".new", []byte(b.String()), 0o644); err != nil { //nolint:gosec // who resolves names reads it
		return err
	}
	return os.Rename(r.path+".new", r.path)
}
