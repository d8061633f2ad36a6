package security

import (
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"  // the standard's mechanism 3
	"crypto/sha1" // the standard's mechanism 4
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
)

// Mechanism is a high-level authentication mechanism (IEC 62056-5-3, 7.2.2.2.4).
type Mechanism uint8

// The mechanisms.
const (
	HLS       Mechanism = 2 // the manufacturer's; in fact AES of the challenge
	HLSMD5    Mechanism = 3
	HLSSHA1   Mechanism = 4
	HLSGMAC   Mechanism = 5
	HLSSHA256 Mechanism = 6
	HLSECDSA  Mechanism = 7
)

func (m Mechanism) String() string {
	switch m {
	case HLS:
		return "HLS"
	case HLSMD5:
		return "HLS with MD5"
	case HLSSHA1:
		return "HLS with SHA-1"
	case HLSGMAC:
		return "HLS with GMAC"
	case HLSSHA256:
		return "HLS with SHA-256"
	case HLSECDSA:
		return "HLS with ECDSA"
	}
	return fmt.Sprintf("mechanism %d", uint8(m))
}

// NeedsTitles says whether the replies are made over both system titles.
func (m Mechanism) NeedsTitles() bool { return m == HLSGMAC || m == HLSSHA256 || m == HLSECDSA }

// ChallengeLen is how long a challenge of ours is made.
func (m Mechanism) ChallengeLen() int {
	if m == HLSECDSA {
		return 32
	}
	return 16
}

// The bounds of a challenge, in octets (IEC 62056-5-3, 7.2.2.2.4).
const (
	minChallenge = 8
	maxChallenge = 64
)

// Handshake is one side of a high-level authentication: each side sends the
// other a challenge, and shows that it knows the secret by what it makes of it.
// Meters use it as clients do. Make it with NewHandshake.
type Handshake struct {
	Mechanism Mechanism
	Own, Peer Title // of both sides, where the mechanism NeedsTitles
	// OwnChallenge is what we sent, PeerChallenge what we got.
	OwnChallenge, PeerChallenge []byte

	Secret Secret // for 2, 3, 4 and 6
	// SigningKey is ours and PeerKey the other side's, for 7: P-256 by suite 1,
	// P-384 by suite 2.
	SigningKey *ecdsa.PrivateKey
	PeerKey    *ecdsa.PublicKey
	Random     io.Reader // for 7
	// Sender and Receiver have suite, keys and counters, for 5 and 7.
	Sender   *Sender
	Receiver *Receiver
}

// Mark is which counters had been received at some time.
type Mark struct {
	counter uint32
	seen    bool
}

// Mark marks the time when the challenges were exchanged. The proof comes in an
// APDU that is protected itself, with a counter that is drawn after that of
// the proof and is taken before it; so that of the proof need only have risen
// since the challenges.
func (h *Handshake) Mark() Mark {
	if h.Mechanism != HLSGMAC || h.Receiver == nil || h.Receiver.Window == nil {
		return Mark{}
	}
	counter, seen := h.Receiver.Window.Last(h.Receiver.Title, h.Receiver.Keys.Encryption.ID(), h.Receiver.Direction)
	return Mark{counter, seen}
}

// Check refuses challenges that prove nothing: one that is too short or too
// long, and our own, which somebody without the secret would send us to let
// us make the reply.
func (h *Handshake) Check() error {
	for _, c := range [][]byte{h.OwnChallenge, h.PeerChallenge} {
		if len(c) < minChallenge || len(c) > maxChallenge {
			return fmt.Errorf("%w: a challenge of %d octets, want %d to %d", ErrMalformed, len(c), minChallenge, maxChallenge)
		}
	}
	if subtle.ConstantTimeCompare(h.OwnChallenge, h.PeerChallenge) == 1 {
		return fmt.Errorf("challenge: %w", ErrReflected)
	}
	if h.Mechanism == HLS && shareBlock(h.OwnChallenge, h.PeerChallenge) {
		return fmt.Errorf("part of the challenge: %w", ErrReflected)
	}
	if !h.Mechanism.NeedsTitles() {
		return nil
	}
	switch {
	case h.Own.IsZero() || h.Peer.IsZero():
		return fmt.Errorf("%w: %v needs those of both sides", ErrTitle, h.Mechanism)
	case h.Own == h.Peer:
		return fmt.Errorf("title: %w", ErrReflected)
	}
	return nil
}

