package dlms

import (
	"context"
	"fmt"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Short names (IEC 62056-5-3, 9.3.14 and following; IEC 62056-6-2, 4.4): every
// attribute and method has a number of 16 bits. That of attribute i of an
// object is its base name and 8 × (i - 1). Read and write requests have no
// invoke id, so that a late answer cannot be told from one that is waited for.

// The choices of Variable-Access-Specification.
const (
	specName      = 2 // short name 2
	specParameter = 4 // short name 2, selector, data
	specBlock     = 5 // block number 2
	specReadPart  = 6 // last, block number 2, length and octets: of a long read-request
	specWritePart = 7 // last, block number 2: of a long write-request
)

// The choices in a read response after data and result.
const (
	readBlock = 2 // last, number 2, length and octets
	readNext  = 3 // number 2: the block of the request came
)

// writeNext is the choice in a write response after success and result: number
// 2, the block of the request came.
const writeNext = 2

// associationName is the base name of the association object, where the
// directory of all objects is.
const associationName = 0xFA00

// DefaultShortNameConformance is what a client that reads by short names
// proposes: see DefaultConformance.
const DefaultShortNameConformance = Read | Write | UnconfirmedWrite | MultipleReferences | ParameterizedAccess |
	InformationReport | GeneralBlockTransfer

// Name is a short name that is read, with a selector and its parameter where
// Parameter is not nil (parameterised access).
type Name struct {
	Name      uint16
	Selector  uint8
	Parameter *axdr.Value
}

// NamedValue is a short name and the value that it is set to.
type NamedValue struct {
	Name  uint16
	Value axdr.Value
	// Selector and its Parameter, where that is not nil, select a part
	// (parameterised access).
	Selector  uint8
	Parameter *axdr.Value
}

// Object is an entry of the list of objects that an association gives.
type Object struct {
	Name    uint16 // base name; 0 with logical names
	Class   uint16
	Version uint8
	Code    obis.Code
}

type object struct {
	class uint16
	code  obis.Code
}

// names has the base names of objects.
type names map[object]uint16

// LoadNames reads the directory of a meter that is spoken to by short names,
// and uses it from then on. Reading does it by itself when it must; a caller
// that keeps the directory saves the time with UseNames.
func (c *Client) LoadNames(ctx context.Context) ([]Object, error) {
	items, err := c.ReadNames(ctx, []Name{{Name: associationName + 8}})
	if err == nil {
		err = items[0].Err
	}
	var objects []Object
	if err == nil {
		objects, err = ParseShortNames(items[0].Value)
	}
	if err != nil {
		return nil, fmt.Errorf("list of objects: %w", err)
	}
	c.UseNames(objects)
	return objects, nil
}

// UseNames tells the client the base names of objects.
func (c *Client) UseNames(objects []Object) {
	c.names = names{}
	for _, o := range objects {
		c.names[object{o.Class, o.Code}] = o.Name
	}
}

// ParseShortNames decodes the attribute object_list of the class association
// SN: an array of structures of base_name, class_id, version, logical_name.
func ParseShortNames(v axdr.Value) ([]Object, error) {
	items, ok := v.Elements()
	if !ok {
		return nil, malformed("object_list is %v, want an array", v.Tag)
	}
	objects := make([]Object, 0, len(items))
	for i, item := range items {
		f := item.Items
		if item.Tag != axdr.TagStructure || len(f) != 4 || f[0].Tag != axdr.TagLong && f[0].Tag != axdr.TagLongUnsigned ||
			f[1].Tag != axdr.TagLongUnsigned || f[2].Tag != axdr.TagUnsigned ||
			f[3].Tag != axdr.TagOctetString || len(f[3].Str) != len(obis.Code{}) {
			return nil, malformed("object_list: entry %d is no object", i)
		}
		o := Object{Name: uint16(f[0].Num), Class: uint16(f[1].Num), Version: uint8(f[2].Num)}
		copy(o.Code[:], f[3].Str)
		objects = append(objects, o)
	}
	return objects, nil
}

// base gives the base name of an object.
func (c *Client) base(ctx context.Context, a Attribute) (uint16, error) {
	if a.Class == 12 {
		return associationName, nil
	}
	if c.names == nil {
		if _, err := c.LoadNames(ctx); err != nil {
			return 0, err
		}
	}
	name, ok := c.names[object{a.Class, a.Code}]
	if !ok {
		return 0, fmt.Errorf("%w: not in the meter's list of short names", ObjectUndefined)
	}
	return name, nil
}

// nameOf gives the short name of an attribute.
func (c *Client) nameOf(ctx context.Context, a Attribute) (uint16, error) {
	base, err := c.base(ctx, a)
	return base + uint16(8*(int(a.ID)-1)), err
}

// methodBase is how far the first method of a class is from its base name
// (IEC 62056-6-2, 4.3 and following); 0 is a class without methods.
func methodBase(class uint16) uint16 {
	switch class {
	case 3:
		return 0x28 // register
	case 4:
		return 0x38 // extended register
	case 5:
		return 0x48 // demand register
	case 6:
		return 0x30 // register activation
	case 7:
		return 0x58 // profile generic
	case 8:
		return 0x60 // clock
	case 9:
		return 0x20 // script table
	case 10:
		return 0x20 // schedule
	case 11:
		return 0x10 // special days table
	case 12:
		return 0x20 // association SN
	case 17:
		return 0x20 // SAP assignment
	case 18:
		return 0x40 // image transfer
	case 20:
		return 0x50 // activity calendar
	case 40:
		return 0x38 // push setup
	case 64:
		return 0x30 // security setup
	case 70:
		return 0x20 // disconnect control
	}
	return 0
}

func (c *Client) readByName(ctx context.Context, a Attribute, s selection) (axdr.Value, error) {
	name, err := c.nameOf(ctx, a)
	if err != nil {
		return axdr.Value{}, err
	}
	if err := c.may(Read, "reading"); err != nil {
		return axdr.Value{}, err
	}
	c.out = append(c.out[:0], tagReadRequest, 1)
	if parameter := s.appendParameter(nil); len(parameter) > 0 {
		c.out = append(append(c.out, specParameter, byte(name>>8), byte(name)), parameter...)
	} else {
		c.out = append(c.out, specName, byte(name>>8), byte(name))
	}
	if err := c.readInBlocks(ctx); err != nil {
		return axdr.Value{}, err
	}
	items, err := c.readItems(ctx, 1)
	if err != nil {
		return axdr.Value{}, err
	}
	return items[0].Value, items[0].Err
}

// readNamesOf reads attributes by their short names.
func (c *Client) readNamesOf(ctx context.Context, attributes []Attribute) ([]Item, error) {
	items := make([]Item, len(attributes))
	var ask []Name
	var of []int
	for i, a := range attributes {
		name, err := c.nameOf(ctx, a)
		if items[i], err = itemOf(axdr.Value{}, err); err != nil {
			return nil, fmt.Errorf("get %v: %w", a, err)
		}
		if items[i].Err == nil {
			ask, of = append(ask, Name{Name: name}), append(of, i)
		}
	}
	some, err := c.ReadNames(ctx, ask)
	for i, item := range some {
		items[of[i]] = item
	}
	if err != nil && len(some) < len(of) {
		items = items[:of[len(some)]]
	}
	return items, err
}

// ReadNames reads by short names, with as few requests as the model's list
// maximum and the meter's PDU allow, and gives an item for each; on an error,
// those before it.
func (c *Client) ReadNames(ctx context.Context, list []Name) ([]Item, error) {
	if err := c.may(Read, "reading by short names"); err != nil {
		return nil, err
	}
	items := make([]Item, 0, len(list))
	for len(items) < len(list) {
		rest := list[len(items):]
		n := c.fit(len(rest), readNamesHead, func(i int) int {
			if rest[i].Parameter == nil {
				return 3
			}
			return 4 + encodedLen(rest[i].Parameter)
		})
		out, err := AppendRead(c.out[:0], rest[:n])
		if err != nil {
			return items, err
		}
		c.out = out
		if err := c.readInBlocks(ctx); err != nil {
			return items, fmt.Errorf("read of %d from %04X: %w", n, rest[0].Name, err)
		}
		some, err := c.readItems(ctx, n)
		if err != nil {
			return items, fmt.Errorf("read of %d from %04X: %w", n, rest[0].Name, err)
		}
		items = append(items, some...)
	}
	return items, nil
}

// readItems sends the read-request in c.out and gives its n answers.
func (c *Client) readItems(ctx context.Context, n int) ([]Item, error) {
	c.answer = c.answer[:0]
	for number := uint32(1); ; number++ {
		apdu, err := c.exchange(ctx, func(apdu []byte) bool { return apdu[0] == tagReadResponse })
		if err != nil {
			return nil, err
		}
		if len(apdu) < 3 || apdu[1] != 1 || apdu[2] != readBlock {
			if number > 1 {
				return nil, refusalOfRead(apdu, number)
			}
			return parseReadResponse(apdu, n)
		}
		r := reader{b: apdu[3:]}
		p := part{last: r.u8() != 0, n: uint32(r.u16()), octets: r.counted()}
		if r.short {
			return nil, malformed("read response cut short")
		}
		if err := c.gather(p, number); err != nil {
			return nil, err
		}
		if p.last {
			return parseBlocksOfRead(c.answer, n)
		}
		c.out = append(c.out[:0], tagReadRequest, 1, specBlock, byte(number>>8), byte(number))
	}
}

// refusalOfRead gives the reason why a block did not come.
func refusalOfRead(apdu []byte, number uint32) error {
	items, err := parseReadResponse(apdu, 1)
	if err == nil && items[0].Err != nil {
		return items[0].Err
	}
	return malformed("after %d blocks came an answer without blocks", number-1)
}

// parseBlocksOfRead decodes what the blocks of an answer make up: by the
// standard the list of answers, from its count on. Some meters send the data
// alone; an answer of one cannot be taken for the other, because an empty array
// does not come in blocks.
func parseBlocksOfRead(b []byte, n int) ([]Item, error) {
	if n == 1 && len(b) > 1 && (b[0] != 1 || b[1] > 1) {
		v, err := parseData(b)
		return []Item{{Value: v}}, err
	}
	r := reader{b: b}
	return parseItems(&r, n, parseDataResult)
}

// parseReadResponse decodes a read-response:
//
//	0C  n  n × (00 data, or 01 result, or as above 02 and a block)
func parseReadResponse(apdu []byte, n int) ([]Item, error) {
	r := reader{b: apdu}
	r.u8()
	return parseItems(&r, n, parseDataResult)
}

// AppendRead appends a read-request:
//
//	05  n  n × (02 short name 2, or 04 short name 2 selector data)
func AppendRead(b []byte, list []Name) ([]byte, error) {
	b = axdr.AppendLength(append(b, tagReadRequest), len(list))
	for _, n := range list {
		if n.Parameter == nil {
			b = append(b, specName, byte(n.Name>>8), byte(n.Name))
			continue
		}
		var err error
		if b, err = n.Parameter.AppendBinary(append(b, specParameter, byte(n.Name>>8), byte(n.Name), n.Selector)); err != nil {
			return nil, fmt.Errorf("parameter of %04X: %w", n.Name, err)
		}
	}
	return b, nil
}

func (c *Client) setByName(ctx context.Context, a Attribute, v axdr.Value, s selection) error {
	name, err := c.nameOf(ctx, a)
	if err != nil {
		return err
	}
	named := NamedValue{Name: name, Value: v}
	if parameter := s.appendParameter(nil); len(parameter) > 0 {
		value, err := parseData(parameter[1:])
		if err != nil {
			return err
		}
		named.Selector, named.Parameter = parameter[0], &value
	}
	results, err := c.WriteNames(ctx, []NamedValue{named})
	if err != nil {
		return err
	}
	return results[0]
}

// actByName runs a method by reading its short name, with the argument as a
// parameter. What the method returns is what is read; a method that returns
// nothing gives null-data.
func (c *Client) actByName(ctx context.Context, method Attribute, argument *axdr.Value) (axdr.Value, error) {
	first := methodBase(method.Class)
	if first == 0 || method.ID < 1 {
		return axdr.Value{}, fmt.Errorf("methods of class %d by short names are %w", method.Class, ErrNotGranted)
	}
	base, err := c.base(ctx, method)
	if err != nil {
		return axdr.Value{}, err
	}
	name := Name{Name: base + first + uint16(8*(int(method.ID)-1)), Selector: 1, Parameter: argument}
	items, err := c.ReadNames(ctx, []Name{name})
	if err != nil {
		return axdr.Value{}, err
	}
	return items[0].Value, items[0].Err
}
