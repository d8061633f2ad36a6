package ppp

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakePort is a modem in memory, and behind it an isp.
type fakePort struct {
	answer func(command string) string
	dialed func(l *fakeFrames) // gets the frames of each connection

	mu       sync.Mutex
	in       bytes.Buffer
	deadline time.Time
	asked    []string
	at       []time.Time // of ATD
	hangUps  int
}

func (p *fakePort) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	command := strings.TrimSuffix(string(b), "\r")
	p.asked = append(p.asked, command)
	if strings.HasPrefix(command, "ATD") {
		p.at = append(p.at, time.Now())
	}
	p.in.WriteString(p.answer(command))
	return len(b), nil
}

func (p *fakePort) Read(b []byte) (int, error) {
	p.mu.Lock()
	if p.in.Len() > 0 {
		defer p.mu.Unlock()
		return p.in.Read(b[:min(len(b), 7)])
	}
	wait := time.Until(p.deadline)
	p.mu.Unlock()
	time.Sleep(wait)
	return 0, os.ErrDeadlineExceeded
}

func (p *fakePort) SetDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	return nil
}

func (p *fakePort) Discard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in.Reset()
	return nil
}
func (p *fakePort) Drop()                  {}
func (p *fakePort) Close() error           { return nil }
func (p *fakePort) hangUp(context.Context) { p.hangUps++ }
func (p *fakePort) connect() (frames, error) {
	l := &fakeFrames{in: make(chan []byte, 100)}
	l.far = newISP(protoCHAP, "secret", l.back, time.Now())
	if p.dialed != nil {
		p.dialed(l)
	}
	return l, nil
}

// fakeFrames is an isp at the other end.
type fakeFrames struct {
	in   chan []byte
	far  *isp
	mu   sync.Mutex
	dead bool // nothing comes any more
	gone bool
}

func (l *fakeFrames) back(frame []byte) {
	if !l.dead {
		l.in <- frame
	}
}

func (l *fakeFrames) send(frame []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.gone {
		l.far.receive(time.Now(), slices.Clone(frame))
	}
	return nil
}

func (l *fakeFrames) do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}
func (l *fakeFrames) ifname() string           { return "ppp7" }
func (l *fakeFrames) frames() <-chan []byte    { return l.in }
func (l *fakeFrames) linked(uint32, int) error { return nil }
func (l *fakeFrames) close()                   {}

// obliging is a modem that is in its network.
func obliging(command string) string {
	switch {
	case strings.HasPrefix(command, "ATD"):
		return "\r\nCONNECT 150000000\r\n\x7e\xff"
	case command == "AT+CPIN?":
		return "\r\n+CPIN: READY\r\n\r\nOK\r\n"
	case command == "AT+CREG?":
		return "\r\n+CREG: 0,5\r\n\r\nOK\r\n"
	case strings.HasPrefix(command, "AT+CGDCONT="), command == "ATZ", command == "ATE0", command == "AT+CMEE=1", command == "ATH":
		return command + "\r\r\nOK\r\n"
	case command == "AT+CCID":
		return "\r\n+CCID: 8949000000000000001\r\n\r\nOK\r\n"
	}
	return "\r\nERROR\r\n"
}

// kept is a Keeper with a fake modem.
type kept struct {
	k    Keeper
	said []string
	ups  []time.Time
	down []time.Time
}

func newKept(t *testing.T, open func() (port, error)) *kept {
	t.Helper()
	c := &kept{}
	c.k = Keeper{
		Conf:  Conf{Device: "/dev/ttyUSB2", APN: "internet.example", Number: "*99#", User: "meter", Password: "secret"},
		Tried: filepath.Join(t.TempDir(), "tried"),
		Say:   func(text string) { c.said = append(c.said, text) },
		Up:    func(string, Network) error { c.ups = append(c.ups, time.Now()); return nil },
		Down:  func(string) { c.down = append(c.down, time.Now()) },
		open:  open,
	}
	return c
}

// run lets the keeper run for a while; what it sends the test reads after that.
func (c *kept) run(t *testing.T, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return c.k.Run(ctx)
}

