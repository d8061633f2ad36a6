package drivers

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"time"

	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/drivers/plc"
)

// plcTimeout is how long an answer over a power line may take, as long as
// nothing was learnt of it.
const plcTimeout = 20 * time.Second

// OpenBridge gives the bridge of a power line, shared by all meters with the
// same Address.Line; nil where the line is none of those that carry several
// conversations at a time. It connects to nothing. Shared and listed are those
// of plc.Config.
func OpenBridge(a address.Address, o line.Options, shared bool, listed func(node string)) *plc.Bridge {
	if !a.Scheme.IsPLC() || a.IsSerial() {
		return nil
	}
	return plc.New(bridgeConfig(a, o, plc.Config{Shared: shared, Listed: listed}))
}

func bridgeConfig(a address.Address, o line.Options, c plc.Config) plc.Config {
	c.Name = a.Line
	switch a.Scheme {
	case address.PLCPrime:
		c.Kind = plc.Prime
	case address.PLCG3:
		c.Kind = plc.G3
	default:
		c.Kind = plc.Gateway
	}
	c.DialNode = func(ctx context.Context, node string) (line.Medium, error) {
		return line.OpenMedium(ctx, line.UDP(node, o))
	}
	c.Dial = func(ctx context.Context) (plc.Stream, error) {
		m, err := line.OpenMedium(ctx, line.TCP(a.Line, o))
		if err != nil {
			return nil, err
		}
		conn, ok := m.(net.Conn)
		if !ok { // never: it is TCP
			return nil, fmt.Errorf("connect: unexpected %T", m)
		}
		return conn, nil
	}
	return c
}

// NodeName gives the name of the meter on its bridge.
func NodeName(a address.Address) string {
	if a.Scheme == address.PLCGateway {
		return plc.GatewayNode(a.Network, physicalDevice(a))
	}
	return a.Node
}

func physicalDevice(a address.Address) []byte {
	b, _ := hex.DecodeString(a.Node) // address checked it
	return b
}

// loneNode gives the line to a meter of a power line that is all there is of it.
func loneNode(a address.Address, o line.Options) *line.Line {
	return plc.New(bridgeConfig(a, o, plc.Config{Alone: true, Shared: o.Shared})).Node(NodeName(a)).Line()
}

// plcConfig fits c to a power line. node is nil where nothing is learnt of it.
func plcConfig(c *cosem.Config, a address.Address, settings line.Settings, node *plc.Node) {
	if c.Timeout == 0 {
		c.Timeout = plcTimeout
	}
	if a.IsSerial() {
		c.Settings = settings
		c.HDLC = &cosem.HDLC{Physical: a.Physical, AddrLen: int(a.AddrLen)}
		c.Envelope = plc.Envelope(a.Network, physicalDevice(a))
		c.Release = true // the connection is the gateway's, and the next meter wants it
		return
	}
	c.Datagrams, c.Repeats = true, plc.Repeats
	if node == nil {
		wait := c.Timeout
		c.Wait = func() time.Duration { return wait }
		return
	}
	node.SetWait(c.Timeout)
	c.Wait = node.Wait
}
