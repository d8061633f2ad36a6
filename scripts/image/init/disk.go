package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gridgate/scripts/image/fat"
)

// disk is where the image lies, whatever the kernel calls it.
type disk struct {
	parts   map[string]string // label to device
	slotDir string            // where gridgate is
	memory  bool              // nothing is kept over a restart
}

// Labels of the image's partitions.
const (
	labelBoot = "GWBOOT"
	labelA    = "GWA"
	labelB    = "GWB"
	labelData = "gwdata"
)

// findDisk waits for the partitions; what is not there by then is done without.
func findDisk(wait time.Duration) *disk {
	end := time.Now().Add(wait)
	for {
		d := &disk{parts: partitions("/sys/class/block", "/dev")}
		if len(d.parts) == 4 || time.Now().After(end) {
			for _, l := range []string{labelBoot, labelA, labelB, labelData} {
				if d.parts[l] == "" {
					log.Printf("there is no partition %s", l)
				}
			}
			return d
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // nothing else goes on
	}
}

// partitions gives the devices of the image's partitions by their labels. That of
// U-Boot is known by its label, and the others by where they are on the same disk:
// a slot that is just being written, or data that are garbage, have none.
func partitions(sys, dev string) map[string]string {
	found := map[string]string{}
	entries, err := os.ReadDir(sys)
	if err != nil {
		return found
	}
	places := map[string]string{} // disk and number to name
	boot := ""
	for _, e := range entries {
		number, err := os.ReadFile(filepath.Join(sys, e.Name(), "partition"))
		if err != nil {
			continue
		}
		link, err := filepath.EvalSymlinks(filepath.Join(sys, e.Name()))
		if err != nil {
			continue
		}
		disk := filepath.Dir(link)
		places[disk+" "+strings.TrimSpace(string(number))] = e.Name()
		if boot == "" && labelOf(filepath.Join(dev, e.Name())) == labelBoot {
			boot = disk
		}
	}
	if boot == "" {
		return found
	}
	for i, label := range []string{labelBoot, labelA, labelB, labelData} {
		if name, ok := places[fmt.Sprint(boot, " ", i+1)]; ok {
			found[label] = filepath.Join(dev, name)
		}
	}
	return found
}

// labelOf gives the label of a FAT32 file system.
func labelOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // it was only read
	var head [fat.Sector]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return ""
	}
	if bytes.Equal(head[82:87], []byte("FAT32")) {
		return strings.TrimRight(string(head[71:82]), " ")
	}
	return ""
}

// mount mounts what there is. A gateway without its data still reads meters.
func (d *disk) mount(slot string) {
	readOnly := uintptr(unix.MS_RDONLY | unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID)
	if err := unix.Mount(d.parts[labelBoot], "/boot", "vfat", readOnly, fatOptions); err != nil {
		log.Printf("the boot partition: %v", err)
	}
	d.slotDir = "/boot/factory"
	if label, ok := map[string]string{"a": labelA, "b": labelB}[slot]; ok {
		if err := unix.Mount(d.parts[label], "/slot", "vfat", readOnly, fatOptions); err != nil {
			log.Printf("slot %s: %v", slot, err)
		}
		d.slotDir = "/slot"
	}
	if err := within(checkMost, d.mountData); err != nil {
		d.inMemory(err)
	}
	for _, dir := range []string{"/data/gridgate", "/run/gridgate"} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			log.Print(err)
		}
	}
	if err := os.Symlink("/data/gridgate", "/var/lib/gridgate"); err != nil {
		log.Print(err)
	}
	if err := os.Symlink("/data/gridgate/etc", "/etc/gridgate"); err != nil {
		log.Print(err)
	}
	sayFull("/data")
	p := provisioning{from: "/boot/provision", to: "/data/gridgate/etc", fallback: "/etc/gridgate.yaml", gridgate: d.runGridgate}
	if !d.memory {
		p.write = func(do func() error) error { return writable("/boot", do) }
	}
	p.run()
	if _, err := os.ReadFile(p.config()); err != nil && !d.memory { // it went read only amid it, say
		if err := unix.Unmount("/data", unix.MNT_DETACH); err != nil {
			log.Printf("/data: %v", err)
		}
		d.inMemory(err)
		if err := os.MkdirAll("/data/gridgate", 0o750); err != nil {
			log.Print(err)
		}
		p.write = nil
		p.run()
	}
}

// inMemory is what is left where /data cannot be used.
func (d *disk) inMemory(why error) {
	d.memory = true
	log.Printf("DATA IS IN MEMORY ONLY and will not survive a restart: %v", why)
	if err := unix.Mount("tmpfs", "/data", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=25%,mode=0755"); err != nil {
		log.Printf("/data: %v", err)
	}
}

// checkMost is how long checking /data may take: a card that dies takes for ever.
const checkMost = 4 * time.Minute

// within does something for a time. What the kernel does not let go of by then is
// left behind.
func within(limit time.Duration, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	last := time.NewTimer(limit + 10*time.Second)
	defer last.Stop()
	select {
	case err := <-done:
		return err
	case <-last.C:
		return fmt.Errorf("not done within %s", limit)
	}
}

// mountData checks /data first. What the checker does not dare to mend by itself
// is mended all the same: nobody comes by to answer.
func (d *disk) mountData(ctx context.Context) error {
	dev := d.parts[labelData]
	if dev == "" {
		return errors.New("there is no data partition")
	}
	for _, how := range []string{"-p", "-y"} {
		out, err := exec.CommandContext(ctx, "/sbin/e2fsck", how, dev).CombinedOutput() //nolint:gosec // our own partition
		var exit *exec.ExitError
		if err == nil {
			break
		}
		if errors.As(err, &exit) && exit.ExitCode() <= 3 { // errors were corrected
			log.Printf("/data was mended: %s", bytes.TrimSpace(out))
			break
		}
		log.Printf("e2fsck %s %s: %v: %s", how, dev, err, bytes.TrimSpace(out))
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the check of %s: %w", dev, err)
	}
	return unix.Mount(dev, "/data", "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, "errors=remount-ro")
}

func (d *disk) unmount() {
	for _, dir := range []string{"/data", "/slot", "/boot"} {
		if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			log.Printf("unmount %s: %v", dir, err)
		}
	}
}

// sayFull says on the console that /data has no room: nothing that is read is kept
// then.
func sayFull(dir string) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		log.Printf("%s: %v", dir, err)
		return
	}
	free, all := s.Bavail*uint64(s.Bsize), s.Blocks*uint64(s.Bsize) //nolint:gosec // of a file system
	if free < all/50 {
		log.Printf("%s IS FULL: %d of %d kB are free", dir, free/1000, all/1000)
	}
}
