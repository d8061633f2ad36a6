// Command init is the first process of a flashed gateway, and the only one beside
// gridgate: it mounts, loads the modules of what hardware there is, brings the
// network up, starts gridgate from the slot that U-Boot chose, and starts it again.
// The machine's watchdog is fed from the first second, and later only as long as
// gridgate says that it makes progress. There is no shell.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("init: ")
	if os.Getpid() != 1 {
		log.Fatal("is the first process of a gateway, and nothing else")
	}
	if err := run(); err != nil {
		log.Print(err)
	}
	unix.Sync()
	time.Sleep(2 * time.Second) //nolint:forbidigo // for the console
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// run gives an error when the machine has to start again.
func run() error {
	mountAll()
	quiet()
	log.Printf("started (%s after power on)", uptime())
	mods, err := readModules("/lib/modules")
	if err != nil {
		return err
	}
	mods.first()
	mods.cold("/sys/devices")
	dog := openWatchdog(mods)
	atWatchdog()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go mods.follow(ctx)

	log.Printf("hardware is known (%s)", uptime())
	where := findDisk(10 * time.Second)
	dog.during(func() { where.mount(slotOf(cmdline())) })
	go network(ctx)
	go dial(ctx, mods)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR2)
	firmware := newSlots(where, slotOf(cmdline()), func() {
		select {
		case stop <- syscall.SIGTERM:
		default: // it is told already
		}
	})
	control, err := listenControl(controlSocket)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }() // the machine starts again
	give("/data/gridgate", "/run/gridgate", controlSocket)
	giveDevices()
	go firmware.serve(control)
	openConsole(ctx, "/boot", where, firmware)
	s := supervisor{dir: where.slotDir, where: where, dog: dog, slots: firmware}
	err = s.run(ctx, stop)
	where.unmount()
	return err
}

func mountAll() {
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
		options           string
	}{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "ptmxmode=0666"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	} {
		if err := os.MkdirAll(m.where, 0o755); err != nil {
			log.Print(err)
		}
		if err := unix.Mount(m.what, m.where, m.kind, m.flags, m.options); err != nil {
			log.Printf("mount %s: %v", m.where, err)
		}
	}
}

// quiet keeps the console from being used to order the kernel about.
func quiet() {
	if err := os.WriteFile("/proc/sys/kernel/sysrq", []byte("0"), 0); err != nil {
		log.Print(err)
	}
}

func cmdline() string {
	b, _ := os.ReadFile("/proc/cmdline") // an empty one says as much
	return string(b)
}

// slotOf gives the slot that U-Boot chose: a, b, or f for the factory's.
func slotOf(cmdline string) string {
	for _, w := range strings.Fields(cmdline) {
		if v, ok := strings.CutPrefix(w, "gw.slot="); ok && (v == "a" || v == "b") {
			return v
		}
	}
	return "f"
}

// uptime says how long the machine runs, for the log.
func uptime() string { return fmt.Sprintf("%.1f s", sinceBoot().Seconds()) }

// sinceBoot gives how long the machine runs.
func sinceBoot() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // every kernel has it
	return time.Duration(t.Nano())
}
