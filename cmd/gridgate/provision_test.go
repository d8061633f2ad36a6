package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gridgate/agent/status"
	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// box is a new gateway, and the utility that provisions it.
type box struct {
	t        *testing.T
	bin, dir string
}

func newBox(t *testing.T, bin string) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "gp") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &box{t: t, bin: bin, dir: dir}
	for _, d := range []string{"state", "stick"} {
		if err := os.Mkdir(b.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

// tool runs a program that has to do well.
func (b *box) tool(stdin, name string, args ...string) string {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), name, args...)
	cmd.Dir, cmd.Stdin = b.dir, strings.NewReader(stdin)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%s %q: %v: %s (scripts/setup.sh installs what the tests need)", name, args, err, &errOut)
	}
	return string(out)
}

func (b *box) gridfog(args ...string) string {
	b.t.Helper()
	return b.tool("", filepath.Join(b.bin, "gridfog"), args...)
}

// run runs gridgate provision on the gateway.
func (b *box) run(stdin string, args ...string) (code int, out, errOut string) {
	b.t.Helper()
	return b.runAt("", stdin, args...)
}

// runAt is run with a step at which the process is to die: code is -1 then.
func (b *box) runAt(step, stdin string, args ...string) (code int, out, errOut string) {
	b.t.Helper()
	args = append([]string{"provision"}, args...)
	cmd := exec.CommandContext(b.t.Context(), filepath.Join(b.bin, "gridgate"), append(args, "-config", b.path("etc/gridgate.yaml"), "-path", b.path("state/buffer"))...)
	cmd.Dir, cmd.Stdin, cmd.Env = b.dir, strings.NewReader(stdin), append(os.Environ(), "GRIDGATE_FAILPOINT="+step)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), o.String(), e.String()
}

// done runs gridgate provision, which has to do well.
func (b *box) done(args ...string) (out string) {
	b.t.Helper()
	code, out, errOut := b.run("", args...)
	if code != 0 {
		b.t.Fatalf("provision %q: %d, %s%s", args, code, out, errOut)
	}
	return out
}

func (b *box) write(name, text string) string {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return b.path(name)
}

