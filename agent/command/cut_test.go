package command

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"gridgate/agent/order"
)

// snapshot is what is durable when something was just made so.
type snapshot struct {
	step   string
	dir    string
	memory *memory
	acts   []string
}

// cutAtEach carries out a command and gives what was durable at each step.
func cutAtEach(t *testing.T, late bool, data func(*utility) []byte) (r *rig, all []snapshot) {
	t.Helper()
	r = newRig(t)
	r.memory.late = late
	var mu sync.Mutex
	r.at = func(step string) {
		mu.Lock()
		defer mu.Unlock()
		s := snapshot{step: fmt.Sprintf("%d %s", len(all), step), dir: t.TempDir(), memory: r.memory.clone(), acts: r.done()}
		r.copyTo(s.dir)
		all = append(all, s)
	}
	r.begin()
	if _, err := r.take(data(r.u)); err != nil {
		t.Fatal(err)
	}
	r.final("c")
	until(t, "nothing is left", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(all) > 0 && strings.HasSuffix(all[len(all)-1].step, "delivered")
	})
	r.end()
	mu.Lock()
	defer mu.Unlock()
	return r, all
}

// again starts on what a cut left, and gives what was done in all and what was
// told.
func (s snapshot) again(t *testing.T, u *utility, send []byte) (acts []string, res Result) {
	t.Helper()
	r := newRig(t)
	r.dir, r.memory, r.u = s.dir, s.memory, u
	r.begin()
	if send != nil { // the fog repeats it until it is answered
		_, _ = r.take(send)
	}
	res = r.final("c")
	r.end()
	return append(slices.Clone(s.acts), r.done()...), res
}

// TestCutAtEachStep of a command that switches: it is done at most once at each
// meter, and always has a result.
func TestCutAtEachStep(t *testing.T) {
	t.Parallel()
	var data []byte
	r, all := cutAtEach(t, false, func(u *utility) []byte {
		data = u.command(order.Control, "c", "action: flip\nmeters: [m1, m2]\n")
		return data
	})
	if len(all) < 8 {
		t.Fatalf("%d steps only", len(all))
	}
	unknown, never := 0, 0
	for _, s := range all {
		acts, res := s.again(t, r.u, data)
		slices.Sort(acts)
		if len(slices.Compact(slices.Clone(acts))) != len(acts) {
			t.Errorf("%s: twice: %q", s.step, acts)
		}
		if len(acts) == 0 && res.State == Done {
			t.Errorf("%s: done, and nothing was done", s.step)
		}
		if res.State == Unknown {
			unknown++
			if i := slices.IndexFunc(res.Meters, func(m told) bool { return m.State == Unknown }); i < 0 || !strings.Contains(res.Meters[i].Text, "it is open") {
				t.Errorf("%s: not read back: %+v", s.step, res)
			}
		}
		for _, m := range res.Meters {
			if m.State == Failed {
				never++
				if slices.Contains(acts, "flip "+string(m.Meter)) {
					t.Errorf("%s: %s is said to have had nothing sent, and had", s.step, m.Meter)
				}
			}
		}
	}
	if unknown == 0 || never == 0 {
		t.Errorf("%d unknown, %d never come to; want some of both", unknown, never)
	}
}

// TestCutsAreSeen is the negative control: where it is remembered only afterwards
// that a command was begun, it is done twice.
func TestCutsAreSeen(t *testing.T) {
	t.Parallel()
	var data []byte
	r, all := cutAtEach(t, true, func(u *utility) []byte {
		data = u.command(order.Control, "c", "action: flip\nmeters: [m1]\n")
		return data
	})
	twice := 0
	for _, s := range all {
		if acts, _ := s.again(t, r.u, data); len(acts) > 1 {
			twice++
		}
	}
	if twice == 0 {
		t.Error("a command that is remembered late is never done twice: the test sees nothing")
	}
}

// TestCutsOfWhatGoesOn: it goes on from its note, and of what only reads the
// result comes too.
func TestCutsOfWhatGoesOn(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{"action: step\n", "action: look\nmeters: [m1]\n"} {
		var data []byte
		r, all := cutAtEach(t, false, func(u *utility) []byte {
			data = u.command(order.Command, "c", payload)
			return data
		})
		for _, s := range all {
			send := data
			if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
				send = nil // the result comes without anybody asking
			}
			acts, res := s.again(t, r.u, send)
			if res.State != Done {
				t.Errorf("%s %s: %+v", payload, s.step, res)
			}
			if strings.HasPrefix(payload, "action: step") && len(acts) != 1 {
				t.Errorf("%s: %q", s.step, acts)
			}
		}
	}
}

// TestMetersThatAreGone: what came of them is told all the same.
func TestMetersThatAreGone(t *testing.T) {
	t.Parallel()
	r, all := cutAtEach(t, false, func(u *utility) []byte {
		return u.command(order.Control, "c", "action: flip\nmeters: [m1, m2]\n")
	})
	for _, s := range all {
		if len(s.acts) == 0 || s.memory.past["c"].State.Final() {
			continue
		}
		after := newRig(t)
		after.dir, after.memory, after.u, after.meters = s.dir, s.memory, r.u, after.meters[:1]
		after.begin()
		res := after.final("c")
		after.end()
		for _, act := range s.acts {
			if !slices.ContainsFunc(res.Meters, func(m told) bool { return "flip "+string(m.Meter) == act && (m.State == Done || m.State == Unknown) }) {
				t.Errorf("%s: %q is not told: %+v", s.step, act, res)
			}
		}
		if n := len(after.done()); n > 0 {
			t.Errorf("%s: %d acts more", s.step, n)
		}
	}
}

