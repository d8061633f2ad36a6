package main

import (
	"bufio"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// technician is who may use the console: a line "pbkdf2-sha256 ITERATIONS SALT
// HASH", salt and hash hexadecimal, in a file on the boot partition. Without it
// nothing is read from the console.
type technician struct {
	iterations int
	salt, hash []byte
}

const technicianFile = "technician.key"

func readTechnician(file string) (*technician, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(b))
	if len(f) != 4 || f[0] != "pbkdf2-sha256" {
		return nil, fmt.Errorf("%s: want one line, pbkdf2-sha256 ITERATIONS SALT HASH", file)
	}
	t := &technician{}
	var errs [3]error
	t.iterations, errs[0] = strconv.Atoi(f[1])
	t.salt, errs[1] = hex.DecodeString(f[2])
	t.hash, errs[2] = hex.DecodeString(f[3])
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if t.iterations < 10_000 || t.iterations > 10_000_000 || len(t.salt) < 8 || len(t.hash) != sha256.Size {
		return nil, fmt.Errorf("%s: want 10000 to 10000000 iterations, a salt of 8 octets or more and a hash of 32", file)
	}
	return t, nil
}

func (t *technician) knows(passphrase string) bool {
	got, err := pbkdf2.Key(sha256.New, passphrase, t.salt, t.iterations, sha256.Size)
	return err == nil && subtle.ConstantTimeCompare(got, t.hash) == 1
}

// console lets a technician look at the gateway, and no more: what it runs are
// verbs of gridgate's. There is no shell.
type console struct {
	who   *technician
	out   io.Writer
	lines <-chan string
	// hide keeps what is typed off the screen, or shows it again.
	hide func(bool)
	// run runs a verb of the slot's gridgate.
	run func(ctx context.Context, args []string)
	// do is what the first process does itself: restart and factory.
	do map[string]func() error
}

const (
	maxPassphrase = 256
	longestPause  = time.Minute
	// away is how long nobody may type until the console closes again.
	away = 10 * time.Minute
)

// allowed gives the verbs that change nothing and show no secret.
func allowed() []string {
	return []string{"status", "doctor", "buffer stat", "scan", "clock", "version"}
}

// serve asks for the passphrase and carries out what is typed, until ctx ends.
func (c *console) serve(ctx context.Context) {
	wait := time.Second
	for ctx.Err() == nil {
		c.hide(true)
		fmt.Fprint(c.out, "gridgate: passphrase: ")
		line, ok := c.line(ctx, 0)
		c.hide(false)
		fmt.Fprintln(c.out)
		switch {
		case !ok:
			return
		case line == "":
		case len(line) > maxPassphrase || !c.who.knows(line):
			log.Print("console: a wrong passphrase")
			fmt.Fprintf(c.out, "wrong; try again in %s\n", wait)
			pause(ctx, wait)
			wait = min(2*wait, longestPause)
			c.drop()
		default:
			wait = time.Second
			log.Print("console: open")
			c.session(ctx)
			log.Print("console: closed")
		}
	}
}

// drop forgets what was typed before it was asked for.
func (c *console) drop() {
	for {
		select {
		case _, ok := <-c.lines:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// line gives what is typed next; limit 0 is none.
func (c *console) line(ctx context.Context, limit time.Duration) (string, bool) {
	var end <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		end = t.C
	}
	select {
	case l, ok := <-c.lines:
		return l, ok
	case <-end:
	case <-ctx.Done():
	}
	return "", false
}

func (c *console) session(ctx context.Context) {
	for {
		fmt.Fprint(c.out, "gridgate> ")
		line, ok := c.line(ctx, away)
		words := strings.Fields(line)
		switch {
		case !ok:
			fmt.Fprintln(c.out)
			return
		case len(words) == 0:
		case line == "exit":
			return
		case len(words) == 1 && c.do[words[0]] != nil:
			if err := c.do[words[0]](); err != nil {
				fmt.Fprintln(c.out, err)
			}
		case mayRun(words):
			c.run(ctx, words)
		default:
			fmt.Fprintf(c.out, "there is: %s, restart, factory, exit\n", strings.Join(allowed(), ", "))
		}
	}
}

func mayRun(words []string) bool {
	return slices.ContainsFunc(allowed(), func(verb string) bool {
		f := strings.Fields(verb)
		return len(words) >= len(f) && slices.Equal(words[:len(f)], f)
	})
}

// openConsole begins to read the console where a technician is known.
func openConsole(ctx context.Context, dir string, d *disk, s *slots) {
	who, err := readTechnician(filepath.Join(dir, technicianFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		log.Printf("the console stays closed: %v", err)
		return
	}
	tty, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		log.Printf("the console stays closed: %v", err)
		return
	}
	lines := make(chan string, 1)
	go readLines(tty, lines)
	c := &console{
		who: who, out: tty, lines: lines, hide: func(on bool) { echo(tty, !on) },
		run: func(ctx context.Context, args []string) { d.show(ctx, tty, args) },
		do: map[string]func() error{
			"restart": func() error { s.restart(); return nil },
			"factory": func() error {
				s.mu.Lock()
				defer s.mu.Unlock()
				if err := s.factory(); err != nil {
					return err
				}
				s.restart()
				return nil
			},
		},
	}
	go c.serve(ctx)
}

// readLines gives what is typed, a line at a time; a line that is too long is cut.
func readLines(r io.Reader, lines chan<- string) {
	defer close(lines)
	for b := bufio.NewReader(r); ; {
		var line []byte
		for {
			o, err := b.ReadByte()
			if err != nil {
				return
			}
			if o == '\n' || o == '\r' {
				break
			}
			if len(line) <= 4*maxPassphrase {
				line = append(line, o)
			}
		}
		lines <- string(line)
	}
}

// echo switches what the terminal shows of what is typed.
func echo(tty *os.File, on bool) {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return // it is no terminal
	}
	t.Lflag &^= unix.ECHO
	if on {
		t.Lflag |= unix.ECHO
	}
	_ = unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t) // what is typed is seen then
}

// show runs a verb of the slot's gridgate for the console.
func (d *disk) show(ctx context.Context, tty io.Writer, args []string) {
	limit, cancel := context.WithTimeout(ctx, away)
	defer cancel()
	cmd := exec.CommandContext(limit, filepath.Join(d.slotDir, "gridgate"), args...) //nolint:gosec // a verb of the list
	cmd.Dir, cmd.Env = "/data/gridgate", gridgateEnv()
	asGridgate(cmd)
	cmd.Stdout, cmd.Stderr = tty, tty
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(tty, "%s: %v\n", args[0], err)
	}
}
