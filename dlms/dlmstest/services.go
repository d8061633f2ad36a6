package dlmstest

import (
	"encoding/binary"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// Result is a Data-Access-Result or an Action-Result (IEC 62056-5-3, 9.5).
type Result byte

// The results that a Meter gives.
const (
	Success            Result = 0
	HardwareFault      Result = 1
	TemporaryFailure   Result = 2
	ReadWriteDenied    Result = 3
	ObjectUndefined    Result = 4
	ObjectUnavailable  Result = 11
	TypeUnmatched      Result = 12
	BlockUnavailable   Result = 14
	LongGetAborted     Result = 15
	NoLongGet          Result = 16
	LongSetAborted     Result = 17
	NoLongSet          Result = 18
	BlockNumberInvalid Result = 19
	OtherReason        Result = 250
)

// maxWhole is how long a value may become that comes or goes in blocks.
const maxWhole = 1 << 20

// target is an attribute or a method, and the selection of rows, if any.
type target struct {
	class uint16
	code  obis.Code
	id    int8
	rows  *Selection
	wrong Result // what is wrong with the selection
}

// attribute takes a descriptor, and a selection if selects.
func (s *Session) attribute(r *reader, selects bool) target {
	t := target{class: r.u16()}
	if code := r.take(6); code != nil {
		t.code = obis.Code(code)
	}
	t.id = int8(r.u8())
	if selects && r.u8() != 0 {
		s.selection(r, &t)
	}
	return t
}

// selection takes an access selector and its parameter.
func (s *Session) selection(r *reader, t *target) {
	var ok bool
	if t.rows, ok = parseSelection(r.u8(), r.data(), s.meter.o.Zone); !ok {
		t.wrong = TypeUnmatched
	}
	if s.a.conformance&conformanceSelective == 0 {
		t.wrong = ReadWriteDenied
	}
}

func (s *Session) read(t target) (axdr.Value, Result) {
	if t.wrong != Success {
		return axdr.Value{}, t.wrong
	}
	o, ok := s.find(t.class, t.code)
	switch {
	case !ok:
		return axdr.Value{}, ObjectUndefined
	case t.id == 1:
		return axdr.OctetString(string(t.code[:])), Success
	case o.Read == nil:
		return axdr.Value{}, ReadWriteDenied
	}
	v, ok := o.Read(t.id, t.rows)
	if !ok {
		return axdr.Value{}, ReadWriteDenied
	}
	return v, Success
}

// write sets an attribute to what octets hold.
func (s *Session) write(t target, octets []byte) Result {
	v, n, err := axdr.Parse(octets)
	if err != nil || n != len(octets) {
		return TypeUnmatched
	}
	return s.writeValue(t, v)
}

func (s *Session) writeValue(t target, v axdr.Value) Result {
	o, ok := s.find(t.class, t.code)
	switch {
	case !ok:
		return ObjectUndefined
	case s.a.ReadOnly || o.Write == nil || t.rows != nil || t.wrong != Success:
		return ReadWriteDenied
	}
	return o.Write(t.id, v)
}

// run runs a method.
func (s *Session) run(t target, argument axdr.Value) (axdr.Value, Result) {
	if t.class == classAssociation && t.code == currentAssociation() && t.id == 1 {
		return s.prove(argument)
	}
	o, ok := s.find(t.class, t.code)
	switch {
	case !ok:
		return axdr.Value{}, ObjectUndefined
	case s.a.ReadOnly:
		return axdr.Value{}, ReadWriteDenied
	case t.class == classScript && t.id == 1:
		return axdr.Value{}, s.execute(o, argument)
	case o.Act == nil:
		return axdr.Value{}, ReadWriteDenied
	}
	return o.Act(t.id, argument)
}

// get answers a get-request; nil for one that is none.
func (s *Session) get(r *reader, room int) []byte {
	form, invoke := r.u8(), r.u8()
	switch form {
	case 1:
		t := s.attribute(r, true)
		if r.short {
			return nil
		}
		s.a.get = long{}
		value, result := s.read(t)
		octets, result := encode(value, result)
		if result != Success {
			return []byte{0xC4, 1, invoke, 1, byte(result)}
		}
		if len(octets)+4 <= room {
			return append([]byte{0xC4, 1, invoke, 0}, octets...)
		}
		s.a.get = long{octets: octets, on: true}
	case 2:
		have := r.u32()
		if r.short {
			return nil
		}
		if result := s.a.get.next(have); result != Success {
			return append([]byte{0xC4, 2, invoke, 1, 0, 0, 0, 0, 1}, byte(result))
		}
	case 3:
		items := s.targets(r, true)
		if r.short || s.a.conformance&conformanceLists == 0 {
			return nil
		}
		octets := s.readList(items)
		s.a.get = long{}
		if len(octets)+3 <= room {
			return append([]byte{0xC4, 3, invoke}, octets...)
		}
		s.a.get = long{octets: octets, on: true}
	default:
		return nil
	}
	if s.a.conformance&conformanceBlockGet == 0 {
		s.a.get = long{}
		return exception(serviceNotAllowed, pduTooLong)
	}
	last, n, octets := s.a.get.take(room - 4 - 4)
	b := binary.BigEndian.AppendUint32([]byte{0xC4, 2, invoke, last}, n)
	return append(axdr.AppendLength(append(b, 0), len(octets)), octets...)
}

// targets takes a list of descriptors.
func (s *Session) targets(r *reader, selects bool) []target {
	n := r.count()
	items := make([]target, 0, min(n, len(r.b)/9))
	for range n {
		if r.short {
			return nil
		}
		items = append(items, s.attribute(r, selects))
	}
	return items
}

// readList gives the results of a get-response-with-list.
func (s *Session) readList(items []target) []byte {
	b := axdr.AppendLength(nil, len(items))
	for _, t := range items {
		value, result := s.read(t)
		octets, result := encode(value, result)
		if result != Success || len(b)+len(octets) > maxWhole {
			b = append(b, 1, byte(max(result, TemporaryFailure)))
			continue
		}
		b = append(append(b, 0), octets...)
	}
	return b
}

// encode gives the octets of a value that was read.
func encode(v axdr.Value, result Result) ([]byte, Result) {
	if result != Success {
		return nil, result
	}
	octets, err := v.AppendBinary(nil)
	switch {
	case err != nil:
		return nil, HardwareFault
	case len(octets) > maxWhole:
		return nil, TemporaryFailure
	}
	return octets, Success
}

// next says whether the client may ask for the block after have.
func (l *long) next(have uint32) Result {
	if !l.on {
		return NoLongGet
	}
	if have != l.block {
		*l = long{}
		return BlockNumberInvalid
	}
	return Success
}

// take gives the next block: 01 if it is the last, its number and contents, of
// at most room octets with the presence and length before them.
func (l *long) take(room int) (last byte, n uint32, octets []byte) {
	const head = 4 // a presence and a length of three octets
	octets = l.octets[:min(len(l.octets), max(room-head, 1))]
	l.octets = l.octets[len(octets):]
	l.block++
	n = l.block
	if len(l.octets) == 0 {
		*l = long{}
		return 1, n, octets
	}
	return 0, n, octets
}

// add takes a block that comes: it gives what is wrong with it, and all octets
// once it was the last.
func (l *long) add(r *reader) (n uint32, all []byte, last bool, wrong Result) {
	last, n = r.u8() != 0, r.u32()
	octets := r.counted()
	switch {
	case !l.on:
		return n, nil, last, NoLongSet
	case r.short || n != l.block+1:
		*l = long{}
		return n, nil, true, BlockNumberInvalid
	case len(l.octets)+len(octets) > maxWhole:
		*l = long{}
		return n, nil, true, LongSetAborted
	}
	l.block = n
	l.octets = append(l.octets, octets...)
	return n, l.octets, last, Success
}

// set answers a set-request; nil for one that is none.
func (s *Session) set(r *reader) []byte {
	form, invoke := r.u8(), r.u8()
	switch form {
	case 1:
		t := s.attribute(r, true)
		if r.short {
			return nil
		}
		s.a.set = long{}
		return []byte{0xC5, 1, invoke, byte(s.write(t, r.b))}
	case 2:
		s.a.set = long{items: []target{s.attribute(r, true)}, on: true}
	case 3:
	case 4:
		items := s.targets(r, true)
		if r.short || s.a.conformance&conformanceLists == 0 {
			return nil
		}
		s.a.set = long{}
		results := s.writeList(items, r.b)
		return append([]byte{0xC5, 5, invoke}, results...)
	case 5:
		s.a.set = long{items: s.targets(r, true), list: true, on: true}
	default:
		return nil
	}
	if r.short || s.a.conformance&conformanceBlockSet == 0 {
		s.a.set = long{}
		return nil
	}
	l := s.a.set
	n, all, last, wrong := s.a.set.add(r)
	number := binary.BigEndian.AppendUint32(nil, n)
	switch {
	case wrong != Success:
		return append([]byte{0xC5, 3, invoke, byte(wrong)}, number...)
	case !last:
		return append([]byte{0xC5, 2, invoke}, number...)
	}
	s.a.set = long{}
	if l.list {
		return append(append([]byte{0xC5, 4, invoke}, s.writeList(l.items, all)...), number...)
	}
	return append([]byte{0xC5, 3, invoke, byte(s.write(l.items[0], all))}, number...)
}

// writeList sets attributes to a list of Data and gives the list of results.
func (s *Session) writeList(items []target, octets []byte) []byte {
	r := reader{b: octets}
	n := r.count()
	b := axdr.AppendLength(nil, len(items))
	for i, t := range items {
		v := r.data()
		if r.short || i >= n || n != len(items) {
			b = append(b, byte(TypeUnmatched))
			continue
		}
		b = append(b, byte(s.writeValue(t, v)))
	}
	return b
}
