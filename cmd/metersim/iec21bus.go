package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// iec21Bus is a line with meters that answer to their device addresses. A
// request without an address is for the first.
type iec21Bus struct {
	options iec21Options
	faults  *iec21Fault
	meters  []household
}

// The control characters of IEC 62056-21.
const (
	cSOH = "\x01"
	cSTX = "\x02"
	cETX = "\x03"
	cACK = "\x06"
	cNAK = "\x15"
)

// errQuiet says that the client has said nothing for a while.
var errQuiet = errors.New("silence")

const (
	reactionTime = 200 * time.Millisecond // IEC 62056-21, 6.3.14: tr
	hearing      = 1500 * time.Millisecond
	inactivity   = 60 * time.Second // of the programming mode
)

// iec21Talk is a client's conversation with the line.
type iec21Talk struct {
	*iec21Bus
	ctx  context.Context //nolint:containedctx // of the line, for its reads and writes
	out  io.Writer
	in   <-chan byte
	gone <-chan error
	rate int    // of the line now
	last string // what was sent last, for NAK
}

// serve serves one stream. A reader of its own takes the octets, so that what
// the meters wait for can time out on any stream; it ends with the stream.
func (b *iec21Bus) serve(ctx context.Context, stream io.ReadWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	in, gone := make(chan byte, 1<<12), make(chan error, 1)
	done := make(chan struct{})
	go func() { // waited for below
		defer close(done)
		gone <- b.listen(ctx, stream, in)
	}()
	t := &iec21Talk{iec21Bus: b, ctx: ctx, out: stream, in: in, gone: gone, rate: max(b.options.pace, 0)}
	err := t.loop()
	cancel()
	if c, ok := stream.(io.Closer); ok {
		_ = c.Close()
	}
	<-done
	return err
}