func (b *box) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// authority makes the utility's CA with openssl: NAME.pem and NAME.key.
func (b *box) authority(name string) {
	b.t.Helper()
	b.tool("", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN="+name, "-keyout", name+".key", "-out", name+".pem")
}

// certify has openssl sign a request.
func (b *box) certify(ca, request, to string, more ...string) {
	b.t.Helper()
	b.tool("", "openssl", append([]string{"x509", "-req", "-in", request, "-CA", ca + ".pem", "-CAkey", ca + ".key", "-CAcreateserial", "-days", "20", "-out", to}, more...)...)
}

// utility makes the keys that sign, and the trust document.
func (b *box) utility() {
	b.t.Helper()
	for _, key := range []string{"root", "config"} {
		for _, end := range []string{".key", ".pub"} { // of other keys
			_ = os.Remove(b.path(key + end))
		}
		b.gridfog("keygen", "-no-password", key)
	}
	b.write("trust.yaml", b.gridfog("trust", "-version", "1", "-threshold", "1", "-root", "root.pub", "-config", "config.pub"))
	b.gridfog("sign", "-key", "root.key", "-out", "trust", "trust.yaml")
}

// configuration signs one for a gateway, with a secret sealed for this one.
func (b *box) configuration(target, broker string, version int, more string) {
	b.t.Helper()
	site, gateway, _ := strings.Cut(target, "/")
	b.write("g.yaml", fmt.Sprintf(`version: 1
site: %s
gateway: %s
buffer: {path: %s}
control: {socket: %s}
trust: {file: %s}
uplink: {broker: "ssl://%s", start_jitter: 0s, ca: %s, certificate: %s, key: "secret:client-key", username: u, password: "secret:broker"}
%s`, site, gateway, b.path("state/buffer"), b.path("c"), b.path("etc/trust"), broker, b.path("etc/ca.pem"), b.path("etc/gateway.pem"), more))
	b.write("secrets.yaml", b.tool("hunter2", filepath.Join(b.bin, "gridfog"), "secret", "seal", "-recipient", strings.TrimSpace(b.read("state/buffer/secrets/recipient")), "broker"))
	b.gridfog("sign", "-key", "config.key", "-config", target, "-version", fmt.Sprint(version), "-secrets", "secrets.yaml", "-out", "stick/configuration", "g.yaml")
}

// stick makes a whole folder for the gateway north/gw-1, which has an identity.
func (b *box) stick(broker string) {
	b.t.Helper()
	b.done("identity", "-site", "north", "-gateway", "gw-1", "-csr", "gw.csr")
	b.authority("ca")
	b.certify("ca", "gw.csr", "stick/gateway.pem")
	b.utility()
	b.configuration("north/gw-1", broker, 3, "groups:\n  g: {lane: instant, every: 1h, channels: [1-0:1.8.0]}\nmeters:\n  - {id: m1, serial: A1, groups: [g], url: \"dlms+wrapper://127.0.0.1:1\"}\n")
	b.write("stick/ca.pem", b.read("ca.pem"))
	b.write("stick/trust", b.read("trust"))
}

// files gives all that the gateway holds, but what it is sealed with: age is never
// the same twice.
func (b *box) files() map[string]string {
	b.t.Helper()
	all := map[string]string{}
	for _, top := range []string{"etc", "state"} {
		err := filepath.WalkDir(b.path(top), func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) || err == nil && d.IsDir() {
				return nil
			}
			data, rerr := os.ReadFile(path)
			name, _ := filepath.Rel(b.dir, path)
			all[name] = string(data)
			return errors.Join(err, rerr)
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return all
}

// checklist gives what provision says is there, by name.
func (b *box) checklist() (ok map[string]bool, complete bool) {
	b.t.Helper()
	_, out, errOut := b.run("", "-json")
	var r provisionReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		b.t.Fatalf("%v: %s%s", err, out, errOut)
	}
	ok = map[string]bool{}
	for _, i := range r.Items {
		ok[i.Name] = i.OK
		if i.OK == (i.Do != "") || i.Text == "" {
			b.t.Errorf("%+v", i)
		}
	}
	return ok, r.Complete
}

// TestProvisionRound takes a gateway from its box to a broker that knows it by its
// certificate, with openssl as the authority.
func TestProvisionRound(t *testing.T) {
	t.Parallel()
	b := newBox(t, proctest.Build(t, "gridgate", "gridfog"))
	if code, out, errOut := b.run(""); code != 1 || strings.Count(out, "MISSING") != 6 && strings.Count(out, "MISSING") != 5 || !strings.Contains(errOut, "things are missing") {
		t.Errorf("a new box: %d, %s%s", code, out, errOut)
	}
	if len(b.files()) != 0 {
		t.Errorf("looking has written %q", slices.Collect(maps.Keys(b.files())))
	}
	b.authority("ca")
	b.write("s.ext", "subjectAltName=IP:127.0.0.1")
	b.tool("", "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=broker", "-keyout", "s.key", "-out", "s.csr")
	b.certify("ca", "s.csr", "s.pem", "-extfile", b.path("s.ext"))
	mosquitto := mqtttest.Mosquitto(t, mqtttest.Config{TLS: true, CertFile: b.path("s.pem"), KeyFile: b.path("s.key"), Lines: []string{
		"cafile " + b.path("ca.pem"), "require_certificate true", "use_identity_as_username true",
	}})

	request := b.done("identity", "-site", "north", "-gateway", "gw-1")
	b.write("gw.csr", request)
	if out := b.tool("", "openssl", "req", "-in", "gw.csr", "-noout", "-subject", "-verify", "-text"); !strings.Contains(out, "CN = north/gw-1") || !strings.Contains(out, "prime256v1") || !strings.Contains(out, "URI:gridgate://north/gw-1") {
		t.Errorf("the request is %s", out)
	}
	for name, text := range b.files() {
		if strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s holds a key in clear", name)
		}
	}
	b.certify("ca", "gw.csr", "gw.pem")
	if out := b.done("certificate", "gw.pem", "-ca", "ca.pem"); !strings.Contains(out, "valid until") {
		t.Errorf("certificate: %s", out)
	}
	b.utility()
	b.write("stick/trust", b.read("trust"))
	b.configuration("north/gw-1", mosquitto.Address[strings.LastIndex(mosquitto.Address, "/")+1:], 3, "")
	if out := b.done("from", "stick"); !strings.Contains(out, "secret set: broker") || !strings.Contains(out, "configuration written") {
		t.Errorf("from: %s", out)
	}
	if b.read("etc/gridgate.yaml") != b.read("g.yaml") {
		t.Errorf("the configuration is not the one that was signed")
	}
	proctest.Start(t, nil, filepath.Join(b.bin, "gridgate"), "run", "-config", b.path("etc/gridgate.yaml"))
	proctest.Until(t, "the broker knows the gateway", func() bool {
		r, err := status.Ask(t.Context(), b.path("c"))
		return err == nil && r.Uplink.Connected && strings.Contains(mosquitto.Log(), "u'north/gw-1'")
	})
	ok, complete := b.checklist()
	if complete || ok["meters"] || !ok["identity"] || !ok["certificate"] || !ok["trust"] || !ok["configuration"] {
		t.Errorf("the checklist says %v", ok)
	}
}

