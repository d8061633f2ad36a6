package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/order"
	"gridgate/internal/cli"
	"gridgate/internal/mqtt"
	"gridgate/internal/mqtt/mqtttest"
)

// desk is where an operator works: a folder with keys and documents.
type desk struct {
	t   *testing.T
	dir string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t, t.TempDir()}
	for _, k := range []string{"r1", "r2", "r3", "config", "command", "control", "firmware"} {
		d.must("keygen", "-no-password", d.file(k))
	}
	d.must("trust", "-version", "1", "-threshold", "2", "-root", d.file("r1.pub")+","+d.file("r2.pub")+","+d.file("r3.pub"),
		"-config", d.file("config.pub"), "-command", d.file("command.pub"), "-control", d.file("control.pub"), "-firmware", d.file("firmware.pub"))
	return d
}

func (d *desk) file(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) write(name, text string) string {
	d.t.Helper()
	if err := os.WriteFile(d.file(name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return d.file(name)
}

func (d *desk) read(name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(d.file(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

// run runs gridfog.
func (d *desk) run(args ...string) (stdout, stderr string, code int) {
	var out, err bytes.Buffer
	code = program().Run(d.t.Context(), cli.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err, Getenv: func(string) string { return "" }}, args)
	return out.String(), err.String(), code
}

// must runs gridfog and wants it to go well; what a trust document it prints is
// kept.
func (d *desk) must(args ...string) string {
	d.t.Helper()
	out, err, code := d.run(args...)
	if code != 0 {
		d.t.Fatalf("gridfog %s: exit %d: %s", strings.Join(args, " "), code, err)
	}
	if args[0] == "trust" && strings.HasPrefix(out, "gridgate:") {
		d.write("trust.yaml", out)
	}
	return out
}

func TestKeysAndTrust(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.must("sign", "-key", d.file("r1.key"), "-out", d.file("t1"), d.file("trust.yaml"))
	if _, err, code := d.run("trust", d.file("t1")); code != 1 || !strings.Contains(err, "1 keys of the role root have signed, 2 must") {
		t.Errorf("one signature: exit %d, %s", code, err)
	}
	d.must("sign", "-key", d.file("r2.key"), "-out", d.file("t2"), d.file("t1"))
	if out := d.must("trust", d.file("t2")); !strings.Contains(out, "version 1, signed by 2 of its 3 root keys (2 must)") {
		t.Error(out)
	}
	trust, _, err := order.FirstTrust(d.read("t2"))
	if err != nil {
		t.Fatal(err)
	}
	layer := d.write("layer.yaml", "mains: {voltage: 230}\n")
	d.must("sign", "-key", d.file("config.key"), "-config", "here/gw-1", "-version", "7", "-min-agent", "0.1.0", "-out", d.file("doc"), layer)
	doc, err := trust.Verify(d.read("doc"))
	if err != nil || doc.Target.String() != "here/gw-1" || doc.Version != 7 || doc.MinAgent != "0.1.0" || string(doc.Payload) != "mains: {voltage: 230}\n" {
		t.Errorf("%+v, %v", doc, err)
	}
}

// TestMinisignsKeys: a key that minisign made and encrypted signs, and minisign
// verifies with a key that we made.
func TestMinisignsKeys(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	minisign := func(stdin string, args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "minisign", args...)
		c.Stdin = strings.NewReader(stdin)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("minisign %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	minisign("secret\nsecret\n", "-G", "-p", d.file("m.pub"), "-s", d.file("m.key"))
	password := d.write("pass", "secret\n")
	body := d.write("body", "gridgate: 1\nkind: config\ntarget: a/b\nversion: 1\n---\n{}\n")
	d.must("sign", "-key", d.file("m.key"), "-password-file", password, "-out", d.file("doc"), body)
	signed, signatures, err := order.Unseal(d.read("doc"))
	if err != nil {
		t.Fatal(err)
	}
	d.write("plain", string(signed))
	d.write("sig", string(signatures[0]))
	minisign("", "-V", "-p", d.file("m.pub"), "-m", d.file("plain"), "-x", d.file("sig"))

	d.must("keygen", "-password-file", password, d.file("ours"))
	minisign("secret\n", "-S", "-s", d.file("ours.key"), "-m", d.file("plain"), "-x", d.file("sig2"))
	minisign("", "-V", "-p", d.file("ours.pub"), "-m", d.file("plain"), "-x", d.file("sig2"))

	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"sign", "-key", d.file("m.key"), body}, "the key is encrypted; name its password", 1},
		{[]string{"sign", "-key", d.file("m.pub"), body}, "not a minisign secret key", 1},
		{[]string{"sign", "-key", d.file("config.key"), d.file("none")}, "no such file", 1},
		{[]string{"sign", "-key", d.file("config.key"), "-config", "gw-1", "-version", "1", body}, "want SITE/GATEWAY", 2},
		{[]string{"sign", "-key", d.file("config.key"), "-config", "a/b", body}, "wants a -version", 2},
		{[]string{"sign", "-key", d.file("config.key"), "-config", "a/b", "-version", "1", d.write("bad", "a: [\n")}, "bad:", 1},
		{[]string{"sign", "-key", d.file("config.key"), d.write("bad2", "kind: config\n")}, "no line '---'", 1},
		{[]string{"sign", body}, "want -key FILE", 2},
		{[]string{"keygen", "-no-password", d.file("r1")}, "file exists", 1},
		{[]string{"keygen", d.file("x")}, "-no-password", 2},
		{[]string{"trust", "-version", "1"}, "want -version and at least -root", 2},
		{[]string{"trust", "-version", "1", "-root", d.file("pass")}, "not a minisign public key", 1},
		{[]string{"trust", "-version", "1", "-threshold", "3", "-root", d.file("r1.pub")}, "threshold: 3 with 1 keys", 1},
		{[]string{"push", body}, "not signed", 1},
		{[]string{"push", "-broker", "nowhere", d.file("doc")}, "-broker", 2},
	} {
		if _, err, code := d.run(c.args...); code != c.code || !strings.Contains(err, c.want) {
			t.Errorf("gridfog %s: exit %d, %s; want %d, %q", strings.Join(c.args, " "), code, err, c.code, c.want)
		}
	}
}

// TestPush publishes to a broker where a gateway answers.
func TestPush(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	broker := mqtttest.Mosquitto(t, mqtttest.Config{})
	gateway, err := mqtt.Dial(t.Context(), mqtt.Options{Address: broker.Address, ClientID: "gw-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer gateway.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	outcomes := map[uint64]string{1: "kept", 2: "reverted"}
	err = gateway.Subscribe(ctx, mqtt.OrderTopic("here", "gw-1", "", "config"), func(m mqtt.Message) {
		doc, err := order.Read(m.Payload)
		if err != nil {
			t.Error(err)
			return
		}
		report := map[string]any{"trust": 1, "running": map[string]any{"layers": []any{}}, "last": map[string]any{
			"target": doc.Target.String(), "version": doc.Version, "sha256": hexOf(doc.Hash), "outcome": outcomes[doc.Version], "reason": "because",
		}}
		b, err := json.Marshal(report)
		if err != nil {
			t.Error(err)
		}
		if _, err := gateway.Publish(ctx, mqtt.ConfigTopic("here", "gw-1"), true, b); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	layer := d.write("layer.yaml", "mains: {voltage: 230}\n")
	for version, want := range outcomes {
		name := d.file("doc" + want)
		d.must("sign", "-key", d.file("config.key"), "-config", "here/gw-1", "-version", map[uint64]string{1: "1", 2: "2"}[version], "-out", name, layer)
		out, stderr, code := d.run("push", "-broker", "mqtt://"+broker.Address, "-wait", "60s", name)
		if code != int(version-1) || !strings.Contains(out, "here/gw-1") || !strings.Contains(out, want) || !strings.Contains(stderr, "published on gridgate/1/here/gw-1/down/config") {
			t.Errorf("exit %d\n%s\n%s", code, out, stderr)
		}
	}
	d.must("sign", "-key", d.file("r1.key"), "-out", d.file("t"), d.file("trust.yaml"))
	if _, stderr, code := d.run("push", "-broker", "mqtt://"+broker.Address, d.file("t")); code != 1 || !strings.Contains(stderr, "-to which gateways") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if _, stderr, code := d.run("push", "-broker", "mqtt://"+broker.Address, "-to", "here/gw-1,here/gw-2", d.file("t")); code != 0 ||
		!strings.Contains(stderr, "here/gw-2/down/trust") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func hexOf(h [32]byte) string { return hex.EncodeToString(h[:]) }
