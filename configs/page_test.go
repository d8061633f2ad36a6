package configs

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const pageSite = `version: 1
site: here
gateway: gw1
uplink: {broker: "tcp://127.0.0.1:1"}
groups: {g: {lane: instant, every: 15m, channels: [1-0:1.8.0]}}
meters:
  - {id: house-01, url: "modbus+tcp://127.0.0.1:1502?unit=1&model=eastron-sdm630", groups: [g]}
page: `

func hash(digit string) string { return strings.Repeat(digit, 64) }

func TestPage(t *testing.T) {
	t.Parallel()
	c, err := Parse("x.yaml", []byte(strings.TrimSuffix(pageSite, "page: ")))
	if err != nil || c.Page.Listen != "" {
		t.Fatalf("without a page: %+v, %v", c, err)
	}
	for listen, tls := range map[string]bool{
		"127.0.0.1:8080": false, "127.9.9.9:1": false, "[::1]:80": false, "localhost:8080": false, "'[::ffff:127.0.0.1]:80'": false,
		":8443": true, "0.0.0.0:8443": true, "192.0.2.7:8443": true, "'[::]:8443'": true, "'[2001:db8::1]:8443'": true,
	} {
		for _, has := range []bool{false, true} {
			text := fmt.Sprintf("{listen: %s, tokens: [{name: a, role: viewer, sha256: %s}]", listen, hash("a"))
			if strings.HasPrefix(listen, "[") {
				text = strings.Replace(text, listen, "'"+listen+"'", 1)
			}
			if has {
				text += ", tls: {certificate: /c.pem, key: /k.pem}"
			}
			c, err := Parse("x.yaml", []byte(pageSite+text+"}"))
			if ok := has || !tls; ok != (err == nil) {
				t.Errorf("%s, tls %v: %v", listen, has, err)
			} else if err != nil && !strings.Contains(err.Error(), "page.listen") || err == nil && (c.Page.Certificate != "") != has {
				t.Errorf("%s, tls %v: %v", listen, has, err)
			}
		}
	}
	c, err = Parse("x.yaml", []byte(pageSite+"{tokens: [{name: a, role: consumer, meter: house-01, sha256: "+hash("A")+"}]}"))
	if err != nil || c.Page.Listen != DefaultPage || c.Page.Tokens[0].Meter != "house-01" || c.Page.Tokens[0].SHA256[31] != 0xAA {
		t.Errorf("%v %v", c, err)
	}
}

func TestPageProblems(t *testing.T) {
	t.Parallel()
	const token = "rjw5d9my6tx01554nz8gs85jkn2m7q12"
	for text, want := range map[string][]string{
		"{}":           {"page.tokens: missing"},
		"{tokens: []}": {"page.tokens: is empty"},
		"{tokens: {}}": {"page.tokens"},
		"{port: 80, tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}":              {"page.port: unknown key"},
		"{listen: here, tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}":          {`page.listen: "here": want HOST:PORT`},
		"{listen: '127.0.0.1:0', tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}": {"page.listen"},
		"{tls: {}, tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}":               {"page.tls.certificate: missing", "page.tls.key: missing"},
		"{tokens: [{}]}": {"[0].name: missing", "[0].role: missing", "[0].sha256: missing"},
		"{tokens: [{name: a, role: admin, sha256: " + hash("a") + "}]}":                                                                             {"want viewer or technician or consumer"},
		"{tokens: [{name: a, role: viewer, sha256: " + token + "}]}":                                                                                {"[0].sha256: want the token's SHA-256"},
		"{tokens: [{name: a, role: viewer, meter: house-01, sha256: " + hash("a") + "}]}":                                                           {"[0].meter: is for the role consumer only"},
		"{tokens: [{name: a, role: consumer, sha256: " + hash("a") + "}]}":                                                                          {"[0].meter: missing"},
		"{tokens: [{name: a, role: consumer, meter: house-02, sha256: " + hash("a") + "}]}":                                                         {`page.tokens[0].meter: "house-02": there is no such meter`},
		"{tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}, {name: a, role: viewer, sha256: " + hash("A") + "}]}":                        {"[1].name", "[1].sha256: is that of token a"},
		"{listen: ':80', tls: {certificate: 1}, tokens: [{name: Ä, role: viewer, sha256: " + hash("a") + "}], meter_metrics: yes, meter_metric: x}": {"page.tls.key", "[0].name", "page.meter_metrics", "did you mean meter_metrics"},
		"none": {"page: "},
	} {
		_, err := Parse("x.yaml", []byte(pageSite+text+"\n"))
		var problems Problems
		if !errors.As(err, &problems) || len(problems) != len(want) {
			t.Errorf("%s: %v, want %d problems", text, err, len(want))
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", text, err, w)
			}
		}
		if strings.Contains(err.Error(), token) {
			t.Errorf("the token is shown: %v", err)
		}
		if problems[0].Line == 0 {
			t.Errorf("%s: no line: %v", text, err)
		}
	}
}

func TestPageCompare(t *testing.T) {
	t.Parallel()
	parse := func(page string) *Config {
		c, err := Parse("x.yaml", []byte(pageSite+page+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	one := "{tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}"
	if d := Compare(parse(one), parse(one)); !d.Empty() {
		t.Errorf("%+v", d)
	}
	for _, other := range []string{
		"{tokens: [{name: a, role: viewer, sha256: " + hash("b") + "}]}",
		"{tokens: [{name: a, role: technician, sha256: " + hash("a") + "}]}",
		"{listen: '127.0.0.1:81', tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}",
		"{meter_metrics: true, tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}",
		"{tls: {certificate: /c, key: /k}, tokens: [{name: a, role: viewer, sha256: " + hash("a") + "}]}",
	} {
		d := Compare(parse(one), parse(other))
		if !d.Page || d.Empty() || strings.Join(d.Changes(), " ") != "page changed" {
			t.Errorf("%s: %+v", other, d)
		}
	}
}
