package cosem

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/dlms"
	"gridgate/dlms/dlmstest"
	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// store is a Counters in memory that tells what it was asked.
type store struct {
	security.Memory

	mu     sync.Mutex
	known  bool
	raised []uint32
	err    error

	received map[string]uint32
}

func (s *store) LastReceived(title security.Title, key security.KeyID, d security.Direction) (uint32, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.received[fmt.Sprint(title, key, d)]
	return n, ok, s.err
}

func (s *store) NoteReceived(title security.Title, key security.KeyID, d security.Direction, counter, _ uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.received == nil {
		s.received = map[string]uint32{}
	}
	name := fmt.Sprint(title, key, d)
	s.received[name] = max(counter, s.received[name])
	return s.err
}

func (s *store) KnownCounters(security.Title, security.KeyID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known, s.err
}

func (s *store) Raise(title security.Title, key security.KeyID, next uint32) error {
	s.mu.Lock()
	s.raised, s.known = append(s.raised, next), true
	s.mu.Unlock()
	return s.Memory.Raise(title, key, next)
}

func aes(t *testing.T, first byte, n int) security.Key {
	t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	k, err := security.NewKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keysOf(t *testing.T, n int) security.Keys {
	t.Helper()
	return security.Keys{Encryption: aes(t, 0, n), Authentication: aes(t, 0xD0, n)}
}

// securedMeter has the clients 1 (GMAC, ciphered), 2 (MD5), 3 (SHA-256, and
// ciphered), 4 (ciphered alone), 5 (SHA-1), 6 (HLS 2), 7 (GMAC alone) and 16.
func securedMeter(t *testing.T) dlmstest.Options {
	t.Helper()
	both := security.AuthenticatedEncrypted
	return dlmstest.Options{
		Objects: objects("GRG1"),
		Clients: map[uint16]dlmstest.Login{
			16: {},
			1:  {Mechanism: 5, Policy: both},
			2:  {Mechanism: 3, Secret: "secret-2"},
			3:  {Mechanism: 6, Secret: "secret-3", Policy: security.Encrypted},
			4:  {Policy: security.Authenticated},
			5:  {Mechanism: 4, Secret: "secret-5"},
			6:  {Mechanism: 2, Secret: "secret-6"},
			7:  {Mechanism: 5},
		},
		Security: dlmstest.Security{Title: security.Title([]byte("ABCDEFGH")), Keys: keysOf(t, 16)},
	}
}

// securedConfig is client 1 of that meter.
func securedConfig(t *testing.T) Config {
	t.Helper()
	return Config{
		Client: 1, Auth: AuthGMAC, Serial: "GRG1", Counters: &store{},
		Security: dlms.Security{
			Policy: security.AuthenticatedEncrypted, Title: security.Title([]byte("GRG00001")), Keys: keysOf(t, 16),
		},
		CounterObjects: []obis.Code{obisOf("0-0:43.1.0")},
	}
}

func secured(t *testing.T, change func(*Config)) Config {
	t.Helper()
	cfg := securedConfig(t)
	change(&cfg)
	return cfg
}

func TestSecuredVisits(t *testing.T) {
	t.Parallel()
	for title, change := range map[string]func(*Config){
		"GMAC, ciphered":      func(*Config) {},
		"MD5":                 func(c *Config) { *c = Config{Client: 2, Auth: AuthMD5, Password: []byte("secret-2")} },
		"SHA-256, encrypted":  func(c *Config) { c.Client, c.Auth, c.Password = 3, AuthSHA256, []byte("secret-3") },
		"authenticated alone": func(c *Config) { c.Client, c.Auth, c.Security.Policy = 4, AuthNone, security.Authenticated },
		"SHA-1":               func(c *Config) { *c = Config{Client: 5, Auth: AuthSHA1, Password: []byte("secret-5")} },
		"HLS 2":               func(c *Config) { *c = Config{Client: 6, Auth: AuthHLS2, Password: []byte("secret-6")} },
		"GMAC alone":          func(c *Config) { c.Client, c.Security.Policy = 7, security.Unprotected },
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			m := newRig(t, securedMeter(t)).driver(t, secured(t, change))
			for range 3 {
				got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
				if err != nil || len(got.Rows) != 1 || got.Rows[0].Value.String() != "1234.5" || !got.Identity.Proven {
					t.Fatalf("%v, %s", err, describe(got))
				}
			}
		})
	}
}

func TestShortNames(t *testing.T) {
	t.Parallel()
	o := securedMeter(t)
	for client, login := range o.Clients {
		login.Conformance = dlmstest.ShortNames
		o.Clients[client] = login
	}
	for title, cfg := range map[string]Config{
		"public": {Serial: "GRG1"}, "GMAC, ciphered": securedConfig(t),
	} {
		cfg.ShortNames = true
		m := newRig(t, o).driver(t, cfg)
		for range 2 {
			got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if err != nil || len(got.Rows) != 1 || got.Rows[0].Value.String() != "1234.5" || !got.Identity.Proven {
				t.Errorf("%s: %v, %s", title, err, describe(got))
			}
		}
	}
}

