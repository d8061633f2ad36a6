package modem

import (
	"fmt"
	"strings"
	"testing"
)

// The lines are those of the makers' own documentation: 3GPP TS 27.007; SIM800
// Series AT Command Manual V1.09; Quectel EC2x&EG9x AT Commands Manual V2.0;
// u-blox AT commands manual UBX-13002752.
func TestParseRegistration(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		` 0,1`:                           "registered ",      // all of them
		` 0,5`:                           "roaming ",         // abroad
		` 2,1,"1806","0D5B"`:             "registered ",      // SIM800, AT+CREG=2
		` 2,1,"D509","80D413D",7`:        "registered LTE",   // Quectel EC2x
		` 2,5,"D509","0080D413",2`:       "roaming UMTS",     // Quectel EC2x
		` 2,0,"FFFF","FFFFFFFF",255`:     "not registered ",  // u-blox, without service
		` 2,1,"4E54","44A5",0`:           "registered GPRS",  // u-blox
		` 4,1,"ABCD","AB01",3,,,"0","1"`: "registered EDGE",  // u-blox, with timers
		` 0,3`:                           "denied ",          // the SIM is not activated
		` 0,2`:                           "searching ",       //
		` 0,0`:                           "not registered ",  //
		` 0,4`:                           "unknown ",         //
		` 0,8`:                           "limited service ", // emergency calls
		` 1`:                             "registered ",      // unsolicited, n=1
		` 5,"1A2B","0001F2A3",7`:         "roaming LTE",      // unsolicited, n=2
		` 2,"55A0","000001"`:             "searching ",       // unsolicited, n=2
		``:                               "refused",          //
		` 0,99`:                          "refused",          //
		` "1"`:                           "refused",          //
		` 0,`:                            "not registered ",  // cut off behind <n>: what is left is <stat>
		` 2,1,"18`:                       "registered ",      // cut off
	} {
		r, technology, ok := parseRegistration(line)
		got := fmt.Sprintf("%v %s", r, technology)
		if !ok {
			got = "refused"
		}
		if got != want {
			t.Errorf("%q: %s; want %s", line, got, want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"CSQ: 0,0":                    "-113 RSSI 0 weak",
		"CSQ: 1,99":                   "-111 RSSI 0 weak",
		"CSQ: 14,0":                   "-85 RSSI 0", // SIM800
		"CSQ: 31,99":                  "-51 RSSI 0",
		"CSQ: 99,99":                  "0  0",
		"CSQ: 100,99":                 "-116 RSSI 0 weak", // Quectel, TD-SCDMA
		"CSQ: 191,99":                 "-25 RSSI 0",
		"CSQ: 199,99":                 "0  0",
		"CSQ: 32,0":                   "refused",
		"CSQ: 14":                     "refused",
		"CSQ: -1,0":                   "refused",
		"CESQ: 99,99,255,255,20,80":   "-61 RSRP -100",
		"CESQ: 99,99,255,255,0,0":     "-141 RSRP -200 weak",
		"CESQ: 99,99,255,255,255,24":  "-117 RSRP 0 weak",
		"CESQ: 99,99,62,31,255,255":   "-59 RSCP 0", // u-blox SARA-U2
		"CESQ: 99,99,5,31,255,255":    "-116 RSCP 0 weak",
		"CESQ: 31,0,255,255,255,255":  "-80 RSSI 0",
		"CESQ: 63,99,255,255,255,255": "-48 RSSI 0",
		"CESQ: 99,99,255,255,255,255": "0  0",
		"CESQ: 31,0,255,255,255":      "refused",
		"CESQ: 31,0,255,255,255,999":  "refused",
	} {
		rest, is := strings.CutPrefix(line, "CSQ:")
		parse := parseCSQ
		if !is {
			rest, parse = strings.TrimPrefix(line, "CESQ:"), parseCESQ
		}
		s, ok := parse(rest)
		got := fmt.Sprintf("%d %s %d", s.DBm, s.Kind, s.RSRQ)
		if s.DBm != 0 && s.Weak() {
			got += " weak"
		}
		if !ok {
			got = "refused"
		}
		if got != want {
			t.Errorf("%q: %s; want %s", line, got, want)
		}
	}
}

func TestParseOperatorAndSIM(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		` 0,0,"CHINA MOBILE"`:   "CHINA MOBILE  true", // SIM800
		` 0,0,"CHINA MOBILE",7`: "CHINA MOBILE LTE true",
		` 0,2,"22201",2`:        "22201 UMTS true", // u-blox
		` 0`:                    "  true",          // in no network
		` 1,0,"a,b ""c"`:        "a,b   true",
		``:                      "  false",
		` "x"`:                  "  false",
	} {
		name, technology, ok := parseOperator(line)
		if got := fmt.Sprintf("%s %s %v", name, technology, ok); got != want {
			t.Errorf("%q: %q; want %q", line, got, want)
		}
	}
	for line, want := range map[string]SIM{
		" READY": SIMReady, " SIM PIN": SIMPIN, " SIM PUK": SIMPUK, " SIM PIN2": SIMReady, " PH-SIM PIN": SIMLocked,
		" NOT INSERTED": SIMAbsent, "READY": SIMReady, " PH-NET PIN": SIMLocked, ` "SIM PIN"`: SIMPIN, " whatever": SIMUnknown,
	} {
		if got, ok := parseCPIN(line); got != want || ok != (want != SIMUnknown) {
			t.Errorf("%q: %q, %v; want %q", line, got, ok, want)
		}
	}
	for code, want := range map[string]SIM{
		"10": SIMAbsent, "SIM not inserted": SIMAbsent, "11": SIMPIN, "12": SIMPUK, "13": SIMFailure, "14": SIMBusy, "15": SIMFailure, "3": SIMUnknown, "": SIMUnknown,
	} {
		if got, _ := simError(code); got != want {
			t.Errorf("error %q: %q; want %q", code, got, want)
		}
	}
}

