package dlms

import "gridgate/dlms/axdr"

// reader takes an APDU apart from the front. Past the end it gives zeros and
// remembers that the APDU was cut short.
type reader struct {
	b     []byte
	short bool
	taken int // elements of the Data so far
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.b, r.short = nil, true
		return nil
	}
	head := r.b[:n]
	r.b = r.b[n:]
	return head
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 { return uint16(r.u8())<<8 | uint16(r.u8()) }

func (r *reader) u32() uint32 { return uint32(r.u16())<<16 | uint32(r.u16()) }

// counted takes a length and that many octets.
func (r *reader) counted() []byte {
	length, n := axdr.ParseLength(r.b)
	if n == 0 {
		r.b, r.short = nil, true
		return nil
	}
	r.take(n)
	return r.take(length)
}

// element takes a BER element of a tag of one octet.
func (r *reader) element() (tag byte, contents []byte) {
	return r.u8(), r.counted()
}

// count takes a count.
func (r *reader) count() (int, bool) {
	count, n := axdr.ParseLength(r.b)
	r.take(n)
	if n == 0 {
		r.short = true
	}
	return count, n > 0
}

// data takes a Data. All of an APDU have room for axdr.MaxValues elements.
func (r *reader) data() (axdr.Value, error) {
	v, n, elements, err := axdr.ParseSome(r.b, axdr.MaxValues-r.taken)
	if err != nil {
		return axdr.Value{}, malformed("%w", err)
	}
	r.taken += elements
	r.take(n)
	return v, nil
}

// attribute takes class, code and attribute.
func (r *reader) attribute() Attribute {
	a := Attribute{Class: r.u16()}
	copy(a.Code[:], r.take(len(a.Code)))
	a.ID = int8(r.u8())
	return a
}
