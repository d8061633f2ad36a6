package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Who the simulated modem is.
const (
	modemIMEI  = "490154203237518"
	modemICCID = "8949000000000000018"
)

// modemStats are the registrations by their names, with <stat> of 3GPP TS 27.007.
var modemStats = map[string]int{ //nolint:gochecknoglobals // a constant table
	"idle": 0, "home": 1, "searching": 2, "denied": 3, "unknown": 4, "roaming": 5, "emergency": 8,
}

func modemRegistrations() []string { return slices.Sorted(maps.Keys(modemStats)) }

// modemState is what a script changes.
type modemState struct {
	pin, sim, registration, operator string
	attempts, signal                 int
	timeless                         bool

	open   bool // no PIN is wanted any more
	echo   bool
	errors int // AT+CMEE
}

// set changes one thing.
func (s *modemState) set(name, value string) error {
	n, notNumber := strconv.Atoi(value)
	switch name {
	case "sim":
		if !slices.Contains([]string{"in", "out", "puk", "failure"}, value) {
			return fmt.Errorf("sim %q: want in, out, puk or failure", value)
		}
		if s.sim = value; value == "out" {
			s.open = s.pin == "" // another card, or the same anew
		}
	case "registration":
		if _, ok := modemStats[value]; !ok {
			return fmt.Errorf("registration %q: want %s", value, strings.Join(modemRegistrations(), ", "))
		}
		s.registration = value
	case "operator":
		s.operator = value
	case "signal":
		if notNumber != nil || n != 0 && (n < -113 || n > -51) {
			return fmt.Errorf("signal %q: want -113 to -51, or 0", value)
		}
		s.signal = n
	case "pin":
		if strings.Trim(value, "0123456789") != "" || value != "" && (len(value) < 4 || len(value) > 8) {
			return fmt.Errorf("pin %q: want 4 to 8 digits", value)
		}
		s.pin, s.open = value, value == ""
	case "attempts":
		if notNumber != nil || n < 0 || n > 3 {
			return fmt.Errorf("attempts %q: want 0 to 3", value)
		}
		s.attempts = n
	default:
		return fmt.Errorf("%q: no such command", name)
	}
	return nil
}

const (
	modemOK    = "\r\nOK\r\n"
	modemError = "\r\nERROR\r\n"
)

// cme is +CME ERROR (TS 27.007, 9.2), as AT+CMEE has it.
func (s *modemState) cme(code int, text string) string {
	switch s.errors {
	case 1:
		return fmt.Sprintf("\r\n+CME ERROR: %d\r\n", code)
	case 2:
		return "\r\n+CME ERROR: " + text + "\r\n"
	}
	return modemError
}

// answer gives the answer to a command, with its final result. mu is held.
func (m *modemSim) answer(command string) string {
	s := &m.state
	upper := strings.ToUpper(command)
	name, value, sets := strings.Cut(upper, "=")
	switch name {
	case "AT", "ATZ":
		return modemOK
	case "ATE0", "ATE1":
		s.echo = name == "ATE1"
		return modemOK
	case "AT+CMEE":
		s.errors, _ = strconv.Atoi(value)
		return modemOK
	case "AT+CGMM":
		return "\r\n" + map[string]string{"sim800": "SIMCOM_SIM800L", "quectel": "EC21", "ublox": "SARA-U201", "plain": "M1"}[m.options.maker] + "\r\n" + modemOK
	case "AT+CGSN":
		return "\r\n" + modemIMEI + "\r\n" + modemOK
	case "AT+CFUN":
		if value == "1,1" {
			m.restart()
			m.say("reset by AT")
		}
		return modemOK
	case "AT+CPIN?":
		return m.cpin()
	case "AT+CPIN":
		if !sets {
			return modemError
		}
		return m.enterPIN(strings.Trim(value, `"`))
	case "AT+CEREG?", "AT+CGREG?", "AT+CREG?":
		return m.registered(strings.TrimSuffix(name[3:], "?"))
	case "AT+COPS?":
		if s.registration != "home" && s.registration != "roaming" || !m.usable() {
			return "\r\n+COPS: 0\r\n" + modemOK
		}
		return fmt.Sprintf("\r\n+COPS: 0,0,%q,2\r\n%s", s.operator, modemOK)
	case "AT+CSQ":
		rssi := 99
		if s.signal != 0 {
			rssi = (s.signal + 113) / 2
		}
		return fmt.Sprintf("\r\n+CSQ: %d,99\r\n%s", rssi, modemOK)
	case "AT+CESQ":
		if m.options.maker == "sim800" {
			return modemError
		}
		rscp := 255
		if s.signal != 0 {
			rscp = min(96, s.signal+121)
		}
		return fmt.Sprintf("\r\n+CESQ: 99,99,%d,255,255,255\r\n%s", rscp, modemOK)
	case "AT+CCLK?":
		return m.networkTime()
	}
	return m.makers(name)
}

