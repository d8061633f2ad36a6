package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gridgate/agent/command"
	"gridgate/agent/order"
	"gridgate/internal/cli"
	"gridgate/internal/meter"
)

// making is how commands are made.
type making struct {
	queue, to, meters, with, id string
	sign, passwordFile          string
	valid, delay                time.Duration
	now                         func() time.Time
}

func (m *making) flags(fs *flag.FlagSet) {
	fs.StringVar(&m.queue, "queue", "", "the `DIR` of commands: ID.body unsigned, ID.doc signed, ID/SITE.GATEWAY.json what came of it")
	fs.StringVar(&m.to, "to", "", "the `TARGETS`: SITE/GATEWAY or SITE/_group/GROUP, with commas between")
	fs.StringVar(&m.meters, "meters", "", "the `METERS`: ids or serial numbers with commas between, or * for all")
	fs.StringVar(&m.with, "with", "", "a `FILE` with what the action wants to know, in YAML, instead of KEY=VALUE")
	fs.StringVar(&m.id, "id", "", "the command's `ID` (default: a new one)")
	fs.StringVar(&m.sign, "sign", "", "sign with this secret key `FILE`; with two that have a comma between, twice")
	fs.StringVar(&m.passwordFile, "sign-password-file", "", "a `FILE` with its password; with two, likewise")
	fs.DurationVar(&m.valid, "valid", time.Hour, "how long the command is valid")
	fs.DurationVar(&m.delay, "after", 0, "it is valid only after so long")
}

// made is a command that is signed, or a body that somebody has to sign.
type made struct {
	path string
	data []byte
	d    *order.Document
}

// make makes a command for each target and writes it into the queue.
func (m *making) make(args []string) (all []made, err error) {
	if len(args) == 0 || m.to == "" {
		return nil, cli.Usagef("command: want -to and an action: one of %s", strings.Join(command.Names(), ", "))
	}
	if m.valid < time.Second || m.valid > 366*24*time.Hour {
		return nil, cli.Usagef("command: -valid: want 1s to a year")
	}
	payload, err := m.payload(args)
	if err != nil {
		return nil, err
	}
	targets := strings.Split(m.to, ",")
	id := m.id
	if id == "" {
		id = m.newID()
	}
	if _, err := meter.ParseID(id); err != nil {
		return nil, cli.Usagef("command: -id: %v", err)
	}
	if err := os.MkdirAll(m.queue, 0o750); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	for i, text := range targets {
		t, err := order.ParseTarget(text)
		if err != nil || t.Everybody() {
			return all, cli.Usagef("command: -to: %q; want SITE/GATEWAY or SITE/_group/GROUP", text)
		}
		name := id
		if len(targets) > 1 {
			if name = fmt.Sprintf("%s-%d", id, i+1); len(name) > 32 {
				return all, cli.Usagef("command: -id: %q is too long for %d targets", id, len(targets))
			}
		}
		one, err := m.one(name, t, payload)
		if err != nil {
			return all, err
		}
		all = append(all, one)
	}
	return all, nil
}

// newID gives an id that nobody has used.
func (m *making) newID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return "c-" + m.now().UTC().Format("20060102-150405") + "-" + hex.EncodeToString(b[:])
}

// payload gives what stands behind the header.
func (m *making) payload(args []string) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "action: %s\n", args[0])
	if m.meters != "" {
		quoted := []string{}
		for name := range strings.SplitSeq(m.meters, ",") {
			quoted = append(quoted, fmt.Sprintf("%q", strings.TrimSpace(name)))
		}
		fmt.Fprintf(&b, "meters: [%s]\n", strings.Join(quoted, ", "))
	}
	switch {
	case m.with != "" && len(args) > 1:
		return nil, cli.Usagef("command: want -with FILE or KEY=VALUE, not both")
	case m.with != "":
		text, err := readDocument(m.with)
		if err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
		b.WriteString("with:\n")
		for line := range strings.Lines(string(text)) {
			b.WriteString("  " + line)
		}
	case len(args) > 1:
		b.WriteString("with:\n")
		for _, arg := range args[1:] {
			key, value, ok := strings.Cut(arg, "=")
			if !ok || key == "" {
				return nil, cli.Usagef("command: %q; want KEY=VALUE", arg)
			}
			fmt.Fprintf(&b, "  %s: %s\n", key, value)
		}
	}
	return b.Bytes(), nil
}

