// Package address reads the URLs that say where a meter is and how to speak
// with it. The same string stands in a configuration and on a command line:
//
//	dlms+wrapper://HOST[:4059]?client=16&server=1&auth=lls&password=file:/PATH
//	dlms+hdlc:///dev/ttyS1?baud=9600&client=16&server=1&physical=17&addrlen=4
//	dlms+hdlc://HOST:PORT?client=16&server=1
//	dlms+udp://HOST[:4059]?client=16&server=1
//	dlms+modee:///dev/ttyUSB1?signon=300&baud=9600&address=12345678&client=16
//	dlms+modee://HOST:PORT?baud=9600&client=16
//	iec21:///dev/ttyUSB1?address=12345678&password=file:/PATH
//	iec21://HOST:PORT?baud=4800
//	modbus+tcp://HOST[:502]?unit=1&model=NAME
//	modbus+rtu:///dev/ttyS1?baud=9600&format=8N1&unit=7&model=NAME
//	modbus+rtuovertcp://HOST:PORT?unit=7&model=NAME
//
// Meters behind the bridges of power lines: see plc.go.
//
//	plc+prime://HOST[:4059]?node=SERIAL&client=16
//	plc+gateway://HOST[:4059]?network=0&node=0A1B2C&client=16
//	plc+gateway:///dev/ttyS2?baud=9600&network=0&node=0A1B2C&client=16
//	plc+g3://[IPV6][:4059]?client=16
//
// Keys that stand with every scheme: timeout=2s. Keys of DLMS: client, server,
// ref=ln|sn, auth=none|lls|hls2|md5|sha1|gmac|sha256|ecdsa, password,
// security=none|auth|enc|authenc, suite=0|1|2, title (the client's), meter (the
// meter's title, by which its ciphered pushes are known), the secrets
// ek and ak (keys), sk and pk (our signing key, the meter's public one), and
// ic=OBIS|none (where the meter shows its invocation counter), and model (what
// is known of meters of its kind). Keys of HDLC:
// physical, addrlen, info and window (the maximum information field length and
// the window size that the SNRM proposes, 32 to 2030 octets and 1 to 7 frames;
// unless told, what the line carries well. info=128&window=1 proposes nothing,
// for meters that do not like to be told). Keys of mode E, beside these: baud (the highest rate taken;
// else what the meter offers), address (of the device), and on a serial port
// signon (the rate at which it is called). IEC 62056-21 has these three, too,
// password (of the programming mode), mode=a|b|c (what the meter has, where it
// does not say) or mode=p (registers one by one, no readout), and on a serial
// port format=7E1|8N1. Keys of Modbus: unit, model. Keys of
// other serial ports: baud, format. Any serial port: rs485=high|low, where the
// kernel has to switch the direction of an RS-485 port; it says what RTS is while
// the port sends. A serial port is an absolute path after three slashes,
// or a path that begins with ./ or ../ after two, relative to the working
// directory. %XX stands for a byte everywhere behind the scheme; '+' is '+'.
//
// Parsing is strict, and no error quotes what may be a secret. The package is
// pure: it opens and looks up nothing.
package address

import (
	"strconv"
	"strings"
	"time"
)

// Scheme is the protocol and the transport of an address.
type Scheme string

// The schemes of this version.
const (
	DLMSWrapper      Scheme = "dlms+wrapper"      // DLMS over TCP, IEC 62056-47
	DLMSHDLC         Scheme = "dlms+hdlc"         // DLMS over HDLC, IEC 62056-46, on a serial port or through a serial server
	DLMSUDP          Scheme = "dlms+udp"          // DLMS over UDP, IEC 62056-47
	DLMSModeE        Scheme = "dlms+modee"        // DLMS over HDLC, after a sign-on with IEC 62056-21, mode E
	IEC21            Scheme = "iec21"             // the text protocol of IEC 62056-21: readout and registers
	ModbusTCP        Scheme = "modbus+tcp"        // Modbus over TCP with MBAP header
	ModbusRTU        Scheme = "modbus+rtu"        // Modbus RTU on a serial port
	ModbusRTUOverTCP Scheme = "modbus+rtuovertcp" // Modbus RTU frames through a serial server
	PLCGateway       Scheme = "plc+gateway"       // DLMS behind a gateway, by its header, over TCP or HDLC
	PLCPrime         Scheme = "plc+prime"         // DLMS behind a PRIME base node, by its TCP protocol
	PLCG3            Scheme = "plc+g3"            // DLMS over UDP on G3-PLC
)