func (b *iec21Bus) listen(ctx context.Context, stream io.ReadWriter, in chan<- byte) error {
	buf := make([]byte, 256)
	for {
		n, err := stream.Read(buf)
		if err != nil {
			return err
		}
		if b.faults.echo {
			if _, err := stream.Write(buf[:n]); err != nil {
				return err
			}
		}
		for _, c := range buf[:n] {
			select {
			case in <- c & 0x7F:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// octet waits for one octet.
func (t *iec21Talk) octet(wait time.Duration) (byte, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case c := <-t.in:
		return c, t.rest(t.wire(1))
	case err := <-t.gone:
		return 0, err
	case <-timer.C:
		return 0, errQuiet
	case <-t.ctx.Done():
		return 0, context.Cause(t.ctx)
	}
}

// rest lets time pass.
func (t *iec21Talk) rest(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// wire is how long n octets take: ten bits each.
func (t *iec21Talk) wire(n int) time.Duration {
	if t.rate == 0 {
		return 0
	}
	return time.Duration(n) * 10 * time.Second / time.Duration(t.rate)
}

// to changes the rate of a line that takes time.
func (t *iec21Talk) to(rate int) {
	if t.options.pace > 0 {
		t.rate = rate
	}
}

// say sends a message, a tenth of a second at a time.
func (t *iec21Talk) say(message string) error {
	t.last = message
	b, behind := t.faults.spoil([]byte(message))
	if err := t.rest(reactionTime + behind); err != nil {
		return err
	}
	for len(b) > 0 {
		n := len(b)
		if t.rate > 0 {
			n = min(n, max(1, t.rate/100))
		}
		if err := t.rest(t.wire(n)); err != nil {
			return err
		}
		if _, err := t.out.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// summed puts the check character behind a message: the parities of its
// columns, from the second character on.
func summed(message string) string {
	var parity [7]bool
	for _, c := range message[1:] {
		for bit := range parity {
			parity[bit] = parity[bit] != (c>>bit&1 == 1)
		}
	}
	sum := 0
	for bit, odd := range parity {
		if odd {
			sum += 1 << bit
		}
	}
	return message + string(rune(sum))
}

// loop waits for sign-ons.
func (t *iec21Talk) loop() error {
	for {
		t.to(t.options.pace)
		c, err := t.octet(time.Hour)
		if err == nil && c == '/' {
			err = t.called()
		}
		if err != nil && !errors.Is(err, errQuiet) {
			return err
		}
	}
}

// called reads a sign-on and answers if it is for a meter here.
func (t *iec21Talk) called() error {
	var b strings.Builder
	for {
		c, err := t.octet(hearing)
		if err != nil {
			return err
		}
		if c == '/' { // the client begins anew
			b.Reset()
			continue
		}
		if b.WriteByte(c); c == '\n' || b.Len() > 64 {
			break
		}
	}
	address, ok := strings.CutSuffix(b.String(), "!\r\n")
	address, asks := strings.CutPrefix(address, "?")
	if !ok || !asks {
		return nil
	}
	for i, m := range t.meters {
		if strings.TrimLeft(address, "0") == strings.TrimLeft(m.serial, "0") || address == "" && i == 0 {
			return t.meet(m)
		}
	}
	return nil
}

// meet has the rest of a conversation with one meter.
func (t *iec21Talk) meet(m household) error {
	o := t.options
	if err := t.say(fmt.Sprintf("/GRG%cSIM21-%d\r\n", iec21Letter(o.mode, o.baud), m.number+1)); err != nil {
		return err
	}
	switch o.mode {
	case "a":
		return t.readout(m)
	case "b":
		t.to(o.baud)
		return t.readout(m)
	}
	var choice []byte
	for len(choice) < 6 {
		c, err := t.octet(hearing)
		if err != nil {
			return err
		}
		if c == '/' {
			return t.called()
		}
		if len(choice) == 0 && c != cACK[0] {
			continue
		}
		choice = append(choice, c)
	}
	if choice[2] < '0' || choice[2] > '6' {
		return nil
	}
	t.to(300 << (choice[2] - '0'))
	if choice[3] == '1' {
		return t.program(m)
	}
	if err := t.readout(m); err != nil {
		return err
	}
	for { // a client that did not understand says so
		c, err := t.octet(hearing)
		switch {
		case err != nil:
			return err
		case c == cNAK[0]:
			if err := t.say(t.last); err != nil {
				return err
			}
		case c == '/':
			return t.called()
		}
	}
}

func (t *iec21Talk) readout(m household) error {
	var b strings.Builder
	for _, name := range m.iec21Names() {
		fmt.Fprintf(&b, "%s%s\r\n", name, m.iec21Value(name))
	}
	if t.options.bare {
		return t.say(b.String() + "!\r\n")
	}
	return t.say(summed(cSTX + b.String() + "!\r\n" + cETX))
}

// program serves the programming mode.
func (t *iec21Talk) program(m household) error {
	if err := t.say(summed(cSOH + "P0" + cSTX + "(" + t.options.challenge + ")" + cETX)); err != nil {
		return err
	}
	open := t.options.password == ""
	for {
		c, err := t.octet(inactivity)
		if err == nil && c == cNAK[0] {
			err = t.say(t.last)
		}
		if err != nil {
			return err
		}
		if c != cSOH[0] {
			continue
		}
		command, data, err := t.command()
		switch {
		case errors.Is(err, errQuiet), err == nil && command == "":
			err = t.say(cNAK)
		case err != nil:
		case command[0] == 'B':
			return nil
		case command == "P1" && (open || data == "("+t.options.password+")"):
			open = true
			err = t.say(cACK)
		case command == "P1":
			return t.say(summed(cSOH + "B0" + cETX))
		case command[0] == 'W' && m.iec21Set(open, data):
			err = t.say(cACK)
		default:
			err = t.say(summed(cSTX + m.iec21Answer(open, command, data) + cETX))
		}
		if err != nil {
			return err
		}
	}
}

// command reads a command behind its SOH; "" is one with a wrong check
// character.
func (t *iec21Talk) command() (command, data string, err error) {
	var b strings.Builder
	for b.Len() < 512 {
		c, err := t.octet(hearing)
		if err != nil {
			return "", "", err
		}
		if b.WriteByte(c); c != cETX[0] {
			continue
		}
		sum, err := t.octet(hearing)
		if err != nil {
			return "", "", err
		}
		if want := summed(cSOH + b.String()); want[len(want)-1] != sum {
			return "", "", nil
		}
		command, data, _ = strings.Cut(strings.TrimSuffix(b.String(), cETX), cSTX)
		return command, data, nil
	}
	return "", "", nil
}

// iec21Set takes the time of day; nothing else can be written.
func (h household) iec21Set(open bool, data string) bool {
	text, ok := strings.CutPrefix(strings.TrimSuffix(data, ")"), "0.9.1(")
	at, err := time.Parse("150405", text)
	if !open || !ok || err != nil || h.clock == nil {
		return false
	}
	now := h.clock.now()
	h.clock.set(time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, now.Location()))
	return true
}

// iec21Answer is what a meter says to a command.
func (h household) iec21Answer(open bool, command, data string) string {
	name, arguments, ok := strings.Cut(strings.TrimSuffix(data, ")"), "(")
	switch {
	case !ok:
		return "(ER01)"
	case !open:
		return "(ER02)"
	case command != "R5" && command != "R1":
		return "(ER03)"
	case name == "P.01":
		return h.iec21Profile(arguments)
	}
	if v := h.iec21Value(name); v != "" {
		return name + v
	}
	return name + "(ERROR)"
}

// iec21Names are the data sets of the readout.
func (h household) iec21Names() []string {
	return []string{
		"F.F", "0.0.0", "C.1.0", "0.9.1", "0.9.2", "1.8.0", "2.8.0", "1.8.0*01", "1.6.0", "32.7.0", "52.7.0", "72.7.0", "14.7.0", "16.7.0", "0.2.0",
	}
}

// iec21Value is what stands behind a name, "" for what the meter does not have.
func (h household) iec21Value(name string) string {
	now := h.now()
	drawn, fed := h.energy(now)
	in, out := h.power(now)
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, now.Location())
	switch name {
	case "F.F":
		return "(00000000)"
	case "0.0.0", "C.1.0":
		return "(" + h.serial + ")"
	case "0.2.0":
		return "(SIM21)"
	case "0.9.1":
		return now.Format("(150405)")
	case "0.9.2":
		return now.Format("(060102)")
	case "1.8.0":
		return fmt.Sprintf("(%010.3f*kWh)", math.Floor(drawn)/1000)
	case "2.8.0":
		return fmt.Sprintf("(%010.3f*kWh)", math.Floor(fed)/1000)
	case "1.8.0*01":
		then, _ := h.energy(month)
		return fmt.Sprintf("(%010.3f*kWh)", math.Floor(then)/1000)
	case "1.6.0":
		return fmt.Sprintf("(%06.3f*kW)%s", h.peak()/1000, now.Truncate(day).Add(-6*time.Hour).Format("(0601021504)"))
	case "32.7.0", "52.7.0", "72.7.0":
		return fmt.Sprintf("(%05.1f*V)", h.voltage(int(name[0]-'3')/2, now))
	case "14.7.0":
		return fmt.Sprintf("(%.2f*Hz)", 50+0.03*math.Sin(float64(now.Unix())/11))
	case "16.7.0":
		return fmt.Sprintf("(%.3f*kW)", (in-out)/1000)
	case "3.8.0": // not in the readout
		return fmt.Sprintf("(%010.3f*kvarh)", math.Floor(drawn/5)/1000)
	}
	return ""
}

// iec21Profile is the load profile from one time to another, both of which may
// be left out.
func (h household) iec21Profile(arguments string) string {
	const layout = "0601021504"
	from, to, ok := strings.Cut(arguments, ";")
	now := h.now()
	begin, end := now.Add(-profileDepth), now
	for text, at := range map[string]*time.Time{from: &begin, to: &end} {
		if text == "" {
			continue
		}
		t, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil || !ok {
			return "P.01(ER07)"
		}
		*at = t
	}
	begin, end = maxTime(begin, now.Add(-profileDepth)), minTime(end, now)
	first := begin.Truncate(h.capture)
	if first.Before(begin) {
		first = first.Add(h.capture)
	}
	if first.After(end) {
		return "P.01(ERROR)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "P.01(%s)(00000000)(%s)(2)(1.8.0)(kWh)(2.8.0)(kWh)\r\n", first.Format(layout), strconv.Itoa(int(h.capture/time.Minute)))
	for at := first; !at.After(end); at = at.Add(h.capture) {
		drawn, fed := h.energy(at)
		fmt.Fprintf(&b, "(%.3f)(%.3f)\r\n", math.Floor(drawn)/1000, math.Floor(fed)/1000)
	}
	return b.String()
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