// one makes the command for one target.
func (m *making) one(id string, t order.Target, payload []byte) (made, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "gridgate: %d\nkind: command\ntarget: %s\nid: %s\n", order.Format, t, id)
	now := m.now().UTC().Truncate(time.Second)
	if m.delay > 0 {
		fmt.Fprintf(&b, "not_before: %s\n", now.Add(m.delay).Format(time.RFC3339))
	}
	fmt.Fprintf(&b, "not_after: %s\n---\n", now.Add(m.delay+m.valid).Format(time.RFC3339))
	body := append([]byte(b.String()), payload...)
	d, err := order.ReadBody(body)
	if err != nil {
		return made{}, fmt.Errorf("command: %w", err)
	}
	role, keys, err := command.Check(d)
	if err != nil {
		return made{}, fmt.Errorf("command: %w", err)
	}
	if m.sign == "" {
		path := filepath.Join(m.queue, id+".body")
		if err := writeNew(path, body, 0o644); err != nil {
			return made{}, fmt.Errorf("command: %w", err)
		}
		return made{path: path}, nil
	}
	data, err := m.signed(body, role, keys)
	if err != nil {
		return made{}, err
	}
	path := filepath.Join(m.queue, id+".doc")
	if err := writeNew(path, data, 0o644); err != nil {
		return made{}, fmt.Errorf("command: %w", err)
	}
	return made{path: path, data: data, d: d}, nil
}

// signed signs a body with each key.
func (m *making) signed(body []byte, role order.Role, keys int) ([]byte, error) {
	files, passwords := strings.Split(m.sign, ","), strings.Split(m.passwordFile, ",")
	if len(passwords) == 1 {
		passwords = slices.Repeat(passwords, len(files))
	}
	if len(passwords) != len(files) {
		return nil, cli.Usagef("command: -sign-password-file: %d files for %d keys", len(passwords), len(files))
	}
	if len(files) < keys {
		return nil, fmt.Errorf("command: it wants %d keys of the role %s: -sign a.key,b.key", keys, role)
	}
	var signatures [][]byte
	for i, file := range files {
		key, err := readKey(file, passwords[i])
		if err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
		sealed, err := signDocument(key, body, signatures...)
		if err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
		if _, signatures, err = order.Unseal(sealed); err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
	}
	return order.Seal(body, signatures...), nil
}

// queue is a directory of commands as plain files.
type queue struct{ dir string }

// documents gives the signed commands that are there. A body that minisign has
// signed beside it (ID.body.minisig) becomes one.
func (q queue) documents() (all []made, err error) {
	bodies, err := filepath.Glob(filepath.Join(q.dir, "*.body"))
	if err != nil {
		return nil, err
	}
	for _, body := range bodies {
		if err := q.seal(body); err != nil {
			return nil, err
		}
	}
	names, err := filepath.Glob(filepath.Join(q.dir, "*.doc"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		one, err := readCommand(name)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// seal puts the signatures of minisign before a body, where they are: ID.body.minisig,
// and of more keys ID.body.minisig.2 and so on.
func (q queue) seal(body string) error {
	doc := strings.TrimSuffix(body, ".body") + ".doc"
	signatures, err := filepath.Glob(body + ".minisig*")
	if err != nil || len(signatures) == 0 {
		return err
	}
	text, err := os.ReadFile(body)
	if err != nil {
		return err
	}
	var all [][]byte
	for _, s := range signatures {
		b, err := os.ReadFile(s)
		if err != nil {
			return err
		}
		all = append(all, b)
	}
	sealed := order.Seal(text, all...)
	if have, err := os.ReadFile(doc); err == nil && bytes.Equal(have, sealed) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(doc, sealed, 0o644) //nolint:gosec // everybody may read it
}

// readCommand reads a signed command.
func readCommand(path string) (made, error) {
	data, err := readDocument(path)
	if err != nil {
		return made{}, err
	}
	d, err := order.Read(data)
	if err != nil {
		return made{}, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > command.MaxSize {
		return made{}, fmt.Errorf("%s: more than the %d octets that a command has", path, command.MaxSize)
	}
	if d.Kind != order.KindCommand {
		return made{}, fmt.Errorf("%s: it is a %s document; gridfog push sends those", path, d.Kind)
	}
	return made{path: path, data: data, d: d}, nil
}
