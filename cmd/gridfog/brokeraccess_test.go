package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/mqtt"
	"gridgate/internal/proctest"
)

// pki is an authority, made by openssl, with a certificate for the broker.
type pki struct {
	t   *testing.T
	dir string
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t, t.TempDir()}
	p.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=authority", "-keyout", p.file("ca.key"), "-out", p.file("ca.pem"))
	p.sign("broker", "/CN=broker", "subjectAltName=IP:127.0.0.1")
	return p
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) openssl(args ...string) {
	p.t.Helper()
	if out, err := exec.CommandContext(p.t.Context(), "openssl", args...).CombinedOutput(); err != nil {
		p.t.Fatalf("openssl %s: %v\n%s", args[0], err, out)
	}
}

// sign makes name.pem and name.key; extension may be empty.
func (p *pki) sign(name, subject, extension string) {
	p.t.Helper()
	if err := os.WriteFile(p.file(name+".ext"), []byte(extension+"\n"), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
		"-keyout", p.file(name+".key"), "-out", p.file(name+".csr"))
	p.openssl("x509", "-req", "-in", p.file(name+".csr"), "-CA", p.file("ca.pem"), "-CAkey", p.file("ca.key"), "-CAcreateserial",
		"-days", "2", "-extfile", p.file(name+".ext"), "-out", p.file(name+".pem"))
}

// broker starts the built program with the access of the authority's
// certificates, and gives it with its port.
func (p *pki) broker(bin string, args ...string) (*proctest.Process, string) {
	p.t.Helper()
	port := fmt.Sprint(proctest.FreePorts(p.t, 1))
	b := proctest.Start(p.t, nil, filepath.Join(bin, "gridfog"), append([]string{
		"broker", "-listen", "127.0.0.1:" + port,
		"-cert", p.file("broker.pem"), "-key", p.file("broker.key"), "-client-ca", p.file("ca.pem"),
	}, args...)...)
	b.Await("listening on")
	return b, port
}

