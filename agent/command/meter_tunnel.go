package command

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"gridgate/internal/meter"
)

// What a tunnel may be ordered with.
const (
	mostTunnel  = 4 * time.Hour
	usualTunnel = 30 * time.Minute
	usualIdle   = 5 * time.Minute
)

// TunnelOpen is the first part that the gateway sends of a tunnel, when the line
// is open. The others are what the meter says.
const TunnelOpen = "gridgate tunnel is open\n"

// MaxTunnelData is how many octets go into one packet of a tunnel.
const MaxTunnelData = 16 << 10

const tunnelMagic = "GGT1"

// AppendTunnel appends a packet of a tunnel, from the fog to the gateway:
//
//	magic      4  GGT1
//	id length  1
//	id            of the command that opened it
//	number     4  1 for the first, without gaps, big endian
//	data          for the meter; nothing ends the tunnel
//	signature 64  Ed25519, over all before, by the key that the command named
//
// It is published to down/command.
func AppendTunnel(b []byte, key ed25519.PrivateKey, id string, number uint32, data []byte) []byte {
	start := len(b)
	b = append(b, tunnelMagic...)
	b = append(append(b, byte(len(id))), id...)
	b = append(binary.BigEndian.AppendUint32(b, number), data...)
	return append(b, ed25519.Sign(key, b[start:])...)
}

// IsTunnel says whether what came on down/command is a packet of a tunnel, and of
// which. Nothing else is checked.
func IsTunnel(b []byte) (id string, ok bool) {
	if !bytes.HasPrefix(b, []byte(tunnelMagic)) || len(b) < len(tunnelMagic)+1 {
		return "", false
	}
	n := int(b[len(tunnelMagic)])
	rest := b[len(tunnelMagic)+1:]
	if len(rest) < n+4+ed25519.SignatureSize || len(rest) > n+4+ed25519.SignatureSize+MaxTunnelData {
		return "", true
	}
	return string(rest[:n]), true
}

// errTunnel says that a packet is none of the tunnel's.
var errTunnel = errors.New("a packet of a tunnel")

// parseTunnel gives the number and the data of a packet of a tunnel.
func parseTunnel(b []byte, key ed25519.PublicKey, id string) (number uint32, data []byte, err error) {
	if of, ok := IsTunnel(b); !ok || of != id {
		return 0, nil, fmt.Errorf("%w of another", errTunnel)
	}
	signed := b[:len(b)-ed25519.SignatureSize]
	if !ed25519.Verify(key, signed, b[len(signed):]) {
		return 0, nil, fmt.Errorf("%w that is signed by another key", errTunnel)
	}
	rest := signed[len(tunnelMagic)+1+len(id):]
	return binary.BigEndian.Uint32(rest), rest[4:], nil
}

// tunnel lets the maker's tool talk to one meter.
type tunnel struct {
	key          ed25519.PublicKey
	length, idle time.Duration
}

func newTunnel(decode func(any) error) (Executor, error) {
	var with struct {
		Key  string `yaml:"key"`
		For  string `yaml:"for"`
		Idle string `yaml:"idle"`
	}
	if err := decode(&with); err != nil {
		return nil, err
	}
	var p problems
	t := tunnel{length: usualTunnel, idle: usualIdle}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(with.Key))
	if err != nil || len(key) != ed25519.PublicKeySize {
		p.wrong("key", "%q; want the public key (Ed25519, base64) that signs what goes through it: gridfog tunnel makes one", clip(with.Key))
	}
	t.key = key
	if with.For != "" {
		t.length, err = span("for", with.For, mostTunnel)
		p.add(err)
	}
	if with.Idle != "" {
		t.idle, err = span("idle", with.Idle, mostTunnel)
		p.add(err)
	}
	return t, p.err()
}

func (t tunnel) Do(ctx context.Context, j *Job) Outcome {
	s := j.Gateway.Meters
	if s.Listen == nil || s.Send == nil {
		return Refuse("this gateway has no tunnels")
	}
	in, stop := s.Listen(j.Command)
	defer stop()
	part, number := 0, uint32(0)
	send := func(data []byte) {
		part++
		s.Send(j.Command, part, data)
	}
	refused := 0
	next := func() ([]byte, error) {
		select {
		case packet := <-in:
			n, data, err := parseTunnel(packet, t.key, j.Command)
			if err != nil {
				refused++       // of somebody else: that ends nothing
				return nil, nil //nolint:nilerr // likewise
			}
			switch {
			case n <= number:
				return nil, nil // it came twice
			case n != number+1:
				return nil, fmt.Errorf("packet %d came behind %d", n, number)
			case len(data) == 0:
				return nil, io.EOF
			}
			number = n
			return data, nil
		default:
			return nil, nil
		}
	}
	o, err := perform(ctx, j, &meter.Tunnel{
		Opened: func() {
			send([]byte(TunnelOpen))
			j.Progress(0, 0, "the tunnel is open")
		},
		Next: next, To: send, Length: t.length, Idle: t.idle,
	})
	out := outcomeOf(&o, err)
	if refused > 0 {
		out.Text += fmt.Sprintf(", %d packets signed by another key", refused)
	}
	return out
}
