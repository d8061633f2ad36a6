package ppp

import "net/netip"

// Options of IPCP (RFC 1332, 3; RFC 1877, 1).
const (
	optAddress = 3
	optDNS1    = 129
	optDNS2    = 131
)

// Network is what the peer gave.
type Network struct {
	Local netip.Addr
	Peer  netip.Addr // not valid where the peer did not say
	DNS   []netip.Addr
	MTU   int // octets of an IP packet
}

// ipcp asks for an address and for name servers.
type ipcp struct {
	s    *Session
	want [3]struct {
		kind byte
		addr [4]byte
		off  bool
	}
	peer netip.Addr
}

func newIPCP(s *Session) *ipcp {
	c := &ipcp{s: s}
	for i, kind := range []byte{optAddress, optDNS1, optDNS2} {
		c.want[i].kind = kind
	}
	return c
}

func (c *ipcp) request() []option {
	var all []option
	for i := range c.want {
		if w := &c.want[i]; !w.off {
			all = append(all, option{w.kind, append([]byte(nil), w.addr[:]...)})
		}
	}
	return all
}

// judge grants the peer its own address. One that has none (0.0.0.0) does without:
// there is none to give, and the route needs none.
func (c *ipcp) judge(all []option, _ bool) (byte, []option) {
	var rejected []option
	for _, o := range all {
		if o.kind != optAddress || len(o.data) != 4 || netip.AddrFrom4([4]byte(o.data)).IsUnspecified() {
			rejected = append(rejected, o)
		}
	}
	if len(rejected) > 0 {
		return confRej, rejected
	}
	return confAck, all
}

func (c *ipcp) accept(all []option) {
	c.peer = netip.Addr{}
	for _, o := range all {
		c.peer = netip.AddrFrom4([4]byte(o.data))
	}
}

func (c *ipcp) refused(code byte, all []option) {
	for _, o := range all {
		for i := range c.want {
			switch w := &c.want[i]; {
			case w.kind != o.kind:
			case code == confRej:
				w.off = true
			case len(o.data) == 4:
				w.addr = [4]byte(o.data)
			}
		}
	}
}

func (c *ipcp) up() {
	n := Network{Local: netip.AddrFrom4(c.want[0].addr), Peer: c.peer, MTU: min(c.s.link.peer.mru, defaultMRU)}
	if c.want[0].off || !n.Local.IsValid() || n.Local.IsUnspecified() {
		c.s.note(errNoAddress)
		c.s.hangUp = true
		return
	}
	for _, w := range c.want[1:] {
		if a := netip.AddrFrom4(w.addr); !w.off && !a.IsUnspecified() {
			n.DNS = append(n.DNS, a)
		}
	}
	c.s.netUp(n)
}

func (c *ipcp) down()     { c.s.netDown() }
func (c *ipcp) finished() { c.s.note(errNoNetwork); c.s.hangUp = true }

func (c *ipcp) rejected(code byte) bool { return code > codeRej }

func (c *ipcp) other(packet) bool { return false }
