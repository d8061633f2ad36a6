package address

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/obis"
)

func TestParseSecurity(t *testing.T) {
	t.Parallel()
	keys := func(s Security) Security {
		s.EK, s.AK = secretOf(t, "env:EK"), secretOf(t, "file:/ak")
		if s.Title == (Title{}) {
			s.Title = Title([]byte("GRG\x00\x00\x00\x00\x01"))
		}
		return s
	}
	for in, want := range map[string]Address{
		"auth=gmac&ek=env:EK&ak=file:/ak&title=4752470000000001": {
			Auth: AuthGMAC, Security: keys(Security{Protection: Unprotected}),
		},
		"auth=gmac&security=authenc&suite=2&ek=env:EK&ak=file:/ak&title=Gurux123&ic=0-0:43.1.2": {
			Auth:     AuthGMAC,
			Security: keys(Security{Protection: AuthenticatedEncrypted, Suite: 2, Title: Title([]byte("Gurux123")), Counter: obis.Code{0, 0, 43, 1, 2, 255}}),
		},
		"security=auth&ek=env:EK&ak=file:/ak&title=4752470000000001&ic=none": {
			Auth: AuthNone, Security: keys(Security{Protection: Authenticated, CounterHidden: true}),
		},
		"security=enc&ek=env:EK&title=4752470000000001": {
			Auth: AuthNone, Security: Security{
				Protection: Encrypted, EK: secretOf(t, "env:EK"), Title: Title([]byte("GRG\x00\x00\x00\x00\x01")),
			},
		},
		"auth=md5&password=env:P":  {Auth: AuthMD5, Password: secretOf(t, "env:P"), Security: Security{Protection: Unprotected}},
		"auth=sha1&password=env:P": {Auth: AuthSHA1, Password: secretOf(t, "env:P"), Security: Security{Protection: Unprotected}},
		"auth=hls2&password=env:P": {Auth: AuthHLS2, Password: secretOf(t, "env:P"), Security: Security{Protection: Unprotected}},
		"auth=sha256&password=env:P&title=GRG00001": {
			Auth: AuthSHA256, Password: secretOf(t, "env:P"), Security: Security{Protection: Unprotected, Title: Title([]byte("GRG00001"))},
		},
		"auth=ecdsa&suite=1&sk=file:/sk&pk=file:/pk&title=GRG00001": {
			Auth: AuthECDSA, Security: Security{
				Protection: Unprotected, Suite: 1, Title: Title([]byte("GRG00001")),
				SigningKey: secretOf(t, "file:/sk"), MeterKey: secretOf(t, "file:/pk"),
			},
		},
	} {
		want.Scheme, want.Line, want.Client, want.Server, want.Ref = DLMSWrapper, "h:4059", 1, 1, "ln"
		got, err := Parse("dlms+wrapper://h?client=1&" + in)
		if err != nil || got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", in, got, err, want)
			continue
		}
		if again, err := Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s it is %+v, %v", in, got, again, err)
		}
	}
}

func TestParseRefusesSecurity(t *testing.T) {
	t.Parallel()
	const full = "auth=gmac&security=authenc&ek=env:E&ak=env:A&title=GRG00001"
	for in, want := range map[string]string{
		"auth=gmac":              "ek: missing: auth=gmac needs the encryption key",
		"auth=gmac&ek=env:E":     "ak: missing: auth=gmac needs the authentication key",
		"auth=gmac&ek=env:E&":    "title: missing: auth=gmac needs the system title of this client",
		"auth=sha256":            "title: missing: auth=sha256 needs",
		"auth=md5":               "password: missing: auth=md5 needs password=file:/PATH",
		"auth=ecdsa":             "sk: missing: auth=ecdsa needs the client's signing key",
		"auth=ecdsa&sk=env:S":    "suite: auth=ecdsa needs suite=1 (P-256) or suite=2",
		"security=enc":           "ek: missing: security=enc needs the encryption key",
		"security=authenc":       "ak: missing: security=authenc needs the authentication key",
		"security=both":          "security: want one of none, auth, enc, authenc",
		"suite=3":                "suite: want a number, 0 to 2",
		"suite=1":                "suite: is given, but nothing uses it",
		"ek=env:E":               "ek: is given, but nothing uses it: want security=auth",
		"ak=env:A":               "ak: is given, but nothing uses it",
		"security=enc&ak=env:A":  "ak: is given, but nothing uses it",
		"ic=0-0:43.1.0":          "ic: is given, but nothing uses it",
		"sk=env:A":               "sk: is given, but nothing uses it: want auth=ecdsa",
		full + "&password=env:P": "password: is given, but auth=gmac proves by ek and ak",
		full + "&ic=43":          "ic: want the OBIS code of the meter's invocation counter",
		full + "&title=x":        "title: is given twice",
		"title=GRG1":             "title: want 16 hexadecimal digits, or 8 characters",
		"title=475247000000000g": "title: want 16 hexadecimal digits",
		"title=0000000000000000": "title: want 16 hexadecimal digits",
		"auth=gmac&ek=env:A-B":   "ek: names no environment variable",
		"auth=gmac&ek=hun&ter=2": "what follows ek is no key; in a secret write '&' as %26",
	} {
		_, err := Parse("dlms+wrapper://h?" + in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hun") {
			t.Errorf("%s: %v\nwant %q", in, err, want)
		}
	}
	if _, err := Parse("modbus+tcp://h?unit=1&model=m&ek=env:E"); err == nil || !strings.Contains(err.Error(), "ek: does not belong to modbus+tcp") {
		t.Errorf("a key at a Modbus meter: %v", err)
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	a, err := Parse("dlms+wrapper://h?auth=gmac&ek=000102030405060708090A0B0C0D0E0F&ak=env:AK&title=GRG00001")
	if err != nil {
		t.Fatal(err)
	}
	if s := a.String(); strings.Contains(s, "0001") && strings.Contains(s, "0E0F") || !strings.Contains(s, "ek=***&ak=env:AK") {
		t.Errorf("written as %s", s)
	}
	getenv := func(name string) string { return map[string]string{"AK": "hunter2"}[name] }
	c, err := a.Resolve(Sources{Getenv: getenv})
	if err != nil || string(c.EK.Reveal()) != "000102030405060708090A0B0C0D0E0F" || string(c.AK.Reveal()) != "hunter2" || !c.Password.IsZero() {
		t.Errorf("%q %q, %v", c.EK.Reveal(), c.AK.Reveal(), err)
	}
	for _, verb := range []string{"%v", "%+v", "%s", "%x", "%q", "%d"} {
		if text := fmt.Sprintf(verb, c); strings.Contains(text, "hunter2") || strings.Contains(text, "104 117") || strings.Contains(text, "68756e") {
			t.Errorf("%s shows a secret: %s", verb, text)
		}
	}
	_, err = a.Resolve(Sources{Getenv: func(string) string { return "" }})
	if !errors.Is(err, ErrSecret) || !strings.Contains(err.Error(), "ak: env:AK: ") {
		t.Errorf("a variable that is not set: %v", err)
	}
}
