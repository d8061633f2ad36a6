package main

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func technicianLine(t *testing.T, passphrase string) string {
	t.Helper()
	salt := []byte("12345678")
	hash, err := pbkdf2.Key(sha256.New, passphrase, salt, 10_000, 32)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("pbkdf2-sha256 10000 %x %x\n", salt, hash)
}

func TestTechnicianFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), technicianFile)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := technicianLine(t, "open sesame")
	write(good)
	who, err := readTechnician(path)
	if err != nil {
		t.Fatal(err)
	}
	for passphrase, want := range map[string]bool{"open sesame": true, "open sesam": false, "": false} {
		if who.knows(passphrase) != want {
			t.Errorf("%q: %v", passphrase, !want)
		}
	}
	f := strings.Fields(good)
	for _, text := range []string{
		"", "open sesame", strings.Join(f[:3], " "), good + " more", "md5 " + strings.Join(f[1:], " "), strings.Replace(good, "10000", "9999", 1),
		strings.Replace(good, "10000", "99999999", 1), strings.Replace(good, f[2], "00", 1), strings.Replace(good, f[3], "00", 1), strings.Replace(good, f[3], "xx", 1),
	} {
		write(text)
		if _, err := readTechnician(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// screen is what the console shows.
type screen struct {
	mu   sync.Mutex
	text []byte
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, b...)
	return len(b), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// Wrong passphrases take longer and longer; the right one opens a prompt that runs
// what is on the list, and nothing else.
func TestConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), technicianFile)
	if err := os.WriteFile(path, []byte(technicianLine(t, "open sesame")), 0o600); err != nil {
		t.Fatal(err)
	}
	who, err := readTechnician(path)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out screen
		lines := make(chan string, 1)
		var ran []string
		hidden := false
		c := &console{
			who: who, out: &out, lines: lines, hide: func(on bool) { hidden = on },
			run: func(_ context.Context, args []string) { ran = append(ran, strings.Join(args, " ")) },
			do: map[string]func() error{
				"restart": func() error { ran = append(ran, "RESTART"); return nil },
				"factory": func() error { return errors.New("no card") },
			},
		}
		ended := make(chan struct{})
		go func() { defer close(ended); c.serve(ctx) }()
		say := func(line, want string) time.Duration {
			t.Helper()
			synctest.Wait()
			began := time.Now()
			before := len(out.String())
			lines <- line
			for synctest.Wait(); !strings.HasSuffix(out.String(), ": ") && !strings.HasSuffix(out.String(), "> "); synctest.Wait() {
				time.Sleep(100 * time.Millisecond)
			}
			if got := out.String()[before:]; !strings.Contains(got, want) {
				t.Errorf("%q: it says %q; want %q", line, got, want)
			}
			return time.Since(began)
		}
		for _, want := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
			if took := say("status", "wrong"); int(took/time.Second) != want {
				t.Errorf("waited %s; want %d s", took, want)
			}
		}
		if !hidden || len(ran) > 0 {
			t.Errorf("hidden %v, ran %q", hidden, ran)
		}
		say("", "passphrase")
		say("open sesame", "gridgate> ")
		if hidden {
			t.Error("commands are not shown")
		}
		for _, line := range []string{"run", "sh", "buffer", "buffer export x", "secret set x", "restart now", "/bin/status"} {
			say(line, "there is: status")
		}
		say("factory", "no card")
		for _, line := range []string{"status -json", " buffer  stat", "scan serial:///dev/ttyS1", "restart", ""} {
			say(line, "gridgate> ")
		}
		if got := strings.Join(ran, ", "); got != "status -json, buffer stat, scan serial:///dev/ttyS1, RESTART" {
			t.Errorf("ran %s", got)
		}
		say("exit", "passphrase")
		say("open sesame", "gridgate> ")
		time.Sleep(away + time.Second)
		synctest.Wait()
		if !strings.HasSuffix(out.String(), "passphrase: ") {
			t.Errorf("nobody is there, and it says %q", out.String()[len(out.String())-40:])
		}
		cancel()
		<-ended
	})
}

func TestReadLines(t *testing.T) {
	lines := make(chan string, 10)
	readLines(strings.NewReader("one\r\ntwo\n"+strings.Repeat("x", 5000)+"\nhalf"), lines)
	var got []string
	for l := range lines {
		got = append(got, fmt.Sprint(len(l)))
	}
	if fmt.Sprint(got) != "[3 0 3 1025]" {
		t.Errorf("%v", got)
	}
}
