package update_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/agent/update"
)

// initOf answers like the first process of an image: each request, to the
// letter, with a line. It gives the socket.
func initOf(t *testing.T, answers map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "init.sock")
	in, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := in.Accept()
			if err != nil {
				return
			}
			lines := bufio.NewReader(conn)
			for {
				line, err := lines.ReadString('\n')
				if err != nil {
					break
				}
				answer, ok := answers[strings.TrimSuffix(line, "\n")]
				if !ok {
					t.Errorf("init was asked for %q", line)
				}
				if answer == "" {
					break
				}
				_, _ = io.WriteString(conn, answer)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		<-done
	})
	return path
}

func TestImageSlots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gridgate"), []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	const ok = `{"ok":true}` + "\n"
	s := update.NewImageSlots(initOf(t, map[string]string{
		`{"do":"state"}`: `{"ok":true,"board":"virt-armv7","running":"a","first":"a","trial":"b","tries":{"a":6,"b":3},"dir":"` + dir + `","later":1}` + "\n",
		`{"do":"install","files":[{"name":"gridgate","size":7,"sha256":"0100000000000000000000000000000000000000000000000000000000000000","path":"/data/stage/gridgate"}]}`: ok,
		`{"do":"switch"}`: ok, `{"do":"confirm"}`: ok, `{"do":"back"}`: ok, `{"do":"restart"}`: ok,
		`{"do":"factory"}`: `{"error":"no factory slot"}` + "\n",
	}))
	state, err := s.State()
	if want := (update.SlotState{Board: "virt-armv7", Running: "a", First: "a", OnTrial: "b", Tries: 3}); err != nil || state != want {
		t.Errorf("%+v, %v", state, err)
	}
	f, err := s.Open("gridgate")
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil || string(data) != "program" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := s.Open("vmlinuz"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := s.Open("../gridgate"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	err = s.Install(t.Context(), []update.Staged{{Name: "gridgate", Path: "/data/stage/gridgate", Size: 7, SHA256: [32]byte{1}}})
	if err := errors.Join(err, s.Switch(), s.Confirm(), s.Back(), s.Restart()); err != nil {
		t.Error(err)
	}
	if err := s.Factory(); err == nil || err.Error() != "init: factory: it refuses: no factory slot" {
		t.Error(err)
	}
}

func TestImageSlotsRefuse(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"":                          "hung up",
		"{}\n":                      "neither ok",
		"hello\n":                   "its answer",
		strings.Repeat("x", 20_000): "16384 octets",
		`{"ok":true,"board":"b","running":"c"}` + "\n":                         "running \"c\"",
		`{"ok":true,"board":"b","running":"a","first":"/"}` + "\n":             "first \"/\"",
		`{"ok":true,"board":"b","running":"a","first":"a","trial":"f"}` + "\n": "trial \"f\"",
		`{"ok":true,"board":"","running":"a","first":"a"}` + "\n":              "board \"\"",
	} {
		s := update.NewImageSlots(initOf(t, map[string]string{`{"do":"state"}`: answer}))
		if state, err := s.State(); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%.40q: %+v, %v; want %q", answer, state, err, want)
		}
	}
	if _, err := update.NewImageSlots(filepath.Join(t.TempDir(), "none")).State(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestInstallEndsWithItsContext: nobody waits minutes for what is not wanted
// any more.
func TestInstallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "init.sock")
	in, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := in.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = bufio.NewReader(conn).ReadString('\n')
		cancel()
		_, _ = io.ReadAll(conn) // until it hangs up
		_ = conn.Close()
	}()
	begun := time.Now()
	if err := update.NewImageSlots(path).Install(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
	<-done
}
