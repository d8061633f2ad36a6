package cosem

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gridgate/dlms/axdr"
	"gridgate/dlms/dlmstest"
	"gridgate/internal/meter"
)

// TestWrongCredentialsAreTriedOnce: a visit is one attempt, since meters lock
// out after a few, even where the meter took counters that we did not draw.
func TestWrongCredentialsAreTriedOnce(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		change func(*Config)
		tamper func(request, frame []byte) []byte
	}{
		"proof refused": {func(c *Config) { c.Client, c.Auth, c.Password = 3, AuthSHA256, []byte("wrong-one") }, nil},
		"request in the clear refused": {func(c *Config) {
			c.Client, c.Security.Policy = 7, 0
		}, func(request, frame []byte) []byte {
			if request[0] == 0x60 && strings.Contains(string(request), "GRG00001") {
				return append(frame[:6:6], "\x00\x19\x61\x17\xA1\x09\x06\x07\x60\x85\x74\x05\x08\x01\x01\xA2\x03\x02\x01\x01\xA3\x05\xA1\x03\x02\x01\x0D"...)
			}
			return frame
		}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			o := securedMeter(t)
			o.Objects = append(o.Objects, dlmstest.Data(obisOf("0-0:43.1.9"), fixed(axdr.DoubleLongUnsigned(500_000)))) // another client's
			r := newRig(t, o)
			if c.tamper != nil {
				r.spoil(c.tamper)
			}
			m := r.driver(t, secured(t, func(cfg *Config) {
				c.change(cfg)
				cfg.Counters, cfg.CounterObjects = &store{known: true}, append(cfg.CounterObjects, obisOf("0-0:43.1.9"))
			}))
			_, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if asked := r.asked(); !errors.Is(err, meter.ErrAuthentication) || strings.Count(strings.Join(asked, " "), "associate") != 1 {
				t.Errorf("%v, %q", err, asked)
			}
		})
	}
}

func TestSecretsOfAMeter(t *testing.T) {
	t.Parallel()
	m := newRig(t, securedMeter(t)).driver(t, Config{Client: 2, Auth: AuthMD5, Password: []byte("secret-2")})
	if _, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		got := fmt.Sprintf(verb, m)
		for _, secret := range []string{"secret-2", "7365637265742d32", "115 101 99", "0x73, 0x65, 0x63"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s gives a secret away: %s", verb, got)
			}
		}
	}
}
