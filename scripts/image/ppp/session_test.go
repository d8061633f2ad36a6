package ppp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

// bench is a session whose frames a test reads and writes, in time of its own.
type bench struct {
	t     *testing.T
	s     *Session
	now   time.Time
	sent  []string // in hex
	links []linked
	ups   []Network
	downs int
}

func newBench(t *testing.T, user, password string) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Unix(1_700_000_000, 0)}
	random := uint32(0x11223344)
	b.s = NewSession(Config{
		User: user, Password: password,
		Random: func() uint32 { random++; return random - 1 },
		Send:   func(frame []byte) { b.sent = append(b.sent, hex.EncodeToString(frame)) },
		Linked: func(accm uint32, mru int) { b.links = append(b.links, linked{accm: accm, mru: mru}) },
		Up:     func(n Network) { b.ups = append(b.ups, n) },
		Down:   func() { b.downs++ },
	}, b.now)
	return b
}

// in hands over frames in hex, and wants exactly these to be sent, since the last call.
func (b *bench) in(frames string, want ...string) {
	b.t.Helper()
	for f := range strings.FieldsSeq(frames) {
		raw, err := hex.DecodeString(f)
		if err != nil {
			b.t.Fatal(err)
		}
		b.s.Receive(b.now, raw)
	}
	got := b.sent
	b.sent = nil
	if strings.Join(got, " ") != strings.Join(want, " ") {
		b.t.Errorf("after %s: sent\n%s\nwant\n%s", frames, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// pass lets time go by, from deadline to deadline.
func (b *bench) pass(d time.Duration) {
	end := b.now.Add(d)
	for {
		next := b.s.Next()
		if next.IsZero() || next.After(end) || b.over() {
			b.now = end
			return
		}
		b.now = next
		b.s.Tick(b.now)
	}
}

func (b *bench) over() bool { over, _ := b.s.Done(); return over }

func (b *bench) ended(want string) {
	b.t.Helper()
	over, err := b.s.Done()
	if !over || err == nil || !strings.Contains(err.Error(), want) {
		b.t.Errorf("over %v: %v, want %q", over, err, want)
	}
}

// What pppd 2.4.9 of Debian 12 sends, here with an MRU of 1400.
const (
	ownRequest  = "c02101010010020600000000050611223344"
	ownAck      = "c02102010010020600000000050611223344"
	pppdRequest = "c02101010018010405780206000000000506d7cfa37007020802"
	pppdAcked   = "c02102010018010405780206000000000506d7cfa37007020802"
	askAll      = "8021010100160306000000008106000000008306000000" + "00"
)

// linkUp brings the link up, without authentication.
func (b *bench) linkUp() {
	b.t.Helper()
	b.in("", ownRequest)
	b.in(pppdRequest, pppdAcked)
	b.in(ownAck, askAll)
}

// TestPppd is a whole connection as pppd has it, octet by octet.
func TestPppd(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	b.linkUp()
	if len(b.links) != 1 || b.links[0] != (linked{accm: 0, mru: 1400}) {
		t.Errorf("linked %+v", b.links)
	}
	b.in("c021090000080d7cfa37", "c0210a00000811223344")                                        // Echo
	b.in("802101010010"+"0206002d0f01"+"03060a090001", "80210401000a0206002d0f01")              // VJ is rejected
	b.in("80570101000e010ab1158cedb50692b9", "c021080200148057"+"0101000e010ab1158cedb50692b9") // IPV6CP
	b.in("802103010016"+"03060a090002"+"81060a090035"+"83060a090036", "802101020016"+"03060a090002"+"81060a090035"+"83060a090036")
	b.in("80210102000a03060a090001", "80210202000a03060a090001")
	if len(b.ups) != 0 {
		t.Error("up before the address was acknowledged")
	}
	b.in("802102020016" + "03060a090002" + "81060a090035" + "83060a090036")
	if len(b.ups) != 1 {
		t.Fatal("not up")
	}
	n := b.ups[0]
	if n.Local.String() != "10.9.0.2" || n.Peer.String() != "10.9.0.1" || len(n.DNS) != 2 || n.DNS[1].String() != "10.9.0.54" || n.MTU != 1400 {
		t.Errorf("%+v", n)
	}
	b.in("c02105020010557365722072657175657374", "c02106020004") // Terminate, "User request"
	if b.downs != 1 {
		t.Errorf("down %d times", b.downs)
	}
	b.pass(restartTime)
	b.ended("the peer ended the connection: User request")
}

// TestPAP: RFC 1334, 2.2.1; an answer to an earlier request is one.
func TestPAP(t *testing.T) {
	t.Parallel()
	b := newBench(t, "meter", "secret")
	b.in("", ownRequest)
	b.in("c021010100080304c023", "c021020100080304c023")
	b.in(ownAck, "c02301010011056d6574657206736563726574")
	b.in("80210101000a03060a090001") // not yet
	b.pass(restartTime)
	b.in("", "c02301020011056d6574657206736563726574", "c02109010008"+"11223344")
	b.in("c02302010005"+"00", askAll)
	b.in("c02303010005" + "00")
	if len(b.ups) != 0 || b.over() {
		t.Error("up, or over")
	}
}

// TestCHAP: the digest is that of `printf '\x5esecret\x01\x02\x03\x04' | md5sum`.
func TestCHAP(t *testing.T) {
	t.Parallel()
	b := newBench(t, "meter", "secret")
	b.in("", ownRequest)
	b.in("c021010100090305c22305", "c021020100090305c22305")
	b.in(ownAck)
	b.in("c223015e000c"+"0401020304"+"697370", chapAnswer)
	b.in("c223035d0004") // of another challenge
	b.pass(restartTime)
	b.in("", chapAnswer, "c02109010008"+"11223344") // the Success may be lost
	b.in("c223035e0004", askAll)
	b.in("c223015e000c"+"0401020304"+"697370", chapAnswer) // again, while it is up
	b.in("c223045e0007"+"6e6f00", "c02105020004")
	b.pass(time.Minute)
	b.ended("the peer refuses user and password (CHAP): no?")
}

const chapAnswer = "c223025e001a" + "10" + "f1812f6e38697bfdfced9923020eb421" + "6d65746572"

// TestRefused: what the peer says of it goes to the console, without what is no text.
func TestRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, "meter", "wrong")
	b.in("", ownRequest)
	b.in("c021010100080304c023"+" "+ownAck, "c021020100080304c023", "c02301010010056d657465720577726f6e67")
	b.in("c0230301000c"+"07"+"6e6f1b5b326a21", "c02105020004") // ESC [ 2 j
	b.in("c02106020004")
	b.ended("the peer refuses user and password (PAP): no?[2j!")
	var refused *RefusedError
	if _, err := b.s.Done(); !errors.As(err, &refused) {
		t.Error(err)
	}
}

// TestUnknownAuthentication: another one is offered, then the option is rejected.
func TestUnknownAuthentication(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	b.in("", ownRequest)
	for range maxFailure {
		b.in("c021010700090305c22381", "c021030700090305c22305")
	}
	b.in("c021010700090305c22381", "c021040700090305c22381")
	b.pass(time.Hour)
	b.ended("not known here: c22381")
}

// TestRefusedOptions: without what the peer rejects, and with what it wants instead.
func TestRefusedOptions(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	b.in("", ownRequest)
	b.in("c0210301000a0206000a0000", "c021010200100206000a0000050611223344")
	b.in("c0210402000a050611223344", "c0210103000a0206000a0000")
	b.in("c02102030009" + "0206000a00") // not what was asked for
	b.in("c0210203000a0206000a0000 c02101010004", "c02102010004", askAll)
	b.in("c0210907000800000001", "c0210a07000800000000") // no magic number
	b.in("80210401000a"+"810600000000", "8021010200100306000000008306"+"00000000")
	b.in("80210402000a"+"030600000000", "80210103000a"+"830600000000")
	b.in("80210101000a030600000000", "80210401000a030600000000") // there is none to give
	b.in("802102"+"03000a"+"830600000000"+" 802101020004", "802102020004", "c02105040004")
	b.pass(time.Minute)
	b.ended("the peer gives no address")
}

// TestSilent: ten requests, three seconds apart (RFC 1661, 4.6).
func TestSilent(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	begin := b.now
	for !b.over() && b.now.Sub(begin) < time.Hour {
		b.pass(time.Second)
	}
	if len(b.sent) != maxConfigure || b.now.Sub(begin) != maxConfigure*restartTime {
		t.Errorf("%d frames in %v", len(b.sent), b.now.Sub(begin))
	}
	b.ended("does not negotiate")
}

// TestTalksForever: a peer that never agrees is given up too.
func TestTalksForever(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	for i := 0; i < 1000 && !b.over(); i++ {
		if n := len(b.sent); n > 0 {
			last, err := hex.DecodeString(b.sent[n-1])
			if err != nil {
				t.Fatal(err)
			}
			if last[2] == confReq { // another magic number, please
				b.s.Receive(b.now, packet{confNak, last[3], []byte{optMagic, 6, 0, 0, byte(i >> 8), byte(i)}}.frame(protoLCP))
			}
		}
		b.pass(time.Second)
	}
	b.ended("no address after 1m30s")
}

// TestLoop: a line that gives back what is sent.
func TestLoop(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	n := 0
	for ; len(b.sent) > 0 && n < 100; n++ {
		f := b.sent[0]
		b.sent = b.sent[1:]
		raw, err := hex.DecodeString(f)
		if err != nil {
			t.Fatal(err)
		}
		b.s.Receive(b.now, raw)
	}
	b.ended("what is sent comes back")
	if n > 50 {
		t.Errorf("after %d frames", n)
	}
}

// TestClose: Terminate twice, and the end.
func TestClose(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	b.linkUp()
	b.s.Close(b.now)
	b.in("", "c02105020004")
	b.pass(restartTime)
	b.in("", "c02105030004")
	b.pass(restartTime)
	if over, err := b.s.Done(); !over || err != nil {
		t.Error(over, err)
	}
}

// up brings a whole connection up.
func (b *bench) up() {
	b.t.Helper()
	b.linkUp()
	b.in("802103010016"+"03060a090002"+"81060a090035"+"83060a090036", "802101020016"+"03060a090002"+"81060a090035"+"83060a090036")
	b.in("80210102000a03060a090001", "80210202000a03060a090001")
	b.in("802102020016" + "03060a090002" + "81060a090035" + "83060a090036")
	if len(b.ups) != 1 {
		b.t.Fatal("not up")
	}
}

// TestDeadPeer: one that answered, and then does not.
func TestDeadPeer(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	b.up()
	for range 10 {
		b.pass(echoEvery)
		for _, f := range b.sent {
			if raw, err := hex.DecodeString(f); err == nil && raw[2] == echoReq {
				b.s.Receive(b.now, packet{echoReply, raw[3], []byte{0xd7, 0xcf, 0xa3, 0x70}}.frame(protoLCP))
			}
		}
		b.sent = nil
	}
	if b.over() {
		t.Fatal("over, with answers")
	}
	died := b.now
	for !b.over() && b.now.Sub(died) < time.Hour {
		b.pass(time.Second)
	}
	b.ended("has not answered 4 echo requests")
	if d := b.now.Sub(died); d > (echoMost+1)*echoEvery || b.downs != 1 {
		t.Errorf("after %v, down %d times", d, b.downs)
	}
}

// TestNoEcho: modems that never answer, answer as if by themselves, or have no such
// code, are not taken for dead.
func TestNoEcho(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"nothing": "", "our magic number": "c0210a01000811223344", "Code-Reject": "c0210707000c" + "0901000811223344"} {
		b := newBench(t, "", "")
		b.up()
		for range 100 {
			b.pass(echoEvery)
			b.sent = nil
			b.in(answer)
		}
		if b.over() || b.downs != 0 {
			t.Errorf("%s: over %v, down %d times", name, b.over(), b.downs)
		}
	}
}

