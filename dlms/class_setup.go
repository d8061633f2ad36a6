package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// AccessRights is an object in the list of an association, and what the
// association may do with it, by the numbers of the standard: access_mode by
// attribute and by method.
type AccessRights struct {
	Object
	Attributes, Methods map[int8]uint8
}

// ReadObjects reads the list of objects of the association that is open, by
// logical names: of 0-0:40.0.0*255.
func (c *Client) ReadObjects(ctx context.Context) ([]AccessRights, error) {
	v, err := c.Get(ctx, Attribute{ClassAssociationLN, obis.Code{0, 0, 40, 0, 0, 255}, 2})
	if err != nil {
		return nil, err
	}
	return ParseObjects(v)
}

// ParseObjects decodes the attribute object_list of the class association LN
// (IEC 62056-6-2, 4.4.4): an array of
//
//	structure of class_id, version, logical_name,
//	  structure of array of (attribute_id, access_mode, selectors),
//	               array of (method_id, access_mode)
func ParseObjects(v axdr.Value) ([]AccessRights, error) {
	f := &fields{what: "object_list", items: []axdr.Value{v}}
	var objects []AccessRights
	f.each(4, func(f *fields) {
		o := AccessRights{Attributes: map[int8]uint8{}, Methods: map[int8]uint8{}}
		o.Class, o.Version, o.Code = uint16(f.number()), uint8(f.number()), f.code()
		f.within(2, func(f *fields) {
			f.each(3, func(f *fields) { o.Attributes[int8(f.number())] = uint8(f.number()) })
			f.each(2, func(f *fields) {
				id, mode := int8(f.number()), f.next()
				o.Methods[id] = uint8(mode.Num) // a boolean in version 0
			})
		})
		objects = append(objects, o)
	})
	if v.Tag == axdr.TagNull {
		return nil, malformed("object_list is %v, want an array", v.Tag)
	}
	return objects, f.bad
}

// LogicalDevice is a logical device of a meter by its address (IEC 62056-6-2,
// 4.4.5).
type LogicalDevice struct {
	SAP  uint16
	Name string
}

// ReadLogicalDevices reads the list of the SAP assignment, 0-0:41.0.0*255.
func (c *Client) ReadLogicalDevices(ctx context.Context) ([]LogicalDevice, error) {
	f, err := c.readFields(ctx, ClassSAPAssignment, obis.Code{0, 0, 41, 0, 0, 255}, 1)
	if err != nil {
		return nil, err
	}
	var devices []LogicalDevice
	f.each(2, func(f *fields) {
		devices = append(devices, LogicalDevice{SAP: uint16(f.number()), Name: f.octets()})
	})
	return devices, f.bad
}

// PushSetup is what a meter pushes where (IEC 62056-6-2, 4.4.8).
type PushSetup struct {
	Columns     []Column
	Service     uint8 // 0 TCP, 1 UDP, 2 FTP, 3 SMTP, 4 SMS, 5 HDLC, 6 M-Bus, 7 ZigBee
	Destination string
	Message     uint8 // 0 A-XDR, 1 XML
	Windows     []struct{ Start, End DateTime }
	Random      uint16 // seconds at most before it starts
	Retries     uint8
	Delay       axdr.Value // between retries: seconds, or a structure in version 2
}

// ReadPushSetup reads a push setup, of version 0 and 1 whole; of later ones the
// objects as far as they are those of version 1.
func (c *Client) ReadPushSetup(ctx context.Context, code obis.Code) (PushSetup, error) {
	f, err := c.readFields(ctx, ClassPushSetup, code, 6)
	if err != nil {
		return PushSetup{}, err
	}
	var s PushSetup
	s.Columns = f.columns()
	f.within(3, func(f *fields) {
		s.Service, s.Destination, s.Message = uint8(f.number()), f.octets(), uint8(f.number())
	})
	f.each(2, func(f *fields) {
		s.Windows = append(s.Windows, struct{ Start, End DateTime }{f.dateTime(), f.dateTime()})
	})
	s.Random, s.Retries, s.Delay = uint16(f.number()), uint8(f.number()), f.next()
	return s, f.bad
}

// Push has a meter push now.
func (c *Client) Push(ctx context.Context, code obis.Code) error {
	return c.run1(ctx, Attribute{ClassPushSetup, code, 1}, axdr.Integer(0))
}

