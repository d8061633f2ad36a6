package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"gridgate/internal/sys"
)

const (
	currentLink  = "current"
	trialLink    = "trial"
	triesFile    = "tries"
	listFile     = "slot.json"
	programName  = "gridgate"
	packagedSlot = "f"
	freshLink    = ".new-" // what the names of things begin with that are being made
	maxList      = 16 << 10
)

// errNoSlot says that a link leads elsewhere than to a slot.
var errNoSlot = errors.New("leads to no slot")

// linkDir is the directory of a package's slots.
type linkDir struct{ dir string }

// slotFile is a file of a slot, as its list has it.
type slotFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// slotList is what slot.json holds.
type slotList struct {
	Files []slotFile `json:"files"`
}

func (d linkDir) path(names ...string) string {
	return filepath.Join(append([]string{d.dir}, names...)...)
}

// link gives the slot that a link leads to, empty where there is no such link.
func (d linkDir) link(name string) (string, error) {
	to, err := os.Readlink(d.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, syscall.EINVAL): // no link
		return "", fmt.Errorf("%s: %w", d.path(name), errNoSlot)
	case err != nil:
		return "", err
	case to != "a" && to != "b":
		return "", fmt.Errorf("%s -> %q: %w", d.path(name), to, errNoSlot)
	}
	return to, nil
}

// setLink has a link lead to a slot: the old way or the new one, whenever the power
// goes.
func (d linkDir) setLink(name, slot string) error {
	fresh := d.path(freshLink + name)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Symlink(slot, fresh)
	if err == nil {
		err = os.Rename(fresh, d.path(name))
	}
	if err != nil {
		return err
	}
	return sys.SyncDir(d.dir)
}

// remove removes what there may be of that name.
func (d linkDir) remove(name string) error {
	if err := os.Remove(d.path(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return sys.SyncDir(d.dir)
}

// tries gives how many starts a trial has left. A file that is not there, or says
// something else, gives none: a start that cannot be counted must not be made.
func (d linkDir) tries() (int, error) {
	data, err := readAtMost(d.path(triesFile), 16)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(string(data), "\n"), 10, 8)
	if err != nil || n > trialTries {
		return 0, nil //nolint:nilerr // none
	}
	return int(n), nil //nolint:gosec // at most 3
}

// setTries has the number on the disk when it returns. One file written aside and
// renamed is enough, where the image's boot loader wants two with check sums: it
// writes to FAT, whose rename may leave neither name, while ext4, UBIFS, F2FS and
// XFS have the old file or the new one after a cut.
func (d linkDir) setTries(n int) error {
	return d.write(triesFile, []byte(strconv.Itoa(n)+"\n"), 0o644)
}

// write puts a file in the place of what is there of its name, durably.
func (d linkDir) write(name string, data []byte, mode os.FileMode) error {
	path := d.path(name)
	fresh := filepath.Join(filepath.Dir(path), freshLink+filepath.Base(path))
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return sys.SyncDir(filepath.Dir(path))
}

// list gives what the program of a slot has to be; fs.ErrNotExist where the slot
// holds nothing that may start.
func (d linkDir) list(slot string) (slotFile, error) {
	path := d.path(slot, listFile)
	data, err := readAtMost(path, maxList)
	if err != nil {
		return slotFile{}, err
	}
	var list slotList
	if err := json.Unmarshal(data, &list); err != nil {
		return slotFile{}, fmt.Errorf("%s: %w", path, err)
	}
	for _, f := range list.Files {
		if f.Name == programName {
			return f, nil
		}
	}
	return slotFile{}, errors.New(path + ": names no " + programName)
}

// check says whether the program of a slot is what its list says, and gives its path.
func (d linkDir) check(ctx context.Context, slot string) (path string, err error) {
	if err := d.isDir(slot); err != nil {
		return "", err
	}
	f, err := d.list(slot)
	if err != nil {
		return "", err
	}
	return d.path(slot, programName), d.compare(ctx, slot, f)
}

// isDir says whether a slot is a directory, and no link.
func (d linkDir) isDir(slot string) error {
	info, err := os.Lstat(d.path(slot))
	if err == nil && !info.IsDir() {
		err = errors.New(d.path(slot) + ": no directory")
	}
	return err
}

// compare reads a file of a slot.
func (d linkDir) compare(ctx context.Context, slot string, want slotFile) error {
	path := d.path(slot, want.Name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != want.Size {
		return fmt.Errorf("%s: has %d octets, not %d", path, info.Size(), want.Size)
	}
	h := sha256.New()
	if _, err := io.Copy(h, reader{ctx, f}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("%s: damaged: its sha256 is %s, not %s", path, got, want.SHA256)
	}
	return nil
}

// clear empties a slot, its list first.
func (d linkDir) clear(slot string) error {
	dir := d.path(slot)
	if err := os.Remove(filepath.Join(dir, listFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := sys.SyncDir(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// fill writes a slot: its list last.
func (d linkDir) fill(ctx context.Context, slot string, files []Staged) error {
	if err := d.isDir(slot); err != nil {
		return err
	}
	if err := d.clear(slot); err != nil {
		return err
	}
	list := slotList{make([]slotFile, len(files))}
	for i, f := range files {
		list.Files[i] = slotFile{Name: f.Name, Size: f.Size, SHA256: hex.EncodeToString(f.SHA256[:])}
		if err := d.put(ctx, slot, f); err != nil {
			return err
		}
	}
	if err := sys.SyncDir(d.path(slot)); err != nil {
		return err
	}
	for _, f := range list.Files {
		if err := d.compare(ctx, slot, f); err != nil {
			return err
		}
	}
	data, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return d.write(filepath.Join(slot, listFile), append(data, '\n'), 0o644)
}

// put copies a file into a slot that has none of its name.
func (d linkDir) put(ctx context.Context, slot string, staged Staged) error {
	from, err := os.Open(staged.Path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(d.path(slot, staged.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.LimitReader(reader{ctx, from}, staged.Size+1))
	if err == nil {
		err = to.Chmod(0o755)
	}
	if err == nil {
		err = to.Sync()
	}
	sys.Uncache(to) // what is compared is what the flash has
	return errors.Join(err, to.Close())
}

// readAtMost reads a small file that is no link.
func readAtMost(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: more than %d octets", path, most)
	}
	return data, err
}

// checkStaged says what is wrong with the files for a slot. That one is named twice
// shows when it is written, and another size when it is read again.
func checkStaged(files []Staged) error {
	program := false
	for _, f := range files {
		if !slotFileName(f.Name) {
			return fmt.Errorf("file %q: no name of a slot's file", f.Name)
		}
		program = program || f.Name == programName
	}
	if !program {
		return errors.New("no file " + programName + ": nothing could start")
	}
	return nil
}

// slotFileName says whether a slot may hold a file of that name.
func slotFileName(name string) bool {
	if name == "" || len(name) > 32 || name == listFile {
		return false
	}
	for i, c := range []byte(name) {
		plain := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !plain && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}
