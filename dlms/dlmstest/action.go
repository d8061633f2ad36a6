package dlmstest

import (
	"encoding/binary"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
)

// act answers an action-request; nil for one that is none.
func (s *Session) act(r *reader, room int) []byte {
	form, invoke := r.u8(), r.u8()
	var answer []byte
	switch form {
	case 1:
		t := s.attribute(r, false)
		var argument axdr.Value
		if r.u8() != 0 {
			argument = r.data()
		}
		if r.short {
			return nil
		}
		s.a.action, s.a.get = long{}, long{}
		answer = appendReturned(nil)(s.run(t, argument))
	case 2:
		have := r.u32()
		if r.short {
			return nil
		}
		if result := s.a.get.next(have); result != Success {
			return []byte{0xC7, 1, invoke, byte(actionResult(result)), 0}
		}
		return s.actionBlock(invoke, room)
	case 3:
		items := s.targets(r, false)
		if r.short || s.a.conformance&conformanceLists == 0 {
			return nil
		}
		s.a.action, s.a.get = long{}, long{}
		answer = s.runList(items, r.b)
	case 4:
		s.a.action = long{items: []target{s.attribute(r, false)}, on: true}
	case 5:
		s.a.action = long{items: s.targets(r, false), list: true, on: true}
	case 6:
	default:
		return nil
	}
	list := form == 3
	if form >= 4 {
		if r.short || s.a.conformance&conformanceBlockAction == 0 {
			s.a.action = long{}
			return nil
		}
		l := s.a.action
		n, all, last, wrong := s.a.action.add(r)
		switch {
		case wrong != Success:
			return []byte{0xC7, 1, invoke, byte(actionResult(wrong)), 0}
		case !last:
			return binary.BigEndian.AppendUint32([]byte{0xC7, 4, invoke}, n)
		}
		s.a.action, s.a.get = long{}, long{}
		if list = l.list; list {
			answer = s.runList(l.items, all)
		} else {
			argument, n, err := axdr.Parse(all)
			if err != nil || n != len(all) {
				return []byte{0xC7, 1, invoke, byte(TypeUnmatched), 0}
			}
			answer = appendReturned(nil)(s.run(l.items[0], argument))
		}
	}
	if len(answer)+3 > room {
		s.a.get = long{octets: answer, on: true}
		return s.actionBlock(invoke, room)
	}
	if list {
		return append([]byte{0xC7, 3, invoke}, answer...)
	}
	return append([]byte{0xC7, 1, invoke}, answer...)
}

// actionResult gives what is wrong with a block as an Action-Result, which has
// other numbers for that.
func actionResult(r Result) Result {
	switch r {
	case NoLongSet:
		return NoLongGet // no long action in progress
	case LongSetAborted:
		return LongGetAborted
	case BlockNumberInvalid:
		return BlockUnavailable
	default:
		return r
	}
}

// actionBlock gives the next block of an answer.
func (s *Session) actionBlock(invoke byte, room int) []byte {
	if s.a.conformance&conformanceBlockAction == 0 {
		s.a.get = long{}
		return exception(serviceNotAllowed, pduTooLong)
	}
	last, n, octets := s.a.get.take(room - 4 - 4)
	b := binary.BigEndian.AppendUint32([]byte{0xC7, 2, invoke, last}, n)
	return append(axdr.AppendLength(b, len(octets)), octets...)
}

// appendReturned appends an Action-Response-With-Optional-Data.
func appendReturned(b []byte) func(axdr.Value, Result) []byte {
	return func(v axdr.Value, result Result) []byte {
		b = append(b, byte(result))
		octets, failed := encode(v, result)
		if failed != Success || v.Tag == axdr.TagNull {
			return append(b, 0)
		}
		return append(append(b, 1, 0), octets...)
	}
}

// runList runs methods with a list of Data for arguments, and gives the list of
// what they return.
func (s *Session) runList(items []target, octets []byte) []byte {
	r := reader{b: octets}
	n := r.count()
	b := axdr.AppendLength(nil, len(items))
	for i, t := range items {
		argument := r.data()
		if r.short || i >= n || n != len(items) {
			b = append(b, byte(TypeUnmatched), 0)
			continue
		}
		b = appendReturned(b)(s.run(t, argument))
	}
	return b
}

