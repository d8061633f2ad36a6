package security

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key(t testing.TB, s string) Key {
	t.Helper()
	k, err := NewKey(unhex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func title(t testing.TB, s string) Title {
	t.Helper()
	v, err := ParseTitle(unhex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const (
	ek16   = "000102030405060708090A0B0C0D0E0F"
	ak16   = "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"
	ek32   = "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F"
	ak32   = "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDFE0E1E2E3E4E5E6E7E8E9EAEBECEDEEEF"
	other  = "F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF"
	client = "4D4D4D0000000001"
	meter  = "4D4D4D0000BC614E"
	getReq = "C0010000080000010000FF0200"
)

// keysOf gives keys that are as long as the suite's.
func keysOf(t testing.TB, s Suite) Keys {
	if s == Suite2 {
		return Keys{Encryption: key(t, ek32), Authentication: key(t, ak32), Dedicated: key(t, other+other), Broadcast: key(t, ak32[:32]+other)}
	}
	return Keys{Encryption: key(t, ek16), Authentication: key(t, ak16), Dedicated: key(t, other), Broadcast: key(t, "00"+other[2:])}
}

// sender gives a sender whose next counter is counter.
func sender(t testing.TB, s Suite, p Policy, from Title, k Keys, counter uint32) *Sender {
	t.Helper()
	var store Memory
	out := &Sender{
		Suite: s, Policy: p, Title: from, Keys: k,
		Counter: NewCounter(&store, from, k.Encryption, 1), BroadcastCounter: NewCounter(&store, from, k.Broadcast, 1),
	}
	for _, c := range []*Counter{out.Counter, out.BroadcastCounter} {
		if err := c.Anchor(counter); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func receiver(s Suite, p Policy, from Title, k Keys) *Receiver {
	return &Receiver{Suite: s, Policy: p, Title: from, Keys: k, Direction: FromServer, Window: new(Window)}
}

// TestVectors has what independent libraries made of the same choices.
func TestVectors(t *testing.T) {
	t.Parallel()
	initiate := "01011000112233445566778899AABBCCDDEEFF0000065F1F0400007E1F04B0"
	for name, c := range map[string]struct {
		suite  Suite
		policy Policy
		plain  string
		want   string
	}{
		"suite 0, authenticated":             {0, Authenticated, getReq, "C81E1001234567" + getReq + "06725D910F9221D263877516"},
		"suite 0, encrypted":                 {0, Encrypted, getReq, "C81220 01234567 411312FF935A47566827C467BC"},
		"suite 0, both":                      {0, AuthenticatedEncrypted, getReq, "C81E30 01234567 411312FF935A47566827C467BC 7D825C3BE4A77C3FCC056B6B"},
		"suite 0, glo-initiate-request":      {0, AuthenticatedEncrypted, initiate, "213030 01234567 801302FF8A7874133D414CED25B42534D28DB0047720606B175BD52211BE68 41DB204D39EE6FDB8E356855"},
		"suite 0, glo-initiate-response":     {0, AuthenticatedEncrypted, "0800065F1F0400007C1F04000007", "281F30 01234567 891214A0845E475714383F65BC19 745CA235906525E4F3E1C893"},
		"suite 1, both":                      {1, AuthenticatedEncrypted, getReq, "C81E31 01234567 411312FF935A47566827C467BC E8691C99484B00B2449055B5"},
		"suite 2, authenticated, by OpenSSL": {2, Authenticated, getReq, "C81E1201234567" + getReq + "B2D2B6A0A8DD79BA67B3C7EE"},
		"suite 2, encrypted, by OpenSSL":     {2, Encrypted, getReq, "C81222 01234567 E82B2AD3EE8C12A6FB27038F08"},
		"suite 2, both, by OpenSSL":          {2, AuthenticatedEncrypted, getReq, "C81E32 01234567 E82B2AD3EE8C12A6FB27038F08 442193498C6A53DE55EEB9D2"},
	} {
		from, plain, want := title(t, meter), unhex(t, c.plain), unhex(t, c.want)
		got, err := sender(t, c.suite, c.policy, from, keysOf(t, c.suite), 0x01234567).Protect(nil, plain, Unicast, false)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: protected %X, %v, want %X", name, got, err, want)
		}
		if n := Overhead(len(plain), c.policy, false); len(want) != len(plain)+n {
			t.Errorf("%s: overhead %d, is %d", name, n, len(want)-len(plain))
		}
		back, err := receiver(c.suite, c.policy, from, keysOf(t, c.suite)).Unprotect(nil, want)
		if err != nil || !bytes.Equal(back, plain) {
			t.Errorf("%s: opened %X, %v", name, back, err)
		}
	}
}

// TestBroadcastVector: the broadcast key is another, and the control byte says so.
func TestBroadcastVector(t *testing.T) {
	t.Parallel()
	from, k := title(t, meter), Keys{Broadcast: key(t, ek16), Authentication: key(t, ak16)}
	want := unhex(t, "C81E7001234567411312FF935A47566827C467BC A5527490DFB85F5DE94ADCC8")
	got, err := sender(t, 0, AuthenticatedEncrypted, from, k, 0x01234567).Protect(nil, unhex(t, getReq), Broadcast, false)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("protected %X, %v", got, err)
	}
	if back, err := receiver(0, AuthenticatedEncrypted, from, k).Unprotect(nil, want); err != nil || !bytes.Equal(back, unhex(t, getReq)) {
		t.Errorf("opened %X, %v", back, err)
	}
	// With that key as the unicast key it is refused.
	k = Keys{Encryption: key(t, ek16), Authentication: key(t, ak16)}
	if _, err := receiver(0, AuthenticatedEncrypted, from, k).Unprotect(nil, want); !errors.Is(err, ErrKey) {
		t.Errorf("taken under the unicast key: %v", err)
	}
}

func TestHLSVectors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mechanism         Mechanism
		own, peer         string
		stoc, ctos        string
		byClient, byMeter string
	}{
		"HLS": {
			HLS, "", "", "70389cce67b359ac56ab552a158a4522", "ab402eae8305b6561c1bfead4633baa4",
			"6e407864a2f5fa45a68f8c6def93c703", "4e9423cda531f2e61fbea92fd49a4368",
		},
		"HLS of trace 12": {
			HLS, "", "", "37620012363D4E73064F18694F3F4B04", "762A91D88B6DF4FEFEFCFBEEA1B645B4",
			"F0019F8AD087DFC6BE04AE66641E97CB", "3469C7B501213AA7983523BFF8369192",
		},
		"MD5": {
			HLSMD5, "", "", "08112510426142321834156e24227327", "980dd050eb963233f9d6a0b833037049",
			"fe1c9fe1c40e5dbf903756ab65c3ec44", "01090d34837263ebc0fd72612a84cd49",
		},
		"SHA-1": {
			HLSSHA1, "", "", "4444661e07572c2e576851603c243959", "06000469 5371CBF5CEB1C133679B347A",
			"f3bc145d8c8790352ab0ef48478c22bec6705810", "A8B2C25BF183FBC08CB28FB90221D10E6F37FD65",
		},
		"SHA-256": {
			HLSSHA256, "4142434445464748", "4752580000000001", "2868053479252e30061d32762d1e2d34", "e29e5fbdeddec6f0fd215fa81eba89d3",
			"bc34b22d7f312d12986523349efaeadc113866e1bfc236b3b838540f1c2f6e96",
			"50aff86234254e8582a167c92b0f6169356ca9bab04b30aec85ce4e11f4ecfd7",
		},
	} {
		h := Handshake{
			Mechanism: c.mechanism, Secret: []byte("Gurux"),
			OwnChallenge: unhex(t, c.ctos), PeerChallenge: unhex(t, c.stoc),
		}
		if c.own != "" {
			h.Own, h.Peer = title(t, c.own), title(t, c.peer)
		}
		server := h
		server.Own, server.Peer, server.OwnChallenge, server.PeerChallenge = h.Peer, h.Own, h.PeerChallenge, h.OwnChallenge
		for who, s := range map[string]struct {
			from, to *Handshake
			want     string
		}{"client": {&h, &server, c.byClient}, "meter": {&server, &h, c.byMeter}} {
			got, err := s.from.Reply([]byte{1})
			if want := append([]byte{1}, unhex(t, s.want)...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: replied %x, %v, want %x", name, who, got, err, want)
				continue
			}
			if err := s.to.Verify(got[1:], Mark{}); err != nil {
				t.Errorf("%s, %s: %v", name, who, err)
			}
			refuseAltered(t, name+", "+who, got[1:], func(b []byte) error { return s.to.Verify(b, Mark{}) })
		}
	}
}

// refuseAltered tries every bit of good altered, and every length cut.
func refuseAltered(t *testing.T, name string, good []byte, accept func([]byte) error) {
	t.Helper()
	refuseBits(t, name, good, []int{0, 1, 2, 3, 4, 5, 6, 7}, accept)
}

func refuseBits(t *testing.T, name string, good []byte, bits []int, accept func([]byte) error) {
	t.Helper()
	for i := range good {
		if accept(good[:i]) == nil {
			t.Errorf("%s: taken when cut to %d octets", name, i)
		}
		for _, bit := range bits {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if accept(b) == nil {
				t.Errorf("%s: taken with bit %d of octet %d altered", name, bit, i)
			}
		}
	}
}

func TestGMACVectors(t *testing.T) {
	t.Parallel()
	k, c, s := keysOf(t, 0), title(t, client), title(t, meter)
	ctos, stoc := unhex(t, "4B35366956616759"), unhex(t, "503677524A323146")
	of := func(own, peer Title, counter uint32, ownC, peerC []byte) *Handshake {
		return &Handshake{
			Mechanism: HLSGMAC, Own: own, Peer: peer, OwnChallenge: ownC, PeerChallenge: peerC,
			Sender: sender(t, 0, AuthenticatedEncrypted, own, k, counter), Receiver: receiver(0, AuthenticatedEncrypted, peer, k),
		}
	}
	byClient, byMeter := of(c, s, 1, ctos, stoc), of(s, c, 0x01234567, stoc, ctos)
	got, err := byClient.Reply(nil)
	if want := unhex(t, "10000000011A52FE7DD3E72748973C1E28"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("f(StoC) %X, %v", got, err)
	}
	refuseAltered(t, "f(StoC)", got, func(b []byte) error { return byMeter.Verify(b, Mark{}) })
	if err := byMeter.Verify(got, Mark{}); err != nil {
		t.Error(err)
	}
	if err := byMeter.Verify(got, Mark{}); !errors.Is(err, ErrReplay) {
		t.Errorf("taken twice: %v", err)
	}
	got, err = byMeter.Reply(nil)
	if want := unhex(t, "1001234567FE1466AFB3DBCD4F9389E2B7"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("f(CtoS) %X, %v", got, err)
	}
	if err := byClient.Verify(got, Mark{}); err != nil {
		t.Error(err)
	}
}

// TestProofCounter: the proof comes within an APDU whose counter is taken
// first, and was drawn before it; one from before the challenges is refused.
func TestProofCounter(t *testing.T) {
	t.Parallel()
	k, c, s := keysOf(t, 0), title(t, client), title(t, meter)
	ctos, stoc := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16)
	reply := func(counter uint32) []byte {
		h := Handshake{Mechanism: HLSGMAC, Own: s, Peer: c, OwnChallenge: stoc, PeerChallenge: ctos, Sender: sender(t, 0, AuthenticatedEncrypted, s, k, counter)}
		b, err := h.Reply(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, row := range []struct {
		since, within, proof uint32
		is                   error
	}{
		{0, 3, 2, nil}, {0, 2, 3, nil}, {0, 3, 3, ErrReplay}, {2, 3, 2, ErrReplay}, {2, 3, 1, ErrReplay},
	} {
		r := receiver(0, AuthenticatedEncrypted, s, k)
		r.Window.Note(s, k.Encryption.ID(), FromServer, row.since)
		h := Handshake{Mechanism: HLSGMAC, Own: c, Peer: s, OwnChallenge: ctos, PeerChallenge: stoc, Receiver: r}
		since := h.Mark()
		r.Window.Note(s, k.Encryption.ID(), FromServer, row.within)
		if err := h.Verify(reply(row.proof), since); !errors.Is(err, row.is) {
			t.Errorf("%+v: %v", row, err)
		}
		if last, _ := r.Window.Last(s, k.Encryption.ID(), FromServer); last < row.within {
			t.Errorf("%+v: the window went back to %d", row, last)
		}
	}
}

func TestChallenges(t *testing.T) {
	t.Parallel()
	same, diff := bytes.Repeat([]byte{7}, 16), bytes.Repeat([]byte{8}, 16)
	a, b := title(t, client), title(t, meter)
	for name, c := range map[string]struct {
		h  Handshake
		is error
	}{
		"our own challenge":  {Handshake{Mechanism: HLSMD5, OwnChallenge: same, PeerChallenge: same}, ErrReflected},
		"our own title":      {Handshake{Mechanism: HLSSHA256, Own: a, Peer: a, OwnChallenge: same, PeerChallenge: diff}, ErrReflected},
		"no title":           {Handshake{Mechanism: HLSSHA256, Own: a, OwnChallenge: same, PeerChallenge: diff}, ErrTitle},
		"short challenge":    {Handshake{Mechanism: HLSMD5, OwnChallenge: same, PeerChallenge: diff[:7]}, ErrMalformed},
		"long challenge":     {Handshake{Mechanism: HLSMD5, OwnChallenge: same, PeerChallenge: bytes.Repeat(diff, 5)}, ErrMalformed},
		"no secret":          {Handshake{Mechanism: HLSMD5, OwnChallenge: same, PeerChallenge: diff}, ErrKey},
		"secret too long":    {Handshake{Mechanism: HLS, OwnChallenge: same, PeerChallenge: diff, Secret: bytes.Repeat(same, 2)}, ErrKey},
		"no keys for GMAC":   {Handshake{Mechanism: HLSGMAC, Own: a, Peer: b, OwnChallenge: same, PeerChallenge: diff}, ErrKey},
		"no suite for ECDSA": {Handshake{Mechanism: HLSECDSA, Own: a, Peer: b, OwnChallenge: same, PeerChallenge: diff}, ErrSuite},
		"suite 0 for ECDSA":  {Handshake{Mechanism: HLSECDSA, Own: a, Peer: b, OwnChallenge: same, PeerChallenge: diff, Sender: &Sender{}}, ErrSuite},
		"no key for ECDSA":   {Handshake{Mechanism: HLSECDSA, Own: a, Peer: b, OwnChallenge: same, PeerChallenge: diff, Sender: &Sender{Suite: 1}}, ErrKey},
	} {
		if got, err := c.h.Reply(nil); !errors.Is(err, c.is) {
			t.Errorf("%s: replied %x, %v", name, got, err)
		}
		if err := c.h.Verify(make([]byte, 16), Mark{}); !errors.Is(err, c.is) {
			t.Errorf("%s: verified, %v", name, err)
		}
	}
}

func TestWrapVectors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ kek, key, want string }{
		"RFC 3394, 4.1: 128 by 128": {ek16, "00112233445566778899AABBCCDDEEFF", "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		"RFC 3394, 4.3: 128 by 256": {ek32, "00112233445566778899AABBCCDDEEFF", "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		"RFC 3394, 4.6: 256 by 256": {
			ek32, "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
			"28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21",
		},
	} {
		got, err := Wrap([]byte{9}, key(t, c.kek), key(t, c.key))
		if want := append([]byte{9}, unhex(t, c.want)...); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %X, %v", name, got, err)
			continue
		}
		back, err := Unwrap(key(t, c.kek), got[1:])
		if err != nil || !back.Equal(key(t, c.key)) {
			t.Errorf("%s: unwrapped to another key, %v", name, err)
		}
		refuseAltered(t, name, got[1:], func(b []byte) error {
			_, err := Unwrap(key(t, c.kek), b)
			return err
		})
	}
	if _, err := Wrap(nil, Key{}, key(t, ek16)); !errors.Is(err, ErrKey) {
		t.Errorf("wrapped by no key: %v", err)
	}
	if _, err := Unwrap(Key{}, make([]byte, 24)); !errors.Is(err, ErrKey) {
		t.Errorf("unwrapped by no key: %v", err)
	}
}
