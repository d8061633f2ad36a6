package ppp

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Metric is that of the default route by the modem: a wired one, which has a smaller
// one, goes first.
const Metric = 700

// Configure sets address, MTU and routes of an interface.
func Configure(name string, n Network) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	peer := n.Peer
	if !peer.IsValid() {
		// As pppd does. Nobody talks to it: what goes to the interface goes to the peer.
		peer = netip.AddrFrom4([4]byte{10, 64, 64, 64})
	}
	host := func(a netip.Addr) *net.IPNet { return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)} }
	if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: host(n.Local), Peer: host(peer)}); err != nil {
		return fmt.Errorf("%s: address %s: %w", name, n.Local, err)
	}
	if err := netlink.LinkSetMTU(l, n.MTU); err != nil {
		return fmt.Errorf("%s: MTU %d: %w", name, n.MTU, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: all, Scope: unix.RT_SCOPE_LINK, Priority: Metric}); err != nil {
		return fmt.Errorf("%s: default route: %w", name, err)
	}
	return nil
}

// Unconfigure takes an interface down that will have another address.
func Unconfigure(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetDown(l); err != nil {
		return err
	}
	addrs, err := netlink.AddrList(l, unix.AF_INET)
	if err != nil {
		return err
	}
	for i := range addrs {
		if err := netlink.AddrDel(l, &addrs[i]); err != nil {
			return err
		}
	}
	return nil
}
