package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/internal/proctest"
)

// TestProvisionLabel has a foreign decoder read the label of the built program.
func TestProvisionLabel(t *testing.T) {
	t.Parallel()
	b := newBox(t, proctest.Build(t, "gridgate"))
	if code, _, errOut := b.run("", "label"); code != 1 || !strings.Contains(errOut, "this gateway has no identity yet") {
		t.Errorf("without an identity: %d, %s", code, errOut)
	}
	b.write("gw.csr", b.done("identity", "-site", "north", "-gateway", "gw-1"))
	der := b.tool(b.tool("", "openssl", "req", "-in", "gw.csr", "-noout", "-pubkey"), "openssl", "pkey", "-pubin", "-outform", "DER")
	sum := sha256.Sum256([]byte(der))
	want := fmt.Sprintf("gridgate:1 site=north gateway=gw-1 recipient=%s key=sha256:%x", strings.TrimSpace(b.read("state/buffer/secrets/recipient")), sum[:16])
	b.done("label", "-svg", "l.svg")
	b.tool("", "rsvg-convert", "-w", "800", "l.svg", "-o", "l.png")
	if got := strings.TrimSpace(b.tool("", "zbarimg", "-q", "--raw", "l.png")); got != want {
		t.Errorf("the label says %q, want %q", got, want)
	}
	if out := b.done("label"); !strings.HasSuffix(out, want+"\n") || strings.Count(out, "\n") < 20 {
		t.Errorf("in the terminal: %s", out)
	}
}

// TestProvisionSetup asks, and writes the whole configuration or none.
func TestProvisionSetup(t *testing.T) {
	t.Parallel()
	bin := proctest.Build(t, "gridgate")
	b := newBox(t, bin)
	for _, typed := range []string{"", "north\n", "North Wing\nb c\n\n/\n?\n.\n", "north\ngw-1\nhttp://x\nx\n:\n//\nssl://\n"} {
		if code, out, errOut := b.run(typed, "setup"); code != 1 || !strings.Contains(errOut, "nothing is written") {
			t.Errorf("%q: %d, %s%s", typed, code, out, errOut)
		}
		if exists(b.path("etc/gridgate.yaml")) {
			t.Errorf("%q: something is written", typed)
		}
	}
	if code, out, errOut := b.run("North\nnorth\ngw-1\nhttp://fog\nssl://fog:8883\n", "setup"); code != 0 || !strings.Contains(out, "configuration written") {
		t.Errorf("setup: %d, %s%s", code, out, errOut)
	}
	text := b.read("etc/gridgate.yaml")
	for _, want := range []string{"site: north\n", "gateway: gw-1\n", `broker: "ssl://fog:8883"`, "key: secret:client-key"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	b.tool("", filepath.Join(bin, "gridgate"), "check", "-config", b.path("etc/gridgate.yaml"))
	if ok, _ := b.checklist(); !ok["identity"] || !ok["configuration"] || ok["certificate"] || ok["trust"] {
		t.Errorf("the checklist says %v", ok)
	}
	if out := b.done("setup"); !strings.Contains(out, "nothing was changed") || b.read("etc/gridgate.yaml") != text {
		t.Errorf("again: %s", out)
	}
}

// TestProvisionOwner: what root makes is readable for the service's user.
func TestProvisionOwner(t *testing.T) {
	t.Parallel()
	b := newBox(t, proctest.Build(t, "gridgate", "gridfog"))
	user, as := os.Geteuid(), []string{"cat"} // who is not root can give nothing away, and makes it for himself
	if user == 0 {
		user = 65534
		as = []string{"setpriv", "--reuid", fmt.Sprint(user), "--regid", fmt.Sprint(user), "--clear-groups", "cat"}
		if err := errors.Join(os.Chown(b.path("state"), user, user), os.Chmod(b.dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	b.stick("127.0.0.1:1")
	b.done("from", "stick")
	err := filepath.WalkDir(b.path("state"), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && owner(info) != uint32(user) {
			t.Errorf("%s belongs to %d", path, owner(info))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"etc/gridgate.yaml", "etc/ca.pem", "etc/gateway.pem", "etc/trust", "state/buffer/secrets/client-key.age", "state/buffer/secrets/identity"} {
		b.tool("", as[0], append(as[1:], b.path(name))...)
	}
}

func TestProvisionUsage(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"frm stick":                  `not "frm"`,
		"from":                       "want one DIR",
		"certificate":                "want one FILE",
		"label x":                    "want no arguments",
		"identity":                   "want -site SITE and -gateway GATEWAY",
		"identity -site North":       "-site:",
		"identity -site n -svg f":    "-svg is of provision label",
		"from d -site n":             "-site is of provision identity",
		"certificate f -gateway a/b": "-gateway is of provision identity",
		"setup -gateway a/b":         "-gateway:",
	} {
		args := append([]string{"provision"}, strings.Fields(line)...)
		code, out, errOut := cmdline(t, append(args, "-config", filepath.Join(t.TempDir(), "etc", "g.yaml"), "-path", t.TempDir())...)
		if code != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%s: %d, %s%s\nwant %s", line, code, out, errOut, want)
		}
	}
}
