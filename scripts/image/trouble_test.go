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
	"time"

	"gridgate/internal/proctest"
)

// readsAnew waits until a reading that was taken after now is at the broker.
func (s *site) readsAnew() {
	s.t.Helper()
	before := len(s.watcher.Output())
	within(s.t, 10*time.Minute, "a new reading at the broker", func() bool {
		return strings.Contains(s.watcher.Output()[before:], `"serial":"GRG000001"`)
	})
}

// says waits until the console shows something.
func (s *site) says(q *proctest.Process, text string) {
	s.t.Helper()
	within(s.t, 10*time.Minute, "the console says "+text, func() bool { return strings.Contains(q.Output(), text) })
}

// dataPart copies the data partition to a file of its own.
func (s *site) dataPart(part string) {
	s.t.Helper()
	s.tool("dd", "if="+s.card, "of="+part, "bs=1M", fmt.Sprintf("skip=%d", dataAt), fmt.Sprintf("count=%d", testData), "status=none")
}

const dataAt = gap + bootSize + 2*slotSize // MiB

// onData does something to the data partition.
func (s *site) onData(do func(part string)) {
	s.t.Helper()
	part := filepath.Join(s.t.TempDir(), "data")
	s.dataPart(part)
	do(part)
	s.tool("dd", "if="+part, "of="+s.card, "bs=1M", fmt.Sprintf("seek=%d", dataAt), "conv=notrunc", "status=none")
}

// number gives what dumpe2fs says of a file system.
func number(t *testing.T, part, pattern string) int64 {
	t.Helper()
	out, err := exec.Command("dumpe2fs", part).Output() //nolint:gosec // ours
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(pattern).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("dumpe2fs does not say %s", pattern)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// garble overwrites a part of a file.
func garble(t *testing.T, path string, at, length int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(i*i>>3) ^ 0xa5
	}
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDataInTrouble: whatever has become of the data, the gateway starts, says so
// on the console, and reads meters.
func TestDataInTrouble(t *testing.T) {
	t.Parallel()
	s := newSite(t, armv7())
	q := s.boot()
	within(t, 10*time.Minute, "a reading at the broker", s.reads)
	q.Kill()

	s.onData(func(part string) { // full to the last block
		s.tool("sh", "-c", fmt.Sprintf("e2fsck -fy %s >/dev/null; [ $? -le 1 ]", part))
		fill := filepath.Join(t.TempDir(), "fill")
		size := number(t, part, `Free blocks: +(\d+)`) * number(t, part, `Block size: +(\d+)`)
		for size > 0 { // and what describes the file
			s.tool("sh", "-c", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x >%s", size, fill))
			s.tool("debugfs", "-w", "-R", "rm fill", part)
			s.tool("debugfs", "-w", "-R", "write "+fill+" fill", part)
			if number(t, part, `Free blocks: +(\d+)`) < 8 {
				break
			}
			size -= 16 << 10
		}
	})
	q = s.boot()
	s.says(q, "/data IS FULL")
	s.readsAnew()
	q.Kill()

	s.onData(func(part string) { // its description, and where half of its files are
		block := number(t, part, `Block size: +(\d+)`)
		table := number(t, part, `Inode table at (\d+)-`)
		garble(t, part, 1024, 1024)
		garble(t, part, (table+2)*block, 8*block)
	})
	q = s.boot()
	s.says(q, "/data was mended")
	s.readsAnew()
	q.Kill()

	s.onData(func(part string) { garble(t, part, 0, testData*mib) })
	q = s.boot()
	s.says(q, "DATA IS IN MEMORY ONLY")
	s.readsAnew()
}

// TestNothingButAMeter: no network that gives an address, a modem that is not
// there, and a meter on a serial line, which is read.
func TestNothingButAMeter(t *testing.T) {
	t.Parallel()
	s := &site{t: t, m: armv7(), card: filepath.Join(t.TempDir(), "card"), bin: proctest.Build(t, "metersim", "gridgate")}
	s.tool("cp", "--sparse=always", image(t, s.m), s.card)
	line := filepath.Join(t.TempDir(), "line")
	proctest.Start(t, nil, filepath.Join(s.bin, "metersim"), "dlms", "-transport", "hdlc", "-pty", "-link", line).Await("GRG000001")
	s.provide(`version: 1
site: zone3
gateway: gw1
intake: {window: 0s}
modem: {port: /dev/ttyUSB2}
uplink: {broker: "tcp://192.0.2.1:1883", start_jitter: 0s}
groups: {now: {lane: instant, every: 1s, channels: [1-0:1.8.0]}}
meters: [{id: m, groups: [now], url: "dlms+hdlc:///dev/ttyS0?baud=38400&client=16"}]
`)
	q := s.start("-netdev", "hubport,id=n,hubid=0", "-device", "virtio-net-device,netdev=n",
		"-chardev", "serial,id=m,path="+line, "-device", "pci-serial,chardev=m")
	within(t, 10*time.Minute, "the console says what is missing", func() bool {
		out := q.Output()
		return strings.Contains(out, "eth0 has no address by DHCP") && strings.Contains(out, "/dev/ttyUSB2")
	})
	within(t, 10*time.Minute, "a reading on the card", s.keeps)
}

// keeps says whether there is a reading on the card. It is looked at while the
// gateway runs, as a cut at some moment would have left it.
func (s *site) keeps() bool {
	time.Sleep(2 * time.Second) // what follows takes the machine's time
	dir := s.t.TempDir()
	part, data := filepath.Join(dir, "part"), filepath.Join(dir, "data")
	s.dataPart(part)
	look := fmt.Sprintf("mkdir %[2]s; e2fsck -fy %[1]s; debugfs -R 'rdump /gridgate %[2]s' %[1]s; %[3]s/gridgate buffer dump -path %[2]s/gridgate/buffer", part, data, s.bin)
	out, err := exec.Command("sh", "-c", look).CombinedOutput() //nolint:gosec // ours
	return err == nil && strings.Contains(string(out), "1-0:1.8.0")
}