// mosquitto runs a client of mosquitto with a certificate, and gives its exit
// code and output.
func (p *pki) mosquitto(tool, who, port string, args ...string) (code int, out string) {
	p.t.Helper()
	all := append([]string{"-h", "127.0.0.1", "-p", port, "--cafile", p.file("ca.pem")}, args...)
	if who != "" {
		all = append(all, "--cert", p.file(who+".pem"), "--key", p.file(who+".key"))
	}
	cmd := exec.CommandContext(p.t.Context(), tool, all...)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		p.t.Fatalf("%s: %v", tool, err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// Real clients with certificates of openssl: each gateway below its own name,
// the fog everywhere but there, and everybody else nowhere. A refused message
// does not look like one that was taken, in either version of MQTT.
func TestBrokerAccessByCertificate(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	bin := proctest.Build(t, "gridfog")
	p.sign("gw-1", "/CN=north\\/gw-1", "")
	p.sign("gw-2", "/CN=box 17", "subjectAltName=URI:gridgate://north/gw-2")
	p.sign("ops", "/OU=fog/CN=ops", "")
	p.sign("stranger", "/CN=stranger", "")
	b, port := p.broker(bin)

	for _, c := range []struct {
		who, version, topic string
		taken               bool
	}{
		{"gw-1", "mqttv311", "gridgate/1/north/gw-1/up/state", true},
		{"gw-1", "mqttv5", "gridgate/1/north/gw-1/up/state", true},
		{"gw-1", "mqttv311", "gridgate/1/north/gw-2/up/state", false},
		{"gw-1", "mqttv5", "gridgate/1/north/gw-2/up/state", false},
		{"gw-1", "mqttv311", "gridgate/1/north/gw-1/down/ack/alarm", false},
		{"gw-1", "mqttv311", "gridgate/1/north/gw-10/up/state", false},
		{"gw-1", "mqttv311", "other", false},
		{"gw-1", "mqttv311", "gridgate/1/north/gw-1/up/firmware", true},
		{"gw-1", "mqttv311", "gridgate/1/north/gw-2/up/firmware", false},
		{"gw-1", "mqttv311", "gridgate/1/north/_firmware/00ff", false},
		{"gw-1", "mqttv311", "gridgate/1/north/gw-1/down/firmware", false},
		{"ops", "mqttv311", "gridgate/1/north/_firmware/00ff", true},
		{"ops", "mqttv311", "gridgate/1/north/_group/solar/down/firmware", true},
		{"ops", "mqttv311", "gridgate/1/north/_firmware/00ff/more", false},
		{"gw-2", "mqttv311", "gridgate/1/north/gw-2/up/readings/alarm", true},
		{"gw-2", "mqttv311", "gridgate/1/north/gw-1/up/readings/alarm", false},
		{"ops", "mqttv311", "gridgate/1/north/gw-1/down/ack/alarm", true},
		{"ops", "mqttv311", "gridgate/1/north/_group/solar/down/config", true},
		{"ops", "mqttv311", "spBv1.0/north/DDATA/gw-1/house-1", true},
		{"ops", "mqttv311", "gridgate/1/north/gw-1/up/readings/alarm", false},
		{"stranger", "mqttv311", "gridgate/1/north/gw-1/up/state", false},
		{"stranger", "mqttv5", "gridgate/1/north/gw-1/up/state", false},
		{"", "mqttv311", "gridgate/1/north/gw-1/up/state", false},
	} {
		code, out := p.mosquitto("mosquitto_pub", c.who, port, "-V", c.version, "-q", "1", "-r", "-t", c.topic, "-m", c.who)
		// Of a refusal in MQTT 5 mosquitto_pub warns and exits with 0.
		if took := code == 0 && !strings.Contains(out, "not authorised") && !strings.Contains(out, "Not authorized"); took != c.taken {
			t.Errorf("%s publishes %s with %s: code %d: %s", c.who, c.topic, c.version, code, out)
		}
	}
	// What was refused was not passed on, and what was taken was.
	_, got := p.mosquitto("mosquitto_sub", "ops", port, "-t", "#", "-F", "%t %p", "-W", "2")
	want := map[string]bool{
		"gridgate/1/north/gw-1/up/state gw-1": true, "gridgate/1/north/gw-2/up/readings/alarm gw-2": true,
		"gridgate/1/north/gw-1/down/ack/alarm ops": true, "gridgate/1/north/_group/solar/down/config ops": true,
		"spBv1.0/north/DDATA/gw-1/house-1 ops": true, "gridgate/1/north/gw-1/up/firmware gw-1": true,
		"gridgate/1/north/_firmware/00ff ops": true, "gridgate/1/north/_group/solar/down/firmware ops": true,
	}
	for line := range strings.Lines(got) {
		if line = strings.TrimSpace(line); !want[line] && !strings.HasPrefix(line, "Timed out") {
			t.Errorf("the broker has %q", line)
		}
		delete(want, line)
	}
	if len(want) > 0 {
		t.Errorf("not at the broker: %v", want)
	}
	for _, c := range []struct {
		filter  string
		granted bool
	}{
		{"gridgate/1/north/gw-1/down/#", true},
		{"gridgate/1/north/gw-1/down/ack/+", true},
		{"gridgate/1/north/_group/solar/down/config", true},
		{"gridgate/1/north/_firmware/00ff", true},
		{"gridgate/1/north/_firmware/#", true},
		{"gridgate/1/south/_firmware/00ff", false},
		{"gridgate/1/+/_firmware/#", false},
		{"gridgate/1/north/gw-2/up/firmware", false},
		{"gridgate/1/north/+/down/#", false},
		{"gridgate/1/north/gw-2/down/#", false},
		{"gridgate/1/north/gw-2/up/#", false},
		{"gridgate/1/south/_group/solar/down/config", false},
		{"#", false},
		{"$SYS/#", false},
		{"$share/x/gridgate/1/north/gw-2/down/#", false},
	} {
		_, out := p.mosquitto("mosquitto_sub", "gw-1", port, "-t", c.filter, "-W", "1", "-d")
		if granted := strings.Contains(out, "QoS 0") || strings.Contains(out, "Subscribed (mid: 1): 0"); granted != c.granted {
			t.Errorf("gw-1 subscribes to %s: %s", c.filter, out)
		}
	}
	// The will of another.
	if code, out := p.mosquitto("mosquitto_pub", "gw-1", port, "-q", "1", "-t", "gridgate/1/north/gw-1/up/state", "-m", "x",
		"--will-topic", "gridgate/1/north/gw-2/up/state", "--will-payload", "x"); code == 0 {
		t.Errorf("the will of another was taken: %s", out)
	}
	b.Stop()
	for _, text := range []string{
		"refused gateway north/gw-1: publish: gridgate/1/north/gw-2/up/state (once)",
		"gateway north/gw-2: publish: gridgate/1/north/gw-1/up/readings/alarm",
		"fog ops: publish: gridgate/1/north/gw-1/up/readings/alarm",
		`certificate "CN=stranger": connect: it names neither a gateway (SITE/GATEWAY) nor, by the unit "fog", a fog operator (once)`,
		"gateway north/gw-1: will: gridgate/1/north/gw-2/up/state",
		"gateway north/gw-1: subscribe: gridgate/1/north/gw-2/down/#",
		"refused 127.0.0.1: handshake: tls: client didn't provide a certificate",
		"refused altogether 25 times:",
		"       2  gateway north/gw-1: publish: gridgate/1/north/gw-2/up/state",
	} {
		if !strings.Contains(b.Output(), text) {
			t.Errorf("the broker does not say %q", text)
		}
	}
	if t.Failed() {
		t.Log(b.Output())
	}
}

// To a client of MQTT 3.1.1 a message that is refused is no success: its
// connection ends without a PUBACK, with QoS 0 too, and its will is published.
func TestBrokerRefusalEndsTheConnection(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	p.sign("gw-1", "/CN=north\\/gw-1", "")
	p.sign("ops", "/OU=fog/CN=ops", "")
	_, port := p.broker(proctest.Build(t, "gridfog"))
	dial := func(who string, will *mqtt.Message) *mqtt.Conn {
		t.Helper()
		secure, err := (mqtt.TLS{CAFile: p.file("ca.pem"), CertFile: p.file(who + ".pem"), KeyFile: p.file(who + ".key")}).Config()
		if err != nil {
			t.Fatal(err)
		}
		return connect(t, mqtt.Options{Address: "127.0.0.1:" + port, ClientID: who, TLS: secure, Will: will})
	}
	const state = "gridgate/1/north/gw-1/up/state"
	in := make(chan mqtt.Message, 10)
	if err := dial("ops", nil).Subscribe(t.Context(), "gridgate/#", func(m mqtt.Message) { in <- m }); err != nil {
		t.Fatal(err)
	}
	late := time.NewTimer(2 * time.Minute)
	defer late.Stop()
	for _, qos := range []int{0, 1} {
		c := dial("gw-1", &mqtt.Message{Topic: state, Payload: []byte("lost")})
		send(t, c, state, false)
		var err error
		if qos == 0 {
			err = c.Send(t.Context(), "gridgate/1/north/gw-2/up/state", nil)
		} else {
			var token mqtt.Token
			if token, err = c.Publish(t.Context(), "gridgate/1/north/gw-2/up/state", false, nil); err == nil {
				<-token.Done()
				if !errors.Is(token.Err(), mqtt.ErrLost) {
					t.Errorf("its token says %v", token.Err())
				}
			}
		}
		if err != nil && !errors.Is(err, mqtt.ErrLost) {
			t.Errorf("QoS %d: %v", qos, err)
		}
		<-c.Done()
		for _, want := range []string{"x", "lost"} {
			select {
			case m := <-in:
				if m.Topic != state || string(m.Payload) != want {
					t.Errorf("QoS %d: the fog gets %s %s, not %s", qos, m.Topic, m.Payload, want)
				}
			case <-late.C:
				t.Fatalf("QoS %d: the fog does not get %s", qos, want)
			}
		}
	}
}

// A gateway that takes another's client id gets neither its session nor what
// waits in it.
func TestBrokerClientIDsAreApart(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	p.sign("gw-1", "/CN=north\\/gw-1", "")
	p.sign("gw-2", "/CN=north\\/gw-2", "")
	p.sign("ops", "/OU=fog/CN=ops", "")
	_, port := p.broker(proctest.Build(t, "gridfog"))
	const topic = "gridgate/1/north/gw-1/down/command"
	session := []string{"-i", "box", "-c", "-q", "1", "-W", "2", "-F", "%p", "-t"}
	p.mosquitto("mosquitto_sub", "gw-1", port, append(session, topic)...)
	if code, out := p.mosquitto("mosquitto_pub", "ops", port, "-q", "1", "-t", topic, "-m", "open"); code != 0 {
		t.Fatal(out)
	}
	if _, out := p.mosquitto("mosquitto_sub", "gw-2", port, append(session, "gridgate/1/north/gw-2/down/command")...); strings.Contains(out, "open") {
		t.Errorf("another's order: %s", out)
	}
	if _, out := p.mosquitto("mosquitto_sub", "gw-1", port, append(session, topic)...); !strings.Contains(out, "open") {
		t.Errorf("the order is gone: %s", out)
	}
}

// The list of the operator goes before the words of certificates, and counts
// from the next connection on.
func TestBrokerAccessList(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	p.sign("gw-1", "/CN=north\\/gw-1", "")
	p.sign("ops", "/CN=night shift", "")
	p.sign("fake", "/OU=fog/CN=fake", "")
	list := p.file("access.list")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(list, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# who\nfog night shift\ngateway north/gw-1 solar\n")
	b, port := p.broker(proctest.Build(t, "gridfog"), "-access", list)
	publish := func(who, topic string) int {
		code, _ := p.mosquitto("mosquitto_pub", who, port, "-q", "1", "-t", topic, "-m", "x")
		return code
	}
	if publish("ops", "gridgate/1/north/gw-1/down/command") != 0 || publish("gw-1", "gridgate/1/north/gw-1/up/state") != 0 {
		t.Error("who is listed is refused")
	}
	if publish("fake", "gridgate/1/north/gw-1/down/command") == 0 {
		t.Error("the unit of a certificate goes before the list")
	}
	if _, out := p.mosquitto("mosquitto_sub", "gw-1", port, "-t", "gridgate/1/north/_group/feeder/down/#", "-W", "1"); !strings.Contains(out, "denied") {
		t.Errorf("a group that the list does not give: %s", out)
	}
	write("fog night shift\ngateway north/gw-22\n")
	if publish("gw-1", "gridgate/1/north/gw-1/up/state") == 0 {
		t.Error("it is let in after it was taken from the list")
	}
	write("nonsense\n") // the last good one stays
	if publish("ops", "gridgate/1/north/gw-1/down/command") != 0 {
		t.Error("a bad list locks everybody out")
	}
	b.Await(list + ":1: \"nonsense\"")
}

// The firmware against the access list: its own name works, and with another's
// it says that it is refused.
func TestBrokerAccessAndGridgate(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	bin := proctest.Build(t, "gridfog", "gridgate", "metersim")
	p.sign("gw-1", "/CN=north\\/gw-1", "")
	b, port := p.broker(bin)
	meters := proctest.FreePorts(t, 1)
	m := proctest.Start(t, nil, filepath.Join(bin, "metersim"), "modbus", "-listen", fmt.Sprintf("127.0.0.1:%d", meters), "-count", "1", "-model", "eastron-sdm120")
	m.Await(fmt.Sprint(meters))
	run := func(gateway string) *proctest.Process {
		t.Helper()
		dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		config := filepath.Join(dir, "gateway.yaml")
		text := fmt.Sprintf(`version: 1
site: north
gateway: %s
time_zone: UTC
buffer: {path: %s/buffer}
control: {socket: %s/control.sock}
intake: {window: 200ms}
uplink: {broker: "ssl://127.0.0.1:%s", ca: %s, certificate: %s, key: %s, start_jitter: 0s}
groups:
  all: {lane: instant, every: 1s, channels: [1-0:1.8.0]}
meters:
  - {id: m-1, serial: any, groups: [all], url: "modbus+tcp://127.0.0.1:%d?unit=1&model=eastron-sdm120"}
`, gateway, dir, dir, port, p.file("ca.pem"), p.file("gw-1.pem"), p.file("gw-1.key"), meters)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return proctest.Start(t, nil, filepath.Join(bin, "gridgate"), "run", "-config", config)
	}
	run("gw-1").Await("uplink up")
	run("gw-2").Await("uplink down")
	b.Await("gateway north/gw-1: will: gridgate/1/north/gw-2/up/state")
}

// What a certificate says, without a broker.
func TestIdentify(t *testing.T) {
	t.Parallel()
	list, err := parseAccessList("list", []byte("gateway a/b\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cn, ou string
		uris   []string
		list   *accessList
		want   string
	}{
		{cn: "a/b", want: "gateway a/b"},
		{cn: "a/b", list: list, want: "gateway a/b"},
		{cn: "a/c", list: list, want: "is not in the access list"},
		{cn: "x", ou: "fog", want: "fog x"},
		{cn: "x", ou: "fog", list: list, want: "is not in the access list"},
		{cn: "a/b", ou: "Fog", want: "gateway a/b"},
		{cn: "x", uris: []string{"gridgate://a/b"}, want: "gateway a/b"},
		{cn: "a/b", uris: []string{"gridgate://c/d"}, want: "gateway c/d"},
		{cn: "a/b", uris: []string{"gridgate://c/d", "gridgate://e/f"}, want: "names 2 gateways"},
		{cn: "a/b", uris: []string{"https://c/d"}, want: "gateway a/b"},
		{cn: "a/b/c", want: "names neither"},
		{cn: "a/+", want: "names neither"},
		{cn: "+/+", want: "names neither"},
		{cn: "a/", want: "names neither"},
		{cn: "", want: "names neither"},
		{cn: "x", uris: []string{"gridgate:a/b"}, want: "names neither"},
	} {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: c.cn}}
		if c.ou != "" {
			cert.Subject.OrganizationalUnit = []string{c.ou}
		}
		for _, s := range c.uris {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		who, err := identify(cert, c.list)
		got := who.name
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v is %s", c, got)
		}
	}
}

func TestBadAccessLists(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                          "lists nobody",
		"# only words":              "lists nobody",
		"gateway":                   "list:1:",
		"\nfog":                     "list:2:",
		"gateway north":             "want SITE/GATEWAY",
		"gateway north/+":           "list:1:",
		"gateway a/b #c\ngateway x": "list:2:",
		"gateway a/b\ngateway a/b":  "listed twice",
		"gateway a/b +":             "group",
		"allow a/b":                 `"allow a/b": want`,
		strings.Repeat("x", 2<<20):  "list:1:",
	} {
		if _, err := parseAccessList("list", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v", text, err)
		}
	}
}
