package cosem

import (
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"gridgate/internal/meter"
)

// spoken is somebody at the other end of a tunnel.
type spoken struct {
	say    [][]byte
	end    error // behind what they say, once they heard as much as hear; nil is never
	hear   int
	heard  []byte
	opened int
}

func (s *spoken) tunnel() *meter.Tunnel {
	return &meter.Tunnel{
		Opened: func() { s.opened++ },
		Next: func() ([]byte, error) {
			if len(s.say) > 0 {
				next := s.say[0]
				s.say = s.say[1:]
				return next, nil
			}
			if len(s.heard) >= s.hear {
				return nil, s.end
			}
			return nil, nil
		},
		To:     func(b []byte) { s.heard = append(s.heard, b...) },
		Length: time.Minute, Idle: time.Minute,
	}
}

// aarq is an association request of client 17 in the wrapper, without
// authentication (IEC 62056-47 and 62056-5-3), in pieces.
func aarq(t *testing.T) [][]byte {
	t.Helper()
	b, err := hex.DecodeString("000100110001001F" + "601DA109060760857405080101BE10040E01000000065F1F0400007E1F04B0")
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{b[:3], b[3:20], b[20:]}
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	a := newActor(t, actorOptions{mode: 4})
	if _, err := a.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil { // it has an association, which goes
		t.Fatal(err)
	}
	s := &spoken{say: aarq(t), end: io.EOF, hear: 9}
	o, err := a.order(t, s.tunnel())
	if err != nil || o.Result != meter.Done || s.opened != 1 || value(o.After, "octets to the meter") != "39" {
		t.Fatalf("%v (%v) %v, %v", o.Result, o.Err, o.After, err)
	}
	if len(s.heard) < 9 || hex.EncodeToString(s.heard[:6]) != "000100010011" || s.heard[8] != 0x61 {
		t.Errorf("the meter said %x, want an AARE", s.heard)
	}
	// Whoever is next has a conversation of their own.
	if got, err := a.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
		t.Errorf("%v, %v", got.Rows, err)
	}
}

func TestTunnelEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*meter.Tunnel, *spoken, actor)
		why    string
	}{
		"idle":             {func(t *meter.Tunnel, _ *spoken, _ actor) { t.Idle = 100 * time.Millisecond }, "nothing passed"},
		"its time is over": {func(t *meter.Tunnel, _ *spoken, _ actor) { t.Length = 100 * time.Millisecond }, "its time is over"},
		"they ended it":    {func(_ *meter.Tunnel, s *spoken, _ actor) { s.end = io.EOF }, "they ended it"},
		"a gap":            {func(_ *meter.Tunnel, s *spoken, _ actor) { s.end = errors.New("packet 3 came behind 1") }, "packet 3"},
		"the meter hangs up": {func(tunnel *meter.Tunnel, s *spoken, a actor) {
			s.say, tunnel.To = aarq(t), func([]byte) { a.rig.hangUp() }
		}, "the meter hung up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, s := newActor(t, actorOptions{mode: 4}), &spoken{}
			tunnel := s.tunnel()
			c.change(tunnel, s, a)
			if o, err := a.order(t, tunnel); err != nil || o.Result != meter.Done || !strings.Contains(value(o.After, "ended"), c.why) {
				t.Errorf("%v (%v) %v, %v", o.Result, o.Err, o.After, err)
			}
		})
	}
}

// TestTunnelRefused has no tunnel to another meter, and none beside other acts.
func TestTunnelRefused(t *testing.T) {
	t.Parallel()
	a, s := newActor(t, actorOptions{mode: 4, serial: "B2"}), &spoken{}
	if o, err := a.order(t, s.tunnel()); err != nil || o.Result != meter.Refused || s.opened != 0 {
		t.Errorf("%v (%v), opened %d times, %v", o.Result, o.Err, s.opened, err)
	}
	a = newActor(t, actorOptions{mode: 4})
	if o, err := a.order(t, s.tunnel(), meter.Disconnect{}); err != nil || o.Result != meter.Refused || s.opened != 0 {
		t.Errorf("%v (%v), opened %d times, %v", o.Result, o.Err, s.opened, err)
	}
}
