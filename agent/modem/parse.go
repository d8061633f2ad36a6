package modem

import (
	"strconv"
	"strings"
)

// Registration is how the modem stands with the network (3GPP TS 27.007, 7.2,
// 10.1.20, 10.1.22: <stat>). The zero value is not known.
type Registration uint8

// The registrations. Those of SMS only and of emergencies are no way to the fog.
const (
	Unknown   Registration = iota
	Idle                   // 0: not registered, and not looking for a network
	Home                   // 1
	Searching              // 2
	Denied                 // 3: by the network
	Roaming                // 5
	Limited                // 6, 7, 8: SMS only, or emergency calls only
)

// String gives the registration as people say it.
func (r Registration) String() string {
	switch r {
	case Idle:
		return "not registered"
	case Home:
		return "registered"
	case Searching:
		return "searching"
	case Denied:
		return "denied"
	case Roaming:
		return "roaming"
	case Limited:
		return "limited service"
	case Unknown:
	}
	return "unknown"
}

// IsOn says that the network takes data.
func (r Registration) IsOn() bool { return r == Home || r == Roaming }

func registration(stat string) (Registration, bool) {
	switch stat {
	case "0":
		return Idle, true
	case "1", "9":
		return Home, true
	case "2":
		return Searching, true
	case "3":
		return Denied, true
	case "4":
		return Unknown, true
	case "5", "10":
		return Roaming, true
	case "6", "7", "8":
		return Limited, true
	}
	return Unknown, false
}

// parseRegistration reads what +CREG:, +CGREG: and +CEREG: say: the answer
// <n>,<stat>[,<area>,<cell>[,<AcT>]], and the unsolicited <stat>[,<area>,<cell>[,<AcT>]],
// where the area is in quotes.
func parseRegistration(rest string) (r Registration, technology string, ok bool) {
	f := fields(rest)
	if len(f) > 1 && isDigits(f[1].text) && !f[1].quoted {
		f = f[1:]
	}
	if len(f) == 0 || f[0].quoted {
		return Unknown, "", false
	}
	if r, ok = registration(f[0].text); ok && len(f) > 3 {
		technology = accessTechnology(f[3].text)
	}
	return r, technology, ok
}

// accessTechnology names <AcT> of TS 27.007, 7.3.
func accessTechnology(act string) string {
	switch act {
	case "0", "1":
		return "GPRS"
	case "3":
		return "EDGE"
	case "2":
		return "UMTS"
	case "4", "5", "6":
		return "HSPA"
	case "7":
		return "LTE"
	case "8":
		return "EC-GSM-IoT"
	case "9":
		return "NB-IoT"
	case "10", "11", "12", "13":
		return "5G"
	}
	return ""
}

// parseOperator reads +COPS: <mode>[,<format>,<operator>[,<AcT>]].
func parseOperator(rest string) (name, technology string, ok bool) {
	f := fields(rest)
	if len(f) == 0 || !isDigits(f[0].text) {
		return "", "", false
	}
	if len(f) > 2 {
		name = f[2].text
	}
	if len(f) > 3 {
		technology = accessTechnology(f[3].text)
	}
	return name, technology, true
}

// Signal is how strongly the network is received. The zero value is not known.
type Signal struct {
	DBm  int    // 0 is not known
	Kind string // of DBm: RSSI, RSCP (UMTS) or RSRP (LTE)
	RSRQ int    // of LTE, in tenths of a decibel; 0 is not known
}

// Weak says that a connection over it will suffer. The limits are those below
// which makers of modems show one bar of five.
func (s Signal) Weak() bool {
	switch s.Kind {
	case "RSRP":
		return s.DBm < -115
	case "RSCP":
		return s.DBm < -110
	}
	return s.DBm < -103
}

// parseCSQ reads +CSQ: <rssi>,<ber> (TS 27.007, 8.5): 0 to 31 in steps of 2 dB
// from -113 dBm, 99 for not known. 100 to 191 are steps of 1 dB from -116 dBm,
// 199 not known: Quectel's and Huawei's for TD-SCDMA and LTE.
func parseCSQ(rest string) (Signal, bool) {
	f := fields(rest)
	if len(f) != 2 {
		return Signal{}, false
	}
	n, ok := number(f[0], 199)
	switch {
	case !ok:
		return Signal{}, false
	case n <= 31:
		return Signal{DBm: -113 + 2*n, Kind: "RSSI"}, true
	case n >= 100 && n <= 191:
		return Signal{DBm: -116 + n - 100, Kind: "RSSI"}, true
	}
	return Signal{}, n == 99 || n == 199
}

