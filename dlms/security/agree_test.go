package security

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"math/big"
	"testing"
)

// agreement is what pyca/cryptography 38 (OpenSSL 3.0) made of three private
// keys: the originator's, or its ephemeral one; the recipient's; one to sign.
type agreement struct {
	suite   Suite
	private [3]string
	z       string // of the first two
	onePass string // the key that they agree on in one pass
	static  string // and by the static unified model, transaction 0102030405060708
	general string // a get-request under the static key, counter 1
	data    string // the first public key, signed by the third
	proof   string // HLS of the third for the meter: challenges 00…1F and 20…3F
}

func agreements() []agreement {
	return []agreement{
		{
			suite: 1,
			private: [3]string{
				"bfc7704a9ca9679364b08c836e844a72da2f688de201ff7ba1e072dada3597f2",
				"c43f737e9f7584609929fbba4bd92c64225f05ee5ceec40a57d798f6e01b0d85",
				"12679c2a817a02dfb3ad99a91cd035f0e36f13e3d0004d6d1fcf3c9f030e84ce",
			},
			z:       "8053903d3d6235fca9fae5cd48fb9ccd1ac97c22dceece4604b565b05f63bb8c",
			onePass: "d36efa9fd8b4aa13c9000516e8daadd0",
			static:  "a5568f54bd3a96a04f1371e249aa0c87",
			general: "dd080102030405060708084d4d4d0000bc614e084d4d4d0000000001000001020102001e3100000001bbbe16710eb8fd982e527795e01eeade2676fd63747d04" +
				"60a1",
			data: "a91f28b1957173d58078e8dbbb6ff49ec1e8c2a0cfa17c8552ac6da021890af83752f889cf793e9ebcf85f4ed5cfbb2f7372e709a03c89ae10ec05cc256c3b26" +
				"98bb154c826e1ade79e3f91a4896139a647376e33dc5ce96cfbac4bf09c94a70974f7434908b4e2c77c8889f765fd6524c4ffeecf7bbfcda4b09c3f2049a89f7",
			proof: "d676fe956e052798f00cea854ecfe4ccca8cd79a9f659bb7316bbc23e9df4e7d7f8d65daba7dd90bfd712a6e5e12f8737ada8fc7c5fc8e824e9c5d90ef67badc",
		},
		{
			suite: 2,
			private: [3]string{
				"cb936684498b7e73b16dde47fc18b2a3cf35cdfca2c17ed2b513b31462c7e85569d31a8805d1ec4a0b10dd4874e2f9bf",
				"47186ee2cfe37e99dd67b5c3fd5dafb59f1541df4647fd54de30bcbe6440d8368dfddde9a21a6afd82234c34532a88b9",
				"93529d1c89149c172b87c78b16976bffb9cf1a93676fdc956423c067cfd5831689a476cbfb66799fce688ed1762c704b",
			},
			z:       "800f4efcc369939e92f0d4eb3cdaa1c1a546316df8d2c69eb91052f3380a50bd191ce7fda705e4a3b04d45401786a649",
			onePass: "51c689936ce100b61b7c9dd406c0ea5f64ae89c5976853ed085156b4b82dc00a",
			static:  "cd81dfa07e1731abee9e2f5e544fa9e438e4abac5da4a4cea7b945fbb3e02d2b",
			general: "dd080102030405060708084d4d4d0000bc614e084d4d4d0000000001000001020102001e3200000001f06559629686ba8d7268ca8e22e6a490f73050157c43ea" +
				"4c04",
			data: "579b6bc2a83a3ed21ab92698a80855bb6d8a752f09ea41c2c7575487ef716acdaadb9f25df6861e7623eae72df244254cf472fdda8f818e960d2c59f08fb137c" +
				"2920175c096defbe8086254c0314b3fa9dfcb4748682958577ee942f6ccddf9e4937d685d900af8ef3e187ab716eaac29821e675ba48a9df51f9a48181ca84e5" +
				"2fd5c0c975f1d60ae2107a013847c6f3a7dbb333042fb542188d996ffbeeb3619ce24f8e3a52144ae4c7619953b77dc5ae77337b4dd720fd12abf6c894f9984d",
			proof: "dc72f0637007358ebf516ece827096cf969371780d1ca04228d8c263c5aba559f47b07fe1fa084573f4735951dba0754ae4dc0afd8cde98643a3c8446db4adcb" +
				"2c5811044fd580783039015da5c6afcd4e54a0b7eeeb8adf06c09cd7bd316012",
		},
	}
}

