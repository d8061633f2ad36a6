package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// block is a block of code in docs/fog.md, with what its first line says.
type block struct{ about, text string }

func docBlocks(t *testing.T) []block {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs/fog.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for _, m := range regexp.MustCompile("(?ms)^```(.*?)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		all = append(all, block{m[1], m[2]})
	}
	return all
}

// The programs that docs/fog.md shows are the files that TestReaders runs, and
// what it says to copy is what TestReaders copies.
func TestDocShowsTheExamples(t *testing.T) {
	shown := 0
	text := ""
	for _, b := range docBlocks(t) {
		text += b.text
		_, path, found := strings.Cut(b.about, " ")
		if !found || !strings.HasPrefix(path, "docs/examples/") {
			continue
		}
		shown++
		if file, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(file) != b.text {
			t.Errorf("docs/fog.md does not show %s as it is (%v)", path, err)
		}
	}
	if shown != len(readers) {
		t.Errorf("%d examples are shown, want %d", shown, len(readers))
	}
	for language, r := range readers {
		for _, file := range r.files {
			if !strings.Contains(strings.ReplaceAll(text, "package*.json", "package.json"), "$GRIDGATE/"+file) {
				t.Errorf("%s: docs/fog.md does not say to copy %s", language, file)
			}
		}
		if !strings.Contains(text, strings.Replace(strings.Join(r.command, " "), "/usr/bin/", "", 1)+" localhost 8883 ") {
			t.Errorf("%s: docs/fog.md does not say to run %q", language, r.command)
		}
	}
}

// pair gives a free port whose successor is free too.
func pair(t *testing.T, s *stage) int {
	t.Helper()
	for {
		ports, err := s.freePorts(1)
		if err != nil {
			t.Fatal(err)
		}
		if isFree(ports[0] + 1) {
			return ports[0]
		}
	}
}

// The way from an empty folder to rows, command by command as it stands in
// docs/fog.md; only the ports are others.
func TestDocTutorial(t *testing.T) {
	t.Parallel()
	s := newTestStage(t)
	sources, err := s.folder("sources")
	if err != nil {
		t.Fatal(err)
	}
	port, database, meters := pair(t, s), pair(t, s), pair(t, s)
	ports := strings.NewReplacer("8883", strconv.Itoa(port), "15432", strconv.Itoa(database), "14059", strconv.Itoa(meters), "14060", strconv.Itoa(meters+1))
	var tutorial, look string
	for _, b := range docBlocks(t) {
		switch b.about {
		case "sh tutorial":
			tutorial += ports.Replace(b.text)
		case "sh look":
			look += ports.Replace(b.text)
		}
	}
	if tutorial == "" || look == "" {
		t.Fatal("docs/fog.md has no block `sh tutorial` or none `sh look`")
	}
	if _, err := output(t.Context(), func(c *exec.Cmd) { c.Dir = root; c.Env = append(os.Environ(), "CGO_ENABLED=0") },
		"go", "build", "-o", filepath.Join(sources, "bin")+"/", "./cmd/..."); err != nil {
		t.Fatal(err)
	}
	if _, err := output(t.Context(), nil, "cp", "-r", filepath.Join(root, "configs"), sources); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(sources, "configs/fog/mosquitto/mosquitto.conf")
	if err := copyWith(conf, conf, "listener 8883", fmt.Sprintf("listener %d 127.0.0.1", port)); err != nil {
		t.Fatal(err)
	}
	empty, err := s.folder("empty")
	if err != nil {
		t.Fatal(err)
	}
	as, err := postgresUser(empty)
	if err != nil {
		t.Fatal(err)
	}
	script := "set -eu\ntrap 'kill $(jobs -p) || true; pg_ctl -D pg -m immediate stop; exit' TERM\n" + tutorial +
		"while :; do { " + look + " } > look.new 2>&1 || true; mv look.new look; sleep 1; done\n"
	p, err := s.start("tutorial", func(c *exec.Cmd) {
		as(c)
		c.Env = append(os.Environ(), "GRIDGATE="+sources, "HOME="+empty, "LC_ALL=C")
	}, "bash", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	p.group = true
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	row := regexp.MustCompile(` north +\| gw-7 +\| house-2 +\| 1-0:32\.7\.0 +\|.*\| +2[0-9][0-9]\.[0-9]+ \| V `)
	err = p.until(t.Context(), "rows are in the database", func() bool {
		b, err := os.ReadFile(filepath.Join(empty, "look"))
		return err == nil && row.Match(b)
	})
	if err != nil {
		for _, name := range []string{"look", "gateway.log", "ingest.log", "broker/log", "meters.log", "pg.log"} {
			b, _ := os.ReadFile(filepath.Join(empty, name))
			t.Logf("%s:\n%s", name, b)
		}
		t.Fatal(err)
	}
}