// TestWhyASecuredVisitStops has a row for everything that a technician meets.
func TestWhyASecuredVisitStops(t *testing.T) {
	t.Parallel()
	for title, c := range map[string]struct {
		change func(*Config)
		is     error
		words  string
	}{
		"wrong ek":    {func(c *Config) { c.Security.Keys.Encryption = aes(t, 9, 16) }, meter.ErrAuthentication, "the meter refused client 1: authentication failed (it cannot decipher: wrong ek, ak, suite or title?)"},
		"wrong ak":    {func(c *Config) { c.Security.Keys.Authentication = aes(t, 9, 16) }, meter.ErrAuthentication, "it cannot decipher: wrong ek, ak, suite or title?"},
		"wrong suite": {func(c *Config) { c.Security.Suite = security.Suite1 }, meter.ErrAuthentication, "it cannot decipher: wrong ek, ak, suite or title?"},
		"wrong ek, GMAC alone": {func(c *Config) {
			c.Client, c.Security.Policy, c.Security.Keys.Encryption = 7, security.Unprotected, aes(t, 9, 16)
		}, meter.ErrAuthentication, "the meter refused client 7: authentication failed (wrong ek, ak, suite or title?)"},
		"unknown client": {func(c *Config) { c.Client = 9 }, nil, "the meter refused client 9 (does it know this client, are keys and title right?)"},
		"public client":  {func(c *Config) { c.Client = 16 }, meter.ErrAuthentication, "client 16: authentication failed (it does not take auth=gmac from this client)"},
		"no protection":  {func(c *Config) { c.Security.Policy = security.Unprotected }, nil, "the meter refused client 1 (does it want security=auth, enc or authenc from this client?)"},
		"another proof":  {func(c *Config) { c.Auth, c.Password = AuthMD5, []byte("x") }, meter.ErrAuthentication, "it does not take auth=md5 from this client"},
		"no proof":       {func(c *Config) { c.Auth = AuthNone }, meter.ErrAuthentication, "it wants a proof: auth=gmac?"},
		"wrong password, MD5": {
			func(c *Config) { *c = Config{Client: 2, Auth: AuthMD5, Password: []byte("wrong-one")} },
			meter.ErrAuthentication, "the meter refused client 2: authentication failed (wrong password?)",
		},
		"wrong password, SHA-256": {
			func(c *Config) { c.Client, c.Auth, c.Password = 3, AuthSHA256, []byte("wrong-one") },
			meter.ErrAuthentication, "the meter refused client 3: authentication failed (wrong password or title?)",
		},
		"no store":       {func(c *Config) { c.Counters = nil }, ErrCounter, "no place is given to keep it"},
		"store broken":   {func(c *Config) { c.Counters = &store{err: errors.New("disk on fire")} }, ErrCounter, "disk on fire"},
		"counter hidden": {func(c *Config) { c.CounterObjects = []obis.Code{obisOf("0-0:43.1.99")} }, ErrCounter, "is it in another object, ic=OBIS, or in none, ic=none?): line"},
		"clock not set": {func(c *Config) {
			c.CounterObjects, c.Now = nil, (&turnable{at: time.Unix(9, 0)}).now
		}, ErrCounter, "the clock of this machine is at 1970-01-01"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			cfg := secured(t, c.change)
			got, err := newRig(t, securedMeter(t)).driver(t, cfg).Visit(t.Context(), registers(t, "1-0:1.8.0"))
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.words) || len(got.Rows) != 0 {
				t.Errorf("%v, %s", err, describe(got))
			}
			if err != nil && !errors.Is(c.is, meter.ErrAuthentication) && errors.Is(err, meter.ErrAuthentication) {
				t.Errorf("%v counts as wrong credentials", err)
			}
			if err != nil && strings.Contains(err.Error(), "wrong-one") {
				t.Errorf("the password is in it: %v", err)
			}
		})
	}
}

// TestFirstCounterIsAboveTheMeters: a key that the store does not know begins
// well above what the meter took, and a key that it knows does not ask.
func TestFirstCounterIsAboveTheMeters(t *testing.T) {
	t.Parallel()
	r := newRig(t, securedMeter(t))
	visit := func(s *store) []string {
		t.Helper()
		cfg := securedConfig(t)
		cfg.Counters = s
		m := r.driver(t, cfg)
		if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
			t.Fatalf("%v, %s", err, describe(got))
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		return r.asked()
	}
	first := &store{}
	if asked := visit(first); !strings.Contains(strings.Join(asked, " "), "0-0:43.1.0*255/1:2") {
		t.Errorf("the counter was not asked for: %q", asked)
	}
	if len(first.raised) != 1 || first.raised[0] != counterMargin+1 {
		t.Errorf("began at %v, want %d", first.raised, counterMargin+1)
	}
	if asked := visit(first); strings.Contains(strings.Join(asked, " "), "0-0:43.1.0*255/1:2") {
		t.Errorf("the counter of a known key was asked for: %q", asked)
	}
	second := &store{} // another gateway, or a lost store
	visit(second)
	if len(second.raised) != 1 || second.raised[0] <= first.raised[0]+counterMargin {
		t.Errorf("began at %v, after %v", second.raised, first.raised)
	}
}

