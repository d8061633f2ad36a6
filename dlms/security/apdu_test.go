package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func policies() []Policy { return []Policy{Authenticated, Encrypted, AuthenticatedEncrypted} }

func sets() []KeySet { return []KeySet{Unicast, Broadcast, Dedicated} }

// TestEveryForm has each suite, policy, key and form there and back, cut at
// every length and altered in every bit.
func TestEveryForm(t *testing.T) {
	t.Parallel()
	from, plain := title(t, meter), unhex(t, getReq)
	seen := map[string]string{}
	for _, s := range []Suite{0, 1, 2} {
		for _, p := range policies() {
			for _, set := range sets() {
				for _, general := range []bool{false, true} {
					name := fmt.Sprintf("suite %d, %v, key %d, general %v", s, p, set, general)
					k := keysOf(t, s)
					apdu, err := sender(t, s, p, from, k, 77).Protect([]byte("x"), plain, set, general)
					if err != nil || apdu[0] != 'x' {
						t.Fatalf("%s: %v", name, err)
					}
					apdu = apdu[1:]
					if twin, ok := seen[string(apdu)]; ok && s != 1 {
						t.Errorf("%s gives the same octets as %s", name, twin)
					}
					seen[string(apdu)] = name
					if n := Overhead(len(plain), p, general); n != len(apdu)-len(plain) {
						t.Errorf("%s: overhead %d, is %d", name, n, len(apdu)-len(plain))
					}
					whole := bytes.Clone(apdu)
					back, err := receiver(s, p, from, k).Unprotect([]byte("y"), append(apdu, 0xAA, 0xBB))
					if err != nil || !bytes.Equal(back, append([]byte("y"), plain...)) || !bytes.Equal(apdu, whole) {
						t.Errorf("%s: back %X, %v", name, back, err)
					}
					if p.Covers(Authenticated) {
						refuseAltered(t, name, apdu, func(b []byte) error {
							_, err := receiver(s, p, from, k).Unprotect(nil, b)
							return err
						})
					}
				}
			}
		}
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	for plain, want := range map[byte]struct{ global, dedicated byte }{
		0x01: {0x21, 0x41}, 0x08: {0x28, 0x48}, 0x05: {0x25, 0x45}, 0x06: {0x26, 0x46}, 0x0C: {0x2C, 0x4C}, 0x0D: {0x2D, 0x4D},
		0xC0: {0xC8, 0xD0}, 0xC1: {0xC9, 0xD1}, 0xC2: {0xCA, 0xD2}, 0xC3: {0xCB, 0xD3},
		0xC4: {0xCC, 0xD4}, 0xC5: {0xCD, 0xD5}, 0xC7: {0xCF, 0xD7},
	} {
		if g, d, ok := serviceTags(plain); g != want.global || d != want.dedicated || !ok {
			t.Errorf("%02X: %02X, %02X, %v", plain, g, d, ok)
		}
	}
	for tag := range 256 {
		plain, set, ok := plainTag(byte(tag))
		if !ok {
			continue
		}
		g, d, known := serviceTags(plain)
		if !known || set == Unicast && g != byte(tag) || set == Dedicated && d != byte(tag) {
			t.Errorf("%02X is taken for %02X", tag, plain)
		}
	}
	for _, tag := range []byte{0x0F, 0xD8, 0xD9, 0xDA, 0xE0, 0x60, 0x61, 0x62, 0x63, 0xC6, 0xDD, 0xDF} {
		if _, _, ok := serviceTags(tag); ok || IsProtected(tag) {
			t.Errorf("%02X has a form of its own, or is one", tag)
		}
	}
	// What has no form of its own travels in the general one.
	k, from := keysOf(t, 0), title(t, meter)
	for set, want := range map[KeySet]byte{Unicast: TagGeneralGlobal, Dedicated: TagGeneralDedicated} {
		if apdu, err := sender(t, 0, AuthenticatedEncrypted, from, k, 1).Protect(nil, []byte{0xD9, 1}, set, false); err != nil || apdu[0] != want {
			t.Errorf("access request: %X, %v", apdu, err)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	from, k := title(t, meter), keysOf(t, 0)
	make1 := func(s *Sender, set KeySet, general bool) []byte {
		b, err := s.Protect(nil, unhex(t, getReq), set, general)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	glo := make1(sender(t, 0, AuthenticatedEncrypted, from, k, 5), Unicast, false)
	with := func(at int, v byte) []byte {
		b := bytes.Clone(glo)
		b[at] = v
		return b
	}
	noTitle := unhex(t, "DB00")
	noTitle = append(noTitle, glo[1:]...)
	for name, c := range map[string]struct {
		r    *Receiver
		apdu []byte
		is   error
	}{
		"authenticated only, both wanted":  {receiver(0, AuthenticatedEncrypted, from, k), make1(sender(t, 0, Authenticated, from, k, 5), Unicast, false), ErrWeak},
		"encrypted only, both wanted":      {receiver(0, AuthenticatedEncrypted, from, k), make1(sender(t, 0, Encrypted, from, k, 5), Unicast, false), ErrWeak},
		"encrypted only, the other wanted": {receiver(0, Authenticated, from, k), make1(sender(t, 0, Encrypted, from, k, 5), Unicast, false), ErrWeak},
		"more than wanted":                 {receiver(0, Authenticated, from, k), glo, nil},
		"nothing done to it":               {receiver(0, Unprotected, from, k), with(2, 0x00), ErrWeak},
		"compressed":                       {receiver(0, Authenticated, from, k), with(2, 0xB0), ErrCompressed},
		"another suite":                    {receiver(1, Authenticated, from, k), glo, ErrSuite},
		"a suite of the future":            {receiver(0, Authenticated, from, k), with(2, 0x33), ErrSuite},
		"another title":                    {receiver(0, Authenticated, title(t, client), k), make1(sender(t, 0, AuthenticatedEncrypted, from, k, 5), Unicast, true), ErrTitle},
		"another title, not said":          {receiver(0, Authenticated, title(t, client), k), glo, ErrTag},
		"title left out":                   {receiver(0, Authenticated, from, k), noTitle, nil},
		"title not known":                  {receiver(0, Authenticated, Title{}, k), glo, ErrTitle},
		"title of 7":                       {receiver(0, Authenticated, from, k), append(unhex(t, "DB0700000000000000"), glo[1:]...), ErrMalformed},
		"another key":                      {receiver(0, Authenticated, from, Keys{Encryption: key(t, other), Authentication: k.Authentication}), glo, ErrTag},
		"another authentication key":       {receiver(0, Authenticated, from, Keys{Encryption: k.Encryption, Authentication: key(t, other)}), glo, ErrTag},
		"no key":                           {receiver(0, Authenticated, from, Keys{Authentication: k.Authentication}), glo, ErrKey},
		"no authentication key":            {receiver(0, Authenticated, from, Keys{Encryption: k.Encryption}), glo, ErrKey},
		"a key of another suite":           {receiver(0, Authenticated, from, Keys{Encryption: key(t, ek32), Authentication: k.Authentication}), glo, ErrKey},
		"dedicated, no such key":           {receiver(0, Authenticated, from, Keys{Encryption: k.Encryption, Authentication: k.Authentication}), make1(sender(t, 0, AuthenticatedEncrypted, from, k, 5), Dedicated, false), ErrKey},
		"broadcast, no such key":           {receiver(0, Authenticated, from, Keys{Encryption: k.Encryption, Authentication: k.Authentication}), make1(sender(t, 0, AuthenticatedEncrypted, from, k, 5), Broadcast, false), ErrKey},
		"the tag of another service":       {receiver(0, Authenticated, from, k), with(0, 0xCC), ErrMalformed},
		"not protected":                    {receiver(0, Authenticated, from, k), unhex(t, getReq), ErrMalformed},
		"nothing":                          {receiver(0, Authenticated, from, k), nil, ErrMalformed},
		"a length of 2^31":                 {receiver(0, Authenticated, from, k), unhex(t, "C884FFFFFFFF"), ErrMalformed},
		"a length without end":             {receiver(0, Authenticated, from, k), unhex(t, "DB80"), ErrMalformed},
	} {
		if got, err := c.r.Unprotect(nil, c.apdu); !errors.Is(err, c.is) || (err == nil) != (got != nil) {
			t.Errorf("%s: %X, %v, want %v", name, got, err, c.is)
		}
	}
}

func TestSenderRefuses(t *testing.T) {
	t.Parallel()
	from, k, plain := title(t, meter), keysOf(t, 0), unhex(t, getReq)
	good := func() *Sender { return sender(t, 0, AuthenticatedEncrypted, from, k, 5) }
	for name, c := range map[string]struct {
		alter func(*Sender)
		is    error
	}{
		"nothing to do":             {func(s *Sender) { s.Policy = Unprotected }, ErrWeak},
		"a policy of other bits":    {func(s *Sender) { s.Policy = 0x70 }, ErrWeak},
		"no title":                  {func(s *Sender) { s.Title = Title{} }, ErrTitle},
		"no key":                    {func(s *Sender) { s.Keys.Encryption = Key{} }, ErrKey},
		"no authentication key":     {func(s *Sender) { s.Keys.Authentication = Key{} }, ErrKey},
		"a suite of the future":     {func(s *Sender) { s.Suite = 3 }, ErrSuite},
		"the counter of a key":      {func(s *Sender) { s.Keys.Encryption = key(t, other) }, ErrKey},
		"the counter of a title":    {func(s *Sender) { s.Title = title(t, client) }, ErrTitle},
		"the counter of broadcasts": {func(s *Sender) { s.Counter = s.BroadcastCounter }, ErrKey},
	} {
		s := good()
		c.alter(s)
		if b, err := s.Protect(nil, plain, Unicast, false); !errors.Is(err, c.is) {
			t.Errorf("%s: %X, %v", name, b, err)
		}
	}
	s := good()
	s.Counter = nil
	if _, err := s.Protect(nil, plain, Unicast, false); err == nil || !strings.Contains(err.Error(), "no invocation counter") {
		t.Errorf("no counter: %v", err)
	}
	if _, err := good().Protect(nil, nil, Unicast, false); !errors.Is(err, ErrMalformed) {
		t.Errorf("nothing protected: %v", err)
	}
}

// TestWindow: only a counter that rises is taken, by title, key and direction.
func TestWindow(t *testing.T) {
	t.Parallel()
	from, k := title(t, meter), keysOf(t, 0)
	r := receiver(0, AuthenticatedEncrypted, from, k)
	apdu := func(k Keys, counter uint32) []byte {
		b, err := sender(t, 0, AuthenticatedEncrypted, from, k, counter).Protect(nil, unhex(t, getReq), Unicast, false)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	take := func(b []byte) error {
		_, err := r.Unprotect(nil, b)
		return err
	}
	var replay *ReplayError
	if err := errors.Join(take(apdu(k, 0)), take(apdu(k, 3)), take(apdu(k, 4))); err != nil {
		t.Errorf("rising: %v", err)
	}
	for _, n := range []uint32{0, 3, 4} {
		if err := take(apdu(k, n)); !errors.As(err, &replay) || !errors.Is(err, ErrReplay) || *replay != (ReplayError{from, 4, n}) {
			t.Errorf("counter %d after 4: %v", n, err)
		}
	}
	// What does not open does not raise the window.
	forged := apdu(k, 1<<31)
	forged[len(forged)-1] ^= 1
	if err := take(forged); !errors.Is(err, ErrTag) {
		t.Errorf("forged: %v", err)
	}
	if err := take(apdu(k, 5)); err != nil {
		t.Errorf("after a forged one: %v", err)
	}
	// A changed key has no past; the old one keeps its own.
	changed := k
	changed.Encryption = key(t, "11"+ek16[2:])
	r.Keys = changed
	if err := take(apdu(changed, 0)); err != nil {
		t.Errorf("after a change of the key: %v", err)
	}
	r.Keys = k
	if err := take(apdu(k, 5)); !errors.Is(err, ErrReplay) {
		t.Errorf("after the change back: %v", err)
	}
	r.Direction = FromClient
	if err := take(apdu(k, 1)); err != nil {
		t.Errorf("the other direction: %v", err)
	}
	r.Window.Forget(from, k.Encryption.ID(), FromClient)
	if err := take(apdu(k, 1)); err != nil {
		t.Errorf("forgotten: %v", err)
	}
	// The highest counter is taken once.
	if err := errors.Join(take(apdu(k, lastCounter-1))); err != nil {
		t.Error(err)
	}
	r.Window.Note(from, k.Encryption.ID(), FromClient, lastCounter)
	if err := take(apdu(k, lastCounter-1)); !errors.Is(err, ErrReplay) {
		t.Errorf("after the last counter: %v", err)
	}
}

// TestSecretsStaySecret prints keys in every way, from in and out of values.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	k := key(t, other)
	type nested struct {
		Shown  Key
		hidden Key
		Keys   Keys
		list   []Key
		m      map[string]Key
		s      *Sender
	}
	v := nested{k, k, Keys{Encryption: k, Dedicated: k}, []Key{k}, map[string]Key{"k": k}, &Sender{Keys: Keys{Encryption: k}}}
	secrets := []string{strings.ToLower(other), other, string(k.octets()), "240, 241", "240 241", "0xf0, 0xf1", "f0 f1", "F0 F1"}
	for _, value := range []any{k, &k, v, &v, v.Keys, v.s, *v.s} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%08b", "%T"} {
			got := fmt.Sprintf(verb, value)
			for _, secret := range secrets {
				if strings.Contains(got, secret) {
					t.Errorf("%s of %T gives the key away: %s", verb, value, got)
				}
			}
		}
	}
	if b, err := json.Marshal(v.Keys); err != nil || !strings.Contains(string(b), redacted) || strings.Contains(strings.ToUpper(string(b)), other) {
		t.Errorf("marshalled %s, %v", b, err)
	}
	if got := fmt.Sprint(k); got != redacted {
		t.Errorf("printed %s", got)
	}
	if k.ID() == key(t, ek16).ID() || k.ID() != key(t, other).ID() || (Key{}).ID() != (KeyID{}) || strings.Contains(other, strings.ToUpper(k.ID().String())) {
		t.Errorf("id %v", k.ID())
	}
	if _, err := NewKey(make([]byte, 24)); !errors.Is(err, ErrKey) {
		t.Errorf("a key of 24: %v", err)
	}
	if !key(t, ek16).Equal(key(t, ek16)) || key(t, ek16).Equal(key(t, ek32)) || key(t, ek16).Equal(Key{}) {
		t.Error("Equal")
	}
}

func FuzzUnprotect(f *testing.F) {
	k, from := keysOf(f, 0), title(f, meter)
	for _, set := range sets() {
		for _, general := range []bool{false, true} {
			for _, p := range policies() {
				b, err := sender(f, 0, p, from, k, 9).Protect(nil, unhex(f, getReq), set, general)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, apdu []byte) {
		p, err := Parse(apdu)
		if err != nil {
			return
		}
		// What is opened, protected again with the same choices, is what came in.
		plain, err := receiver(0, Unprotected, from, k).Unprotect(nil, apdu)
		if err != nil {
			return
		}
		if p.Counter == lastCounter {
			return // the helper cannot anchor there
		}
		again, err := sender(t, 0, p.Control.Policy(), from, k, p.Counter).Protect(nil, plain, p.Set, p.IsGeneral())
		if err != nil {
			t.Fatal(err)
		}
		q, err := Parse(again)
		if err != nil || q.Control != p.Control&^0x40 && q.Control != p.Control || !bytes.Equal(q.Sealed, p.Sealed) && q.Control == p.Control {
			t.Fatalf("%X became %X, %v", apdu, again, err)
		}
	})
}

func FuzzGeneral(f *testing.F) {
	for _, a := range agreements() {
		f.Add(unhex(f, a.general))
	}
	f.Add(unhex(f, "DF0201020108010800020405"))
	f.Add(unhex(f, "DD00000000000100010531000000010A"))
	f.Fuzz(func(t *testing.T, apdu []byte) {
		if g, err := ParseGeneralCiphering(apdu); err == nil {
			b, err := g.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			h, err := ParseGeneralCiphering(b)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := h.AppendBinary(nil); err != nil || !bytes.Equal(b, c) || len(b) > len(apdu) {
				t.Fatalf("%X became %X and %X, %v", apdu, b, c, err)
			}
		}
		if g, err := ParseGeneralSigning(apdu); err == nil {
			b, _ := g.AppendBinary(nil)
			h, err := ParseGeneralSigning(b)
			if err != nil {
				t.Fatal(err)
			}
			if c, _ := h.AppendBinary(nil); !bytes.Equal(b, c) || len(b) > len(apdu) {
				t.Fatalf("%X became %X and %X", apdu, b, c)
			}
		}
	})
}
