package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"gridgate/agent/order"
	"gridgate/agent/update"
	"gridgate/internal/cli"
)

// packing makes a document, and the objects that it names.
type packing struct {
	boards                                 []slot
	firmware, target, minimum, url         string
	notBefore, notAfter, minAgent, objects string
	version                                uint64
	part                                   int64
	downgrade                              bool
}

// slot is what a board's slot is made of: all files of a folder, or the program
// of a package.
type slot struct{ board, path string }

func (p *packing) flags(fs *flag.FlagSet) {
	fs.Func("board", "pack: the slot of a board, `BOARD=DIR` with all its files, or BOARD=FILE where it is gridgate alone; may be repeated", func(s string) error {
		board, path, found := strings.Cut(s, "=")
		if !found || board == "" || path == "" {
			return errors.New("want BOARD=DIR or BOARD=FILE")
		}
		for _, b := range p.boards {
			if b.board == board {
				return fmt.Errorf("%s stands there twice", board)
			}
		}
		p.boards = append(p.boards, slot{board, path})
		return nil
	})
	fs.StringVar(&p.firmware, "firmware", "", "pack: the `VERSION` of the firmware: MAJOR.MINOR.PATCH")
	fs.StringVar(&p.target, "target", "", "pack: whom it is for, `SITE/GATEWAY` or SITE/_group/GROUP")
	fs.Uint64Var(&p.version, "version", 0, "pack: the document's `NUMBER`, higher than any before for this target")
	fs.StringVar(&p.minimum, "minimum", "", "pack: the oldest `VERSION` of gridgate that may take it")
	fs.StringVar(&p.url, "url", "", "pack: the `URL` that gateways fetch it from, where a web server has the files of -objects; without it, from the broker")
	fs.Int64Var(&p.part, "part", 16<<10, "pack: `OCTETS` of a part: a power of two from 4096 to 65536")
	fs.BoolVar(&p.downgrade, "downgrade", false, "pack: it may replace newer firmware")
	fs.StringVar(&p.notBefore, "not-before", "", "pack: the `TIME` from which on it may take effect, such as 2026-11-22T10:00:00Z")
	fs.StringVar(&p.notAfter, "not-after", "", "pack: the `TIME` until which it may")
	fs.StringVar(&p.minAgent, "min-agent", "", "pack: the oldest agent `VERSION` that understands the document")
}

func (p *packing) run(ctx context.Context, env cli.Env, args []string) error {
	if len(args) > 0 {
		return cli.Usagef("firmware pack: %q: it takes no arguments; slots are named by -board", args[0])
	}
	if len(p.boards) == 0 || p.firmware == "" || p.target == "" || p.version == 0 || p.objects == "" {
		return cli.Usagef("firmware pack: want -board, -firmware, -target, -version and -objects")
	}
	m := &update.Manifest{Firmware: p.firmware, Minimum: p.minimum, Downgrade: p.downgrade, URL: p.url, Boards: map[string][]update.File{}}
	contents := map[[32]byte][]byte{}
	for _, s := range p.boards {
		files, err := s.read(contents)
		if err != nil {
			return fmt.Errorf("firmware pack: %s: %w", s.board, err)
		}
		for i := range files {
			files[i].Part = p.part
		}
		m.Boards[s.board] = files
	}
	// As if nothing were packed: what is wrong with names and sizes is told before
	// minutes are spent on packing.
	if _, err := p.document(m); err != nil {
		return fmt.Errorf("firmware pack: %w", err)
	}
	if err := p.pack(ctx, env, m, contents); err != nil {
		return fmt.Errorf("firmware pack: %w", err)
	}
	body, err := p.document(m)
	if err != nil {
		return fmt.Errorf("firmware pack: %w", err)
	}
	_, err = env.Stdout.Write(body)
	return err
}

// document gives what is to be signed, when a gateway can read it.
func (p *packing) document(m *update.Manifest) ([]byte, error) {
	target, err := order.ParseTarget(p.target)
	if err == nil && target.Everybody() {
		err = fmt.Errorf("%q; want SITE/GATEWAY or SITE/_group/GROUP", p.target)
	}
	if err != nil {
		return nil, fmt.Errorf("-target: %w", err)
	}
	body := fmt.Appendf(nil, "gridgate: %d\nkind: firmware\ntarget: %s\nversion: %d\n", order.Format, target, p.version)
	for _, h := range []struct{ key, value string }{{"not_before", p.notBefore}, {"not_after", p.notAfter}, {"min_agent", p.minAgent}} {
		if h.value != "" {
			body = fmt.Appendf(body, "%s: %q\n", h.key, h.value)
		}
	}
	body = m.Append(append(body, "---\n"...))
	d, err := order.ReadBody(body)
	if err != nil {
		return nil, err
	}
	_, err = update.ParseManifest(d)
	return body, err
}

// read gives a slot's files, not packed, and puts what is in them into contents.
func (s slot) read(contents map[[32]byte][]byte) ([]update.File, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		f, err := readFile(update.Program, s.path, contents)
		return []update.File{f}, err
	}
	entries, err := os.ReadDir(s.path) // sorted by name
	if err != nil {
		return nil, err
	}
	var all []update.File
	hasProgram := false
	for _, e := range entries {
		f, err := readFile(e.Name(), filepath.Join(s.path, e.Name()), contents)
		if err != nil {
			return nil, err
		}
		hasProgram = hasProgram || f.Name == update.Program
		all = append(all, f)
	}
	if !hasProgram {
		return nil, fmt.Errorf("%s: no file in it is called %s", s.path, update.Program)
	}
	return all, nil
}

