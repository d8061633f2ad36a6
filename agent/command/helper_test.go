package command

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"

	"gridgate/agent/order"
	"gridgate/internal/meter"
)

// memory is a state file in memory.
type memory struct {
	mu   sync.Mutex
	past map[string]Past
	lost bool
	// late has what is begun remembered only when it has ended: the negative
	// control of tests that cut.
	late bool
}

func newMemory() *memory { return &memory{past: map[string]Past{}} }

func (m *memory) Begin(id string, _, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.past[id]; known {
		return errors.New("begun before")
	}
	if !m.late {
		m.past[id] = Past{State: Running}
	}
	return nil
}

func (m *memory) End(id string, p Past) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past[id] = p
	return nil
}

func (m *memory) Known(id string) (Past, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.past[id]
	return p, ok
}

func (m *memory) Open() (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, p := range m.past {
		if p.State == Running {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *memory) Lost() bool { return m.lost }

func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memory{past: maps.Clone(m.past), lost: m.lost, late: m.late}
}

// utility has two keys of each role but root, which has one.
type utility struct {
	keys  map[order.Role][]minisign.PrivateKey
	trust *order.Trust
}

func newUtility(t testing.TB, limits string) *utility {
	t.Helper()
	u := &utility{keys: map[order.Role][]minisign.PrivateKey{}}
	body := "gridgate: 1\nkind: trust\ntarget: '*'\nversion: 1\n---\nroles:\n"
	for _, r := range order.Roles() {
		var public []string
		for range 2 {
			_, k, err := minisign.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			u.keys[r] = append(u.keys[r], k)
			p, _ := k.Public().(minisign.PublicKey)
			public = append(public, p.String())
		}
		body += fmt.Sprintf("  %s: {keys: [%s]}\n", r, strings.Join(public, ", "))
	}
	body += limits
	var err error
	if u.trust, _, err = order.FirstTrust(seal(body, u.keys[order.Root][0])); err != nil {
		t.Fatal(err)
	}
	return u
}

func seal(body string, keys ...minisign.PrivateKey) []byte {
	var all [][]byte
	for _, k := range keys {
		all = append(all, order.Sign(k, []byte(body), "test"))
	}
	return order.Seal([]byte(body), all...)
}

// body of a command that is valid for an hour.
func body(id, payload string) string {
	return fmt.Sprintf("gridgate: 1\nkind: command\ntarget: here/gw\nid: %s\nnot_after: %s\n---\n%s", id, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), payload)
}

func (u *utility) command(r order.Role, id, payload string) []byte {
	return seal(body(id, payload), u.keys[r][0])
}

// rig is a gateway with an engine.
type rig struct {
	t       *testing.T
	dir     string
	u       *utility
	memory  *memory
	meters  []Meter
	trusted bool // the clock
	online  bool // the broker takes what is sent
	at      func(step string)

	engine *Engine
	end    func()

	mu    sync.Mutex
	acts  []string // what was done at meters, and to which
	sent  map[string][][]byte
	notes []string
	held  []func() // arrivals that wait for the broker
	hold  chan struct{}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), u: newUtility(t, "limits: {disconnects_per_hour: 12, two_signatures: [twice]}\n"), memory: newMemory(), trusted: true, online: true, sent: map[string][][]byte{}}
	for i := range 15 {
		r.meters = append(r.meters, Meter{ID: meter.ID(fmt.Sprintf("m%d", i)), Serial: fmt.Sprintf("S%d", i), Protected: i == 14})
	}
	return r
}

// actions for tests: look reads, flip switches, step goes on after a cut.
func (r *rig) actions() []Action {
	return []Action{
		{Name: "look", Role: order.Command, AfterCut: Repeat, Targets: Some, New: r.executor("look")},
		{Name: "lookone", Role: order.Command, AfterCut: Repeat, Targets: One, New: r.executor("lookone")},
		{Name: "flip", Role: order.Control, AfterCut: Never, Targets: Some, Switches: true, Disconnects: true, New: r.executor("flip")},
		{Name: "twice", Role: order.Control, AfterCut: Never, Targets: Some, New: r.executor("twice")},
		{Name: "step", Role: order.Command, AfterCut: Resume, New: r.executor("step")},
	}
}

