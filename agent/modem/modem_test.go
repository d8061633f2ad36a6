package modem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// card is a modem with a SIM for the fake.
type card struct {
	fake
	pin, sim, stat string
	left           int
	tells          bool // how many attempts are left
	open           bool
	entered        []string
	hung, junk     bool
	restarts       int
}

func newCard() *card {
	c := &card{sim: "in", stat: "1", left: 3, tells: true, open: true}
	c.answer = c.say
	return c
}

func (c *card) say(command string) string {
	const ok = "\r\nOK\r\n"
	switch {
	case c.hung:
		return ""
	case c.junk:
		return "\xff\xfe\x00\x80\r\n\x01\x02\x03"
	}
	echo := command + "\r"
	switch command {
	case "AT+CPIN?":
		switch {
		case c.sim == "out":
			return echo + "\r\n+CME ERROR: 10\r\n"
		case c.left == 0:
			return echo + "\r\n+CPIN: SIM PUK\r\n" + ok
		case !c.open:
			return echo + "\r\n+CPIN: SIM PIN\r\n" + ok
		}
		return echo + "\r\n+CPIN: READY\r\n" + ok
	case "AT+CCID":
		return echo + "\r\n89860025128306012474\r\n" + ok
	case "AT+UPINCNT":
		if c.tells {
			return fmt.Sprintf("%s\r\n+UPINCNT: %d,3,10,10\r\n%s", echo, c.left, ok)
		}
		return "\r\nERROR\r\n"
	case "AT+CREG?":
		return echo + "\r\n+CREG: 0,2\r\n\r\nRING\r\n\r\n+CREG: 0," + c.stat + "\r\n" + ok
	case "AT+COPS?":
		return "\r\n+COPS: 0,0,\"Zone 3\",2\r\n" + ok
	case "AT+CSQ":
		return "\r\n+CSQ: 14,0\r\n" + ok
	case "AT+CGMM":
		return "\r\nSARA-U201\r\n" + ok
	case "AT+CGSN":
		return "\r\n357164042305829\r\n" + ok
	case "AT+CFUN=1,1":
		c.restarts++
		return ok
	case "ATE0", "AT+CMEE=1":
		return echo + ok
	}
	if pin, is := strings.CutPrefix(command, "AT+CPIN="); is {
		c.entered = append(c.entered, strings.Trim(pin, `"`))
		if strings.Trim(pin, `"`) == c.pin {
			c.left, c.open = 3, true
			return ok
		}
		c.left--
		return "\r\n+CME ERROR: 16\r\n"
	}
	return "\r\nERROR\r\n"
}

func (c *card) do(ctx context.Context, exchange func(context.Context, Port) error) error {
	return exchange(ctx, c)
}

// run minds a card for a while, and gives the status then.
func run(t *testing.T, c *card, cfg Config, a time.Duration) Status {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Log = quiet()
	if cfg.Do == nil {
		cfg.Do = c.do
	}
	m := New(cfg)
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	time.Sleep(a)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("it ends with %v", err)
	}
	return m.Status()
}

func pinOf(pin string) func() (string, error) { return func() (string, error) { return pin, nil } }

func TestLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := run(t, newCard(), Config{}, time.Second)
		want := Facts{
			Model: "SARA-U201", IMEI: "357164042305829", ICCID: "89860025128306012474", SIM: SIMReady, Attempts: -1,
			Registration: Home, Technology: "UMTS", Operator: "Zone 3", Signal: Signal{DBm: -85, Kind: "RSSI"},
		}
		if s.Facts != want || s.State != OK || s.Err != "" {
			t.Errorf("%+v; want %+v", s, want)
		}
	})
}

func TestStates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*card)
		state  State
		text   string
	}{
		"SIM out":            {func(c *card) { c.sim = "out" }, NoSIM, "put it in"},
		"denied":             {func(c *card) { c.stat = "3" }, Forbidden, "is it activated"},
		"searching":          {func(c *card) { c.stat = "2" }, Unattached, "antenna"},
		"not looking":        {func(c *card) { c.stat = "0" }, Unattached, "antenna"},
		"roaming":            {func(c *card) { c.stat = "5" }, OK, ""},
		"hung":               {func(c *card) { c.hung = true }, Silent, "switched on"},
		"garbage":            {func(c *card) { c.junk = true }, Garbled, "its port for AT commands"},
		"PIN, none is known": {func(c *card) { c.open = false }, WantsPIN, "none is configured"},
		"PUK":                {func(c *card) { c.left = 0 }, WantsPUK, "PUK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				card := newCard()
				c.change(card)
				s := run(t, card, Config{}, 30*time.Second)
				if s.State != c.state || !strings.Contains(s.Err, c.text) || (s.Err == "") != (c.text == "") {
					t.Errorf("%s, %q; want %s, %q", s.State, s.Err, c.state, c.text)
				}
			})
		})
	}
}

