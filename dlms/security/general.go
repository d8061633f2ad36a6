package security

import (
	"encoding/binary"
	"fmt"

	"gridgate/dlms/axdr"
)

// Envelope is what general-ciphering and general-signing say about who wrote
// what to whom (IEC 62056-5-3, 9.5). All parts may be empty, and none is over
// 127 octets by the standard; they are taken as they come. Experimental: see
// the package.
//
//	length, transaction id
//	length, system title of the originator
//	length, system title of the recipient
//	length, date-time
//	length, other information
type Envelope struct {
	TransactionID []byte
	Originator    []byte
	Recipient     []byte
	DateTime      []byte
	Other         []byte
}

// append appends the parts, as they are sent and as they are authenticated.
func (e *Envelope) append(b []byte) []byte {
	for _, part := range [][]byte{e.TransactionID, e.Originator, e.Recipient, e.DateTime, e.Other} {
		b = append(axdr.AppendLength(b, len(part)), part...)
	}
	return b
}

// parse takes the parts; they alias b.
func (e *Envelope) parse(b []byte) (rest []byte, ok bool) {
	for _, part := range []*[]byte{&e.TransactionID, &e.Originator, &e.Recipient, &e.DateTime, &e.Other} {
		if *part, b, ok = counted(b); !ok {
			return nil, false
		}
	}
	return b, true
}

// KeyChoice says how general-ciphering names its key.
type KeyChoice uint8

// The choices of key-info.
const (
	NoKeyInfo     KeyChoice = iota // both sides know
	IdentifiedKey                  // one of the global keys
	WrappedKey                     // it is in Data, wrapped by the master key
	AgreedKey                      // what both sides make of it: see OnePass and StaticUnified
)

// KeyInfo names the key of general-ciphering:
//
//	00                                        not named
//	01 00 key-id                              identified: 0 unicast, 1 broadcast
//	01 01 00 length, wrapped key              wrapped by the master key
//	01 02 length, parameters length, data     agreed: parameters 01 one-pass, 02 static unified model
type KeyInfo struct {
	Choice     KeyChoice
	ID         uint8 // identified: 0 unicast, 1 broadcast; wrapped: 0 the master key
	Parameters []byte
	Data       []byte
}

func (k *KeyInfo) append(b []byte) ([]byte, error) {
	switch k.Choice {
	case NoKeyInfo:
		return append(b, 0), nil
	case IdentifiedKey:
		return append(b, 1, 0, k.ID), nil
	case WrappedKey:
		return append(axdr.AppendLength(append(b, 1, 1, k.ID), len(k.Data)), k.Data...), nil
	case AgreedKey:
		b = append(axdr.AppendLength(append(b, 1, 2), len(k.Parameters)), k.Parameters...)
		return append(axdr.AppendLength(b, len(k.Data)), k.Data...), nil
	}
	return nil, fmt.Errorf("%w: key choice %d", ErrMalformed, uint8(k.Choice))
}

// parse takes the key info; it aliases b.
func (k *KeyInfo) parse(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	if b[0] == 0 {
		return b[1:], true
	}
	if len(b) < 3 || b[0] != 1 {
		return nil, false
	}
	choice := b[1]
	b = b[2:]
	switch choice {
	case 0:
		k.Choice, k.ID = IdentifiedKey, b[0]
		return b[1:], true
	case 1:
		k.Choice, k.ID = WrappedKey, b[0]
		k.Data, rest, ok = counted(b[1:])
		return rest, ok
	case 2:
		k.Choice = AgreedKey
		if k.Parameters, b, ok = counted(b); !ok {
			return nil, false
		}
		k.Data, rest, ok = counted(b)
		return rest, ok
	}
	return nil, false
}

// GeneralCiphering is a general-ciphering APDU. What is decoded aliases the
// octets that it was decoded from.
//
//	DD  envelope  key info  length  control, counter, text, tag
type GeneralCiphering struct {
	Envelope
	Key     KeyInfo
	Control Control
	Counter uint32
	Sealed  []byte // text and tag
}

// AppendBinary appends the APDU.
func (g *GeneralCiphering) AppendBinary(b []byte) ([]byte, error) {
	b, err := g.Key.append(g.Envelope.append(append(b, TagGeneralCiphering)))
	if err != nil {
		return nil, err
	}
	b = append(axdr.AppendLength(b, headerLen+len(g.Sealed)), byte(g.Control))
	return append(binary.BigEndian.AppendUint32(b, g.Counter), g.Sealed...), nil
}

