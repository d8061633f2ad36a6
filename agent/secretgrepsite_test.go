package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/status"
	"gridgate/agent/vault"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
	"gridgate/internal/secret"
)

// guarded is a site of the built programs that was given secrets in every way that
// there is.
type guarded struct {
	t       *testing.T
	bin     string
	dir     string
	plants  []plant
	agent   *proctest.Process
	utility utility
	printed bytes.Buffer // by tools
	exports int
	port    int      // of the page
	tokens  []string // of the page

	mu   sync.Mutex
	said map[string][]byte // by the gateway to the broker
}

// plant makes a secret, for some places.
func (s *guarded) plant(name, text string, places ...string) string {
	s.plants = append(s.plants, plant{name, text, places})
	return text
}

// word is a password of its own, with what has to be escaped somewhere.
func word(name string) string {
	return fmt.Sprintf("%s+%x<\"&", name, random(5))
}

func key() string { return strings.ToUpper(hex.EncodeToString(random(16))) }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func (s *guarded) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *guarded) append(name, text string) {
	s.t.Helper()
	before, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name, string(before)+text)
}

// tool runs gridgate with a configuration and gives what it printed.
func (s *guarded) tool(stdin string, args ...string) map[string][]byte {
	s.t.Helper()
	name := "gridgate " + strings.Join(args, " ")
	switch args[0] {
	case "buffer":
		args = append(args, "-path", filepath.Join(s.dir, "buffer"), "-control", filepath.Join(s.dir, "c"))
	case "audit":
		args = append(args, "-path", filepath.Join(s.dir, "buffer"))
	case "version":
	default:
		args = append(args, "-config", filepath.Join(s.dir, "gridgate.yaml"))
	}
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(s.bin, "gridgate"), args...)
	cmd.Stdin, cmd.Dir = strings.NewReader(stdin), s.dir
	out, _ := cmd.CombinedOutput() // what fails tells more than what does not
	s.printed.Write(out)
	return piece(name, out)
}