// TestRejectedProtocol: what cannot be done without ends the session.
func TestRejectedProtocol(t *testing.T) {
	t.Parallel()
	for frame, want := range map[string]string{
		"c021080900108021" + "0101000a030600000000": "negotiates no addresses",
		"c02108090006c021":                          "the peer rejects protocol c021",
		"c0210709000801010004":                      "the peer does not negotiate", // Code-Reject of Configure-Request
	} {
		b := newBench(t, "", "")
		b.linkUp()
		raw, err := hex.DecodeString(frame)
		if err != nil {
			t.Fatal(err)
		}
		b.s.Receive(b.now, raw)
		b.pass(time.Minute)
		b.ended(want)
	}
}

// TestAgain: a new Configure-Request begins anew, and a doubled Ack does nothing.
func TestAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, "", "")
	b.up()
	b.in(ownAck)
	if b.downs != 0 {
		t.Fatal("down after an Ack that came twice")
	}
	const again = "c0210103000a0506d7cfa371"
	b.in(again, "c02101020010020600000000050611223344", strings.Replace(again, "c02101", "c02102", 1))
	if b.downs != 1 {
		t.Errorf("down %d times", b.downs)
	}
	b.in("c02102020010020600000000050611223344", "8021010300"+"16"+"03060a090002"+"81060a090035"+"83060a090036")
	if len(b.links) != 2 || b.links[1] != (linked{accm: 0xffffffff, mru: 1500}) {
		t.Errorf("linked %+v", b.links)
	}
}

