package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/agent/order"
)

func (r *rig) take(data []byte) (Result, error) {
	return r.engine.Take(Incoming{Data: data, Via: "mqtt"})
}

func TestCommandsAreCarriedOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin()
	got, err := r.take(r.u.command(order.Command, "c1", "action: look\nmeters: [m1, S2]\nwith: {text: seen}\n"))
	if err != nil || got.State != Accepted {
		t.Fatalf("%+v, %v", got, err)
	}
	res := r.final("c1")
	if res.State != Done || len(res.Meters) != 2 || res.Meters[1].Meter != "m2" || res.Meters[0].Text != "seen" || res.Text != "of 2 meters: 2 done" {
		t.Errorf("%+v", res)
	}
	states := []State{}
	for _, s := range r.results("c1") {
		states = append(states, s.State)
	}
	if states[0] != Accepted {
		t.Errorf("%q", states)
	}
	until(t, "nothing is left of it", func() bool { return len(r.files()) == 0 })
	if len(r.notes) != 0 {
		t.Errorf("reading is written down: %q", r.notes)
	}
	if look, ok := r.engine.Look("c1"); !ok || look.State != Done {
		t.Errorf("%+v, %v", look, ok)
	}
}

// TestRefusedCommands goes through every reason. Nothing is ever done.
func TestRefusedCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin()
	flip := "action: flip\nmeters: [m1]\n"
	eleven := "action: flip\nmeters: [m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10]\n"
	other := newUtility(t, "")
	control := r.u.keys[order.Control]
	past := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	for _, c := range []struct {
		name string
		data []byte
		want error
		told bool // on up/result/<id>
	}{
		{"unsigned", []byte(body("x0", flip)), order.ErrUnsigned, true},
		{"nothing", nil, order.ErrUnsigned, false},
		{"a wrong key", other.command(order.Control, "x1", flip), order.ErrSignature, true},
		{"a key of no role for commands", r.u.command(order.Config, "x2", flip), order.ErrRole, true},
		{"the wrong role", r.u.command(order.Command, "x3", flip), order.ErrRole, true},
		{"the other wrong role", r.u.command(order.Control, "x4", "action: look\nmeters: [m1]\n"), order.ErrRole, true},
		{"expired", seal("gridgate: 1\nkind: command\ntarget: here/gw\nid: x5\nnot_after: "+past+"\n---\n"+flip, control[0]), order.ErrExpired, true},
		{"too early", seal(strings.Replace(body("x6", flip), "\nnot_after:", "\nnot_before: "+time.Now().Add(time.Minute).UTC().Format(time.RFC3339)+"\nnot_after:", 1), control[0]), order.ErrTooEarly, true},
		{"another gateway", seal(strings.Replace(body("x7", flip), "here/gw", "here/gx", 1), control[0]), order.ErrTarget, true},
		{"another group", seal(strings.Replace(body("x8", flip), "here/gw", "here/_group/east", 1), control[0]), order.ErrTarget, true},
		{"an unknown kind", seal(strings.Replace(body("x9", flip), "kind: command", "kind: wish", 1), control[0]), order.ErrKind, true},
		{"another kind", seal("gridgate: 1\nkind: config\ntarget: here/gw\nversion: 7\n---\na: 1\n", r.u.keys[order.Config][0]), order.ErrKind, false},
		{"too large", r.u.command(order.Control, "y0", flip+"# "+strings.Repeat("x", MaxSize)+"\n"), order.ErrTooLarge, true},
		{"deep", r.u.command(order.Command, "y1", "action: look\nmeters: [m1]\nwith: "+strings.Repeat("{a: ", 20)+"1"+strings.Repeat("}", 20)+"\n"), order.ErrMalformed, true},
		{"an alias", r.u.command(order.Command, "y2", "action: look\nmeters: &m [m1]\nwith: {text: *m}\n"), order.ErrMalformed, true},
		{"no end", seal("gridgate: 1\nkind: command\ntarget: here/gw\nid: y3\n---\n"+flip, control[0]), order.ErrMalformed, true},
		{"an unknown action", r.u.command(order.Command, "y4", "action: dance\n"), ErrAction, true},
		{"an unknown key", r.u.command(order.Command, "y5", "action: look\nmeters: [m1]\nhurry: true\n"), order.ErrMalformed, true},
		{"an unknown parameter", r.u.command(order.Command, "y6", "action: look\nmeters: [m1]\nwith: {hurry: true}\n"), order.ErrMalformed, true},
		{"a parameter of another type", r.u.command(order.Command, "y7", "action: look\nmeters: [m1]\nwith: {long: much}\n"), order.ErrMalformed, true},
		{"no meters", r.u.command(order.Command, "y8", "action: look\n"), order.ErrMalformed, true},
		{"meters where none belong", r.u.command(order.Command, "y9", "action: step\nmeters: [m1]\n"), order.ErrMalformed, true},
		{"an unknown meter", r.u.command(order.Command, "z0", "action: look\nmeters: [m1, nobody]\n"), ErrMeter, true},
		{"a meter twice", r.u.command(order.Command, "z1", "action: look\nmeters: [m1, S1]\n"), order.ErrMalformed, true},
		{"two meters for one", r.u.command(order.Command, "z2", "action: lookone\nmeters: [m1, m2]\n"), order.ErrMalformed, true},
		{"a protected meter", r.u.command(order.Control, "z3", "action: flip\nmeters: [m1, m14]\n"), ErrProtected, true},
		{"eleven meters, one signature", r.u.command(order.Control, "z4", eleven), ErrSignatures, true},
		{"an action that wants two", r.u.command(order.Control, "z5", "action: twice\nmeters: [m1]\n"), ErrSignatures, true},
		{"the same key twice", seal(body("z6", "action: twice\nmeters: [m1]\n"), control[0], control[0]), ErrSignatures, true},
		{"more than the trust document allows an hour", seal(body("z7", strings.Replace(eleven, "m10]", "m10, m11, m12]", 1)), control...), ErrCap, true},
	} {
		got, err := r.take(c.data)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", c.name, got, err, c.want)
			continue
		}
		if id := order.ShownID(c.data); c.told {
			res := r.final(id)
			if res.State != Refused || res.Text == "" || !strings.Contains(err.Error(), strings.TrimSuffix(res.Text, "…")) {
				t.Errorf("%s: told %+v", c.name, res)
			}
		}
	}
	if acts := r.done(); len(acts) > 0 {
		t.Errorf("done: %q", acts)
	}
	if files := r.files(); len(files) > 0 {
		t.Errorf("left: %q", files)
	}
	// What could be otherwise by the time that somebody publishes it again is
	// refused then too.
	r.meters[14].Protected = false
	if _, err := r.take(r.u.command(order.Control, "z3", "action: flip\nmeters: [m1, m14]\n")); err == nil {
		t.Error("what was refused is carried out later")
	}
}

