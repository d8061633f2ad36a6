package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/vault"
	"gridgate/internal/cli"
)

// seal runs gridfog secret with something on standard input.
func seal(t *testing.T, stdin string, args ...string) (out, errOut string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	env := cli.Env{Stdin: strings.NewReader(stdin), Stdout: &o, Stderr: &e, Getenv: func(string) string { return "" }}
	code = program().Run(t.Context(), env, append([]string{"secret"}, args...))
	return o.String(), e.String(), code
}

// TestSecretsOfADocument: what gridfog seals, and what age does, is signed with a
// configuration, and opened by the gateways that it is for and by age.
func TestSecretsOfADocument(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	one, two := vault.Open(filepath.Join(t.TempDir(), "s"), nil), vault.Open(filepath.Join(t.TempDir(), "s"), nil)
	first, err := one.Ensure()
	if err != nil {
		t.Fatal(err)
	}
	second, err := two.Ensure()
	if err != nil {
		t.Fatal(err)
	}
	entry, errOut, code := seal(t, "hunter2\n", "seal", "-recipient", first, "-recipient", second, "broker")
	if code != 0 || errOut != "" || !strings.HasPrefix(entry, "broker: |\n  -----BEGIN AGE ENCRYPTED FILE-----\n") {
		t.Fatalf("%d, %s%s", code, entry, errOut)
	}
	age := func(stdin string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), "age", args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("age %q: %v (scripts/setup.sh installs age)", args, err)
		}
		return string(out)
	}
	theirs := "house-7: |\n  " + strings.ReplaceAll(strings.TrimSpace(age("from age", "-a", "-r", first, "-r", second)), "\n", "\n  ") + "\n"
	secrets := d.write("secrets.yaml", "# of the west\n"+entry+"\n"+theirs)
	layer := d.write("layer.yaml", "mains: {voltage: 230}\n")
	d.must("sign", "-key", d.file("config.key"), "-config", "here/_group/west", "-version", "7", "-secrets", secrets, "-out", d.file("doc"), layer)
	doc, err := order.Read(d.read("doc"))
	if err != nil || len(doc.Secrets) != 2 || string(doc.Payload) != "mains: {voltage: 230}\n" {
		t.Fatalf("%+v, %v", doc, err)
	}
	for _, v := range []*vault.Vault{one, two} {
		if err := v.Take(doc.Secrets); err != nil {
			t.Error(err)
		}
		for name, want := range map[string]string{"broker": "hunter2", "house-7": "from age"} {
			if got, err := v.Get(name); string(got.Reveal()) != want {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
	}
	if got := age(string(doc.Secrets["broker"]), "-d", "-i", filepath.Join(two.Dir(), "identity")); got != "hunter2" {
		t.Errorf("age opens %q", got)
	}
	if _, errOut, code := d.run("sign", "-key", d.file("config.key"), "-secrets", secrets, layer); code != 2 || !strings.Contains(errOut, "-secrets goes with -config") {
		t.Errorf("without -config: %d, %s", code, errOut)
	}
	for text, want := range map[string]string{
		"broker: hunter2\n":         "broker: want what gridfog secret seal gives",
		"":                          "nothing stands there",
		"broker hunter2\n":          "want keys with values",
		entry + entry:               "broker",
		"Broker: |\n  hunter2\n":    `"Broker"; want names`,
		strings.TrimSpace("  x: |"): "x: want what gridfog secret seal gives",
	} {
		if err := os.WriteFile(secrets, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errOut, code := d.run("sign", "-key", d.file("config.key"), "-config", "here/gw", "-version", "8", "-secrets", secrets, layer)
		if code != 1 || !strings.Contains(errOut, want) || strings.Contains(errOut, "hunter2") {
			t.Errorf("%q: %d, %s\nwant %s", text, code, errOut, want)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	const key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
	for line, c := range map[string]struct {
		code int
		want string
	}{
		"":                                 {2, "secret: want seal NAME"},
		"seal":                             {2, "want a NAME of 1 to 64"},
		"seal broker":                      {2, "want -recipient age1…, which `gridgate secret recipient` says"},
		"seal -recipient x broker":         {1, `recipient "x": want age1 and 58 characters more`},
		"seal Broker -recipient " + key:    {2, "want a NAME"},
		"seal a hunter2 -recipient " + key: {2, "comes from standard input"},
		"seal a -recipient " + key:         {1, "nothing was given on standard input"},
	} {
		out, errOut, code := seal(t, "", strings.Fields(line)...)
		if c.want == `recipient "x": want age1 and 58 characters more` {
			out, errOut, code = seal(t, "hunter2", strings.Fields(line)...)
		}
		if code != c.code || !strings.Contains(errOut, c.want) || strings.Contains(errOut+out, "hunter2") {
			t.Errorf("%s: %d, %s%s\nwant %d, %s", line, code, out, errOut, c.code, c.want)
		}
	}
}