// SecuritySetup is how a meter protects its associations (IEC 62056-6-2, 4.4.7).
type SecuritySetup struct {
	Policy, Suite            uint8
	ClientTitle, ServerTitle string
}

// ReadSecuritySetup reads a security setup.
func (c *Client) ReadSecuritySetup(ctx context.Context, code obis.Code) (SecuritySetup, error) {
	f, err := c.readFields(ctx, ClassSecuritySetup, code, 4)
	if err != nil {
		return SecuritySetup{}, err
	}
	return SecuritySetup{Policy: uint8(f.number()), Suite: uint8(f.number()), ClientTitle: f.octets(), ServerTitle: f.octets()}, f.bad
}

// WrappedKey is a key on its way to a meter: 0 the global unicast encryption
// key, 1 the broadcast one, 2 the authentication key, 3 the master key, wrapped
// by the master key.
type WrappedKey struct {
	ID  uint8
	Key []byte
}

// TransferKeys gives a meter new keys. They hold from its answer on; an error
// that is no AccessError leaves open whether they do.
func (c *Client) TransferKeys(ctx context.Context, code obis.Code, keys []WrappedKey) error {
	list := axdr.Array()
	for _, k := range keys {
		list.Items = append(list.Items, axdr.Structure(axdr.Enum(k.ID), axdr.OctetString(string(k.Key))))
	}
	return c.run1(ctx, Attribute{ClassSecuritySetup, code, 2}, list)
}

// ActivateSecurity sets the security policy of a meter; it may become stronger
// only.
func (c *Client) ActivateSecurity(ctx context.Context, code obis.Code, policy uint8) error {
	return c.run1(ctx, Attribute{ClassSecuritySetup, code, 1}, axdr.Enum(policy))
}

// HDLCSetup is how a port speaks HDLC (IEC 62056-6-2, 4.7.2).
type HDLCSetup struct {
	Speed                      uint8 // 0 is 300 Bd, 5 is 9600 Bd, 9 is 115200 Bd
	WindowTransmit             uint8
	WindowReceive              uint8
	MaxInfoTransmit            uint16
	MaxInfoReceive             uint16
	InterOctetTimeout          uint16 // milliseconds
	InactivityTimeout, Address uint16 // seconds, and the physical address
}

// ReadHDLCSetup reads an IEC HDLC setup.
func (c *Client) ReadHDLCSetup(ctx context.Context, code obis.Code) (HDLCSetup, error) {
	f, err := c.readFields(ctx, ClassHDLCSetup, code, 8)
	if err != nil {
		return HDLCSetup{}, err
	}
	return HDLCSetup{
		Speed: uint8(f.number()), WindowTransmit: uint8(f.number()), WindowReceive: uint8(f.number()),
		MaxInfoTransmit: uint16(f.number()), MaxInfoReceive: uint16(f.number()), InterOctetTimeout: uint16(f.number()),
		InactivityTimeout: uint16(f.number()), Address: uint16(f.number()),
	}, f.bad
}

// TCPUDPSetup is how a meter speaks IP (IEC 62056-6-2, 4.8.1).
type TCPUDPSetup struct {
	Port              uint16
	IP                obis.Code // of the IP setup
	MSS               uint16
	Connections       uint8
	InactivityTimeout uint16 // seconds
}

// ReadTCPUDPSetup reads a TCP-UDP setup.
func (c *Client) ReadTCPUDPSetup(ctx context.Context, code obis.Code) (TCPUDPSetup, error) {
	f, err := c.readFields(ctx, ClassTCPUDPSetup, code, 5)
	if err != nil {
		return TCPUDPSetup{}, err
	}
	return TCPUDPSetup{
		Port: uint16(f.number()), IP: f.code(), MSS: uint16(f.number()), Connections: uint8(f.number()), InactivityTimeout: uint16(f.number()),
	}, f.bad
}

// GPRSSetup is how a meter gets onto the mobile network (IEC 62056-6-2, 4.7.5).
type GPRSSetup struct {
	APN string
	PIN uint16
	// Quality of service, default and requested.
	Default, Requested [5]uint8
}