// TestProvisionTwice changes nothing the second time, and says so.
func TestProvisionTwice(t *testing.T) {
	t.Parallel()
	b := newBox(t, proctest.Build(t, "gridgate", "gridfog"))
	b.stick("127.0.0.1:1")
	b.done("from", "stick")
	if ok, _ := b.checklist(); !ok["meters"] || !ok["configuration"] || !ok["certificate"] || !ok["trust"] || !ok["identity"] {
		t.Errorf("the checklist says %v", ok)
	}
	b.complete()
	before := b.files()
	for _, again := range [][]string{
		{"from", "stick"},
		{"identity", "-site", "north", "-gateway", "gw-1", "-csr", "again.csr"},
		{"identity", "-csr", "again.csr"},
		{"certificate", "stick/gateway.pem", "-ca", "stick/ca.pem"},
		{"certificate", "stick/gateway.pem"},
		{"setup"},
	} {
		if out := b.done(again...); !strings.Contains(out, "nothing was changed") {
			t.Errorf("%q says %s", again, out)
		}
		if !maps.Equal(before, b.files()) {
			t.Errorf("%q has changed something", again)
		}
	}
	if b.read("again.csr") != b.read("gw.csr") {
		t.Error("the request is another one")
	}
	// What was changed by hand stays, until a newer one comes with -force.
	b.write("etc/gridgate.yaml", b.read("g.yaml")+"# mine\n")
	if out := b.done("from", "stick"); !strings.Contains(out, "nothing was changed") || !strings.HasSuffix(b.read("etc/gridgate.yaml"), "# mine\n") {
		t.Errorf("what was changed by hand: %s", out)
	}
	b.configuration("north/gw-1", "127.0.0.1:2", 4, "")
	if code, _, errOut := b.run("", "from", "stick"); code != 1 || !strings.Contains(errOut, "is there already") {
		t.Errorf("a newer one over it: %d, %s", code, errOut)
	}
	b.done("from", "stick", "-force")
	b.configuration("north/gw-1", "127.0.0.1:3", 3, "")
	if code, _, errOut := b.run("", "from", "stick"); code != 1 || !strings.Contains(errOut, "older than what is here: version 3 after 4") {
		t.Errorf("an older one: %d, %s", code, errOut)
	}
}

// complete has an agent say that it knows the time: nothing is missing then, and
// without it the time is.
func (b *box) complete() {
	b.t.Helper()
	bound := 0.02
	agent, err := status.Listen(status.Config{Path: b.path("c"), Log: slog.New(slog.DiscardHandler), Report: func() status.Report {
		return status.Report{Clock: status.GatewayClock{State: "synchronised", Bound: &bound}}
	}})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	var task sync.WaitGroup
	task.Go(func() { _ = agent.Run(ctx) })
	code, out, errOut := b.run("")
	cancel()
	task.Wait()
	if code != 0 || errOut != "" || strings.Contains(out, "MISSING") || !strings.Contains(out, "synchronised, at most 0.02 s off") {
		b.t.Errorf("with all that it needs: %d, %s%s", code, out, errOut)
	}
	if err := os.Rename(b.path("etc/trust"), b.path("aside")); err != nil {
		b.t.Fatal(err)
	}
	if code, out, _ := b.run(""); code != 1 || !strings.Contains(out, "etc/trust is not there") {
		b.t.Errorf("without trust: %d, %s", code, out)
	}
	if err := os.Rename(b.path("aside"), b.path("etc/trust")); err != nil {
		b.t.Fatal(err)
	}
}

