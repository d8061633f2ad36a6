package dlmstest

import (
	"bytes"
	"encoding/binary"

	"gridgate/dlms/axdr"
)

// Short names (IEC 62056-5-3, 9.3.14; IEC 62056-6-2, 4.4): the association is at
// FA00, the other objects stand 256 apart from 0100, and attribute i of an object
// is 8 × (i - 1) after its base name. Methods follow at a place of the class.
const (
	shortAssociation = 0xFA00
	shortStep        = 0x100
	maxShort         = shortAssociation/shortStep - 1
)

// methodsAt gives where the methods of a class begin; 0 is nowhere.
func methodsAt(class uint16) uint16 {
	return map[uint16]uint16{
		3: 0x28, 4: 0x38, 5: 0x48, 6: 0x30, 7: 0x58, 8: 0x60, 9: 0x20, 12: 0x20, 17: 0x20, 18: 0x40, 20: 0x50, 40: 0x38, 64: 0x30, 70: 0x20,
	}[class]
}

// proofAt is the name of reply_to_HLS_authentication.
const proofAt = shortAssociation + 0x58

// isShortProof says whether a request is the third pass of an authentication.
func isShortProof(apdu []byte) bool {
	return len(apdu) > 5 && apdu[1] == 1 && (apdu[2] == 2 || apdu[2] == 4) && binary.BigEndian.Uint16(apdu[3:]) == proofAt
}

// shortAssociationObject gives an object of class 12 (IEC 62056-6-2, 4.4.3).
func (s *Session) shortAssociationObject() Object {
	code := currentAssociation()
	return Object{Class: classShort, Version: 2, Code: code, Attributes: []int8{2}, Read: func(id int8, rows *Selection) (axdr.Value, bool) {
		if id != 2 || rows != nil {
			return axdr.Value{}, false
		}
		list := axdr.Array()
		for i, o := range s.objects() {
			if i > maxShort {
				break
			}
			list.Items = append(list.Items, axdr.Structure(axdr.Long(int16(shortBase(i))), axdr.LongUnsigned(o.Class),
				axdr.Unsigned(o.Version), axdr.OctetString(string(o.Code[:]))))
		}
		return list, true
	}}
}

// shortBase gives the base name of the object with that number; the
// association is the first.
func shortBase(i int) uint16 {
	if i == 0 {
		return shortAssociation
	}
	return uint16(i * shortStep)
}

// named gives what a short name names; ok is false for nothing.
func (s *Session) named(name uint16) (t target, method, ok bool) {
	i := int(name / shortStep)
	if name >= shortAssociation {
		i = 0
	}
	objects := s.objects()
	if i >= len(objects) || i == 0 && name < shortAssociation || name%8 != 0 {
		return target{}, false, false
	}
	o := objects[i]
	offset := name - shortBase(i)
	t = target{class: o.Class, code: o.Code, id: int8(offset/8) + 1}
	if at := methodsAt(o.Class); at != 0 && offset >= at {
		t.id, method = int8((offset-at)/8)+1, true
	}
	return t, method, true
}

// serveShort answers a service by short names.
func (s *Session) serveShort(r *reader, room int) []byte {
	var answer []byte
	switch r.u8() {
	case 5:
		answer = s.readShort(r, room)
	case 6:
		answer = s.writeShort(r)
	case unconfirmedWrite:
		if s.a.conformance&conformanceUnconfirmed != 0 {
			s.writeShort(r)
			return nil
		}
	}
	if answer == nil {
		return exception(serviceUnknown, serviceNotSupported)
	}
	return answer
}

// What a read-request may ask for.
const (
	shortName      = 2
	shortParameter = 4
	shortBlock     = 5
	shortReadPart  = 6
	shortWritePart = 7
)

const (
	unconfirmedWrite       = 0x16
	conformanceUnconfirmed = 0x040000
)

// part takes a block of a long request: last, number, and its octets. all is
// the request without its tag once the last has come, else answer is what the
// client is told: more for the next one.
func (s *Session) part(tag, more byte, last bool, n uint16, octets []byte) (all, answer []byte) {
	l := &s.a.set
	if n == 1 {
		*l = long{on: true}
	}
	refuse := func(result Result) []byte {
		*l = long{}
		return []byte{tag, 1, 1, byte(result)}
	}
	switch {
	case !l.on:
		return nil, refuse(NoLongSet)
	case uint32(n) != l.block+1:
		return nil, refuse(BlockNumberInvalid)
	case len(l.octets)+len(octets) > maxWhole:
		return nil, refuse(LongSetAborted)
	}
	l.block, l.octets = uint32(n), append(l.octets, octets...)
	if !last {
		return nil, []byte{tag, 1, more, byte(n >> 8), byte(n)}
	}
	all = l.octets
	*l = long{}
	return all, nil
}

