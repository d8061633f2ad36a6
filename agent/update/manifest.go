package update

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gridgate/agent/order"
)

// Limits of what a document says.
const (
	MaxFiles  = 16       // of a board
	MaxFile   = 64 << 20 // octets of a file, and of what it is packed into
	MaxSlot   = 60 << 20 // octets of all files of a board
	MinPart   = 4 << 10
	MaxPart   = 64 << 10
	MaxIndex  = 64 << 10 // octets of the hashes of an object's parts
	MaxDict   = 4 << 20  // octets of the dictionary that unpacking an object takes
	maxBoards = 32
	maxText   = 64  // characters of a version and of a board's name
	maxURL    = 512 // characters
)

// Program is the file that every board has to have.
const Program = "gridgate"

// Pack is how a file is packed.
type Pack string

// The ways of packing.
const (
	PackNone Pack = "none"
	PackXZ   Pack = "xz"
)

// ErrBoard says that a document has no files for the board that it came to.
var ErrBoard = errors.New("no files for this board")

// Manifest is the payload of a document of the kind firmware.
type Manifest struct {
	Firmware  string // MAJOR.MINOR.PATCH; what follows a hyphen is not compared
	Minimum   string // the oldest agent that can take it; empty: any
	Downgrade bool   // it may replace newer firmware
	URL       string // where its objects are; empty: the broker has them
	Boards    map[string][]File
}

// File is a file of a slot, and the object that it travels in.
type File struct {
	Name   string
	Size   int64 // octets
	SHA256 [32]byte
	Pack   Pack

	Packed int64    // octets of the object
	Object [32]byte // its SHA-256
	Part   int64    // octets of its parts, but of the last
	Index  [32]byte // SHA-256 of the SHA-256 of all parts, one after the other
}

// Parts is how many parts the file's object has.
func (f *File) Parts() int { return int((f.Packed + f.Part - 1) / f.Part) }

// keyError names a key of a document.
func keyError(key, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", order.ErrMalformed, key, fmt.Sprintf(format, args...))
}

// ParseManifest reads the payload of a document. Whether its signatures are
// those of the role firmware is for who verified it. Errors wrap
// order.ErrMalformed and name the key, or the line where YAML itself is broken.
func ParseManifest(d *order.Document) (*Manifest, error) {
	var text struct {
		Firmware  string                         `yaml:"firmware"`
		Minimum   string                         `yaml:"minimum"`
		Downgrade string                         `yaml:"downgrade"`
		URL       string                         `yaml:"url"`
		Boards    map[string][]map[string]string `yaml:"boards"`
	}
	if err := d.Decode(&text); err != nil {
		return nil, err
	}
	m := &Manifest{Firmware: text.Firmware, Minimum: text.Minimum, URL: text.URL, Downgrade: text.Downgrade == "allow"}
	if text.Downgrade != "" && !m.Downgrade {
		return nil, keyError("downgrade", "%q; want allow, or no such key", clip(text.Downgrade))
	}
	if err := checkVersion(m.Firmware); err != nil {
		return nil, keyError("firmware", "%v", err)
	}
	if err := checkVersion(m.Minimum); err != nil && m.Minimum != "" {
		return nil, keyError("minimum", "%v", err)
	}
	if err := checkURL(m.URL); err != nil {
		return nil, keyError("url", "%v", err)
	}
	if n := len(text.Boards); n == 0 || n > maxBoards {
		return nil, keyError("boards", "%d of them; want 1 to %d", n, maxBoards)
	}
	m.Boards = make(map[string][]File, len(text.Boards))
	for _, board := range slices.Sorted(maps.Keys(text.Boards)) {
		if len(board) > maxText || !isName(board, maxText) {
			return nil, keyError("boards", "%q; want a board's name such as virt-armv7", clip(board))
		}
		files, err := parseFiles("boards."+board, text.Boards[board])
		if err != nil {
			return nil, err
		}
		m.Boards[board] = files
	}
	return m, nil
}

func parseFiles(at string, list []map[string]string) ([]File, error) {
	if n := len(list); n == 0 || n > MaxFiles {
		return nil, keyError(at, "%d files; want 1 to %d", n, MaxFiles)
	}
	var all []File
	var total int64
	for i, text := range list {
		here := fmt.Sprintf("%s[%d]", at, i)
		f, err := parseFile(here, text)
		if err != nil {
			return nil, err
		}
		for j := range all {
			switch other := &all[j]; {
			case other.Name == f.Name:
				return nil, keyError(here+".name", "%q is also that of %s[%d]", f.Name, at, j)
			case other.Object == f.Object && (other.Packed != f.Packed || other.Part != f.Part || other.Index != f.Index):
				return nil, keyError(here+".object", "that of %s[%d], with another packed, part or index", at, j)
			}
		}
		if total += f.Size; total > MaxSlot {
			return nil, keyError(here+".size", "all files together have more than %d octets", MaxSlot)
		}
		all = append(all, f)
	}
	if !slices.ContainsFunc(all, func(f File) bool { return f.Name == Program }) {
		return nil, keyError(at, "no file is called %s", Program)
	}
	return all, nil
}

