package modbus

import "github.com/goburrow/modbus"

// packager gives single methods of the library's client to the library: its client as
// a whole would keep the transports that it has, and its serial ports, in the firmware.
type packager struct {
	encode func(*modbus.ProtocolDataUnit) ([]byte, error)
	decode func([]byte) (*modbus.ProtocolDataUnit, error)
	verify func(request, response []byte) error
}

func tcpPackager(unit uint8) *packager {
	c := modbus.NewTCPClientHandler("")
	c.SlaveId = unit
	return &packager{c.Encode, c.Decode, c.Verify}
}

func rtuPackager(unit uint8) *packager {
	c := modbus.NewRTUClientHandler("")
	c.SlaveId = unit
	return &packager{c.Encode, c.Decode, c.Verify}
}

// Encode makes a frame.
func (p *packager) Encode(pdu *modbus.ProtocolDataUnit) ([]byte, error) { return p.encode(pdu) }

// Decode takes one apart.
func (p *packager) Decode(adu []byte) (*modbus.ProtocolDataUnit, error) { return p.decode(adu) }

// Verify says whether a response is one to a request.
func (p *packager) Verify(request, response []byte) error { return p.verify(request, response) }
