package cosem

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

// every is a meter with a client for each authentication, and what gets in.
type every struct {
	options dlmstest.Options
	logins  map[string]func(*Config)
}

func everyAuthentication(t *testing.T) every {
	t.Helper()
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	both := security.AuthenticatedEncrypted
	e := every{options: securedMeter(t)}
	e.options.Security.Suite = security.Suite1
	e.options.Security.SigningKey, e.options.Security.ClientKey = keys[0], &keys[1].PublicKey
	e.options.Clients = map[uint16]dlmstest.Login{
		16: {}, 17: {Mechanism: 1, Secret: "12345678"}, 2: {Mechanism: 2, Secret: "secret-2"}, 3: {Mechanism: 3, Secret: "secret-3"},
		4: {Mechanism: 4, Secret: "secret-4"}, 5: {Mechanism: 5, Policy: both}, 6: {Mechanism: 6, Secret: "secret-6", Policy: both},
		7: {Mechanism: 7, Policy: both}, 9: {Mechanism: 1, Secret: "12345678", Policy: both}, 10: {Policy: security.Authenticated},
	}
	plain := func(client uint16, auth, password string) func(*Config) {
		return func(c *Config) { c.Client, c.Auth, c.Password = client, auth, dlms.Secret(password) }
	}
	keyed := func(client uint16, auth, password string, policy security.Policy) func(*Config) {
		return func(c *Config) {
			plain(client, auth, password)(c)
			own := securedConfig(t)
			c.Counters, c.CounterObjects, c.Security = own.Counters, own.CounterObjects, own.Security
			c.Security.Policy, c.Security.Suite = policy, security.Suite1
			c.Security.SigningKey, c.Security.MeterKey = keys[1], &keys[0].PublicKey
		}
	}
	e.logins = map[string]func(*Config){
		AuthNone: plain(16, AuthNone, ""), AuthLLS: plain(17, AuthLLS, "12345678"), AuthHLS2: plain(2, AuthHLS2, "secret-2"),
		AuthMD5: plain(3, AuthMD5, "secret-3"), AuthSHA1: plain(4, AuthSHA1, "secret-4"), AuthGMAC: keyed(5, AuthGMAC, "", both),
		AuthSHA256: keyed(6, AuthSHA256, "secret-6", both), AuthECDSA: keyed(7, AuthECDSA, "", both),
		"lls, ciphered": keyed(9, AuthLLS, "12345678", both), "none, ciphered": keyed(10, AuthNone, "", security.Authenticated),
	}
	return e
}

// ways are the transports, with the meter at server 1 and, over HDLC, at the
// physical address 17.
func ways() map[string]func(t *testing.T, o dlmstest.Options) (*rig, func(*Config)) {
	return map[string]func(t *testing.T, o dlmstest.Options) (*rig, func(*Config)){
		"wrapper": func(t *testing.T, o dlmstest.Options) (*rig, func(*Config)) {
			t.Helper()
			return newRig(t, o), func(*Config) {}
		},
		"hdlc": func(t *testing.T, o dlmstest.Options) (*rig, func(*Config)) {
			t.Helper()
			m := dlmstest.NewMeter(o)
			r := &rig{serve: func(stream io.ReadWriter) error {
				return m.ServeHDLC(stream, dlmstest.Station{Server: []byte{1 << 1, 17<<1 | 1}})
			}}
			r.listen(t)
			return r, func(c *Config) {
				if c.HDLC = (&HDLC{Physical: 17}); c.Client == 99 {
					c.Client = 98
				}
			}
		},
	}
}

// fault is something that a technician got wrong.
type fault struct {
	of     []string // authentications
	change func(t *testing.T, c *Config)
	// refused says that it counts as a refusal; words are those of the message,
	// by transport where they differ.
	refused bool
	words   []string
	on      map[string][]string
	silent  bool
}

