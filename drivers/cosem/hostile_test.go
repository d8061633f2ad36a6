package cosem

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/hdlc"
	"gridgate/dlms/security"
	"gridgate/dlms/wrapper"
)

// TestAnOriginatorOfZeros is in nobody's configuration, and stops nothing.
func TestAnOriginatorOfZeros(t *testing.T) {
	t.Parallel()
	apdu := []byte{security.TagGeneralCiphering, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0x20, 0, 0, 0, 1, 9}
	for name, meters := range map[string][]Known{
		"nobody is known":  nil,
		"a meter is known": {{ID: "a", Protection: Protection{Keys: testKeys(t), Policy: security.Encrypted}}},
	} {
		h := newHeard()
		h.Meters = meters
		in := intake{Receiver: &h.Receiver}
		in.take(at("10.0.0.7:1"), apdu)
		if h.only(t, security.ErrTitle); h.rows != "" {
			t.Errorf("%s: %s", name, h.rows)
		}
	}
}

// TestAConnectionOfManySenders begins what it does not end, as many as there may
// be: on one connection that is few, since there may be many connections.
func TestAConnectionOfManySenders(t *testing.T) {
	t.Parallel()
	h := newHeard()
	lost := make(chan error, 100)
	h.Bad = func(_ Sender, err error) { lost <- err }
	here, there := net.Pipe()
	c := &caller{Conn: there, from: Sender{Net: netip.MustParseAddrPort("10.0.0.7:1")}}
	done := make(chan error, 1)
	go func() { done <- h.serve(c, &callers{}) }()
	go func() { // acknowledgements
		b := make([]byte, 100)
		for {
			if _, err := here.Read(b); err != nil {
				return
			}
		}
	}()
	apdu := block(0x40, 1, bytes.Repeat([]byte{1}, 100))
	for port := range uint16(20) {
		b, err := wrapper.Header{Source: port + 1, Destination: 1, Length: uint16(len(apdu))}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := here.Write(append(b, apdu...)); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 - maxBegun {
		if err := <-lost; !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	}
	_ = here.Close()
	if err := <-done; err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// TestAPushBesideAnAnswer: a meter that calls protects what it sends before it
// has a connection, and meanwhile answers who reads it. Its push is no repetition
// for that, and taken once.
func TestAPushBesideAnAnswer(t *testing.T) {
	t.Parallel()
	h := newHeard()
	meter := sealer(t, pusher, security.AuthenticatedEncrypted)
	h.Meters = []Known{{ID: "a", Title: meter.Title, Protection: Protection{Keys: testKeys(t), Policy: security.Authenticated}}}
	h.Received = &security.Window{}
	push := seal(t, meter, data(t, axdr.Unsigned(7)), true)
	answer := seal(t, meter, []byte{0xC4, 1, 0xC1, 0, 17, 1}, false)
	reading := security.Receiver{
		Policy: security.Authenticated, Title: meter.Title, Keys: testKeys(t), Direction: security.FromServer, Window: h.Received,
	}
	if _, err := reading.Unprotect(nil, answer); err != nil {
		t.Fatal(err)
	}
	in := intake{Receiver: &h.Receiver}
	in.take(at("10.0.0.7:1"), push)
	h.only(t, nil)
	if len(h.pushes) != 1 {
		t.Fatalf("%d pushes were taken", len(h.pushes))
	}
	h.recent = recent{} // long ago
	in.take(at("10.0.0.7:1"), push)
	h.only(t, security.ErrReplay)
	if _, err := reading.Unprotect(nil, answer); !errors.Is(err, security.ErrReplay) {
		t.Errorf("the answer again: %v", err)
	}
}

// TestWhoSaysAgainThatWeAreBehind and can say it in the clear does not use up the
// key: visit by visit, one jump in all.
func TestWhoSaysAgainThatWeAreBehind(t *testing.T) {
	t.Parallel()
	r := newRig(t, securedMeter(t))
	s := &store{known: true}
	m := r.driver(t, secured(t, func(c *Config) { c.Counters = s }))
	ahead, asked := uint32(0), 0
	r.spoil(func(request, frame []byte) []byte {
		if request[0] != 0x60 {
			return frame
		}
		if asked++; asked%2 == 1 { // a visit asks twice, and goes on behind the first
			ahead += security.MaxJump - 5000
		}
		return binary.BigEndian.AppendUint32(append(frame[:6:6], "\x00\x07\xD8\x02\x06"...), ahead)
	})
	var err error
	for range 5 {
		_, err = m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
	}
	var jump *security.JumpError
	if !errors.As(err, &jump) || len(s.raised) > 1 {
		t.Errorf("raised %v: %v", s.raised, err)
	}
}

// TestAConnectionOfManyStations is TestAConnectionOfManySenders with segments.
func TestAConnectionOfManyStations(t *testing.T) {
	t.Parallel()
	h := newHeard()
	f := hdlcFrames{intake: &intake{Receiver: &h.Receiver, most: maxBegun}, from: at("10.0.0.7:1")}
	for n := range 20 {
		f.unwrap(hdlc.Frame{Source: hdlc.Address{Upper: uint16(n + 1)}, Control: hdlc.UI, Segmented: true, Info: []byte{0xE6, 0xE7, 0, 0x0F}})
		if len(f.segments) > maxBegun {
			t.Fatalf("%d stations have segments waiting", len(f.segments))
		}
	}
	if len(h.errs) == 0 || !errors.Is(h.errs[0], ErrLost) {
		t.Errorf("%v", h.errs)
	}
}

// TestWhatWasNotStoredComesAgainAsItWas: a sender that is not confirmed may send
// the same octets again. They are no replay, for nobody has what is in them.
func TestWhatWasNotStoredComesAgainAsItWas(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*heard){
		"refused":    func(h *heard) { h.refuse = errors.New("disk full") },
		"not stored": func(h *heard) { h.stored = func() error { return errors.New("disk full") } },
	} {
		h := newHeard()
		meter := sealer(t, pusher, security.AuthenticatedEncrypted)
		h.Meters = []Known{{ID: "a", Title: meter.Title, Protection: Protection{Keys: testKeys(t), Policy: security.Authenticated}}}
		push := seal(t, meter, data(t, axdr.Unsigned(7)), true)
		in := intake{Receiver: &h.Receiver}
		fail(h)
		for range 2 {
			in.take(at("10.0.0.7:1"), push)
			if len(h.errs) != 1 || h.errs[0].Error() != "disk full" {
				t.Errorf("%s: %v", name, h.errs)
			}
			h.errs = nil
		}
		h.refuse, h.stored, h.pushes = nil, nil, nil
		in.take(at("10.0.0.7:1"), push)
		if h.only(t, nil); len(h.pushes) != 1 {
			t.Errorf("%s: taken %d times", name, len(h.pushes))
		}
		in.take(at("10.0.0.7:1"), push)
		h.only(t, ErrRepeated)
		h.recent = recent{}
		in.take(at("10.0.0.7:1"), push)
		h.only(t, security.ErrReplay)
	}
}

// countedNotes counts what is noted.
type countedNotes struct {
	*store
	noted int
}

func (c *countedNotes) NoteReceived(title security.Title, key security.KeyID, d security.Direction, counter, loss uint32) error {
	c.noted++
	return c.store.NoteReceived(title, key, d, counter, loss)
}

// TestNoiseUnderATitle: where a meter only encrypts, anybody can send what opens
// to noise. It raises no counter, and costs no write.
func TestNoiseUnderATitle(t *testing.T) {
	t.Parallel()
	const floods = 2000
	for name, noise := range map[string]func(title, control []byte) []byte{
		"general-glo": func(title, control []byte) []byte { return append(append([]byte{0xDB, 8}, title...), control...) },
		"general-ciphering": func(title, control []byte) []byte {
			return append(append(append([]byte{0xDD, 0, 8}, title...), 0, 0, 0, 0), control...)
		},
	} {
		h := newHeard()
		meter := sealer(t, pusher, security.Encrypted)
		keys := testKeys(t)
		keys.Authentication = security.Key{}
		h.Meters = []Known{{ID: "a", Title: meter.Title, Protection: Protection{Keys: keys, Policy: security.Encrypted}}}
		c := &countedNotes{store: &store{}}
		h.Received = &security.Window{}
		h.Received.Keep(c, 256, keys.Encryption.ID())
		in := intake{Receiver: &h.Receiver}
		for i := range uint32(floods) {
			control := binary.BigEndian.AppendUint32([]byte{25, 0x20}, (i+1)*300)
			sum := sha256.Sum256(control)
			in.take(at("10.9.9.9:1"), noise(meter.Title[:], append(control, sum[:20]...)))
		}
		if c.noted > floods/200 || len(h.errs) < floods-floods/200 {
			t.Errorf("%s: %d noted, %d told", name, c.noted, len(h.errs))
		}
		h.errs = nil
		push := seal(t, meter, data(t, axdr.Unsigned(8)), true)
		if c.noted == 0 {
			in.take(at("10.0.0.7:1"), push)
			if h.only(t, nil); len(h.pushes) != 1 {
				t.Errorf("%s: the meter is not heard any more", name)
			}
		}
	}
}
