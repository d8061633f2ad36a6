package address

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
)

// The addresses of meters on power lines. The line is the bridge, or the
// network behind it, and carries several meters at a time:
//
//	plc+prime    the base node; node is the serial number under which the
//	             network knows the meter, or its EUI-48
//	plc+gateway  the gateway, over TCP or on a serial port; network and node
//	             are the meter's in the gateway's header
//	plc+g3       the /64 prefix of the meters' addresses, one to a network
//
// Keys: node; network=0 of gateways; parallel=4, how many meters are read at a
// time, but for serial ports; physical and addrlen of a gateway on a serial
// port.

// PLC is what addresses of power lines have; zero with others.
type PLC struct {
	// Node names the meter: as the scheme has it; with PLCG3 it is host:port.
	Node     string
	Network  uint8 // of PLCGateway
	Parallel int   // meters read at a time; 0 on serial ports
}

// DefaultParallel is how many meters of a power line are read at a time.
const DefaultParallel = 4

const (
	maxParallel = 32
	maxNode     = 64
	maxNodeHex  = 255 // octets of a physical device address
)

// IsPLC says whether the meter is on a power line.
func (s Scheme) IsPLC() bool { return s == PLCGateway || s == PLCPrime || s == PLCG3 }

// hasStation says whether frames may be those of HDLC, to a station.
func (s Scheme) hasStation() bool { return s.IsHDLC() || s == PLCGateway }

func (s Scheme) isNamedNode() bool { return s == PLCGateway || s == PLCPrime }

// ParseLine reads the address of a line, where no meter on it need be named.
// Parallel, where it is not 0, and Line count, and the settings of a serial
// port.
func ParseLine(s string) (Address, error) { return parse(s, parser{line: true}) }

func plcKeys() []key {
	return []key{
		{name: "network", fits: func(s Scheme) bool { return s == PLCGateway }, set: func(p *parser, a *Address, v string) {
			a.Network = uint8(p.number("network", v, 0, 255))
		}},
		{name: "node", fits: Scheme.isNamedNode, set: setNode},
		{name: "parallel", fits: Scheme.IsPLC, set: func(p *parser, a *Address, v string) {
			a.Parallel = int(p.number("parallel", v, 1, maxParallel))
		}},
	}
}

func setNode(p *parser, a *Address, v string) {
	if a.Scheme == PLCGateway {
		b, err := hex.DecodeString(v)
		if err != nil || len(b) > maxNodeHex {
			p.fail("node", "want the meter's physical device address, 1 to %d octets in hexadecimal digits", maxNodeHex)
			return
		}
		a.Node = strings.ToUpper(v)
		return
	}
	if len(v) > maxNode || !printable(v) || strings.Contains(v, " ") {
		p.fail("node", "want the meter's serial number as the network knows it, 1 to %d characters, or its EUI-48", maxNode)
		return
	}
	a.Node = v
}

// plc fills in what the line is.
func (p *parser) plc(a *Address) {
	if !a.IsSerial() {
		a.Parallel = DefaultParallel
	}
	if a.Scheme == PLCG3 && a.Line != "" {
		a.Node, a.Line = a.Line, network(a.Line)
	}
}

// network gives the /64 prefix of an address, which is the power line; a name
// or an IPv4 address stands for itself.
func network(hostport string) string {
	host, _ := splitPort(hostport)
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil || !ip.Is6() {
		return host
	}
	prefix, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return prefix.String()
}

// place gives what stands behind the scheme.
func (a Address) place() string {
	if a.Scheme == PLCG3 {
		return a.Node
	}
	return a.Line
}

func (a Address) plcKeys() [][2]string {
	var keys [][2]string
	if a.Scheme == PLCGateway {
		keys = append(keys, [2]string{"network", strconv.Itoa(int(a.Network))})
	}
	if a.Scheme.isNamedNode() {
		keys = append(keys, [2]string{"node", a.Node})
	}
	if a.Parallel != 0 {
		keys = append(keys, [2]string{"parallel", strconv.Itoa(a.Parallel)})
	}
	return keys
}

// plcTogether checks what no key of a power line can check alone.
func (p *parser) plcTogether(a *Address, has func(string) bool) {
	if a.Scheme.isNamedNode() && !p.line && !has("node") {
		p.fail("node", "missing: want node=…, the meter behind the bridge")
	}
	if a.Scheme == PLCPrime && a.Server != 1 {
		p.fail("server", "a PRIME base node passes on to the management logical device, 1, only")
	}
	if a.IsSerial() {
		if has("parallel") {
			p.fail("parallel", "a serial port has one exchange at a time")
		}
		p.hdlc(a)
		return
	}
	for _, key := range []string{"physical", "addrlen"} {
		if has(key) {
			p.fail(key, "is of a gateway on a serial port")
		}
	}
	if a.Ref == "sn" {
		p.fail("ref", "answers by short names have no number, and one that comes late or twice over a power line would pass for another: want ln")
	}
}