// The classes that a Meter knows more about than their objects say.
const (
	classRegister    = 3
	classClock       = 8
	classScript      = 9
	classShort       = 12
	classAssociation = 15
)

// maxScripts is how deep scripts may run scripts.
const maxScripts = 4

// execute runs the script of that number of a script table (IEC 62056-6-2,
// 4.5.2): all its actions, and gives the first result that is not success.
func (s *Session) execute(table Object, number axdr.Value) Result {
	if s.depth == maxScripts {
		return OtherReason
	}
	s.depth++
	defer func() { s.depth-- }()
	if table.Read == nil || number.Tag != axdr.TagLongUnsigned {
		return TypeUnmatched
	}
	scripts, ok := table.Read(2, nil)
	if !ok {
		return ObjectUnavailable
	}
	for _, script := range scripts.Items {
		if len(script.Items) != 2 || script.Items[0].Num != number.Num {
			continue
		}
		result := Success
		for _, step := range script.Items[1].Items {
			result = max(result, s.step(step))
		}
		return result
	}
	return ObjectUndefined
}

// step does one action of a script: service, class, name, index, parameter.
func (s *Session) step(step axdr.Value) Result {
	if len(step.Items) != 5 || len(step.Items[2].Str) != len(obis.Code{}) {
		return TypeUnmatched
	}
	t := target{class: uint16(step.Items[1].Num), code: obis.Code([]byte(step.Items[2].Str)), id: int8(step.Items[3].Num)}
	if step.Items[0].Num == 1 {
		return s.writeValue(t, step.Items[4])
	}
	_, result := s.run(t, step.Items[4])
	return result
}

// access answers an access-request; nil for one that is none:
//
//	D9 long-invoke-id 4  length and date-time
//	n  n × (kind  class 2  OBIS code 6  attribute 1)   04, 05: selector and parameter too
//	n  n × data
func (s *Session) access(r *reader, room int) []byte {
	invoke := r.take(4)
	r.counted()
	asked := r.b
	n := r.count()
	kinds := make([]byte, 0, min(n, len(r.b)/10+1))
	items := make([]target, 0, cap(kinds))
	for range n {
		kind := r.u8()
		t := s.attribute(r, false)
		if kind == 4 || kind == 5 {
			s.selection(r, &t)
		}
		if r.short || kind < 1 || kind > 5 {
			return nil
		}
		kinds, items = append(kinds, kind), append(items, t)
	}
	asked = asked[:len(asked)-len(r.b)]
	if r.count() != n || r.short {
		return nil
	}
	const selfDescriptive, breakOnError = 0x10, 0x20 // of the first octet of the invoke id
	data := []byte{0}                                // no specifications repeated
	if invoke[0]&selfDescriptive != 0 {
		data = append([]byte{1}, asked...)
	}
	data = axdr.AppendLength(data, n)
	broken := false
	results := axdr.AppendLength(nil, n)
	for i, t := range items {
		argument := r.data()
		if r.short {
			return nil
		}
		var v axdr.Value
		var result Result
		switch kind := kinds[i]; {
		case broken && invoke[0]&breakOnError != 0:
			result = OtherReason
		case kind == 1, kind == 4:
			v, result = s.read(t)
		case kind == 2, kind == 5:
			result = s.writeValue(t, argument)
		default:
			v, result = s.run(t, argument)
		}
		octets, result := encode(v, result)
		broken = broken || result != Success
		if result == Success && 5+1+len(data)+len(octets)+2*n+5 > room {
			octets, result = nil, TemporaryFailure // it does not fit with the others
		}
		if result != Success {
			octets = []byte{0}
		}
		data = append(data, octets...)
		results = append(results, (kinds[i]-1)%3+1, byte(result))
	}
	b := append(append([]byte{0xDA}, invoke...), 0)
	return append(append(b, data...), results...)
}