// TestTruncated: every frame of a connection, cut at each length, in place of the whole
// one and before it: nothing that is cut does anything but be rejected or dropped.
func TestTruncated(t *testing.T) {
	t.Parallel()
	frames := []string{
		pppdRequest, ownAck, "80210101001003060a0900010206002d0f01", "802103010016" + "03060a090002" + "81060a090035" + "83060a090036",
		"80210102000a03060a090001", "802102020016" + "03060a090002" + "81060a090035" + "83060a090036",
	}
	for i, f := range frames {
		raw, err := hex.DecodeString(f)
		if err != nil {
			t.Fatal(err)
		}
		for n := range raw {
			b := newBench(t, "", "")
			for j, g := range frames {
				whole, err := hex.DecodeString(g)
				if err != nil {
					t.Fatal(err)
				}
				if i == j {
					before := len(b.sent)
					b.s.Receive(b.now, bytes.Clone(raw[:n]))
					if len(b.sent) != before {
						t.Errorf("frame %d cut at %d: sent %s", i, n, b.sent[before:])
					}
				}
				b.s.Receive(b.now, whole)
			}
			if len(b.ups) != 1 || b.ups[0].Local.String() != "10.9.0.2" {
				t.Errorf("frame %d cut at %d: %+v", i, n, b.ups)
			}
		}
	}
}