// TestNoMutationIsCarriedOut changes a command in every way and at every place.
func TestNoMutationIsCarriedOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin()
	good := r.u.command(order.Control, "good", "action: flip\nmeters: [m1]\n")
	try := func(bad []byte) {
		if bytes.Equal(bad, good) {
			return
		}
		if _, err := r.take(bad); err == nil {
			t.Fatalf("taken:\n%s", bad)
		}
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= byte(1 << rand.IntN(8))
		try(bad)
		try(good[:i])
		try(slices.Delete(slices.Clone(good), i, i+1))
		try(slices.Insert(slices.Clone(good), i, byte(rand.IntN(256))))
	}
	if acts := r.done(); len(acts) > 0 {
		t.Fatalf("done: %q", acts)
	}
	if _, err := r.take(good); err != nil { // the control: only the mutations were refused
		t.Fatal(err)
	}
	if res := r.final("good"); res.State != Done && res.State != Refused {
		t.Errorf("%+v", res)
	}
	until(t, "it is done", func() bool { return len(r.done()) == 1 })
}

// TestReplays: a command that was carried out is not carried out again, whoever
// sends it how often and whatever happened between.
func TestReplays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin()
	data := r.u.command(order.Control, "once", "action: flip\nmeters: [m1]\nwith: {text: opened}\n")
	var wait sync.WaitGroup
	for range 8 { // at the same moment
		wait.Go(func() { _, _ = r.take(data) })
	}
	wait.Wait()
	r.final("once")
	until(t, "it is known as done", func() bool { res, _ := r.engine.Look("once"); return res.State == Done })
	for i := range 3 {
		res, err := r.take(data)
		if err == nil || !strings.Contains(err.Error(), "carried out before") || res.State != Done || !res.Replayed {
			t.Errorf("again: %+v, %v", res, err)
		}
		if i < 2 {
			r.end()
			r.begin()
		}
	}
	last := r.results("once")
	if l := last[len(last)-1]; !l.Replayed || !strings.Contains(l.Text, "opened") || !strings.Contains(l.Text, "refused") {
		t.Errorf("told: %+v", l)
	}
	n := len(last)
	for range 5 { // a retained one comes with each connection, and is told of once
		_, _ = r.engine.Take(Incoming{Data: data, Retained: true})
	}
	until(t, "that was told", func() bool { return len(r.results("once")) > n })
	if more := len(r.results("once")) - n; more != 1 {
		t.Errorf("a retained one is told of %d times", more)
	}
	// Another command with its id is none.
	if _, err := r.take(r.u.command(order.Control, "once", "action: flip\nmeters: [m2]\n")); !errors.Is(err, ErrOtherID) {
		t.Errorf("another with the id: %v", err)
	}
	if acts := r.done(); len(acts) != 1 {
		t.Errorf("done: %q", acts)
	}
	if !slices.ContainsFunc(r.notes, func(n string) bool { return strings.HasPrefix(n, "command.begun control×1 once flip m1") }) {
		t.Errorf("written down: %q", r.notes)
	}
}