func TestParseAttempts(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		`+CPINR: SIM PIN,3,3`:       3,  // TS 27.007
		`+QPINC: "SC",2,10`:         2,  // Quectel
		`+UPINCNT: 1,3,10,10`:       1,  // u-blox: PIN, PIN2, PUK, PUK2
		`+SPIC: 3,10,0,10`:          3,  // SIMCom
		`#PCT: 3`:                   3,  // Telit
		`^CPIN: SIM PIN,,10,3,10,3`: 3,  // Huawei
		`+QPINC: "SC"`:              -1, // cut off
		`+UPINCNT: x`:               -1,
		`+SPIC: 300`:                -1,
	} {
		got := -1
		for _, c := range attemptCommands() {
			if rest, ok := strings.CutPrefix(line, c.prefix); ok {
				if n, ok := c.parse(rest); ok {
					got = n
				}
			}
		}
		if got != want {
			t.Errorf("%q: %d; want %d", line, got, want)
		}
	}
}

func TestParseDigits(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"89860025128306012474":            "89860025128306012474", // SIM800, AT+CCID
		"+QCCID: 89860025128306012474":    "89860025128306012474",
		"+CCID: 8939107900010087330":      "8939107900010087330", // u-blox
		"+ICCID: 898602F":                 "",
		"+CCID: \"8939107900010087330F\"": "8939107900010087330",
		"OK":                              "",
		"RING":                            "",
		"898600251283060124FF":            "",
	} {
		got := ""
		for _, prefix := range []string{"+CCID:", "+QCCID:", "+ICCID:"} {
			if s, ok := parseDigits(line, prefix, 18, 22); ok {
				got = s
			}
		}
		if got != want {
			t.Errorf("%q: %q; want %q", line, got, want)
		}
	}
	if imei, ok := parseDigits("357164042305829", "+CGSN:", 14, 17); imei != "357164042305829" || !ok {
		t.Errorf("%q, %v", imei, ok)
	}
}

// Whatever is cut off is refused or read as far as it goes, and nothing is made up:
// a signal is within what there is.
func FuzzParse(f *testing.F) {
	for _, s := range []string{` 2,1,"D509","80D413D",7`, ` 99,99,255,255,20,80`, ` 0,0,"CHINA MOBILE",7`, ` SIM PIN`, ` "SC",2,10`} {
		for i := range len(s) {
			f.Add(s[:i])
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, parse := range []func(string) (Signal, bool){parseCSQ, parseCESQ} {
			if got, ok := parse(s); ok && got.DBm != 0 && (got.DBm < -141 || got.DBm > -25 || got.Kind == "") {
				t.Errorf("%q: %+v", s, got)
			}
		}
		if r, _, ok := parseRegistration(s); ok && r > Limited {
			t.Errorf("%q: %v", s, r)
		}
		if _, ok := parseCPIN(s); ok && strings.TrimSpace(s) == "" {
			t.Errorf("%q is a SIM", s)
		}
		for _, c := range attemptCommands() {
			if n, ok := c.parse(s); ok && (n < 0 || n > 10) {
				t.Errorf("%q: %d attempts", s, n)
			}
		}
		if n := len(fields(s)); n > maxFields {
			t.Errorf("%d fields", n)
		}
	})
}
