package dlmstest

import (
	"bytes"
	"errors"
	"io"
	"math/bits"
	"slices"
	"strings"
)

// ModeE is a meter with an optical head, or a current loop: clients sign on by
// IEC 62056-21 and go on by HDLC (its annex B). It is written from the
// standard and not from this project's client.
//
//	300 bit/s, 7E1      /?!             what is sent to it
//	                    /GRX5\2…        its identification
//	                    06 2 5 2        the client chooses HDLC at 9600 bit/s
//	9600 bit/s, 7E1     06 2 5 2        the meter confirms
//	9600 bit/s, 8N1     HDLC, until somebody signs on again
//
// It may also be asked for its readout (06 0 5 0), which has the readings of
// Readout. Octets that come with a parity bit are answered with one.
type ModeE struct {
	// Address is the device address that /?ADDRESS! must have, leading zeros
	// apart; a sign-on without one is for all.
	Address string
	// Device is what the identification ends with, up to 16 characters.
	Device string
	// Identification is said in the place of what Device and Baud make, without
	// its end; "" is that.
	Identification string
	// Baud is the highest rate offered, of 300, 600, … 19200 bit/s; 0 is 9600.
	Baud int
	// Readout gives the data lines of the readout, "1-0:1.8.0(000123.4*kWh)".
	Readout func() []string
	// Switch, if not nil, is told of each change of the rate and of the bits of
	// an octet on the line: 10 either way, 7E1 or 8N1.
	Switch func(baud int)
	// Rate, if not nil, gives the rate that the client's end of the line has; 0
	// is not known. What is sent at another rate than the meter's is not heard.
	Rate func() int
	// Settle, if not nil, waits until the client's end has had the time to
	// change to a rate: it is called before what is sent at a new one.
	Settle func(baud int)
	// Open has HDLC taken without a sign-on too.
	Open bool
}

// baudRates are the rates of modes C and E by their digits.
func baudRates() []int { return []int{300, 600, 1200, 2400, 4800, 9600, 19200} }

// signOnBaud is the rate at which clients sign on.
const signOnBaud = 300

const (
	asciiSTX = 0x02
	asciiETX = 0x03
	asciiACK = 0x06
	asciiNAK = 0x15

	maxSignOn = 64 // octets that are kept of a sign-on
)

// modeEState is where a sign-on is.
type modeEState struct {
	ModeE
	out    io.Writer
	in     []byte
	parity bool // the client sends with parity
	baud   int
	hdlc   bool // signed on
	waits  bool // for the choice of the client
	bus    *bus
}

// ServeModeE serves a stream by mode E until the client hangs up: the stations
// are those of the line, as for ServeBus.
func ServeModeE(stream io.ReadWriter, e ModeE, stations ...Station) error {
	s := modeEState{ModeE: e, out: stream, bus: newBus(stream, stations)}
	defer s.bus.stop()
	if s.Baud == 0 {
		s.Baud = 9600
	}
	if !slices.Contains(baudRates(), s.Baud) {
		return errors.New("mode E has no such rate")
	}
	s.change(signOnBaud)
	chunk := make([]byte, 512)
	for {
		n, err := stream.Read(chunk)
		if err := s.feed(chunk[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *modeEState) change(baud int) {
	if s.baud = baud; s.Switch != nil {
		s.Switch(baud)
	}
}

// settle changes to the rate that the client chose.
func (s *modeEState) settle(baud int) {
	if s.change(baud); s.Settle != nil {
		s.Settle(baud)
	}
}

// hears says whether the client's end is at that rate.
func (s *modeEState) hears(baud int) bool {
	if s.Rate == nil {
		return true
	}
	at := s.Rate()
	return at == 0 || at == baud
}

// feed takes octets that came. A sign-on at 300 bit/s is heard at any time: the
// client may have lost the line.
func (s *modeEState) feed(octets []byte) error {
	s.in = append(s.in, octets...)
	s.in = s.in[max(0, len(s.in)-maxSignOn):]
	text := bytes.Clone(s.in)
	for i := range text {
		text[i] &= 0x7F
	}
	if s.hears(signOnBaud) && bytes.HasSuffix(text, []byte("!\r\n")) {
		if at := bytes.LastIndex(text, []byte("/?")); at >= 0 {
			s.parity = slices.ContainsFunc(s.in[at:], func(o byte) bool { return o >= 0x80 })
			s.in = s.in[:0]
			return s.signOn(string(text[at+2 : len(text)-3]))
		}
	}
	if !s.hears(s.baud) {
		return nil
	}
	if s.waits {
		if at := bytes.IndexByte(text, asciiACK); at >= 0 && len(text) >= at+6 && string(text[at+4:at+6]) == "\r\n" {
			s.in = s.in[:0]
			return s.choose([3]byte(text[at+1 : at+4]))
		}
	}
	if s.hdlc || s.Open {
		return s.bus.feed(octets)
	}
	return nil
}

// signOn answers who asks for a meter.
func (s *modeEState) signOn(address string) error {
	s.hdlc, s.waits = false, false
	s.bus.in = nil
	if address != "" && strings.TrimLeft(address, "0") != strings.TrimLeft(s.Address, "0") {
		return nil
	}
	s.change(signOnBaud)
	s.waits = true
	if s.Identification != "" {
		return s.write(s.Identification + "\r\n")
	}
	rate := slices.Index(baudRates(), s.Baud)
	return s.write("/GRX" + string(rune('0'+rate)) + `\2` + s.Device + "\r\n")
}

// choose takes the client's choice: protocol, rate and mode.
func (s *modeEState) choose(choice [3]byte) error {
	s.waits = false
	rate := int(choice[1]) - '0'
	if rate < 0 || rate >= len(baudRates()) || baudRates()[rate] > s.Baud {
		return s.write(string(rune(asciiNAK)))
	}
	switch {
	case choice[0] == '2' && choice[2] == '2':
		s.settle(baudRates()[rate])
		s.hdlc = true
		return s.write(string([]byte{asciiACK, choice[0], choice[1], choice[2], '\r', '\n'}))
	case choice[2] == '0':
		s.settle(baudRates()[rate])
		return s.readout()
	default: // programming, and what makers have of their own
		return s.write(string(rune(asciiNAK)))
	}
}

// readout sends the data lines, and is ready for the next sign-on.
func (s *modeEState) readout() error {
	var b strings.Builder
	if s.Readout != nil {
		for _, line := range s.Readout() {
			b.WriteString(line + "\r\n")
		}
	}
	text := b.String() + "!\r\n" + string(rune(asciiETX))
	check := byte(0)
	for i := range len(text) {
		check ^= text[i]
	}
	err := s.write(string(rune(asciiSTX)) + text + string(rune(check&0x7F)))
	s.change(signOnBaud)
	return err
}

// write sends text as the client sent its own: with even parity in the eighth
// bit, or without.
func (s *modeEState) write(text string) error {
	b := []byte(text)
	for i, o := range b {
		if s.parity && bits.OnesCount8(o)%2 == 1 {
			b[i] |= 0x80
		}
	}
	_, err := s.out.Write(b)
	return err
}
