package scan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"gridgate/dlms/hdlc"
	"gridgate/drivers/cosem"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

const (
	publicClient = 16
	management   = 1

	hdlcWait    = 130 * time.Millisecond
	frameGap    = 60 * time.Millisecond
	byeWait     = 400 * time.Millisecond
	visitLimit  = 20 * time.Second
	visitWait   = 2 * time.Second
	doubtLimit  = 4 * time.Second // of an address at which it is hardly a meter of its own
	snrmOctets  = 12
	allStations = 0x7F   // in an address of two octets (IEC 62056-46, 6.4.2.3)
	allInFour   = 0x3FFF // in one of four
)

// place is where a station of HDLC may be.
type place struct {
	physical uint16
	size     uint8
}

// calling is a step of HDLC.
type calling struct {
	*Scan
	settings line.Settings
	answered []place
	garbled  []place
	echo     bool
	twice    bool // a meter answered at two addresses
	strange  int
}

func (s *Scan) hdlcStep(set line.Settings) step {
	c := &calling{Scan: s, settings: set}
	what := "DLMS by HDLC, physical addresses " + ranges(s.cfg.Physical)
	if !s.isNetwork() {
		what += " at " + set.String()
	} else {
		what += " through a serial server"
	}
	return step{what: what, estimate: c.each() * time.Duration(len(c.places())), run: c.run}
}

func (c *calling) each() time.Duration {
	return c.wait(hdlcWait, networkWait) + overhead + snrmOctets*c.settings.CharTime()
}

// places lists where to call: the logical device alone, then with each physical
// address in two octets and in four.
func (c *calling) places() []place {
	all := []place{{0, 1}}
	for _, size := range []uint8{2, 4} {
		for _, p := range c.cfg.Physical {
			if size == 4 || p < 1<<7 {
				all = append(all, place{p, size})
			}
		}
	}
	return all
}

// run calls every place, and everybody where nobody answered; then it asks those
// who they are.
func (c *calling) run(ctx context.Context) error {
	if err := c.call(ctx, c.places(), publicClient); err != nil {
		return err
	}
	if len(c.answered) == 0 {
		// A meter alone on a line, at an address that is not among those.
		if err := c.call(ctx, []place{{allStations, 2}, {allInFour, 4}}, publicClient); err != nil {
			return err
		}
	}
	client := uint8(publicClient)
	if len(c.answered) == 0 {
		client = 1 // a meter that has no public client
		if err := c.call(ctx, []place{{0, 1}, {16, 2}, {17, 2}, {16, 4}, {17, 4}}, client); err != nil {
			return err
		}
	}
	if c.echo {
		c.note(fmt.Sprintf("echo: what is sent comes back at %v; the adapter hears itself", c.settings))
	}
	if len(c.answered) == 0 && c.strange > 3 {
		c.note(fmt.Sprintf("noise: %d octets came at %v that belong to no frame of HDLC", c.strange, c.settings))
	}
	return c.meetAll(ctx, client)
}

// call sends an SNRM to each place, and a DISC to who answers.
func (c *calling) call(ctx context.Context, places []place, client uint8) error {
	for i, p := range places {
		if len(places) > 5 {
			c.tell(time.Duration(i) * c.each())
		}
		err := c.cfg.Line.Do(ctx, c.settings, func(ctx context.Context, port line.Port) error {
			return c.knock(port, p, client)
		})
		if err != nil && !c.brokeOff(err) {
			return err
		}
	}
	// The last may be late, too.
	err := c.cfg.Line.Do(ctx, c.settings, func(_ context.Context, port line.Port) error {
		heard, _, err := c.hear(port, hdlc.Frame{Source: hdlc.ClientAddress(client)}, 2*hdlcWait)
		if err != nil {
			return err
		}
		return c.greet(port, heard, client)
	})
	if c.brokeOff(err) {
		return nil
	}
	return err
}

func (c *calling) knock(port line.Port, p place, client uint8) error {
	to, err := hdlc.ServerAddress(management, p.physical, int(p.size))
	if err != nil {
		return err
	}
	snrm := hdlc.Frame{Destination: to, Source: hdlc.ClientAddress(client), Control: hdlc.SNRM}
	heard, strange, err := c.exchange(port, snrm, c.wait(hdlcWait, networkWait))
	if err != nil {
		return err
	}
	if len(heard) == 0 && strange > 0 {
		c.strange += strange
		c.garbled = append(c.garbled, p)
	}
	return c.greet(port, heard, client)
}

