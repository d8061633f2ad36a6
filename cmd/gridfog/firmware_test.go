package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gridgate/agent/order"
	"gridgate/agent/update"
)

// noise is data that cannot be packed.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// armProgram is data that xz takes for a program of ARM: calls of one function
// from many places, which only a filter that knows their addresses finds equal.
func armProgram() []byte {
	var b bytes.Buffer
	h := elf.Header32{Ident: [16]byte{0x7f, 'E', 'L', 'F', 1, 1, 1}, Type: 2, Machine: uint16(elf.EM_ARM), Version: 1, Ehsize: 52}
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		panic(err)
	}
	const target = 1 << 20
	for at := b.Len(); at < 64<<10; at += 4 {
		var code [4]byte
		binary.LittleEndian.PutUint32(code[:], 0xEB000000|uint32((target-at-8)/4)&0xFFFFFF)
		b.Write(code[:])
	}
	return b.Bytes()
}

// slotFolder makes a folder with these files.
func (d *desk) slotFolder(name string, files map[string][]byte) string {
	d.t.Helper()
	dir := d.file(name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		d.t.Fatal(err)
	}
	for f, data := range files {
		if err := os.WriteFile(filepath.Join(dir, f), data, 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	return dir
}

// pack packs a slot and signs the document; it gives the document's path.
func (d *desk) pack(name, target string, version int, slot string, more ...string) string {
	d.t.Helper()
	args := []string{"firmware", "pack", "-board", "virt-armv7=" + slot, "-firmware", "1.4.0", "-target", target, "-version", fmt.Sprint(version)}
	body := d.must(append(append(args, "-part", "4096", "-objects", d.file("objects")), more...)...)
	d.write(name+".yaml", body)
	d.must("sign", "-key", d.file("firmware.key"), "-out", d.file(name+".doc"), d.file(name+".yaml"))
	return d.file(name + ".doc")
}

// tool runs a program of Debian's with data on its standard input.
func tool(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Stdin = bytes.NewReader(stdin)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s (scripts/setup.sh installs it)", name, err, said.String())
	}
	return out
}

func (d *desk) object(sum [32]byte) []byte { return d.read("objects/" + hex.EncodeToString(sum[:])) }

// TestPackedFirmware is what xz and sha256sum of Debian say it is, and what a
// gateway that trusts the keys takes.
func TestPackedFirmware(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	files := map[string][]byte{
		"gridgate":  armProgram(),
		"vmlinuz":   noise(10_000, 1),
		"board.dtb": bytes.Repeat([]byte("compatible"), 900),
	}
	d.pack("fw", "north/_group/canary", 12, d.slotFolder("slot", files), "-board", "linux-armv7="+d.file("slot/gridgate"),
		"-minimum", "1.2.0", "-downgrade", "-url", "https://fog.example/fw", "-not-before", "2026-11-22T10:00:00Z", "-min-agent", "1.1.0")
	for _, key := range []string{"r1", "r2"} { // the trust document that a gateway has
		d.must("sign", "-key", d.file(key+".key"), "-out", d.file("trust.yaml"), d.file("trust.yaml"))
	}
	trust, _, err := order.FirstTrust(d.read("trust.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := trust.Verify(d.read("fw.doc"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := update.ParseManifest(doc)
	if err != nil {
		t.Fatal(err)
	}
	if doc.Target.String() != "north/_group/canary" || doc.Version != 12 || doc.MinAgent != "1.1.0" || doc.NotBefore.IsZero() ||
		m.Firmware != "1.4.0" || m.Minimum != "1.2.0" || !m.Downgrade || m.URL != "https://fog.example/fw" {
		t.Errorf("%+v\n%+v", doc, m)
	}
	if names := slices.Sorted(maps.Keys(m.Boards)); !slices.Equal(names, []string{"linux-armv7", "virt-armv7"}) || len(m.Boards["linux-armv7"]) != 1 || len(m.Boards["virt-armv7"]) != 3 {
		t.Fatalf("%+v", m.Boards)
	}
	named := map[string]bool{}
	for _, f := range m.Boards["virt-armv7"] {
		object, index := d.object(f.Object), d.object(f.Index)
		named[hex.EncodeToString(f.Object[:])], named[hex.EncodeToString(f.Index[:])] = true, true
		unpacked := object
		if f.Pack == update.PackXZ {
			unpacked = tool(t, object, "xz", "-dc")
			if list := string(tool(t, nil, "xz", "--list", "-vv", "--robot", "--format=xz", d.file("objects/"+hex.EncodeToString(f.Object[:])))); !strings.Contains(list, "dict=4MiB") ||
				f.Name == "gridgate" && !strings.Contains(list, "--arm") {
				t.Errorf("%s: %s", f.Name, list)
			}
		}
		if want := map[string]update.Pack{"gridgate": update.PackXZ, "vmlinuz": update.PackNone, "board.dtb": update.PackXZ}[f.Name]; f.Pack != want {
			t.Errorf("%s: packed by %s, not %s", f.Name, f.Pack, want)
		}
		if !bytes.Equal(unpacked, files[f.Name]) || int64(len(unpacked)) != f.Size {
			t.Errorf("%s does not unpack to what it was", f.Name)
		}
		for what, c := range map[string]struct {
			data []byte
			sum  [32]byte
		}{"file": {unpacked, f.SHA256}, "object": {object, f.Object}, "index": {index, f.Index}} {
			if said := string(tool(t, c.data, "sha256sum")); said[:64] != hex.EncodeToString(c.sum[:]) {
				t.Errorf("%s: %s: sha256sum says %s", f.Name, what, said)
			}
		}
		if int64(len(object)) != f.Packed || f.Part != 4096 || len(index) != 32*f.Parts() {
			t.Errorf("%s: %d octets, index of %d: %+v", f.Name, len(object), len(index), f)
		}
		for i := range f.Parts() {
			part := object[i*4096 : min((i+1)*4096, len(object))]
			if said := string(tool(t, part, "sha256sum")); said[:64] != hex.EncodeToString(index[i*32:(i+1)*32]) {
				t.Errorf("%s: part %d: sha256sum says %s", f.Name, i, said)
			}
		}
	}
	entries, err := os.ReadDir(d.file("objects"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !named[e.Name()] {
			t.Errorf("objects/%s: nobody names it", e.Name())
		}
	}
}

// TestPackingIsReproducible: the same slot elsewhere gives the same document and
// the same objects, whatever the environment says to xz.
func TestPackingIsReproducible(t *testing.T) {
	a, b := newDesk(t), newDesk(t)
	for i, d := range []*desk{a, b} {
		t.Setenv("XZ_OPT", fmt.Sprintf("-%d", i*3))
		d.pack("fw", "north/gw-1", 1, d.slotFolder(fmt.Sprint("slot", i), map[string][]byte{"gridgate": armProgram(), "z": noise(5000, 2)}))
	}
	if !bytes.Equal(a.read("fw.yaml"), b.read("fw.yaml")) {
		t.Errorf("%s\n%s", a.read("fw.yaml"), b.read("fw.yaml"))
	}
	names := func(d *desk) (all []string) {
		entries, err := os.ReadDir(d.file("objects"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			sum := sha256.Sum256(d.read("objects/" + e.Name()))
			if hex.EncodeToString(sum[:]) != e.Name() {
				t.Errorf("%s has the SHA-256 %x", e.Name(), sum)
			}
			all = append(all, e.Name())
		}
		return all
	}
	if x, y := names(a), names(b); !slices.Equal(x, y) || len(x) != 4 {
		t.Errorf("%q\n%q", x, y)
	}
}

func TestFirmwareUsage(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	slot := d.slotFolder("slot", map[string][]byte{"gridgate": []byte("program")})
	link := d.slotFolder("link", map[string][]byte{"gridgate": []byte("program")})
	if err := os.Symlink("gridgate", filepath.Join(link, "other")); err != nil {
		t.Fatal(err)
	}
	many := map[string][]byte{"gridgate": []byte("program")}
	for i := range 16 {
		many[fmt.Sprint("file", i)] = []byte("x")
	}
	fw := d.pack("fw", "north/gw-1", 3, slot)
	twin := d.pack("twin", "north/gw-1", 4, slot)
	far := d.pack("far", "north/gw-2", 1, slot, "-url", "http://fog.example")
	cut := d.write("cut", string(d.read("fw.doc")[:200]))
	d.must("sign", "-key", d.file("config.key"), "-config", "north/gw-1", "-version", "1", "-out", d.file("config.doc"), d.write("layer", "mains: {voltage: 230}\n"))
	d.write("odd.yaml", strings.Replace(string(d.read("fw.yaml")), "pack: none", "pack: zip", 1))
	d.must("sign", "-key", d.file("firmware.key"), "-out", d.file("odd.doc"), d.file("odd.yaml"))
	for _, key := range []string{"r1", "r2"} {
		d.must("sign", "-key", d.file(key+".key"), "-out", d.file("trust.yaml"), d.file("trust.yaml"))
	}
	d.must("sign", "-key", d.file("config.key"), "-out", d.file("role.doc"), d.file("fw.yaml"))
	pack := func(more ...string) []string {
		return append([]string{"pack", "-firmware", "1.4.0", "-target", "north/gw-1", "-version", "1", "-objects", d.file("o")}, more...)
	}
	publish := func(more ...string) []string {
		return append([]string{"publish", "-objects", d.file("objects")}, more...)
	}
	for _, c := range []struct {
		want string
		code int
		args []string
	}{
		{"want pack, publish, status or withdraw", 2, nil},
		{"want pack, publish, status or withdraw", 2, []string{"dance"}},
		{"firmware pack: want -board", 2, pack()},
		{"firmware pack: it has no -wait", 2, pack("-wait", "1h", "-board", "x="+slot)},
		{"firmware pack: it has no -broker", 2, pack("-broker", "mqtt://x", "-board", "x="+slot)},
		{"firmware status: it has no -objects", 2, []string{"status", "-objects", "x"}},
		{"firmware withdraw: it has no -wave", 2, []string{"withdraw", "-wave", "x"}},
		{"firmware publish: it has no -board", 2, publish("-board", "x=y", fw)},
		{"it takes no arguments", 2, pack("-board", "x="+slot, "more")},
		{"want BOARD=DIR", 2, pack("-board", slot)},
		{"x stands there twice", 2, pack("-board", "x="+slot, "-board", "x="+slot)},
		{"no such file", 1, pack("-board", "x="+d.file("none"))},
		{"no file in it is called gridgate", 1, pack("-board", "x="+d.slotFolder("empty", nil))},
		{"other: not a regular file", 1, pack("-board", "x="+link)},
		{"Caps", 1, pack("-board", "x="+d.slotFolder("caps", map[string][]byte{"gridgate": {1}, "Caps": {1}}))},
		{"nothing: empty", 1, pack("-board", "x="+d.slotFolder("void", map[string][]byte{"gridgate": {1}, "nothing": nil}))},
		{"17 files; want 1 to 16", 1, pack("-board", "x="+d.slotFolder("many", many))},
		{`boards: "X!"`, 1, pack("-board", "X!="+slot)},
		{`firmware: "1.4"`, 1, pack("-board", "x="+slot, "-firmware", "1.4")},
		{`minimum: "new"`, 1, pack("-board", "x="+slot, "-minimum", "new")},
		{`url: "ftp://x"`, 1, pack("-board", "x="+slot, "-url", "ftp://x")},
		{"part: 5000", 1, pack("-board", "x="+slot, "-part", "5000")},
		{"-target:", 1, pack("-board", "x="+slot, "-target", "gw-1")},
		{"want SITE/GATEWAY", 1, pack("-board", "x="+slot, "-target", "*")},
		{"not_before", 1, pack("-board", "x="+slot, "-not-before", "soon")},
		{"want signed DOCUMENTS", 2, publish()},
		{"nobody would be waited for", 2, publish("-wait", "0", "-wave", fw, far)},
		{"are not negative", 2, publish("-max-failures", "-1", fw)},
		{"-max-pending", 2, publish("-max-pending", "101%", fw)},
		{"-max-pending", 2, publish("-max-pending", "some", fw)},
		{"no such file", 1, publish(d.file("none.doc"))},
		{"not signed: gridfog sign", 1, publish(d.file("fw.yaml"))},
		{"cut:", 1, publish(cut)},
		{"of the kind config; want firmware", 1, publish(d.file("config.doc"))},
		{`odd.doc: not a document: boards.virt-armv7[0].pack: "zip"`, 1, publish(d.file("odd.doc"))},
		{"the broker keeps one", 1, publish("-wave", fw, twin)},
		{"name its parts with -objects", 1, []string{"publish", fw}},
		{"-broker", 2, []string{"publish", "-broker", "nowhere", far}},
		{"signed by the wrong role", 1, publish("-trust", d.file("trust.yaml"), d.file("role.doc"))},
		{"no such file", 1, publish("-members", d.file("none"), fw)},
		{"want `gateway SITE/GATEWAY", 1, publish("-members", d.file("layer"), fw)},
		{"want the signed DOCUMENTS", 2, []string{"withdraw"}},
		{"not signed", 1, []string{"withdraw", d.file("fw.yaml")}},
		{"it takes no arguments", 2, []string{"status", fw}},
		{"-site", 2, []string{"status", "-site", "Nowhere/"}},
		{"connection refused", 1, publish("-broker", "mqtt://127.0.0.1:1", fw)},
	} {
		if _, err, code := d.run(append([]string{"firmware"}, c.args...)...); code != c.code || !strings.Contains(err, c.want) {
			t.Errorf("gridfog firmware %s: exit %d, %s; want %d, %q", strings.Join(c.args, " "), code, err, c.code, c.want)
		}
	}
	if _, err := os.Stat(d.file("o")); err == nil {
		t.Error("something was packed before all was checked")
	}
}

// TestObjectsAreChecked: what is not what the document says is named, and
// nothing is published (nobody listens where the broker would be).
func TestObjectsAreChecked(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	fw := d.pack("fw", "north/gw-1", 1, d.slotFolder("slot", map[string][]byte{"gridgate": armProgram(), "vmlinuz": noise(10_000, 1)}))
	entries, err := os.ReadDir(d.file("objects"))
	if err != nil || len(entries) != 4 {
		t.Fatal(entries, err)
	}
	publish := func() string {
		_, text, code := d.run("firmware", "publish", "-broker", "mqtt://127.0.0.1:1", "-objects", d.file("objects"), fw)
		if code != 1 {
			t.Errorf("exit %d: %s", code, text)
		}
		return text
	}
	if text := publish(); !strings.Contains(text, "connection refused") {
		t.Fatal(text)
	}
	for _, e := range entries {
		path := d.file("objects/" + e.Name())
		good := d.read("objects/" + e.Name())
		flipped := bytes.Clone(good)
		flipped[len(good)/2] ^= 1
		for what, bad := range map[string][]byte{"gone": nil, "cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "flipped": flipped} {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if bad == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			if text := publish(); !strings.Contains(text, e.Name()) || strings.Contains(text, "refused") {
				t.Errorf("%s %s: %s", e.Name(), what, text)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A document that lies of what is in an object that is whole.
	sum := sha256.Sum256(armProgram())
	d.write("lie.yaml", strings.Replace(string(d.read("fw.yaml")), hex.EncodeToString(sum[:]), strings.Repeat("ab", 32), 1))
	d.must("sign", "-key", d.file("firmware.key"), "-out", fw, d.file("lie.yaml"))
	if text := publish(); !strings.Contains(text, "unpacked it has the SHA-256 "+hex.EncodeToString(sum[:])) {
		t.Error(text)
	}
}
