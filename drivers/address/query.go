package address

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// key is one key of the query.
type key struct {
	name   string
	fits   func(Scheme) bool
	set    func(p *parser, a *Address, value string)
	secret bool
}

func anyScheme(Scheme) bool { return true }

// keys is the whole language of queries.
func keys() []key {
	all := []key{
		{name: "client", fits: Scheme.IsDLMS, set: func(p *parser, a *Address, v string) {
			a.Client = uint16(p.number("client", v, 1, 0xffff))
		}},
		{name: "server", fits: Scheme.IsDLMS, set: func(p *parser, a *Address, v string) {
			a.Server = uint16(p.number("server", v, 1, 0xffff))
		}},
		{name: "ref", fits: Scheme.IsDLMS, set: setRef},
		{name: "physical", fits: Scheme.hasStation, set: func(p *parser, a *Address, v string) {
			a.Physical = uint16(p.number("physical", v, 1, 1<<14-1))
		}},
		{name: "addrlen", fits: Scheme.hasStation, set: setAddrLen},
		{name: "info", fits: Scheme.IsHDLC, set: func(p *parser, a *Address, v string) {
			a.Info = uint16(p.number("info", v, 32, 2030))
		}},
		{name: "window", fits: Scheme.IsHDLC, set: func(p *parser, a *Address, v string) {
			a.Window = uint8(p.number("window", v, 1, 7))
		}},
		{name: "unit", fits: Scheme.IsModbus, set: setUnit},
		{name: "model", fits: Scheme.hasModel, set: setModel},
		{name: "signon", fits: Scheme.signsOn, set: func(p *parser, a *Address, v string) {
			a.SignOn = p.baud("signon", v, signOnRates())
		}},
		{name: "address", fits: Scheme.signsOn, set: setDevice},
		{name: "mode", fits: Scheme.isIEC21, set: setMode},
		{name: "baud", fits: Scheme.hasBaud, set: setBaud},
		{name: "format", fits: Scheme.hasFormat, set: setFormat},
		{name: "rs485", fits: Scheme.hasBaud, set: func(p *parser, a *Address, v string) {
			if a.RS485 = v; v != RS485High && v != RS485Low {
				p.fail("rs485", "want high or low: what RTS is while the port sends")
			}
		}},
		{name: "timeout", fits: anyScheme, set: func(p *parser, a *Address, v string) {
			a.Timeout = p.duration("timeout", v)
		}},
	}
	all = append(all, plcKeys()...)
	return slices.Insert(all, 2, securityKeys()...)
}

// query reads the keys and gives the names of those it met.
func (p *parser) query(a *Address, query string) (seen []string) {
	if query == "" {
		return nil
	}
	afterSecret := ""
	for i, part := range strings.Split(query, "&") {
		name, value, hasValue := strings.Cut(part, "=")
		at := slices.IndexFunc(keys(), func(k key) bool { return k.name == name })
		switch {
		case at < 0 && afterSecret != "":
			// A secret with an unescaped '&' ends up here: do not quote it.
			p.fail("", "what follows %s is no key; in a secret write '&' as %%26", afterSecret)
			continue
		case at < 0:
			p.unknown(i+1, name, hasValue, a.Scheme)
			continue
		}
		k := keys()[at]
		if afterSecret = ""; k.secret {
			afterSecret = name
		}
		first := !slices.Contains(seen, name)
		seen = append(seen, name)
		switch {
		case !first:
			p.fail(name, "is given twice")
		case !k.fits(a.Scheme):
			p.fail(name, "does not belong to %s; it has %s", a.Scheme, keyList(a.Scheme))
		case value == "":
			p.fail(name, "has no value: want %s=VALUE", name)
		default:
			plain, err := unescape(value)
			if err != nil {
				p.fail(name, "%v", err)
				continue
			}
			k.set(p, a, plain)
		}
	}
	return seen
}

