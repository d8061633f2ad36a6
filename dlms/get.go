package dlms

import (
	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// The service APDUs (IEC 62056-5-3, 9.5) that the client sends and takes.
const (
	tagDataNotification  = 0x0F
	tagGetRequest        = 0xC0
	tagEventNotification = 0xC2
	tagActionRequest     = 0xC3
	tagGetResponse       = 0xC4
	tagActionResponse    = 0xC7
	tagException         = 0xD8
)

// The forms of requests and responses.
const (
	formNormal = 1
	formNext   = 2 // request: the next block
	formBlock  = 2 // response: with a block
)

const (
	// priorityConfirmed is what goes with the invoke id: high priority, confirmed.
	priorityConfirmed = 0xC0
	invokeMask        = 0x0F
)

// clockTime is the attribute that rows of a profile are selected by.
func clockTime() Attribute {
	return Attribute{Class: 8, Code: obis.Code{0, 0, 1, 0, 0, 255}, ID: 2}
}

func (a Attribute) append(b []byte) []byte {
	b = append(b, byte(a.Class>>8), byte(a.Class))
	b = append(b, a.Code[:]...)
	return append(b, byte(a.ID))
}

// AppendGet appends a get-request-normal. It allocates nothing when b has room
// for 13 octets, or 64 with a selection.
//
//	C0 01 invoke-id  class 2  OBIS code 6  attribute 1  00
//	                                                    01 selector: with rows, if not nil
func AppendGet(b []byte, invoke uint8, a Attribute, rows *Range) []byte {
	b = append(b, tagGetRequest, formNormal, priorityConfirmed|invoke&invokeMask)
	b = a.append(b)
	if rows == nil {
		return append(b, 0)
	}
	return rows.append(append(b, 1))
}

// append appends the access selector 1 and its range_descriptor:
//
//	01  02 04                                                 structure of 4
//	      02 04  12 class  09 06 code  0F attribute  12 0000  the column that is compared
//	      09 0C from  09 0C to
//	      01 00                                               all columns
func (r *Range) append(b []byte) []byte {
	clock := r.Clock
	if clock == (Attribute{}) {
		clock = clockTime()
	}
	b = append(b, 1, byte(axdr.TagStructure), 4,
		byte(axdr.TagStructure), 4, byte(axdr.TagLongUnsigned), byte(clock.Class>>8), byte(clock.Class),
		byte(axdr.TagOctetString), byte(len(clock.Code)))
	b = append(b, clock.Code[:]...)
	b = append(b, byte(axdr.TagInteger), byte(clock.ID), byte(axdr.TagLongUnsigned), 0, 0)
	b = r.From.append(append(b, byte(axdr.TagOctetString), DateTimeLen))
	b = r.To.append(append(b, byte(axdr.TagOctetString), DateTimeLen))
	return append(b, byte(axdr.TagArray), 0)
}

// appendNext appends a get-request-next: C0 02 invoke-id block-number 4.
func appendNext(b []byte, invoke uint8, block uint32) []byte {
	return append(b, tagGetRequest, formNext, priorityConfirmed|invoke&invokeMask,
		byte(block>>24), byte(block>>16), byte(block>>8), byte(block))
}

// AppendAction appends an action-request-normal:
//
//	C3 01 invoke-id  class 2  OBIS code 6  method 1  00
//	                                                 01 and the argument, if not nil
func AppendAction(b []byte, invoke uint8, method Attribute, argument *axdr.Value) ([]byte, error) {
	b = append(b, tagActionRequest, formNormal, priorityConfirmed|invoke&invokeMask)
	b = method.append(b)
	if argument == nil {
		return append(b, 0), nil
	}
	return argument.AppendBinary(append(b, 1))
}

// part is one get-response: all of the answer or a block of it.
type part struct {
	block  bool
	last   bool
	n      uint32 // number of the block
	octets []byte // encoded data, aliasing the APDU
}

// parseGetResponse decodes a get-response:
//
//	C4 01 invoke-id                    00 data, or 01 result
//	C4 02 invoke-id last block-number  00 length octets, or 01 result
//
// A refusal is an AccessError.
func parseGetResponse(apdu []byte) (part, error) {
	r := reader{b: apdu}
	r.u8()
	form := r.u8()
	r.u8()
	p := part{block: form == formBlock, last: true}
	switch form {
	case formNormal:
	case formBlock:
		p.last, p.n = r.u8() != 0, r.u32()
	default:
		return part{}, malformed("get response of form %d", form)
	}
	refused, err := parseRefusal(&r)
	switch {
	case err != nil:
		return part{}, err
	case refused != nil:
		return part{}, *refused
	case p.block:
		p.octets = r.counted()
	default:
		p.octets = r.b
	}
	if r.short {
		return part{}, malformed("get response cut short")
	}
	return p, nil
}

// parseRefusal takes the choice between data (nil) and a result.
func parseRefusal(r *reader) (*AccessError, error) {
	switch choice := r.u8(); {
	case r.short:
		return nil, malformed("response cut short")
	case choice == 0:
		return nil, nil
	case choice == 1:
		e := AccessError(r.u8())
		if r.short || e == 0 {
			return nil, malformed("response with neither data nor a reason")
		}
		return &e, nil
	default:
		return nil, malformed("response with choice %d", choice)
	}
}

// parseActionResponse decodes an action-response-normal:
//
//	C7 01 invoke-id result  00, or 01 and what the method returns: 00 data, or 01 result
//
// A refusal is an AccessError. A method that returns nothing gives null-data.
func parseActionResponse(apdu []byte) (axdr.Value, error) {
	r := reader{b: apdu}
	r.u8()
	form := r.u8()
	r.u8()
	result := AccessError(r.u8())
	switch {
	case r.short:
		return axdr.Value{}, malformed("action response cut short")
	case form != formNormal:
		return axdr.Value{}, malformed("action response of form %d", form)
	case result != 0:
		return axdr.Value{}, result
	case r.u8() == 0: // nothing returned; some meters leave out even that
		return axdr.Value{}, nil
	}
	refused, err := parseRefusal(&r)
	if err != nil {
		return axdr.Value{}, err
	}
	if refused != nil {
		return axdr.Value{}, *refused
	}
	return parseData(r.b)
}

// parseData decodes the data that an answer starts with. What follows it is
// not looked at: some meters pad their answers.
func parseData(b []byte) (axdr.Value, error) {
	v, _, err := axdr.Parse(b)
	if err != nil {
		return axdr.Value{}, malformed("%w", err)
	}
	return v, nil
}
