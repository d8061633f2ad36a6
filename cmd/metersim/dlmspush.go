package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// pushLine is the destination of pushes in UI frames on the meter's own line.
const pushLine = "line"

// The transports of a push setup.
const (
	pushTCP  = 0
	pushUDP  = 1
	pushHDLC = 5
)

// pushOptions are the flags of what a meter sends unasked.
type pushOptions struct {
	to        string
	every     time.Duration
	as        string
	client    int
	confirmed bool
}

func (o *pushOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.to, "push", "", "where pushes go: `HOST:PORT`, by TCP, or UDP with -transport udp; line is UI frames on the meter's own line (hdlc);\n"+
		"protected as -security says; the method push of 0-0:25.9.0 sends one too")
	fs.DurationVar(&o.every, "push-every", 0, "how often a push is sent; 0 is only when it is asked for by the method")
	fs.StringVar(&o.as, "push-as", "data", "what is sent: data (a data-notification of readings) or event (an event-notification of the event code)")
	fs.IntVar(&o.client, "push-client", 102, "the client that pushes are sent to")
	fs.BoolVar(&o.confirmed, "push-confirmed", false, "ask for an answer to data-notifications, and send again what got none in 5 s, twice")
}

func (o *pushOptions) check(transport string) error {
	line := transport == transportHDLC
	_, _, err := net.SplitHostPort(o.to)
	switch {
	case o.every < 0 || o.every > 0 && o.every < 10*time.Millisecond:
		return cli.Usagef("dlms: -push-every %v: want 10ms or more", o.every)
	case o.every > 0 && o.to == "":
		return cli.Usagef("dlms: -push-every needs -push")
	case o.as != "data" && o.as != "event":
		return cli.Usagef("dlms: -push-as %q: want data or event", o.as)
	case o.client < 1 || o.client > 0xFFFF || o.to == pushLine && o.client > 127:
		return cli.Usagef("dlms: -push-client %d: want 1 to 65535, or to 127 on a line", o.client)
	case o.to == pushLine && !line:
		return cli.Usagef("dlms: -push line is of -transport hdlc")
	case o.to != "" && o.to != pushLine && err != nil:
		return cli.Usagef("dlms: -push %q: want HOST:PORT, or line", o.to)
	case o.confirmed && (o.to == pushLine || o.as == "event"):
		return cli.Usagef("dlms: -push-confirmed is for data-notifications by TCP and UDP")
	}
	return nil
}

// setup gives the push setup as it is at first.
func (o *pushOptions) setup(transport string) dlmstest.Push {
	code := obis.Code{0, 0, 25, 9, 0, 255}
	p := dlmstest.Push{Code: code, Destination: o.to, Columns: []dlmstest.Column{
		{Class: 40, Code: code, ID: 2}, // so that who gets it knows what is in it
		{Class: meter.ClassData, Code: obis.Code{0, 0, 42, 0, 0, 255}, ID: 2},
		clockColumn(), registerColumn(energyIn()), registerColumn(energyOut()),
	}}
	switch {
	case o.to == pushLine:
		p.Transport = pushHDLC
	case transport == transportUDP:
		p.Transport = pushUDP
	}
	return p
}

// pusher sends what a meter pushes. It is safe for concurrent use.
type pusher struct {
	pushOptions
	meter   *dlmstest.Meter
	station dlmstest.Station
	policy  security.Policy
	first   dlmstest.Push
	asked   chan dlmstest.Push // by the method push

	mu     sync.Mutex
	lines  map[io.Writer]bool
	number uint32
}

func newPusher(o pushOptions, transport string, policy security.Policy) *pusher {
	return &pusher{
		pushOptions: o, policy: policy, first: o.setup(transport), asked: make(chan dlmstest.Push, 4), lines: map[io.Writer]bool{},
	}
}

// ask has a push sent as soon as may be. It does not wait: one too many is lost.
func (p *pusher) ask(now dlmstest.Push) {
	select {
	case p.asked <- now:
	default:
	}
}

// open and closed tell of the lines that are served.
func (p *pusher) open(line io.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines[line] = true
}

func (p *pusher) closed(line io.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lines, line)
}

// run sends pushes until ctx ends. Who does not listen misses them.
func (p *pusher) run(ctx context.Context) error {
	var tick <-chan time.Time
	if p.every > 0 {
		ticker := time.NewTicker(p.every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-p.asked:
			_ = p.send(ctx, now)
		case <-tick:
			_ = p.send(ctx, p.first)
		}
	}
}

func (p *pusher) send(ctx context.Context, push dlmstest.Push) error {
	p.number++
	n := dlmstest.Notice{Columns: push.Columns, Time: time.Now(), Number: p.number, Confirmed: p.confirmed, Policy: p.policy}
	apduOf := p.meter.DataNotification
	if p.as == "event" {
		n.Columns = []dlmstest.Column{eventColumn(0)}
		apduOf = p.meter.EventNotification
	}
	apdu, err := apduOf(n)
	if err != nil {
		return err
	}
	if push.Transport == pushHDLC || push.Destination == pushLine {
		return p.sendOnLines(p.station.Notification(byte(p.client), apdu))
	}
	network := "tcp"
	if push.Transport == pushUDP {
		network = "udp"
	}
	conn, err := (&net.Dialer{Timeout: answerTime}).DialContext(ctx, network, push.Destination)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	const tries = 3
	for range tries {
		if _, err = conn.Write(p.meter.Frame(uint16(p.client), apdu)); err != nil || !p.confirmed {
			return err
		}
		if err = p.confirmation(conn, n.Number); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// answerTime is how long the answer to a confirmed push may take.
const answerTime = 5 * time.Second

// confirmation waits for the data-notification-confirm: 10, long invoke id,
// time. One that is protected is taken for what it should be.
func (p *pusher) confirmation(conn net.Conn, number uint32) error {
	if err := conn.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	b := make([]byte, 1<<10)
	n, err := conn.Read(b)
	const head = 8
	switch {
	case err != nil:
		return err
	case n >= head+5 && b[head] == 0x10 && binary.BigEndian.Uint32(b[head+1:])&0xFFFFFF == number&0xFFFFFF:
		return nil
	case n > head && p.policy != security.Unprotected && security.IsProtected(b[head]):
		return nil
	}
	return fmt.Errorf("%x is no confirmation", b[:n])
}

func (p *pusher) sendOnLines(frame []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range p.lines {
		if _, err := line.Write(frame); err != nil {
			delete(p.lines, line)
		}
	}
	return nil
}

// lockedWriter keeps what is pushed out of the midst of answers.
type lockedWriter struct {
	io.ReadWriter
	mu sync.Mutex
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ReadWriter.Write(b)
}
