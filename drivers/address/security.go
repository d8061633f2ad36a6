package address

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"gridgate/dlms/obis"
	"gridgate/internal/secret"
)

// Auth is how a DLMS client proves who it is.
type Auth string

// The authentications.
const (
	AuthNone   Auth = "none"   // lowest level: no proof
	AuthLLS    Auth = "lls"    // low level: a password in clear
	AuthHLS2   Auth = "hls2"   // high level 2: AES of a challenge by the password
	AuthMD5    Auth = "md5"    // high level 3
	AuthSHA1   Auth = "sha1"   // high level 4
	AuthGMAC   Auth = "gmac"   // high level 5: by the keys ek and ak
	AuthSHA256 Auth = "sha256" // high level 6
	AuthECDSA  Auth = "ecdsa"  // high level 7: by the keys sk and pk
)

func auths() []Auth {
	return []Auth{AuthNone, AuthLLS, AuthHLS2, AuthMD5, AuthSHA1, AuthGMAC, AuthSHA256, AuthECDSA}
}

// byPassword says whether the proof is made of the password.
func (a Auth) byPassword() bool {
	return a == AuthLLS || a == AuthHLS2 || a == AuthMD5 || a == AuthSHA1 || a == AuthSHA256
}

// byTitle says whether the proof is made of the client's system title.
func (a Auth) byTitle() bool { return a == AuthGMAC || a == AuthSHA256 || a == AuthECDSA }

// Protection is what is done to requests and wanted of answers.
type Protection string

// The protections.
const (
	Unprotected            Protection = "none"
	Authenticated          Protection = "auth"
	Encrypted              Protection = "enc"
	AuthenticatedEncrypted Protection = "authenc"
)

func protections() []Protection {
	return []Protection{Unprotected, Authenticated, Encrypted, AuthenticatedEncrypted}
}

// Title is a system title, 8 octets; zero is none.
type Title [8]byte

// String gives the title in hexadecimal, "" for none.
func (t Title) String() string {
	if t == (Title{}) {
		return ""
	}
	return strings.ToUpper(hex.EncodeToString(t[:]))
}

// Security is how a DLMS association is protected, apart from passwords.
// Security compares with ==.
type Security struct {
	Protection Protection
	Suite      uint8 // 0, 1 or 2
	Title      Title // the client's
	Meter      Title // the meter's, where it must be known before it speaks: of pushes
	EK, AK     Secret
	// SigningKey is the client's own, MeterKey the meter's public one.
	SigningKey, MeterKey Secret
	// Counter is the object in which the meter shows the public client the
	// last invocation counter that it took; zero is the usual places, and
	// CounterHidden says that there is none.
	Counter       obis.Code
	CounterHidden bool
}

// UsesKeys says whether ek is used, and with it invocation counters.
func (a Address) UsesKeys() bool {
	return a.Auth == AuthGMAC || a.Scheme.IsDLMS() && a.Security.Protection != Unprotected
}

// usesAK says whether ak is used.
func (a Address) usesAK() bool {
	return a.Auth == AuthGMAC || a.Security.Protection == Authenticated || a.Security.Protection == AuthenticatedEncrypted
}

// NamedSecret is a secret and the key of the address that it stands under.
type NamedSecret struct {
	Key    string
	Secret Secret
}

// Secrets gives the secrets that the address has.
func (a Address) Secrets() []NamedSecret {
	all := []NamedSecret{
		{"password", a.Password},
		{"ek", a.Security.EK},
		{"ak", a.Security.AK},
		{"sk", a.Security.SigningKey},
		{"pk", a.Security.MeterKey},
	}
	return slices.DeleteFunc(all, func(s NamedSecret) bool { return s.Secret.IsZero() })
}

// Credentials are the secrets of an address, resolved; those that it does not
// have are none.
type Credentials struct {
	Password, EK, AK, SigningKey, MeterKey secret.Value
}

// Resolve gives the secrets themselves: see Secret.Resolve. The error names
// the key, the reference, and what to do.
func (a Address) Resolve(from Sources) (Credentials, error) {
	var c Credentials
	for _, s := range a.Secrets() {
		v, err := s.Secret.Resolve(from)
		if err != nil {
			return Credentials{}, fmt.Errorf("%s: %w", s.Key, err)
		}
		switch s.Key {
		case "password":
			c.Password = v
		case "ek":
			c.EK = v
		case "ak":
			c.AK = v
		case "sk":
			c.SigningKey = v
		case "pk":
			c.MeterKey = v
		}
	}
	return c, nil
}

// hiddenCounter is the value of ic for meters that show it nowhere.
const hiddenCounter = "none"

func securityKeys() []key {
	secret := func(name string, of func(*Address) *Secret) key {
		return key{name: name, fits: Scheme.IsDLMS, secret: true, set: func(p *parser, a *Address, v string) {
			p.secret(name, v, of(a))
		}}
	}
	return []key{
		{name: "auth", fits: Scheme.IsDLMS, set: setAuth},
		{name: "password", fits: Scheme.hasPassword, secret: true, set: func(p *parser, a *Address, v string) {
			p.secret("password", v, &a.Password)
		}},
		{name: "security", fits: Scheme.IsDLMS, set: setProtection},
		{name: "suite", fits: Scheme.IsDLMS, set: func(p *parser, a *Address, v string) {
			a.Security.Suite = uint8(p.number("suite", v, 0, 2))
		}},
		{name: "title", fits: Scheme.IsDLMS, set: func(p *parser, a *Address, v string) {
			a.Security.Title = p.title("title", v, "this client")
		}},
		{name: "meter", fits: Scheme.IsDLMS, set: func(p *parser, a *Address, v string) {
			a.Security.Meter = p.title("meter", v, "the meter")
		}},
		secret("ek", func(a *Address) *Secret { return &a.Security.EK }),
		secret("ak", func(a *Address) *Secret { return &a.Security.AK }),
		secret("sk", func(a *Address) *Secret { return &a.Security.SigningKey }),
		secret("pk", func(a *Address) *Secret { return &a.Security.MeterKey }),
		{name: "ic", fits: Scheme.IsDLMS, set: setCounter},
	}
}

