package command

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

func tunnelKeys() (ed25519.PublicKey, ed25519.PrivateKey) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	return key.Public().(ed25519.PublicKey), key
}

// TestTunnelPacket has the layout as it is drawn, and takes nothing that is cut
// short, flipped, or of another.
func TestTunnelPacket(t *testing.T) {
	t.Parallel()
	public, key := tunnelKeys()
	b := AppendTunnel(nil, key, "c-1", 258, []byte("data"))
	if want := "47475431" + "03632d31" + "00000102" + "64617461"; hex.EncodeToString(b[:len(b)-64]) != want {
		t.Errorf("%x, want %s and a signature", b, want)
	}
	number, data, err := parseTunnel(b, public, "c-1")
	if err != nil || number != 258 || string(data) != "data" {
		t.Errorf("%d %q, %v", number, data, err)
	}
	for n := range b {
		if _, _, err := parseTunnel(b[:n], public, "c-1"); err == nil {
			t.Errorf("%d octets are taken", n)
		}
		for bit := range 8 {
			flipped := bytes.Clone(b)
			flipped[n] ^= 1 << bit
			if _, _, err := parseTunnel(flipped, public, "c-1"); err == nil {
				t.Errorf("octet %d flipped at %d is taken", n, bit)
			}
		}
	}
	if _, _, err := parseTunnel(b, public, "c-2"); err == nil {
		t.Error("a packet of another is taken")
	}
	if _, ok := IsTunnel([]byte("untrusted comment: x\n")); ok {
		t.Error("a document is taken for a packet")
	}
}

func FuzzTunnelPacket(f *testing.F) {
	public, key := tunnelKeys()
	f.Add(AppendTunnel(nil, key, "c-1", 1, []byte("x")))
	f.Add([]byte(tunnelMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		number, data, err := parseTunnel(b, public, "c-1")
		if err == nil && !bytes.Equal(AppendTunnel(nil, key, "c-1", number, data), b) {
			t.Fatalf("%x is taken, and says nothing else", b)
		}
	})
}

func TestTunnelParameters(t *testing.T) {
	t.Parallel()
	public, _ := tunnelKeys()
	good := "{key: " + base64.StdEncoding.EncodeToString(public) + ", for: 1h, idle: 2m}"
	e, err := actionOf(t, "tunnel").New(with(good))
	if got, is := e.(tunnel); err != nil || !is || got.length != time.Hour || got.idle != 2*time.Minute {
		t.Errorf("%+v, %v", e, err)
	}
	for _, bad := range []string{"{}", "{key: AAAA}", "{for: 5h}", "{idle: 0s, key: x}"} {
		if _, err := actionOf(t, "tunnel").New(with(bad)); !errors.Is(err, order.ErrMalformed) {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestTunnelPackets has a driver ask for what comes next: what comes twice or is
// signed by another is passed over, and a gap ends it.
func TestTunnelPackets(t *testing.T) {
	t.Parallel()
	public, key := tunnelKeys()
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	packet := func(n uint32, data string) []byte { return AppendTunnel(nil, key, "c-1", n, []byte(data)) }
	for name, c := range map[string]struct {
		packets [][]byte
		got     string
		end     error // io.EOF, or another
	}{
		"in order":        {[][]byte{packet(1, "a"), packet(2, "b"), packet(3, "")}, "ab", io.EOF},
		"twice":           {[][]byte{packet(1, "a"), packet(1, "a"), packet(2, "b"), packet(1, "a"), packet(3, "")}, "ab", io.EOF},
		"of another":      {[][]byte{packet(1, "a"), AppendTunnel(nil, other, "c-1", 2, []byte("x")), AppendTunnel(nil, key, "c-2", 2, []byte("x")), packet(2, "")}, "a", io.EOF},
		"a gap":           {[][]byte{packet(1, "a"), packet(3, "c")}, "a", errTunnel},
		"begins too late": {[][]byte{packet(2, "b")}, "", errTunnel},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := make(chan []byte, len(c.packets))
			for _, p := range c.packets {
				in <- p
			}
			var parts []string
			got, stopped := "", false
			var end error
			j := jobOf(func(ask meter.Ask) (meter.Got, error) {
				act := ask.Acts[0].(*meter.Tunnel)
				act.Opened()
				act.To([]byte("answer"))
				for range 2 * len(c.packets) {
					data, err := act.Next()
					if got += string(data); err != nil {
						end = err
						break
					}
				}
				return meter.Got{Done: []meter.Outcome{{Act: act, Result: meter.Done, Sent: true}}}, nil
			})
			j.Gateway.Meters = MeterServices{
				Listen: func(string) (<-chan []byte, func()) { return in, func() { stopped = true } },
				Send:   func(_ string, part int, data []byte) { parts = append(parts, string(data)) },
			}
			out := tunnel{key: public, length: time.Minute, idle: time.Minute}.Do(t.Context(), j)
			if out.State != Done || got != c.got || end == nil || errors.Is(end, io.EOF) != errors.Is(c.end, io.EOF) || !stopped {
				t.Errorf("%+v: %q, ended by %v, stopped %v", out, got, end, stopped)
			}
			if len(parts) != 2 || parts[0] != TunnelOpen || parts[1] != "answer" {
				t.Errorf("sent %q", parts)
			}
		})
	}
}