// greet notes who answered, and says good-bye to them. Who answers late answers
// into that.
func (c *calling) greet(port line.Port, heard []hdlc.Frame, client uint8) error {
	for len(heard) > 0 {
		f := heard[0]
		heard = heard[1:]
		from := place{f.Source.Lower, f.Source.Size}
		if f.Source.Upper != management && f.Source.Upper != 0 || slices.Contains(c.answered, from) {
			continue
		}
		c.answered = append(c.answered, from)
		if f.Control == hdlc.UA {
			disc := hdlc.Frame{Destination: f.Source, Source: hdlc.ClientAddress(client), Control: hdlc.DISC}
			more, _, err := c.exchange(port, disc, byeWait)
			if err != nil {
				return err
			}
			heard = append(heard, more...)
		}
	}
	return nil
}

// exchange sends a frame and gives the frames that come for its sender, with
// how many octets belonged to none.
func (c *calling) exchange(port line.Port, f hdlc.Frame, wait time.Duration) (heard []hdlc.Frame, strange int, err error) {
	frame, err := f.AppendBinary(nil)
	if err != nil {
		return nil, 0, err
	}
	if err := port.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return nil, 0, err
	}
	if _, err := port.Write(frame); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, 0, err
	}
	return c.hear(port, f, time.Duration(len(frame))*c.settings.CharTime()+wait)
}

// hear gives the frames that come for the sender of f.
func (c *calling) hear(port line.Port, f hdlc.Frame, wait time.Duration) (heard []hdlc.Frame, strange int, err error) {
	until := time.Now().Add(wait)
	end := until.Add(time.Second)
	var in hdlc.Splitter
	var buf [256]byte
	total, framed := 0, 0
	for until.Before(end) {
		if err := port.SetDeadline(until); err != nil {
			return heard, 0, err
		}
		n, err := port.Read(buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return heard, 0, err
		}
		total += n
		in.Feed(buf[:n])
		for raw, ok := in.Next(); ok; raw, ok = in.Next() {
			framed += len(raw)
			got, err := hdlc.ParseFrame(raw)
			switch {
			case err != nil:
			case got.Source == f.Source && got.Destination == f.Destination:
				c.echo = true
			case got.Destination == f.Source:
				got.Info = nil
				heard = append(heard, got)
			}
		}
		if len(heard) > 0 && !in.Partial() {
			break
		}
		until = time.Now().Add(frameGap)
	}
	return heard, max(0, total-framed), nil
}

// meetAll asks who answered for serial numbers. A meter that answers to any
// address is one meter.
func (c *calling) meetAll(ctx context.Context, client uint8) error {
	same := 0 // addresses in a row of meters that are known
	everywhere := len(c.answered) > 4 && 2*len(c.answered) > len(c.places())
	if at := slices.Index(c.answered, place{0, 1}); at >= 0 && len(c.answered) > 1 && !everywhere {
		// It is a meter's that has another address as well, or of several at once.
		c.answered = append(slices.Delete(c.answered, at, at+1), place{0, 1})
	}
	for i, p := range c.answered {
		if same >= 3 {
			break // it answers whatever the address is
		}
		if p.physical > 0 && slices.ContainsFunc(c.found, func(o Found) bool {
			return o.Protocol == HDLC && o.Physical == p.physical && o.Settings == c.settings
		}) {
			c.twice = true // the same in more octets
			continue
		}
		f := Found{
			Protocol: HDLC, Settings: c.settings, Server: management, Physical: p.physical, AddrLen: p.size, Client: uint16(client),
		}
		c.asks(p.String())
		good, err := c.identify(ctx, &f)
		for range identifyAgain {
			if good || err != nil || p.size == 1 && len(c.answered) > 1 {
				break
			}
			if err = c.settle(ctx); err == nil {
				good, err = c.identify(ctx, &f)
			}
		}
		if err != nil {
			if rest := len(c.answered) - i; ctx.Err() != nil {
				c.note(fmt.Sprintf("at %s %d DLMS addresses answered, and were not asked who they are", c.where(), rest))
			}
			return err
		}
		if !good && p.size == 1 && len(c.answered) > 1 {
			c.garbled = append(c.garbled, p)
			continue
		}
		if !good {
			c.note(fmt.Sprintf("something answered an SNRM to %s at %s once and then did not: two meters at one address, or a bad line", p, c.where()))
			continue
		}
		at := slices.IndexFunc(c.found, func(o Found) bool {
			return o.Protocol == HDLC && o.Serial != "" && o.Serial == f.Serial && o.Says == f.Says && o.Settings == f.Settings
		})
		if at >= 0 {
			same++
			c.twice = true
			continue
		}
		same = 0
		c.add(f)
	}
	if c.twice {
		c.note("a DLMS meter answers to several addresses; it is listed once")
	}
	for _, p := range c.garbled {
		if len(c.answered) > 0 && p.size == 1 {
			c.note("several meters answered together to the address without a physical one: give each its own")
		}
	}
	return nil
}

