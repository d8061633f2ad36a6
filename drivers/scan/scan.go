// Package scan finds the meters on a line that nobody has written down: Modbus
// units, DLMS meters by HDLC or the wrapper, meters of IEC 62056-21.
//
//	plan     steps, the likely ones first: a protocol, settings, addresses
//	sweep    each address is asked once, briefly; who answers late is heard too
//	verify   who answered is asked again until it has answered twice more
//	name     identity registers and plausible values name the model of a Modbus
//	         unit; the others tell their serial numbers themselves
//
// A scan never shows a password: it asks what anybody may read. An answer counts
// when its check is right and it is from who was asked; echoes, noise and two
// meters at one address are told as what they are.
package scan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"gridgate/drivers/line"
	"gridgate/drivers/modbus"
	"gridgate/internal/meter"
)

// Protocol is what a step tries, and what a meter speaks.
type Protocol string

// The protocols.
const (
	ModbusRTU        Protocol = "modbus+rtu"
	ModbusTCP        Protocol = "modbus+tcp"
	ModbusRTUOverTCP Protocol = "modbus+rtuovertcp"
	HDLC             Protocol = "dlms+hdlc"
	Wrapper          Protocol = "dlms+wrapper"
	IEC21            Protocol = "iec21"
)

// Config is what is scanned for, and where.
type Config struct {
	Line      *line.Line
	Protocols []Protocol
	// Settings are those of a serial line to try, the likely ones first; none is a
	// line that has none.
	Settings []line.Settings
	Units    []uint8  // of Modbus
	Physical []uint16 // of HDLC
	Models   []*modbus.Model
	// All goes through the whole plan; without it a scan ends with the step that
	// found meters.
	All  bool
	Wait time.Duration // for an answer in a sweep; 0 is what the protocol usually needs
	Now  meter.Now
	// Tell is told how far the scan is, and of each meter as it is found; nil: nobody.
	Tell func(Progress)
}

// Progress says how far a scan is.
type Progress struct {
	Doing string        // what is being tried: a step of the plan
	Who   string        // who is being asked, or "" in a sweep
	Done  time.Duration // of the estimate
	Total time.Duration
	Found *Found // just found; nil for none
	Count int    // found so far
}

// Found is a meter.
type Found struct {
	Protocol Protocol
	Settings line.Settings // zero on a line without
	Unit     uint8         // Modbus

	Server, Physical uint16 // HDLC; Server also of the wrapper
	AddrLen          uint8  // octets of the meter's address in HDLC
	Client           uint16 // that it talks to

	Serial string // "" where it does not tell
	// Model is the register map that fits; Or are others that fit as well, and
	// then nobody can say which.
	Model string
	Or    []string
	Says  string // what it says of itself: identification, device name, vendor and product
	Note  string // what should be looked at
}

// step is a part of the plan.
type step struct {
	what     string
	estimate time.Duration
	run      func(ctx context.Context) error
}

// Scan is a scan of a line. It is used once, by one goroutine.
type Scan struct {
	cfg   Config
	steps []step
	done  time.Duration // of the estimates of steps behind us
	doing string
	part  time.Duration // of the step

	found []Found
	notes []string
	kinds []kind // of Modbus units that were named
	lost  int    // connections that broke off
}

// New makes the plan.
func New(cfg Config) *Scan {
	s := &Scan{cfg: cfg}
	s.plan()
	return s
}

// Estimate is how long the whole plan takes where nobody answers.
func (s *Scan) Estimate() time.Duration {
	var all time.Duration
	for _, st := range s.steps {
		all += st.estimate
	}
	return all
}

// Steps gives what is tried, in order.
func (s *Scan) Steps() []string {
	names := make([]string, len(s.steps))
	for i := range s.steps {
		names[i] = s.steps[i].what
	}
	return names
}

// Found gives what was found so far.
func (s *Scan) Found() []Found { return s.found }

// Notes say what else there was: echo, noise, units that cannot be understood,
// and what was not tried.
func (s *Scan) Notes() []string { return s.notes }

// Run goes through the plan. What was found before an error counts.
func (s *Scan) Run(ctx context.Context) error {
	for i, st := range s.steps {
		before := len(s.found)
		s.doing = st.what
		s.tell(0)
		if err := st.run(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%s: %w", st.what, err)
		}
		s.done += st.estimate
		if rest := s.steps[i+1:]; len(s.found) > before && !s.cfg.All && len(rest) > 0 {
			s.note(fmt.Sprintf("%d other protocols and settings were not tried, since a line has one as a rule: -all tries them", len(rest)))
			return nil
		}
	}
	return nil
}