// FuzzReceive: whatever comes, at whatever times, nothing panics, a frame is answered
// with few, and none is longer than the peer takes or a frame that came.
func FuzzReceive(f *testing.F) {
	for _, s := range []string{pppdRequest, ownAck, "c021010100080304c023", "c223015e000c0401020304697370", "80570101000e010ab1158cedb50692b9"} {
		raw, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte{byte(len(raw))}, raw...))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		now := time.Unix(0, 0)
		sent, longest, ups := 0, 0, 0
		s := NewSession(Config{
			User: "u", Password: "p", Random: func() uint32 { return 0x11223344 },
			Send:   func(frame []byte) { sent++; longest = max(longest, len(frame)) },
			Linked: func(uint32, int) {},
			Up:     func(Network) { ups++ },
			Down:   func() { ups-- },
		}, now)
		for len(script) > 0 {
			n := min(int(script[0]), len(script)-1)
			frame := script[1 : 1+n]
			script = script[1+n:]
			if n == 0 {
				now = now.Add(restartTime)
				s.Tick(now)
				continue
			}
			sent, longest = 0, 0
			s.Receive(now, frame)
			if sent > 4 || longest > max(len(frame)+16, 2+headLen+2*256) {
				t.Fatalf("%x: %d frames of up to %d octets", frame, sent, longest)
			}
			if ups < 0 || ups > 1 {
				t.Fatalf("up %d times", ups)
			}
		}
		for i := 0; i < 1000 && !s.Next().IsZero(); i++ {
			if over, _ := s.Done(); over {
				return
			}
			now = s.Next()
			s.Tick(now)
		}
	})
}
