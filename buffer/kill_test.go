package buffer_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/buffer/buffertest"
	"gridgate/internal/meter"
)

// promise is what a killed child said had returned.
type promise struct {
	appended, acked, tried map[meter.Lane]uint64
	lines                  int
}

func newPromise() promise {
	return promise{appended: map[meter.Lane]uint64{}, acked: map[meter.Lane]uint64{}, tried: map[meter.Lane]uint64{}}
}

// hear takes what the child said.
func (p *promise) hear(line string) error {
	var verb, name string
	var n uint64
	if _, err := fmt.Sscan(line, &verb, &name, &n); err != nil {
		return fmt.Errorf("child said %q", line)
	}
	lane, err := meter.ParseLane(name)
	if err != nil {
		return fmt.Errorf("child said %q", line)
	}
	p.lines++
	switch verb {
	case "append":
		p.appended[lane] = n
	case "acked":
		p.acked[lane] = n
	case "try":
		p.tried[lane] = n
	}
	return nil
}

// killed runs a working child, kills it at a random moment and gives what it
// had reported by then.
//
// The moment counts from the child's first word, or from its start when
// opening is what may be interrupted.
func killed(t *testing.T, mode, dir string, opening bool) promise {
	t.Helper()
	cmd := command(t, mode, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() {
		timer := time.AfterFunc(time.Duration(rand.IntN(150))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		t.Cleanup(func() { timer.Stop() })
	}
	if opening {
		kill()
	}
	p := newPromise()
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break // a line without its end was not reported in full
		}
		if err := p.hear(line); err != nil {
			t.Fatal(err)
		}
		if p.lines == 1 && !opening {
			kill()
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("child ended by itself: %v", err)
	}
	return p
}

// broken compares a store with what was promised and says what was not kept.
func (p promise) broken(s *buffer.Store) error {
	var errs []error
	if s.Recovered() != nil {
		return fmt.Errorf("moved aside: %w", s.Recovered().Reason)
	}
	for _, lane := range meter.Lanes() {
		if s.Last(lane) < p.appended[lane] {
			errs = append(errs, fmt.Errorf("%s: last %d, promised %d", lane, s.Last(lane), p.appended[lane]))
		}
		if s.Acked(lane) < p.acked[lane] {
			errs = append(errs, fmt.Errorf("%s: acknowledged %d, promised %d", lane, s.Acked(lane), p.acked[lane]))
		}
		_, holes, err := readLane(s, lane, 0, 1000)
		errs = append(errs, err)
		for _, h := range holes {
			unclean := lane == meter.Instant && h.Reason == meter.UncleanStop && h.First == h.Last
			evicted := h.Reason == meter.Quota && h.First == 1 && h.Last <= s.Acked(lane)
			if !unclean && !evicted {
				errs = append(errs, fmt.Errorf("%s: hole %+v", lane, h))
			}
		}
		c, ok, err := s.Cursor(meter.ID(lane.String()), "", "p")
		if err != nil || !ok && p.appended[lane] > 0 || uint64(c.Time) > s.Last(lane) || uint64(c.Time) < p.appended[lane] {
			errs = append(errs, fmt.Errorf("%s: cursor %d (%v), last %d, promised %d, %w", lane, c.Time, ok, s.Last(lane), p.appended[lane], err))
		}
	}
	return errors.Join(errs...)
}

// ghosts says whether a store that began with this promise has more than was
// ever tried.
func (p promise) ghosts(s *buffer.Store) error {
	for _, lane := range meter.Lanes() {
		// The hole of an unclean stop may stand behind it.
		if s.Last(lane) > p.tried[lane]+1 {
			return fmt.Errorf("%s: last %d, only %d was ever tried", lane, s.Last(lane), p.tried[lane])
		}
	}
	return nil
}

// TestKilled kills a working process twenty times on one store.
func TestKilled(t *testing.T) {
	t.Parallel()
	killAgain(t, 20)
}

func killAgain(t *testing.T, times int) {
	t.Helper()
	dir := t.TempDir()
	lines := 0
	for round := range times {
		p := killed(t, "work", dir, round%4 == 3)
		lines += p.lines
		s, err := buffer.Open(dir, buffer.Options{BootID: "b", HotBytes: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.broken(s); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		buffertest.Check(t, dir)
	}
	if lines < times {
		t.Errorf("the children said %d things only", lines)
	}
}

// TestKilledControl shows that the judge of TestKilled sees a lost append: the
// child reports appends before they are made.
func TestKilledControl(t *testing.T) {
	t.Parallel()
	for range 40 {
		dir := t.TempDir()
		p := killed(t, "early", dir, false)
		s, err := buffer.Open(dir, buffer.Options{BootID: "b", HotBytes: 256 << 10})
		if err != nil {
			t.Fatal(err)
		}
		lost := p.broken(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if lost != nil {
			return
		}
	}
	t.Error("appends that were promised too early were never missed")
}
