package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gridgate/internal/proctest"
)

// keyboard is a site's console, to type at.
type keyboard struct {
	s   *site
	log string // what the console showed
	c   net.Conn
}

// typed lets a site's console be typed at. It is to be called before the start.
func typed(s *site) *keyboard {
	s.t.Helper()
	k := &keyboard{s: s, log: filepath.Join(s.t.TempDir(), "console")}
	port := proctest.FreePorts(s.t, 1)
	s.serial = []string{"-chardev", fmt.Sprintf("socket,id=con,host=127.0.0.1,port=%d,server=on,wait=off,logfile=%s", port, k.log), "-serial", "chardev:con"}
	s.boot()
	proctest.Until(s.t, "QEMU listens", func() bool {
		var err error
		k.c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil
	})
	s.t.Cleanup(func() { _ = k.c.Close() })
	go func() { _, _ = io.Copy(io.Discard, k.c) }() // until it is closed; the log has it all
	return k
}

func (k *keyboard) shown() string {
	b, _ := os.ReadFile(k.log) // QEMU may not have made it yet
	return string(b)
}

// say types a line and waits until the console shows something after it.
func (k *keyboard) say(line, want string) {
	k.s.t.Helper()
	before := len(k.shown())
	if _, err := io.WriteString(k.c, line+"\r"); err != nil {
		k.s.t.Fatal(err)
	}
	k.await(before, want)
}

func (k *keyboard) await(from int, want string) {
	k.s.t.Helper()
	defer func() {
		if k.s.t.Failed() {
			k.s.t.Logf("the console:\n%s", k.shown())
		}
	}()
	within(k.s.t, 5*time.Minute, fmt.Sprintf("the console shows %q", want), func() bool { return strings.Contains(k.shown()[from:], want) })
}

// TestBootsAndReads: from power on to a meter's reading at a broker; and without a
// technician's key nothing that is typed at the console is heard.
func TestBootsAndReads(t *testing.T) {
	t.Parallel()
	s := newSite(t, armv7())
	began := time.Now()
	k := typed(s)
	within(t, 5*time.Minute, "a reading at the broker", s.reads)
	t.Logf("power on to the first reading at the broker: %.1f s", time.Since(began).Seconds())
	k.await(0, "slot a (first a, tries left: a 5, b 0)")
	before := len(k.shown())
	if _, err := io.WriteString(k.c, "\r\rroot\r\rstatus\rrestart\r"); err != nil {
		t.Fatal(err)
	}
	s.readsAnew()
	s.readsAnew()
	for _, word := range []string{"passphrase", "gridgate>", "restart, as", "stopped", "login"} {
		if strings.Contains(k.shown()[before:], word) {
			t.Errorf("the console shows %q:\n%s", word, k.shown()[before:])
		}
	}
}

// TestFlashed: what scripts/flash leaves on a card that held garbage boots, its
// console opens for the technician, and bmaptool writes the same blocks.
func TestFlashed(t *testing.T) {
	t.Parallel()
	s := newSite(t, armv7())
	garbage := func(path string) {
		s.tool("sh", "-c", "head -c 300M /dev/urandom > "+path)
	}
	garbage(s.card)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "gridgate.yaml"), []byte(s.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	img := image(t, armv7())
	const passphrase = "open sesame"
	s.tool("sh", "-c", fmt.Sprintf("printf '%[1]s\\n%[1]s\\n' | ../flash -technician -y %[2]s %[3]s %[4]s", passphrase, img+".zst", s.card, dir))
	k := typed(s)
	within(t, 5*time.Minute, "a reading at the broker", s.reads)
	k.await(0, "gridgate: passphrase: ")
	k.say("sesame", "wrong; try again in 1s")
	k.say("", "passphrase: ")
	k.say(passphrase, "gridgate> ")
	k.say("status", "zone3")
	k.say("buffer stat", "instant")
	k.say("sh", "there is: status")
	k.say("exit", "passphrase: ")
	if strings.Contains(k.shown(), passphrase) {
		t.Error("the passphrase is shown")
	}
	other := filepath.Join(t.TempDir(), "card")
	garbage(other)
	s.tool("bmaptool", "copy", "--bmap", img+".bmap", img+".zst", other)
}