// Reply appends what proves to the other side that we know the secret.
func (h *Handshake) Reply(dst []byte) ([]byte, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	switch h.Mechanism {
	case HLSGMAC:
		if h.Sender == nil {
			return nil, fmt.Errorf("%w: it was not given", ErrKey)
		}
		return h.Sender.appendMAC(dst, h.PeerChallenge)
	case HLSECDSA:
		return h.sign(dst)
	case HLS, HLSMD5, HLSSHA1, HLSSHA256:
	}
	return h.digest(dst, h.Own, h.Peer, h.PeerChallenge, h.OwnChallenge)
}

// Verify says whether reply proves that the other side knows the secret: it is
// ErrProof if not. since is the Mark of when the challenges were exchanged.
func (h *Handshake) Verify(reply []byte, since Mark) error {
	if err := h.Check(); err != nil {
		return err
	}
	switch h.Mechanism {
	case HLSGMAC:
		if h.Receiver == nil {
			return fmt.Errorf("%w: it was not given", ErrKey)
		}
		return h.Receiver.checkMAC(h.OwnChallenge, reply, since)
	case HLSECDSA:
		return h.checkSignature(reply)
	case HLS, HLSMD5, HLSSHA1, HLSSHA256:
	}
	want, err := h.digest(nil, h.Peer, h.Own, h.OwnChallenge, h.PeerChallenge)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, reply) != 1 {
		return ErrProof
	}
	return nil
}