// TestKeeps: dialled, connected, ended by the peer, and dialled again, soon.
func TestKeeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &fakePort{answer: obliging}
		p.dialed = func(l *fakeFrames) {
			time.AfterFunc(10*time.Minute, func() {
				l.do(func() { l.far.now = time.Now(); l.far.lcp.do(evClose, cause{now: time.Now()}) })
			})
		}
		c := newKept(t, func() (port, error) { return p, nil })
		if err := c.run(t, time.Hour); err != nil {
			t.Error(err)
		}
		if len(c.ups) != 6 || len(c.down) != 6 || len(c.said) != 5 || !strings.Contains(c.said[0], "the peer ended the connection; trying again, in 5s at first") {
			t.Errorf("up %v, down %v, said %q", c.ups, c.down, c.said)
		}
		if !slices.Contains(p.asked, `AT+CGDCONT=1,"IP","internet.example"`) || p.hangUps < 12 {
			t.Errorf("asked %q, hung up %d times", p.asked, p.hangUps)
		}
	})
}

// TestGone: the line vanishes, or the peer dies, and the interface is taken down.
func TestGone(t *testing.T) {
	t.Parallel()
	for want, end := range map[string]func(l *fakeFrames){
		"the line is gone":               func(l *fakeFrames) { l.gone = true; close(l.in) },
		"has not answered 4 echo reques": func(l *fakeFrames) { l.dead = true },
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &fakePort{answer: obliging}
			n := 0
			p.dialed = func(l *fakeFrames) {
				if n++; n == 1 {
					time.AfterFunc(5*time.Minute, func() { l.do(func() { end(l) }) })
				}
			}
			c := newKept(t, func() (port, error) { return p, nil })
			if err := c.run(t, 20*time.Minute); err != nil {
				t.Error(err)
			}
			if len(c.ups) != 2 || len(c.down) != 2 || c.down[0].Sub(c.ups[0]) > 7*time.Minute || !strings.Contains(c.said[0], want) {
				t.Errorf("%s: up %v, down %v, said %q", want, c.ups, c.down, c.said)
			}
		})
	}
}

// TestPauses: from 5 s to 10 min where dialling fails; the same trouble is said once.
func TestPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &fakePort{answer: func(command string) string {
			if strings.HasPrefix(command, "ATD") {
				return "\r\nNO CARRIER\r\n"
			}
			return obliging(command)
		}}
		c := newKept(t, func() (port, error) { return p, nil })
		if err := c.run(t, 2*time.Hour); err != nil {
			t.Error(err)
		}
		want := 5 * time.Second
		for i := 1; i < len(p.at); i++ {
			if got := p.at[i].Sub(p.at[i-1]); got < want || got > want+5*time.Second {
				t.Errorf("the %dth pause is %v, want %v", i, got, want)
			}
			want = min(2*want, 10*time.Minute)
		}
		if len(p.at) < 15 || len(c.said) != 1 || !strings.Contains(c.said[0], "ATD*99#: the modem says NO CARRIER") {
			t.Errorf("dialled %d times, said %q", len(p.at), c.said)
		}
	})
}

// TestNoModem: said once, and looked for every minute.
func TestNoModem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		c := newKept(t, func() (port, error) { looks++; return nil, fs.ErrNotExist })
		if err := c.run(t, time.Hour); err != nil {
			t.Error(err)
		}
		if looks < 60 || looks > 66 || len(c.said) != 1 || !strings.Contains(c.said[0], "no modem: /dev/ttyUSB2 is not there") {
			t.Errorf("%d looks, said %q", looks, c.said)
		}
	})
}

// TestModemTrouble: what is wrong with SIM, network or modem is said in words.
func TestModemTrouble(t *testing.T) {
	t.Parallel()
	for want, answers := range map[string]map[string]string{
		"no SIM is in the modem":                                 {"AT+CPIN?": "\r\n+CME ERROR: 10\r\n"},
		"the SIM is blocked and wants its PUK":                   {"AT+CPIN?": "\r\n+CPIN: SIM PUK\r\n\r\nOK\r\n"},
		"the modem looks for a network":                          {"AT+CREG?": "\r\n+CREG: 0,2\r\n\r\nOK\r\n"},
		"the network refuses this SIM":                           {"AT+CREG?": "\r\n+CREG: 0,3\r\n\r\nOK\r\n"},
		`AT+CGDCONT=1,"IP","internet.example": the modem says +`: {`AT+CGDCONT=1,"IP","internet.example"`: "\r\n+CME ERROR: 50\r\n"},
		"ATD*99#: no answer in 1m30s":                            {"ATD*99#": "\r\n"},
		"ATD*99#: the modem says BUSY":                           {"ATD*99#": "\r\nBUSY\r\n"},
		"the modem does not answer":                              {"*": ""},
		"the modem answers garbage":                              {"*": "\xff\x00\x7e\xff\x7d\x23\xc0\r\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &fakePort{answer: func(command string) string {
				if a, ok := answers[command]; ok {
					return a
				}
				if a, ok := answers["*"]; ok {
					return a
				}
				return obliging(command)
			}}
			c := newKept(t, func() (port, error) { return p, nil })
			if err := c.run(t, 5*time.Minute); err != nil {
				t.Error(err)
			}
			if len(c.said) != 1 || !strings.Contains(c.said[0], want) {
				t.Errorf("said %q, want %q", c.said, want)
			}
		})
	}
}

