package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gridgate/internal/linktest"
	"gridgate/internal/proctest"
)

// utility sends firmware to a gateway in QEMU, by gridfog and over a slow link.
type utility struct {
	*site
	dir     string // keys, slots, objects, documents
	port    int    // of the link's end at the gateway
	link    *linktest.Link
	version int               // of the document that was sent last
	reports *proctest.Process // prints what the gateway says of its firmware
}

// newUtility makes keys, a gateway that trusts them, and a link of a rate in bit/s
// between it and the broker. change edits the configuration.
func newUtility(t *testing.T, m machine, rate int64) *utility {
	t.Helper()
	u := &utility{site: newSite(t, m), dir: t.TempDir()}
	u.link = linktest.New(linktest.Config{Rate: rate, Delay: 50 * time.Millisecond, Queue: 32 << 10})
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.port = in.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it listens on TCP
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.link.Proxy(ctx, in, u.mosq.Address) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	host, port, _ := strings.Cut(u.mosq.Address, ":")
	u.write("gridgate.yaml", []byte(strings.Replace(u.config(), "10.0.2.2:"+port, "10.0.2.2:"+strconv.Itoa(u.port), 1)+"trust: {prove: 90s}\n"))
	u.tool("mcopy", "-o", "-i", partitionOf(u.card, "boot"), u.file("gridgate.yaml"), "::provision/gridgate.yaml")
	for _, k := range []string{"root", "firmware", "config"} {
		u.fog("keygen", "-no-password", u.file(k))
	}
	u.write("trust.yaml", u.fog("trust", "-version", "1", "-root", u.file("root.pub"), "-firmware", u.file("firmware.pub"), "-config", u.file("config.pub")))
	u.fog("sign", "-key", u.file("root.key"), "-out", u.file("trust"), u.file("trust.yaml"))
	u.tool("mcopy", "-i", partitionOf(u.card, "boot"), u.file("trust"), "::provision/trust")
	u.reports = proctest.Start(t, nil, "mosquitto_sub", "-h", host, "-p", port, "-t", "gridgate/1/zone3/gw1/up/firmware")
	return u
}

func (u *utility) file(name string) string { return filepath.Join(u.dir, name) }