func (a agreement) signer(t *testing.T, i int) *ecdsa.PrivateKey {
	t.Helper()
	curve, _, err := a.suite.curve()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ecdsa.ParseRawPrivateKey(curve, unhex(t, a.private[i]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a agreement) agreer(t *testing.T, i int) *ecdh.PrivateKey {
	t.Helper()
	k, err := a.signer(t, i).ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// byHand multiplies a point of the curve by school arithmetic: a second
// computation that shares nothing with crypto/ecdh.
func byHand(c *elliptic.CurveParams, x, y *big.Int, k []byte) *big.Int {
	add := func(ax, ay, bx, by *big.Int) (*big.Int, *big.Int) {
		if ax == nil {
			return bx, by
		}
		var num, den *big.Int
		if ax.Cmp(bx) == 0 { // the doubling; the sum is never zero here
			num = new(big.Int).Mul(ax, ax)
			num.Mul(num, big.NewInt(3)).Sub(num, big.NewInt(3))
			den = new(big.Int).Lsh(ay, 1)
		} else {
			num, den = new(big.Int).Sub(by, ay), new(big.Int).Sub(bx, ax)
		}
		s := num.Mul(num, new(big.Int).ModInverse(den.Mod(den, c.P), c.P))
		rx := new(big.Int).Mul(s, s)
		rx.Sub(rx, ax).Sub(rx, bx).Mod(rx, c.P)
		ry := new(big.Int).Sub(ax, rx)
		ry.Mul(ry, s).Sub(ry, ay).Mod(ry, c.P)
		return rx, ry
	}
	var rx, ry *big.Int
	for _, octet := range k {
		for bit := 7; bit >= 0; bit-- {
			if rx != nil {
				rx, ry = add(rx, ry, rx, ry)
			}
			if octet>>bit&1 == 1 {
				rx, ry = add(rx, ry, x, y)
			}
		}
	}
	return rx
}

// deriveByHand has the derivation written out once more.
func deriveByHand(s Suite, z, partyU, partyV []byte) []byte {
	var in bytes.Buffer
	in.Write([]byte{0, 0, 0, 1})
	in.Write(z)
	if s == Suite1 {
		in.WriteString("\x60\x85\x74\x05\x08\x03\x00")
	} else {
		in.WriteString("\x60\x85\x74\x05\x08\x03\x01")
	}
	in.Write(partyU)
	in.Write(partyV)
	if s == Suite1 {
		sum := sha256.Sum256(in.Bytes())
		return sum[:16]
	}
	sum := sha512.Sum384(in.Bytes())
	return sum[:32]
}

// TestAgreement has three computations agree: this package, OpenSSL, and the
// arithmetic above.
func TestAgreement(t *testing.T) {
	t.Parallel()
	from, to := title(t, meter), title(t, client)
	for _, a := range agreements() {
		own, peer := a.agreer(t, 0), a.agreer(t, 1)
		z, err := agree(a.suite, own, peer.PublicKey())
		if err != nil || !bytes.Equal(z, unhex(t, a.z)) {
			t.Errorf("suite %d: z %x, %v, want %s", a.suite, z, err, a.z)
		}
		public := peer.PublicKey().Bytes()[1:]
		curve, _, _ := a.suite.curve()
		x, y := new(big.Int).SetBytes(public[:len(public)/2]), new(big.Int).SetBytes(public[len(public)/2:])
		if hand := byHand(curve.Params(), x, y, unhex(t, a.private[0])); !bytes.Equal(hand.FillBytes(make([]byte, len(z))), z) {
			t.Errorf("suite %d: by hand z is %x, want %x", a.suite, hand, z)
		}

		transaction := unhex(t, "0102030405060708")
		static, err := StaticUnified(a.suite, own, peer.PublicKey(), transaction, from, to)
		if err != nil || !bytes.Equal(static.octets(), unhex(t, a.static)) {
			t.Errorf("suite %d: static unified model: %x, %v", a.suite, static.octets(), err)
		}
		if back, err := StaticUnified(a.suite, peer, own.PublicKey(), transaction, from, to); err != nil || !back.Equal(static) {
			t.Errorf("suite %d: the other side of the static unified model has another key, %v", a.suite, err)
		}
		partyU := append(append(append([]byte(nil), from[:]...), 8), transaction...)
		if hand := deriveByHand(a.suite, z, partyU, to[:]); !bytes.Equal(hand, static.octets()) {
			t.Errorf("suite %d: derived by hand %x", a.suite, hand)
		}

		signer := a.signer(t, 2)
		taken, err := AcceptOnePass(a.suite, peer, &signer.PublicKey, unhex(t, a.data), from, to)
		if err != nil || !bytes.Equal(taken.octets(), unhex(t, a.onePass)) || !bytes.Equal(deriveByHand(a.suite, z, from[:], to[:]), taken.octets()) {
			t.Errorf("suite %d: one pass: %x, %v", a.suite, taken.octets(), err)
		}
		refuseBits(t, "one pass", unhex(t, a.data), []int{0}, func(b []byte) error {
			_, err := AcceptOnePass(a.suite, peer, &signer.PublicKey, b, from, to)
			return err
		})
		made, data, err := OnePass(a.suite, rand.Reader, signer, peer.PublicKey(), from, to)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := AcceptOnePass(a.suite, peer, &signer.PublicKey, data, from, to); err != nil || !back.Equal(made) {
			t.Errorf("suite %d: one pass: the two sides have two keys, %v", a.suite, err)
		}
	}
}

func TestAgreementRefuses(t *testing.T) {
	t.Parallel()
	from, to := title(t, meter), title(t, client)
	both := agreements()
	p256, p384 := both[0].agreer(t, 0), both[1].agreer(t, 0)
	if _, err := StaticUnified(0, p256, p256.PublicKey(), []byte{1}, from, to); !errors.Is(err, ErrSuite) {
		t.Errorf("suite 0: %v", err)
	}
	if _, err := StaticUnified(1, p256, p384.PublicKey(), []byte{1}, from, to); !errors.Is(err, ErrKey) {
		t.Errorf("two curves: %v", err)
	}
	if _, err := StaticUnified(1, nil, nil, []byte{1}, from, to); !errors.Is(err, ErrKey) {
		t.Errorf("no keys: %v", err)
	}
	if _, err := StaticUnified(1, p256, p256.PublicKey(), nil, from, to); !errors.Is(err, ErrMalformed) {
		t.Errorf("no transaction: %v", err)
	}
	if _, err := ParsePublicKey(1, make([]byte, 64)); !errors.Is(err, ErrKey) {
		t.Errorf("a point that is not on the curve: %v", err)
	}
	if _, _, err := OnePass(1, rand.Reader, both[1].signer(t, 2), p256.PublicKey(), from, to); !errors.Is(err, ErrKey) {
		t.Errorf("signed on another curve: %v", err)
	}
}

// TestECDSA has a proof that OpenSSL signed, and one that we do.
func TestECDSA(t *testing.T) {
	t.Parallel()
	for _, a := range agreements() {
		var ctos, stoc []byte
		for i := range byte(32) {
			ctos, stoc = append(ctos, i), append(stoc, 32+i)
		}
		ours, theirs := a.signer(t, 1), a.signer(t, 2)
		h := Handshake{
			Mechanism: HLSECDSA, Own: title(t, meter), Peer: title(t, client), OwnChallenge: ctos, PeerChallenge: stoc,
			SigningKey: ours, PeerKey: &theirs.PublicKey, Random: rand.Reader, Sender: &Sender{Suite: a.suite},
		}
		if err := h.Verify(unhex(t, a.proof), Mark{}); err != nil {
			t.Errorf("suite %d: %v", a.suite, err)
		}
		refuseBits(t, "ECDSA", unhex(t, a.proof), []int{0}, func(b []byte) error { return h.Verify(b, Mark{}) })
		reply, err := h.Reply(nil)
		if err != nil {
			t.Fatal(err)
		}
		back := h
		back.Own, back.Peer, back.OwnChallenge, back.PeerChallenge, back.PeerKey = h.Peer, h.Own, stoc, ctos, &ours.PublicKey
		if err := back.Verify(reply, Mark{}); err != nil {
			t.Errorf("suite %d: our own proof: %v", a.suite, err)
		}
		if err := h.Verify(reply, Mark{}); !errors.Is(err, ErrProof) {
			t.Errorf("suite %d: our own proof, sent back: %v", a.suite, err)
		}
	}
}

func TestGeneralCiphering(t *testing.T) {
	t.Parallel()
	for _, a := range agreements() {
		apdu, ek, keys := unhex(t, a.general), key(t, a.static), keysOf(t, a.suite)
		g, err := ParseGeneralCiphering(apdu)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := g.AppendBinary(nil); err != nil || !bytes.Equal(again, apdu) {
			t.Errorf("suite %d: encoded %X, %v", a.suite, again, err)
		}
		open := func(apdu []byte) ([]byte, error) {
			g, err := ParseGeneralCiphering(apdu)
			if err != nil {
				return nil, err
			}
			return receiver(a.suite, AuthenticatedEncrypted, title(t, meter), keys).OpenGeneral(nil, &g, ek)
		}
		if plain, err := open(apdu); err != nil || !bytes.Equal(plain, unhex(t, getReq)) {
			t.Errorf("suite %d: opened %X, %v", a.suite, plain, err)
		}
		for i := range apdu {
			if _, err := open(apdu[:i]); err == nil {
				t.Errorf("suite %d: taken when cut to %d", a.suite, i)
			}
			b := bytes.Clone(apdu)
			b[i] ^= 1
			// The key info is not authenticated: it says which key, and another fails.
			if inKeyInfo := i >= 30 && i < 35; !inKeyInfo {
				if _, err := open(b); err == nil {
					t.Errorf("suite %d: taken with octet %d altered", a.suite, i)
				}
			}
		}
		sealed := GeneralCiphering{Envelope: g.Envelope, Key: g.Key, Control: g.Control, Counter: g.Counter}
		if err := sealed.Seal(unhex(t, getReq), ek, keys.Authentication); err != nil || !bytes.Equal(sealed.Sealed, g.Sealed) {
			t.Errorf("suite %d: sealed %X, %v, want %X", a.suite, sealed.Sealed, err, g.Sealed)
		}
		r := receiver(a.suite, AuthenticatedEncrypted, title(t, meter), keys)
		if _, err := r.OpenGeneral(nil, &g, ek); err != nil {
			t.Error(err)
		}
		if _, err := receiver(a.suite, AuthenticatedEncrypted, title(t, client), keys).OpenGeneral(nil, &g, ek); !errors.Is(err, ErrTitle) {
			t.Errorf("suite %d: taken from another: %v", a.suite, err)
		}
		weak := GeneralCiphering{Envelope: g.Envelope, Control: Control(a.suite) | Control(Encrypted), Counter: 7}
		if err := weak.Seal(unhex(t, getReq), ek, keys.Authentication); err != nil {
			t.Fatal(err)
		}
		if _, err := r.OpenGeneral(nil, &weak, ek); !errors.Is(err, ErrWeak) {
			t.Errorf("suite %d: taken when encrypted only: %v", a.suite, err)
		}
		if _, err := r.OpenGeneral(nil, &g, ek); !errors.Is(err, ErrReplay) {
			t.Errorf("suite %d: taken twice: %v", a.suite, err)
		}
	}
}

func TestKeyInfo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		k    KeyInfo
		want string
	}{
		"none":       {KeyInfo{}, "00"},
		"identified": {KeyInfo{Choice: IdentifiedKey, ID: 1}, "010001"},
		"wrapped":    {KeyInfo{Choice: WrappedKey, Data: []byte{1, 2, 3}}, "0101 00 03 010203"},
		"agreed":     {KeyInfo{Choice: AgreedKey, Parameters: []byte{1}, Data: []byte{4, 5}}, "0102 01 01 02 0405"},
	} {
		b, err := c.k.append(nil)
		if err != nil || !bytes.Equal(b, unhex(t, c.want)) {
			t.Errorf("%s: %X, %v", name, b, err)
		}
		var back KeyInfo
		rest, ok := back.parse(append(b, 0xEE))
		if !ok || !bytes.Equal(rest, []byte{0xEE}) || back.Choice != c.k.Choice || back.ID != c.k.ID ||
			!bytes.Equal(back.Parameters, c.k.Parameters) || !bytes.Equal(back.Data, c.k.Data) {
			t.Errorf("%s: back %+v, %X, %v", name, back, rest, ok)
		}
		for n := range b {
			if _, ok := new(KeyInfo).parse(b[:n]); ok {
				t.Errorf("%s: taken when cut to %d", name, n)
			}
		}
	}
	if _, err := (&KeyInfo{Choice: 9}).append(nil); !errors.Is(err, ErrMalformed) {
		t.Errorf("unknown choice: %v", err)
	}
}

func TestGeneralSigning(t *testing.T) {
	t.Parallel()
	a := agreements()[0]
	signer := a.signer(t, 2)
	g := GeneralSigning{
		Envelope: Envelope{TransactionID: []byte{1, 2}, Originator: unhex(t, client), Recipient: unhex(t, meter), DateTime: []byte{3}, Other: []byte{4, 5}},
		Content:  unhex(t, getReq),
	}
	var err error
	if g.Signature, err = Sign(nil, 1, rand.Reader, signer, g.SignedOctets(nil)); err != nil {
		t.Fatal(err)
	}
	apdu, err := g.AppendBinary(nil)
	head := unhex(t, "DF 020102 08"+client+"08"+meter+"0103 020405 0D"+getReq+"40")
	if err != nil || !bytes.Equal(apdu, append(head, g.Signature...)) {
		t.Errorf("encoded %X, %v", apdu, err)
	}
	verify := func(apdu []byte) error {
		back, err := ParseGeneralSigning(apdu)
		if err != nil {
			return err
		}
		return Verify(1, &signer.PublicKey, back.SignedOctets(nil), back.Signature)
	}
	if err := verify(apdu); err != nil {
		t.Error(err)
	}
	for i := range apdu {
		b := bytes.Clone(apdu)
		b[i] ^= 1
		if verify(apdu[:i]) == nil || verify(b) == nil {
			t.Errorf("taken when cut to, or altered at, %d", i)
		}
	}
}
