package dlmstest

import (
	"maps"
	"slices"

	"gridgate/dlms/axdr"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
)

// securitySetup is the name of the security setup.
func securitySetup() obis.Code { return obis.Code{0, 0, 43, 0, 0, 255} }

// builtIn gives the objects that a meter makes itself: SAP assignment, the
// logical device name, and with keys the security setup and the invocation
// counters 0-0:43.1.0 and 0-0:43.1.x of each client x. All of these show the
// counter received last, from whomever: a client that goes on after it is
// taken.
func (m *Meter) builtIn() []Object {
	name := axdr.OctetString(m.o.Name)
	list := []Object{
		Attributes(17, obis.Code{0, 0, 41, 0, 0, 255}, map[int8]func() axdr.Value{
			2: Fixed(axdr.Array(axdr.Structure(axdr.LongUnsigned(m.o.Server), name))),
		}),
	}
	if m.o.Name != "" {
		list = append(list, Data(obis.Code{0, 0, 42, 0, 0, 255}, Fixed(name)))
	}
	if m.keys.Keys.Encryption.IsZero() {
		return list
	}
	list = append(list, m.setup())
	counter := func() axdr.Value { return axdr.DoubleLongUnsigned(m.last) }
	for _, client := range append([]uint16{0}, slices.Sorted(maps.Keys(m.logins))...) {
		if l := m.logins[client]; client < 256 && (client == 0 || l.Mechanism >= mechanismHLS || l.Policy != security.Unprotected) {
			list = append(list, Data(obis.Code{0, 0, 43, 1, byte(client), 255}, counter))
		}
	}
	return list
}

// setup gives the security setup (class 64): version 0 for suite 0, else 1.
// Its policy is that of the strictest client, and activating one makes it the
// least of all clients that must show who they are on a high level. Keys and
// policy count from the next association on.
func (m *Meter) setup() Object {
	k := &m.keys
	o := Object{Class: 64, Code: securitySetup(), Attributes: []int8{2, 3, 4, 5}, Methods: []int8{1, 2}}
	if k.Suite != security.Suite0 {
		o.Version = 1
		o.Attributes = append(o.Attributes, 6)
	}
	o.Read = func(id int8, rows *Selection) (axdr.Value, bool) {
		switch {
		case rows != nil:
		case id == 2:
			return axdr.Enum(m.policy()), true
		case id == 3:
			return axdr.Enum(uint8(k.Suite)), true
		case id == 4:
			return axdr.OctetString(string(make([]byte, security.TitleLen))), true
		case id == 5:
			return axdr.OctetString(string(k.Title[:])), true
		case id == 6 && o.Version == 1:
			return axdr.Array(), true
		}
		return axdr.Value{}, false
	}
	o.Act = func(id int8, argument axdr.Value) (axdr.Value, Result) {
		switch id {
		case 1:
			return axdr.Value{}, m.activate(argument)
		case 2:
			return axdr.Value{}, m.transfer(argument)
		}
		return axdr.Value{}, ReadWriteDenied
	}
	return o
}

// policy is the security policy as the security setup has it: by version 0 a
// number, by version 1 bits for requests and responses.
func (m *Meter) policy() uint8 {
	strictest := security.Unprotected
	for _, l := range m.logins {
		strictest |= l.Policy
	}
	if m.keys.Suite == security.Suite0 {
		return uint8(strictest >> 4)
	}
	return uint8(strictest>>4)<<2 | uint8(strictest>>4)<<5
}

// activate makes the policy stricter; it never gets laxer.
func (m *Meter) activate(v axdr.Value) Result {
	policy := security.Policy(v.Num&3) << 4
	if m.keys.Suite != security.Suite0 {
		policy = security.Policy(v.Num>>2&3) << 4
	}
	switch {
	case v.Tag != axdr.TagEnum:
		return TypeUnmatched
	case !policy.Covers(m.strictest()):
		return ReadWriteDenied
	}
	for _, l := range m.logins {
		if l.Mechanism >= mechanismHLS {
			l.Policy |= policy
		}
	}
	return Success
}

func (m *Meter) strictest() security.Policy {
	p := security.Unprotected
	for _, l := range m.logins {
		p |= l.Policy
	}
	return p
}

// transfer takes keys that the master key wraps: an array of {key id, wrapped
// key}. All of them or none are taken.
func (m *Meter) transfer(v axdr.Value) Result {
	next := m.keys
	if v.Tag != axdr.TagArray || len(v.Items) == 0 {
		return TypeUnmatched
	}
	for _, item := range v.Items {
		if len(item.Items) != 2 || item.Items[0].Tag != axdr.TagEnum || item.Items[1].Tag != axdr.TagOctetString {
			return TypeUnmatched
		}
		key, err := security.Unwrap(m.keys.Master, []byte(item.Items[1].Str))
		if err != nil || key.Len() != next.Suite.KeyLen() {
			return ReadWriteDenied
		}
		switch item.Items[0].Num {
		case 0:
			next.Keys.Encryption = key
		case 1:
			next.Keys.Broadcast = key
		case 2:
			next.Keys.Authentication = key
		case 3:
			next.Master = key
		default:
			return TypeUnmatched
		}
	}
	if !next.Keys.Encryption.Equal(m.keys.Keys.Encryption) {
		m.counter = security.NewCounter(&m.store, next.Title, next.Keys.Encryption, 0)
		m.last = 0
	}
	m.keys = next
	return Success
}

