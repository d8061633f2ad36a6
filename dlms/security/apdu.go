package security

import (
	"encoding/binary"
	"fmt"

	"gridgate/dlms/axdr"
)

// The tags of what this package makes and takes apart (IEC 62056-5-3, 9.5).
const (
	TagGeneralGlobal    = 0xDB
	TagGeneralDedicated = 0xDC
	TagGeneralCiphering = 0xDD
	TagGeneralSigning   = 0xDF
)

// serviceTags gives the tags under which an APDU with that tag travels
// protected by a global and by a dedicated key; ok is false for those that
// only the general forms protect.
func serviceTags(tag byte) (global, dedicated byte, ok bool) {
	switch tag {
	case 0x01, 0x05, 0x06, 0x08, 0x0C, 0x0D, 0x0E, 0x16, 0x18: // initiate, and the services of short names
		return tag + 0x20, tag + 0x40, true
	case 0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC5, 0xC7: // the services of logical names
		return tag + 0x08, tag + 0x10, true
	}
	return 0, 0, false
}

// plainTag undoes serviceTags.
func plainTag(tag byte) (plain byte, set KeySet, ok bool) {
	for _, c := range [...]struct {
		over byte
		set  KeySet
	}{{0x20, Unicast}, {0x40, Dedicated}, {0x08, Unicast}, {0x10, Dedicated}} {
		global, dedicated, ok := serviceTags(tag - c.over)
		if ok && (c.set == Unicast && global == tag || c.set == Dedicated && dedicated == tag) {
			return tag - c.over, c.set, true
		}
	}
	return 0, 0, false
}

// IsProtected says whether an APDU with that tag is one that Unprotect opens.
func IsProtected(tag byte) bool {
	_, _, ok := plainTag(tag)
	return ok || tag == TagGeneralGlobal || tag == TagGeneralDedicated
}

// Protected is an APDU that is protected, taken apart and not opened.
type Protected struct {
	Tag     byte
	Plain   byte   // the tag that the text must have; 0 any, in the general forms
	Set     KeySet // the key that it is under
	Title   Title  // of the sender, in the general forms; zero if it was left out
	Control Control
	Counter uint32
	Sealed  []byte // text and tag; aliases the APDU
}

// IsGeneral says whether it is of a general form.
func (p Protected) IsGeneral() bool { return p.Plain == 0 }

// Parse takes a protected APDU apart. Octets after its end are not looked at.
// It says nothing about who sent it.
func Parse(apdu []byte) (Protected, error) {
	if len(apdu) == 0 {
		return Protected{}, fmt.Errorf("%w: an empty apdu", ErrMalformed)
	}
	p := Protected{Tag: apdu[0]}
	rest := apdu[1:]
	if plain, set, ok := plainTag(p.Tag); ok {
		p.Plain, p.Set = plain, set
	} else if rest, ok = p.general(rest); !ok {
		return Protected{}, fmt.Errorf("%w: tag %02X, or cut short", ErrMalformed, p.Tag)
	}
	content, _, ok := counted(rest)
	if !ok || len(content) < headerLen {
		return Protected{}, fmt.Errorf("%w: cut short", ErrMalformed)
	}
	p.Control, p.Counter, p.Sealed = Control(content[0]), binary.BigEndian.Uint32(content[1:]), content[headerLen:]
	if p.Control.Broadcast() && p.Set == Unicast {
		p.Set = Broadcast
	}
	return p, nil
}

// general takes what the general forms have before the length.
func (p *Protected) general(b []byte) (rest []byte, ok bool) {
	switch p.Tag {
	case TagGeneralGlobal:
	case TagGeneralDedicated:
		p.Set = Dedicated
	default:
		return nil, false
	}
	title, rest, ok := counted(b)
	if !ok || len(title) != 0 && len(title) != TitleLen {
		return nil, false
	}
	copy(p.Title[:], title)
	return rest, true
}

// counted takes a length and that many octets.
func counted(b []byte) (octets, rest []byte, ok bool) {
	length, n := axdr.ParseLength(b)
	if n == 0 || length > len(b)-n {
		return nil, nil, false
	}
	return b[n : n+length], b[n+length:], true
}

// Overhead is how many octets Protect adds to an APDU of n.
func Overhead(n int, p Policy, general bool) int {
	over := headerLen
	if p.Covers(Authenticated) {
		over += TagLen
	}
	if general {
		return 2 + TitleLen + lengthLen(n+over) + over
	}
	return 1 + lengthLen(n+over) + over
}

func lengthLen(n int) int {
	switch {
	case n < 0x80:
		return 1
	case n < 1<<8:
		return 2
	case n < 1<<16:
		return 3
	}
	return 5
}

// Sender protects what one side sends.
type Sender struct {
	Suite  Suite
	Policy Policy
	Title  Title // our own
	Keys   Keys
	// Counter draws the counters of our title and the unicast key. What is
	// protected by the dedicated key takes its counters from it too: they need
	// only rise there, and some meters look at one counter for both keys.
	Counter *Counter
	// BroadcastCounter draws those of the broadcast key, if that is used.
	BroadcastCounter *Counter
}

