package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/secret"
)

// unpack reads an archive as anybody would.
func unpack(t *testing.T, b []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil || h.Mode != 0o600 || h.ModTime.Unix() != 1790000000 {
			t.Errorf("%s: %v, mode %o, %v", h.Name, err, h.Mode, h.ModTime)
		}
		files[h.Name] = string(text)
	}
}

func TestBundle(t *testing.T) {
	t.Parallel()
	planted := []byte("korrekt-pferd")
	var b bytes.Buffer
	long := strings.Repeat("x", maxFile+1)
	err := Write(&b, time.Unix(1790000000, 0), []File{
		{"a.txt", "password is korrekt-pferd, or " + hex.EncodeToString(planted) + ", or " + base64.StdEncoding.EncodeToString(planted)},
		{"empty", ""},
		{"block", strings.Repeat("b", 512)},
		{"long", long},
		Machine(),
	}, []secret.Value{secret.Of(string(planted) + "\n"), secret.Of("abc"), {}})
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, b.Bytes())
	for name, want := range map[string]string{
		"a.txt": "password is [secret], or [secret], or [secret]", "empty": "", "block": strings.Repeat("b", 512), "long": "…" + long[:maxFile],
	} {
		if got := files["gridgate-bundle/"+name]; got != want {
			t.Errorf("%s: %.100q; want %.100q", name, got, want)
		}
	}
	if !strings.Contains(files["gridgate-bundle/machine.txt"], "Linux version") {
		t.Errorf("%q", files["gridgate-bundle/machine.txt"])
	}
	if err := Write(io.Discard, time.Now(), []File{{strings.Repeat("n", 101), ""}}, nil); err == nil {
		t.Error("a name that does not fit is taken")
	}
}

func TestRingKeepsWholeLines(t *testing.T) {
	t.Parallel()
	r := Ring{Size: 100}
	for i := range 1000 {
		if n, err := fmt.Fprintf(&r, "line %d\n", i); err != nil || n == 0 {
			t.Fatal(n, err)
		}
		got := r.String()
		if len(got) > 100 || !strings.HasPrefix(got, "line ") || !strings.HasSuffix(got, fmt.Sprintf("line %d\n", i)) {
			t.Fatalf("%q", got)
		}
	}
	if _, err := r.Write(bytes.Repeat([]byte("z"), 1000)); err != nil || len(r.String()) > 100 {
		t.Errorf("%d octets", len(r.String()))
	}
	if (*Ring)(nil).String() != "" {
		t.Error("no ring has lines")
	}
}

func TestKernelLogKeepsTheLast(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kmsg") // a read of a file is many records: one line, the first
	if err := os.WriteFile(path, []byte("6,1,2,-;usb 1-1: disconnect\n SUBSYSTEM=usb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := KernelLog(path, 3); len(got) != 1 || got[0] != "usb 1-1: disconnect" {
		t.Errorf("%q", got)
	}
	if got := KernelLog(filepath.Join(t.TempDir(), "none"), 3); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if len(KernelLog("/dev/kmsg", 5)) > 5 || Kernel().Text == "" {
		t.Error("more than the last five")
	}
}