// meters starts a simulator of as many and gives where they are.
func (s *guarded) meters(n int, args ...string) (at []string) {
	s.t.Helper()
	port := proctest.FreePorts(s.t, n)
	sim := proctest.Start(s.t, nil, filepath.Join(s.bin, "metersim"), append([]string{"dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-count", fmt.Sprint(n)}, args...)...)
	for i := range n {
		at = append(at, fmt.Sprintf("127.0.0.1:%d", port+i))
		sim.Await(at[i])
	}
	return at
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &guarded{t: t, dir: dir, bin: proctest.Build(t, "gridgate", "metersim"), utility: newUtility(t), said: map[string][]byte{}}

	password, ek, ak := s.plant("password in a file", word("file"), "file pw-ok"), s.plant("ek in the store", key()), s.plant("ak in the store", key())
	at := s.meters(5, "-password", password, "-ek", ek, "-ak", ak, "-auth", "gmac", "-client", "1", "-security", "authenc")
	garbage := s.meters(1, "-password", password, "-faults", "garbage")
	s.write("pw-ok", password+"\n")
	s.write("pw-wrong", s.plant("wrong password in a file", word("wrong"), "file pw-wrong"))
	s.write("pw-garbage", s.plant("password for a meter that answers garbage", word("noise"), "file pw-garbage"))
	s.write("ek-wrong", s.plant("wrong ek in a file", key(), "file ek-wrong"))
	s.write("ak-wrong", s.plant("wrong ak in a file", key(), "file ak-wrong"))
	s.write("key-bad", s.plant("what is no key", word("nokey"), "file key-bad"))

	broker, tls, clientKey := s.broker()
	s.plant("key of the client certificate", clientKey)
	dlms := func(id, at, keys string) string {
		return fmt.Sprintf("  - {id: %s, groups: [fast], url: \"dlms+wrapper://%s?timeout=2s&%s\"}\n", id, at, keys)
	}
	file := func(name string) string { return "file:" + filepath.Join(s.dir, name) }
	s.write("trust", string(s.utility.trust(1)))
	s.write("gridgate.yaml", fmt.Sprintf(`version: 1
site: here
gateway: gw1
buffer: {path: %s}
control: {socket: %s}
intake: {window: 50ms}
trust: {file: %s, prove: 15s}
uplink: {broker: "ssl://%s", start_jitter: 0s, username: gw, password: "secret:broker", ca: %s, certificate: %s, key: "secret:client-key"}
groups:
  fast: {lane: instant, every: 1s, channels: [1-0:32.7.0]}
meters:
`, filepath.Join(s.dir, "buffer"), filepath.Join(s.dir, "c"), filepath.Join(s.dir, "trust"), broker, tls.CAFile, tls.CertFile)+
		dlms("ok", at[0], "client=17&auth=lls&password="+file("pw-ok"))+
		dlms("gmac", at[1], "client=1&auth=gmac&security=authenc&title=4752470000000009&ek=secret:gmac-ek&ak=secret:gmac-ak")+
		dlms("wrong", at[2], "client=22&auth=sha256&title=4752470000000009&password="+file("pw-wrong"))+
		dlms("env", at[3], "client=19&auth=md5&password=env:GRIDGATE_TEST_PASSWORD")+
		dlms("keys", at[4], "client=1&auth=gmac&security=authenc&title=4752470000000009&ek="+file("ek-wrong")+"&ak="+file("ak-wrong"))+
		dlms("garbage", garbage[0], "client=17&auth=lls&password="+file("pw-garbage"))+
		dlms("nokey", "127.0.0.1:1", "client=1&auth=gmac&title=4752470000000009&ek="+file("key-bad")+"&ak="+file("key-bad")))
	s.port = proctest.FreePorts(t, 1)
	page := fmt.Sprintf("page:\n  listen: 127.0.0.1:%d\n  meter_metrics: true\n  tokens:\n", s.port)
	for i, role := range []string{"viewer", "technician", "consumer, meter: ok"} {
		s.tokens = append(s.tokens, s.plant("a token of the page", "gg-"+hex.EncodeToString(random(20))))
		page += fmt.Sprintf("    - {name: t%d, role: %s, sha256: %x}\n", i, role, sha256.Sum256([]byte(s.tokens[i])))
	}
	s.append("gridgate.yaml", page)
	for name, text := range map[string]string{
		"broker": s.plant("wrong password of the broker", word("brokerwrong")), "client-key": clientKey, "gmac-ek": ek, "gmac-ak": ak,
	} {
		s.tool(text, "secret", "set", name)
	}
	identity, err := os.ReadFile(filepath.Join(dir, "buffer", "secrets", "identity"))
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(identity[bytes.LastIndexByte(bytes.TrimSpace(identity), '\n')+1:]))
	s.plant("the gateway's private key", line, "file buffer/secrets/identity")
	seed, err := hkdf.Key(sha256.New, []byte(line), nil, "gridgate archive signature", 32)
	if err != nil {
		t.Fatal(err)
	}
	s.plant("the key that archives are signed with", hex.EncodeToString(seed))
	return s
}

// brokerPassword is set while the agent runs.
const brokerPassword = "the-brokers-password"

// broker starts one that wants a password and a certificate. What is said to it is
// kept.
func (s *guarded) broker() (address string, files mqtt.TLS, clientKey string) {
	t := s.t
	t.Helper()
	dir := t.TempDir()
	pair := func(name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour), IsCA: parent == nil, BasicConstraintsValid: true,
		}
		if parent == nil {
			parent, by = template, own
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		secretDER, err := x509.MarshalECPrivateKey(own)
		if err != nil {
			t.Fatal(err)
		}
		certFile, keyFile := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: secretDER}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return cert, own, certFile, keyFile
	}
	ca, caKey, caFile, _ := pair("ca", nil, nil)
	_, _, cert, key := pair("127.0.0.1", ca, caKey)
	_, _, client, clientKeyFile := pair("client", ca, caKey)
	b := mqtttest.Mosquitto(t, mqtttest.Config{
		User: "gw", Password: brokerPassword, TLS: true, CertFile: cert, KeyFile: key, Lines: []string{"cafile " + caFile, "require_certificate true"},
	})
	files = mqtt.TLS{CAFile: caFile, CertFile: client, KeyFile: clientKeyFile}
	config, err := files.Config()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := mqtt.Dial(t.Context(), mqtt.Options{Address: b.Address, TLS: config, ClientID: "listener", Username: "gw", Password: secret.Of(brokerPassword)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Abort(nil) })
	if err := conn.Subscribe(t.Context(), "#", func(m mqtt.Message) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.said[m.Topic] = append(append(s.said[m.Topic], m.Payload...), '\n')
	}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(clientKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	return b.Address, files, string(text)
}

func (s *guarded) published() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]byte{}
	for topic, said := range s.said {
		all["topic "+topic] = slices.Clone(said)
	}
	return all
}