// ReadGPRSSetup reads a GPRS modem setup.
func (c *Client) ReadGPRSSetup(ctx context.Context, code obis.Code) (GPRSSetup, error) {
	f, err := c.readFields(ctx, ClassGPRSSetup, code, 3)
	if err != nil {
		return GPRSSetup{}, err
	}
	s := GPRSSetup{APN: f.octets(), PIN: uint16(f.number())}
	f.within(2, func(f *fields) {
		for _, quality := range []*[5]uint8{&s.Default, &s.Requested} {
			f.within(5, func(f *fields) {
				for i := range quality {
					quality[i] = uint8(f.number())
				}
			})
		}
	})
	return s, f.bad
}

// GSMDiagnostic is how a meter is on the mobile network (IEC 62056-6-2, 4.7.8).
type GSMDiagnostic struct {
	Operator   string
	Status     uint8      // 0 not registered, 1 home network, 2 searching, 3 denied, 5 roaming
	Attachment uint8      // circuit switched
	Packet     uint8      // packet switched: 0 inactive, 1 GPRS, 2 EDGE, 3 UMTS, 4 HSDPA, 5 LTE
	Cell       axdr.Value // structure of cell, location, signal quality, bit error rate, …
	Adjacent   []axdr.Value
	Captured   DateTime
}

// ReadGSMDiagnostic reads a GSM diagnostic.
func (c *Client) ReadGSMDiagnostic(ctx context.Context, code obis.Code) (GSMDiagnostic, error) {
	f, err := c.readFields(ctx, ClassGSMDiagnostic, code, 7)
	if err != nil {
		return GSMDiagnostic{}, err
	}
	d := GSMDiagnostic{Operator: f.octets(), Status: uint8(f.number()), Attachment: uint8(f.number()), Packet: uint8(f.number()), Cell: f.next()}
	d.Adjacent, _ = f.next().Elements()
	d.Captured = f.dateTime()
	return d, f.bad
}

// Ratios are how much more flows on the primary side of a meter's instrument
// transformers than on the secondary.
type Ratios struct{ Current, Voltage float64 }

// ReadRatios reads the ratios of the current and the voltage transformers:
// 1-0:0.4.2 over 1-0:0.4.5, and 1-0:0.4.3 over 1-0:0.4.6 (IEC 62056-6-1,
// table 15), as data or as registers. What is divided by counts as 1 where the
// meter shows none; a ratio that it does not show is an error.
func (c *Client) ReadRatios(ctx context.Context) (Ratios, error) {
	var ask []Attribute
	for _, e := range []byte{2, 3, 5, 6} {
		code := obis.Code{1, 0, 0, 4, e, 255}
		ask = append(ask, Attribute{ClassData, code, 2}, Attribute{ClassRegister, code, 2}, Attribute{ClassRegister, code, 3})
	}
	items, err := c.ReadList(ctx, ask)
	if err != nil {
		return Ratios{}, err
	}
	part := func(i int) (float64, error) {
		data, register, scale := items[3*i], items[3*i+1], items[3*i+2]
		if n, ok := number(data.Value); data.Err == nil && ok && n > 0 {
			return n, nil
		}
		if register.Err != nil && data.Err != nil {
			return 0, fmt.Errorf("get %v: %w", ask[3*i], data.Err)
		}
		s, err := ParseScalerUnit(scale.Value)
		if n, ok := number(register.Value); err == nil && ok && n > 0 {
			return s.Apply(n), nil
		}
		return 0, malformed("ratio %v is %v, want a number over 0", ask[3*i].Code, register.Value.Tag)
	}
	ratio := func(above, below int) (float64, error) {
		n, err := part(above)
		d := 1.0
		if err == nil && (items[3*below].Err == nil || items[3*below+1].Err == nil) {
			d, err = part(below)
		}
		return n / d, err
	}
	var r Ratios
	if r.Current, err = ratio(0, 2); err == nil {
		r.Voltage, err = ratio(1, 3)
	}
	if err != nil {
		return Ratios{}, err
	}
	return r, nil
}

// Of gives what numbers of a unit (IEC 62056-6-2, table 4) are multiplied by;
// 1 for those that transformers do not change.
func (r Ratios) Of(unit uint8) float64 {
	switch unit {
	case 27, 28, 29, 30, 31, 32: // W, VA, var, Wh, VAh, varh
		return r.Current * r.Voltage
	case 33: // A
		return r.Current
	case 35: // V
		return r.Voltage
	}
	return 1
}