func TestPINIsEntered(t *testing.T) {
	t.Parallel()
	for _, tells := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c := newCard()
			c.pin, c.open, c.tells = "1234", false, tells
			var k tries
			if s := run(t, c, Config{PIN: pinOf("1234"), Tries: &k}, time.Second); s.State != OK || len(c.entered) != 1 {
				t.Errorf("%+v, entered %q", s, c.entered)
			}
			c.open = false // it restarted: what was taken once is taken again
			if s := run(t, c, Config{PIN: pinOf("1234"), Tries: &k}, time.Second); s.State != OK || len(c.entered) != 2 {
				t.Errorf("%+v, entered %q", s, c.entered)
			}
		})
	}
}

// The last attempt is never used: not with a PIN that is wrong, not after
// restarts, not when the modem does not tell how many are left, and not when
// nothing can be written down.
func TestTheLastAttemptIsNeverUsed(t *testing.T) {
	t.Parallel()
	for left := 3; left >= 0; left-- {
		for _, tells := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				c := newCard()
				c.pin, c.open, c.tells, c.left = "1234", false, tells, left
				var k tries
				for range 5 { // restarts of the agent
					run(t, c, Config{PIN: pinOf("9999"), Tries: &k}, 3*time.Hour)
				}
				most := 1 // a PIN that was not taken is not tried again
				if tells && left < 2 || left == 0 {
					most = 0
				}
				if len(c.entered) != most {
					t.Errorf("%d left, told %v: entered %q; want %d times", left, tells, c.entered, most)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) { // every day another wrong PIN
		c := newCard()
		c.pin, c.open = "1234", false
		var k tries
		for i := range 9 {
			s := run(t, c, Config{PIN: pinOf(fmt.Sprintf("000%d", i)), Tries: &k}, time.Hour)
			if s.State != WantsPIN {
				t.Errorf("%+v", s)
			}
		}
		if c.left != 1 || len(c.entered) != 2 {
			t.Errorf("%d left, entered %q", c.left, c.entered)
		}
	})
	synctest.Test(t, func(t *testing.T) { // and the modem does not tell how many are left
		c := newCard()
		c.pin, c.open, c.tells = "1234", false, false
		var k tries
		for i := range 9 {
			run(t, c, Config{PIN: pinOf(fmt.Sprintf("000%d", i)), Tries: &k}, time.Hour)
		}
		if c.left != 1 || len(c.entered) != 2 {
			t.Errorf("%d left, entered %q", c.left, c.entered)
		}
		c.open = true // in a phone
		run(t, c, Config{PIN: pinOf("1234"), Tries: &k}, time.Minute)
		c.open, c.left = false, 3
		if s := run(t, c, Config{PIN: pinOf("1234"), Tries: &k}, time.Minute); s.State != OK {
			t.Errorf("%+v, entered %q", s, c.entered)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCard()
		c.pin, c.open = "1234", false
		s := run(t, c, Config{PIN: pinOf("1234"), Tries: &tries{full: true}}, time.Hour)
		if len(c.entered) > 0 || !strings.Contains(s.Err, "cannot be written down") {
			t.Errorf("entered %q, %+v", c.entered, s)
		}
	})
}

func TestBadPINs(t *testing.T) {
	t.Parallel()
	for _, pin := range []string{"", "123", "123456789", "12a4", "1234\r", `1";+CFUN=0"`} {
		synctest.Test(t, func(t *testing.T) {
			c := newCard()
			c.pin, c.open = "1234", false
			s := run(t, c, Config{PIN: pinOf(pin), Tries: &tries{}}, time.Minute)
			if len(c.entered) > 0 || s.State != WantsPIN || !strings.Contains(s.Err, "4 to 8 digits") {
				t.Errorf("%q: entered %q, %+v", pin, c.entered, s)
			}
		})
	}
}

// The pauses between resets grow, and begin anew when the fog was reached.
func TestResets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCard()
		began, reached := time.Now(), time.Now()
		var pulses []time.Duration
		var at []time.Duration
		cfg := Config{
			Away: func() time.Duration {
				if d := time.Since(began); d > 40*time.Hour && d < 41*time.Hour {
					reached = time.Now()
					return 0
				}
				return time.Since(reached)
			},
			ResetAfter: 15 * time.Minute, ResetMost: 4 * time.Hour,
			Pulse: func(context.Context) error {
				pulses = append(pulses, time.Since(began).Round(time.Minute))
				return nil
			},
		}
		cfg.Do = func(ctx context.Context, exchange func(context.Context, Port) error) error {
			before := c.restarts
			err := exchange(ctx, c)
			if c.restarts > before {
				at = append(at, time.Since(began).Round(time.Minute))
			}
			return err
		}
		s := run(t, c, cfg, 42*time.Hour)
		const m = time.Minute
		// 15, then 30, 60, 120, 240 and 240 minutes after the one before; by command
		// and by line in turn.
		wantAt := []time.Duration{15 * m, 107 * m, 470 * m}
		if len(at) < 4 || len(pulses) < 4 || at[0] != wantAt[0] {
			t.Fatalf("by AT %v, by line %v", at, pulses)
		}
		all := []time.Duration{at[0], pulses[0], at[1], pulses[1], at[2]}
		for i, pause := range []time.Duration{30 * m, 60 * m, 120 * m, 240 * m} {
			if got := all[i+1] - all[i]; got < pause || got > pause+2*m {
				t.Errorf("pause %d is %v; want %v", i, got, pause)
			}
		}
		if last := at[len(at)-1]; last < 41*time.Hour+15*m-2*m || last > 41*time.Hour+15*m+2*m {
			t.Errorf("the first after the fog was reached is at %v", last)
		}
		if s.Resets != uint64(len(at)+len(pulses)) || s.NextReset.IsZero() {
			t.Errorf("%+v, %d and %d", s, len(at), len(pulses))
		}
	})
}