// unknown names a key only when it has the looks of one: what stands there may
// be a piece of a secret that was not escaped.
func (p *parser) unknown(nth int, name string, hasValue bool, s Scheme) {
	what := fmt.Sprintf("part %d of the query", nth)
	if hasValue && name != "" && len(name) <= 16 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_-") == "" {
		what = name
	}
	p.fail("", "%s: unknown key; %s has %s", what, s, keyList(s))
}

func keyList(s Scheme) string {
	var names []string
	for _, k := range keys() {
		if k.fits(s) {
			names = append(names, k.name)
		}
	}
	return strings.Join(names, ", ")
}

func setRef(p *parser, a *Address, v string) {
	if v != "ln" && v != "sn" {
		p.fail("ref", "want ln or sn: logical names, or the short names of old meters")
		return
	}
	a.Ref = v
}

func setAddrLen(p *parser, a *Address, v string) {
	if v != "1" && v != "2" && v != "4" {
		p.fail("addrlen", "want 1, 2 or 4: the octets of the meter's address")
		return
	}
	a.AddrLen = v[0] - '0'
}

func setUnit(p *parser, a *Address, v string) {
	low, high := uint64(1), uint64(247) // Modbus over serial line V1.02, 2.2
	if a.Scheme == ModbusTCP {
		low, high = 0, 255 // 0 and 255 mean the server itself
	}
	a.Unit = uint8(p.number("unit", v, low, high))
}

func setModel(p *parser, a *Address, v string) {
	if len(v) > 32 || strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		p.fail("model", "want the name of a model: 1 to 32 characters of a-z, 0-9 and '-'")
		return
	}
	a.Model = v
}

// baudRates are the rates that serial ports of gateways have.
func baudRates() []int {
	return []int{300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400}
}

// signOnRates are those of IEC 62056-21.
func signOnRates() []int { return baudRates()[:7] }

func setBaud(p *parser, a *Address, v string) {
	rates := baudRates()
	if a.Scheme.signsOn() {
		rates = signOnRates()
	}
	a.Baud = p.baud("baud", v, rates)
}

func (p *parser) baud(key, v string, rates []int) int {
	n, err := strconv.Atoi(v)
	if err != nil || !digits(v) || !slices.Contains(rates, n) {
		p.fail(key, "want one of %s", strings.Trim(fmt.Sprint(rates), "[]"))
		return 0
	}
	return n
}

// setDevice reads a device address (IEC 62056-21, 6.3.1).
func setDevice(p *parser, a *Address, v string) {
	if len(v) > 32 || strings.Trim(v, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ") != "" {
		p.fail("address", "want the meter's device address: 1 to 32 digits and letters")
		return
	}
	a.Device = v
}

func setMode(p *parser, a *Address, v string) {
	if v != ModeA && v != ModeB && v != ModeC && v != ModeP {
		p.fail("mode", "want a, b or c, the mode of the meter's readout, or p: no readout, but registers one by one")
		return
	}
	a.Mode = v
}

// setFormat reads data bits, parity and stop bits. RTU and HDLC frames need
// eight data bits (Modbus over serial line V1.02, 2.5.1).
func setFormat(p *parser, a *Address, v string) {
	v = strings.ToUpper(v)
	if a.Scheme.isIEC21() {
		if v != "7E1" && v != "8N1" {
			p.fail("format", "want 7E1, or 8N1 where the adapter or the head does the parity")
			return
		}
		a.DataBits, a.Parity, a.StopBits = int(v[0]-'0'), v[1], 1
		return
	}
	if len(v) != 3 || v[0] != '8' || strings.IndexByte("NEO", v[1]) < 0 || strings.IndexByte("12", v[2]) < 0 {
		p.fail("format", "want 8N1, 8E1, 8O1, 8N2, 8E2 or 8O2")
		return
	}
	a.DataBits, a.Parity, a.StopBits = 8, v[1], int(v[2]-'0')
}
