package doctor

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"gridgate/agent/modem"
	"gridgate/agent/status"
	"gridgate/drivers/line"
	"gridgate/internal/sys"
)

// mostMeters is how many meters are told one by one.
const mostMeters = 20

// meters looks at what the agent says of meters.
func (x *exam) meters(context.Context) {
	const check = "meters"
	r := x.Result.Report
	if r == nil {
		return
	}
	count := map[string]int{}
	told := 0
	for _, m := range r.Meters {
		count[m.State]++
		l := OK
		switch m.State {
		case "failing", "locked", "exchanged":
			l = Fail
		case "partial":
			l = Warn
		}
		if l == OK {
			continue
		}
		if told++; told > mostMeters {
			continue
		}
		last := "never read"
		if m.Good != nil {
			last = "last read " + time.Since(*m.Good).Round(time.Second).String() + " ago"
		}
		x.add(l, check, "", fmt.Sprintf("%s on %s is %s, %s: %s", m.Meter, m.Line, m.State, last, m.Error))
	}
	if told > mostMeters {
		x.add(Warn, check, "gridgate status", fmt.Sprintf("and %d more", told-mostMeters))
	}
	if told == 0 && len(r.Meters) > 0 {
		x.add(OK, check, "", fmt.Sprintf("%d of %d read, %d wait for their first turn", count["ok"], len(r.Meters), count["waiting"]))
	}
	for _, l := range r.Lines {
		x.rates(l, r.Meters)
	}
}

// What a line may lose before that is worth a look.
const (
	fewVisits  = 20
	mostLost   = 20 // one in
	mostBroken = 50 // one in
)

// rates looks at how often a line fails meters that answer otherwise: by requests
// where they are counted, else by visits.
func (x *exam) rates(l status.Line, meters []status.Meter) {
	var visits, silent, garbled uint64
	dead := false
	for _, m := range meters {
		switch {
		case m.Line != l.Line:
		case m.Good != nil && m.State != "failing":
			visits, silent, garbled = visits+m.Visits, silent+m.Silent, garbled+m.Garbled
		default:
			dead = true
		}
	}
	what := "visits to meters that answer"
	if l.Requests >= fewVisits {
		visits, garbled, what = l.Requests, l.Damaged, "requests"
		if !dead { // the requests to one that is would be all unanswered
			silent = l.Lost
		}
	}
	text := fmt.Sprintf("%s: of %d %s %d had no answer in time, %d a damaged one (CRC)", l.Line, visits, what, silent, garbled)
	switch {
	case visits < fewVisits:
	case garbled*mostBroken > visits:
		x.add(Fail, "line", "termination of 120 Ω at both ends and nowhere else; A and B twisted together; common connected; two meters with one unit number; lower the baud rate", text)
	case silent*mostLost > visits:
		x.add(Warn, "line", "a timeout that is too short for the slowest meter, a bad contact, or a meter that is busy: raise timeout=", text)
	default:
		x.add(OK, "line", "", text)
	}
}

// clock looks at what time it is, and how sure that is.
func (x *exam) clock(context.Context) {
	const check = "clock"
	const do = "name time servers in time.servers and let the firewall pass port 123, or let chrony or systemd-timesyncd run; see gridgate clock"
	if time.Now().Year() < 2024 {
		x.add(Fail, check, "set it once: date -s '2026-01-31 12:00'; "+do, "the clock shows "+time.Now().UTC().Format(time.RFC3339))
		return
	}
	if r := x.Result.Report; r != nil {
		c := r.Clock
		if c.Bound == nil {
			x.add(Warn, check, do, "the clock is unsure, readings are flagged: "+c.State+", "+c.Reason)
		} else {
			x.add(OK, check, "", fmt.Sprintf("%s, at most %.3g s off", c.State, *c.Bound))
		}
		for _, w := range c.Warnings {
			x.add(Warn, check, do, w)
		}
		for _, s := range c.Servers {
			if s.Polls == 0 && s.Failures > 2 {
				x.add(Warn, check, "the name or the firewall: port 123, or 4460 for nts://", "time server "+s.Server+" never answered: "+s.Reason)
			}
		}
		return
	}
	if bound, ok := sys.ClockError(); ok {
		x.add(OK, check, "", fmt.Sprintf("the kernel's, at most %v off", bound.Round(time.Millisecond)))
	} else if x.Config == nil || len(x.Config.Time.Servers) == 0 {
		x.add(Warn, check, do, "nobody keeps the system clock right")
	}
}

