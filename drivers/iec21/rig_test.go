package iec21

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// rig is a simulated meter at the far end of a simulated line that takes the
// time of its rate. It is written from the standard, not from the driver.
type rig struct {
	address   string
	id        string // the identification, without its end
	rate      int    // of modes B and C, in bit/s; 0 is one of mode A
	isB       bool
	shown     string // the readout, up to and with "!\r\n"
	bare      bool   // the readout comes without a frame
	challenge string
	password  string
	registers map[string]string // what stands behind the address
	answer    func(command, data string) (body string, end byte)
	blocks    int  // cut answers into partial blocks of so many lines
	echoes    bool // the line gives back what is written
	marked    bool // the line shows the parity bit
	// spoil changes the nth message that the meter sends, from 0.
	spoil func(n int, b []byte) []byte

	mu       sync.Mutex
	n        int
	held     byte     // taken from the line and not used
	heard    []string // messages of the client
	baud     int      // the meter's
	settings line.Settings
	toMeter  chan byte
	toClient chan byte
}

func (r *rig) log(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard = append(r.heard, s)
}

func (r *rig) said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.heard...)
}

func (r *rig) setBaud(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.baud = n
}

// send sends a message at the meter's rate.
func (r *rig) send(b []byte) {
	r.mu.Lock()
	n := r.n
	r.n++
	r.mu.Unlock()
	if r.spoil != nil {
		b = r.spoil(n, b)
	}
	for _, c := range b {
		r.mu.Lock()
		baud, theirs := r.baud, r.settings.Baud
		r.mu.Unlock()
		time.Sleep(10 * time.Second / time.Duration(baud))
		if baud != theirs {
			c = c ^ 0x2A
		}
		if r.marked {
			c = even(c)
		}
		r.toClient <- c
	}
}

// even sets the parity bit.
func even(c byte) byte {
	ones := 0
	for i := range 7 {
		ones += int(c>>i) & 1
	}
	return c | byte(ones&1)<<7
}

// next takes an octet from the client, 0 after 1.5 s of silence.
func (r *rig) next() (byte, bool) {
	if c := r.held; c != 0 {
		r.held = 0
		return c, true
	}
	select {
	case c, ok := <-r.toMeter:
		r.mu.Lock()
		baud := r.baud
		r.mu.Unlock()
		time.Sleep(10 * time.Second / time.Duration(baud))
		return c & 0x7F, ok
	case <-time.After(1500 * time.Millisecond):
		return 0, true
	}
}

func withSum(b []byte) []byte {
	sum := byte(0)
	for _, c := range b[1:] {
		sum ^= c
	}
	return append(b, sum)
}

// serve plays the meter until the line is closed.
func (r *rig) serve() {
	for {
		c, ok := r.held, true
		if r.held = 0; c == 0 {
			c, ok = <-r.toMeter
		}
		if !ok {
			return
		}
		if c&0x7F != '/' {
			continue
		}
		var b strings.Builder
		for c != '\n' && ok && c != 0 {
			b.WriteByte(c)
			c, ok = r.next()
		}
		asked := b.String()
		r.log(strings.TrimSpace(asked))
		if asked != "/?!\r" && asked != "/?"+r.address+"!\r" {
			continue
		}
		time.Sleep(200 * time.Millisecond)
		r.send([]byte(r.id + "\r\n"))
		switch {
		case r.rate == 0:
			r.readout()
		case r.isB:
			r.setBaud(r.rate)
			time.Sleep(200 * time.Millisecond)
			r.readout()
		default:
			r.optioned()
		}
		r.setBaud(300)
	}
}

func (r *rig) readout() {
	if r.bare {
		r.send([]byte(r.shown))
		return
	}
	r.send(withSum([]byte("\x02" + r.shown + "\x03")))
}

// optioned is what follows the identification in mode C.
func (r *rig) optioned() {
	var got []byte
	for len(got) < 6 {
		c, ok := r.next()
		if !ok || c == 0 {
			return
		}
		if c != 0x06 && len(got) == 0 {
			r.held = c
			return
		}
		got = append(got, c)
	}
	r.log(fmt.Sprintf("%q", got))
	rates := map[byte]int{'0': 300, '1': 600, '2': 1200, '3': 2400, '4': 4800, '5': 9600, '6': 19200}
	r.setBaud(rates[got[2]])
	time.Sleep(200 * time.Millisecond)
	if got[3] == '0' {
		r.readout()
		for {
			c, ok := r.next()
			if !ok || c != 0x15 {
				r.held = c
				return
			}
			r.log("NAK")
			r.readout()
		}
	}
	r.program()
}