// TestProvisionRefuses what is not for this gateway, and writes nothing of it.
func TestProvisionRefuses(t *testing.T) {
	t.Parallel()
	b := newBox(t, proctest.Build(t, "gridgate", "gridfog"))
	b.stick("127.0.0.1:1")
	b.authority("other")
	b.certify("other", "gw.csr", "foreign.pem")
	b.tool("", "openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=north\\/gw-1", "-keyout", "x.key", "-out", "x.csr")
	b.certify("ca", "x.csr", "otherkey.pem")
	b.tool("", "openssl", "req", "-in", "gw.csr", "-noout", "-pubkey", "-out", "pub.pem")
	b.tool("", "openssl", "x509", "-new", "-force_pubkey", "pub.pem", "-subj", "/CN=north\\/gw-2", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "9", "-out", "othername.pem")
	b.tool("", "faketime", "-f", "-20d", "openssl", "x509", "-new", "-force_pubkey", "pub.pem", "-subj", "/CN=north\\/gw-1", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "9", "-out", "expired.pem")
	b.tool("", "faketime", "-f", "+10d", "openssl", "x509", "-new", "-force_pubkey", "pub.pem", "-subj", "/CN=north\\/gw-1", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "9", "-out", "early.pem")
	b.write("key.pem", b.read("stick/gateway.pem")+b.read("x.key"))
	before := b.files()
	for file, want := range map[string]string{
		"foreign.pem": "unknown authority", "otherkey.pem": "another key than this gateway's", "othername.pem": `names ["north/gw-2"]; this gateway is north/gw-1`,
		"expired.pem": "it has expired at", "early.pem": "it is valid from", "gw.csr": `want certificates in PEM`, "g.yaml": "no certificate in it", "none.pem": "no such file",
		"key.pem": "holds a private key", "stick": "no file, want one",
	} {
		if code, out, errOut := b.run("", "certificate", file, "-ca", "ca.pem"); code != 1 || !strings.Contains(errOut, want) {
			t.Errorf("%s: %d, %s%s\nwant %s", file, code, out, errOut, want)
		}
	}
	if code, _, errOut := b.run("", "certificate", "stick/gateway.pem"); code != 1 || !strings.Contains(errOut, "name the file with -ca") {
		t.Errorf("without -ca: %d, %s", code, errOut)
	}
	whole := map[string]string{}
	for _, name := range []string{"trust", "configuration", "ca.pem", "gateway.pem"} {
		whole[name] = b.read("stick/" + name)
	}
	b.configuration("north/gw-2", "127.0.0.1:1", 3, "")
	elsewhere := b.read("stick/configuration")
	b.gridfog("sign", "-key", "root.key", "-config", "north/gw-1", "-version", "5", "-out", "wrongrole", "g.yaml")
	flip := func(s string, at int) string { return s[:at] + string(s[at]^1) + s[at+1:] }
	for what, c := range map[string]struct{ file, text, want string }{
		"another gateway's":     {"configuration", elsewhere, "for another gateway: north/gw-2; this is north/gw-1"},
		"the wrong role":        {"configuration", b.read("wrongrole"), "wrong role"},
		"no configuration":      {"configuration", "", "the signed configuration is missing"},
		"no trust":              {"trust", "", "the trust document is missing"},
		"no authority":          {"ca.pem", "", "who signed the certificate (ca.pem) is missing"},
		"a trust document":      {"configuration", whole["trust"], "want a configuration"},
		"unsigned":              {"configuration", b.read("g.yaml"), "not signed"},
		"another's certificate": {"gateway.pem", b.read("otherkey.pem"), "another key"},
	} {
		for name, text := range whole {
			b.write("stick/"+name, text)
		}
		b.write("stick/"+c.file, c.text)
		if c.text == "" {
			if err := os.Remove(b.path("stick/" + c.file)); err != nil {
				t.Fatal(err)
			}
		}
		if code, out, errOut := b.run("", "from", "stick"); code != 1 || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: %d, %s%s\nwant %s", what, code, out, errOut, c.want)
		}
	}
	for _, name := range []string{"trust", "configuration"} {
		for i := range 16 {
			at := len(whole[name]) * i / 16
			for n, text := range whole {
				b.write("stick/"+n, text)
			}
			b.write("stick/"+name, flip(whole[name], at))
			if code, out, errOut := b.run("", "from", "stick"); code != 1 {
				t.Errorf("octet %d of %s flipped: %d, %s%s", at, name, code, out, errOut)
			}
		}
	}
	if code, _, errOut := b.run("", "identity", "-site", "north", "-gateway", "gw-2"); code != 1 || !strings.Contains(errOut, "this gateway is north/gw-1 already") {
		t.Errorf("another identity: %d, %s", code, errOut)
	}
	if !maps.Equal(before, b.files()) {
		t.Error("what was refused has changed something")
	}
	// The whole one is taken then, and the refusals were for what was changed.
	for name, text := range whole {
		b.write("stick/"+name, text)
	}
	box := newBox(t, b.bin) // a gateway without a key takes nothing that was sealed for one
	if code, _, errOut := box.run("", "from", b.path("stick")); code != 1 || !strings.Contains(errOut, "made no key yet") && !strings.Contains(errOut, "has made none yet") {
		t.Errorf("without a key: %d, %s", code, errOut)
	}
	b.done("from", "stick")
	// Other keys than those that are trusted here do not count.
	b.utility()
	b.write("stick/trust", b.read("trust"))
	if code, _, errOut := b.run("", "from", "stick"); code != 1 || !strings.Contains(errOut, "trusts other keys already") {
		t.Errorf("other keys: %d, %s", code, errOut)
	}
}