type executor struct {
	r    *rig
	name string
	With struct {
		Fail bool   `yaml:"fail"`
		Long int    `yaml:"long"`
		Text string `yaml:"text"`
	}
}

func (r *rig) executor(name string) func(func(any) error) (Executor, error) {
	return func(decode func(any) error) (Executor, error) {
		e := &executor{r: r, name: name}
		return e, decode(&e.With)
	}
}

func (e *executor) Do(ctx context.Context, j *Job) Outcome {
	if e.r.hold != nil {
		select {
		case <-e.r.hold:
		case <-ctx.Done():
			return Lost(ctx.Err())
		}
	}
	if e.name == "step" && j.Noted != nil {
		return DoneWith("went on after "+string(j.Noted), nil)
	}
	e.r.mu.Lock()
	e.r.acts = append(e.r.acts, e.name+" "+string(j.Meter))
	e.r.mu.Unlock()
	if e.name == "step" {
		if err := j.Note("half"); err != nil {
			return Fail(err)
		}
	}
	if e.With.Fail {
		return Fail(errors.New("it was asked to"))
	}
	return DoneWith(e.With.Text, strings.Repeat("x", e.With.Long))
}

func (e *executor) ReadBack(context.Context, *Job) Outcome {
	return Outcome{Text: "it is open", Data: "read back"}
}

func (r *rig) judge(data []byte) (Judged, error) {
	d, err := r.u.trust.Verify(data)
	if err != nil {
		return Judged{Trust: r.u.trust}, err
	}
	v, err := d.Judge(order.Here{Site: "here", Gateway: "gw", Groups: []string{"west"}, Agent: "1.0.0", Now: time.Now(), Trusted: r.trusted})
	return Judged{d, r.u.trust, v}, err
}

// begin makes an engine and runs it.
func (r *rig) begin() {
	r.t.Helper()
	var err error
	r.engine, err = New(Config{
		Dir: r.dir, Memory: r.memory, Gateway: &Gateway{}, Actions: r.actions(),
		Meters: func() []Meter { return r.meters },
		Visit:  func(context.Context, meter.ID, meter.Ask) (meter.Got, error) { return meter.Got{}, nil },
		Judge:  r.judge, Trusted: func() bool { return r.trusted }, Send: r.send, At: r.at, Log: slog.New(slog.DiscardHandler),
		Note: func(what, by, detail string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.notes = append(r.notes, what+" "+by+" "+detail)
			return nil
		},
		Report: func(*order.Document, [32]byte, Result) {},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(r.end)
}

// send keeps what is sent; it has arrived a moment later, when the broker is there.
func (r *rig) send(id string, part int, payload []byte, arrived func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	topic := id
	if part > 0 {
		topic = fmt.Sprintf("%s/%d", id, part)
	}
	r.sent[topic] = append(r.sent[topic], slices.Clone(payload))
	if r.online {
		go arrived()
		return
	}
	r.held = append(r.held, arrived)
}

// results are what was said of a command.
func (r *rig) results(id string) (all []Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.sent[id] {
		var res Result
		if err := json.Unmarshal(b, &res); err != nil {
			r.t.Error(err)
		}
		all = append(all, res)
	}
	return all
}

// final waits for a result.
func (r *rig) final(id string) Result {
	r.t.Helper()
	var last Result
	until(r.t, id+" has a result", func() bool {
		for _, res := range r.results(id) {
			if res.State.Final() {
				last = res
				return true
			}
		}
		return false
	})
	return last
}

func (r *rig) done() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.acts)
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain until ", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// files are the names in the engine's directory.
func (r *rig) files() (names []string) {
	all, err := os.ReadDir(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range all {
		names = append(names, f.Name())
	}
	return names
}

// copyTo copies the directory.
func (r *rig) copyTo(dir string) {
	for _, name := range r.files() {
		b, err := os.ReadFile(filepath.Join(r.dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			r.t.Error(err)
		}
	}
}
