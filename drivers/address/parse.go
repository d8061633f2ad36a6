package address

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxLength bounds an address, in bytes.
const maxLength = 4096

// KeyError says what is wrong with one key of an address. Text never quotes a
// secret.
type KeyError struct {
	Key  string // "" when it is not about a key
	Text string
}

func (e *KeyError) Error() string {
	if e.Key == "" {
		return e.Text
	}
	return e.Key + ": " + e.Text
}

// Parse reads an address. All that is wrong with it is in the error, joined:
// *KeyError each.
func Parse(s string) (Address, error) { return parse(s, parser{}) }

func parse(s string, p parser) (Address, error) {
	a := Address{}
	rest, ok := p.scheme(&a, s)
	if !ok {
		return Address{}, errors.Join(p.errs...)
	}
	where, query, _ := strings.Cut(rest, "?")
	if isPort(a.Scheme, where) {
		switch {
		case a.Scheme.isIEC21():
			a.SignOn, a.DataBits, a.Parity, a.StopBits = 300, 7, 'E', 1
		case a.Scheme.signsOn():
			a.SignOn = 300
		default:
			a.Baud, a.DataBits, a.Parity, a.StopBits = 9600, 8, 'N', 1
		}
		p.port(&a, where)
	} else {
		p.host(&a, where)
	}
	if a.Scheme.IsDLMS() {
		a.Client, a.Server, a.Auth, a.Ref = 16, 1, AuthNone, "ln"
		a.Security.Protection = Unprotected
	}
	if a.Scheme.IsPLC() {
		p.plc(&a)
	}
	seen := p.query(&a, query)
	p.together(&a, seen)
	if len(p.errs) > 0 {
		return Address{}, errors.Join(p.errs...)
	}
	return a, nil
}

type parser struct {
	errs []error
	line bool // the address is of a line, not of a meter on it
}

func (p *parser) fail(key, format string, args ...any) {
	p.errs = append(p.errs, &KeyError{Key: key, Text: fmt.Sprintf(format, args...)})
}

// scheme takes the scheme off s. ok is false when the rest cannot be read
// without it.
func (p *parser) scheme(a *Address, s string) (rest string, ok bool) {
	if len(s) > maxLength {
		p.fail("", "is longer than %d bytes", maxLength)
		return "", false
	}
	name, rest, found := strings.Cut(s, "://")
	if !found {
		p.fail("", "want SCHEME://…, with the scheme one of %s", schemeList())
		return "", false
	}
	scheme := Scheme(strings.ToLower(name))
	switch {
	case slices.Contains(Schemes(), scheme):
		a.Scheme = scheme
	case slices.Contains(laterSchemes(), scheme):
		p.fail("", "%s is not in this version; it has %s", scheme, schemeList())
		return "", false
	default:
		// Not quoted: what stands before the first :// may be anything.
		p.fail("", "unknown scheme: want one of %s", schemeList())
		return "", false
	}
	if strings.ContainsRune(rest, '#') {
		p.fail("", "a '#' has no meaning here; in a value write it as %%23")
		return "", false
	}
	return rest, true
}

func schemeList() string {
	var names []string
	for _, s := range Schemes() {
		names = append(names, string(s))
	}
	return strings.Join(names, ", ")
}

// port reads the path of a serial port.
func (p *parser) port(a *Address, where string) {
	dev, err := unescape(where)
	relative := strings.HasPrefix(dev, "./") || strings.HasPrefix(dev, "../")
	switch {
	case err != nil:
		p.fail("", "the serial port's path: %v", err)
	case dev == "":
		p.fail("", "no serial port: want %s:///dev/ttyS1", a.Scheme)
	case !strings.HasPrefix(dev, "/") && !relative:
		p.fail("", "a serial port is an absolute path after three slashes: want %s:///dev/ttyS1", a.Scheme)
	case !printable(dev) || strings.HasSuffix(dev, "/"):
		p.fail("", "the serial port's path is not one of a device: want %s:///dev/ttyS1", a.Scheme)
	default:
		a.Line = path.Clean(dev)
		if relative && !strings.HasPrefix(a.Line, "../") {
			a.Line = "./" + a.Line
		}
		if base := path.Base(a.Line); base == "." || base == ".." || base == "/" {
			p.fail("", "the serial port's path is a directory: want %s:///dev/ttyS1", a.Scheme)
		}
	}
}

