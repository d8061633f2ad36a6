package main

import (
	"errors"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// gridgate runs as a user of its own, as in the packages: it may set the clock, and
// open serial lines, clocks, lines of chips and lamps.
const gridgateUser = 990

// asGridgate has a program run as that user.
func asGridgate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: gridgateUser, Gid: gridgateUser},
		AmbientCaps: []uintptr{unix.CAP_SYS_TIME},
	}
}

// give makes the user the owner of a file or of a folder with all in it.
func give(paths ...string) {
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = os.Lchown(path, gridgateUser, gridgateUser)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // the others are given all the same
				log.Print(err)
			}
			return nil
		})
		if err != nil {
			log.Print(err)
		}
	}
}

// devices are what of /dev and /sys the user gets.
func devices() []string {
	return []string{
		"/dev/tty[A-Z]*", "/dev/rtc*", "/dev/i2c-*", "/dev/gpiochip*",
		"/sys/class/leds/*/brightness", "/sys/class/leds/*/trigger", "/sys/class/gpio/gpio*/value",
	}
}

// giveDevice gives a device that has come to the user, if it is one for it. The
// console is not: what is typed there is the first process's.
func giveDevice(path, consoles string) {
	for _, pattern := range devices() {
		if ok, err := filepath.Match(pattern, path); err != nil || !ok {
			continue
		}
		for c := range strings.FieldsSeq(consoles) {
			if path == "/dev/"+c {
				return
			}
		}
		if err := os.Chown(path, gridgateUser, gridgateUser); err != nil {
			log.Print(err)
		}
	}
}

// giveDevices gives what is there.
func giveDevices() {
	consoles := activeConsoles()
	for _, pattern := range devices() {
		found, _ := filepath.Glob(pattern) // the patterns are right
		for _, path := range found {
			giveDevice(path, consoles)
		}
	}
}

func activeConsoles() string {
	b, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		log.Print(err)
	}
	return string(b)
}