// tell tells of progress within a step.
func (s *Scan) tell(within time.Duration) {
	s.part = within
	s.report("", nil)
}

// asks tells who is being asked.
func (s *Scan) asks(who string) { s.report(who, nil) }

func (s *Scan) report(who string, f *Found) {
	if s.cfg.Tell != nil {
		s.cfg.Tell(Progress{Doing: s.doing, Who: who, Done: s.done + s.part, Total: s.Estimate(), Found: f, Count: len(s.found)})
	}
}

// add takes a meter.
func (s *Scan) add(f Found) {
	s.found = append(s.found, f)
	s.report("", &f)
}

func (s *Scan) note(text string) {
	if !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

// The usual settings of serial lines, the likely ones first; All has the twelve of
// a full sweep.
func usual(bauds ...int) (all []line.Settings) {
	for _, b := range bauds {
		for _, parity := range []byte{'N', 'E'} {
			all = append(all, line.Settings{Baud: b, DataBits: 8, Parity: parity, StopBits: 1})
		}
	}
	return all
}

// LikelySettings are those that meters leave the factory with.
func LikelySettings() []line.Settings {
	return append(usual(9600, 19200), usual(2400, 4800)[:3]...)
}

// AllSettings are the twelve of a full sweep.
func AllSettings() []line.Settings { return usual(9600, 19200, 2400, 4800, 38400, 115200) }

// plan puts the steps in order: of each protocol its likeliest settings, then the
// rest.
func (s *Scan) plan() {
	settings := s.cfg.Settings
	if len(settings) == 0 {
		settings = []line.Settings{{}}
	}
	// Modbus is quick: its likely settings come before HDLC.
	const quick = 5
	first, rest := settings[:min(quick, len(settings))], settings[min(quick, len(settings)):]
	has := func(p ...Protocol) bool {
		return slices.ContainsFunc(p, func(p Protocol) bool { return slices.Contains(s.cfg.Protocols, p) })
	}
	for _, p := range s.cfg.Protocols {
		if p == ModbusTCP || p == Wrapper {
			s.steps = append(s.steps, s.network(p))
		}
	}
	add := func(settings []line.Settings, dlms bool) {
		for _, set := range settings {
			for _, p := range []Protocol{ModbusRTU, ModbusRTUOverTCP} {
				if has(p) && !dlms {
					s.steps = append(s.steps, s.modbusStep(p, set))
				}
			}
			// Parity is for Modbus: HDLC is 8N1 (IEC 62056-46, 5.3).
			if has(HDLC) && dlms && (set.Parity != 'E' || len(s.cfg.Settings) == 1) {
				s.steps = append(s.steps, s.hdlcStep(set))
			}
		}
	}
	add(first, false)
	add(settings[:1], true)
	if has(IEC21) {
		s.steps = append(s.steps, s.iec21Step())
	}
	add(rest, false)
	add(settings[1:], true)
}

func (s *Scan) network(p Protocol) step {
	if p == Wrapper {
		return s.wrapperStep()
	}
	return s.modbusStep(p, line.Settings{})
}

// isNetwork says whether the line has no settings.
func (s *Scan) isNetwork() bool { return len(s.cfg.Settings) == 0 }

// wait is how long an answer of a sweep is waited for.
func (s *Scan) wait(serial, network time.Duration) time.Duration {
	switch {
	case s.cfg.Wait > 0:
		return s.cfg.Wait
	case s.isNetwork():
		return network
	}
	return serial
}

// brokeOff says whether an error is of a connection that broke off, which some
// devices do with what they do not know. There may be so many.
func (s *Scan) brokeOff(err error) bool {
	const most = 300
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" {
		return false
	}
	if err == nil || !s.isNetwork() || errors.Is(err, context.Canceled) || errors.Is(err, meter.ErrNoLine) {
		return false
	}
	s.lost++
	return s.lost <= most
}

// Address gives where the meter is on its line, for people.
func (f *Found) Address() string {
	switch {
	case f.Unit > 0:
		return fmt.Sprintf("unit %d", f.Unit)
	case f.Protocol == HDLC && f.AddrLen > 1:
		return fmt.Sprintf("physical %d (%d)", f.Physical, f.AddrLen)
	case f.Protocol == HDLC, f.Protocol == Wrapper:
		return fmt.Sprintf("server %d", f.Server)
	}
	return "-"
}
