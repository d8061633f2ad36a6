// Package drivers opens meters: from an address it makes the line that the
// meter hangs on and the driver that speaks its protocol. There is no registry:
// Open is the list of what there is.
package drivers

import (
	"errors"
	"fmt"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/obis"
	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/drivers/iec21"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/drivers/plc"
	"gridgate/internal/meter"
)

// Config is what a driver needs to know of one meter.
type Config struct {
	ID       meter.ID
	Serial   string // the expected serial number; empty when none is configured
	Address  address.Address
	Secrets  address.Credentials // of the address, resolved
	Counters cosem.Counters      // where invocation counters are kept; needed where Address.UsesKeys
	Model    *modbus.Model       // the register map; Modbus only
	DLMS     *cosem.Model        // what is known of the model; DLMS only, and nil is a meter by the standard
	Caches   cosem.Caches        // where is kept what DLMS meters say of their objects; nil is nowhere
	TimeZone *time.Location      // of meters that do not tell their deviation from UTC
	Now      meter.Now
	Node     *plc.Node // of a power line, where it is shared; else nil
	// NextKeys are keys that the meter may have instead of those of Secrets, since
	// it was being given them; nil: none. KeysFound is told which it has.
	NextKeys  map[meter.KeyKind]meter.Secret
	KeysFound func(next bool)
}

// OpenLine gives the line of an address, shared by all meters with the same
// Address.Line; of a power line with OpenBridge, see there, that to the one
// meter. It opens no port.
func OpenLine(a address.Address, o line.Options) *line.Line {
	if a.IsSerial() {
		switch a.RS485 {
		case address.RS485High:
			o.Direction = line.ByRTS
		case address.RS485Low:
			o.Direction = line.ByRTSOnLow
		}
		return line.Serial(a.Line, o)
	}
	if a.Scheme.IsPLC() && !a.IsSerial() {
		return loneNode(a, o)
	}
	if a.Scheme == address.DLMSUDP {
		return line.UDP(a.Line, o)
	}
	return line.TCP(a.Line, o)
}

// Open gives the driver of a meter on its line. It sends nothing.
func Open(c Config, l *line.Line) (meter.Visitor, error) {
	settings := line.Settings{
		Baud: c.Address.Baud, DataBits: c.Address.DataBits,
		Parity: c.Address.Parity, StopBits: c.Address.StopBits,
	}
	switch c.Address.Scheme {
	case address.DLMSWrapper, address.DLMSUDP, address.DLMSHDLC, address.DLMSModeE, address.PLCGateway, address.PLCPrime, address.PLCG3:
		cfg, err := cosemConfig(c)
		if err != nil {
			return nil, err
		}
		if cfg.Settings = settings; c.Address.Scheme.IsHDLC() {
			cfg.HDLC = hdlcOf(c)
		}
		if c.Address.Scheme == address.DLMSModeE {
			cfg.ModeE = &cosem.ModeE{Address: c.Address.Device, SignOn: c.Address.SignOn, MaxBaud: c.Address.Baud}
			cfg.Settings = line.Settings{Baud: c.Address.SignOn, DataBits: 7, Parity: 'E', StopBits: 1}
		}
		if c.Address.Scheme.IsPLC() {
			plcConfig(&cfg, c.Address, settings, c.Node)
		}
		return cosem.New(cfg, l), nil
	case address.IEC21:
		return iec21.New(iec21.Config{
			ID: c.ID, Serial: c.Serial, Address: c.Address.Device, Mode: readMode(c.Address.Mode),
			SignOn: c.Address.SignOn, MaxBaud: c.Address.Baud, Format: settings, Password: dlms.Secret(c.Secrets.Password.Reveal()),
			Timeout: c.Address.Timeout, TimeZone: c.TimeZone, Now: c.Now,
		}, l), nil
	case address.ModbusTCP, address.ModbusRTU, address.ModbusRTUOverTCP:
		if c.Model == nil {
			return nil, errors.New("a Modbus meter needs a model: add model=NAME to its url")
		}
		return modbus.New(modbus.Config{
			ID: c.ID, Serial: c.Serial, Unit: c.Address.Unit, Transport: transport(c.Address.Scheme),
			Settings: settings, Model: c.Model, Timeout: c.Address.Timeout, TimeZone: c.TimeZone, Now: c.Now,
		}, l), nil
	default:
		return nil, fmt.Errorf("scheme %q: no driver", c.Address.Scheme)
	}
}