// digest appends what the side with title from makes of challenge; back is the
// challenge that it sent itself.
func (h *Handshake) digest(dst []byte, from, to Title, challenge, back []byte) ([]byte, error) {
	if len(h.Secret) == 0 {
		return nil, fmt.Errorf("%w: %v needs a secret", ErrKey, h.Mechanism)
	}
	switch h.Mechanism {
	case HLS:
		return appendECB(dst, h.Secret, challenge)
	case HLSMD5:
		sum := md5.Sum(join(challenge, h.Secret))
		return append(dst, sum[:]...), nil
	case HLSSHA1:
		sum := sha1.Sum(join(challenge, h.Secret))
		return append(dst, sum[:]...), nil
	case HLSSHA256:
		sum := sha256.Sum256(join(h.Secret, from[:], to[:], challenge, back))
		return append(dst, sum[:]...), nil
	case HLSGMAC, HLSECDSA:
	}
	return nil, fmt.Errorf("%v is not known", h.Mechanism)
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// appendECB is what public implementations do for mechanism 2, which the
// standard leaves to the manufacturer: each 16 octets of the challenge under
// AES-128, secret and challenge filled up with zeros.
func appendECB(dst, secret, challenge []byte) ([]byte, error) {
	if len(secret) > aes.BlockSize {
		return nil, fmt.Errorf("%w: a secret of %d octets, HLS takes up to 16", ErrKey, len(secret))
	}
	block, err := aes.NewCipher(append(append([]byte(nil), secret...), make([]byte, aes.BlockSize-len(secret))...))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	n := len(dst)
	dst = append(dst, challenge...)
	for (len(dst)-n)%aes.BlockSize != 0 {
		dst = append(dst, 0)
	}
	for at := n; at < len(dst); at += aes.BlockSize {
		block.Encrypt(dst[at:], dst[at:])
	}
	return dst, nil
}

// shareBlock says whether appendECB makes the same of a part of both challenges:
// who sends ours with something behind it would have its proof from us.
func shareBlock(own, peer []byte) bool {
	blocks := map[[aes.BlockSize]byte]bool{}
	for c := range slices.Chunk(own, aes.BlockSize) {
		var b [aes.BlockSize]byte
		copy(b[:], c)
		blocks[b] = true
	}
	for c := range slices.Chunk(peer, aes.BlockSize) {
		var b [aes.BlockSize]byte
		if copy(b[:], c); blocks[b] {
			return true
		}
	}
	return false
}

// appendMAC appends control, counter and the tag over the challenge (mechanism 5).
func (s *Sender) appendMAC(dst, challenge []byte) ([]byte, error) {
	key, counter, err := s.draw(Unicast)
	if err != nil {
		return nil, fmt.Errorf("reply to challenge: %w", err)
	}
	t := text{control: Control(s.Suite) | Control(Authenticated), title: s.Title, counter: counter, ek: key, ak: s.Keys.Authentication}
	n := len(dst)
	if dst, err = t.appendSealed(dst, challenge); err != nil {
		return nil, fmt.Errorf("reply to challenge: %w", err)
	}
	// The challenge itself is not sent back.
	return append(dst[:n+headerLen], dst[n+headerLen+len(challenge):]...), nil
}

func (r *Receiver) checkMAC(challenge, reply []byte, since Mark) error {
	if len(reply) != headerLen+TagLen {
		return fmt.Errorf("%w: %w: a reply of %d octets", ErrProof, ErrMalformed, len(reply))
	}
	control, counter := Control(reply[0]), binary.BigEndian.Uint32(reply[1:])
	if control != Control(r.Suite)|Control(Authenticated) {
		return fmt.Errorf("%w: security control %02X", ErrProof, byte(control))
	}
	key, at, err := r.key(Unicast)
	if err != nil {
		return err
	}
	last, seen := r.Window.Last(at.title, at.key, at.direction)
	if since.seen && counter <= since.counter || seen && counter == last {
		return &ReplayError{Title: r.Title, Last: last, Got: counter}
	}
	t := text{control: control, title: r.Title, counter: counter, ek: key, ak: r.Keys.Authentication}
	if _, err := t.appendOpened(nil, join(challenge, reply[headerLen:])); err != nil {
		if errors.Is(err, ErrTag) {
			return ErrProof
		}
		return err
	}
	r.Window.Note(at.title, at.key, at.direction, counter)
	return nil
}

// curve gives the curve and the hash of a suite.
func (s Suite) curve() (elliptic.Curve, func([]byte) []byte, error) {
	switch s {
	case Suite1:
		return elliptic.P256(), func(b []byte) []byte { sum := sha256.Sum256(b); return sum[:] }, nil
	case Suite2:
		return elliptic.P384(), func(b []byte) []byte { sum := sha512.Sum384(b); return sum[:] }, nil
	case Suite0:
	}
	return nil, nil, fmt.Errorf("%w: suite %d has no elliptic curve", ErrSuite, uint8(s))
}

// Sign appends the signature of message by the rules of the suite: r ‖ s, each
// as long as the curve's numbers.
func Sign(dst []byte, s Suite, random io.Reader, key *ecdsa.PrivateKey, message []byte) ([]byte, error) {
	curve, hash, err := s.curve()
	if err != nil {
		return nil, err
	}
	if key == nil || key.Curve != curve {
		return nil, fmt.Errorf("%w: signing key is not one of %s", ErrKey, curve.Params().Name)
	}
	r, t, err := ecdsa.Sign(random, key, hash(message))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	n, size := len(dst), curveOctets(curve)
	dst = append(dst, make([]byte, 2*size)...)
	r.FillBytes(dst[n : n+size])
	t.FillBytes(dst[n+size:])
	return dst, nil
}

// Verify says whether signature is that of message by the owner of key: it is
// ErrProof if not.
func Verify(s Suite, key *ecdsa.PublicKey, message, signature []byte) error {
	curve, hash, err := s.curve()
	if err != nil {
		return err
	}
	if key == nil || key.Curve != curve {
		return fmt.Errorf("%w: the other side's key is not one of %s", ErrKey, curve.Params().Name)
	}
	size := curveOctets(curve)
	if len(signature) != 2*size {
		return fmt.Errorf("%w: %w: a signature of %d octets, want %d", ErrProof, ErrMalformed, len(signature), 2*size)
	}
	r, t := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	if !ecdsa.Verify(key, hash(message), r, t) {
		return ErrProof
	}
	return nil
}

func curveOctets(c elliptic.Curve) int { return (c.Params().BitSize + 7) / 8 }

func (h *Handshake) suite() (Suite, error) {
	if h.Sender == nil {
		return 0, fmt.Errorf("%w: no suite given", ErrSuite)
	}
	return h.Sender.Suite, nil
}

func (h *Handshake) sign(dst []byte) ([]byte, error) {
	s, err := h.suite()
	if err != nil {
		return nil, err
	}
	return Sign(dst, s, h.Random, h.SigningKey, join(h.Own[:], h.Peer[:], h.PeerChallenge, h.OwnChallenge))
}

func (h *Handshake) checkSignature(reply []byte) error {
	s, err := h.suite()
	if err != nil {
		return err
	}
	return Verify(s, h.PeerKey, join(h.Peer[:], h.Own[:], h.OwnChallenge, h.PeerChallenge), reply)
}
