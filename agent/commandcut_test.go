//go:build !arm && !386

// The FUSE package does not build on 32-bit machines.

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/buffer/state"
	"gridgate/internal/cuttest"
	"gridgate/internal/meter"
)

// With cutDir in the environment the test binary carries out the commands of
// cutDocuments there, one after another, and says what it does.
const (
	cutDir       = "GRIDGATE_TEST_CUT_DIR"
	cutDocuments = "GRIDGATE_TEST_CUT_DOCUMENTS"
	cutCommands  = 8
)

// flipper is an action at a meter that is told of.
type flipper struct {
	say func(text string)
}

func (f flipper) Do(_ context.Context, j *command.Job) command.Outcome {
	f.say(fmt.Sprintf("act %s %s", j.Command, j.Meter))
	return command.DoneWith("", nil)
}

func (f flipper) ReadBack(context.Context, *command.Job) command.Outcome {
	return command.DoneWith("read back", nil)
}

// cutEngine is an engine on a state and a directory, which tell what is done.
type cutEngine struct {
	engine *command.Engine
	state  *state.State
	stop   func() error
}

func startCut(dir, documents string, say func(text string)) (*cutEngine, error) {
	s, err := state.Open(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(documents, "trust"))
	if err != nil {
		return nil, err
	}
	trust, _, err := order.FirstTrust(text)
	if err != nil {
		return nil, err
	}
	var arrivals sync.WaitGroup
	engine, err := command.New(command.Config{
		Dir: dir, Memory: commandMemory{s}, Gateway: &command.Gateway{}, Log: slog.New(slog.DiscardHandler),
		Actions: []command.Action{{Name: "flip", Role: order.Control, AfterCut: command.Never, Targets: command.Some, Switches: true, Disconnects: true, New: func(decode func(any) error) (command.Executor, error) {
			return flipper{say}, decode(&struct{}{})
		}}},
		Meters: func() []command.Meter { return []command.Meter{{ID: "a"}, {ID: "b"}} },
		Judge: func(data []byte) (command.Judged, error) {
			d, err := trust.Verify(data)
			if err != nil {
				return command.Judged{}, err
			}
			v, err := d.Judge(order.Here{Site: "here", Gateway: "gw1", Now: time.Now(), Trusted: true})
			return command.Judged{Document: d, Trust: trust, Verdict: v}, err
		},
		Trusted: func() bool { return true },
		Note:    func(string, string, string) error { return nil },
		Report:  func(*order.Document, [32]byte, command.Result) {},
		Visit:   func(context.Context, meter.ID, meter.Ask) (meter.Got, error) { return meter.Got{}, nil },
		Send: func(id string, _ int, payload []byte, arrived func()) {
			arrivals.Go(func() {
				for _, s := range []command.State{command.Done, command.Failed, command.Unknown, command.Refused} {
					if strings.Contains(string(payload), fmt.Sprintf(`"state":%q,"time"`, s)) {
						say(fmt.Sprintf("result %s %s", id, s))
					}
				}
				arrived()
			})
		},
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	return &cutEngine{engine, s, func() error {
		cancel()
		err := <-done
		arrivals.Wait()
		return errors.Join(err, s.Close())
	}}, nil
}

// runCut is the process whose power is cut.
func runCut(dir, documents string) error {
	said := newSaid(func(text string) { fmt.Println(text) })
	c, err := startCut(dir, documents, said.say)
	if err != nil {
		return err
	}
	for n := range cutCommands {
		id := fmt.Sprintf("c%d", n)
		data, err := os.ReadFile(filepath.Join(documents, id))
		if err != nil {
			return err
		}
		if _, err := c.engine.Take(command.Incoming{Data: data}); err != nil {
			return err
		}
		said.say("accepted " + id)
		if n%2 == 1 { // two at a time
			said.await("result c"+fmt.Sprint(n-1)+" ", "result "+id+" ")
		}
	}
	return c.stop()
}

// said is what was told, which may be waited for.
type said struct {
	out  func(text string)
	mu   sync.Mutex
	cond *sync.Cond
	all  []string
}

func newSaid(out func(text string)) *said {
	s := &said{out: out}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *said) say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out(text)
	s.all = append(s.all, text)
	s.cond.Broadcast()
}

// await waits until something was told with each prefix.
func (s *said) await(prefixes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for slices.ContainsFunc(prefixes, func(p string) bool {
		return !slices.ContainsFunc(s.all, func(l string) bool { return strings.HasPrefix(l, p) })
	}) {
		s.cond.Wait()
	}
}

// awaitOrIdle waits likewise, but no longer than until the engine has nothing to do
// and has sent all: what has no result then has vanished.
func (s *said) awaitOrIdle(e *command.Engine, prefixes ...string) {
	for !s.has(prefixes...) && !e.Idle() {
		pause := time.NewTimer(time.Millisecond)
		<-pause.C
	}
}

func (s *said) has(prefixes ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(prefixes, func(p string) bool {
		return !slices.ContainsFunc(s.all, func(l string) bool { return strings.HasPrefix(l, p) })
	})
}

// judgeCut starts on what a cut left, lets the fog repeat what it has no result
// of, and says what promise is broken.
func judgeCut(dir, documents string, before []string) error {
	said := newSaid(func(string) {})
	c, err := startCut(dir, documents, said.say)
	if err != nil {
		return err
	}
	has := func(lines []string, prefix string) bool {
		return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
	}
	var wait []string
	for n := range cutCommands {
		id := fmt.Sprintf("c%d", n)
		if has(before, "result "+id+" ") {
			continue
		}
		if !has(before, "accepted "+id) || n%3 == 0 { // the fog repeats what it has no answer to
			data, err := os.ReadFile(filepath.Join(documents, id))
			if err != nil {
				return err
			}
			_, _ = c.engine.Take(command.Incoming{Data: data})
		}
		wait = append(wait, "result "+id+" ")
	}
	said.awaitOrIdle(c.engine, wait...)
	err = c.stop()
	all := append(slices.Clone(before), said.all...)
	for n := range cutCommands {
		for _, m := range []string{"a", "b"} {
			act := fmt.Sprintf("act c%d %s", n, m)
			times := 0
			for _, l := range all {
				if l == act {
					times++
				}
			}
			if times > 1 {
				err = errors.Join(err, fmt.Errorf("%q %d times", act, times))
			}
		}
	}
	for _, p := range wait {
		if !has(all, p) {
			err = errors.Join(err, errors.New("never: "+p))
		}
	}
	return err
}

func cutCommandsAt(t *testing.T, n int, noSync bool) (bad int) {
	t.Helper()
	u, documents := newUtility(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(documents, "trust"), u.trust(1), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := range cutCommands {
		d := u.sign(order.Control, fmt.Sprintf("gridgate: 1\nkind: command\ntarget: here/gw1\nid: c%d\nnot_after: %s\n---\naction: flip\nmeters: [%s]\n",
			n, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), []string{"a", "b"}[n%2]))
		if err := os.WriteFile(filepath.Join(documents, fmt.Sprintf("c%d", n)), d, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	disk := cuttest.Mount(t)
	out, err := os.Create(disk.Path("said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), cutDir+"="+disk.Dir(), cutDocuments+"="+documents)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		t.Fatalf("child: %v\n%s", err, stderr.String())
	}
	log, root := disk.Log(), t.TempDir()
	for i := range n {
		dir := filepath.Join(root, fmt.Sprint(i))
		at, seed := rand.IntN(log.Len()+1), rand.Uint64()
		if err := errors.Join(os.Mkdir(dir, 0o700), log.Cut(at, rand.New(rand.NewPCG(seed, 0)), noSync, dir)); err != nil {
			t.Fatal(err)
		}
		if err := judgeCut(dir, documents, log.Lines("said", at)); err != nil {
			if bad++; !noSync {
				t.Errorf("event %d of %d, seed %d: %v", at, log.Len(), seed, err)
			}
		}
	}
	return bad
}

// TestCommandsThroughPowerCuts: nothing is done twice, and nothing that was
// accepted is without a result.
func TestCommandsThroughPowerCuts(t *testing.T) {
	t.Parallel()
	cutCommandsAt(t, 60, false)
}

// TestCommandsThroughPowerCutsControl shows that the judge sees what is lost: the
// disk takes no notice of syncs.
func TestCommandsThroughPowerCutsControl(t *testing.T) {
	t.Parallel()
	if bad := cutCommandsAt(t, 30, true); bad < 3 {
		t.Errorf("without syncs only %d of 30 cuts broke a promise", bad)
	}
}