// host reads host and port of a line over TCP.
func (p *parser) host(a *Address, where string) {
	want := string(a.Scheme) + "://HOST:PORT"
	if n := a.Scheme.defaultPort(); n != 0 {
		want = fmt.Sprintf("%s://HOST[:%d]", a.Scheme, n)
	}
	where, ok := strings.CutSuffix(where, "/")
	where, err := unescape(where)
	switch {
	case err != nil:
		p.fail("", "the host: %v", err)
		return
	case where == "" && ok:
		p.fail("", "no host: want %s, with two slashes", want)
		return
	case where == "":
		p.fail("", "no host: want %s", want)
		return
	case strings.Contains(where, "@"):
		p.fail("", "credentials do not stand before the host: write them as keys, password=file:/PATH")
		return
	}
	host, port := splitPort(where)
	if port == "" && a.Scheme.defaultPort() != 0 {
		port = ":" + strconv.Itoa(a.Scheme.defaultPort())
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(port, ":"), 10, 16)
	if err != nil || n == 0 || !digits(port[min(1, len(port)):]) {
		p.fail("", "the port: want 1 to 65535, as in %s", want)
	}
	host, ok = canonicalHost(host)
	if !ok {
		p.fail("", "the host is neither a name nor an IP address: want %s, an IPv6 address in [brackets]", want)
	}
	a.Line = host + ":" + strconv.FormatUint(n, 10)
}

// splitPort takes the port off, with its colon.
func splitPort(s string) (host, port string) {
	if at := strings.LastIndexByte(s, ':'); at > strings.LastIndexByte(s, ']') {
		return s[:at], s[at:]
	}
	return s, ""
}

// canonicalHost gives one spelling to a host, since lines are compared by it.
func canonicalHost(s string) (string, bool) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		if !ok || err != nil || !ip.Is6() || !hostChars(ip.Zone()) {
			return "", false
		}
		if ip.Is4In6() {
			return ip.Unmap().String(), true
		}
		return "[" + ip.String() + "]", true
	}
	s = strings.ToLower(s)
	if s == "" || len(s) > 253 || !hostChars(s) || s[0] == '-' || s[0] == '.' {
		return "", false
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.String(), true
	}
	// What looks like an IPv4 address and is none would be asked of the DNS.
	return s, strings.Trim(s, "0123456789.") != ""
}

func hostChars(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// together checks what no key can check alone.
func (p *parser) together(a *Address, seen []string) {
	has := func(key string) bool { return slices.Contains(seen, key) }
	if !a.IsSerial() && a.Scheme.hasSettings() {
		for _, key := range []string{"baud", "format"} {
			if has(key) {
				p.fail(key, "is of serial ports; a serial server has settings of its own")
			}
		}
	}
	if !a.IsSerial() && a.Scheme.isIEC21() && has("format") {
		p.fail("format", "is of serial ports; a serial server has settings of its own")
	}
	if has("password") && (a.Mode == ModeA || a.Mode == ModeB) {
		p.fail("password", "is given, but mode=%s has nothing that wants one", a.Mode)
	}
	for _, key := range []string{"signon", "rs485"} {
		if !a.IsSerial() && has(key) {
			p.fail(key, "is of serial ports; a serial server has settings of its own")
		}
	}
	if a.Scheme == DLMSUDP && a.Ref == "sn" {
		p.fail("ref", "sn is not for UDP: short names do not number their requests, and a late answer would be taken for another's")
	}
	if a.Scheme.IsHDLC() {
		p.hdlc(a)
	}
	if a.Scheme.IsModbus() && !p.line {
		if !has("unit") {
			p.fail("unit", "missing: want unit=N, the meter's address on the line")
		}
		if !has("model") {
			p.fail("model", "missing: want model=NAME, the meter's register map")
		}
	}
	if a.Scheme.IsPLC() {
		p.plcTogether(a, has)
	}
	if a.Scheme.IsDLMS() {
		p.securityTogether(a, has)
	}
}

// hdlc checks that client, server and physical fit into the octets they have
// (IEC 62056-46, 6.4.2.3).
func (p *parser) hdlc(a *Address) {
	if a.Client > 0x7F {
		p.fail("client", "want 1 to 127 over HDLC")
	}
	half := uint16(1<<14 - 1)
	if a.AddrLen == 1 || a.AddrLen == 2 {
		half = 1<<7 - 1
	}
	if a.Server > half {
		p.fail("server", "want 1 to %d over HDLC with addrlen=%d", half, a.AddrLen)
	}
	switch {
	case a.AddrLen == 1 && a.Physical != 0:
		p.fail("physical", "has no room in an address of one octet: want addrlen=2 or addrlen=4")
	case a.Physical > half:
		p.fail("physical", "want 1 to %d with addrlen=%d", half, a.AddrLen)
	}
}

// unescape undoes %XX. The error does not quote s.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("a '%' is not followed by two hexadecimal digits; write '%' itself as %25")
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", errors.New("a '%' is not followed by two hexadecimal digits; write '%' itself as %25")
		}
		b = append(b, byte(n))
		i += 2
	}
	return string(b), nil
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// number reads a decimal number in a range.
func (p *parser) number(key, s string, low, high uint64) uint64 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || !digits(s) || n < low || n > high {
		p.fail(key, "want a number, %d to %d", low, high)
		return 0
	}
	return n
}

// duration reads a time-out.
func (p *parser) duration(key, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil || d < MinTimeout || d > MaxTimeout {
		p.fail(key, "want a duration with a unit, %v to %v, such as 1500ms", MinTimeout, MaxTimeout)
		return 0
	}
	return d
}