// Schemes lists the schemes that Parse accepts.
func Schemes() []Scheme {
	return []Scheme{DLMSWrapper, DLMSHDLC, DLMSUDP, DLMSModeE, IEC21, ModbusTCP, ModbusRTU, ModbusRTUOverTCP, PLCGateway, PLCPrime, PLCG3}
}

// laterSchemes are known and refused with a word of their own.
func laterSchemes() []Scheme {
	return []Scheme{
		"serial", "tcp",
	}
}

// IsDLMS says whether a meter of this scheme speaks DLMS/COSEM.
func (s Scheme) IsDLMS() bool { return strings.HasPrefix(string(s), "dlms+") || s.IsPLC() }

// IsHDLC says whether frames are those of HDLC.
func (s Scheme) IsHDLC() bool { return s == DLMSHDLC || s == DLMSModeE }

// signsOn says whether a meter is signed on to first, by IEC 62056-21.
func (s Scheme) signsOn() bool { return s == DLMSModeE || s == IEC21 }

func (s Scheme) isIEC21() bool { return s == IEC21 }

func (s Scheme) hasModel() bool { return s.IsModbus() || s.IsDLMS() }

func (s Scheme) hasPassword() bool { return s.IsDLMS() || s.isIEC21() }

// IsModbus says whether a meter of this scheme speaks Modbus.
func (s Scheme) IsModbus() bool { return strings.HasPrefix(string(s), "modbus+") }

// hasSettings says whether the line may be a serial port of this machine that
// has one setting for good.
func (s Scheme) hasSettings() bool { return s == ModbusRTU || s == DLMSHDLC || s == PLCGateway }

func (s Scheme) hasBaud() bool { return s.hasSettings() || s.signsOn() }

func (s Scheme) hasFormat() bool { return s.hasSettings() || s.isIEC21() }

// IsSerial says whether the line is a serial port of this machine.
func (a Address) IsSerial() bool { return isPort(a.Scheme, a.Line) }

// isPort says whether where is a serial port. HDLC has both: a port begins
// with what no host does.
func isPort(s Scheme, where string) bool {
	return s == ModbusRTU || (s.IsHDLC() || s.isIEC21() || s == PLCGateway) &&
		(strings.HasPrefix(where, "/") || strings.HasPrefix(where, "./") || strings.HasPrefix(where, "../"))
}

// defaultPort is the port that a scheme implies, 0 when it implies none.
func (s Scheme) defaultPort() int {
	switch s {
	case DLMSWrapper, DLMSUDP, PLCGateway, PLCPrime, PLCG3:
		return 4059
	case ModbusTCP:
		return 502
	case ModbusRTU, ModbusRTUOverTCP, DLMSHDLC, DLMSModeE, IEC21:
	}
	return 0
}

// Address is where a meter is and how to speak with it. It holds every value
// that a driver needs, defaults filled in. Addresses compare with ==.
type Address struct {
	Scheme Scheme
	// Line is the key of the physical medium that meters share: the path of a
	// serial port, or host:port with the port filled in.
	Line string

	// The settings of a serial port; zero on other lines.
	Baud     int    // bits a second; 9600 unless told. After a sign-on: the highest taken, 0 is any
	DataBits int    // 8; 7 or 8 with IEC21
	Parity   byte   // 'N', 'E' or 'O'
	StopBits int    // 1 or 2
	RS485    string // "", or what RTS is while the port sends: the kernel switches its direction

	// DLMS; zero elsewhere.
	Client   uint16 // client address (wrapper port); 16, public client, unless told
	Server   uint16 // logical device (wrapper port); 1, management, unless told
	Auth     Auth
	Password Secret
	Security Security
	Ref      string // referencing: "ln", or "sn" for short names

	// HDLC and PLCGateway on a serial port; zero elsewhere.
	Physical uint16 // address of the device on its line; 0 is none
	AddrLen  uint8  // octets of the meter's address: 1, 2 or 4; 0 is as few as do
	Info     uint16 // the longest information field that is proposed, in octets; 0 is the driver's own
	Window   uint8  // the window size that is proposed, in frames; 0 is the driver's own

	PLC // zero elsewhere

	// Mode is how a meter of IEC21 is read: ModeA, ModeB, ModeC, ModeP, or "" as
	// it says itself.
	Mode string

	// Mode E and IEC21; zero elsewhere.
	SignOn int    // rate of the sign-on on a serial port, in bits a second; 300 unless told
	Device string // device address; "" is whoever is there

	Unit uint8 // Modbus; zero elsewhere

	// Model is the name of a register map of Modbus, or of what is known of the
	// meters of a model of DLMS; "" is a meter by the standard.
	Model string

	// Timeout is how long to wait for an answer; 0 is the driver's own.
	Timeout time.Duration
}

