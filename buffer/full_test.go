package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// tellLane reads a lane: its rows, and those declared as lost.
func tellLane(s *buffer.Store, lane meter.Lane) (rows, lost uint64, err error) {
	for after := uint64(0); after < s.Last(lane); {
		span, err := s.Peek(lane, after, 1000)
		if err != nil {
			return 0, 0, err
		}
		after = span.Last
		rows += uint64(len(span.Rows))
		for _, h := range span.Holes {
			lost += h.Count
		}
	}
	return rows, lost, nil
}

// childLoop runs in a mount namespace of its own: it fills an ext4 file system
// of 8 MiB, lives with it, and gets room again.
func childLoop(dir string) error {
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 8<<20), os.Mkdir(mnt, 0o700)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, mnt},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s: it needs root, e2fsprogs and a loop device", args, err, out)
		}
	}
	// Of the quota the disk has a sixth.
	o := buffer.Options{BootID: "b", HotBytes: -1, Quota: buffer.Quota{Total: buffer.Limit{Bytes: 48 << 20}}}
	s, err := buffer.Open(mnt, o)
	if err != nil {
		return err
	}
	var stored, refused uint64
	round := func(n int) error {
		rows := fatRows(meter.Interval, 20)
		err := s.Append(context.Background(), meter.Append{Rows: rows})
		switch {
		case err == nil:
			stored += uint64(len(rows))
		case errors.Is(err, buffer.ErrFull):
			refused++
		default:
			return fmt.Errorf("round %d: %w", n, err)
		}
		for _, lane := range []meter.Lane{meter.Alarm, meter.Billing} {
			if err := s.Append(context.Background(), meter.Append{Rows: rowsOf(lane, uint64(n)+1, 1)}); err != nil {
				return fmt.Errorf("round %d: lane %s: %w", n, lane, err)
			}
		}
		return nil
	}
	const full, again = 200, 30 // 60 KB of the interval lane each: 12 MB
	for n := range full {
		if err := round(n); err != nil {
			return err
		}
	}
	_, lost, err := tellLane(s, meter.Interval)
	if err != nil || lost+refused == 0 {
		return fmt.Errorf("the disk was never full: %w", err)
	}
	// What is acknowledged makes room, on the full disk.
	if err := errors.Join(s.Ack(meter.Interval, s.Last(meter.Interval)/2), s.Flush(context.Background())); err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = buffer.Open(mnt, o); err != nil || s.Recovered() != nil {
		return fmt.Errorf("open: %w %v", err, s.Recovered())
	}
	for n := range again {
		if err := round(full + n); err != nil {
			return err
		}
	}
	for _, lane := range []meter.Lane{meter.Alarm, meter.Billing} {
		rows, lost, err := tellLane(s, lane)
		if err != nil || rows != full+again || lost != 0 {
			return fmt.Errorf("lane %s: %d rows, %d lost of %d: %w", lane, rows, lost, full+again, err)
		}
	}
	rows, lost, err := tellLane(s, meter.Interval)
	if err != nil {
		return err
	}
	fmt.Printf("stored %d rows of the interval lane; refused %d times; %d there, %d declared\n", stored, refused, rows, lost)
	if rows+lost < stored || rows == 0 {
		return fmt.Errorf("%d rows there and %d declared of %d", rows, lost, stored)
	}
	if err := s.Close(); err != nil {
		return err
	}
	report, err := buffer.Check(mnt)
	if err != nil || !report.Sound() {
		return fmt.Errorf("check: %w %v", err, report.Problems)
	}
	return nil
}

// TestDiskFullLoop fills a file system of a real kind. It is one process with one
// goroutine: scripts/test.sh leaves it out where it looks for races.
func TestDiskFullLoop(t *testing.T) {
	t.Parallel()
	cmd := command(t, "loop", t.TempDir())
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // and nothing of its mounts comes back
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