// TestDataMode: a modem that still takes commands for data is brought back.
func TestDataMode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		data := true
		p := &fakePort{answer: func(command string) string {
			if command == "+++" {
				data = false
				return "\r\nOK\r\n"
			}
			if data {
				return ""
			}
			return obliging(command)
		}}
		c := newKept(t, func() (port, error) { return p, nil })
		if err := c.run(t, time.Minute); err != nil || len(c.ups) != 1 {
			t.Errorf("%v; up %v, said %q", err, c.ups, c.said)
		}
	})
}

// simCard is a modem whose SIM has a PIN.
type simCard struct {
	pin      string
	left     int
	tells    bool // how many attempts are left
	open     bool
	attempts int
}

func (s *simCard) answer(command string) string {
	pin, entered := strings.CutPrefix(command, `AT+CPIN="`)
	switch {
	case command == "AT+CPIN?" && !s.open:
		return "\r\n+CPIN: SIM PIN\r\n\r\nOK\r\n"
	case entered:
		s.attempts++
		s.left--
		if s.open = strings.TrimSuffix(pin, `"`) == s.pin; !s.open {
			return "\r\n+CME ERROR: 16\r\n"
		}
		s.left = 3
		return "\r\nOK\r\n"
	case command == `AT+QPINC="SC"` && s.tells:
		return "\r\n+QPINC: \"SC\"," + string(rune('0'+s.left)) + ",10\r\n\r\nOK\r\n"
	}
	return obliging(command)
}

// TestPIN: entered once; a wrong one never again, over restarts, nor another one with
// the last attempt.
func TestPIN(t *testing.T) {
	t.Parallel()
	for _, tells := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			sim := &simCard{pin: "1234", left: 3, tells: tells}
			p := &fakePort{answer: sim.answer}
			c := newKept(t, func() (port, error) { return p, nil })
			start := func(pin, want string, attempts int) {
				t.Helper()
				sim.attempts, sim.open = 0, false
				c.k.Conf.PIN = pin
				err := c.run(t, 10*time.Minute)
				if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) || sim.attempts != attempts {
					t.Errorf("tells %v, PIN %q: %v, %d attempts, want %q", tells, pin, err, sim.attempts, want)
				}
				if err != nil && strings.Contains(err.Error(), pin) && pin != "" {
					t.Errorf("%v has the PIN", err)
				}
			}
			start("", "ppp.conf has none", 0)
			start("1234", "", 1)
			if len(c.ups) == 0 {
				t.Error("never up")
			}
			start("1234", "", 1)
			start("9999", "did not take it", 1)
			start("9999", "did not take this one before", 0)
			start("8888", "did not take it", 1)
			start("7777", map[bool]string{true: "the last attempt is never used", false: "one more might be the last"}[tells], 0)
			start("1234", "is not dialled until the gateway starts again", 0)
			if sim.left != 1 {
				t.Errorf("%d attempts are left", sim.left)
			}
			sim.left, sim.open = 3, true // in a phone
			c.k.Conf.PIN = "1234"
		})
	}
}

// TestPINUnwritable: where it cannot be kept, it is not tried.
func TestPINUnwritable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := &simCard{pin: "1234", left: 3}
		p := &fakePort{answer: sim.answer}
		c := newKept(t, func() (port, error) { return p, nil })
		c.k.Conf.PIN, c.k.Tried = "1234", filepath.Join(t.TempDir(), "no", "folder")
		if err := c.run(t, time.Minute); !errors.Is(err, fs.ErrNotExist) || sim.attempts != 0 {
			t.Errorf("%v, %d attempts", err, sim.attempts)
		}
	})
}