// TestCounterBehindIsCaughtUp: another program used the key. The first visit
// says nothing of it, and no counter below the meter's is sent again.
func TestCounterBehindIsCaughtUp(t *testing.T) {
	t.Parallel()
	for title, tamper := range map[string]func(request, frame []byte) []byte{
		"the meter says so": nil,
		"the meter refuses": func(request, frame []byte) []byte {
			if len(frame) > 8 && frame[8] == 0xD8 { // exception: say nothing of counters
				return append(frame[:6:6], "\x00\x03\xD8\x01\x01"...)
			}
			return frame
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			o := securedMeter(t)
			o.Tamper = tamper
			r := newRig(t, o)
			ahead, behind := &store{known: true}, &store{known: true}
			if err := ahead.Raise(securedConfig(t).Security.Title, keysOf(t, 16).Encryption.ID(), 500_000); err != nil {
				t.Fatal(err)
			}
			for _, s := range []*store{ahead, behind} {
				got, err := r.driver(t, secured(t, func(c *Config) { c.Counters = s })).Visit(t.Context(), registers(t, "1-0:1.8.0"))
				if err != nil || len(got.Rows) != 1 {
					t.Fatalf("%v, %s", err, describe(got))
				}
			}
			if len(behind.raised) != 1 || behind.raised[0] <= 500_000 {
				t.Errorf("raised to %v", behind.raised)
			}
		})
	}
}

func TestAJumpOfTheCounterIsAnAlarm(t *testing.T) {
	t.Parallel()
	r := newRig(t, securedMeter(t))
	ahead, behind := &store{known: true}, &store{known: true}
	if err := ahead.Raise(securedConfig(t).Security.Title, keysOf(t, 16).Encryption.ID(), 3_000_000); err != nil {
		t.Fatal(err)
	}
	var err error
	for _, s := range []*store{ahead, behind} {
		_, err = r.driver(t, secured(t, func(c *Config) { c.Counters = s })).Visit(t.Context(), registers(t, "1-0:1.8.0"))
	}
	var jump *security.JumpError
	if !errors.As(err, &jump) || !strings.Contains(err.Error(), "the meter refused the invocation counter (does another program use title 4752473030303031 and this ek?)") ||
		!strings.Contains(err.Error(), "alarm: ") || errors.Is(err, meter.ErrAuthentication) || len(behind.raised) != 0 {
		t.Errorf("raised %v: %v", behind.raised, err)
	}
}

// TestAnAnswerInTheClearIsRefused: who strips the protection gives no value.
func TestAnAnswerInTheClearIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, securedMeter(t))
	r.spoil(func(request, frame []byte) []byte {
		if request[0] == 0xC8 || request[0] == 0xDB { // a ciphered GET
			return append(frame[:6:6], "\x00\x09\xC4\x01\xC1\x00\x06\x00\x00\x00\x17"...)
		}
		return frame
	})
	got, err := r.driver(t, securedConfig(t)).Visit(t.Context(), registers(t, "1-0:1.8.0"))
	if !errors.Is(err, security.ErrWeak) || !strings.Contains(err.Error(), "the meter protects less than auth=gmac and security=authenc ask for") || len(got.Rows) != 0 {
		t.Errorf("%v, %s", err, describe(got))
	}
}

// TestSilenceIsDoubtedOnce: a meter that is off costs one question for its
// counter, not one every visit.
func TestSilenceIsDoubtedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, securedMeter(t))
	m := r.driver(t, secured(t, func(c *Config) { c.Counters, c.Timeout = &store{known: true}, 100*time.Millisecond }))
	r.spoil(func(_, _ []byte) []byte { return nil })
	for range 3 {
		if _, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); !errors.Is(err, meter.ErrNoAnswer) ||
			!strings.Contains(err.Error(), "does it know client 1 and server 1, are keys and title right?") {
			t.Errorf("silence: %v", err)
		}
	}
	if asked := r.asked(); len(asked) != 4 {
		t.Errorf("%d associations were tried, want 3 and the public client's: %q", len(asked), asked)
	}
	r.spoil(func(_, frame []byte) []byte { return frame })
	if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
		t.Errorf("%v, %s", err, describe(got))
	}
}

var _ Counters = (*store)(nil)

func TestCountersGoOnOverSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t, securedMeter(t))
	s := &store{known: true}
	l := line.TCP(r.addr, line.Options{})
	t.Cleanup(func() { _ = l.Close() })
	m := New(secured(t, func(c *Config) {
		c.Counters, c.ID, c.Now, c.Timeout = s, "m1", (&turnable{at: start()}).now, time.Minute
	}), l)
	for range 3 {
		if got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
			t.Fatalf("%v, %s", err, describe(got))
		}
		r.hangUp()
	}
	first, err := s.Reserve(m.cfg.Security.Title, m.cfg.Security.Keys.Encryption.ID(), 1)
	if err != nil || first != counterStep {
		t.Errorf("%d counters were reserved for three sessions, want %d, %v", first, counterStep, err)
	}
}