func parseFile(at string, text map[string]string) (File, error) {
	keys := []string{"name", "size", "sha256", "pack", "packed", "object", "part", "index"}
	for _, key := range slices.Sorted(maps.Keys(text)) {
		if !slices.Contains(keys, key) {
			return File{}, keyError(at+"."+clip(key), "is no key that belongs there")
		}
	}
	f := File{Name: text["name"], Pack: Pack(text["pack"])}
	for _, key := range keys {
		var err error
		value := text[key]
		switch key {
		case "name":
			if !isName(value, 32) {
				err = fmt.Errorf("%q; want 1 to 32 characters of a-z, 0-9 and, but for the first, '.', '_', '-'", clip(value))
			}
		case "pack":
			if f.Pack != PackXZ && f.Pack != PackNone {
				err = fmt.Errorf("%q; want xz or none", clip(value))
			}
		case "size":
			f.Size, err = parseSize(value, 1, MaxFile)
		case "packed":
			f.Packed, err = parseSize(value, 1, MaxFile)
		case "part":
			if f.Part, err = parseSize(value, MinPart, MaxPart); err == nil && f.Part&(f.Part-1) != 0 {
				err = fmt.Errorf("%d; want a power of two", f.Part)
			}
		case "sha256":
			err = parseSum(&f.SHA256, value)
		case "object":
			err = parseSum(&f.Object, value)
		case "index":
			err = parseSum(&f.Index, value)
		}
		if err != nil {
			return File{}, keyError(at+"."+key, "%v", err)
		}
	}
	if f.Parts()*len(f.Index) > MaxIndex {
		return File{}, keyError(at+".part", "%d; it makes %d parts, at most %d are taken", f.Part, f.Parts(), MaxIndex/len(f.Index))
	}
	if f.Pack == PackNone && f.Packed != f.Size {
		return File{}, keyError(at+".packed", "%d; with pack: none it is the size, %d", f.Packed, f.Size)
	}
	if f.Pack == PackNone && f.Object != f.SHA256 {
		return File{}, keyError(at+".object", "with pack: none it is the sha256")
	}
	return f, nil
}

func parseSize(s string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q; want a number from %d to %d", clip(s), least, most)
	}
	return n, nil
}

func parseSum(into *[32]byte, s string) error {
	if n, err := hex.Decode(into[:], []byte(s[:min(len(s), 64)])); err != nil || n != len(into) || len(s) != 64 || strings.ToLower(s) != s {
		return fmt.Errorf("%q; want 64 lower-case hexadecimal digits", clip(s))
	}
	return nil
}

// isName says whether s is 1 to most characters of a name.
func isName(s string, most int) bool {
	for i, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != "" && len(s) <= most
}

func checkURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	// What stands there goes into requests as it is.
	printable := !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || !printable || len(s) > maxURL || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return fmt.Errorf("%q; want such as https://host/path, without user, query or fragment", clip(s))
	}
	return nil
}

// parseVersion reads 1.2.3 or v1.2.3; what follows a hyphen is left out.
func parseVersion(s string) (v [3]uint64, ok bool) {
	plain, _, _ := strings.Cut(strings.TrimPrefix(s, "v"), "-")
	parts := strings.Split(plain, ".")
	if len(parts) != len(v) {
		return v, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if v[i] = n; err != nil || strings.HasPrefix(p, "+") {
			return v, false
		}
	}
	return v, true
}

func checkVersion(s string) error {
	odd := strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '.' && r != '-'
	})
	if _, ok := parseVersion(s); !ok || odd || len(s) > maxText || strings.HasPrefix(s, "v") {
		return fmt.Errorf("%q; want a version such as 1.4.0", clip(s))
	}
	return nil
}

// below says that version a is older than b. What is no version is not.
func below(a, b string) bool {
	va, oka := parseVersion(a)
	vb, okb := parseVersion(b)
	return oka && okb && slices.Compare(va[:], vb[:]) < 0
}

// For gives the files for a board; an error that wraps ErrBoard where it has
// none.
func (m *Manifest) For(board string) ([]File, error) {
	files, ok := m.Boards[board]
	if !ok {
		return nil, fmt.Errorf("%w: this is %s, it has %s", ErrBoard, board, strings.Join(slices.Sorted(maps.Keys(m.Boards)), ", "))
	}
	return files, nil
}

// Judge says whether the firmware may replace what runs: agent is the version
// of the program, firmware that of the update that was kept last, empty where
// none was. The error wraps order.ErrAgent or order.ErrOlder. A version that
// is none, such as a commit's hash, cannot be compared and refuses nothing.
func (m *Manifest) Judge(agent, firmware string) error {
	if m.Minimum != "" && below(agent, m.Minimum) {
		return fmt.Errorf("%w: it wants %s, this is %s", order.ErrAgent, m.Minimum, agent)
	}
	if firmware == "" {
		firmware = agent
	}
	if !m.Downgrade && below(m.Firmware, firmware) {
		return fmt.Errorf("%w: firmware %s after %s, and the document does not allow a downgrade", order.ErrOlder, m.Firmware, firmware)
	}
	return nil
}

// Append writes the payload that ParseManifest reads.
func (m *Manifest) Append(b []byte) []byte {
	b = fmt.Appendf(b, "firmware: %s\n", m.Firmware)
	if m.Minimum != "" {
		b = fmt.Appendf(b, "minimum: %s\n", m.Minimum)
	}
	if m.Downgrade {
		b = append(b, "downgrade: allow\n"...)
	}
	if m.URL != "" {
		b = fmt.Appendf(b, "url: %q\n", m.URL)
	}
	b = append(b, "boards:\n"...)
	for _, board := range slices.Sorted(maps.Keys(m.Boards)) {
		b = fmt.Appendf(b, "  %s:\n", board)
		for _, f := range m.Boards[board] {
			b = fmt.Appendf(b, "    - {name: %q, size: %d, sha256: \"%x\", pack: %s, packed: %d, object: \"%x\", part: %d, index: \"%x\"}\n",
				f.Name, f.Size, f.SHA256, f.Pack, f.Packed, f.Object, f.Part, f.Index)
		}
	}
	return b
}

// clip shortens what is shown of a document.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}