// ParseGeneralCiphering decodes the APDU. Octets after its end are not looked at.
func ParseGeneralCiphering(apdu []byte) (GeneralCiphering, error) {
	var g GeneralCiphering
	if len(apdu) == 0 || apdu[0] != TagGeneralCiphering {
		return g, fmt.Errorf("%w: no general-ciphering", ErrMalformed)
	}
	rest, ok := g.Envelope.parse(apdu[1:])
	if ok {
		rest, ok = g.Key.parse(rest)
	}
	var content []byte
	if ok {
		content, _, ok = counted(rest)
	}
	if !ok || len(content) < headerLen {
		return GeneralCiphering{}, fmt.Errorf("general-ciphering: %w: cut short", ErrMalformed)
	}
	g.Control, g.Counter, g.Sealed = Control(content[0]), binary.BigEndian.Uint32(content[1:]), content[headerLen:]
	return g, nil
}

// text gives what the text of g is protected under: the originator's title, and
// the envelope authenticated with it.
func (g *GeneralCiphering) text(ek, ak Key) (text, error) {
	title, err := ParseTitle(g.Originator)
	if err != nil {
		return text{}, fmt.Errorf("originator: %w", err)
	}
	return text{control: g.Control, title: title, counter: g.Counter, ek: ek, ak: ak, header: g.Envelope.append(nil)}, nil
}

// Seal protects plain under ek and ak, into g.Sealed. Envelope, Control and
// Counter must be set; the counter must never have been used with this title
// and key.
func (g *GeneralCiphering) Seal(plain []byte, ek, ak Key) error {
	t, err := g.text(ek, ak)
	if err != nil {
		return err
	}
	sealed, err := t.appendSealed(nil, plain)
	if err != nil {
		return err
	}
	g.Sealed = sealed[headerLen:]
	return nil
}

// OpenGeneral appends the APDU that is in g, which ek protects: the key that
// g.Key names. It is refused as Unprotect refuses.
func (r *Receiver) OpenGeneral(dst []byte, g *GeneralCiphering, ek Key) ([]byte, error) {
	if err := r.accepts(g.Control, r.Policy); err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	t, err := g.text(ek, r.Keys.Authentication)
	if err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	if t.title != r.Title {
		return nil, fmt.Errorf("general-ciphering: %w: %v, want %v", ErrTitle, t.title, r.Title)
	}
	at := windowKey{t.title, ek.ID(), r.Direction}
	if err := r.Window.check(at, g.Counter); err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	out, err := t.appendOpened(dst, g.Sealed)
	if err != nil {
		return nil, fmt.Errorf("general-ciphering: %w", err)
	}
	return out, r.Window.take(at, g.Counter)
}

// GeneralSigning is a general-signing APDU. What is decoded aliases the octets
// that it was decoded from.
//
//	DF  envelope  length, the APDU that is signed  length, signature
type GeneralSigning struct {
	Envelope
	Content   []byte
	Signature []byte // r ‖ s: see Sign and Verify
}

// SignedOctets appends what the signature is made over: envelope and content,
// as they are sent.
func (g *GeneralSigning) SignedOctets(b []byte) []byte {
	b = g.Envelope.append(b)
	return append(axdr.AppendLength(b, len(g.Content)), g.Content...)
}

// AppendBinary appends the APDU.
func (g *GeneralSigning) AppendBinary(b []byte) ([]byte, error) {
	b = g.SignedOctets(append(b, TagGeneralSigning))
	return append(axdr.AppendLength(b, len(g.Signature)), g.Signature...), nil
}

// ParseGeneralSigning decodes the APDU, and verifies nothing. Octets after its
// end are not looked at.
func ParseGeneralSigning(apdu []byte) (GeneralSigning, error) {
	var g GeneralSigning
	if len(apdu) == 0 || apdu[0] != TagGeneralSigning {
		return g, fmt.Errorf("%w: no general-signing", ErrMalformed)
	}
	rest, ok := g.Envelope.parse(apdu[1:])
	if ok {
		g.Content, rest, ok = counted(rest)
	}
	if ok {
		g.Signature, _, ok = counted(rest)
	}
	if !ok {
		return GeneralSigning{}, fmt.Errorf("general-signing: %w: cut short", ErrMalformed)
	}
	return g, nil
}
