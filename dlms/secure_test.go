package dlms

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/security"
)

// TestProtected has associations by every mechanism, suite and policy.
func TestProtected(t *testing.T) {
	t.Parallel()
	for m := HLS; m <= HLSECDSA; m++ {
		for suite := range security.Suite(3) {
			for _, p := range []security.Policy{security.Unprotected, security.Authenticated, security.Encrypted, security.AuthenticatedEncrypted} {
				if m == HLSECDSA && suite == security.Suite0 {
					continue
				}
				name := fmt.Sprintf("mechanism %d, suite %d, %v", m, suite, p)
				o, k := protectedBy(t, m, suite, p)
				c := NewClient(k, o)
				for round := range 2 { // the second finds all of the first in the window
					k.proved = false
					granted, err := c.Associate(t.Context())
					if err != nil || granted.MeterTitle != k.title || granted.MaxPDU != 1024 {
						t.Fatalf("%s, round %d: %+v, %v", name, round, granted, err)
					}
					if v, err := c.Get(t.Context(), energy()); err != nil || !v.Equal(axdr.DoubleLongUnsigned(1234)) {
						t.Errorf("%s: %+v, %v", name, v, err)
					}
					if err := c.Release(t.Context()); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
		}
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		alter func(*Options)
		want  string // tags of the requests
	}{
		"glo":                     {func(*Options) {}, "CBC8"},
		"general-glo":             {func(o *Options) { o.Security.General = true }, "CBDB"},
		"ded":                     {func(o *Options) { o.Security.Dedicated = true }, "CBD0"},
		"general-ded":             {func(o *Options) { o.Security.Dedicated, o.Security.General = true, true }, "CBDC"},
		"ded, without mechanism":  {func(o *Options) { o.Security.Dedicated, o.Mechanism = true, LLS }, "D0"},
		"glo, no authentication":  {func(o *Options) { o.Mechanism = NoAuthentication }, "C8"},
		"in the clear":            {func(o *Options) { o.Security.Policy, o.Security.General = security.Unprotected, true }, "C3C0"},
		"general-glo, both sides": {func(o *Options) { o.Security.General = true }, "CBDB"},
	} {
		o, k := protectedBy(t, HLSGMAC, security.Suite1, security.AuthenticatedEncrypted)
		c.alter(&o)
		k.o = o
		client := NewClient(k, o)
		if _, err := client.Associate(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		k.proved = true
		if v, err := client.Get(t.Context(), energy()); err != nil || !v.Equal(axdr.DoubleLongUnsigned(1234)) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		if got := strings.ToUpper(hex.EncodeToString(k.requests)); got != c.want {
			t.Errorf("%s: requests %s, want %s", name, got, c.want)
		}
	}
}

// TestProtectedShortNames has the same by short names: the proof is read.
func TestProtectedShortNames(t *testing.T) {
	t.Parallel()
	for p, want := range map[security.Policy]string{security.Unprotected: "0505", security.AuthenticatedEncrypted: "2525"} {
		o, k := protectedBy(t, HLSGMAC, security.Suite0, p)
		o.ShortNames, o.Conformance = true, Read|Write|ParameterizedAccess
		k.o = o
		k.greet = func(g *greeting) { g.plain = unhex(t, "0800065F1F0400"+"1C0320"+"0400FA00") }
		c := NewClient(k, o)
		if granted, err := c.Associate(t.Context()); err != nil || granted.VAA != 0xFA00 {
			t.Errorf("%v: %+v, %v", p, granted, err)
			continue
		}
		items, err := c.ReadNames(t.Context(), []Name{{Name: 0x2BC8}})
		if err != nil || len(items) != 1 || !items[0].Value.Equal(axdr.DoubleLongUnsigned(1234)) {
			t.Errorf("%v: %+v, %v", p, items, err)
		}
		if got := hex.EncodeToString(k.requests); got != want {
			t.Errorf("%v: requests %s, want %s", p, got, want)
		}
	}
}

// TestDedicatedKeysDiffer: each association has its own.
func TestDedicatedKeysDiffer(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, LLS, security.Suite0, security.AuthenticatedEncrypted)
	o.Security.Dedicated = true
	k.o = o
	c := NewClient(k, o)
	seen := map[security.KeyID]bool{}
	for range 3 {
		if _, err := c.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen[k.sender.Keys.Dedicated.ID()] = true
	}
	if len(seen) != 3 || seen[security.KeyID{}] {
		t.Errorf("keys %v", seen)
	}
	o.Security.Policy = security.Authenticated
	if _, err := NewClient(k, o).Associate(t.Context()); !errors.Is(err, security.ErrWeak) {
		t.Errorf("a dedicated key in the clear: %v", err)
	}
}

// TestMeterRefused has meters that are not who they should be, or do less.
func TestMeterRefused(t *testing.T) {
	t.Parallel()
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	stranger := security.Title{'E', 'V', 'I', 'L'}
	for name, c := range map[string]struct {
		alter          func(*Options, *keeper)
		is             error
		authentication bool
	}{
		"our own challenge":       {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.challenge = k.challenge } }, security.ErrReflected, false},
		"our own title":           {func(o *Options, k *keeper) { k.greet = func(g *greeting) { g.title = o.Security.Title[:] } }, security.ErrReflected, false},
		"no challenge":            {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.challenge = nil } }, security.ErrWeak, false},
		"a short challenge":       {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.challenge = g.challenge[:7] } }, security.ErrMalformed, false},
		"another mechanism":       {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.mechanism = 1 } }, security.ErrWeak, false},
		"context without ciphers": {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.context = 1 } }, security.ErrWeak, false},
		"initiate in the clear":   {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.info = g.plain } }, security.ErrWeak, false},
		"no initiate":             {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.plain = nil } }, security.ErrWeak, false},
		"no title":                {func(_ *Options, k *keeper) { k.greet = func(g *greeting) { g.title = nil } }, security.ErrTitle, false},
		"title known, and not it": {func(o *Options, _ *keeper) { o.Security.MeterTitle = stranger }, security.ErrTitle, false},
		"authenticated only":      {func(_ *Options, k *keeper) { k.policy = security.Authenticated }, security.ErrWeak, false},
		"another encryption key":  {func(o *Options, k *keeper) { k.o.Security.Keys.Encryption = testKey(t, 0, 9) }, nil, true},
		"another authentication": {func(o *Options, k *keeper) {
			k.greet = func(*greeting) { k.sender.Keys.Authentication = testKey(t, 0, 9) }
		}, security.ErrTag, true},
		"a wrong proof":          {func(_ *Options, k *keeper) { k.proof = flip }, security.ErrProof, true},
		"a short proof":          {func(_ *Options, k *keeper) { k.proof = func(b []byte) []byte { return b[:16] } }, security.ErrProof, true},
		"no proof":               {func(_ *Options, k *keeper) { k.proof = func([]byte) []byte { return nil } }, security.ErrProof, true},
		"proof refused":          {func(_ *Options, k *keeper) { k.refuse = []byte{3, 0} }, ReadWriteDenied, true},
		"nothing for a proof":    {func(_ *Options, k *keeper) { k.refuse = []byte{0, 0} }, ErrAuthentication, true},
		"answer altered":         {func(_ *Options, k *keeper) { k.wire = flip }, security.ErrTag, true},
		"answer in the clear":    {func(_ *Options, k *keeper) { k.wire = func([]byte) []byte { return unhex(t, "C701C1000100090100") } }, security.ErrWeak, false},
		"answer of another kind": {func(_ *Options, k *keeper) { k.wire = func(b []byte) []byte { b[0] = 0xCC; return b } }, security.ErrMalformed, false},
		"an exception":           {func(_ *Options, k *keeper) { k.wire = func([]byte) []byte { return []byte{0xD8, 1, 5} } }, nil, false},
		"no counter of ours":     {func(o *Options, _ *keeper) { o.Security.Counter = nil }, nil, false},
		"no title of ours":       {func(o *Options, _ *keeper) { o.Security.Title = security.Title{} }, security.ErrTitle, false},
		"no random numbers":      {func(o *Options, _ *keeper) { o.Security.Random = strings.NewReader("short") }, nil, false},
	} {
		o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
		c.alter(&o, k)
		if name == "another encryption key" { // the meter cannot open the request either
			k.greet = func(g *greeting) { g.title = k.title[:] }
			k.deaf = true
		}
		client := NewClient(k, o)
		granted, err := client.Associate(t.Context())
		if err == nil || c.is != nil && !errors.Is(err, c.is) || errors.Is(err, ErrAuthentication) != c.authentication || granted != (Association{}) {
			t.Errorf("%s: %+v, %v", name, granted, err)
		}
		if client.Associated() || client.secure.on {
			t.Errorf("%s: the association is taken to be open", name)
		}
		if _, err := client.Get(t.Context(), energy()); !errors.Is(err, ErrNotAssociated) {
			t.Errorf("%s: read all the same: %v", name, err)
		}
	}
}

