package timesync_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/timesync"
	"gridgate/agent/timesync/timetest"
	"gridgate/internal/meter"
	"gridgate/internal/proctest"
	"gridgate/internal/sys"
)

// machine is the clock of this machine, which nobody may set, off by so much.
type machine struct {
	sys.Clock
	off time.Duration
}

func (m machine) Now() sys.Instant {
	at := m.Clock.Now()
	at.Wall = at.Wall.Add(m.off)
	return at
}

func (machine) Discipline() (sys.Discipline, error) { return sys.Discipline{}, nil }

// truth is what servers have that nobody faked.
func truth() time.Time { return time.Now() }

// observe runs a clock against real servers until a poll is over.
func observe(t *testing.T, cfg timesync.Config, servers ...string) (*timesync.Clock, timesync.Status) {
	t.Helper()
	for _, s := range servers {
		address, nts := strings.CutPrefix(s, "nts://")
		cfg.Servers = append(cfg.Servers, timesync.Server{Address: address, NTS: nts})
	}
	if cfg.System == nil {
		cfg.System = machine{}
	}
	cfg.SamplePause = cmp.Or(cfg.SamplePause, 50*time.Millisecond)
	cfg.Boot, cfg.Log = func() uint32 { return 1 }, slog.New(slog.DiscardHandler)
	c := timesync.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	polled := func() bool {
		return !slices.ContainsFunc(c.Status().Servers, func(s timesync.ServerStatus) bool { return s.Verdict == timesync.Unasked })
	}
	proctest.Until(t, "the servers were asked", polled)
	return c, c.Status()
}

// within holds a clock against the truth.
func within(t *testing.T, c *timesync.Clock, off, most time.Duration) {
	t.Helper()
	s := c.Now()
	now := truth()
	if s.Bound == meter.UnknownBound {
		t.Errorf("no bound: %+v", c.Status())
		return
	}
	bound := time.Duration(s.Bound) * time.Millisecond
	if wrong := now.Sub(s.UTC()).Abs(); wrong > bound+time.Second && off == 0 || (wrong-off.Abs()).Abs() > time.Second {
		t.Errorf("the clock is %v off, its bound is %v", wrong, bound)
	}
	if bound > most {
		t.Errorf("the bound is %v, want at most %v", bound, most)
	}
	st := c.Status()
	if wrong := (st.Offset + off).Abs(); wrong > st.Bound { // the system's clock is off ahead of the truth
		t.Errorf("the offset is said to be %v ± %v, and is %v", st.Offset, st.Bound, -off)
	}
}

func verdicts(s timesync.Status) (list []timesync.Verdict) {
	for _, one := range s.Servers {
		list = append(list, one.Verdict)
	}
	return list
}

func expect(t *testing.T, s timesync.Status, state timesync.State, want ...timesync.Verdict) {
	t.Helper()
	if s.State != state || !slices.Equal(verdicts(s), want) {
		t.Errorf("state %v (%s), servers %v; want %v, %v\n%+v", s.State, s.Reason, verdicts(s), state, want, s)
	}
}

const good, bad = timesync.Chosen, timesync.Rejected

func TestThreeGoodServers(t *testing.T) {
	t.Parallel()
	a, b, c := timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "", timetest.Synchronised)
	clock, s := observe(t, timesync.Config{}, a.Address, b.Address, c.Address)
	expect(t, s, timesync.Synchronised, good, good, good)
	within(t, clock, 0, 10*time.Second)
	if !clock.Trusted() || time.Since(clock.NotBefore()) > time.Minute {
		t.Errorf("trusted %v, not before %v", clock.Trusted(), clock.NotBefore())
	}
}

func TestOneOfThreeIsOff(t *testing.T) {
	t.Parallel()
	a, b, c := timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "+5s", timetest.Synchronised), timetest.StartChrony(t, "", timetest.Synchronised)
	clock, s := observe(t, timesync.Config{}, a.Address, b.Address, c.Address)
	expect(t, s, timesync.Synchronised, good, bad, good)
	within(t, clock, 0, 2*time.Second)
	if off := s.Servers[1].Offset; off < 4*time.Second || off > 6*time.Second {
		t.Errorf("the false ticker is said to be %v off", off)
	}
	if !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.Contains(w, b.Address+" is a false ticker") }) {
		t.Errorf("nobody is warned of the false ticker: %q", s.Warnings)
	}
}

