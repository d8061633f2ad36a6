package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
)

// network brings up every wired interface that there is or that comes, each with
// an address by DHCP.
func network(ctx context.Context) {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		if err := netlink.LinkSetUp(lo); err != nil {
			log.Printf("lo: %v", err)
		}
	}
	seen := map[string]bool{}
	for ctx.Err() == nil {
		links, err := netlink.LinkList()
		if err != nil {
			log.Printf("network: %v", err)
		}
		for _, l := range links {
			name := l.Attrs().Name
			if seen[name] || l.Attrs().Flags&net.FlagLoopback != 0 || l.Type() != "device" || l.Attrs().EncapType != "ether" {
				continue
			}
			seen[name] = true
			go lease(ctx, name)
		}
		pause(ctx, 2*time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// lease keeps an address of an interface for as long as it is there.
func lease(ctx context.Context, name string) {
	said := ""
	wait := time.Second
	for ctx.Err() == nil {
		err := hold(ctx, name, func() { wait, said = time.Second, "" })
		if ctx.Err() != nil {
			return
		}
		if text := fmt.Sprint(err); text != said {
			said = text
			log.Printf("%s has no address by DHCP: %s", name, text)
		}
		pause(ctx, wait)
		wait = min(2*wait, time.Minute)
	}
}

// hold gets an address, sets it, and renews it until that fails.
func hold(ctx context.Context, name string, got func()) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	c, err := nclient4.New(name, nclient4.WithTimeout(3*time.Second), nclient4.WithRetry(4))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	l, err := c.Request(ctx)
	if err != nil {
		return err
	}
	for {
		if err := configure(link, l.ACK); err != nil {
			return err
		}
		got()
		half := max(time.Minute, l.ACK.IPAddressLeaseTime(time.Hour)/2)
		pause(ctx, half)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if l, err = c.Renew(ctx, l); err != nil {
			return err
		}
	}
}

func configure(link netlink.Link, ack *dhcpv4.DHCPv4) error {
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr, Mask: mask}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return err
	}
	if routers := ack.Router(); len(routers) > 0 {
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: routers[0]}); err != nil {
			return err
		}
	}
	var servers []string
	for _, s := range ack.DNS() {
		servers = append(servers, s.String())
	}
	if len(servers) > 0 {
		if err := nameServers().set(link.Attrs().Name, false, servers); err != nil {
			return err
		}
	}
	log.Printf("%s has %s (%s after power on)", link.Attrs().Name, addr.IPNet, uptime())
	return nil
}
