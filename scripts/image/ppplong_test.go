//go:build soak

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

// TestSoakAgainstPppd: the long ones too, and on arm64.
func TestSoakAgainstPppd(t *testing.T) {
	againstPppd(t, armv7(), "^Test(Guest|Long)")
	againstPppd(t, arm64(), "^Test(Guest|Long)")
}

// TestSoakModemOnly: a gateway with a serial modem and no other network reads a meter
// and publishes. The modem and its operator, which is Debian's pppd, are a second
// emulated machine; 10.9.0.1 is that one to the gateway.
func TestSoakModemOnly(t *testing.T) {
	s := newSite(t, armv7())
	dir := t.TempDir()
	_, broker, _ := strings.Cut(s.mosq.Address, ":")
	config := strings.NewReplacer("10.0.2.2:"+broker, "10.9.0.1:1883", fmt.Sprintf("10.0.2.2:%d", s.meter), "10.9.0.1:4059").Replace(s.config())
	for name, text := range map[string]string{"gridgate.yaml": config, "ppp.conf": "device=/dev/ttyS0\napn=internet.example\n"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.tool("mcopy", "-o", "-i", s.card+"@@4M", path, "::provision/"+name)
	}
	b, err := boardOf(s.m.board)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := filepath.Abs("../../bin/image")
	if err != nil {
		t.Fatal(err)
	}
	kernel, initrd := guest(t, s.m, debian{arch: b.deb, cache: cache}, b, dir)
	socket := filepath.Join(dir, "modem")
	serial := func(server string) []string {
		return []string{
			"-m", "256", "-smp", "2", "-nographic", "-monitor", "none", "-serial", "stdio",
			"-chardev", "socket,id=m,path=" + socket + server, "-device", "pci-serial,chardev=m",
		}
	}
	const machine = "virt,highmem=off" // or this kernel has no PCI
	operator := proctest.Start(t, nil, "qemu-system-arm", append(serial(",server=on,wait=off"), "-M", machine, "-cpu", "cortex-a7",
		"-device", "virtio-net-device,netdev=n", "-netdev", "user,id=n", "-kernel", kernel, "-initrd", initrd,
		"-append", fmt.Sprintf("console=ttyAMA0 quiet panic=-1 operator=1883:%s,4059:%d", broker, s.meter))...)
	within(t, 5*time.Minute, "the operator", func() bool { return strings.Contains(operator.Output(), "operator: ready") })
	q := proctest.Start(t, nil, "qemu-system-arm", append(serial(""), "-M", machine, "-cpu", "cortex-a7", "-bios", "/usr/lib/u-boot/qemu_arm/u-boot.bin",
		"-drive", "file="+s.card+",format=raw,if=none,id=d", "-device", "virtio-blk-device,drive=d", "-nic", "none")...)
	within(t, 5*time.Minute, "a reading at the broker", s.reads)
	if out := q.Output(); !strings.Contains(out, "ppp0 has 10.9.0.2 by /dev/ttyS0") {
		t.Errorf("the console:\n%s", out)
	}
}

// TestSoakNoModem: a modem that is not there, and a ppp.conf that is wrong, are said on
// the console; by wire the gateway reads and publishes.
func TestSoakNoModem(t *testing.T) {
	for conf, want := range map[string]string{
		"device=/dev/ttyUSB9\n":               "PPP: no modem: /dev/ttyUSB9 is not there",
		"device=/dev/ttyUSB9\nspeed=115200\n": `no PPP: /data/gridgate/etc/ppp.conf:2: unknown key "speed"`,
	} {
		s := newSite(t, armv7())
		path := filepath.Join(t.TempDir(), "ppp.conf")
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		s.tool("mcopy", "-i", s.card+"@@4M", path, "::provision/ppp.conf")
		q := s.boot()
		within(t, 5*time.Minute, "a reading at the broker", s.reads)
		within(t, time.Minute, want, func() bool { return strings.Contains(q.Output(), want) })
		q.Kill()
	}
}