// buffer looks at what waits for the fog, and what was lost.
func (x *exam) buffer(context.Context) {
	const check = "buffer"
	r := x.Result.Report
	if r == nil {
		return
	}
	var waiting, lost uint64
	for _, l := range r.Lanes {
		waiting, lost = waiting+l.Last-l.Acked, lost+l.Lost
	}
	if r.Intake.Error != "" {
		x.add(Fail, check, "", "readings cannot be stored: "+r.Intake.Error)
	}
	if r.Intake.Dropped > 0 {
		x.add(Fail, check, "the disk and the log: memory for rows that waited ran out", fmt.Sprintf("%d rows were lost before they were stored", r.Intake.Dropped))
	}
	if lost > 0 {
		x.add(Warn, check, "a longer buffer.max_size, fewer channels, or a link that stands; gridgate buffer stat names them", fmt.Sprintf("%d rows were given up before the fog had them", lost))
	}
	text := fmt.Sprintf("%d rows wait for the fog", waiting)
	if r.Buffer != nil {
		text += fmt.Sprintf(", %.1f of %.1f MB of the file", float64(r.Buffer.Size)/1e6, float64(r.Buffer.Most)/1e6)
	}
	x.add(OK, check, "", text)
}

// modem looks at SIM and signal.
func (x *exam) modem(ctx context.Context) {
	const check = "modem"
	if x.Config == nil || x.Config.Modem.Port == "" {
		return
	}
	var m *status.Modem
	switch r := x.Result.Report; {
	case r != nil && r.Modem == nil, r == nil && x.noModem:
		return // which was said
	case r != nil:
		m = r.Modem
	default:
		var err error
		if m, err = lookAtModem(ctx, x.Config.Modem.Port); err != nil {
			x.add(Fail, check, "", err.Error())
			return
		}
	}
	text := strings.Join([]string{m.Model, m.Registration, m.Operator, m.Technology}, " ")
	if m.Signal != nil {
		text += fmt.Sprintf(", %d dBm (%s)", *m.Signal, m.Kind)
	}
	switch {
	case m.State == string(modem.Waiting) || m.State == string(modem.Restarting):
		x.add(OK, check, "", m.State)
	case m.State != string(modem.OK):
		x.add(Fail, check, "", m.State+": "+m.Error)
	case m.Weak:
		x.add(Warn, check, "a better antenna, outside and away from metal; another operator", "weak signal: "+text)
	default:
		x.add(OK, check, "", text)
	}
	if m.Resets > 2 {
		x.add(Warn, check, "the antenna, the SIM's contract, the program that makes the connection (pppd, ModemManager)", fmt.Sprintf("it was reset %d times since the agent started, since the fog stayed away", m.Resets))
	}
}

// lookAtModem asks a modem that no agent minds. It enters no PIN.
func lookAtModem(ctx context.Context, port string) (*status.Modem, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	l := line.Serial(port, line.Options{})
	defer func() { _ = l.Close() }()
	var f modem.Facts
	err := l.Do(ctx, line.Settings{Baud: modem.Baud}, func(ctx context.Context, p line.Port) (err error) {
		f, err = modem.Look(ctx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	state, text := f.Judge()
	m := &status.Modem{
		State: string(state), Error: text, Model: f.Model, Registration: f.Registration.String(), Operator: f.Operator,
		Technology: f.Technology, Kind: f.Signal.Kind, Weak: f.Signal.DBm != 0 && f.Signal.Weak(),
	}
	if f.Signal.DBm != 0 {
		m.Signal = &f.Signal.DBm
	}
	return m, nil
}

// read gives the text of a file of proc or sysfs, empty when there is none.
func (x *exam) read(path string) string {
	b, _ := os.ReadFile(x.Root + path)
	return strings.TrimSpace(string(b))
}
