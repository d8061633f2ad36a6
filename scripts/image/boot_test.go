package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gridgate/internal/mqtt/mqtttest"
	"gridgate/internal/proctest"
)

// machine is what QEMU is told to be.
type machine struct {
	board string
	env   []string // for Go's compiler
	qemu  []string
	data  int // MiB of the data partition
}

func armv7() machine {
	return machine{
		board: "virt-armv7", env: []string{"GOARCH=arm", "GOARM=7"},
		qemu: []string{"qemu-system-arm", "-M", "virt", "-cpu", "cortex-a7", "-bios", "/usr/lib/u-boot/qemu_arm/u-boot.bin"}, data: testData,
	}
}

func arm64() machine {
	return machine{
		board: "virt-arm64", env: []string{"GOARCH=arm64"},
		qemu: []string{"qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin"}, data: 128,
	}
}

// once makes a thing once for all tests that want it.
var images sync.Map // an image takes a while

// image gives the image of a machine's board, made of what the tree holds now.
func image(t *testing.T, m machine) string {
	t.Helper()
	make, _ := images.LoadOrStore(m.board, sync.OnceValues(func() (string, error) { return makeImage(m) }))
	path, err := make.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const testData = 64 // MiB of the data partition: an update takes twice the firmware

func makeImage(m machine) (string, error) {
	dir, err := os.MkdirTemp("", "gridgate-image-test-")
	if err != nil {
		return "", err
	}
	b := build{top: "../..", cache: "../../bin/image", out: filepath.Join(dir, "image"), data: m.data}
	if b.board, err = boardOf(m.board); err != nil {
		return "", err
	}
	for name, from := range map[string]string{"gridgate": "../../cmd/gridgate", "init": "./init"} {
		out := filepath.Join(dir, name)
		if err := compile(m, from, out); err != nil {
			return "", err
		}
	}
	b.agent, b.init = filepath.Join(dir, "gridgate"), filepath.Join(dir, "init")
	return b.out, b.run()
}

// compile builds a program for a machine, in the module that it belongs to.
func compile(m machine, from, out string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out}, flags...)
	c := exec.Command("go", append(args, ".")...) //nolint:gosec // ours
	c.Dir = from
	c.Env = append(os.Environ(), append(m.env, "GOOS=linux", "CGO_ENABLED=0")...)
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", from, err, text)
	}
	return nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, made := range []*sync.Map{&images, &programs} {
		made.Range(func(_, make any) bool {
			if path, err := make.(func() (string, error))(); err == nil {
				_ = os.RemoveAll(filepath.Dir(path)) // of the system's temporary folder anyway
			}
			return true
		})
	}
	os.Exit(code)
}

// site is a gateway in QEMU, a meter and a broker on this machine.
type site struct {
	t       *testing.T
	m       machine
	card    string
	bin     string
	mosq    *mqtttest.Broker
	meter   int // port
	watcher *proctest.Process
	serial  []string // what the console is; nil: standard output
}

func newSite(t *testing.T, m machine) *site {
	t.Helper()
	s := &site{t: t, m: m, card: filepath.Join(t.TempDir(), "card"), bin: proctest.Build(t, "metersim", "gridfog")}
	s.mosq = mqtttest.Mosquitto(t, mqtttest.Config{})
	s.meter = proctest.FreePorts(t, 1)
	proctest.Start(t, nil, filepath.Join(s.bin, "metersim"), "dlms", "-listen", fmt.Sprintf("127.0.0.1:%d", s.meter)).Await("GRG000001")
	s.watcher = proctest.Start(t, nil, filepath.Join(s.bin, "gridfog"), "watch", "-broker", "tcp://"+s.mosq.Address, "-json")
	s.watcher.Await("connected")
	s.tool("cp", "--sparse=always", image(t, m), s.card)
	s.provide(s.config())
	return s
}

// provide puts a configuration into provision/ on the boot partition.
func (s *site) provide(config string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "gridgate.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.tool("mmd", "-D", "s", "-i", s.card+"@@4M", "::provision")
	s.tool("mcopy", "-o", "-i", s.card+"@@4M", path, "::provision/gridgate.yaml")
}

// config is that of the gateway; 10.0.2.2 is this machine's loopback to it.
func (s *site) config() string {
	_, port, _ := strings.Cut(s.mosq.Address, ":")
	return fmt.Sprintf(`version: 1
site: zone3
gateway: gw1
intake: {window: 0s}
uplink: {broker: "tcp://10.0.2.2:%s", start_jitter: 0s}
groups: {now: {lane: instant, every: 1s, channels: [1-0:1.8.0]}}
meters: [{id: m, groups: [now], url: "dlms+wrapper://10.0.2.2:%d?client=16"}]
`, port, s.meter)
}

func (s *site) tool(name string, args ...string) {
	s.t.Helper()
	if err := run(name, args...); err != nil {
		s.t.Fatal(err)
	}
}

// boot switches the gateway on.
func (s *site) boot() *proctest.Process {
	s.t.Helper()
	return s.start("-device", "virtio-net-device,netdev=n", "-netdev", "user,id=n")
}

