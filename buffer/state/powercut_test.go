//go:build !arm && !386

// The FUSE package does not build on 32-bit machines.

package state

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gridgate/dlms/security"
	"gridgate/internal/cuttest"
)

// TestMain lets the test binary be its own child process.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STATE_TEST_DIR"); dir != "" {
		if err := childWork(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childWork changes the state and says what has returned.
func childWork(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	now := time.Unix(1_700_000_000, 0)
	for i := range uint64(40) {
		first, err := s.Reserve(security.Title{1}, security.KeyID{2}, 3)
		if err != nil {
			return err
		}
		fmt.Println("counter", first+2)
		if err := s.SetDocument("config", "gw", Document{Version: i, Hash: Hash{byte(i)}}); err != nil {
			return err
		}
		fmt.Println("document", i)
		if err := s.BeginCommand(fmt.Sprint(i), now.Add(time.Hour), now); err != nil {
			return err
		}
		fmt.Println("command", i)
		if err := s.SetAuditHead(AuditHead{Number: i}); err != nil {
			return err
		}
		fmt.Println("audit", i)
		if err := s.SetTrust([]byte(strings.Repeat("x", int(i*40%700)))); err != nil {
			return err
		}
	}
	return s.Close()
}

// broken says which promise a state does not keep.
func broken(s *State, lines []string) error {
	if s.Lost() {
		return errors.New("lost")
	}
	for _, line := range lines {
		var what string
		var n uint64
		if _, err := fmt.Sscan(line, &what, &n); err != nil {
			return err
		}
		kept := false
		switch what {
		case "counter":
			first, err := s.Reserve(security.Title{1}, security.KeyID{2}, 1)
			kept = err == nil && uint64(first) > n
		case "document":
			d, ok := s.Document("config", "gw")
			kept = ok && d.Version >= n && d.Hash == Hash{byte(d.Version)}
		case "command":
			_, kept = s.Command(fmt.Sprint(n))
		case "audit":
			h, ok := s.AuditHead()
			kept = ok && h.Number >= n
		}
		if !kept {
			return fmt.Errorf("%q is not kept", line)
		}
	}
	return nil
}

func cutStates(t *testing.T, n int, noSync bool) (bad int) {
	t.Helper()
	disk := cuttest.Mount(t)
	out, err := os.Create(disk.Path("said"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "STATE_TEST_DIR="+disk.Dir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = out, &stderr
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		t.Fatalf("child: %v\n%s", err, stderr.String())
	}
	log, root := disk.Log(), memoryDir(t)
	for i := range n {
		dir := filepath.Join(root, fmt.Sprint(i))
		at, seed := rand.IntN(log.Len()+1), rand.Uint64()
		if err := errors.Join(os.Mkdir(dir, 0o700), log.Cut(at, rand.New(rand.NewPCG(seed, 0)), noSync, dir)); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err == nil {
			err = errors.Join(broken(s, log.Lines("said", at)), s.Close())
		}
		if err != nil {
			if bad++; !noSync {
				t.Errorf("event %d of %d, seed %d: %v", at, log.Len(), seed, err)
			}
		}
	}
	return bad
}

// TestPowerCut cuts the power of a state that is written: it is never behind
// what it promised.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cutStates(t, 200, false)
}

// TestPowerCutControl shows that the judge sees what is lost: the disk takes no
// notice of syncs.
func TestPowerCutControl(t *testing.T) {
	t.Parallel()
	bad := cutStates(t, 100, true)
	if t.Logf("%d of 100 states broke a promise", bad); bad < 10 {
		t.Errorf("without syncs only %d of 100 states broke a promise", bad)
	}
}
