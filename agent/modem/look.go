package modem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Facts is what a modem says of itself, its SIM and its network. The zero value
// is nothing.
type Facts struct {
	Model        string
	IMEI         string
	ICCID        string
	SIM          SIM
	Attempts     int // of the PIN that are left; -1 is not known
	Registration Registration
	Technology   string
	Operator     string
	Signal       Signal
}

// Look asks a modem for all there is, in about ten short commands. It changes
// nothing but that errors come as numbers (AT+CMEE=1). A modem that refuses a
// command lacks that fact; one that is silent or garbled is an error.
func Look(ctx context.Context, p Port) (f Facts, err error) {
	f.Attempts = -1
	if err := wake(ctx, p); err != nil {
		return f, err
	}
	for _, step := range []func(context.Context, Port) error{f.identity, f.sim, f.network} {
		if err := step(ctx, p); err != nil {
			return f, err
		}
	}
	return f, nil
}

// wake finds out whether somebody is there. A modem may need the first command
// to find the rate, and one that says garbage may just be starting.
func wake(ctx context.Context, p Port) (err error) {
	for i := range 3 {
		if _, err = speak(ctx, p, "ATE0", wakeTime<<i); err == nil {
			if i > 0 { // answers to those before may still come
				drain(p)
			}
			break
		}
		if !errors.Is(err, ErrSilent) && !errors.Is(err, ErrGarbled) && !isRefusal(err) {
			return err
		}
	}
	if err != nil && !isRefusal(err) {
		p.Drop()
		return err
	}
	_, err = ask(ctx, p, "AT+CMEE=1")
	return err
}

// drain drops what comes until nothing has come for a while.
func drain(p Port) {
	var b [256]byte
	for range answerMost / len(b) {
		if p.SetDeadline(time.Now().Add(drainTime)) != nil {
			return
		}
		if _, err := p.Read(b[:]); err != nil {
			return
		}
	}
}

func isRefusal(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// ask is speak for a command that the modem may not know.
func ask(ctx context.Context, p Port, command string) ([]string, error) {
	lines, err := speak(ctx, p, command, answerTime)
	if isRefusal(err) {
		return nil, nil
	}
	return lines, err
}

func (f *Facts) identity(ctx context.Context, p Port) error {
	lines, err := ask(ctx, p, "AT+CGMM")
	if err != nil {
		return err
	}
	for _, l := range lines {
		if !strings.HasPrefix(l, "+") || strings.HasPrefix(l, "+CGMM:") {
			f.Model = unquote(strings.TrimPrefix(l, "+CGMM:"))
			f.Model = f.Model[:min(len(f.Model), 32)]
			break
		}
	}
	if lines, err = ask(ctx, p, "AT+CGSN"); err != nil {
		return err
	}
	for _, l := range lines {
		if imei, ok := parseDigits(l, "+CGSN:", 14, 17); ok {
			f.IMEI = imei
			break
		}
	}
	return nil
}

// sim asks for the SIM, its number and its PIN.
func (f *Facts) sim(ctx context.Context, p Port) error {
	lines, err := speak(ctx, p, "AT+CPIN?", slowTime)
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		if sim, ok := simError(refused.code); ok {
			f.SIM = sim
		}
	case err != nil:
		return err
	default:
		find(lines, "+CPIN:", func(rest string) (ok bool) { f.SIM, ok = parseCPIN(rest); return ok })
	}
	if f.SIM == SIMAbsent || f.SIM == SIMFailure || f.SIM == SIMBusy {
		return nil
	}
	for _, command := range [][2]string{{"AT+CCID", "+CCID:"}, {"AT+QCCID", "+QCCID:"}, {"AT+ICCID", "+ICCID:"}} {
		lines, err := ask(ctx, p, command[0])
		if err != nil {
			return err
		}
		for _, l := range lines {
			if id, ok := parseDigits(l, command[1], 18, 22); ok {
				f.ICCID = id
				break
			}
		}
		if f.ICCID != "" {
			break
		}
	}
	if f.SIM != SIMPIN {
		return nil
	}
	return f.attempts(ctx, p)
}

// attempts asks how often the PIN may still be tried.
func (f *Facts) attempts(ctx context.Context, p Port) error {
	for _, c := range attemptCommands() {
		lines, err := ask(ctx, p, c.ask)
		if err != nil {
			return err
		}
		if find(lines, c.prefix, func(rest string) bool {
			n, ok := c.parse(rest)
			if ok {
				f.Attempts = n
			}
			return ok
		}) {
			return nil
		}
	}
	return nil
}

// network asks for registration, operator and signal. Registered is who is so in
// any of the three domains; the best counts.
func (f *Facts) network(ctx context.Context, p Port) error {
	for _, command := range []string{"CEREG", "CGREG", "CREG"} {
		lines, err := ask(ctx, p, "AT+"+command+"?")
		if err != nil {
			return err
		}
		var r Registration
		var technology string
		for _, l := range lines { // an unsolicited one may stand before the answer, or be newer than it
			if rest, is := strings.CutPrefix(l, "+"+command+":"); is {
				if now, by, ok := parseRegistration(rest); ok {
					r, technology = now, by
				}
			}
		}
		if better(r, f.Registration) {
			f.Registration = r
			if technology != "" {
				f.Technology = technology
			}
		}
	}
	lines, err := speak(ctx, p, "AT+COPS?", slowTime)
	if err != nil && !isRefusal(err) {
		return err
	}
	find(lines, "+COPS:", func(rest string) bool {
		name, technology, ok := parseOperator(rest)
		if ok {
			f.Operator = name[:min(len(name), 64)]
			if technology != "" {
				f.Technology = technology
			}
		}
		return ok
	})
	for _, c := range []struct {
		name  string
		parse func(string) (Signal, bool)
	}{{"CESQ", parseCESQ}, {"CSQ", parseCSQ}} {
		if lines, err = ask(ctx, p, "AT+"+c.name); err != nil {
			return err
		}
		find(lines, "+"+c.name+":", func(rest string) bool {
			s, ok := c.parse(rest)
			f.Signal = s
			return ok
		})
		if f.Signal.DBm != 0 {
			break
		}
	}
	return nil
}

// better says whether r tells more of a way to the fog than s.
func better(r, s Registration) bool {
	rank := func(r Registration) int {
		switch r {
		case Home:
			return 6
		case Roaming:
			return 5
		case Denied:
			return 4
		case Searching:
			return 3
		case Limited:
			return 2
		case Idle:
			return 1
		case Unknown:
		}
		return 0
	}
	return rank(r) > rank(s)
}

// errPIN says that the SIM did not take the PIN.
var errPIN = errors.New("the SIM does not take the PIN")

// enterPIN enters the PIN, once.
func enterPIN(ctx context.Context, p Port, pin string) error {
	_, err := speak(ctx, p, "AT+CPIN=\""+pin+"\"", slowTime)
	var refused *refusal
	if errors.As(err, &refused) {
		return fmt.Errorf("%w (%s)", errPIN, refused.code)
	}
	return err
}

// restart has the modem start anew (TS 27.007, 8.2).
func restart(ctx context.Context, p Port) error {
	_, err := speak(ctx, p, "AT+CFUN=1,1", slowTime)
	p.Drop() // adapters inside modems vanish and come back
	return err
}