func readFile(name, path string, contents map[[32]byte][]byte) (update.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return update.File{}, err
	}
	switch {
	case !info.Mode().IsRegular():
		return update.File{}, fmt.Errorf("%s: not a regular file; a slot has no others", path)
	case info.Size() == 0:
		return update.File{}, fmt.Errorf("%s: empty", path)
	case info.Size() > update.MaxFile:
		return update.File{}, fmt.Errorf("%s: %d octets; a gateway takes %d", path, info.Size(), update.MaxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return update.File{}, err
	}
	sum := sha256.Sum256(data)
	contents[sum] = data
	size := int64(len(data))
	return update.File{Name: name, Size: size, SHA256: sum, Pack: update.PackNone, Packed: size, Object: sum}, nil
}

// pack packs what gets smaller by it, and writes objects and indexes.
func (p *packing) pack(ctx context.Context, env cli.Env, m *update.Manifest, contents map[[32]byte][]byte) error {
	if err := os.MkdirAll(p.objects, 0o755); err != nil { //nolint:gosec // a web server reads it
		return err
	}
	done := map[[32]byte]update.File{}
	for _, s := range p.boards {
		var all, travels int64
		for i := range m.Boards[s.board] {
			f := &m.Boards[s.board][i]
			packed, ok := done[f.SHA256]
			if !ok {
				begun := time.Now()
				var err error
				if packed, err = p.packFile(ctx, *f, contents[f.SHA256]); err != nil {
					return fmt.Errorf("%s of %s: %w", f.Name, s.board, err)
				}
				done[f.SHA256] = packed
				fmt.Fprintf(env.Stderr, "%s: %s: %d octets, %s: %d in %d parts (%.1f s)\n",
					s.board, f.Name, f.Size, packed.Pack, packed.Packed, packed.Parts(), time.Since(begun).Seconds())
			}
			packed.Name = f.Name
			*f = packed
			all, travels = all+f.Size, travels+f.Packed
		}
		fmt.Fprintf(env.Stderr, "%s: %d files, %d octets, of which at most %d travel\n", s.board, len(m.Boards[s.board]), all, travels)
	}
	return nil
}

// worthIt is what packing has to save at least, as a share of the size: unpacking
// costs a gateway time and memory.
const worthIt = 1.0 / 64

func (p *packing) packFile(ctx context.Context, f update.File, data []byte) (update.File, error) {
	object, err := shrink(ctx, data)
	if err != nil {
		return f, err
	}
	if float64(len(object)) > float64(len(data))*(1-worthIt) {
		object = data
	} else {
		f.Pack = update.PackXZ
	}
	size, sum, index, err := update.Divide(bytes.NewReader(object), p.part)
	if err != nil {
		return f, err
	}
	f.Packed, f.Object, f.Index = size, sum, sha256.Sum256(index)
	h := sha256.New()
	if err := update.Unpack(h, bytes.NewReader(object), f.Pack, f.Size); err != nil || [32]byte(h.Sum(nil)) != f.SHA256 {
		return f, fmt.Errorf("what was packed does not unpack to the same: %w", err)
	}
	return f, errors.Join(keepObject(p.objects, sum, object), keepObject(p.objects, f.Index, index))
}

// shrink gives the smallest that xz makes of data. Programs are tried with the
// filter for their machine too, where gateways have it.
func shrink(ctx context.Context, data []byte) ([]byte, error) {
	filters := [][]string{nil}
	if program, err := elf.NewFile(bytes.NewReader(data)); err == nil {
		if filter, ok := map[elf.Machine]string{elf.EM_ARM: "--arm", elf.EM_X86_64: "--x86"}[program.Machine]; ok {
			filters = append(filters, []string{filter})
		}
	}
	var least []byte
	for _, filter := range filters {
		packed, err := runXZ(ctx, data, filter)
		if err != nil {
			return nil, err
		}
		if least == nil || len(packed) < len(least) {
			least = packed
		}
	}
	return least, nil
}

// runXZ packs with xz. In one thread, without the machine's memory or number of
// processors in it: the same data gives the same octets.
func runXZ(ctx context.Context, data []byte, filter []string) ([]byte, error) {
	args := append([]string{"--compress", "--stdout", "--quiet", "--no-adjust", "--threads=1", "--format=xz", "--check=crc32"}, filter...)
	cmd := exec.CommandContext(ctx, "xz", append(args, fmt.Sprintf("--lzma2=preset=9e,dict=%d", update.MaxDict))...) //nolint:gosec // of constants
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}                                                                  // XZ_OPT and XZ_DEFAULTS change what it makes
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out, &said
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w: the package xz-utils has it", err)
		}
		return nil, fmt.Errorf("xz: %w: %s", err, clip(strings.TrimSpace(said.String()), maxTold))
	}
	return out.Bytes(), nil
}

// keepObject writes a file whose name is its hash. Where it is there it is
// written again: it may be damaged.
func keepObject(dir string, sum [32]byte, data []byte) error {
	path := objectPath(dir, sum)
	if err := os.WriteFile(path+".new", data, 0o644); err != nil { //nolint:gosec // a web server reads it
		return err
	}
	return os.Rename(path+".new", path)
}