// A modem that hears no command is reset by its line at once.
func TestDeafModemIsResetByItsLine(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*card){func(c *card) { c.hung = true }, func(c *card) { c.junk = true }} {
		synctest.Test(t, func(t *testing.T) {
			c := newCard()
			change(c)
			cfg := Config{
				Away: func() time.Duration { return time.Hour }, ResetAfter: time.Minute, ResetMost: time.Hour,
				Pulse: func(context.Context) error { c.hung, c.junk = false, false; return nil },
			}
			if s := run(t, c, cfg, 2*time.Minute); s.State != OK || s.Resets != 1 || s.LastBy != "line" || c.restarts != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Nothing is reset while the fog is there, nor while only a person helps.
func TestNoReset(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]time.Duration{"there": 0, "PIN": time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := newCard()
			c.open = away == 0
			s := run(t, c, Config{Away: func() time.Duration { return away }, ResetAfter: time.Minute}, 24*time.Hour)
			if s.Resets != 0 || c.restarts != 0 || !s.NextReset.IsZero() {
				t.Errorf("%s: %+v", name, s)
			}
		})
	}
}

func TestPortIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("no such port")
		c := newCard()
		is := false
		cfg := Config{Do: func(ctx context.Context, exchange func(context.Context, Port) error) error {
			if is {
				return gone
			}
			is = true
			return exchange(ctx, c)
		}}
		s := run(t, c, cfg, 3*time.Minute)
		if s.State != NoPort || s.IMEI == "" || s.Registration != Unknown || s.Signal.DBm != 0 {
			t.Errorf("%+v", s) // who it is stays known, how it does not
		}
	})
}

// No error tells the PIN.
func TestNoErrorTellsThePIN(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(c string) string { return c + "\r\n+CME ERROR: 16\r\n" }}
		if err := enterPIN(t.Context(), f, "4711"); err == nil || strings.Contains(err.Error(), "4711") {
			t.Errorf("%v", err)
		}
		f.answer = func(string) string { return "" }
		if err := enterPIN(t.Context(), f, "4711"); !errors.Is(err, ErrSilent) || strings.Contains(err.Error(), "4711") {
			t.Errorf("%v", err)
		}
	})
}

// Whatever a modem says, Look ends, and what it takes is bounded.
func FuzzLook(f *testing.F) {
	f.Add([]byte("\r\nOK\r\n"))
	f.Add([]byte("\r\n+CPIN: SIM PIN\r\n\r\nOK\r\n"))
	f.Add([]byte("\xff\x00\r\n+CREG: 2\r\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		synctest.Test(t, func(t *testing.T) {
			p := &fake{answer: func(string) string { return string(said) }}
			facts, err := Look(t.Context(), p)
			if err == nil && !strings.Contains(string(said), "O") {
				t.Errorf("%q is an answer: %+v", said, facts)
			}
			if len(facts.Model) > 32 || len(facts.Operator) > 64 || len(p.asked) > 40 {
				t.Errorf("%+v, asked %d times", facts, len(p.asked))
			}
		})
	})
}
