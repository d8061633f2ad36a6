package update_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/update"
)

// testdata: program is made up; its packed forms are by Debian's xz, split, sums
// are by sha256sum, and the documents are signed by minisign.
func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sum gives what sha256sum said of a file in testdata.
func sum(t testing.TB, name string) (s [32]byte) {
	t.Helper()
	for line := range strings.Lines(string(testdata(t, "SHA256SUMS"))) {
		if text, of, _ := strings.Cut(strings.TrimSpace(line), "  "); of == name {
			if _, err := hex.Decode(s[:], []byte(text)); err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatalf("no sum of %s", name)
	return s
}

const head = "gridgate: 1\nkind: firmware\ntarget: s/g\nversion: 1\n---\n"

func parse(t testing.TB, payload string) (*update.Manifest, error) {
	t.Helper()
	d, err := order.ReadBody([]byte(head + payload))
	if err != nil {
		t.Fatal(err)
	}
	return update.ParseManifest(d)
}

func TestSignedManifest(t *testing.T) {
	t.Parallel()
	trust, _, err := order.FirstTrust(testdata(t, "trust.signed"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := trust.Verify(testdata(t, "firmware.signed"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := update.ParseManifest(d)
	if err != nil {
		t.Fatal(err)
	}
	files, err := m.For("virt-armv7")
	if err != nil || len(files) != 2 || m.Firmware != "1.4.0" || m.Minimum != "1.2.0" || m.Downgrade || m.URL != "https://fog.example/firmware" {
		t.Fatalf("%+v, %v", m, err)
	}
	want := update.File{Name: "gridgate", Size: 49600, SHA256: sum(t, "program"), Pack: update.PackXZ, Packed: 12184, Object: sum(t, "program.xz"), Part: 4096, Index: sum(t, "program.xz.index")}
	if files[0] != want || files[0].Parts() != 3 || files[1].Name != "initrd.zst" || files[1].Parts() != 1 {
		t.Errorf("%+v", files)
	}
	if _, err := m.For("virt-arm64"); !errors.Is(err, update.ErrBoard) || !strings.Contains(err.Error(), "virt-armv7") {
		t.Error(err)
	}
	again, err := parse(t, string(m.Append(nil)))
	if err != nil || !reflect.DeepEqual(again, m) {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestDivide(t *testing.T) {
	t.Parallel()
	size, object, index, err := update.Divide(bytes.NewReader(testdata(t, "program.xz")), 4096)
	if err != nil || size != 12184 || object != sum(t, "program.xz") || !bytes.Equal(index, testdata(t, "program.xz.index")) {
		t.Errorf("%d, %x, %x, %v", size, object, index, err)
	}
}

const (
	zeros  = "0000000000000000000000000000000000000000000000000000000000000000"
	ones   = "1111111111111111111111111111111111111111111111111111111111111111"
	gridat = "{name: gridgate, size: 100, sha256: " + zeros + ", pack: xz, packed: 50, object: " + ones + ", part: 4096, index: " + zeros + "}"
	plain  = "firmware: 1.4.0\nminimum: 1.2.0\nboards: {b: [" + gridat + "]}\n"
)

func TestManifestsThatAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := parse(t, plain); err != nil {
		t.Fatal(err)
	}
	second := strings.Replace(gridat, "gridgate", "more", 1)
	many := strings.Repeat(", "+second, 16)
	for name, c := range map[string]struct{ old, new, want string }{
		"no firmware":        {"firmware: 1.4.0\n", "", "firmware: "},
		"no version":         {"1.4.0", "latest", "firmware: \"latest\""},
		"a v before":         {"1.4.0", "v1.4.0", "firmware: "},
		"two numbers":        {"1.4.0", "'1.4'", "firmware: "},
		"a sign":             {"1.4.0", "1.4.+0", "firmware: "},
		"odd suffix":         {"1.4.0", "1.4.0-a b", "firmware: "},
		"long version":       {"1.4.0", "1.4.0-" + strings.Repeat("x", 64), "firmware: "},
		"minimum":            {"1.2.0", "1.2", "minimum: "},
		"downgrade":          {"minimum", "downgrade: true\nminimum", "downgrade: \"true\""},
		"unknown key":        {"minimum", "miminum", "line 7: \"miminum\" is no key that belongs there"},
		"key twice":          {"minimum: 1.2.0", "firmware: 1.4.0", "line 7"},
		"no boards":          {"boards: {b: [" + gridat + "]}", "boards: {}", "boards: "},
		"boards as a list":   {"boards: {b: [" + gridat + "]}", "boards: [1]", "line 8"},
		"a board's name":     {"{b:", "{B:", "boards: \"B\""},
		"no file":            {"[" + gridat + "]", "[]", "boards.b: 0 files"},
		"17 files":           {gridat + "]", gridat + many + "]", "boards.b: 17 files"},
		"no gridgate":        {"name: gridgate", "name: vmlinuz", "boards.b: no file is called gridgate"},
		"name twice":         {gridat + "]", gridat + ", " + gridat + "]", "boards.b[1].name: "},
		"one object, two":    {gridat + "]", gridat + ", " + strings.Replace(second, "packed: 50", "packed: 51", 1) + "]", "boards.b[1].object: "},
		"unknown key, file":  {"pack: xz", "pack: xz, hurry: 1", "boards.b[0].hurry: "},
		"no name":            {"name: gridgate, ", "", "boards.b[0].name: "},
		"a path":             {"name: gridgate", "name: ../gridgate", "boards.b[0].name: "},
		"a dot":              {"name: gridgate", "name: .gridgate", "boards.b[0].name: "},
		"long name":          {"name: gridgate", "name: " + strings.Repeat("g", 33), "boards.b[0].name: "},
		"size of nothing":    {"size: 100", "size: 0", "boards.b[0].size: "},
		"negative size":      {"size: 100", "size: -1", "boards.b[0].size: "},
		"size of text":       {"size: 100", "size: much", "boards.b[0].size: \"much\""},
		"size of a list":     {"size: 100", "size: [1]", "line 8"},
		"large file":         {"size: 100", "size: 67108865", "boards.b[0].size: "},
		"large slot":         {"size: 100", "size: 67108864", "boards.b[0].size: "},
		"short hash":         {"sha256: 00", "sha256: 0", "boards.b[0].sha256: "},
		"long hash":          {"sha256: 00", "sha256: 000", "boards.b[0].sha256: "},
		"capital hash":       {"sha256: 00", "sha256: 0A", "boards.b[0].sha256: "},
		"no hash":            {"object: " + ones, "object: hello", "boards.b[0].object: \"hello\""},
		"no index":           {"index: " + zeros, "index: ", "boards.b[0].index: "},
		"pack":               {"pack: xz", "pack: zst", "boards.b[0].pack: \"zst\""},
		"part of no power":   {"part: 4096", "part: 5000", "boards.b[0].part: 5000"},
		"small part":         {"part: 4096", "part: 2048", "boards.b[0].part: "},
		"large part":         {"part: 4096", "part: 131072", "boards.b[0].part: "},
		"too many parts":     {"packed: 50", "packed: 8388609", "boards.b[0].part: 4096; it makes 2049 parts"},
		"none, other size":   {"pack: xz", "pack: none", "boards.b[0].packed: "},
		"none, other object": {"pack: xz, packed: 50", "pack: none, packed: 100", "boards.b[0].object: "},
		"url":                {"minimum", "url: ftp://h/p\nminimum", "url: \"ftp://h/p\""},
		"url with a user":    {"minimum", "url: https://u:p@h/p\nminimum", "url: "},
		"url with a query":   {"minimum", "url: https://h/p?q\nminimum", "url: "},
		"url with a line":    {"minimum", "url: \"https://h/p\\r\\nX: y\"\nminimum", "url: "},
		"url without a host": {"minimum", "url: https:///p\nminimum", "url: "},
		"anchors":            {"size: 100", "size: &a 100", "line 8"},
	} {
		payload := strings.Replace(plain, c.old, c.new, 1)
		if payload == plain {
			t.Errorf("%s: changes nothing", name)
		}
		if _, err := parse(t, payload); !errors.Is(err, order.ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

func TestFirmwareIsJudged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		agent, kept, firmware, minimum string
		downgrade                      bool
		want                           error
	}{
		{"v1.3.0", "", "1.4.0", "1.2.0", false, nil},
		{"v1.4.0", "", "1.4.0", "", false, nil},
		{"v1.4.0", "", "1.4.0-rc1", "", false, nil},
		{"v1.5.0", "", "1.4.0", "", false, order.ErrOlder},
		{"v1.10.0", "", "1.9.0", "", false, order.ErrOlder},
		{"v1.5.0", "", "1.4.0", "", true, nil},
		{"v1.1.9", "", "1.4.0", "1.2.0", true, order.ErrAgent},
		{"v1.3.0", "1.5.0", "1.4.0", "", false, order.ErrOlder},
		{"v1.5.0", "1.3.0", "1.4.0", "", false, nil},
		{"0a1b2c3", "", "1.4.0", "1.2.0", false, nil},
		{"unreleased", "", "0.0.1", "9.0.0", false, nil},
		{"v1.5.0-37-g0a1b2c3", "", "1.4.0", "", false, order.ErrOlder},
		{"v1.5.0-37-g0a1b2c3-dirty", "", "1.5.0", "1.5.0", false, nil},
	} {
		m := update.Manifest{Firmware: c.firmware, Minimum: c.minimum, Downgrade: c.downgrade}
		if err := m.Judge(c.agent, c.kept); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// FuzzManifest: what is read is within the limits, and is read again as it is
// written.
func FuzzManifest(f *testing.F) {
	f.Add(plain)
	_, golden, _ := strings.Cut(string(testdata(f, "firmware.signed")), "\n---\n")
	f.Add(golden)
	f.Fuzz(func(t *testing.T, payload string) {
		d, err := order.ReadBody([]byte(head + payload))
		if err != nil {
			return
		}
		m, err := update.ParseManifest(d)
		if err != nil {
			if !errors.Is(err, order.ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, files := range m.Boards {
			var total int64
			for _, f := range files {
				total += f.Size
				if f.Parts() < 1 || f.Parts() > 2048 || int64(f.Parts())*f.Part < f.Packed || strings.ContainsAny(f.Name, "/\x00") || f.Name[0] == '.' {
					t.Errorf("%+v", f)
				}
			}
			if total > update.MaxSlot || len(files) > update.MaxFiles {
				t.Errorf("%d octets, %d files", total, len(files))
			}
		}
		if again, err := parse(t, string(m.Append(nil))); err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v, %v; was %+v", again, err, m)
		}
	})
}
