package cosem

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/dlms/obis"
	"gridgate/dlms/security"
	"gridgate/internal/meter"
)

// TestReplayAfterARestart: somebody plays a whole conversation of yesterday to a
// program that has started anew. Without a high-level authentication only what
// is remembered tells; without a memory it is taken, which shows that the test
// can tell.
func TestReplayAfterARestart(t *testing.T) {
	t.Parallel()
	for title, kept := range map[string]bool{"remembered": true, "forgotten": false} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, securedMeter(t))
			var record [][]byte
			r.spoil(func(_, frame []byte) []byte {
				record = append(record, slices.Clone(frame))
				return frame
			})
			s := &store{known: true}
			visit := func() (meter.Got, error) {
				m := r.driver(t, secured(t, func(c *Config) {
					c.Client, c.Auth, c.Security.Policy, c.Counters, c.CounterObjects = 4, AuthNone, security.Authenticated, s, nil
				}))
				got, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
				if err == nil {
					err = m.Close()
				}
				return got, err
			}
			if _, err := visit(); err != nil {
				t.Fatal(err)
			}
			if !kept {
				s.received = nil
			}
			r.spoil(func(_, _ []byte) []byte {
				if len(record) == 0 {
					return nil
				}
				frame := record[0]
				record = record[1:]
				return frame
			})
			got, err := visit()
			if taken := err == nil && len(got.Rows) == 1; taken == kept || kept && (!errors.Is(err, security.ErrReplay) ||
				!strings.Contains(err.Error(), "`gridgate counters accept -received`")) {
				t.Errorf("%v, %s", err, describe(got))
			}
			if errors.Is(err, meter.ErrAuthentication) {
				t.Errorf("%v counts as wrong credentials", err)
			}
		})
	}
}

// TestAnAcceptedJumpIsTaken: a person raised the counters of the store, and the
// driver that met the jump goes by it, without a new start.
func TestAnAcceptedJumpIsTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, securedMeter(t))
	title, key := securedConfig(t).Security.Title, keysOf(t, 16).Encryption.ID()
	ahead, behind := &store{known: true}, &store{known: true}
	if err := ahead.Raise(title, key, 3_000_000); err != nil {
		t.Fatal(err)
	}
	visit := func(m *Meter) error {
		_, err := m.Visit(t.Context(), registers(t, "1-0:1.8.0"))
		return err
	}
	if err := visit(r.driver(t, secured(t, func(c *Config) { c.Counters = ahead }))); err != nil {
		t.Fatal(err)
	}
	m := r.driver(t, secured(t, func(c *Config) { c.Counters = behind }))
	var jump *security.JumpError
	err := visit(m)
	if !errors.As(err, &jump) || !strings.Contains(err.Error(), "`gridgate counters accept -sent 30000") {
		t.Fatalf("a jump: %v", err)
	}
	if err := behind.Raise(title, key, jump.Read+1); err != nil {
		t.Fatal(err)
	}
	if err := visit(m); err != nil {
		t.Errorf("after a person accepted it: %v", err)
	}
}

// TestCountersFollowTheClock: of a meter that shows none, whoever begins again
// after the store was lost begins above all that was used, however fast that was.
func TestCountersFollowTheClock(t *testing.T) {
	t.Parallel()
	clock := &turnable{at: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)}
	title, key := security.Title{1}, security.KeyID{2}
	begin := func() (clocked, uint32) {
		t.Helper()
		n, err := clockCounter(clock.now())
		if err != nil {
			t.Fatal(err)
		}
		s := &store{}
		if err := s.Raise(title, key, n+1+counterMargin); err != nil {
			t.Fatal(err)
		}
		return clocked{s, clock.now}, n + 1 + counterMargin
	}
	c, first := begin()
	if old := uint32(clock.at.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) / time.Second); first <= old {
		t.Errorf("begins at %d, and one counter a second since 2000 are %d", first, old)
	}
	end, refused := uint32(0), 0
	for range 1000 { // as fast as it goes
		n, err := c.Reserve(title, key, clockStep)
		if err != nil {
			if !errors.Is(err, ErrCounter) {
				t.Fatal(err)
			}
			refused++
			clock.turn(10 * time.Second)
			continue
		}
		end = n + clockStep
	}
	if refused < 100 || end < first+clockBurst {
		t.Errorf("refused %d times, from %d to %d", refused, first, end)
	}
	clock.turn(clockBurst / clockRate * time.Second)
	if _, again := begin(); again < end {
		t.Errorf("begins again at %d, and %d were used", again, end)
	}
	clock.turn(-50 * 24 * time.Hour)
	if _, err := clockCounter(clock.now()); err == nil || !strings.Contains(err.Error(), "the clock of this machine is at 2026-10-1") {
		t.Errorf("a clock before this was written: %v", err)
	}
	if _, err := clockCounter(meter.Stamp{Time: clock.now().Time + 1e10, Bound: meter.UnknownBound}); err == nil || !strings.Contains(err.Error(), "not synchronised") {
		t.Errorf("a clock that nothing keeps: %v", err)
	}
}

// TestAMeterThatShowsNoCounter is read by the clock, and by what a person says.
func TestAMeterThatShowsNoCounter(t *testing.T) {
	t.Parallel()
	clock := &turnable{at: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)}
	r := newRig(t, securedMeter(t))
	s := &store{}
	hidden := func(c *Config) { c.Counters, c.CounterObjects, c.Now = s, []obis.Code(nil), clock.now }
	if got, err := r.driver(t, secured(t, hidden)).Visit(t.Context(), registers(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 || len(s.raised) != 1 {
		t.Errorf("%v, %s", err, describe(got))
	}
}
