package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gridgate/agent/bundle"
	"gridgate/agent/status"
	"gridgate/internal/proctest"
)

// An agent makes a bundle of itself, with its last log lines, and without what its
// secrets' files have.
func TestBundleOfItself(t *testing.T) {
	t.Parallel()
	const secret = "hush-4711-hush"
	s := newSite(t)
	m := startZeroMeter(t)
	cfg := s.config("here", modbusMeter("m", m.address, "fast"),
		`{id: d, groups: [fast], url: "dlms+wrapper://127.0.0.1:1?client=17&auth=lls&password=file:`+filepath.Join(s.dir, "pw")+`"}`)
	if err := os.WriteFile(filepath.Join(s.dir, "pw"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	recent := new(bundle.Ring)
	var err error
	if s.agent, err = New(cfg, Options{
		Version: "test", Log: slog.New(slog.NewJSONHandler(recent, nil)), Getenv: os.Getenv,
		ConfigPath: filepath.Join(s.dir, "gridgate.yaml"), Recent: recent,
	}); err != nil {
		t.Fatal(err)
	}
	s.run()
	s.agent.log.Info("somebody logs the password " + secret)
	proctest.Until(t, "rows are stored", func() bool { return s.agent.Report().Intake.Stored > 0 })
	var b bytes.Buffer
	if err := s.agent.Bundle(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(h.Name)] = string(text)
	}
	for name, want := range map[string]string{
		"version.txt": "test", "doctor.txt": "config", "config.yaml": "site: here", "status.json": `"gateway":"gw1"`,
		"log.jsonl": "the password [secret]", "buffer.json": "{", "machine.txt": "Linux",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: want %q in %.300q", name, want, files[name])
		}
	}
	for name, text := range files {
		if strings.Contains(text, secret) {
			t.Errorf("%s tells the secret", name)
		}
	}
	parts, err := status.Parts(t.Context(), filepath.Join(s.dir, "c"))
	if err != nil || !strings.Contains(parts["log.jsonl"], "gridgate runs") {
		t.Errorf("%v, %v", parts, err)
	}
}
