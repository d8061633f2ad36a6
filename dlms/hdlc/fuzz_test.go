package hdlc

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"
)

// babble is a meter that says what stands in it, a part after each Write and
// nothing when it is through. No conversation with it may go on for ever.
type babble struct {
	parts  [][]byte
	in     []byte
	writes int
}

func (s *babble) Write(b []byte) (int, error) {
	if s.writes++; s.writes > 10_000 {
		return 0, errors.New("the link does not come to an end")
	}
	if len(s.parts) > 0 {
		s.in, s.parts = append(s.in, s.parts[0]...), s.parts[1:]
	}
	return len(b), nil
}

func (s *babble) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(b, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *babble) SetTimeout(time.Duration) error { return nil }

// FuzzLink holds that every conversation ends, and that no octet that came in
// is taken for an APDU's twice.
func FuzzLink(f *testing.F) {
	const cut = 0xF5 // between parts
	join := func(says ...string) (b []byte) {
		for _, s := range says {
			b = append(append(b, unhexOf(s)...), cut)
		}
		return b
	}
	ua, good := meter(UA, "818014050207EE060207EE070400000007080400000007"), meter(Information(0, 1, true), "E6E700"+answer)
	f.Add(join(ua, good))
	f.Add(join(ua, meter(ReceiveReady(1, true), ""), meter(0x35, ""), meter(0x19, ""), good))
	f.Add(join(ua, frameOf(16, 1, Information(0, 1, false), true, "E6E700C4")+meter(Information(1, 1, true), "01C100")))
	f.Add(join(ua, meter(FRMR, "100001")))
	f.Add(join(meter(DM, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &babble{parts: bytes.Split(b, []byte{cut})}
		var notified []byte
		l := NewLink(s, Config{
			Client: one(16), Server: one(1), Propose: Parameters{WindowTx: 7, WindowRx: 7, MaxInfoTx: 2030, MaxInfoRx: 2030},
			Notify: func(apdu []byte) { notified = append(notified, apdu...) },
		})
		if err := l.Connect(t.Context()); err != nil {
			return
		}
		got := 0
		for range 4 {
			if err := l.Send(t.Context(), make([]byte, 300)); err != nil {
				return
			}
			apdu, err := l.Receive(t.Context(), nil)
			if err != nil {
				return
			}
			if got += len(apdu); got+len(notified) > len(b) {
				t.Fatalf("%x gave %x, and %d octets in all", b, apdu, got)
			}
		}
		_ = l.Disconnect(t.Context())
	})
}