func faults() map[string]fault {
	passwords := []string{AuthLLS, AuthHLS2, AuthMD5, AuthSHA1, AuthSHA256}
	keyed := []string{AuthGMAC, AuthSHA256, AuthECDSA, "lls, ciphered", "none, ciphered"}
	all := append([]string{AuthNone, AuthLLS, AuthHLS2, AuthMD5, AuthSHA1}, keyed...)
	return map[string]fault{
		"wrong password": {
			passwords, func(_ *testing.T, c *Config) { c.Password = dlms.Secret("wrong-one") }, true,
			[]string{"refused client", "wrong password"},
			nil, false,
		},
		"no password": {
			passwords, func(_ *testing.T, c *Config) { c.Auth, c.Password = AuthNone, nil }, true,
			[]string{"refused client", "it wants a p"},
			nil, false,
		},
		"wrong ek": {
			keyed, func(t *testing.T, c *Config) { t.Helper(); c.Security.Keys.Encryption = aes(t, 9, 16) }, true,
			[]string{"refused client", "wrong ek, ak, suite or title?"},
			nil, false,
		},
		"wrong ak": {
			keyed, func(t *testing.T, c *Config) { t.Helper(); c.Security.Keys.Authentication = aes(t, 9, 16) }, true,
			[]string{"refused client", "wrong ek, ak, suite or title?"},
			nil, false,
		},
		"wrong suite": {
			keyed, func(_ *testing.T, c *Config) { c.Security.Suite = security.Suite0 }, true,
			[]string{"refused client", "suite"},
			nil, false,
		},
		"wrong signing key": {[]string{AuthECDSA}, func(t *testing.T, c *Config) {
			t.Helper()
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			c.Security.SigningKey = key
		}, true, []string{"refused client 7", "wrong signing key sk"}, nil, false},
		"wrong key of the meter": {[]string{AuthECDSA}, func(t *testing.T, c *Config) {
			t.Helper()
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			c.Security.MeterKey = &key.PublicKey
		}, true, []string{"client 7", "wrong pk"}, nil, false},
		"unknown client":    {all, func(_ *testing.T, c *Config) { c.Client = 99 }, false, []string{"refused client 9", "does it know this client"}, nil, false},
		"wrong server":      {all, func(_ *testing.T, c *Config) { c.Server = 40 }, false, []string{"no answer", "does it know client", "server 40"}, nil, true},
		"less protection":   {keyed, func(_ *testing.T, c *Config) { c.Security.Policy = security.Unprotected }, false, []string{"client", "security=auth"}, nil, false},
		"another proof":     {passwords, func(_ *testing.T, c *Config) { c.Auth, c.Password = AuthMD5, dlms.Secret("wrong-one") }, true, nil, nil, false},
		"counter behind":    {keyed, behind, false, []string{"invocation counter", "gridgate counters accept -sent"}, nil, false},
		"counter not shown": {keyed, func(_ *testing.T, c *Config) { c.CounterObjects[0][3] = 99 }, false, []string{"ic=OBIS"}, nil, false},
		"the physical address": {all, func(_ *testing.T, c *Config) {
			if c.HDLC != nil {
				c.HDLC.Physical = 18
			} else {
				c.Server = 41
			}
		}, false, nil, map[string][]string{"hdlc": {"no answer", "client", "physical 18"}, "wrapper": {"server 41"}}, true},
	}
}

func behind(t *testing.T, c *Config) {
	t.Helper()
	c.Counters = &store{known: true}
}

// TestWhatATechnicianIsTold makes every mistake with every authentication, over
// every transport: each message names the client, and what to look at.
func TestWhatATechnicianIsTold(t *testing.T) {
	t.Parallel()
	for way, serve := range ways() {
		for title, f := range faults() {
			for _, auth := range f.of {
				t.Run(way+"/"+title+"/"+auth, func(t *testing.T) {
					t.Parallel()
					e := everyAuthentication(t)
					r, over := serve(t, e.options)
					cfg := Config{Serial: "GRG1", Timeout: 20 * time.Second}
					e.logins[auth](&cfg)
					over(&cfg)
					if title == "counter behind" {
						use(t, r, cfg)
					}
					f.change(t, &cfg)
					over(&cfg)
					if f.silent {
						cfg.Timeout = 200 * time.Millisecond
						if f.change(t, &cfg); cfg.HDLC != nil {
							cfg.Timeout = 70 * time.Millisecond // each frame is repeated
						}
					}
					_, err := r.driver(t, cfg).Visit(t.Context(), registers(t, "1-0:1.8.0"))
					t.Logf("%v", err)
					if err == nil {
						t.Fatal("no error")
					}
					var doubt interface{ MayBeRefusal() bool }
					if refused := errors.Is(err, meter.ErrAuthentication); refused != f.refused && !(f.refused && errors.As(err, &doubt)) {
						t.Errorf("counts as a refusal: %v, want %v", refused, f.refused)
					}
					for _, words := range append(f.words, f.on[way]...) {
						if !strings.Contains(err.Error(), words) {
							t.Errorf("%q is not in it", words)
						}
					}
					if strings.Contains(err.Error(), "wrong-one") {
						t.Error("the password is in it")
					}
				})
			}
		}
	}
}

// use has the meter take counters far above those of a new store.
func use(t *testing.T, r *rig, cfg Config) {
	t.Helper()
	ahead := &store{known: true}
	if err := ahead.Raise(cfg.Security.Title, cfg.Security.Keys.Encryption.ID(), 3_000_000); err != nil {
		t.Fatal(err)
	}
	cfg.Counters = ahead
	m := r.driver(t, cfg)
	if _, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}