// TestAnswersRefused has answers in an association that must not be taken.
func TestAnswersRefused(t *testing.T) {
	t.Parallel()
	var old []byte
	for name, c := range map[string]struct {
		alter func(*keeper)
		is    error
	}{
		"in the clear":       {func(k *keeper) { k.wire = func([]byte) []byte { return unhex(t, "C401C10006000004D2") } }, security.ErrWeak},
		"authenticated only": {func(k *keeper) { k.sender.Policy = security.Authenticated }, security.ErrWeak},
		"sent again":         {func(k *keeper) { k.wire = func(b []byte) []byte { k.out = append(k.out, b, b); old = b; return b } }, nil},
		"an old one": {func(k *keeper) {
			k.sender.Counter = security.NewCounter(new(security.Memory), k.title, k.o.Security.Keys.Encryption, 1)
		}, security.ErrReplay},
		"general all the same": {func(k *keeper) { k.form = func(bool) bool { return true } }, nil},
		"a notification in the clear first": {func(k *keeper) {
			k.wire = func(b []byte) []byte { k.out = append(k.out, unhex(t, "0F00000001000200")); return b }
		}, nil},
	} {
		o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
		o.Notify = func(apdu []byte) { t.Errorf("%s: the notification %X was believed", name, apdu) }
		client := NewClient(k, o)
		if _, err := client.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.alter(k)
		v, err := client.Get(t.Context(), energy())
		if !errors.Is(err, c.is) || (err == nil) != v.Equal(axdr.DoubleLongUnsigned(1234)) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		if name == "sent again" {
			if _, err := client.Get(t.Context(), energy()); !errors.Is(err, security.ErrReplay) {
				t.Errorf("an answer sent twice, %X: %v", old, err)
			}
		}
	}
}