// makers answers what each maker has a command of its own for.
func (m *modemSim) makers(name string) string {
	s := &m.state
	id := map[string][2]string{
		"sim800": {"AT+CCID", ""}, "quectel": {"AT+QCCID", "+QCCID: "}, "ublox": {"AT+CCID", "+CCID: "}, "plain": {"AT+ICCID", "+ICCID: "},
	}[m.options.maker]
	if name == id[0] && s.sim != "out" && s.sim != "failure" {
		return "\r\n" + id[1] + modemICCID + "\r\n" + modemOK
	}
	switch {
	case m.options.maker == "quectel" && name == "AT+QPINC":
		return fmt.Sprintf("\r\n+QPINC: \"SC\",%d,10\r\n%s", s.attempts, modemOK)
	case m.options.maker == "ublox" && name == "AT+UPINCNT":
		return fmt.Sprintf("\r\n+UPINCNT: %d,3,10,10\r\n%s", s.attempts, modemOK)
	case m.options.maker == "sim800" && name == "AT+SPIC":
		return fmt.Sprintf("\r\n+SPIC: %d,10,0,10\r\n%s", s.attempts, modemOK)
	}
	return modemError
}

// usable says whether the SIM lets the modem into a network.
func (m *modemSim) usable() bool { return m.state.sim == "in" && m.state.open }

func (m *modemSim) cpin() string {
	switch s := &m.state; {
	case s.sim == "out":
		return s.cme(10, "SIM not inserted")
	case s.sim == "failure":
		return s.cme(13, "SIM failure")
	case s.sim == "puk" || s.attempts == 0:
		return "\r\n+CPIN: SIM PUK\r\n" + modemOK
	case !s.open:
		return "\r\n+CPIN: SIM PIN\r\n" + modemOK
	}
	return "\r\n+CPIN: READY\r\n" + modemOK
}

func (m *modemSim) enterPIN(pin string) string {
	s := &m.state
	switch {
	case s.sim != "in" || s.attempts == 0 || s.open:
		return s.cme(3, "operation not allowed")
	case pin != s.pin:
		s.attempts--
		m.say("PIN refused, %d left", s.attempts)
		return s.cme(16, "incorrect password")
	}
	s.attempts, s.open = 3, true
	m.say("PIN taken")
	return modemOK + "\r\n+CPIN: READY\r\n"
}

func (m *modemSim) registered(what string) string {
	stat := modemStats[m.state.registration]
	if !m.usable() {
		stat = 0
	}
	if what == "CEREG" {
		if m.options.maker == "sim800" {
			return modemError
		}
		stat = 0 // no LTE here
	}
	return fmt.Sprintf("\r\n+%s: 0,%d\r\n%s", what, stat, modemOK)
}

// networkTime is local time, and how many quarters of an hour it is ahead.
func (m *modemSim) networkTime() string {
	now := time.Now()
	if m.state.timeless || !m.usable() {
		now = time.Date(2004, 1, 1, 0, 0, 7, 0, time.UTC)
	}
	_, offset := now.Zone()
	quarters, sign := offset/900, '+'
	if quarters < 0 {
		quarters, sign = -quarters, '-'
	}
	return fmt.Sprintf("\r\n+CCLK: \"%s%c%02d\"\r\n%s", now.Format("06/01/02,15:04:05"), sign, quarters, modemOK)
}