// program is the programming mode.
func (r *rig) program() {
	r.send(withSum([]byte("\x01P0\x02(" + r.challenge + ")\x03")))
	open := r.password == ""
	var pending []string
	idle := 0
	last := []byte(nil)
	say := func(b []byte) { last = b; r.send(b) }
	for {
		c, ok := r.next()
		if idle++; c != 0 {
			idle = 0
		}
		switch {
		case !ok || idle > 20:
			return
		case c == 0x15:
			r.log("NAK")
			r.send(last)
			continue
		case c == 0x06 && len(pending) > 0:
			r.log("ACK")
			say(r.block(&pending))
			continue
		case c != 0x01:
			continue
		}
		command, data := r.message()
		r.log(command + " " + data)
		time.Sleep(200 * time.Millisecond)
		switch {
		case command == "B0":
			return
		case command == "P1" && data == "("+r.password+")":
			open = true
			say([]byte{0x06})
		case command == "P1":
			say(withSum([]byte("\x01B0\x03")))
			return
		case !open:
			say(withSum([]byte("\x02(ERROR)\x03")))
		default:
			pending = nil
			body, end := r.reply(command, data)
			if r.blocks > 0 {
				pending = strings.SplitAfter(body, "\n")
				say(r.block(&pending))
				continue
			}
			if end == 0x15 || end == 0x06 {
				say([]byte{end})
				continue
			}
			say(withSum([]byte("\x02" + body + string(rune(end)))))
		}
	}
}

func (r *rig) block(pending *[]string) []byte {
	n := min(r.blocks, len(*pending))
	body, rest := strings.Join((*pending)[:n], ""), (*pending)[n:]
	*pending = rest
	end := "\x04"
	if len(rest) == 0 {
		end = "\x03"
	}
	return withSum([]byte("\x02" + body + end))
}

func (r *rig) reply(command, data string) (string, byte) {
	if r.answer != nil {
		if body, end := r.answer(command, data); end != 0 {
			return body, end
		}
	}
	address, _, _ := strings.Cut(data, "(")
	if v, ok := r.registers[address]; ok {
		return address + v, 3
	}
	return "(ERROR)", 3
}

// message takes a command behind SOH.
func (r *rig) message() (command, data string) {
	var b []byte
	for {
		c, ok := r.next()
		if !ok || c == 0 {
			return "", ""
		}
		if b = append(b, c); c == 3 {
			sum, _ := r.next()
			if whole := withSum(append([]byte{1}, b...)); whole[len(whole)-1] != sum {
				return "", ""
			}
			command, data, _ = strings.Cut(strings.TrimSuffix(string(b), "\x03"), "\x02")
			return command, data
		}
	}
}

// port is the client's end.
type port struct {
	*rig
	mu       sync.Mutex
	deadline time.Time
	wake     chan struct{}
	once     sync.Once
}

func (p *port) Read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		deadline, wake := p.deadline, p.wake
		p.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			wait := time.Until(deadline)
			if wait <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			late = time.After(wait)
		}
		select {
		case c, ok := <-p.toClient:
			if !ok {
				return 0, io.EOF
			}
			b[0] = c
			n := 1
			for n < len(b) && len(p.toClient) > 0 {
				b[n] = <-p.toClient
				n++
			}
			return n, nil
		case <-late:
		case <-wake:
		}
	}
}

func (p *port) Write(b []byte) (int, error) {
	p.rig.mu.Lock()
	wrong := p.settings.Baud != p.baud
	p.rig.mu.Unlock()
	for _, c := range b {
		if wrong {
			c ^= 0x2A
		}
		p.toMeter <- c
		if p.echoes {
			p.toClient <- c
		}
	}
	return len(b), nil
}

func (p *port) SetDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	close(p.wake)
	p.wake = make(chan struct{})
	return nil
}

func (p *port) Discard() error {
	for len(p.toClient) > 0 {
		<-p.toClient
	}
	return nil
}

func (p *port) Apply(s line.Settings) error {
	p.rig.mu.Lock()
	defer p.rig.mu.Unlock()
	p.settings = s
	return nil
}

func (p *port) Stale() bool  { return false }
func (p *port) Close() error { p.once.Do(func() { close(p.toMeter) }); return nil }

// with runs a test with the meter on a line in simulated time.
func with(t *testing.T, r *rig, c Config, test func(t *testing.T, m *Meter)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r.baud = 300
		r.toMeter, r.toClient = make(chan byte, 1<<16), make(chan byte, 1<<20)
		l := line.Of("sim", func(_ context.Context, s line.Settings) (line.Medium, error) {
			r.settings = s
			return &port{rig: r, wake: make(chan struct{})}, nil
		})
		var wg sync.WaitGroup
		wg.Go(r.serve)
		c.ID, c.Now = "m", func() meter.Stamp {
			return meter.Stamp{Time: time.Now().UnixMilli(), Mono: time.Now().UnixMilli()}
		}
		m := New(c, l)
		defer func() {
			if err := errors.Join(m.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			if l.Opened() == 0 {
				close(r.toMeter)
			}
			wg.Wait()
		}()
		test(t, m)
	})
}

func channel(t *testing.T, s string) meter.Channel {
	t.Helper()
	c, err := meter.ParseChannel(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ask(t *testing.T, channels ...string) meter.Ask {
	t.Helper()
	g := meter.Group{Name: "g", Lane: meter.Instant}
	for _, c := range channels {
		g.Channels = append(g.Channels, channel(t, c))
	}
	return meter.Ask{Groups: []meter.Group{g}}
}

// show gives rows as text: channel=value unit, and the quality unless good.
func show(rows []meter.Row) (all []string) {
	for _, r := range rows {
		s := r.Channel.Short() + "=" + r.Value.String() + r.Unit.String()
		if r.Quality != 0 {
			s += " " + r.Quality.String()
		}
		all = append(all, s)
	}
	return all
}