// TestReceivedIsKept: the window of a meter outlives clients, unless the meter
// is known to begin anew.
func TestReceivedIsKept(t *testing.T) {
	t.Parallel()
	for _, restarts := range []bool{false, true} {
		o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
		o.Security.Received, o.Security.CounterRestarts = new(security.Window), restarts
		if _, err := NewClient(k, o).Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		k.counters, k.proved = security.Memory{}, false
		if _, err := NewClient(k, o).Associate(t.Context()); errors.Is(err, security.ErrReplay) == restarts {
			t.Errorf("restarts %v: %v", restarts, err)
		}
	}
}

func TestProtectedRelease(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
	o.Security.ProtectedRelease = true
	c := NewClient(k, o)
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(t.Context()); err != nil || c.secure.on {
		t.Error(err)
	}
	if len(k.last) < 12 || !bytes.Equal(k.last[:12], unhex(t, "6228 800100 BE23 0421 211F30")) {
		t.Fatalf("released by %X", k.last)
	}
	if plain, err := k.receiver.Unprotect(nil, k.last[9:]); err != nil || plain[0] != tagInitiateRequest {
		t.Errorf("%X, %v", plain, err)
	}
}

// TestCountersAreKept: each protected request draws one, and one for the proof.
func TestCountersAreKept(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, HLSGMAC, security.Suite0, security.AuthenticatedEncrypted)
	c := NewClient(k, o)
	if _, err := c.Associate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Get(t.Context(), energy()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := o.Security.Counter.Next(); n != 6 || err != nil {
		t.Errorf("counter %d, %v, want 6", n, err)
	}
}