func (p *parser) secret(name, v string, to *Secret) {
	secret, err := ParseSecret(v)
	if err != nil {
		p.fail(name, "%v", err)
		return
	}
	*to = secret
}

func setAuth(p *parser, a *Address, v string) {
	if !slices.Contains(auths(), Auth(v)) {
		p.fail("auth", "want one of %s", list(auths()))
		return
	}
	a.Auth = Auth(v)
}

func setProtection(p *parser, a *Address, v string) {
	if !slices.Contains(protections(), Protection(v)) {
		p.fail("security", "want one of %s", list(protections()))
		return
	}
	a.Security.Protection = Protection(v)
}

func list[T ~string](names []T) string {
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	return strings.Join(all, ", ")
}

// title reads a title: 16 hexadecimal digits, or 8 characters.
func (p *parser) title(key, v, whose string) (t Title) {
	b := []byte(v)
	if len(v) == 2*len(t) {
		var err error
		if b, err = hex.DecodeString(v); err != nil {
			b = nil
		}
	}
	if len(b) != len(t) || Title(b) == (Title{}) {
		p.fail(key, "want 16 hexadecimal digits, or 8 characters: the system title of %s", whose)
		return t
	}
	return Title(b)
}

func setCounter(p *parser, a *Address, v string) {
	if v == hiddenCounter {
		a.Security.CounterHidden = true
		return
	}
	code, err := obis.Parse(v)
	if err != nil || code == (obis.Code{}) {
		p.fail("ic", "want the OBIS code of the meter's invocation counter, such as 0-0:43.1.1, or none where it shows none")
		return
	}
	a.Security.Counter = code
}

// securityTogether checks what no key of the security can check alone.
func (p *parser) securityTogether(a *Address, has func(string) bool) {
	need := func(needed bool, key, why, example string) {
		if needed && !has(key) {
			p.fail(key, "missing: %s needs %s", why, example)
		}
	}
	by := "auth=" + string(a.Auth)
	keyed := by
	if a.Security.Protection != Unprotected {
		keyed = "security=" + string(a.Security.Protection)
	}
	need(a.Auth.byPassword(), "password", by, "password=file:/PATH or password=env:NAME")
	need(a.UsesKeys(), "ek", keyed, "the encryption key, ek=file:/PATH or ek=env:NAME")
	need(a.usesAK(), "ak", keyed, "the authentication key, ak=file:/PATH or ak=env:NAME")
	need(a.UsesKeys() || a.Auth.byTitle(), "title", keyed, "the system title of this client, title=16 hexadecimal digits")
	need(a.Auth == AuthECDSA, "sk", by, "the client's signing key, sk=file:/PATH")
	need(a.Auth == AuthECDSA, "pk", by, "the meter's public signing key, pk=file:/PATH")
	if a.Auth == AuthECDSA && a.Security.Suite == 0 {
		p.fail("suite", "auth=ecdsa needs suite=1 (P-256) or suite=2 (P-384)")
	}
	p.unused(a, has)
}

// unused refuses what would be given and not be used: who writes it believes
// that it protects something.
func (p *parser) unused(a *Address, has func(string) bool) {
	if has("password") && !a.Auth.byPassword() {
		switch a.Auth {
		case AuthGMAC:
			p.fail("password", "is given, but auth=gmac proves by ek and ak: want auth=lls or another beside it")
		case AuthECDSA:
			p.fail("password", "is given, but auth=ecdsa proves by sk and pk: want auth=lls or another beside it")
		default:
			p.fail("password", "is given, but auth is none: want auth=lls beside it")
		}
	}
	for _, u := range []struct {
		key  string
		used bool
		want string
	}{
		{"ek", a.UsesKeys(), "security=auth, enc or authenc, or auth=gmac"},
		{"ak", a.usesAK(), "security=auth or authenc, or auth=gmac"},
		{"ic", a.UsesKeys(), "security=auth, enc or authenc, or auth=gmac"},
		{"suite", a.UsesKeys() || a.Auth == AuthECDSA, "security=auth, enc or authenc, or auth=gmac or ecdsa"},
		{"sk", a.Auth == AuthECDSA, "auth=ecdsa"},
		{"pk", a.Auth == AuthECDSA, "auth=ecdsa"},
	} {
		if has(u.key) && !u.used {
			p.fail(u.key, "is given, but nothing uses it: want %s beside it", u.want)
		}
	}
}

// keys gives the keys of the security as they stand in an address.
func (s Security) keys(a Address) [][2]string {
	keys := [][2]string{
		{"security", string(s.Protection)},
		{"title", s.Title.String()},
		{"meter", s.Meter.String()},
		{"ek", s.EK.String()},
		{"ak", s.AK.String()},
		{"sk", s.SigningKey.String()},
		{"pk", s.MeterKey.String()},
	}
	if a.UsesKeys() || a.Auth == AuthECDSA {
		keys = append(keys, [2]string{"suite", string('0' + s.Suite)})
	}
	switch {
	case s.CounterHidden:
		keys = append(keys, [2]string{"ic", hiddenCounter})
	case s.Counter != (obis.Code{}):
		keys = append(keys, [2]string{"ic", s.Counter.String()})
	}
	return keys
}
