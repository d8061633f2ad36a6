package doctor

import "strings"

// Message is something that a gateway says to a technician, and what to do then.
// docs/technician.md has the same table, and a test compares the two.
type Message struct {
	Match  string // a part of what is said; … stands for anything
	Remedy string
}

// otherwise is the remedy of what is not in the table.
const otherwise = "what it says; else send a bundle (gridgate doctor -bundle FILE) to who looks after the gateway"

// Remedy gives what to do about a message.
func Remedy(text string) string {
	for _, m := range Messages() {
		if m.matches(text) {
			return m.Remedy
		}
	}
	return otherwise
}

// matches says whether a text has all parts of Match, in their order.
func (m Message) matches(text string) bool {
	rest, found := text, false
	for part := range strings.SplitSeq(m.Match, "…") {
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest, found = rest[at+len(part):], true
	}
	return found
}

// Messages gives the table; the first match counts.
func Messages() []Message { return messages }

var messages = []Message{ //nolint:gochecknoglobals // a constant table
	// Ports.
	{"no such port", "is the adapter plugged in? ls -l /dev/serial/by-id/ shows its name: write that into the configuration"},
	{"no permission: does the user belong to the group dialout", "adduser USER dialout and log in anew, or run it as root; the service's user is gridgate"},
	{"in use by gridgate run", "add -config FILE or -control SOCKET: the agent lends the line"},
	{"in use by another program", "stop the program that gridgate doctor names"},
	{"is not a serial port, or not with", "another path, or another baud rate or format: not every adapter has every rate"},
	{"the port does not switch the direction of RS-485 by itself", "leave out rs485= from the address: the adapter does it"},
	// Modbus.
	{"unit … no answer within", "is the meter on, A and B the right way round? unit, baud and format as in the message? does the model have that register?"},
	{"garbled answer", "two meters with one unit number, a line without termination, another baud rate; or the port speaks something else"},
	{"not asked again, since … may still be answered", "a meter that answers much later than timeout: raise it"},
	{"the meter is of another model: it shows", "model= in the address: nothing was read, since every value would be wrong"},
	{"(exception 2)", "this meter lacks the register: another model, or take the channel out"},
	{"the meter refuses: … (exception", "the register map does not fit this meter, or the meter is at fault"},
	{"the model has no register for it", "take the channel out of the group, or another model"},
	{"read several times and never twice alike", "a register for bills that changes with every read, or a line full of errors: leave it out, or mend the line"},
	// DLMS and optical heads.
	{"not tried again with these credentials", "correct the password or key, then systemctl reload gridgate; was it right, gridgate read -config FILE -meter ID -force"},
	{"no answer to the sign-on", "is the head on the meter, the right way up? try signon= and address=; a meter whose conversation was cut off needs up to two minutes"},
	{"the meter offers mode C, not E", "no DLMS at this port: iec21 in the address, or dlms+hdlc for a meter that speaks HDLC at once"},
	{"no answer in HDLC at", "a lower rate, baud=2400; client and server as the maker says"},
	{"wrong password?", "the address: client, auth, password; every wrong try counts at the meter"},
	{"auth=lls?", "the meter wants a password: auth=lls&password=file:PATH, with the client that it belongs to"},
	{"auth=gmac?", "the meter wants a proof: auth=gmac with ek, ak and title, as the maker says"},
	{"does it want security=auth, enc or authenc from this client?", "security= in the address, with the keys ek and ak"},
	{"does it know this client?", "client=: 16 is public, others are named by the meter's maker"},
	{"wrong ek, ak, suite or title?", "the keys of this meter; it does not say which is wrong"},
	{"object undefined", "a DLMS meter without this OBIS code: gridgate objects shows what it has"},
	{"does not rise", "gridgate counters; accept the meter's counter only when you know why (docs/technician.md, counters)"},
	{"invocation counter", "gridgate counters; docs/technician.md, counters"},
	{"no answer within", "is the meter on? client, server and physical as in the message? a slow link: timeout=30s"},
	{"another meter answers", "wrong wire or unit: correct it; a new meter: write its serial number, then systemctl reload gridgate"},
	{"configured serial is", "wrong wire or unit: correct it; a new meter: write its serial number, then systemctl reload gridgate"},
	{"put the secret into that file", "make the file that the reference names, for the user gridgate alone to read"},
	{"no secret to be had", "make the file that the reference names, or set the variable"},
	// Fog.
	{"does not resolve", "the name in uplink.broker, and the name server: cat /etc/resolv.conf"},
	{"no such network interface", "is the modem there, and its name right in uplink.interfaces?"},
	{"no route: is the modem up", "the connection: pppd or ModemManager, cable, router; gridgate doctor looks at a modem"},
	{"connection refused: does the broker run", "does the broker run, and is the port right? 8883 with ssl, 1883 without"},
	{"unreachable: no answer", "the address in uplink.broker, and the firewall on the way"},
	{"certificate signed by unknown authority", "uplink.ca: the file of the authority that signed the broker's certificate"},
	{"wrong name:", "uplink.broker has to be a name that stands in the broker's certificate"},
	{"is the gateway's clock right?", "the clock: gridgate clock; reach a time server, or set it: date -s"},
	{"certificate expired on", "a new certificate; for the gateway's own, write it over the old file"},
	{"the broker does not speak TLS on this port", "port 8883, or tcp:// for a broker without TLS"},
	{"it may want a client certificate, and none is configured", "uplink.certificate and uplink.key"},
	{"it does not know who signed the gateway's certificate", "a certificate that the broker's authority signed, at uplink.certificate"},
	{"does it accept this client certificate?", "uplink.certificate: is it this gateway's, and does the broker know it?"},
	{"bad user name or password", "uplink.username, and the file that uplink.password names"},
	{"not authorised: check user name, password and client id", "uplink.username, uplink.password and uplink.client_id, as the broker knows them"},
	{"does it want TLS on this port?", "ssl:// in uplink.broker"},
	{"the broker ended the session", "another gateway has the same site, gateway or uplink.client_id: each needs its own"},
	{"the fog confirms nothing after", "does the fog's gridfog ingest run, and may this gateway publish to the topic that is named?"},
	// The gateway.
	{"control socket: not open", "the folder of control.socket: does it exist, and may the agent's user write into it?"},
	{"another agent serves it", "one agent a gateway: systemctl stop gridgate before gridgate run by hand"},
	{"a second agent", "one agent a gateway: systemctl stop gridgate before gridgate run by hand"},
	{"no agent runs here", "systemctl start gridgate, or gridgate run; or name its socket with -control"},
	{"name the file with -config", "gridgate … -config FILE; on a gateway the file is /etc/gridgate/gridgate.yaml"},
	{"permission denied", "run it as root or as the agent's user; the files of the service belong to the user gridgate"},
	{"read-only file system", "the disk failed or was mounted so: dmesg; mount -o remount,rw; exchange a card that does it again"},
	{"no space left on device", "make room: journalctl --vacuum-size=20M; a smaller buffer.max_size"},
	{"buffer: not open", "what stands behind it: the disk, its room, who owns the folder"},
	{"state: not open", "what stands behind it: the disk, its room, who owns the folder"},
	{"state: ", "keep the files that are named; the utility has to re-anchor control; gridgate counters accept for meters with keys"},
	{"buffer", "keep the files that are named, and send a bundle: gridgate doctor -bundle FILE"},
	// Modem.
	{"the modem does not answer", "is it switched on, and modem.port its port for AT commands? it is reset by itself while the fog stays away"},
	{"the modem answers garbage", "modem.port has to be its port for AT commands, not that of the connection or of diagnostics"},
	{"no SIM is in the modem", "put the SIM in, contacts down, until it clicks; then restart the modem"},
	{"the modem cannot read the SIM", "clean its contacts, or try another SIM"},
	{"one attempt is left, which is never used", "enter the right PIN in a phone, and correct the file of modem.pin"},
	{"the SIM does not take the PIN", "correct the file of modem.pin; the same PIN is not tried again"},
	{"the SIM did not take this PIN", "correct the file of modem.pin, or raise modem.pin_try if the PIN is right"},
	{"the SIM wants its PIN", "write modem.pin, or take the PIN off the SIM in a phone"},
	{"the SIM is blocked and wants its PUK", "unblock it in a phone, with the letter that came with it"},
	{"the network refuses this SIM", "ask the operator: is it activated, paid, allowed to roam here?"},
	{"the modem looks for a network", "the antenna: connected, tight, outside of the metal box? another place or operator"},
	{"the modem is in no network", "the antenna; is the operator's network of a kind that this modem has (2G is switched off in places)?"},
}