// start switches the gateway on with the devices named.
func (s *site) start(devices ...string) *proctest.Process {
	s.t.Helper()
	q, serial := s.m.qemu, s.serial
	if serial == nil {
		serial = []string{"-serial", "stdio"}
	}
	args := append(q[1:], "-m", "256", "-smp", "2", "-nographic", "-monitor", "none",
		"-drive", "file="+s.card+",format=raw,if=none,id=d", "-device", "virtio-blk-device,drive=d")
	return proctest.Start(s.t, nil, q[0], append(append(args, serial...), devices...)...)
}

// within waits for something that takes an emulated machine its time.
func within(t *testing.T, limit time.Duration, what string, seen func() bool) {
	t.Helper()
	end := time.Now().Add(limit)
	for !seen() {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *site) reads() bool { return strings.Contains(s.watcher.Output(), `"serial":"GRG000001"`) }

// TestTheSameImage: made twice in different folders, one hash.
func TestTheSameImage(t *testing.T) {
	t.Parallel()
	first := image(t, armv7())
	second, err := makeImage(armv7())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(second)) }()
	for _, ending := range []string{"", ".zst", ".bmap"} {
		a, err := exec.Command("sha256sum", first+ending).Output() //nolint:gosec // ours
		if err != nil {
			t.Fatal(err)
		}
		b, err := exec.Command("sha256sum", second+ending).Output() //nolint:gosec // ours
		if err != nil {
			t.Fatal(err)
		}
		if string(a[:64]) != string(b[:64]) {
			t.Errorf("image%s: %.64s and %.64s", ending, a, b)
		}
	}
	zst, err := os.Stat(first + ".zst")
	if err != nil {
		t.Fatal(err)
	}
	if zst.Size() > 24_000_000 {
		t.Errorf("%d octets", zst.Size())
	}
	t.Logf("%d octets as .zst", zst.Size())
}

// TestFlashRefuses: a card that is too small, an image or a map that is damaged.
func TestFlashRefuses(t *testing.T) {
	t.Parallel()
	img := image(t, armv7())
	dir := t.TempDir()
	copied := filepath.Join(dir, "image")
	for _, ending := range []string{".zst", ".bmap"} {
		if err := copyAt(img+ending, copied+ending); err != nil {
			t.Fatal(err)
		}
	}
	card := filepath.Join(dir, "card")
	refused := func(size int, want string) {
		t.Helper()
		if err := sparse(card, size); err != nil {
			t.Fatal(err)
		}
		err := run("../flash", "-y", copied+".zst", card)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	refused(100, "too small")
	text, err := os.ReadFile(copied + ".bmap")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied+".bmap", []byte(strings.Replace(string(text), "0-1023", "0-1022", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(300, "damaged")
	if err := os.WriteFile(copied+".bmap", text, 0o600); err != nil {
		t.Fatal(err)
	}
	b := []byte(strings.Repeat("x", 4096))
	if err := run("zstd", "-qd", "--long=27", copied+".zst", "-o", copied); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(copied, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, 5*mib); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := run("zstd", "-q", "-f", "--long=27", copied, "-o", copied+".zst"); err != nil {
		t.Fatal(err)
	}
	refused(300, "damaged in blocks")
}

// TestBrokenSlot: a slot whose program ends at once is given up, and the other one
// reads meters.
func TestBrokenSlot(t *testing.T) {
	t.Parallel()
	s := newSite(t, armv7())
	s.fillB(`package main

import "os"

func main() { os.Exit(1) }
`)
	q := s.boot()
	within(t, 8*time.Minute, "a reading at the broker", s.reads)
	out := q.Output()
	b, a := strings.Index(out, "gridgate of slot b started"), strings.Index(out, "gridgate of slot a started")
	if b < 0 || a < b || !strings.Contains(out, "gridgate ended too often") {
		t.Errorf("the console:\n%s", out)
	}
}

// fillB puts the files of slot A into slot B, but for gridgate another program, and
// lets U-Boot try B first, once.
func (s *site) fillB(program string) {
	s.t.Helper()
	dir := s.t.TempDir()
	for name, text := range map[string]string{"main.go": program, "go.mod": "module broken\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := compile(s.m, dir, filepath.Join(dir, "gridgate")); err != nil {
		s.t.Fatal(err)
	}
	slotB := fmt.Sprintf("%s@@%dM", s.card, gap+bootSize+slotSize)
	for _, name := range []string{"vmlinuz", "initrd.zst"} {
		s.tool("mcopy", "-n", "-i", fmt.Sprintf("%s@@%dM", s.card, gap+bootSize), "::"+name, filepath.Join(dir, name))
		s.tool("mcopy", "-i", slotB, filepath.Join(dir, name), "::"+name)
	}
	s.tool("mcopy", "-i", slotB, filepath.Join(dir, "gridgate"), "::gridgate")
	// gw_a=6, gw_b=1, gw_first=b, as U-Boot writes it.
	s.tool("mcopy", "-i", s.card+"@@4M", "testdata/b-once.env", "::gw0.env")
}