// report waits until the agent tells of itself what is wanted.
func (s *guarded) report(what string, want func(status.Report) bool) {
	s.t.Helper()
	proctest.Until(s.t, what, func() bool {
		r, err := status.Ask(s.t.Context(), filepath.Join(s.dir, "c"))
		return err == nil && want(r)
	})
}

func failing(r status.Report, ids ...string) bool {
	n := 0
	for _, m := range r.Meters {
		if slices.Contains(ids, m.Meter) && m.Error != "" {
			n++
		}
	}
	return n == len(ids)
}

// live runs the agent through all that secrets take part in.
func (s *guarded) live() {
	t := s.t
	t.Helper()
	env := s.plant("wrong password in the environment", word("env"), "environment")
	s.agent = proctest.Start(t, []string{"GRIDGATE_TEST_PASSWORD=" + env}, filepath.Join(s.bin, "gridgate"), "run", "-debug", "-config", filepath.Join(s.dir, "gridgate.yaml"))
	s.report("meters are read and refuse, and the broker refuses", func(r status.Report) bool {
		good := 0
		for _, m := range r.Meters {
			if m.State == "ok" {
				good++
			}
		}
		return good == 2 && failing(r, "wrong", "env", "keys", "garbage", "nokey") && r.Uplink.Error != ""
	})
	s.tool("", "status")
	s.tool(s.plant("password of the broker", brokerPassword), "secret", "set", "broker")
	s.report("the broker takes it", func(r status.Report) bool { return r.Uplink.Connected })
	s.tool(s.plant("a secret that is set and removed", word("gone")), "secret", "set", "gone")
	s.tool("", "secret", "rm", "gone")
	s.tool(s.plant("a secret on the command line, in the wrong place", word("argument")), "secret", "set", "spare", s.plants[len(s.plants)-1].text)
	for _, args := range [][]string{
		{"read", "dlms+wrapper://127.0.0.1:1?client=17&auth=lls&password=" + s.plant("a password of a tool", "tool-"+hex.EncodeToString(random(6)))},
		{"read", "dlms+wrapper://127.0.0.1:1?client=17&auth=lls&nonsense=1&password=" + s.plants[len(s.plants)-1].text},
	} {
		out, _ := exec.CommandContext(t.Context(), filepath.Join(s.bin, "gridgate"), args...).CombinedOutput()
		s.printed.Write(out)
	}
	s.push()
}

// push applies documents: one that is kept, one that is not, and those that are
// refused for what they bring.
func (s *guarded) push() {
	t := s.t
	t.Helper()
	own, err := vault.Open(VaultDir(filepath.Join(s.dir, "buffer")), nil).Recipient()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := vault.Open(t.TempDir(), nil).Ensure()
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(name, text, recipient string) string {
		b, err := vault.Seal(secret.Of(text), recipient)
		if err != nil {
			t.Fatal(err)
		}
		return "secrets:\n  " + strings.ReplaceAll(strings.TrimSpace(string(order.AppendSecret(nil, name, b))), "\n", "\n  ") + "\n"
	}
	plain := s.plant("a secret in a header, not sealed", word("plain"))
	literal := s.plant("a password in a pushed address", "literal-"+hex.EncodeToString(random(6)))
	kept := s.plant("a sealed secret that is kept", word("kept"))
	for i, c := range []struct{ header, layer, want string }{
		{sealed("more", kept, own), "mains: {voltage: 230}", "done: here/gw1 version 1: kept"},
		{sealed("gmac-ek", s.plant("a sealed secret that breaks a meter", key()), own), "{}", "version 2: reverted"},
		{sealed("more", s.plant("a secret sealed for another", word("other")), stranger), "{}", "sealed for another key"},
		{fmt.Sprintf("secrets: {more: %q}\n", plain), "{}", "a secret itself has no place here"},
		{"", "meters:\n  - {id: ok, url: \"dlms+wrapper://127.0.0.1:1?client=17&auth=lls&password=" + literal + "\"}", "a secret has no place in a configuration"},
	} {
		body := fmt.Sprintf("gridgate: 1\nkind: config\ntarget: here/gw1\nversion: %d\n%s---\n%s\n", i+1, c.header, c.layer)
		file := filepath.Join(t.TempDir(), "doc")
		if err := os.WriteFile(file, s.utility.sign(order.Config, body), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, out := range s.tool("", "config", "apply", "-wait", "2m", file) {
			if !bytes.Contains(out, []byte(c.want)) {
				t.Errorf("document %d: %s\nwant %s", i+1, out, c.want)
			}
		}
	}
}
