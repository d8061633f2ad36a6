package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/internal/proctest"
)

// identityCuts and stickCuts are the steps at which a run is killed.
func identityCuts() []string { return []string{"recipient", "key", "written request.pem", "request"} }

func stickCuts() []string {
	return []string{
		"written ca.pem", "ca", "written gateway.pem", "certificate", "secrets", "written trust", "trust",
		"written gridgate.yaml", "configuration", "written configuration", "record",
	}
}

// settled is what a gateway that was provisioned holds, without what differs from run
// to run: how secrets are sealed. left tells what a cut has left lying about.
func (b *box) settled() (files map[string]string, left []string) {
	files = b.files()
	for name := range files {
		if strings.HasSuffix(name, ".age") || strings.HasSuffix(name, "/identity") {
			files[name] = "sealed"
		}
		if strings.Contains(name, "/.") {
			left = append(left, name)
		}
	}
	return files, left
}

// TestProvisionKilledAtEveryStep: another run completes what a kill has cut short, and
// at no time is there a configuration without what it needs.
func TestProvisionKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	bin := proctest.BuildWith(t, []string{"failpoints"}, "gridgate", "gridfog")
	for _, step := range identityCuts() {
		b := newBox(t, bin)
		args := []string{"identity", "-site", "north", "-gateway", "gw-1", "-csr", "gw.csr"}
		if code, _, errOut := b.runAt(step, "", args...); code != -1 {
			t.Errorf("%s: it was not killed: %d, %s", step, code, errOut)
		}
		key, _ := os.ReadFile(b.path("state/buffer/secrets/client-key.age"))
		b.done(args...)
		if ok, _ := b.checklist(); !ok["identity"] {
			t.Errorf("%s: no identity after another run", step)
		}
		if len(key) > 0 && string(key) != b.read("state/buffer/secrets/client-key.age") {
			t.Errorf("%s: another run has made another key", step)
		}
		if _, left := b.settled(); len(left) > 0 {
			t.Errorf("%s: left %q", step, left)
		}
	}
	b := newBox(t, bin)
	b.stick("127.0.0.1:1")
	keep(t, b.path("state"), b.path("state0"))
	b.done("from", "stick")
	want, _ := b.settled()
	for _, step := range stickCuts() {
		if err := os.RemoveAll(b.path("etc")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(b.path("state")); err != nil {
			t.Fatal(err)
		}
		keep(t, b.path("state0"), b.path("state"))
		if code, _, errOut := b.runAt(step, "", "from", "stick"); code != -1 {
			t.Errorf("%s: it was not killed: %d, %s", step, code, errOut)
		}
		cut, _ := b.settled()
		if text, there := cut["etc/gridgate.yaml"]; there {
			if ok, _ := b.checklist(); !ok["configuration"] || !ok["certificate"] || !ok["trust"] || text != want["etc/gridgate.yaml"] {
				t.Errorf("%s: a configuration without what it needs: %v", step, ok)
			}
		}
		if done := maps.Equal(cut, want); done != (step == "record") { // the judge sees what is cut short
			t.Errorf("%s: the same as a whole run: %v", step, done)
		}
		b.done("from", "stick")
		got, left := b.settled()
		if !maps.Equal(got, want) || len(left) > 0 {
			t.Errorf("%s: another run does not complete it; left %q", step, left)
		}
	}
	// A control: without the step's name nothing is killed.
	if code, _, _ := b.runAt("no such step", "", "from", "stick"); code != 0 {
		t.Errorf("killed at no step: %d", code)
	}
}

// keep copies a folder.
func keep(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
