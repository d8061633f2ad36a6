package order

import (
	"bytes"
	"strings"
	"testing"
)

const sealedText = "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\nLS0t\n-----END AGE ENCRYPTED FILE-----\n"

func TestSecretsOfAHeader(t *testing.T) {
	t.Parallel()
	entries := AppendSecret(AppendSecret(nil, "broker", []byte(sealedText)), "meter-7", []byte(strings.ReplaceAll(sealedText, "\n", "\r\n")))
	read, err := ReadSecrets(entries)
	if err != nil || len(read) != 2 || string(read["broker"]) != sealedText || string(read["meter-7"]) != sealedText {
		t.Fatalf("%q, %v", read, err)
	}
	body := func(kind, secrets string) []byte {
		return []byte("gridgate: 1\nkind: " + kind + "\ntarget: a/b\nversion: 1\n" + secrets + "---\n{}\n")
	}
	indented := "secrets:\n  " + strings.ReplaceAll(strings.TrimSpace(string(entries)), "\n", "\n  ") + "\n"
	d, err := parse(body("config", indented))
	if err != nil || len(d.Secrets) != 2 || !bytes.Equal(d.Secrets["broker"], []byte(sealedText)) || string(d.Payload) != "{}\n" {
		t.Fatalf("%+v, %v", d, err)
	}
	if d, err := parse(body("config", "")); err != nil || d.Secrets != nil {
		t.Errorf("without: %v, %v", d, err)
	}
	for name, c := range map[string]struct{ data, want string }{
		"another kind":   {string(body("trust", indented)), "only configurations bring secrets"},
		"a plain secret": {string(body("config", "secrets: {broker: hunter2}\n")), "broker: want what gridfog secret seal gives"},
		"a bad name":     {string(body("config", "secrets: {Broker: x}\n")), `"Broker"; want names`},
		"no mapping":     {string(body("config", "secrets: hunter2\n")), "secrets: want NAME"},
		"a number":       {string(body("config", "secrets: {a: 5}\n")), "a: want what"},
		"twice":          {string(body("config", "secrets: {a: hunter2, a: y}\n")), "secrets: "},
	} {
		if _, err := parse([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	var many strings.Builder
	for i := range maxSecrets + 1 {
		many.WriteString(string(AppendSecret(nil, "s-"+strings.Repeat("a", i%60)+string(rune('a'+i%26))+strings.Repeat("0", i/60), []byte(sealedText))))
	}
	if _, err := ReadSecrets([]byte(many.String())); err == nil {
		t.Error("too many are read")
	}
}
