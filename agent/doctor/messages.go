package doctor

import "strings"

// Message is something that a gateway says to a technician, and what to do then.
// docs/technician.md has the same table, and a test compares the two.
type Message struct {
	Match  string // a part of what is said
	Remedy string // with marks of Markdown
}

// otherwise is the remedy of what is not in the table.
const otherwise = "what it says; else send a bundle (gridgate doctor -bundle FILE) to who looks after the gateway"

// Remedy gives what to do about a message.
func Remedy(text string) string {
	for _, m := range Messages() {
		if strings.Contains(text, m.Match) {
			return strings.NewReplacer("`", "", "**", "").Replace(m.Remedy)
		}
	}
	return otherwise
}

// Messages gives the table; the first match counts.
func Messages() []Message { return messages }

var messages = []Message{ //nolint:gochecknoglobals // a constant table
	// Ports.
	{"no such port", "is the adapter plugged in? `ls -l /dev/serial/by-id/` shows its name: write that into the configuration"},
	{"does the user belong to the group dialout", "`adduser USER dialout` and log in anew, or run it as root; the service's user is gridgate"},
	{"in use by gridgate", "add `-config FILE` or `-control SOCKET`: the agent lends the line"},
	{"in use by another program", "stop the program that `gridgate doctor` names"},
	{"is not a serial port", "another path, or another baud rate or format: not every adapter has every rate"},
	{"the port does not switch the direction of RS-485", "leave out `rs485=` from the address: the adapter does it"},
	// Meters in a network.
	{"is the host name right, and does the gateway have a name server?", "the meter's name in its url, or its address instead; `cat /etc/resolv.conf`"},
	{"is the port number right, and does the device listen?", "the port in the url: 4059 for DLMS, 502 for Modbus; some serve one client only and have one"},
	{"is the device switched on, and is a firewall in between?", "power, cable, address; `ping`"},
	{"is the address right, and is the network up?", "the gateway's own network: `ip addr`, `ip route`"},
	// Modbus.
	{"are A and B wired right", "is the meter on, A and B the right way round? unit, baud and format as in the message? does the model have that register?"},
	{"do two meters have this unit number", "two meters with one unit number, a line without termination, another baud rate; or the port speaks something else"},
	{"does another master, or a broken meter, talk on it?", "take the other master off, then the meters one by one"},
	{"not asked again, since", "a meter that answers much later than `timeout`: raise it"},
	{"is no Modbus TCP header", "another service's port; a serial server without Modbus TCP is `modbus+rtuovertcp`"},
	{"is the meter on, is it", "power and cable; unit and port in the url"},
	{"the meter is of another model", "`model=` in the address: nothing was read, since every value would be wrong"},
	{"(exception 2)", "this meter lacks the register: another model, or take the channel out"},
	{"the meter refuses:", "the register map does not fit this meter, or the meter is at fault"},
	{"the model has no register for it", "take the channel out of the group, or another model"},
	{"never twice alike", "a register for bills that changes with every read, or a line full of errors: leave it out, or mend the line"},
	// DLMS.
	{"not tried again with these credentials", "correct the password or key, then `systemctl reload gridgate`; was it right: `gridgate read -config FILE -meter ID -force`"},
	{"times with these credentials", "correct the address; `-force` if you are sure"},
	{"wrong password, ek, ak, suite or title?", "password and keys of this meter; it does not say which is wrong"},
	{"wrong password or title?", "the password; with `auth=sha256` the client's `title` is in the proof too"},
	{"wrong ek, ak, suite or title?", "the keys of this meter; it does not say which is wrong"},
	{"wrong pk or title?", "the meter's public key, `pk=`, and its title"},
	{"wrong signing key sk", "our private key, `sk=`, and our `title=`"},
	{"wrong password", "the address: client, auth, password; **every wrong try counts at the meter**"},
	{"auth=gmac?", "the meter wants a proof: `auth=gmac` with `ek`, `ak` and `title`, as the maker says"},
	{"auth=lls?", "the meter wants a password: `auth=lls&password=file:PATH`, with the client that it belongs to"},
	{"does it want security=auth, enc or authenc", "`security=` in the address, with the keys `ek` and `ak`"},
	{"does it have this security for client", "`security=` and `auth=` as the meter has them for this client; if they were right before, somebody may be on the line"},
	{"is suite=", "`suite=0`, `1` or `2`, as the maker says"},
	{"are keys and title right", "client, keys and `title=`, as the maker says"},
	{"is the password right?", "client and password: which password is for which client, the maker says"},
	{"Or did the association request come twice", "mostly a wrong password or key, sometimes a line that repeats"},
	{"Or did the line fail?", "mostly a wrong password or key, sometimes the line"},
	{"does it serve another client?", "`client=`; a meter that serves one client at a time and has one: stop the other system"},
	{"does it know this client?", "`client=`: 16 is public, others are named by the meter's maker"},
	{"does this port speak DLMS over TCP?", "another port, or HDLC behind a serial server: `dlms+hdlc://HOST:PORT`"},
	{"is the line slow? timeout=", "`timeout=30s` for a slow link"},
	{"Some need info=128&window=1", "`info=128&window=1` in the address; else the line: termination, baud"},
	{"is the meter on, does it know", "is the meter on? client, server and physical as in the message? a slow link: `timeout=30s`"},
	{"invocation counter does not rise", "`gridgate counters`; accept the meter's counter only when you know why (below)"},
	{"invocation counter is far ahead", "`gridgate counters`; accept the meter's counter only when you know why (below)"},
	{"does another program use title", "another system has the key: `gridgate counters accept -sent` (below)"},
	{"is the key used elsewhere?", "another system has the key: `gridgate counters accept -sent` (below)"},
	{"do meter and client have the title", "`title=` is ours and has to be another than the meter's"},
	{"has the meter no such client? ic=none", "`ic=none` in the address"},
	{"is it in another object, ic=OBIS", "`ic=OBIS` with the object that shows the counter, or `ic=none`"},
	{"invocation counter", "what the text says; counters live with the agent (`-control`, `-config`) or in `-counters DIR`, never in two places"},
	{"object undefined", "a DLMS meter without this OBIS code: `gridgate objects` shows what it has"},
	{"is the meter's clock wrong, or the gateway's?", "`gridgate clock` shows both; set the one that is wrong"},
	// Optical heads and IEC 62056-21.
	{"the meter offers mode C, not E", "no DLMS at this port: `iec21:` in the address, or `dlms+hdlc` for a meter that speaks HDLC at once"},
	{"is mode E switched on at this port", "switch it on at the meter, or a lower rate: `baud=2400`"},
	{"the meter cannot go over to HDLC", "`iec21:` for a meter without DLMS; `baud=` left out"},
	{"after the meter had signed on", "a lower rate, `baud=2400`; client and server as the maker says"},
	{"the meter fell silent after the sign-on", "a lower rate, `baud=300`; a serial server has to change its rate with the meter"},
	{"several meters at once?", "the head straight on the meter, out of the sun; one meter at a time, or `address=`"},
	{"do two meters answer?", "the head straight on the meter, out of the sun; one meter at a time, or `address=`; `signon=` and `format=`"},
	{"to the sign-on", "is the head on the meter, the right way up? `signon=`, `address=`; a meter whose conversation was cut off needs up to two minutes"},
	{"device address", "`address=` with the number on the meter's plate"},
	{"noise, or the wrong speed or parity", "`baud=` and `format=` of the line that meters push on"},
	// Power lines.
	{"is its name right, is it powered, is it in reach?", "the node's name in the url; `gridgate scan` lists those in reach"},
	// Fog.
	{"does not resolve", "the name in `uplink.broker`, and the name server: `cat /etc/resolv.conf`"},
	{"no such network interface", "is the modem there, and its name right in `uplink.interfaces`?"},
	{"is the interface up?", "`ip addr` shows the addresses; `uplink.interfaces` names one that is not there"},
	{"no route: is the modem up", "the connection: pppd or ModemManager, cable, router; `gridgate doctor` looks at a modem"},
	{"does the broker run, and is the port right?", "does the broker run? 8883 with ssl, 1883 without"},
	{"does a firewall let it through?", "the address in `uplink.broker`, and the firewall on the way"},
	{"is this an MQTT broker?", "another service answers at this port"},
	{"is the right CA file configured?", "`uplink.ca`: the file of the authority that signed the broker's certificate"},
	{"wrong name:", "`uplink.broker` has to be a name that stands in the broker's certificate"},
	{"is the gateway's clock right?", "`gridgate clock`; reach a time server, or set it once: `date -s`"},
	{"certificate expired on", "a new certificate; the gateway's own is written over the old file"},
	{"private key does not match", "`uplink.key` has to be the key that the certificate was made for"},
	{"the broker does not speak TLS on this port", "port 8883, or `tcp://` for a broker without TLS"},
	{"it may want a client certificate, and none is configured", "`uplink.certificate` and `uplink.key`"},
	{"does it speak TLS on this port?", "port 8883, or `tcp://` for a broker without TLS"},
	{"it does not know who signed the gateway's certificate", "a certificate that the broker's authority signed, at `uplink.certificate`"},
	{"does it accept this client certificate?", "`uplink.certificate`: is it this gateway's, and does the broker know it?"},
	{"bad user name or password", "`uplink.username`, and the file that `uplink.password` names"},
	{"check user name, password and client id", "`uplink.username`, `uplink.password` and `uplink.client_id`, as the broker knows them"},
	{"does it want TLS on this port?", "`ssl://` in `uplink.broker`"},
	{"the broker ended the session", "another gateway has the same `site`, `gateway` or `uplink.client_id`: each needs its own"},
	{"the fog confirms nothing after", "does the fog's `gridfog ingest` run, and may this gateway publish to the topic that is named?"},
	// The gateway.
	{"control socket: not open", "the folder of `control.socket`: does it exist, and may the agent's user write into it?"},
	{"another agent serves it", "one agent a gateway: `systemctl stop gridgate` before `gridgate run` by hand"},
	{"no agent runs here", "`systemctl start gridgate`, or `gridgate run`; or name its socket with `-control`"},
	{"name the file with -config", "`-config FILE`; on a gateway the file is `/etc/gridgate/gridgate.yaml`"},
	{"not YAML", "the line that it names, and the one before: tabs are no indentation, and `@`, `*`, `&` want quotes"},
	// Secrets and orders.
	{"there is no such secret on this gateway", "`gridgate secret set NAME`, or the utility pushes it; `gridgate secret list` shows those that are here"},
	{"the gateway's key is not to be had", "is the service up, where systemd hands it the key? where none was made: `gridgate secret recipient`; where it is lost: that with `-new`, and every secret is set anew"},
	{"sealed for another key than this gateway's", "give the utility what `gridgate secret recipient` prints: it is to be sealed anew; or `gridgate secret set NAME`"},
	{"the configuration that runs refers to it", "take the reference out of the configuration first, then `systemctl reload gridgate`"},
	{"nothing was given on standard input", "type the secret, or hand it over: `gridgate secret set NAME < FILE`"},
	{"systemd hands the key to the service", "exchange the unit's credential, then set the secrets anew"},
	{"is not trusted here", "the document is signed by a key that this gateway does not know: `gridgate audit show`, and ask the utility"},
	{"signed by the wrong role", "ask the utility: it has to be signed by the role that is named"},
	{"too few signatures", "ask the utility: more of its keys have to sign"},
	{"for another gateway", "the document of this gateway: `gridgate status` shows site and name"},
	{"older than what is here", "the utility signs it anew with a higher version"},
	{"not yet valid", "`gridgate clock`: is the gateway's clock right? else wait"},
	{"wants a newer agent", "a newer gridgate first: `gridgate version`"},
	{"not signed", "a document that `gridfog sign` made, not the configuration itself"},
	{"protected meter", "nothing: the configuration forbids to switch this meter off; ask the utility"},
	{"is the disk full?", "make room: `journalctl --vacuum-size=20M`; `gridgate doctor`"},
	{"permission denied", "run it as root or as the agent's user; the service's files belong to the user gridgate"},
	{"read-only file system", "the disk failed, or was mounted so: `dmesg`; `mount -o remount,rw`; exchange a card that does it again"},
	{"no space left on device", "make room: `journalctl --vacuum-size=20M`; a smaller `buffer.max_size`"},
	{"buffer: not open", "what stands behind it: the disk, its room, who owns the folder"},
	{"state: not open", "what stands behind it: the disk, its room, who owns the folder"},
	{"state: ", "keep the files that are named; the utility re-anchors control; `gridgate counters accept` for meters with keys"},
	{"buffer", "keep the files that are named, and send a bundle: `gridgate doctor -bundle FILE`"},
	// Modem.
	{"the modem does not answer", "is it switched on, and `modem.port` its port for AT commands? it is reset while the fog stays away"},
	{"the modem answers garbage", "`modem.port` has to be its port for AT commands, not that of the connection or of diagnostics"},
	{"no SIM is in the modem", "put the SIM in, contacts down, until it clicks; then restart the modem"},
	{"the modem cannot read the SIM", "clean its contacts, or try another SIM"},
	{"the modem is locked to another SIM or operator", "another modem, or the operator's code for this one"},
	{"one attempt is left, which is never used", "enter the right PIN in a phone, and correct the file of `modem.pin`"},
	{"one more might be the last", "enter the right PIN in a phone, correct the file of `modem.pin`, and raise `modem.pin_try`"},
	{"the SIM does not take the PIN", "correct the file of `modem.pin`; the same PIN is not tried again"},
	{"the SIM did not take this PIN", "correct the file of `modem.pin`, or raise `modem.pin_try` if the PIN is right"},
	{"the SIM wants its PIN", "write `modem.pin`, or take the PIN off the SIM in a phone"},
	{"wants its PUK", "unblock the SIM in a phone, with the letter that came with it"},
	{"the network refuses this SIM", "ask the operator: is it activated, paid, allowed to roam here?"},
	{"the network takes emergency calls or SMS only", "ask the operator: is it activated, for data?"},
	{"the modem looks for a network", "the antenna: connected, tight, outside of the metal box? another place or operator"},
	{"the modem is in no network", "the antenna; is the operator's network of a kind that this modem has (2G is switched off in places)?"},
	// All meters.
	{"garbled answer", "two meters with one address, a line without termination, wrong baud; or the port speaks something else"},
	{"no answer", "is the meter on? address and settings as in the message? a slow link: `timeout=30s`"},
	{"another meter answers", "wrong wire or unit: correct it; a new meter: write its `serial`, then `systemctl reload gridgate`"},
	{"configured serial is", "wrong wire or unit: correct it; a new meter: write its `serial`, then `systemctl reload gridgate`"},
	{"put the secret into that file", "make the file that the reference names, for the user gridgate alone to read"},
	{"no secret to be had", "set the variable in the service's environment, or write the secret into the file that is empty"},
}
