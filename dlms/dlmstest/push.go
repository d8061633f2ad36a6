package dlmstest

import (
	"encoding/binary"
	"time"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// Notice is what a meter sends unasked.
type Notice struct {
	// Columns are the attributes that a data-notification has in a structure;
	// those that the meter does not have are null-data.
	Columns []Column
	// Time is when it is sent; zero is that it does not say.
	Time time.Time
	// Number is the long invoke id, 24 bits of it.
	Number uint32
	// Confirmed asks for an answer.
	Confirmed bool
	// Policy protects it with the global keys, by general-glo-ciphering.
	Policy security.Policy
}

// DataNotification gives the APDU of a notice (IEC 62056-5-3, 9.3.10):
//
//	0F  long-invoke-id-and-priority 4  length and date-time  structure
func (m *Meter) DataNotification(n Notice) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	const confirmed = 1 << 30
	invoke := n.Number & 0xFFFFFF
	if n.Confirmed {
		invoke |= confirmed
	}
	b := binary.BigEndian.AppendUint32([]byte{0x0F}, invoke)
	if n.Time.IsZero() {
		b = append(b, 0)
	} else {
		b = append(append(b, 12), DateTime(n.Time)...)
	}
	body := axdr.Structure()
	for _, c := range n.Columns {
		body.Items = append(body.Items, m.value(c))
	}
	b, err := body.AppendBinary(b)
	if err != nil {
		return nil, err
	}
	return m.protect(b, n.Policy)
}

// EventNotification gives the APDU that tells of the first of the columns of a
// notice (IEC 62056-5-3, 9.3.9):
//
//	C2  00, or 01 length and date-time  class 2  OBIS code 6  attribute 1  data
func (m *Meter) EventNotification(n Notice) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := []byte{0xC2, 0}
	if !n.Time.IsZero() {
		b = append([]byte{0xC2, 1, 12}, DateTime(n.Time)...)
	}
	var c Column
	if len(n.Columns) > 0 {
		c = n.Columns[0]
	}
	b = binary.BigEndian.AppendUint16(b, c.Class)
	b = append(append(b, c.Code[:]...), byte(c.ID))
	b, err := m.value(c).AppendBinary(b)
	if err != nil {
		return nil, err
	}
	return m.protect(b, n.Policy)
}

func (m *Meter) protect(apdu []byte, p security.Policy) ([]byte, error) {
	if p == security.Unprotected {
		return apdu, nil
	}
	s := security.Sender{Suite: m.keys.Suite, Policy: p, Title: m.keys.Title, Keys: m.keys.Keys, Counter: m.counter}
	return s.Protect(nil, apdu, security.Unicast, true)
}

// value reads an attribute for the meter itself.
func (m *Meter) value(c Column) axdr.Value {
	for _, objects := range [][]Object{m.o.Objects, m.builtIn()} {
		for _, o := range objects {
			if o.Class != c.Class || o.Code != c.Code {
				continue
			}
			if c.ID == 1 {
				return axdr.OctetString(string(c.Code[:]))
			}
			if o.Read != nil {
				if v, ok := o.Read(c.ID, nil); ok {
					return v
				}
			}
		}
	}
	return axdr.Null()
}

// Frame gives the frame of the wrapper (IEC 62056-47) in which the meter sends
// an APDU to a wPort unasked.
func (m *Meter) Frame(client uint16, apdu []byte) []byte {
	return frame{source: client, destination: m.o.Server}.answer(apdu)
}

// Push is a push setup: what is sent where. The transports are 0 TCP and 1
// UDP, both with the wrapper, and 5 HDLC.
type Push struct {
	Code        obis.Code
	Columns     []Column
	Transport   uint8
	Destination string
}

// PushSetup gives an object of class 40, version 0 (IEC 62056-6-2, 4.4.8). Its
// method push calls send with the setup as it is then; it must not wait.
func PushSetup(p Push, send func(Push)) Object {
	list := axdr.Array()
	for _, c := range p.Columns {
		list.Items = append(list.Items, c.value())
	}
	o := Cells(40, p.Code, map[int8]axdr.Value{
		2: list,
		3: axdr.Structure(axdr.Enum(p.Transport), axdr.OctetString(p.Destination), axdr.Enum(0)),
		4: axdr.Array(),                              // any time
		5: axdr.LongUnsigned(0),                      // s at random before it is sent
		6: axdr.Unsigned(0), 7: axdr.LongUnsigned(0), // tries again, after s
	}, 2, 3, 4, 5, 6, 7)
	o.Methods = []int8{1}
	o.Act = func(id int8, argument axdr.Value) (axdr.Value, Result) {
		switch {
		case id != 1:
			return axdr.Value{}, ReadWriteDenied
		case argument.Tag != axdr.TagInteger && argument.Tag != axdr.TagNull:
			return axdr.Value{}, TypeUnmatched
		}
		now := Push{Code: p.Code}
		columns, _ := o.Read(2, nil)
		for _, item := range columns.Items {
			if c, ok := parseColumn(item); ok {
				now.Columns = append(now.Columns, c)
			}
		}
		if to, _ := o.Read(3, nil); len(to.Items) == 3 {
			now.Transport, now.Destination = uint8(to.Items[0].Num), to.Items[1].Str
		}
		if send != nil {
			send(now)
		}
		return axdr.Value{}, Success
	}
	return o
}