func TestTwoOfThreeAreOff(t *testing.T) {
	t.Parallel()
	a := timetest.StartChrony(t, "", timetest.Synchronised)
	b, c := timetest.StartChrony(t, "+5s", timetest.Synchronised), timetest.StartChrony(t, "+5s", timetest.Synchronised)
	d := timetest.StartChrony(t, "-7s", timetest.Synchronised)
	for name, others := range map[string][2]string{"together": {b.Address, c.Address}, "apart": {b.Address, d.Address}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock, s := observe(t, timesync.Config{}, a.Address, others[0], others[1])
			expect(t, s, timesync.Unsynchronised, timesync.Candidate, timesync.Candidate, timesync.Candidate)
			if !strings.HasPrefix(s.Reason, "no majority: ") || clock.Trusted() || clock.Now().Bound != meter.UnknownBound {
				t.Errorf("%q, %+v", s.Reason, clock.Now())
			}
		})
	}
}

func TestOneServerIsUnsynchronised(t *testing.T) {
	t.Parallel()
	a, b, c := timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, ""), timetest.StartChrony(t, "", timetest.Synchronised)
	clock, s := observe(t, timesync.Config{}, a.Address, b.Address, c.Address)
	expect(t, s, timesync.Synchronised, good, timesync.Unusable, good)
	within(t, clock, 0, 10*time.Second)
	if s.Servers[1].Reason != timesync.ErrNotSynchronised.Error() {
		t.Errorf("%q", s.Servers[1].Reason)
	}
}

// A system clock that is wrong has its error in the bound.
func TestSystemClockIsWrong(t *testing.T) {
	t.Parallel()
	a := timetest.StartChrony(t, "", timetest.Synchronised)
	clock, s := observe(t, timesync.Config{System: machine{off: 20 * time.Second}}, a.Address)
	expect(t, s, timesync.Synchronised, good)
	within(t, clock, 20*time.Second, 30*time.Second)
	if !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, "one time server only") }) ||
		!slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, "the system clock is 20") }) {
		t.Errorf("warnings %q", s.Warnings)
	}
}

func TestAllServersGo(t *testing.T) {
	t.Parallel()
	a, b, c := timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "", timetest.Synchronised), timetest.StartChrony(t, "", timetest.Synchronised)
	clock, s := observe(t, timesync.Config{MinPoll: time.Second}, a.Address, b.Address, c.Address)
	expect(t, s, timesync.Synchronised, good, good, good)
	for _, p := range []*timetest.Chrony{a, b, c} {
		p.Kill()
	}
	proctest.Until(t, "the clock holds over", func() bool { return clock.Status().State == timesync.Holdover })
	first := clock.Status()
	proctest.Until(t, "the bound grows", func() bool { return clock.Status().Bound > first.Bound })
	if s = clock.Status(); s.Reason != "none of 3 servers answers with a valid time" {
		t.Errorf("%q", s.Reason)
	}
	within(t, clock, 0, 10*time.Second)
}

// relay is a proxy for UDP that may hold packets back, change and repeat them.
type relay struct {
	Address string
	// back is given each answer and sends what the client is to get.
	back func(reply []byte, send func([]byte))
}

func startRelay(t *testing.T, server string, back func(reply []byte, send func([]byte))) *relay {
	t.Helper()
	return startRelayAt(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, server, back)
}