// TestTornLog: what a power cut tore off the end of a log is not there.
func TestTornLog(t *testing.T) {
	t.Parallel()
	s := store{t.TempDir()}
	j, err := s.journal("c")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []mark{{Meter: "a", Begun: true}, {Meter: "a", Outcome: &told{Meter: "a", State: Done}}, {Meter: "b", Begun: true}} {
		if err := j.add(m); err != nil {
			t.Fatal(err)
		}
	}
	j.close()
	whole, err := s.get("c", logFile)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		if err := s.put("c", logFile, append(slices.Clone(whole[:n]), 0, 0, 0)); err != nil {
			t.Fatal(err)
		}
		j, err := s.journal("c")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Count(string(whole[:n]), "\n")
		if a, b := j.of("a"), j.of("b"); a.begun != (lines > 0) || (a.outcome != nil) != (lines > 1) || b.begun != (lines > 2) {
			t.Errorf("%d octets: %+v, %+v", n, a, b)
		}
		if err := j.add(mark{Meter: "c", Begun: true}); err != nil {
			t.Fatal(err)
		}
		j.close()
		if j, err = s.journal("c"); err != nil || !j.of("c").begun {
			t.Errorf("%d octets: what was added behind the tear does not read: %v", n, err)
		}
		j.close()
	}
}

// TestCutAndStateLost loses the state amid a switching, and not the log: what the
// log says was begun is not done again.
func TestCutAndStateLost(t *testing.T) {
	t.Parallel()
	var data []byte
	r, all := cutAtEach(t, false, func(u *utility) []byte {
		data = u.command(order.Control, "c", "action: flip\nmeters: [m1, m2]\n")
		return data
	})
	unknown := 0
	for _, s := range all {
		if strings.HasSuffix(s.step, "dropped") || strings.HasSuffix(s.step, "delivered") {
			continue // nothing tells any more: that is why such a state locks control
		}
		s.memory = newMemory()
		acts, res := s.again(t, r.u, nil)
		slices.Sort(acts)
		if len(slices.Compact(slices.Clone(acts))) != len(acts) {
			t.Errorf("%s: twice: %q", s.step, acts)
		}
		if res.State == Unknown {
			unknown++
		}
	}
	if unknown == 0 {
		t.Error("no cut between beginning and end")
	}
}

// TestLogOnAFullDisk: a part of a line that a full disk has taken does not spoil
// those behind it.
func TestLogOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := store{t.TempDir()}
	j, err := s.journal("c")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.add(mark{Meter: "a", Begun: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.file.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if _, err := j.file.WriteString(`{"meter":"b","be`); err != nil {
		t.Fatal(err)
	}
	if err := j.add(mark{Meter: "c", Begun: true}); err != nil {
		t.Fatal(err)
	}
	j.close()
	if j, err = s.journal("c"); err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if !j.of("a").begun || j.of("b").begun || !j.of("c").begun {
		t.Errorf("%+v", j.turns)
	}
}

// TestRefusedAtItsTurn has the meter of a command go before its turn, and come
// back: neither a cut nor who publishes it again has it carried out then.
func TestRefusedAtItsTurn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	data := r.u.command(order.Control, "c", "action: flip\nmeters: [m1]\n")
	r.trusted = false
	r.begin()
	if _, err := r.take(data); err != nil {
		t.Fatal(err)
	}
	r.end()
	meters := r.meters
	var mu sync.Mutex
	var all []snapshot
	r.meters, r.trusted, r.at = meters[2:], true, func(step string) {
		mu.Lock()
		defer mu.Unlock()
		s := snapshot{step: fmt.Sprintf("%d %s", len(all), step), dir: t.TempDir(), memory: r.memory.clone()}
		r.copyTo(s.dir)
		all = append(all, s)
	}
	r.begin()
	if res := r.final("c"); res.State != Refused {
		t.Fatalf("%+v", res)
	}
	until(t, "nothing is left", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(all) > 0 && strings.HasSuffix(all[len(all)-1].step, "delivered")
	})
	r.end()
	if len(all) < 4 {
		t.Errorf("%d steps only", len(all))
	}
	for _, s := range all { // all meters are there again
		for _, send := range [][]byte{nil, data} {
			if send == nil && strings.HasSuffix(s.step, "delivered") {
				continue // it was told
			}
			at := s
			at.dir, at.memory = t.TempDir(), s.memory.clone()
			from := &rig{t: t, dir: s.dir}
			from.copyTo(at.dir)
			if acts, res := at.again(t, r.u, send); len(acts) != 0 || res.State != Refused {
				t.Errorf("%s: %q, %+v", s.step, acts, res)
			}
		}
	}
}
