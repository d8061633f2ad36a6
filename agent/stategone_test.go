package agent

import (
	"os"
	"path/filepath"
	"testing"
)

// TestStateTakenAway has somebody take the state away of a gateway that has read
// no meter yet: control is locked, since nobody knows which commands it has done.
func TestStateTakenAway(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.trusting(newUtility(t), `{id: m, serial: S1, url: "dlms+wrapper://127.0.0.1:1?client=16&server=1", groups: [fast]}`)
	for start, want := range []bool{false, false, true, true} { // a first one, another, and two without
		if start == 2 {
			for _, name := range []string{"state.db", "state.db.2"} {
				if err := os.Remove(filepath.Join(s.dir, "buffer", name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		end := s.begin()
		if got := s.agent.state.Lost(); got != want {
			t.Errorf("start %d: lost %v, want %v", start, got, want)
		}
		end()
	}
}
