package security

import (
	"bytes"
	"errors"
	"testing"
)

// TestBlocksSentBack: a meter that does not know the secret sends our challenge
// with something before or behind it, to be given the proof that it then gives
// us. Mechanism 2 makes it block by block.
func TestBlocksSentBack(t *testing.T) {
	t.Parallel()
	own := []byte("0123456789ABCDEF")
	zeros := append(bytes.Repeat([]byte{7}, 12), 0, 0, 0, 0)
	for name, c := range map[string]struct{ own, peer []byte }{
		"ours and more":     {own, append(bytes.Clone(own), "more"...)},
		"ours behind more":  {own, append([]byte("fedcba9876543210"), own...)},
		"ours without ends": {zeros, zeros[:12]},
	} {
		h := Handshake{Mechanism: HLS, OwnChallenge: c.own, PeerChallenge: c.peer, Secret: []byte("secret")}
		reply, err := h.Reply(nil)
		if !errors.Is(err, ErrReflected) {
			t.Errorf("%s: replies %x, %v", name, reply, err)
		}
		for at := 0; at+len(own) <= len(reply); at += len(own) {
			if h.Verify(reply[at:at+len(own)], Mark{}) == nil {
				t.Errorf("%s: our own reply is taken for a proof", name)
			}
		}
	}
	h := Handshake{Mechanism: HLS, OwnChallenge: own, PeerChallenge: []byte("fedcba9876543210"), Secret: []byte("secret")}
	if _, err := h.Reply(nil); err != nil {
		t.Errorf("another challenge: %v", err)
	}
}
