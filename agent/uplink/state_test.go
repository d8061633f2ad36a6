package uplink_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gridgate/internal/linktest"
)

// What the agent adds to the state is told with each connection, every hour,
// at once when it is asked for, and with each end.
func TestTheAgentsPartOfTheState(t *testing.T) {
	t.Parallel()
	simulate(t, gprs(), func(s *site) {
		var asked atomic.Int64
		s.config.State = func() []byte { return fmt.Appendf(nil, `"n":%d`, asked.Add(1)) }
		s.start()
		state := func() string { return string(s.broker.Retained("gridgate/1/site/gw/up/state")) }
		time.Sleep(30 * time.Second)
		// The will has the first, since it went to the broker before.
		if got, want := state(), `{"state":"online","version":"1.2.3","epoch":"000000000000feed","connected":"2000-01-01T00:00:01Z","n":2}`; got != want {
			t.Errorf("connected: %s, want %s", got, want)
		}
		time.Sleep(6 * time.Minute)
		if got := state(); !strings.Contains(got, `"n":3}`) {
			t.Errorf("a while into the connection: %s", got)
		}
		time.Sleep(50 * time.Minute)
		if got := state(); !strings.Contains(got, `"n":3}`) {
			t.Errorf("told anew within the hour: %s", got)
		}
		time.Sleep(10 * time.Minute)
		if got := state(); !strings.Contains(got, `"n":4}`) {
			t.Errorf("after an hour: %s", got)
		}
		s.up.Restate()
		s.store.kick()
		time.Sleep(10 * time.Second)
		if got := state(); !strings.Contains(got, `"n":5}`) {
			t.Errorf("asked for: %s", got)
		}
		s.link.Set(linktest.Cut)
		time.Sleep(time.Second)
		if got, want := state(), `{"state":"offline","reason":"lost","version":"1.2.3","n":1}`; got != want {
			t.Errorf("lost: %s, want %s", got, want)
		}
		s.link.Set(linktest.Up)
		time.Sleep(time.Minute)
		before := asked.Load()
		s.end()
		synctest.Wait()
		if got, want := state(), fmt.Sprintf(`{"state":"offline","reason":"stopped","version":"1.2.3","n":%d}`, before+1); got != want {
			t.Errorf("stopped: %s, want %s", got, want)
		}
	})
}