// own gives the objects that are of the session: the association of the
// client, under the name that each finds its own under, and those of all
// clients by their numbers.
func (s *Session) own() []Object {
	if s.a == nil {
		return nil
	}
	if s.a.isShort() {
		return []Object{s.shortAssociationObject()}
	}
	list := []Object{s.association(currentAssociation(), s.a.login, true)}
	for i, client := range slices.Sorted(maps.Keys(s.meter.logins)) {
		if i < 255 {
			l := s.meter.logins[client]
			list = append(list, s.association(obis.Code{0, 0, 40, 0, byte(i + 1), 255}, l, l == s.a.login))
		}
	}
	return list
}

// association gives an object of class 15, version 1 (IEC 62056-6-2, 4.4.4).
func (s *Session) association(code obis.Code, l *login, current bool) Object {
	m := s.meter
	o := Object{
		Class: classAssociation, Version: 1, Code: code,
		Attributes: []int8{2, 3, 4, 5, 6, 7, 8, 9}, Settable: []int8{7}, Methods: []int8{1, 2},
	}
	name, conformance, pdu := byte(1), l.conformance(), int(m.o.MaxPDU)
	if l.Policy != security.Unprotected {
		name = 3
	}
	if current {
		name, conformance, pdu = s.a.name, s.a.conformance, s.a.pdu
	}
	o.Read = func(id int8, rows *Selection) (axdr.Value, bool) {
		switch {
		case rows != nil:
		case id == 2 && current:
			return s.objectList(), true
		case id == 2:
			return axdr.Array(), true
		case id == 3:
			return axdr.Structure(axdr.Integer(int8(l.client)), axdr.LongUnsigned(m.o.Server)), true
		case id == 4:
			return axdr.OctetString(contextArcs + string([]byte{name})), true
		case id == 5:
			bits := string([]byte{byte(conformance >> 16), byte(conformance >> 8), byte(conformance)})
			return axdr.Structure(axdr.BitString(bits, 24), axdr.LongUnsigned(m.o.MaxPDU), axdr.LongUnsigned(uint16(pdu)),
				axdr.Unsigned(6), axdr.Integer(0), axdr.OctetString("")), true
		case id == 6:
			return axdr.OctetString(mechanismArcs + string([]byte{l.Mechanism})), true
		case id == 8 && current:
			return axdr.Enum(2), true
		case id == 8:
			return axdr.Enum(0), true
		case id == 9:
			setup := securitySetup()
			return axdr.OctetString(string(setup[:])), true
		}
		return axdr.Value{}, false
	}
	o.Write = func(id int8, v axdr.Value) Result {
		switch {
		case id != 7 || !current || l.Mechanism == 0:
			return ReadWriteDenied
		case v.Tag != axdr.TagOctetString || v.Str == "":
			return TypeUnmatched
		}
		l.Secret = v.Str
		return Success
	}
	o.Act = func(id int8, v axdr.Value) (axdr.Value, Result) {
		switch {
		case id != 2 || !current || l.Mechanism < mechanismHLS:
			return axdr.Value{}, ReadWriteDenied
		case v.Tag != axdr.TagOctetString || v.Str == "":
			return axdr.Value{}, TypeUnmatched
		}
		l.Secret = v.Str
		return axdr.Value{}, Success
	}
	return o
}

// objects gives all objects that the client sees, each once.
func (s *Session) objects() []Object {
	var list []Object
	seen := map[obis.Code]bool{}
	for _, some := range [][]Object{s.own(), s.meter.o.Objects, s.meter.builtIn()} {
		for _, o := range some {
			if !seen[o.Code] {
				seen[o.Code] = true
				list = append(list, o)
			}
		}
	}
	return list
}

// What a client may do with an attribute or a method.
const (
	noAccess  = 0
	readOnly  = 1
	writeOnly = 2
	readWrite = 3
	mayRun    = 1
)

// objectList gives attribute 2 of the association: of each object the class,
// version, name, and what the client may do with what.
func (s *Session) objectList() axdr.Value {
	list := axdr.Array()
	for _, o := range s.objects() {
		attributes, methods := axdr.Array(attributeAccess(1, readOnly, false)), axdr.Array()
		for _, id := range o.Attributes {
			access := uint8(readOnly)
			if !s.a.ReadOnly && slices.Contains(o.Settable, id) {
				access = readWrite
			}
			if o.Class == classAssociation && id == 7 {
				if access--; access != writeOnly {
					access = noAccess
				}
			}
			attributes.Items = append(attributes.Items, attributeAccess(id, access, o.Class == 7 && id == 2))
		}
		for _, id := range o.Methods {
			access := uint8(mayRun)
			if s.a.ReadOnly {
				access = noAccess
			}
			methods.Items = append(methods.Items, axdr.Structure(axdr.Integer(id), axdr.Enum(access)))
		}
		list.Items = append(list.Items, axdr.Structure(axdr.LongUnsigned(o.Class), axdr.Unsigned(o.Version),
			axdr.OctetString(string(o.Code[:])), axdr.Structure(attributes, methods)))
	}
	return list
}

func attributeAccess(id int8, access uint8, selects bool) axdr.Value {
	selectors := axdr.Null()
	if selects {
		selectors = axdr.Array(axdr.Integer(1), axdr.Integer(2))
	}
	return axdr.Structure(axdr.Integer(id), axdr.Enum(access), selectors)
}
