package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gridgate/internal/proctest"
)

// TestProcess runs the command as a process: -help names every kind, and a
// signal ends it with all that it made.
func TestProcess(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(proctest.Build(t, "metersim"), "metersim")
	help := proctest.Start(t, nil, bin, "dlms", "-help")
	if code := help.Wait(); code != 0 || strings.Count(help.Output(), "metersim dlms -") < 3 {
		t.Errorf("help ended with %d:\n%s", code, help.Output())
	}
	wrong := proctest.Start(t, nil, bin, "dlms", "-transport", "pigeon")
	if code := wrong.Wait(); code != 2 || !strings.Contains(wrong.Output(), `-transport "pigeon"`) {
		t.Errorf("a wrong flag ended it with %d: %s", code, wrong.Output())
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		link := filepath.Join(t.TempDir(), "head")
		p := proctest.Start(t, nil, bin, "dlms", "-transport", "modee", "-pty", "-count", "2", "-link", link, "-auth", "none")
		p.Await("GRG000002")
		if got, err := readURL(t, strings.Split(p.Output(), "\n")[1], readings(t, "1-0:1.8.0")); err != nil || len(got.Rows) != 1 {
			t.Errorf("read: %v, %+v", err, got)
		}
		p.Signal(signal)
		if code := p.Wait(); code != 0 {
			t.Errorf("%v ended it with %d: %s", signal, code, p.Output())
		}
		if _, err := os.Lstat(link); !os.IsNotExist(err) {
			t.Errorf("%v left %s", signal, link)
		}
	}
}