func (c *calling) where() string {
	if c.isNetwork() {
		return c.cfg.Line.String()
	}
	return c.settings.String()
}

func (p place) String() string {
	if p.size == 1 {
		return "logical device 1"
	}
	return fmt.Sprintf("physical address %d in %d octets", p.physical, p.size)
}

// identify reads the serial number with no password, over a connection of its own:
// the second time that the meter answers.
func (c *calling) identify(ctx context.Context, f *Found) (good bool, err error) {
	cfg := cosem.Config{
		ID: "scan", Client: f.Client, Server: f.Server, Settings: f.Settings, Timeout: max(visitWait, c.cfg.Wait), Now: c.cfg.Now, Release: true,
	}
	if f.Protocol == HDLC {
		cfg.HDLC = &cosem.HDLC{Physical: f.Physical, AddrLen: int(f.AddrLen), Info: 128, Window: 1}
	}
	limit := visitLimit + 10*c.cfg.Wait
	if f.AddrLen == 1 && len(c.answered) > 1 {
		limit = doubtLimit
	}
	return c.ask(ctx, cfg, f, limit)
}

// identifyAgain is how often more a meter is asked that answered an SNRM: what
// came late of another conversation garbles the first.
const identifyAgain = 2

// settle drops what is still under way.
func (c *calling) settle(ctx context.Context) error {
	const quiet, most = 300 * time.Millisecond, 3 * time.Second
	err := c.cfg.Line.Do(ctx, c.settings, func(_ context.Context, port line.Port) error {
		var buf [256]byte
		for end := time.Now().Add(most); time.Now().Before(end); {
			if err := port.SetDeadline(time.Now().Add(quiet)); err != nil {
				return err
			}
			if _, err := port.Read(buf[:]); errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if c.brokeOff(err) {
		return nil
	}
	return err
}

// deviceName is the logical device name, which every client may read.
const deviceName = meter.Channel("0-0:42.0.0*255/1:2")

// ask visits a DLMS meter. It is good when the meter was there, whether it let us
// in or not.
func (s *Scan) ask(ctx context.Context, cfg cosem.Config, f *Found, limit time.Duration) (good bool, err error) {
	var m meter.Visitor = cosem.New(cfg, s.cfg.Line)
	ask, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	got, err := m.Visit(ask, meter.Ask{Groups: []meter.Group{{Name: "scan", Lane: meter.Instant, Channels: []meter.Channel{deviceName}}}})
	if cerr := m.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	f.Serial = got.Identity.Found
	for _, row := range got.Rows {
		f.Says = readable(row.Value)
	}
	if f.Says == f.Serial {
		f.Says = ""
	}
	switch {
	case err == nil:
		if f.Serial == "" {
			f.Note = "does not tell its serial number to the public client"
		}
	case errors.Is(err, meter.ErrNoAnswer), errors.Is(err, meter.ErrGarbled), errors.Is(err, context.DeadlineExceeded):
		return false, nil
	case errors.Is(err, meter.ErrNoLine):
		return false, err
	default:
		f.Note = "answers, and does not let the public client read: " + err.Error()
	}
	return true, nil
}

// readable gives a text, octets that are none in hexadecimal digits.
func readable(v meter.Value) string {
	s := v.String()
	return strings.Trim(s, " \x00")
}

func (s *Scan) wrapperStep() step {
	const tries = 2
	return step{what: "DLMS by the wrapper", estimate: tries * visitWait, run: func(ctx context.Context) error {
		for _, client := range []uint16{publicClient, 1} {
			f := Found{Protocol: Wrapper, Server: management, Client: client}
			cfg := cosem.Config{ID: "scan", Client: client, Server: management, Timeout: max(visitWait, s.cfg.Wait), Now: s.cfg.Now, Release: true}
			good, err := s.ask(ctx, cfg, &f, visitLimit+10*s.cfg.Wait)
			if err != nil {
				return err
			}
			if !good {
				continue
			}
			again := f
			if good, err = s.ask(ctx, cfg, &again, visitLimit+10*s.cfg.Wait); err != nil {
				return err
			}
			if good && again.Serial == f.Serial {
				s.add(f)
				return nil
			}
		}
		return nil
	}}
}