// The values of RS485.
const (
	RS485High = "high"
	RS485Low  = "low"
)

// The values of Mode.
const (
	ModeA = "a"
	ModeB = "b"
	ModeC = "c"
	ModeP = "p" // registers one by one, in the programming mode
)

// The range of Timeout.
const (
	MinTimeout = 50 * time.Millisecond
	MaxTimeout = 2 * time.Minute
)

// String gives the address in canonical form, every key written out. A literal
// secret is shown as ***; apart from that Parse gives a back.
func (a Address) String() string {
	var keys [][2]string
	switch {
	case a.Scheme.signsOn():
		keys = a.signOnKeys()
	case a.IsSerial():
		keys = append(keys, [2]string{"baud", strconv.Itoa(a.Baud)},
			[2]string{"format", a.format()})
	}
	if a.Scheme.IsDLMS() {
		keys = append(keys, [2]string{"client", strconv.Itoa(int(a.Client))}, [2]string{"server", strconv.Itoa(int(a.Server))},
			[2]string{"auth", string(a.Auth)}, [2]string{"password", a.Password.String()}, [2]string{"ref", a.Ref})
		keys = append(keys, a.Security.keys(a)...)
	}
	if a.RS485 != "" {
		keys = append(keys, [2]string{"rs485", a.RS485})
	}
	if a.Physical != 0 {
		keys = append(keys, [2]string{"physical", strconv.Itoa(int(a.Physical))})
	}
	if a.AddrLen != 0 {
		keys = append(keys, [2]string{"addrlen", strconv.Itoa(int(a.AddrLen))})
	}
	if a.Info != 0 {
		keys = append(keys, [2]string{"info", strconv.Itoa(int(a.Info))})
	}
	if a.Window != 0 {
		keys = append(keys, [2]string{"window", strconv.Itoa(int(a.Window))})
	}
	if a.Scheme.IsModbus() {
		keys = append(keys, [2]string{"unit", strconv.Itoa(int(a.Unit))})
	}
	keys = append(keys, [2]string{"model", a.Model})
	if a.Timeout != 0 {
		keys = append(keys, [2]string{"timeout", a.Timeout.String()})
	}
	keys = append(keys, a.plcKeys()...)
	b := append([]byte(a.Scheme), "://"...)
	b = escape(b, a.place())
	sep := byte('?')
	for _, k := range keys {
		if k[1] == "" {
			continue
		}
		b = append(append(append(b, sep), k[0]...), '=')
		b = escape(b, k[1])
		sep = '&'
	}
	return string(b)
}

func (a Address) signOnKeys() (keys [][2]string) {
	if a.SignOn != 0 {
		keys = append(keys, [2]string{"signon", strconv.Itoa(a.SignOn)})
	}
	if a.Baud != 0 {
		keys = append(keys, [2]string{"baud", strconv.Itoa(a.Baud)})
	}
	keys = append(keys, [2]string{"address", a.Device})
	if a.Scheme.isIEC21() {
		keys = append(keys, [2]string{"mode", a.Mode}, [2]string{"password", a.Password.String()})
		if a.DataBits != 0 {
			keys = append(keys, [2]string{"format", a.format()})
		}
	}
	return keys
}

func (a Address) format() string {
	return strconv.Itoa(a.DataBits) + string(rune(a.Parity)) + strconv.Itoa(a.StopBits)
}

// escape appends s with the bytes that have a meaning in an address as %XX.
func escape(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("%?&#=@", c) >= 0 {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}