// TestProtectedAARQ is the request of a public example, whose protected part
// independent libraries made too.
func TestProtectedAARQ(t *testing.T) {
	t.Parallel()
	title := security.Title(unhex(t, "4D4D4D0000BC614E"))
	o := Options{Mechanism: HLSGMAC, Conformance: 0x007E1F, MaxPDU: 0x04B0, Security: Security{Policy: security.AuthenticatedEncrypted, Title: title}}
	dedicated, err := security.NewKey(unhex(t, "00112233445566778899AABBCCDDEEFF"))
	if err != nil {
		t.Fatal(err)
	}
	k := security.Keys{Encryption: testKey(t, 0, 0), Authentication: testKey(t, 0, 0xD0)}
	counter := security.NewCounter(new(security.Memory), title, k.Encryption, 1)
	if err := counter.Anchor(0x01234567); err != nil {
		t.Fatal(err)
	}
	s := secure{sender: security.Sender{Policy: security.AuthenticatedEncrypted, Title: title, Keys: k, Counter: counter}}
	info, err := s.initiate(appendInitiateRequest(nil, o, dedicated))
	if err != nil {
		t.Fatal(err)
	}
	want := unhex(t, "6066A109060760857405080103A60A04084D4D4D0000BC614E8A0207808B0760857405080205AC0A80084B35366956616759BE340432"+
		"2130300123456780"+"1302FF8A7874133D414CED25B42534D28DB0047720606B175BD52211BE6841DB204D39EE6FDB8E356855")
	if got := appendAARQ(nil, o, []byte("K56iVagY"), info); !bytes.Equal(got, want) {
		t.Errorf("%X\nwant\n%X", got, want)
	}
}

func TestSecretsOfOptions(t *testing.T) {
	t.Parallel()
	o, _ := protectedBy(t, HLSMD5, security.Suite0, security.AuthenticatedEncrypted)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		got := fmt.Sprintf(verb, o)
		for _, secret := range []string{"a secret", "61207365", "97 32 115", "0x61, 0x20", "208 209 210", "d0d1d2", "0xd0, 0xd1"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s gives a secret away: %s", verb, got)
			}
		}
	}
}

// TestProofAnsweredByAnException: meters that lock out count it too, so it must
// be told as what it is.
func TestProofAnsweredByAnException(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy         security.Policy
		answer         []byte
		authentication bool
	}{
		"exception, in the clear":        {security.Unprotected, []byte{0xD8, 1, 1}, true},
		"service error":                  {security.Unprotected, []byte{0x0E, 5, 5, 1}, true},
		"exception, ciphered":            {security.AuthenticatedEncrypted, []byte{0xD8, 1, 1}, true},
		"service not supported":          {security.Unprotected, []byte{0xD8, 2, 2}, false},
		"pdu too long":                   {security.Unprotected, []byte{0xD8, 1, 4}, false},
		"an invocation counter it wants": {security.AuthenticatedEncrypted, []byte{0xD8, 1, 6, 0, 0, 0, 9}, false},
	} {
		o, k := protectedBy(t, HLSMD5, security.Suite0, c.policy)
		k.wire = func([]byte) []byte { return c.answer }
		_, err := NewClient(k, o).Associate(t.Context())
		if err == nil || errors.Is(err, ErrAuthentication) != c.authentication {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDedicatedKeysAreForgotten: a window that is kept does not grow with each
// association.
func TestDedicatedKeysAreForgotten(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, LLS, security.Suite0, security.AuthenticatedEncrypted)
	o.Security.Dedicated, o.Security.Received = true, new(security.Window)
	k.o = o
	c := NewClient(k, o)
	var keys []security.KeyID
	for range 3 {
		if _, err := c.Associate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), energy()); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.sender.Keys.Dedicated.ID())
	}
	for i, key := range keys {
		if _, seen := o.Security.Received.Last(k.title, key, security.FromServer); seen != (i == 2) {
			t.Errorf("key %d of 3: remembered %v", i+1, seen)
		}
	}
}

func TestSecretsOfAClient(t *testing.T) {
	t.Parallel()
	o, k := protectedBy(t, HLSMD5, security.Suite0, security.AuthenticatedEncrypted)
	c := NewClient(k, o)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		got := fmt.Sprintf(verb, c)
		for _, secret := range []string{"a secret", "61207365", "97 32 115", "0x61, 0x20"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s gives a secret away: %s", verb, got)
			}
		}
	}
}
