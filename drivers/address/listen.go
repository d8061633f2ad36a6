package address

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Listen is where to listen for what meters push.
type Listen struct {
	Network, Host string  // for net; empty on a line
	Line          Address // of a line: settings and where it is
	Confirm       bool    // on a line: senders hear
	Secrets       Address // the keys of the meters, and our title: nothing else in it counts
	Meter         Title   // of a meter that does not tell it
}

// IsLine says whether it is a line, and not a port of this machine.
func (a *Listen) IsLine() bool { return a.Network == "" }

// ParseListen reads an address of this machine, or a line:
//
//	tcp://[HOST][:4059], dlms+wrapper://… the same, dlms+udp://…
//	serial:///dev/ttyUSB0?baud=2400&format=8E1, dlms+hdlc://… the same
//	dlms+hdlc://HOST:PORT   a serial server
//
// with the keys ek, ak, suite, title (ours) and meter (its title). No host is
// every address of the machine. Errors quote nothing that may be a secret.
func ParseListen(text string) (Listen, error) {
	const want = "want tcp://[HOST][:4059], dlms+wrapper://…, dlms+udp://…, serial:///dev/ttyUSB0 or dlms+hdlc://…"
	var at Listen
	scheme, rest, ok := strings.Cut(text, "://")
	where, query, _ := strings.Cut(rest, "?")
	switch scheme = strings.ToLower(scheme); scheme {
	case "tcp", "dlms+wrapper":
		at.Network = "tcp"
	case "udp", "dlms+udp":
		at.Network = "udp"
	case "serial", "dlms+hdlc":
		return at.onLine(scheme, where, query)
	default:
		ok = false
	}
	if !ok {
		return at, errors.New("unknown scheme: " + want)
	}
	where = strings.TrimSuffix(where, "/")
	if strings.Contains(where, "@") {
		return at, errors.New("credentials do not stand before the host")
	}
	host, port := splitPort(where)
	if port == "" {
		port = ":4059"
	}
	_, perr := strconv.ParseUint(port[1:], 10, 16)
	named := host == ""
	if !named {
		host, named = canonicalHost(host)
	}
	if !named || perr != nil {
		return at, errors.New("neither host nor port: " + want)
	}
	at.Host = host + port
	_, err := at.query(query)
	return at, err
}

// onLine reads the address of a line. What is of the line, its own parser reads.
func (a Listen) onLine(scheme, where, query string) (Listen, error) {
	own, err := a.query(query)
	if err != nil {
		return a, err
	}
	if scheme == "serial" && !strings.HasPrefix(where, "/") && !strings.HasPrefix(where, ".") {
		return a, errors.New("a serial port is an absolute path after three slashes: want serial:///dev/ttyUSB0")
	}
	text := string(DLMSHDLC) + "://" + where
	if len(own) > 0 {
		text += "?" + strings.Join(own, "&")
	}
	a.Line, err = Parse(text)
	return a, err
}

// query reads the keys; it gives those of a line as they are.
func (a *Listen) query(query string) (own []string, err error) {
	if query == "" {
		return nil, nil
	}
	s := &a.Secrets.Security
	for i, part := range strings.Split(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		value, err := unescape(value)
		if err != nil || value == "" {
			return nil, fmt.Errorf("part %d of the query: want KEY=VALUE, with %%26 for '&'", i+1)
		}
		switch {
		case name == "ek":
			s.EK, err = ParseSecret(value)
		case name == "ak":
			s.AK, err = ParseSecret(value)
		case name == "suite":
			var n uint64
			if n, err = strconv.ParseUint(value, 10, 8); err != nil || n > 2 {
				err = errors.New("want 0, 1 or 2")
			}
			s.Suite = uint8(n)
		case name == "title":
			s.Title, err = ParseTitle(value)
		case name == "meter":
			a.Meter, err = ParseTitle(value)
		case a.IsLine() && (name == "baud" || name == "format"):
			own = append(own, part)
		case a.IsLine() && name == "confirm":
			if a.Confirm = value == "yes"; !a.Confirm && value != "no" {
				err = errors.New("want yes or no")
			}
		case a.IsLine():
			return nil, fmt.Errorf("part %d of the query: unknown key: want baud, format, confirm, ek, ak, suite, title or meter", i+1)
		default:
			return nil, fmt.Errorf("part %d of the query: unknown key: want ek, ak, suite, title or meter", i+1)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if s.EK.IsZero() && (!s.AK.IsZero() || s.Suite != 0) {
		return nil, errors.New("ek: missing: ak and suite need the encryption key beside them")
	}
	return own, nil
}

// ParseTitle reads a system title: 16 hexadecimal digits.
func ParseTitle(text string) (t Title, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(t) {
		return t, fmt.Errorf("want %d hexadecimal digits", 2*len(t))
	}
	return Title(b), nil
}
