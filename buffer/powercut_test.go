//go:build !arm && !386

// The FUSE package does not build on 32-bit machines.

package buffer_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gridgate/buffer"
	"gridgate/internal/cuttest"
	"gridgate/internal/meter"
)

// said is where a child on a cut disk reports.
const said = "said"

// cutRun runs a child on a disk that logs, with files laid there first, and
// gives the log and the moment at which the files were there.
func cutRun(t *testing.T, mode string, files map[string][]byte) (log *cuttest.Log, start int) {
	t.Helper()
	disk := cuttest.Mount(t)
	for name, content := range files {
		f, err := os.Create(disk.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(content)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(disk.Path(said))
	if err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(disk.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		t.Fatal(err)
	}
	start = disk.Log().Len()
	cmd := command(t, mode, disk.Dir())
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		t.Fatalf("child %s: %v\n%s", mode, err, stderr.String())
	}
	return disk.Log(), start
}

// cutStates calls judge for n states that the power may leave behind.
func cutStates(t *testing.T, log *cuttest.Log, start, n int, noSync bool, judge func(at int, dir string) error) (bad int) {
	t.Helper()
	root := shmDir(t)
	for i := range n {
		at := start + rand.IntN(log.Len()-start+1)
		seed := rand.Uint64()
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := log.Cut(at, rand.New(rand.NewPCG(seed, 0)), noSync, dir); err != nil {
			t.Fatal(err)
		}
		if err := judge(at, dir); err != nil {
			if bad++; !noSync {
				t.Errorf("event %d of %d, seed %d: %v", at, log.Len(), seed, err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	return bad
}

// sound opens a store, has it judged, closes it and checks it.
func sound(dir string, o buffer.Options, judge func(s *buffer.Store) error) error {
	s, err := buffer.Open(dir, o)
	if err != nil {
		return err
	}
	if err := errors.Join(judge(s), s.Close()); err != nil {
		return err
	}
	report, err := buffer.Check(dir)
	if err != nil || !report.Sound() {
		return fmt.Errorf("check: %w %v", err, report.Problems)
	}
	return nil
}

// cutWork judges the states of a working store.
func cutWork(t *testing.T, states int, noSync bool) (bad int) {
	t.Helper()
	const share = 100 // of each run
	for states > 0 {
		n := min(states, share)
		states -= n
		log, start := cutRun(t, "shift", nil)
		bad += cutStates(t, log, start, n, noSync, func(at int, dir string) error {
			p := newPromise()
			for _, line := range log.Lines(said, at) {
				if err := p.hear(line); err != nil {
					return err
				}
			}
			return sound(dir, buffer.Options{BootID: "b", HotBytes: 256 << 10}, func(s *buffer.Store) error {
				return errors.Join(p.broken(s), p.ghosts(s))
			})
		})
	}
	return bad
}

// TestPowerCut cuts the power of a working store: whatever the disk has, the
// store opens and keeps what it promised.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	states := 100
	if raced {
		states = 30
	}
	cutWork(t, states, false)
}

// TestPowerCutControl shows that the judge sees what is lost: the disk takes no
// notice of syncs.
func TestPowerCutControl(t *testing.T) {
	t.Parallel()
	bad := cutWork(t, 100, true)
	if t.Logf("%d of 100 states broke a promise", bad); bad < 10 {
		t.Errorf("without syncs only %d of 100 states broke a promise", bad)
	}
}

// operation is what is done to a store as it is opened.
type operation struct {
	mode  string            // of the child
	files map[string][]byte // what it begins with
	judge func(s *buffer.Store) error
	newer bool // it brings the store to a format that this program does not know
}

// sound is sound of what the operation left behind.
func (op *operation) sound(dir string) error {
	o := buffer.Options{BootID: "b", Report: report}
	if !op.newer {
		return sound(dir, o, op.judge)
	}
	s, err := buffer.Open(dir, buffer.WithMigration(o, func() error { return nil }))
	if err != nil {
		return err
	}
	if err := errors.Join(op.judge(s), buffer.CloseAsOlder(s)); err != nil {
		return err
	}
	return sound(dir, o, op.judge)
}

func (op operation) cut(t *testing.T, states int) {
	t.Helper()
	log, start := cutRun(t, op.mode, op.files)
	cutStates(t, log, start, states, false, func(_ int, dir string) error {
		return op.sound(dir)
	})
}

// kill kills the operation at random moments, and lets it come to its end after.
func (op operation) kill(t *testing.T, times int) {
	t.Helper()
	for range times {
		dir := t.TempDir()
		for name, content := range op.files {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := command(t, op.mode, dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed, or done
		timer.Stop()
		if err := op.sound(dir); err != nil {
			t.Error(err)
		}
	}
}

// roomy makes a store of which most is free, with the rows 1 to 300 in each
// lane.
func roomy(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b", HotBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	for range 180 { // of one chunk and a bit each: to cut them to size is slow
		if err := s.Append(t.Context(), meter.Append{Rows: fatRows(meter.Interval, 10)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ack(meter.Interval, s.Last(meter.Interval)); err != nil {
		t.Fatal(err)
	}
	for _, lane := range meter.Lanes() {
		c := meter.Cursor{Meter: meter.ID(lane.String()), Serial: "SN", Profile: "1-0:99.1.0*255/7:2", Time: 1}
		if err := s.Append(t.Context(), meter.Append{Rows: rowsOf(lane, 1, 300), Cursors: []meter.Cursor{c}}); err != nil {
			t.Fatal(err)
		}
	}
	return closed(t, s, dir)
}

func closed(t *testing.T, s *buffer.Store, dir string) []byte {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(fileOf(dir))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// thickRounds is how many rounds of 50 meters thick has in its interval lane.
const thickRounds = 96

// thick makes a store that childThin finds far over its quota.
func thick(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	s, err := buffer.Open(dir, buffer.Options{BootID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range thickRounds {
		if err := s.Append(t.Context(), meter.Append{Rows: round(50, n)}); err != nil {
			t.Fatal(err)
		}
	}
	appendN(t, s, meter.Alarm, 300)
	appendN(t, s, meter.Billing, 300)
	return closed(t, s, dir)
}

// nothingGone says whether every row of thick is there, or part of a sum and
// declared.
func nothingGone(s *buffer.Store) error {
	var there, declared, energy, want uint64
	for after := uint64(0); after < s.Last(meter.Interval); {
		span, err := s.Peek(meter.Interval, after, 1000)
		if err != nil {
			return err
		}
		after = span.Last
		there += uint64(len(span.Rows))
		for _, h := range span.Holes {
			declared += h.Count
		}
		for i := range span.Rows {
			if span.Rows[i].Channel == "1-0:1.29.0*255/3:2" {
				energy += span.Rows[i].Value.Bits
			}
		}
	}
	for n := range thickRounds {
		for _, r := range round(50, n) {
			if r.Channel == "1-0:1.29.0*255/3:2" {
				want += r.Value.Bits
			}
		}
	}
	if there+declared != 50*2*thickRounds || energy != want {
		return fmt.Errorf("%d rows there and %d declared of %d; energy %d of %d", there, declared, 50*2*thickRounds, energy, want)
	}
	for _, lane := range []meter.Lane{meter.Alarm, meter.Billing} {
		if n, err := countLane(s, lane); err != nil || n != 300 {
			return fmt.Errorf("lane %s: %d rows: %w", lane, n, err)
		}
	}
	return nil
}

// allThere says whether every lane has the rows 1 to 300, once each.
func allThere(s *buffer.Store) error {
	for _, lane := range meter.Lanes() {
		var got []uint64
		for after := uint64(0); after < s.Last(lane); {
			span, err := s.Peek(lane, after, 1000)
			if err != nil {
				return err
			}
			after = span.Last
			for i := range span.Rows {
				r := &span.Rows[i]
				if strings.HasPrefix(string(r.Channel), "event.") {
					continue
				}
				n := original(r)
				if *r != rowOf(lane, n) {
					return fmt.Errorf("lane %s: %+v is not what was stored", lane, r)
				}
				got = append(got, n)
			}
		}
		if !slices.Equal(got, numbers(1, 300)) {
			return fmt.Errorf("lane %s: rows %v", lane, got)
		}
		if _, ok, err := s.Cursor(meter.ID(lane.String()), "SN", "1-0:99.1.0*255/7:2"); err != nil || !ok {
			return fmt.Errorf("lane %s: no cursor: %w", lane, err)
		}
	}
	return nil
}

// salvageOnce also wants the report of the damage, once.
func salvageOnce(s *buffer.Store) error {
	events := 0
	span, err := s.Peek(meter.Alarm, 0, 10000)
	for i := range span.Rows {
		if span.Rows[i].Channel == "event.buffer-damaged" {
			events++
		}
	}
	if events != 1 {
		err = errors.Join(err, fmt.Errorf("the fog is told %d times", events))
	}
	return errors.Join(err, allThere(s))
}

func operations(t *testing.T) map[string]operation {
	t.Helper()
	file := waiting(t, t.TempDir())
	return map[string]operation{
		"salvage":    {"open", map[string][]byte{"readings.db": wreckRoot(file)}, salvageOnce, false},
		"migration":  {"migrate", map[string][]byte{"readings.db": file}, allThere, true},
		"compaction": {"compact", map[string][]byte{"readings.db": roomy(t)}, allThere, false},
		"thinning":   {"thin", map[string][]byte{"readings.db": thick(t)}, nothingGone, false},
		"opening":    {"open", map[string][]byte{"readings.db": file}, allThere, false},
	}
}

func TestPowerCutDuring(t *testing.T) {
	t.Parallel()
	for name, op := range operations(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			op.cut(t, 20)
		})
	}
}

func TestKilledDuring(t *testing.T) {
	t.Parallel()
	for name, op := range operations(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			times := 20
			if raced {
				times = 5
			}
			op.kill(t, times)
		})
	}
}

// TestPowerCutFirstStart cuts the power of a gateway that makes its store.
func TestPowerCutFirstStart(t *testing.T) {
	t.Parallel()
	log, start := cutRun(t, "open", nil)
	cutStates(t, log, start, 50, false, func(_ int, dir string) error {
		return sound(dir, buffer.Options{}, func(s *buffer.Store) error {
			if s.Recovered() != nil {
				return s.Recovered().Reason
			}
			return nil
		})
	})
}