// draw gives the key of the set and the next counter for it.
func (s *Sender) draw(set KeySet) (Key, uint32, error) {
	if s.Title.IsZero() {
		return Key{}, 0, fmt.Errorf("%w: our own was not given", ErrTitle)
	}
	key, counter := s.Keys.key(set), s.Counter
	if err := s.Suite.check(key); err != nil {
		return Key{}, 0, fmt.Errorf("encryption key: %w", err)
	}
	drawn := key
	switch set {
	case Broadcast:
		counter = s.BroadcastCounter
	case Dedicated:
		drawn = s.Keys.Encryption
	case Unicast:
	}
	if err := counter.fits(s.Title, drawn); err != nil {
		return Key{}, 0, err
	}
	n, err := counter.Next()
	return key, n, err
}

func (s *Sender) control(set KeySet) Control {
	c := Control(s.Suite) | Control(s.Policy)
	if set == Broadcast {
		c |= broadcastBit
	}
	return c
}

// Protect appends the APDU plain, protected by a key of that set, in the form
// of its service, or in the general form if that is asked for or the service
// has none of its own. dst and plain must not overlap.
//
// A counter is used up whether or not it is sent.
func (s *Sender) Protect(dst, plain []byte, set KeySet, general bool) ([]byte, error) {
	if len(plain) == 0 {
		return nil, fmt.Errorf("protect: %w: an empty apdu", ErrMalformed)
	}
	if s.Policy&^AuthenticatedEncrypted != 0 || s.Policy == Unprotected {
		return nil, fmt.Errorf("protect: %w: %v", ErrWeak, s.Policy)
	}
	key, counter, err := s.draw(set)
	if err != nil {
		return nil, fmt.Errorf("protect: %w", err)
	}
	tag, dedicated, ok := serviceTags(plain[0])
	if set == Dedicated {
		tag = dedicated
	}
	if general || !ok {
		tag = TagGeneralGlobal
		if set == Dedicated {
			tag = TagGeneralDedicated
		}
		dst = append(append(dst, tag, TitleLen), s.Title[:]...)
	} else {
		dst = append(dst, tag)
	}
	n := headerLen + len(plain)
	if s.Policy.Covers(Authenticated) {
		n += TagLen
	}
	t := text{control: s.control(set), title: s.Title, counter: counter, ek: key, ak: s.Keys.Authentication}
	if dst, err = t.appendSealed(axdr.AppendLength(dst, n), plain); err != nil {
		return nil, fmt.Errorf("protect: %w", err)
	}
	return dst, nil
}

// Receiver opens what one side receives.
type Receiver struct {
	Suite  Suite
	Policy Policy // the least that must have been done to an APDU
	Title  Title  // of the other side
	Keys   Keys
	// Direction is that of what is received.
	Direction Direction
	// Window refuses what was received before; it must not be nil. What is
	// encrypted only raises it too, though anybody could have sent that.
	Window *Window
}

// key gives the key of the set, and where its counters are remembered.
func (r *Receiver) key(set KeySet) (Key, windowKey, error) {
	if r.Title.IsZero() {
		return Key{}, windowKey{}, fmt.Errorf("%w: that of the other side is not known", ErrTitle)
	}
	key := r.Keys.key(set)
	if err := r.Suite.check(key); err != nil {
		return Key{}, windowKey{}, fmt.Errorf("encryption key: %w", err)
	}
	return key, windowKey{r.Title, key.ID(), r.Direction}, nil
}

func (r *Receiver) accepts(c Control, least Policy) error {
	switch {
	case c.Compressed():
		return ErrCompressed
	case c.Suite() != r.Suite:
		return fmt.Errorf("%w: %d, want %d", ErrSuite, uint8(c.Suite()), uint8(r.Suite))
	case c.Policy() == Unprotected || !c.Policy().Covers(least):
		return fmt.Errorf("%w: %v, want %v", ErrWeak, c.Policy(), least)
	}
	return nil
}

// Unprotect appends the APDU that is in a protected one. dst and apdu must not
// overlap. What was received before, is protected less than Policy, or comes
// from another than Title is refused; nothing of it is returned.
func (r *Receiver) Unprotect(dst, apdu []byte) ([]byte, error) {
	out, err := r.unprotect(dst, apdu)
	if err != nil {
		return nil, fmt.Errorf("unprotect: %w", err)
	}
	return out, nil
}

func (r *Receiver) unprotect(dst, apdu []byte) ([]byte, error) {
	p, err := Parse(apdu)
	if err != nil {
		return nil, err
	}
	if err := r.accepts(p.Control, r.Policy); err != nil {
		return nil, err
	}
	if !p.Title.IsZero() && p.Title != r.Title {
		return nil, fmt.Errorf("%w: %v, want %v", ErrTitle, p.Title, r.Title)
	}
	key, at, err := r.key(p.Set)
	if err != nil {
		return nil, err
	}
	if err := r.Window.check(at, p.Counter); err != nil {
		return nil, err
	}
	t := text{control: p.Control, title: r.Title, counter: p.Counter, ek: key, ak: r.Keys.Authentication}
	n := len(dst)
	if dst, err = t.appendOpened(dst, p.Sealed); err != nil {
		return nil, err
	}
	switch {
	case len(dst) == n:
		return nil, fmt.Errorf("%w: an empty apdu", ErrMalformed)
	case !p.IsGeneral() && dst[n] != p.Plain:
		return nil, fmt.Errorf("%w: a text with tag %02X in an apdu of tag %02X", ErrMalformed, dst[n], p.Tag)
	}
	return dst, r.Window.take(at, p.Counter)
}
