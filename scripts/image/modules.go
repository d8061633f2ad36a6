package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules is what a kernel package has of them. Debian's package has no list of
// dependencies or aliases (depmod makes it where it is installed), so that both
// are read from the modules.
type modules struct {
	path    map[string]string // by name
	builtin map[string]bool
}

// canonical is a module's name as the kernel says it.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

func readModules(dir string) (*modules, error) {
	m := &modules{path: map[string]string{}, builtin: map[string]bool{}}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".ko") {
			m.path[canonical(strings.TrimSuffix(d.Name(), ".ko"))] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		m.builtin[canonical(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
	}
	return m, nil
}

// info gives what a module says of itself under a key.
func info(path, key string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("%s: is no kernel module", path)
	}
	data, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var all []string
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if v, ok := bytes.CutPrefix(entry, []byte(key+"=")); ok {
			all = append(all, string(v))
		}
	}
	return all, nil
}

// needs gives the modules that one wants loaded before it.
func needs(path string) ([]string, error) {
	all, err := info(path, "depends")
	if err != nil {
		return nil, err
	}
	soft, err := info(path, "softdep")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range all {
		names = append(names, strings.Split(d, ",")...)
	}
	for _, d := range soft {
		if pre, ok := strings.CutPrefix(d, "pre: "); ok {
			names = append(names, strings.Fields(pre)...)
		}
	}
	return slices.DeleteFunc(names, func(s string) bool { return s == "" }), nil
}

// closure gives the modules wanted and all that they need, each after what it
// needs. What is built into the kernel is left out; what is not there at all is an
// error, or left out where it is wanted only softly.
func (m *modules) closure(wanted []string) ([]string, error) {
	var order []string
	var add func(name string, soft bool) error
	add = func(name string, soft bool) error {
		name = canonical(name)
		if m.builtin[name] || slices.Contains(order, name) {
			return nil
		}
		path, ok := m.path[name]
		if !ok {
			if soft {
				return nil
			}
			return fmt.Errorf("the kernel has no module %s", name)
		}
		deps, err := needs(path)
		if err != nil {
			return err
		}
		for _, d := range deps {
			if err := add(d, true); err != nil {
				return err
			}
		}
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
		return nil
	}
	for _, w := range wanted {
		if err := add(w, false); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// table is what init loads modules by: a line each, "module: what it needs", then
// lines "alias PATTERN MODULE".
func (m *modules) table(names []string) (string, error) {
	var b strings.Builder
	for _, n := range names {
		deps, err := m.closure([]string{n})
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s: %s\n", n, strings.Join(deps[:len(deps)-1], " "))
	}
	for _, n := range names {
		aliases, err := info(m.path[n], "alias")
		if err != nil {
			return "", err
		}
		for _, a := range aliases {
			fmt.Fprintf(&b, "alias %s %s\n", a, n)
		}
	}
	return b.String(), nil
}
