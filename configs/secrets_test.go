package configs

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const withSecrets = `version: 1
site: a
gateway: b
buffer: {path: /b}
uplink:
  broker: ssl://h
  username: u
  password: secret:broker
  certificate: /c
  key: secret:client-key
meters:
  - {id: m, url: "dlms+wrapper://h?auth=gmac&title=GRG00001&ek=secret:house-1-ek&ak=secret:house-1-ak", groups: auto}
`

func TestSecretsOfTheStore(t *testing.T) {
	t.Parallel()
	all := []string{"broker", "client-key", "house-1-ak", "house-1-ek"}
	has := func(names ...string) Store {
		return func(buffer string) ([]string, error) {
			if buffer != "/b" {
				t.Errorf("the store of %q", buffer)
			}
			return names, nil
		}
	}
	c, err := ParseOn("t.yaml", []byte(withSecrets), has(all...))
	if err != nil || !slices.Equal(c.Secrets(), all) {
		t.Fatalf("%v, %v", c, err)
	}
	if c.Uplink.KeySecret.String() != "secret:client-key" || c.Uplink.Key != "" {
		t.Errorf("key %q, %v", c.Uplink.Key, c.Uplink.KeySecret)
	}
	_, err = ParseOn("t.yaml", []byte(withSecrets+"poll: {parallel: x}\n"), has("house-1-ek", "borker"))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 4 {
		t.Fatalf("%v", err)
	}
	for i, want := range []string{
		`t.yaml:8: uplink.password: "secret:broker": there is no such secret on this gateway; did you mean secret:borker?`,
		`t.yaml:10: uplink.key: "secret:client-key": there is no such secret on this gateway; set it with gridgate secret set client-key, or push it`,
		`t.yaml:12: meters[0].url: "ak=secret:house-1-ak": there is no such secret on this gateway`,
		`t.yaml:13: poll.parallel: "x": want`,
	} {
		if !strings.HasPrefix(problems[i].Error(), want) {
			t.Errorf("%v\nwant %s", problems[i], want)
		}
	}
	for name, store := range map[string]Store{"none": nil, "unreadable": func(string) ([]string, error) { return nil, errors.New("no") }} {
		if _, err := ParseOn("t.yaml", []byte(withSecrets), store); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeyOfTheClient(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{"/k": "/k", "file:/k": "/k", "env:KEY": "env:KEY", "secret:k": "secret:k"} {
		c, err := Parse("t.yaml", []byte(strings.Replace(withSecrets, "secret:client-key", value, 1)))
		if err != nil || c.Uplink.Key+c.Uplink.KeySecret.String() != want {
			t.Errorf("%s: %v, %v", value, c, err)
		}
	}
	for doc, want := range map[string]string{
		strings.Replace(withSecrets, "secret:client-key", "secret:Key", 1):   "uplink.key: names no entry after secret:",
		strings.Replace(withSecrets, "  certificate: /c\n", "", 1):           "certificate and key belong together",
		strings.Replace(withSecrets, "  key: secret:client-key\n", "", 1):    "certificate and key belong together",
		strings.Replace(withSecrets, "ssl://", "tcp://", 1):                  "ca, certificate and key need an encrypted connection",
		strings.Replace(withSecrets, "secret:broker", "secret:Broker", 1):    "uplink.password: names no entry after secret:",
		strings.Replace(withSecrets, "ek=secret:house-1-ek", "ek=secret", 1): "a secret has no place in a configuration: write ek=file:",
	} {
		if _, err := Parse("t.yaml", []byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}
