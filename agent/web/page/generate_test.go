package page

import (
	"bytes"
	"compress/gzip"
	"flag"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write page.html.gz and policy.txt")

// limit is what the page may weigh before it is compressed, in octets.
const limit = 60 << 10

// TestGenerated joins the sources anew: what is embedded must be of them.
func TestGenerated(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "node", "testdata/js/build.mjs")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node build.mjs: %v (scripts/setup.sh installs what it needs)", err)
	}
	wantPolicy, want, ok := strings.Cut(string(out), "\n")
	if !ok {
		t.Fatalf("build.mjs printed %q", out)
	}
	if *update {
		write(t, wantPolicy, want)
		return
	}
	if got := plain(t); got != want || Policy() != wantPolicy {
		t.Error("page.html.gz or policy.txt is not of the files in src: run go generate ./agent/web/page")
	}
	if len(want) > limit {
		t.Errorf("the page has %d octets, and may have %d", len(want), limit)
	}
}

func write(t *testing.T, policy, html string) {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(z, html); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"page.html.gz": b.Bytes(), "policy.txt": []byte(policy)} {
		if err := os.WriteFile(name, content, 0o644); err != nil { //nolint:gosec // not secret
			t.Fatal(err)
		}
	}
	t.Logf("%d octets, %d compressed", len(html), b.Len())
}

// plain gives the page that is embedded.
func plain(t *testing.T) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(Compressed()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