func (u *utility) write(name string, content []byte) {
	u.t.Helper()
	if err := os.WriteFile(u.file(name), content, 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// fog runs gridfog.
func (u *utility) fog(args ...string) []byte {
	u.t.Helper()
	c := exec.CommandContext(u.t.Context(), filepath.Join(u.bin, "gridfog"), args...) //nolint:gosec // ours
	var text strings.Builder
	c.Stderr = &text
	out, err := c.Output()
	if err != nil {
		u.t.Fatalf("gridfog %q: %v\n%s", args, err, text.String())
	}
	return out
}

// slot makes the folder of a slot: the files of slot A, with other programs in it.
func (u *utility) slot(name string, programs map[string]string) string {
	u.t.Helper()
	dir := u.file(name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		u.t.Fatal(err)
	}
	for _, f := range []string{"vmlinuz", "initrd.zst", "gridgate"} {
		u.tool("mcopy", "-n", "-i", partitionOf(image(u.t, u.m), "a"), "::"+f, filepath.Join(dir, f))
	}
	for f, path := range programs {
		u.tool("cp", path, filepath.Join(dir, f))
	}
	return dir
}

// gridgate builds the real one with a version of its own.
func (u *utility) gridgate(version string) string {
	u.t.Helper()
	out := u.file("gridgate-" + version)
	if err := compile(u.m, "../../cmd/gridgate", out, "-ldflags", "-s -w -X main.version="+version); err != nil {
		u.t.Fatal(err)
	}
	return out
}

// bad builds a program that stands in gridgate's place.
func (u *utility) bad(name, text string) string {
	u.t.Helper()
	dir := u.file(name + ".src")
	if err := os.Mkdir(dir, 0o700); err != nil {
		u.t.Fatal(err)
	}
	for f, text := range map[string]string{"main.go": text, "go.mod": "module bad\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o600); err != nil {
			u.t.Fatal(err)
		}
	}
	if err := compile(u.m, dir, u.file(name)); err != nil {
		u.t.Fatal(err)
	}
	return u.file(name)
}

// send packs, signs and publishes a slot.
func (u *utility) send(dir, firmware string) {
	u.t.Helper()
	u.version++
	doc := u.file(fmt.Sprintf("%d.doc", u.version))
	u.write("body.yaml", u.fog("firmware", "pack", "-board", u.m.board+"="+dir, "-firmware", firmware, "-target", "zone3/gw1",
		"-version", strconv.Itoa(u.version), "-objects", u.file("objects")))
	u.fog("sign", "-key", u.file("firmware.key"), "-out", doc, u.file("body.yaml"))
	u.fog("firmware", "publish", "-broker", "mqtt://"+u.mosq.Address, "-objects", u.file("objects"), "-wait", "0", doc)
}

// said is what up/firmware says, as far as it is looked at.
type said struct {
	Agent, Slot, Firmware string
	Document              *struct {
		Version    int
		Step       string
		Have, Need int64
	}
	Last *struct {
		Version         int
		Outcome, Reason string
	}
}

// report gives the last that the gateway said of its firmware.
func (u *utility) report() (r said) {
	lines := strings.Split(strings.TrimSpace(u.reports.Output()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		return said{} // none yet
	}
	return r
}

// fetched waits until so many octets are there.
func (u *utility) fetched(least int64) {
	u.t.Helper()
	within(u.t, 10*time.Minute, fmt.Sprintf("%d octets fetched", least), func() bool {
		d := u.report().Document
		return d != nil && d.Version == u.version && d.Have >= least
	})
}

// ends waits for what comes of the document that was sent last.
func (u *utility) ends(q *proctest.Process, outcome, reason, slot string) {
	u.t.Helper()
	var r said
	within(u.t, 15*time.Minute, "the end of the update in slot "+slot, func() bool {
		r = u.report()
		return r.Last != nil && r.Last.Version == u.version && r.Slot == slot
	})
	if r.Last.Outcome != outcome || !strings.Contains(r.Last.Reason, reason) {
		u.t.Fatalf("%s: %s; want %s: %s\n%s", r.Last.Outcome, r.Last.Reason, outcome, reason, q.Output())
	}
	u.t.Logf("version %d: %s: %s", u.version, r.Last.Outcome, r.Last.Reason)
}

// TestUpdate: gridgate alone is changed, by a signed manifest over MQTT at 2 Mbit/s,
// interrupted twice: nothing comes twice, the new one runs and is kept, and the rows of
// the outage arrive. Then comes one that panics, and one that cannot reach the fog: the
// gateway goes back by itself and says so.
func TestUpdate(t *testing.T) {
	t.Parallel()
	u := newUtility(t, armv7(), 2_000_000)
	q := u.boot()
	within(t, 10*time.Minute, "a reading at the broker", u.reads)
	_, before := u.link.Stats()
	u.send(u.slot("next", map[string]string{"gridgate": u.gridgate("2.0.0")}), "2.0.0")
	u.fetched(500_000)
	u.link.Set(linktest.Cut)
	time.Sleep(10 * time.Second) // for rows that wait on the gateway
	u.link.Set(linktest.Up)
	u.fetched(2_000_000)
	packed := u.report().Document.Need
	q.Kill() // the power fails
	q = u.boot()
	u.ends(q, "kept", "", "b")
	if r := u.report(); r.Agent != "2.0.0" || r.Firmware != "2.0.0" {
		t.Errorf("%+v", r)
	}
	_, after := u.link.Stats()
	moved := int64(after.Bytes - before.Bytes)
	if t.Logf("%d octets came down for %d, with the manifest and all acknowledgements", moved, packed); moved > packed+packed/10 {
		t.Error("what was there before an interruption came again")
	}
	u.write("no-initrd", []byte("the kernel finds no first process here, and panics"))
	u.send(u.slot("panics", map[string]string{"initrd.zst": u.file("no-initrd")}), "2.0.1")
	u.ends(q, "reverted", "", "b")
	u.send(u.slot("deaf", map[string]string{"gridgate": u.bad("bad-deaf", u.without(strconv.Itoa(u.port))), "real": u.gridgate("2.0.2")}), "2.0.2")
	u.ends(q, "reverted", "the fog was reached before and is not now", "b")
	u.whole()
}

// without is a program that starts the real one with another configuration: where
// this one has a text, it has 1.
func (u *utility) without(text string) string {
	return fmt.Sprintf(`package main

import (
	"bytes"
	"os"
	"syscall"
)

func main() {
	b, err := os.ReadFile("/etc/gridgate/gridgate.yaml")
	if err != nil {
		panic(err)
	}
	b = bytes.ReplaceAll(b, []byte(%q), []byte("1"))
	if err := os.WriteFile("/tmp/gridgate.yaml", b, 0o600); err != nil {
		panic(err)
	}
	panic(syscall.Exec("/slot/real", []string{"gridgate", "run", "-config", "/tmp/gridgate.yaml"}, os.Environ()))
}
`, text)
}

const exits = `package main

import "os"

func main() { os.Exit(1) }
`

// whole wants every row that was numbered to have arrived.
func (u *utility) whole() {
	u.t.Helper()
	u.watcher.Signal(syscall.SIGINT)
	u.watcher.Await(" 0 missing,")
}