func startRelayAt(t *testing.T, at *net.UDPAddr, server string, back func(reply []byte, send func([]byte))) *relay {
	t.Helper()
	front, err := net.ListenUDP("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		var b [2048]byte
		for {
			n, client, err := front.ReadFromUDP(b[:])
			if err != nil {
				return
			}
			request := slices.Clone(b[:n])
			all.Go(func() {
				conn, err := net.Dial("udp", server)
				if err != nil {
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				var reply [2048]byte
				if _, err = conn.Write(request); err == nil {
					if n, err = conn.Read(reply[:]); err == nil {
						back(reply[:n], func(b []byte) { _, _ = front.WriteToUDP(b, client) })
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = front.Close()
		all.Wait()
	})
	return &relay{Address: front.LocalAddr().String(), back: back}
}

// Answers that take 2 s look as if the clock were a second off. The bound
// covers it.
func TestAsymmetricPath(t *testing.T) {
	t.Parallel()
	slow := func(reply []byte, send func([]byte)) {
		time.Sleep(2 * time.Second)
		send(reply)
	}
	var at []string
	for range 3 {
		at = append(at, startRelay(t, timetest.StartChrony(t, "", timetest.Synchronised).Address, slow).Address)
	}
	clock, s := observe(t, timesync.Config{}, at...)
	expect(t, s, timesync.Synchronised, good, good, good)
	if s.Bound < 900*time.Millisecond || s.Offset > -900*time.Millisecond {
		t.Errorf("offset %v, bound %v, over a path that is 2 s longer on one way", s.Offset, s.Bound)
	}
	within(t, clock, 0, 30*time.Second)
	if !slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, "the round trip to ") }) {
		t.Errorf("nobody is told of the slow path: %q", s.Warnings)
	}
}

// What is not the answer to our question is as if it had not come, and the
// answer is still taken.
func TestForgedAnswers(t *testing.T) {
	t.Parallel()
	server := timetest.StartChrony(t, "", timetest.Synchronised).Address
	forge := func(reply []byte, change func(b []byte)) []byte {
		b := slices.Clone(reply)
		for _, at := range []int{32, 40} { // the time of the forger is an hour off
			binary.BigEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:])+3600)
		}
		change(b)
		return b
	}
	var mu sync.Mutex
	var old []byte
	forgers := map[string]func(reply []byte, send func([]byte)){
		"another origin": func(reply []byte, send func([]byte)) { send(forge(reply, func(b []byte) { b[27]++ })) },
		"no origin":      func(reply []byte, send func([]byte)) { send(forge(reply, func(b []byte) { clear(b[24:32]) })) },
		"another mode": func(reply []byte, send func([]byte)) {
			for mode := range byte(8) {
				if mode != 4 {
					send(forge(reply, func(b []byte) { b[0] = b[0]&^7 | mode }))
				}
			}
		},
		"cut short": func(reply []byte, send func([]byte)) {
			for n := range reply {
				send(reply[:n])
			}
		},
		"an old answer": func(reply []byte, send func([]byte)) {
			mu.Lock()
			defer mu.Unlock()
			if old == nil {
				old = forge(reply, func([]byte) {})
				return
			}
			send(old)
		},
		"another's kiss": func(reply []byte, send func([]byte)) {
			send(forge(reply, func(b []byte) { b[1], b[27] = 0, b[27]+1; copy(b[12:], "DENY") }))
		},
	}
	for name, forge := range forgers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startRelay(t, server, func(reply []byte, send func([]byte)) {
				forge(reply, send)
				send(reply)
			})
			clock, s := observe(t, timesync.Config{}, r.Address)
			expect(t, s, timesync.Synchronised, good)
			within(t, clock, 0, 10*time.Second)
		})
	}
	t.Run("nothing but forged ones", func(t *testing.T) {
		t.Parallel()
		r := startRelay(t, server, func(reply []byte, send func([]byte)) { forgers["another origin"](reply, send) })
		_, s := observe(t, timesync.Config{AnswerWithin: time.Second}, r.Address)
		expect(t, s, timesync.Unsynchronised, timesync.Unreachable)
	})
}

// A server that says no is obeyed.
func TestKissOfDeath(t *testing.T) {
	t.Parallel()
	server := timetest.StartChrony(t, "", timetest.Synchronised).Address
	for code, want := range map[string]timesync.Verdict{"DENY": timesync.Refused, "RSTR": timesync.Refused, "RATE": timesync.Unusable, "\x00\x01\x02\x03": timesync.Unusable} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			asked := 0
			r := startRelay(t, server, func(reply []byte, send func([]byte)) {
				mu.Lock()
				defer mu.Unlock()
				asked++
				reply[0], reply[1] = reply[0]|0xC0, 0
				copy(reply[12:16], code)
				clear(reply[32:48]) // servers give no time with it, or any
				send(reply)
			})
			_, s := observe(t, timesync.Config{MinPoll: time.Millisecond}, r.Address)
			expect(t, s, timesync.Unsynchronised, want)
			if want == timesync.Refused {
				time.Sleep(time.Second) // many polls, had it not refused
				mu.Lock()
				defer mu.Unlock()
				if asked != 1 {
					t.Errorf("a server that refuses was asked %d times", asked)
				}
			}
		})
	}
}

// NTP's seconds begin anew on 7 February 2036 at 06:28:16.
func TestEraChange(t *testing.T) {
	t.Parallel()
	change := time.Date(2036, time.February, 7, 6, 28, 16, 0, time.UTC)
	for name, until := range map[string]time.Duration{"before": time.Hour, "through it": 2 * time.Second, "after": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			by := change.Add(-until).Sub(time.Now()).Round(time.Second) //nolint:staticcheck // of the future
			server := timetest.StartChrony(t, fmt.Sprintf("+%ds", by/time.Second), timetest.Synchronised)
			c, s := observe(t, timesync.Config{System: machine{off: by}, SamplePause: time.Second}, server.Address)
			expect(t, s, timesync.Synchronised, good)
			if s.Offset.Abs() > time.Second || c.Now().UTC().Year() != 2036 || c.NotBefore().Year() != 2036 {
				t.Errorf("offset %v, now %v", s.Offset, c.Now().UTC())
			}
		})
	}
}
