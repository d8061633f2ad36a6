package ppp

import (
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// isp is the other end of a session: it wants authentication and gives addresses, with
// the same automaton.
type isp struct {
	want     uint16 // protoPAP, protoCHAP or 0
	password string
	send     func(frame []byte)
	now      time.Time

	lcp, ipcp automaton
	link      *ispLink
	net       *ispNet
	challenge time.Time // when it is sent again; zero: never
	passed    bool
}

type ispLink struct{ p *isp }

func (l *ispLink) request() []option {
	all := []option{uint32Option(optMagic, 0xabcdef01), {optMRU, []byte{5, 0x78}}}
	switch l.p.want {
	case protoPAP:
		all = append(all, option{optAuth, []byte{0xc0, 0x23}})
	case protoCHAP:
		all = append(all, option{optAuth, []byte{0xc2, 0x23, chapMD5}})
	}
	return all
}
func (l *ispLink) judge(all []option, _ bool) (byte, []option) { return confAck, all }
func (l *ispLink) accept([]option)                             {}
func (l *ispLink) refused(byte, []option)                      {}
func (l *ispLink) finished()                                   {}
func (l *ispLink) rejected(byte) bool                          { return true }
func (l *ispLink) other(p packet) bool {
	if p.code == echoReq {
		l.p.lcp.tell(packet{echoReply, p.id, binary.BigEndian.AppendUint32(nil, 0xabcdef01)})
	}
	return true
}

func (l *ispLink) down() {
	l.p.passed = false
	l.p.ipcp.do(evDown, cause{now: l.p.now})
}

func (l *ispLink) up() {
	switch l.p.want {
	case 0:
		l.p.pass()
	case protoCHAP:
		l.p.ask()
	}
}

func (p *isp) pass() {
	if !p.passed {
		p.passed = true
		p.ipcp.do(evUp, cause{now: p.now})
	}
}

func (p *isp) ask() {
	p.challenge = p.now.Add(restartTime)
	p.send(packet{chapChallenge, 7, append([]byte{4, 1, 2, 3, 4}, "isp"...)}.frame(protoCHAP))
}

// ispNet gives 10.9.0.2 and two name servers, and is 10.9.0.1.
type ispNet struct {
	p    *isp
	isUp bool
}

func given() []option {
	return []option{{optAddress, []byte{10, 9, 0, 2}}, {optDNS1, []byte{10, 9, 0, 53}}, {optDNS2, []byte{10, 9, 0, 54}}}
}

func (n *ispNet) request() []option {
	return []option{{2, []byte{0, 0x2d, 15, 1}}, {optAddress, []byte{10, 9, 0, 1}}}[btoi(n.p.ipcp.naks > 0 || n.p.ipcp.id > 0):]
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (n *ispNet) judge(all []option, _ bool) (byte, []option) {
	var better []option
	for i, o := range given() {
		if i < len(all) && string(all[i].data) != string(o.data) {
			better = append(better, o)
		}
	}
	if better != nil {
		return confNak, better
	}
	return confAck, all
}
func (n *ispNet) accept([]option)        {}
func (n *ispNet) refused(byte, []option) {}
func (n *ispNet) up()                    { n.isUp = true }
func (n *ispNet) down()                  { n.isUp = false }
func (n *ispNet) finished()              {}
func (n *ispNet) rejected(byte) bool     { return true }
func (n *ispNet) other(packet) bool      { return false }

func newISP(want uint16, password string, send func([]byte), now time.Time) *isp {
	p := &isp{want: want, password: password, send: send, now: now}
	p.link, p.net = &ispLink{p}, &ispNet{p: p}
	mru := func() int { return 1500 }
	p.lcp = automaton{proto: protoLCP, p: p.link, send: send, mru: mru}
	p.ipcp = automaton{proto: protoIPCP, p: p.net, send: send, mru: mru}
	p.lcp.do(evOpen, cause{now: now})
	p.ipcp.do(evOpen, cause{now: now})
	p.lcp.do(evUp, cause{now: now})
	return p
}

func (p *isp) receive(now time.Time, frame []byte) {
	p.now = now
	in, ok := parsePacket(frame[2:])
	if !ok {
		return
	}
	switch proto := binary.BigEndian.Uint16(frame); proto {
	case protoLCP:
		p.lcp.receive(now, in)
	case protoIPCP:
		if p.passed && p.lcp.state == opened {
			p.ipcp.receive(now, in)
		}
	case protoPAP:
		if p.lcp.state != opened || p.want != protoPAP {
			return
		}
		if good := string(in.data) == "\x05meter"+string(rune(len(p.password)))+p.password; good {
			p.send(packet{papAck, in.id, []byte{0}}.frame(protoPAP))
			p.pass()
		} else {
			p.send(packet{papNak, in.id, []byte{2, 'n', 'o'}}.frame(protoPAP))
		}
	case protoCHAP:
		if p.lcp.state != opened || p.want != protoCHAP || in.code != chapResponse {
			return
		}
		p.challenge = time.Time{}
		if d := md5.Sum([]byte("\x07" + p.password + "\x01\x02\x03\x04")); string(in.data) == "\x10"+string(d[:])+"meter" {
			p.send(packet{chapSuccess, in.id, nil}.frame(protoCHAP))
			p.pass()
		} else {
			p.send(packet{chapFailure, in.id, []byte("no")}.frame(protoCHAP))
		}
	}
}

func (p *isp) tick(now time.Time) {
	p.now = now
	p.lcp.tick(now)
	p.ipcp.tick(now)
	if !p.challenge.IsZero() && !now.Before(p.challenge) {
		p.challenge = time.Time{}
		if p.lcp.state == opened {
			p.ask()
		}
	}
}

func (p *isp) next() time.Time {
	var first time.Time
	for _, t := range []time.Time{p.lcp.due, p.ipcp.due, p.challenge} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// badLink is a link that loses, doubles and reorders, until it is mended.
type badLink struct {
	now    time.Time
	mended time.Time
	random *rand.Rand
	flying []flight
	seen   []string
}

type flight struct {
	at    time.Time
	toISP bool
	frame []byte
}

func (l *badLink) send(toISP bool, frame []byte) {
	l.seen = append(l.seen, fmt.Sprintf("%v %v %x", l.now.Unix(), toISP, frame))
	copies := 1
	late := 20 * time.Millisecond
	if l.now.Before(l.mended) {
		switch n := l.random.IntN(100); {
		case n < 20:
			copies = 0
		case n < 30:
			copies = 2
		}
	}
	for range copies {
		if l.now.Before(l.mended) {
			late += time.Duration(l.random.IntN(400)) * time.Millisecond
		}
		l.flying = append(l.flying, flight{l.now.Add(late), toISP, slices.Clone(frame)})
	}
}

// TestBadLink: over a link that loses a fifth, doubles a tenth and reorders for a
// minute, a network comes about, the same at both ends, and stands; with the wrong
// password, never.
func TestBadLink(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		for _, auth := range []uint16{0, protoPAP, protoCHAP} {
			for _, password := range []string{"secret", "wrong"} {
				if auth != 0 || password == "secret" {
					overBadLink(t, seed, auth, password)
				}
			}
		}
	}
}

func overBadLink(t *testing.T, seed uint64, auth uint16, password string) {
	t.Helper()
	begin := time.Unix(1_700_000_000, 0)
	l := &badLink{now: begin, mended: begin.Add(time.Minute), random: rand.New(rand.NewPCG(seed, uint64(auth)))}
	var ups, downs int
	var network Network
	far := newISP(auth, "secret", func(f []byte) { l.send(false, f) }, begin)
	s := NewSession(Config{
		User: "meter", Password: password, Random: func() uint32 { return l.random.Uint32() },
		Send:   func(f []byte) { l.send(true, f) },
		Linked: func(uint32, int) {},
		Up:     func(n Network) { ups++; network = n },
		Down:   func() { downs++ },
	}, begin)
	over := func() bool { done, _ := s.Done(); return done }
	for l.now.Sub(begin) < 3*time.Minute && !over() {
		l.step(s, far)
		if ups-downs < 0 || ups-downs > 1 {
			t.Fatalf("seed %d: up %d times, down %d times", seed, ups, downs)
		}
	}
	_, err := s.Done()
	if password == "wrong" {
		if ups > 0 || err == nil || !strings.Contains(err.Error(), "refuses user and password") {
			t.Errorf("seed %d, %04x: up %d times, %v", seed, auth, ups, err)
		}
		return
	}
	if over() || ups-downs != 1 || !far.net.isUp || network.Local != netip.AddrFrom4([4]byte{10, 9, 0, 2}) || len(network.DNS) != 2 || network.MTU != 1400 {
		t.Errorf("seed %d, %04x: over %v (%v), up %d times, down %d times, there %v, %+v\n%s", seed, auth, over(), err, ups, downs, far.net.isUp, network, strings.Join(l.seen, "\n"))
	}
}

// step does what comes next: a frame that arrives, or a timer.
func (l *badLink) step(s *Session, far *isp) {
	first := -1
	for i, f := range l.flying {
		if first < 0 || f.at.Before(l.flying[first].at) {
			first = i
		}
	}
	at := l.now.Add(time.Minute)
	if first >= 0 {
		at = l.flying[first].at
	}
	for _, t := range []time.Time{s.Next(), far.next()} {
		if !t.IsZero() && t.Before(at) {
			at, first = t, -1
		}
	}
	l.now = at
	if first < 0 {
		s.Tick(at)
		far.tick(at)
		return
	}
	f := l.flying[first]
	l.flying = slices.Delete(l.flying, first, first+1)
	if f.toISP {
		far.receive(at, f.frame)
	} else {
		s.Receive(at, f.frame)
	}
}