// TestUnsignedCannotSpeakForOthers: what nobody has signed says nothing on the
// topic of a command that there is.
func TestUnsignedCannotSpeakForOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hold = make(chan struct{})
	r.begin()
	if _, err := r.take(r.u.command(order.Control, "mine", "action: flip\nmeters: [m1]\n")); err != nil {
		t.Fatal(err)
	}
	_, _ = r.take([]byte(body("mine", "action: flip\nmeters: [m1]\n")))
	close(r.hold)
	if res := r.final("mine"); res.State != Done {
		t.Errorf("%+v", res)
	}
	for range 3 * perMinute {
		_, _ = r.take([]byte(body(fmt.Sprintf("spam-%d", rand.IntN(1e9)), "x")))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.sent); n > perMinute+1 {
		t.Errorf("%d answers to what nobody has signed", n)
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hold = make(chan struct{})
	r.begin()
	for i := range maxWaiting {
		if _, err := r.take(r.u.command(order.Command, fmt.Sprintf("q%d", i), "action: look\nmeters: [m1]\n")); err != nil {
			t.Fatal(i, err)
		}
	}
	one := r.u.command(order.Command, "onemore", "action: look\nmeters: [m1]\n")
	if _, err := r.take(one); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	close(r.hold)
	for i := range maxWaiting {
		if res := r.final(fmt.Sprintf("q%d", i)); res.State != Done {
			t.Errorf("%+v", res)
		}
	}
	until(t, "there is room", func() bool { return len(r.engine.Active()) == 0 })
	if _, err := r.take(one); err != nil {
		t.Errorf("later: %v", err)
	}
}

