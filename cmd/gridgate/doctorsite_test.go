package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/doctor"
	"gridgate/agent/status"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// place is a gateway with its own files, meters and broker.
type place struct {
	t        *testing.T
	bin, dir string
	env      []string
	agent    *proctest.Process

	// Of the configuration.
	broker string // uplink, without braces
	more   string // more sections
	meters []string
}

func newPlace(t *testing.T, bin string) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "gg") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &place{t: t, bin: bin, dir: dir}
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) file(name, text string, mode os.FileMode) string {
	p.t.Helper()
	path := p.path(name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		p.t.Fatal(err)
	}
	return path
}

// sim starts a simulator and waits until it has said text.
func (p *place) sim(text string, args ...string) *proctest.Process {
	p.t.Helper()
	s := proctest.Start(p.t, nil, filepath.Join(p.bin, "metersim"), args...)
	s.Await(text)
	return s
}

// modbusLine is a line with meters 1 to n on the terminal that is named.
func (p *place) modbusLine(n int, faults ...string) string {
	p.t.Helper()
	line := p.path("rs485")
	p.sim(fmt.Sprintf("unit %d", n), append([]string{"modbus", "-pty", "-link", line, "-model", "eastron-sdm120", "-serial", "20270001", "-count", fmt.Sprint(n)}, faults...)...)
	return line
}

func (p *place) mosquitto(c mqtttest.Config) {
	p.t.Helper()
	p.broker = "broker: tcp://" + mqtttest.Mosquitto(p.t, c).Address
}

func (p *place) meter(id, serial, url string) {
	if serial != "" {
		serial = "serial: " + serial + ", "
	}
	p.meters = append(p.meters, fmt.Sprintf(`{id: %s, %sgroups: [fast], url: "%s"}`, id, serial, url))
}

func (p *place) unit(id, line string, unit int, serial string) {
	p.meter(id, serial, fmt.Sprintf("modbus+rtu://%s?baud=9600&unit=%d&model=eastron-sdm120&timeout=5s", line, unit))
}

// write writes the configuration.
func (p *place) write() string {
	p.t.Helper()
	if p.broker == "" {
		p.broker = "broker: tcp://127.0.0.1:1"
	}
	return p.file("gridgate.yaml", fmt.Sprintf(`version: 1
site: s
gateway: g
buffer: {path: %s}
control: {socket: %s}
intake: {window: 50ms}
uplink: {%s, start_jitter: 0s}
%s
groups:
  fast: {lane: instant, every: 1s, channels: [1-0:32.7.0]}
meters: [%s]
`, p.path("buffer"), p.path("c"), p.broker, p.more, strings.Join(p.meters, ", ")), 0o600)
}

// run runs the agent, until ready says that what was planted shows.
func (p *place) run(what string, ready func(status.Report) bool) {
	p.t.Helper()
	p.agent = proctest.Start(p.t, p.env, filepath.Join(p.bin, "gridgate"), "run", "-config", p.write())
	p.agent.Await("gridgate runs")
	proctest.Until(p.t, what, func() bool {
		r, err := status.Ask(p.t.Context(), p.path("c"))
		return err == nil && ready(r)
	})
}

// doctor runs the built gridgate doctor, and gives its findings and its exit code.
func (p *place) doctor(args ...string) ([]doctor.Finding, int) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.bin, "gridgate"), append([]string{"doctor", "-json", "-config", p.path("gridgate.yaml")}, args...)...)
	cmd.Env = append(os.Environ(), p.env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	var all []doctor.Finding
	for d := json.NewDecoder(&out); d.More(); {
		var f doctor.Finding
		if err := d.Decode(&f); err != nil {
			p.t.Fatalf("%v: %s", err, &errOut)
		}
		all = append(all, f)
	}
	if len(all) == 0 {
		p.t.Fatalf("no findings: %s", &errOut)
	}
	return all, cmd.ProcessState.ExitCode()
}

// pair is a key with a certificate.
type pair struct {
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey
}

// certify makes a certificate that begins and ends so long from now, signed by by,
// or by itself.
func certify(t *testing.T, by *pair, from, to time.Duration) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "g"},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: by == nil,
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{cert, der, key}
}

func (p *place) save(name string, c *pair) (cert, key string) {
	p.t.Helper()
	der, err := x509.MarshalECPrivateKey(c.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.file(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.der})), 0o644),
		p.file(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), 0o600)
}
