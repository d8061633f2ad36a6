package buffer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// child is what the test binary does as a child process.
func child(mode, dir string) int {
	var err error
	switch mode {
	case "die":
		err = childDie(dir)
	case "work":
		err = childWork(dir, false, 1<<30)
	case "early":
		err = childWork(dir, true, 1<<30)
	case "shift":
		err = childWork(dir, false, 40)
	case "loop":
		err = childLoop(dir)
	case "storm":
		err = childStorm()
	case "open":
		err = childOpen(dir)
	case "migrate":
		err = childMigrate(dir)
	case "compact":
		err = childCompact(dir)
	case "thin":
		err = childThin(dir)
	case "hold":
		err = childHold(dir)
	case "survey":
		err = childSurvey()
	case "fill":
		err = childFill(dir)
	case "memory":
		err = childMemory(dir)
	default:
		err = errors.New("no such mode")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "child %s: %v\n", mode, err)
		return 1
	}
	return 0
}

// command prepares a child process that dies with the test.
func command(t *testing.T, mode, dir string) *exec.Cmd {
	t.Helper()
	args := []string{os.Args[0]}
	if emulator, err := exec.LookPath("qemu-arm-static"); err == nil && runtime.GOARCH == "arm" {
		args = append([]string{emulator}, args...) // the kernel may not know how to run it
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "BUFFER_TEST_CHILD="+mode, "BUFFER_TEST_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a child process to its end and gives what it printed.
func run(t *testing.T, mode, dir string) string {
	t.Helper()
	out, err := command(t, mode, dir).CombinedOutput()
	if err != nil {
		t.Fatalf("child %s: %v\n%s", mode, err, out)
	}
	return string(out)
}

// childDie appends and ends without closing.
func childDie(dir string) error {
	s, err := buffer.Open(dir, buffer.Options{})
	if err != nil {
		return err
	}
	return s.Append(context.Background(), meter.Append{Rows: rowsOf(meter.Instant, 1, 3)})
}

// childHold holds the store until its standard input ends.
func childHold(dir string) error {
	s, err := buffer.Open(dir, buffer.Options{})
	if err != nil {
		return err
	}
	fmt.Println("open")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	return s.Close()
}

// childOpen opens the store, says so, and closes it.
func childOpen(dir string) error {
	s, err := buffer.Open(dir, buffer.Options{BootID: "b", Report: report})
	if err != nil {
		return err
	}
	fmt.Println("open alarm 0")
	return s.Close()
}

// childMigrate brings the store to a format that it has in tests only.
func childMigrate(dir string) error {
	s, err := buffer.Open(dir, buffer.WithMigration(buffer.Options{BootID: "b"}, func() error { return nil }))
	if err != nil {
		return err
	}
	fmt.Println("open alarm 0")
	return s.Close()
}

// childWork appends and acknowledges, some rounds or until it is killed, and
// reports on standard output what it tries and what returned: "try LANE LAST",
// "append LANE LAST", "acked LANE THROUGH". When early, it reports an append
// before it is made: the negative control.
func childWork(dir string, early bool, rounds int) error {
	s, err := buffer.Open(dir, buffer.Options{BootID: "b", HotBytes: 256 << 10})
	if err != nil {
		return err
	}
	ctx := context.Background()
	for range rounds {
		var a meter.Append
		var report, try strings.Builder
		for _, lane := range meter.Lanes() {
			n := rand.IntN(300)
			if rand.IntN(3) == 0 {
				n = 0
			}
			rows := rowsOf(lane, s.Last(lane)+1, n)
			a.Rows = append(a.Rows, rows...)
			if n > 0 {
				last := s.Last(lane) + uint64(n)
				a.Cursors = append(a.Cursors, meter.Cursor{Meter: meter.ID(lane.String()), Profile: "p", Time: int64(last)})
				fmt.Fprintf(&report, "append %s %d\n", lane, last)
				fmt.Fprintf(&try, "try %s %d\n", lane, last)
			}
		}
		fmt.Print(try.String())
		if early {
			fmt.Print(report.String())
		}
		if err := s.Append(ctx, a); err != nil {
			return err
		}
		if !early {
			fmt.Print(report.String())
		}
		lane := meter.Lanes()[rand.IntN(4)]
		if err := s.Ack(lane, s.Acked(lane)+rand.Uint64N(s.Last(lane)-s.Acked(lane)+1)); err != nil {
			return err
		}
		if rand.IntN(4) == 0 {
			through := s.Acked(lane)
			if err := s.Flush(ctx); err != nil {
				return err
			}
			fmt.Printf("acked %s %d\n", lane, through)
		}
	}
	return nil
}

// childSurvey opens the stores whose directories come on standard input and
// says what it saw of each: "reads ROWS DAMAGED" or "aside" or "refused ERROR".
func childSurvey() error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(survey(in.Text()))
	}
	return in.Err()
}