// readShort answers a read-request; nil for one that is none.
func (s *Session) readShort(r *reader, room int) []byte {
	n := r.count()
	if n == 1 && bytes.HasPrefix(r.b, []byte{shortBlock}) {
		r.u8()
		have := uint32(r.u16())
		if result := s.a.get.next(have); result != Success || r.short {
			return []byte{0x0C, 1, 1, byte(max(result, BlockNumberInvalid))}
		}
		return s.shortBlock(room)
	}
	if n == 1 && bytes.HasPrefix(r.b, []byte{shortReadPart}) {
		r.u8()
		last, number, octets := r.u8() != 0, r.u16(), r.counted()
		if !r.done() {
			return nil
		}
		all, answer := s.part(0x0C, 3, last, number, octets)
		if answer != nil || bytes.HasPrefix(all, []byte{1, shortReadPart}) {
			return answer
		}
		return s.readShort(&reader{b: all}, room)
	}
	b := axdr.AppendLength(nil, n)
	for range n {
		kind, name := r.u8(), r.u16()
		var selector byte
		var parameter axdr.Value
		if kind == shortParameter {
			selector, parameter = r.u8(), r.data()
		}
		if r.short || kind != shortName && kind != shortParameter {
			return nil
		}
		v, result := s.readName(name, kind == shortParameter, selector, parameter)
		octets, result := encode(v, result)
		if result != Success || len(b)+len(octets) > maxWhole {
			b = append(b, 1, byte(max(result, TemporaryFailure)))
			continue
		}
		b = append(append(b, 0), octets...)
	}
	s.a.get = long{}
	if len(b)+1 <= room {
		return append([]byte{0x0C}, b...)
	}
	s.a.get = long{octets: b, on: true}
	return s.shortBlock(room)
}

// shortBlock gives the next block of an answer.
func (s *Session) shortBlock(room int) []byte {
	last, n, octets := s.a.get.take(room - 6)
	b := binary.BigEndian.AppendUint16([]byte{0x0C, 1, 2, last}, uint16(n))
	return append(axdr.AppendLength(b, len(octets)), octets...)
}

// readName reads an attribute, or runs a method with its parameter.
func (s *Session) readName(name uint16, parameterised bool, selector byte, parameter axdr.Value) (axdr.Value, Result) {
	if name == proofAt && parameterised {
		return s.prove(parameter)
	}
	t, method, ok := s.named(name)
	switch {
	case !ok:
		return axdr.Value{}, ObjectUndefined
	case method:
		return s.run(t, parameter)
	case parameterised:
		if t.rows, ok = parseSelection(selector, parameter, s.meter.o.Zone); !ok {
			t.wrong = TypeUnmatched
		}
	}
	return s.read(t)
}

// writeShort answers a write-request; nil for one that is none.
func (s *Session) writeShort(r *reader) []byte {
	n := r.count()
	if n == 1 && bytes.HasPrefix(r.b, []byte{shortWritePart}) {
		r.u8()
		last, number, values := r.u8() != 0, r.u16(), r.count()
		raw := r.data()
		if !r.done() || values != 1 || raw.Tag != axdr.TagOctetString {
			return nil
		}
		all, answer := s.part(0x0D, 2, last, number, []byte(raw.Str))
		if answer != nil || bytes.HasPrefix(all, []byte{1, shortWritePart}) {
			return answer
		}
		return s.writeShort(&reader{b: all})
	}
	names := make([]uint16, 0, min(n, len(r.b)/3+1))
	selected := make([]bool, 0, cap(names))
	for range n {
		kind := r.u8()
		names = append(names, r.u16())
		if kind == shortParameter {
			r.u8()
			r.data()
		} else if kind != shortName {
			return nil
		}
		selected = append(selected, kind == shortParameter)
	}
	if r.count() != n || r.short {
		return nil
	}
	b := axdr.AppendLength([]byte{0x0D}, n)
	for i, name := range names {
		v := r.data()
		if r.short {
			return nil
		}
		t, method, ok := s.named(name)
		result := ObjectUndefined
		switch {
		case name == proofAt, selected[i]:
			result = ReadWriteDenied // nobody would see the meter's proof, and no object takes rows
		case ok && method:
			_, result = s.run(t, v)
		case ok:
			result = s.writeValue(t, v)
		}
		if result == Success {
			b = append(b, 0)
		} else {
			b = append(b, 1, byte(result))
		}
	}
	return b
}
