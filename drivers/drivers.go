// Package drivers opens meters: from an address it makes the line that the
// meter hangs on and the driver that speaks its protocol. There is no registry:
// Open is the list of what there is.
package drivers

import (
	"errors"
	"fmt"
	"time"

	"gridgate/drivers/address"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// Config is what a driver needs to know of one meter.
type Config struct {
	ID       meter.ID
	Serial   string // the expected serial number; empty when none is configured
	Address  address.Address
	Password []byte         // resolved; nil when the address has none
	Model    *modbus.Model  // the register map; Modbus only
	TimeZone *time.Location // of meters that do not tell their deviation from UTC
	Now      meter.Now
}

// OpenLine gives the line of an address, shared by all meters with the same
// Address.Line. It opens no port.
func OpenLine(a address.Address, o line.Options) *line.Line {
	if a.IsSerial() {
		return line.Serial(a.Line, o)
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
	case address.DLMSWrapper:
		return cosem.New(cosem.Config{
			ID: c.ID, Serial: c.Serial, Client: c.Address.Client, Server: c.Address.Server,
			Auth: string(c.Address.Auth), Password: c.Password, Timeout: c.Address.Timeout,
			Now: c.Now, TimeZone: c.TimeZone,
		}, l), nil
	case address.ModbusTCP, address.ModbusRTU, address.ModbusRTUOverTCP:
		if c.Model == nil {
			return nil, errors.New("a Modbus meter needs a model: add model=NAME to its url")
		}
		return modbus.New(modbus.Config{
			ID: c.ID, Serial: c.Serial, Unit: c.Address.Unit, Transport: transport(c.Address.Scheme),
			Settings: settings, Model: c.Model, Timeout: c.Address.Timeout, Now: c.Now,
		}, l), nil
	default:
		return nil, fmt.Errorf("scheme %q: no driver", c.Address.Scheme)
	}
}

func transport(s address.Scheme) modbus.Transport {
	switch s {
	case address.ModbusRTU:
		return modbus.RTU
	case address.ModbusRTUOverTCP:
		return modbus.RTUOverTCP
	case address.ModbusTCP, address.DLMSWrapper:
	}
	return modbus.TCP
}