func cosemConfig(c Config) (cosem.Config, error) {
	a := c.Address
	protection, err := protection(a, c.Secrets)
	if err != nil {
		return cosem.Config{}, err
	}
	if a.UsesKeys() && c.Counters == nil {
		return cosem.Config{}, errors.New("a meter with keys needs a place where its invocation counter is kept")
	}
	cfg := cosem.Config{
		ID: c.ID, Serial: c.Serial, Client: a.Client, Server: a.Server,
		ShortNames: a.Ref == "sn", Auth: string(a.Auth), Password: dlms.Secret(c.Secrets.Password.Reveal()), Timeout: a.Timeout,
		Datagrams: a.Scheme == address.DLMSUDP, Security: protection, Counters: c.Counters, CounterObjects: counterObjects(a),
		Now: c.Now, TimeZone: c.TimeZone, Caches: c.Caches,
	}
	if cfg.NextKeys, err = nextKeys(protection, c.NextKeys); err != nil {
		return cosem.Config{}, err
	}
	cfg.KeysFound = c.KeysFound
	if m := c.DLMS; m != nil {
		cfg.Quirks, cfg.Events, cfg.Release = m.Quirks, &m.Events, m.Release
		if own := a.Security; m.Quirks.CounterObject != (obis.Code{}) && own.Counter == (obis.Code{}) && !own.CounterHidden {
			cfg.CounterObjects = []obis.Code{m.Quirks.CounterObject}
		}
	}
	return cfg, nil
}

// hdlcOf gives the link: as the address says, and else as the model does.
func hdlcOf(c Config) *cosem.HDLC {
	a := c.Address
	h := &cosem.HDLC{Physical: a.Physical, AddrLen: int(a.AddrLen), Info: int(a.Info), Window: int(a.Window)}
	if c.DLMS != nil && h.Info == 0 {
		h.Info = c.DLMS.Info
	}
	if c.DLMS != nil && h.Window == 0 {
		h.Window = c.DLMS.Window
	}
	return h
}

// counterObjects gives where the meter may show its invocation counter. What
// stands in the last place but one differs: 0 with most, the client with some.
func counterObjects(a address.Address) []obis.Code {
	switch {
	case a.Security.CounterHidden:
		return nil
	case a.Security.Counter != (obis.Code{}):
		return []obis.Code{a.Security.Counter}
	}
	objects := []obis.Code{{0, 0, 43, 1, 0, 255}}
	if a.Client < 0xFF {
		objects = append(objects, obis.Code{0, 0, 43, 1, byte(a.Client), 255})
	}
	return objects
}

func readMode(m string) iec21.Mode {
	switch m {
	case address.ModeA:
		return iec21.ModeA
	case address.ModeB:
		return iec21.ModeB
	case address.ModeC:
		return iec21.ModeC
	case address.ModeP:
		return iec21.Programming
	}
	return iec21.Auto
}

func transport(s address.Scheme) modbus.Transport {
	switch s {
	case address.ModbusRTU:
		return modbus.RTU
	case address.ModbusRTUOverTCP:
		return modbus.RTUOverTCP
	case address.ModbusTCP, address.DLMSWrapper, address.DLMSUDP, address.DLMSHDLC, address.DLMSModeE, address.IEC21,
		address.PLCGateway, address.PLCPrime, address.PLCG3:
	}
	return modbus.TCP
}