func survey(dir string) string {
	s, err := buffer.Open(dir, buffer.Options{})
	if err != nil {
		return "refused " + err.Error()
	}
	defer func() { _ = s.Close() }()
	if s.Recovered() != nil {
		return "aside " + s.Recovered().Reason.Error()
	}
	var rows, damaged uint64
	for _, lane := range meter.Lanes() {
		n, holes, err := readLane(s, lane, 0, 1000)
		if err != nil {
			return "error " + err.Error()
		}
		rows += n
		for _, h := range holes {
			if h.Reason == meter.Damaged {
				damaged += h.Last - h.First + 1
			}
		}
	}
	if err := s.Append(context.Background(), meter.Append{Rows: rowsOf(meter.Alarm, 1, 1)}); err != nil {
		return "error " + err.Error()
	}
	return fmt.Sprintf("reads %d %d", rows, damaged)
}

// childFill runs in a mount namespace of its own: it fills a file system of
// 3 MiB, drains the store and fills it again.
func childFill(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	s, err := buffer.Open(dir, buffer.Options{BootID: "b", HotBytes: -1})
	if err != nil {
		return err
	}
	ctx := context.Background()
	fill := func() (int, error) {
		for n := 0; ; n++ {
			err := s.Append(ctx, meter.Append{Rows: fatRows(meter.Interval, 5)})
			switch {
			case errors.Is(err, syscall.ENOSPC) && errors.Is(err, buffer.ErrFull):
				return n, nil
			case err != nil:
				return n, err
			}
		}
	}
	first, err := fill()
	if err != nil {
		return fmt.Errorf("first fill: %w", err)
	}
	last := s.Last(meter.Interval)
	if rows, err := countLane(s, meter.Interval); err != nil || rows != last {
		return fmt.Errorf("full: %d rows of %d: %w", rows, last, err)
	}
	// A restart on the full disk changes nothing.
	if err := s.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if s, err = buffer.Open(dir, buffer.Options{BootID: "c", HotBytes: -1}); err != nil {
		return fmt.Errorf("open on a full disk: %w", err)
	}
	if s.Recovered() != nil || s.Last(meter.Interval) < last || s.Boot() != 2 {
		return fmt.Errorf("after the restart: %v, last %d of %d, boot %d", s.Recovered(), s.Last(meter.Interval), last, s.Boot())
	}
	// Room returns: the store goes on by itself.
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=6m"); err != nil {
		return fmt.Errorf("remount: %w", err)
	}
	if err := errors.Join(s.Ack(meter.Interval, last), s.Flush(ctx)); err != nil {
		return fmt.Errorf("with room: %w", err)
	}
	again, err := fill()
	if err != nil {
		return fmt.Errorf("second fill: %w", err)
	}
	fmt.Printf("filled %d, then %d\n", first, again)
	if first < 5 || again < first*3/2 {
		return fmt.Errorf("filled %d, then %d appends", first, again)
	}
	if err := s.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	report, err := buffer.Check(dir)
	if err != nil || !report.Sound() {
		return fmt.Errorf("check: %w %v", err, report.Problems)
	}
	return nil
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	cmd := command(t, "fill", t.TempDir())
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func TestSecondProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := command(t, "hold", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("child: %q %v", line, err)
	}
	for _, open := range []func() error{
		func() error { _, err := buffer.Open(dir, buffer.Options{}); return err },
		func() error { _, err := buffer.Inspect(dir); return err },
		func() error { _, err := buffer.Check(dir); return err },
	} {
		var inUse *buffer.InUseError
		err := open()
		if !errors.As(err, &inUse) || inUse.PID != cmd.Process.Pid || inUse.Path != fileOf(dir) {
			t.Errorf("while process %d has it: %v", cmd.Process.Pid, err)
		}
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := buffer.Open(dir, buffer.Options{})
	if err != nil || s.Last(meter.Instant) != 0 {
		t.Fatalf("after it ended: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
