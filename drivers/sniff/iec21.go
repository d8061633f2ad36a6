package sniff

import (
	"bytes"
	"fmt"
	"strings"
)

// iecTalk is a conversation of IEC 62056-21.
type iecTalk struct{}

const (
	soh = 0x01
	stx = 0x02
	etx = 0x03
	eot = 0x04
	ack = 0x06
	nak = 0x15
)

// maxMessage bounds a message that is waited for: a readout, or a piece of a load
// profile.
const maxMessage = 16 << 10

// iecMessage finds a message of IEC 62056-21 (6.3, 6.5): a line, an
// acknowledgement, or a block with its check character.
func iecMessage(b []byte, sure bool) (int, verdict) {
	switch c := b[0] & 0x7F; c {
	case '/':
		return iecLine(b)
	case ack:
		switch {
		case len(b) >= 2 && (b[1]&0x7F < '0' || b[1]&0x7F > '9'):
			return 0, none // one alone is not sure to be one
		case len(b) < 6:
			return 0, partial
		case b[4]&0x7F != '\r' || b[5]&0x7F != '\n':
			return 0, none
		}
		return 6, whole
	case soh, stx:
		return iecBlock(b, sure)
	}
	return 0, none
}

// iecLine finds a sign-on, or an identification: three letters, and no slash
// behind them.
func iecLine(b []byte) (int, verdict) {
	const most = 64
	for i, c := range b {
		switch c &= 0x7F; {
		case i > 0 && i < 4 && b[1]&0x7F != '?' && (c|0x20 < 'a' || c|0x20 > 'z'), i > 0 && c == '/':
			return 0, none
		case c == '\n' && i >= 4 && b[i-1]&0x7F == '\r':
			return i + 1, whole
		case i > most, c < ' ' && c != '\r':
			return 0, none
		}
	}
	return 0, partial
}

// iecBlock finds what is between SOH or STX and ETX or EOT, with the check character
// behind it. A block of a kind that cannot be is none; a short one with a wrong check
// character is one where nothing else is to be expected.
func iecBlock(b []byte, sure bool) (int, verdict) {
	if len(b) >= 2 && b[0]&0x7F == soh && bytes.IndexByte([]byte("PBRWE"), b[1]&0x7F) < 0 {
		return 0, none
	}
	for i, c := range b {
		switch c &= 0x7F; {
		case i > maxMessage, i > 0 && c == soh, i > maxCommand && c == stx:
			return 0, none
		case c == etx || c == eot:
			if i+1 == len(b) {
				return 0, partial
			}
			if i < 2 || !sure && i < sureBlock && !bccGood(b[:i+2]) {
				return 0, none
			}
			return i + 2, whole
		case i > 0 && c < ' ' && c != '\r' && c != '\n' && c != stx:
			return 0, none
		}
	}
	return 0, partial
}

const (
	maxCommand = 3  // octets before STX
	sureBlock  = 16 // octets of text that are no accident, whatever the check character
)

// bccGood says whether a block ends with its check character: all behind the first
// octet, up to the end.
func bccGood(b []byte) bool {
	sum := byte(0)
	for _, c := range b[1 : len(b)-1] {
		sum ^= c & 0x7F
	}
	return sum == b[len(b)-1]&0x7F
}

// message puts a message into words.
func (t *iecTalk) message(f *Frame) {
	b := make([]byte, len(f.Octets))
	for i, c := range f.Octets {
		b[i] = c & 0x7F
	}
	from := func(d Direction) {
		if f.From == AnyDirection {
			f.From = d
		}
	}
	switch {
	case bytes.HasPrefix(b, []byte("/?")):
		from(FromMaster)
		who := strings.TrimSuffix(strings.TrimSpace(string(b[2:])), "!")
		if who == "" {
			who = "whoever is there"
		}
		f.Text = "sign-on: " + who
	case b[0] == '/':
		from(FromMeter)
		f.Text = fmt.Sprintf("identification: %s", strings.TrimSpace(string(b[1:])))
	case b[0] == ack:
		f.Text = "option: " + option(b)
		if f.From == AnyDirection {
			f.From = FromMaster
		}
	default:
		t.block(f, b, from)
	}
}

// option says what the three characters behind ACK choose (6.3.5).
func option(b []byte) string {
	const rates = "300 600 1200 2400 4800 9600 19200"
	rate := string(b[2])
	if all := strings.Fields(rates); int(b[2]-'0') < len(all) {
		rate = all[b[2]-'0'] + " bit/s"
	}
	mode := map[byte]string{'0': "readout", '1': "programming mode", '2': "HDLC, mode E"}[b[3]]
	if mode == "" {
		mode = "mode " + string(b[3])
	}
	return fmt.Sprintf("%s, %s (%s)", mode, rate, b[1:4])
}

// block says what is in one.
func (t *iecTalk) block(f *Frame, b []byte, from func(Direction)) {
	body := b[1 : len(b)-1]
	end := body[len(body)-1]
	text := string(bytes.TrimRight(body, "\x03\x04"))
	if b[0] == soh {
		from(FromMaster)
		if strings.HasPrefix(text, "P0") {
			f.From = FromMeter
		}
		text = command(text)
	} else {
		from(FromMeter)
		lines := strings.Split(strings.TrimRight(strings.TrimSuffix(strings.TrimSpace(text), "!"), "\r\n"), "\r\n")
		text = strings.Join(lines, "  ")
		if len(lines) > 1 {
			text = fmt.Sprintf("%d data lines: %s", len(lines), text)
		}
	}
	if end == eot {
		text += " (more follows)"
	}
	if !bccGood(b) {
		f.Bad = true
		text = fmt.Sprintf("wrong check character %02X: %s", b[len(b)-1], text)
	}
	f.Text = text
}

// command names a command of the programming mode; a password is not shown.
func command(s string) string {
	name, rest, _ := strings.Cut(s, "\x02")
	switch {
	case name == "P0":
		return "password wanted, operand " + rest
	case strings.HasPrefix(name, "P"):
		return name + ": password (***)"
	case strings.HasPrefix(name, "R"):
		return name + ": read " + rest
	case strings.HasPrefix(name, "W"):
		return name + ": write " + rest
	case strings.HasPrefix(name, "E"):
		return name + ": execute " + rest
	case name == "B0":
		return "B0: end"
	}
	return name + " " + rest
}