// TestControlGoesFirst, and what changes one meter goes in the order in which it
// came.
func TestControlGoesFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hold = make(chan struct{})
	r.begin()
	for i := range 6 {
		if _, err := r.take(r.u.command(order.Command, fmt.Sprintf("l%d", i), "action: look\nmeters: [m5]\n")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if _, err := r.take(r.u.command(order.Control, fmt.Sprintf("f%d", i), fmt.Sprintf("action: flip\nmeters: [m1]\nwith: {text: n%d}\n", i))); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "a control command runs beside three others", func() bool {
		running := 0
		for _, line := range r.engine.Active() {
			if strings.HasSuffix(line, "running") {
				running++
			}
		}
		res, _ := r.engine.Look("f0")
		return running == maxRunning && res.State == Running
	})
	if res, _ := r.engine.Look("f1"); res.State != Accepted {
		t.Errorf("the second for that meter is %s beside the first", res.State)
	}
	close(r.hold)
	times := []time.Time{}
	for i := range 3 {
		times = append(times, r.final(fmt.Sprintf("f%d", i)).Time)
	}
	if !slices.IsSortedFunc(times, func(a, b time.Time) int { return a.Compare(b) }) {
		t.Errorf("%v", times)
	}
}

func TestACommandWaitsForTheTime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.trusted = false
	r.begin()
	data := r.u.command(order.Control, "w", "action: flip\nmeters: [m1]\n")
	if res, err := r.take(data); err != nil || res.State != Waiting {
		t.Fatalf("%+v, %v", res, err)
	}
	if res, err := r.take(data); err != nil || res.State != Waiting { // the fog repeats it
		t.Fatalf("%+v, %v", res, err)
	}
	r.end()
	r.trusted = true
	r.begin() // it was kept
	if res := r.final("w"); res.State != Done || len(r.done()) != 1 {
		t.Errorf("%+v, %q", res, r.done())
	}
}

func TestALostStateLocksControl(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.memory.lost = true
	r.begin()
	if _, err := r.take(r.u.command(order.Control, "f", "action: flip\nmeters: [m1]\n")); !errors.Is(err, ErrLocked) {
		t.Error(err)
	}
	if _, err := r.take(r.u.command(order.Command, "l", "action: look\nmeters: [m1]\n")); err != nil {
		t.Error(err)
	}
	r.final("l")
}

// TestDisconnectsAnHour counts over restarts.
func TestDisconnectsAnHour(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.begin()
	for i := range 13 {
		id := fmt.Sprintf("d%d", i)
		if _, err := r.take(r.u.command(order.Control, id, fmt.Sprintf("action: flip\nmeters: [m%d]\n", i%3))); err != nil {
			t.Fatal(err)
		}
		want := Done
		if i == 12 {
			want = Refused
		}
		if res := r.final(id); res.State != want || want == Refused && !strings.Contains(res.Text, ErrCap.Error()) {
			t.Errorf("%d: %+v", i, res)
		}
		if i%5 == 4 {
			r.end()
			r.begin()
		}
	}
}

// TestLongResults come in parts, and again after a restart until the broker has
// all of them.
func TestLongResults(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.online = false
	r.begin()
	if _, err := r.take(r.u.command(order.Command, "long", "action: look\nmeters: [m1, m2]\nwith: {long: 5000}\n")); err != nil {
		t.Fatal(err)
	}
	until(t, "it is done", func() bool { return len(r.done()) == 2 && slices.Contains(r.files(), "long.result") })
	r.end()
	r.mu.Lock()
	r.sent, r.online = map[string][][]byte{}, true
	r.mu.Unlock()
	r.begin()
	res := r.final("long")
	if res.State != Done || res.Parts == nil || len(res.Meters) != 0 {
		t.Fatalf("%+v", res)
	}
	var whole []byte
	for i := range res.Parts.Parts {
		part := r.sent[fmt.Sprintf("long/%d", i+1)]
		if len(part) != 1 || len(part[0]) > PartSize {
			t.Fatalf("part %d came %d times", i+1, len(part))
		}
		whole = append(whole, part[0]...)
	}
	var full Result
	if err := json.Unmarshal(whole, &full); err != nil || len(whole) != res.Parts.Size || len(full.Meters) != 2 || len(full.Meters[0].Data) != 5002 {
		t.Errorf("%v, %d octets, %d meters", err, len(whole), len(full.Meters))
	}
	until(t, "nothing is left", func() bool { return len(r.files()) == 0 })
	if n := len(r.done()); n != 2 {
		t.Errorf("done %d times", n)
	}
}
