package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// modules loads kernel modules by the table that the image was built with.
type modules struct {
	dir     string
	start   []string
	needs   map[string][]string
	aliases [][2]string // pattern, module

	mu     sync.Mutex
	loaded map[string]bool
}

func readModules(dir string) (*modules, error) {
	table, err := os.ReadFile(filepath.Join(dir, "table"))
	if err != nil {
		return nil, err
	}
	first, err := os.ReadFile(filepath.Join(dir, "first"))
	if err != nil {
		return nil, err
	}
	m := &modules{dir: dir, start: strings.Fields(string(first)), needs: map[string][]string{}, loaded: map[string]bool{}}
	m.parse(string(table))
	return m, nil
}

func (m *modules) parse(table string) {
	for line := range strings.Lines(table) {
		if words := strings.Fields(line); len(words) == 3 && words[0] == "alias" {
			m.aliases = append(m.aliases, [2]string{words[1], words[2]})
		} else if name, deps, ok := strings.Cut(line, ":"); ok {
			m.needs[name] = strings.Fields(deps)
		}
	}
}

// matching gives the modules for a piece of hardware.
func (m *modules) matching(modalias string) []string {
	var names []string
	for _, a := range m.aliases {
		if ok, err := path.Match(a[0], modalias); err == nil && ok {
			names = append(names, a[1])
		}
	}
	return names
}

func (m *modules) first() {
	for _, n := range m.start {
		if n != "softdog" { // where there is no better one: see openWatchdog
			m.load(n)
		}
	}
}

// load loads a module after what it needs, once.
func (m *modules) load(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range append(m.needs[name], name) {
		if m.loaded[n] {
			continue
		}
		m.loaded[n] = true
		if err := insert(filepath.Join(m.dir, n+".ko")); err != nil {
			log.Printf("module %s: %v", n, err)
		}
	}
}

func insert(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// cold loads the modules of the hardware that is there, again while that finds
// more hardware.
func (m *modules) cold(dir string) {
	for before := -1; before != m.count(); {
		before = m.count()
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "modalias" {
				if b, err := os.ReadFile(p); err == nil {
					m.find(string(bytes.TrimSpace(b)))
				}
			}
			return nil // a device that has gone meanwhile is no error
		})
	}
}

func (m *modules) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.loaded)
}

func (m *modules) find(modalias string) {
	for _, n := range m.matching(modalias) {
		m.load(n)
	}
}

// follow loads the modules of what is plugged in later.
func (m *modules) follow(ctx context.Context) {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		log.Printf("hardware that is plugged in later is not seen: %v", err)
		return
	}
	defer func() { _ = unix.Close(s) }()
	if err := unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		log.Printf("hardware that is plugged in later is not seen: %v", err)
		return
	}
	buf := make([]byte, 16<<10)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(s, buf, 0)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			continue
		}
		if err != nil {
			return
		}
		for field := range bytes.SplitSeq(buf[:n], []byte{0}) {
			if a, ok := bytes.CutPrefix(field, []byte("MODALIAS=")); ok {
				m.find(string(a))
			}
			if name, ok := bytes.CutPrefix(field, []byte("DEVNAME=")); ok && bytes.HasPrefix(buf[:n], []byte("add@")) {
				giveDevice("/dev/"+string(name), activeConsoles())
			}
		}
	}
}