// parseCESQ reads +CESQ: <rxlev>,<ber>,<rscp>,<ecno>,<rsrq>,<rsrp> (TS 27.007,
// 8.69), of which those are known that the cell has.
func parseCESQ(rest string) (Signal, bool) {
	f := fields(rest)
	if len(f) < 6 { // 5G has three more
		return Signal{}, false
	}
	var v [6]int
	for i := range v {
		n, ok := number(f[i], 255)
		if !ok {
			return Signal{}, false
		}
		v[i] = n
	}
	switch rxlev, rscp, rsrq, rsrp := v[0], v[2], v[4], v[5]; {
	case rsrp <= 97:
		s := Signal{DBm: -141 + rsrp, Kind: "RSRP"}
		if rsrq <= 34 {
			s.RSRQ = -200 + 5*rsrq
		}
		return s, true
	case rscp <= 96:
		return Signal{DBm: -121 + rscp, Kind: "RSCP"}, true
	case rxlev <= 63:
		return Signal{DBm: -111 + rxlev, Kind: "RSSI"}, true
	}
	return Signal{}, true
}

// SIM is how the SIM card stands (TS 27.007, 8.3, and the codes of 9.2).
type SIM string

// The states of a SIM.
const (
	SIMUnknown SIM = ""
	SIMReady   SIM = "ready"
	SIMAbsent  SIM = "none"
	SIMFailure SIM = "failure"
	SIMBusy    SIM = "busy"
	SIMPIN     SIM = "PIN wanted"
	SIMPUK     SIM = "PUK wanted"
	SIMLocked  SIM = "locked" // to another phone or operator
)

// parseCPIN reads +CPIN: <code>.
func parseCPIN(rest string) (SIM, bool) {
	switch code := unquote(rest); {
	case code == "READY", code == "SIM PIN2", code == "SIM PUK2": // the second PIN is of no concern
		return SIMReady, true
	case code == "SIM PIN":
		return SIMPIN, true
	case code == "SIM PUK":
		return SIMPUK, true
	case code == "NOT INSERTED", code == "NOT READY": // SIMCom
		return SIMAbsent, true
	case strings.HasPrefix(code, "PH-"):
		return SIMLocked, true
	}
	return SIMUnknown, false
}

// simError reads what an error says of the SIM: its number, or its text after
// AT+CMEE=2.
func simError(code string) (SIM, bool) {
	switch strings.ToLower(code) {
	case "10", "sim not inserted":
		return SIMAbsent, true
	case "11", "sim pin required":
		return SIMPIN, true
	case "12", "sim puk required":
		return SIMPUK, true
	case "13", "sim failure", "15", "sim wrong":
		return SIMFailure, true
	case "14", "sim busy":
		return SIMBusy, true
	}
	return SIMUnknown, false
}

// attempts asks a modem how often the PIN may still be tried. There is no command
// that all have; each of these is asked, until one is answered.
type attempts struct {
	ask, prefix string
	field       int
}

func attemptCommands() []attempts {
	return []attempts{
		{"AT+CPINR=\"SIM PIN\"", "+CPINR:", 1}, // TS 27.007, 8.65
		{"AT+QPINC=\"SC\"", "+QPINC:", 1},      // Quectel
		{"AT+UPINCNT", "+UPINCNT:", 0},         // u-blox
		{"AT+SPIC", "+SPIC:", 0},               // SIMCom
		{"AT#PCT", "#PCT:", 0},                 // Telit
		{"AT^CPIN?", "^CPIN:", 3},              // Huawei
	}
}

// parse reads how many attempts are left of the answer's rest.
func (a attempts) parse(rest string) (int, bool) {
	f := fields(rest)
	if len(f) <= a.field {
		return 0, false
	}
	return number(f[a.field], 10)
}

// parseDigits gives the number that a line has behind a prefix or none: a serial
// number of a modem (15 digits) or of a SIM (18 to 20, the last perhaps an F).
func parseDigits(line, prefix string, least, most int) (string, bool) {
	line = strings.TrimPrefix(line, prefix)
	s := unquote(line)
	trimmed := strings.TrimRight(s, "Ff")
	if len(s) < least || len(s) > most || !isDigits(trimmed) || len(s)-len(trimmed) > 1 {
		return "", false
	}
	return trimmed, true
}

// field is a value between commas.
type field struct {
	text   string
	quoted bool
}

// maxFields bounds what a line may have.
const maxFields = 32

// fields splits at commas that are in no quotes.
func fields(s string) (all []field) {
	for s = strings.TrimSpace(s); s != "" && len(all) < maxFields; {
		var f field
		if s[0] == '"' {
			end := strings.IndexByte(s[1:], '"')
			if end < 0 {
				return all // cut off
			}
			f, s = field{s[1 : 1+end], true}, s[end+2:]
			_, s, _ = strings.Cut(s, ",")
		} else {
			f.text, s, _ = strings.Cut(s, ",")
			f.text = strings.TrimSpace(f.text)
		}
		s = strings.TrimSpace(s)
		all = append(all, f)
	}
	return all
}

func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	return s
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// number gives a field from 0 to most.
func number(f field, most int) (int, bool) {
	if !isDigits(f.text) || len(f.text) > 3 {
		return 0, false
	}
	n, err := strconv.Atoi(f.text)
	return n, err == nil && n <= most
}
