package zone

import (
	"archive/zip"
	"bytes"
	"io"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestEveryZone: the data are those that Go has (time/tzdata), octet by octet.
// After an update of Go `go generate` makes them anew.
func TestEveryZone(t *testing.T) {
	t.Parallel()
	//nolint:staticcheck // the Go that runs the tests, where its files are
	z, err := zip.OpenReader(filepath.Join(runtime.GOROOT(), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }()
	n := 0
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		n++
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := embedded(f.Name)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d octets, %v; Go has %d: go generate ./internal/sys/zone", f.Name, len(got), err, len(want))
		}
		if _, err := time.LoadLocationFromTZData(f.Name, got); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	if n < 400 {
		t.Errorf("only %d zones", n)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Berlin", "UTC", "", "Asia/Kathmandu", "Etc/GMT-14"} {
		got, err := Load(name)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if want := name; got.String() != want && name != "" {
			t.Errorf("%q is %v", name, got)
		}
	}
	for _, name := range []string{"Europe/Nowhere", "../../etc/passwd", "/etc/localtime", "Europe", "europe/berlin\x00"} {
		if l, err := Load(name); err == nil {
			t.Errorf("%q is %v", name, l)
		}
	}
}
