package ppp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// pinTries is which PINs a SIM was given and did not take: a line of the SIM's number,
// then one for each.
type pinTries struct {
	path, card string
	pins       []string
}

// readTries gives those of a SIM; another SIM's are forgotten with the next try.
func readTries(path, card string) (pinTries, error) {
	t := pinTries{path: path, card: card}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	if lines := strings.Split(strings.TrimSpace(string(b)), "\n"); lines[0] == card {
		t.pins = lines[1:]
	}
	return t, nil
}

func (t *pinTries) has(pin string) bool { return slices.Contains(t.pins, pin) }

// add is durable when it returns.
func (t *pinTries) add(pin string) error {
	t.pins = append(t.pins, pin)
	// The folder belongs to gridgate's user: no link of his is followed.
	if err := os.Remove(t.path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(t.path+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(t.card + "\n" + strings.Join(t.pins, "\n") + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(t.path+".new", t.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(t.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (t *pinTries) clear() error {
	if err := os.Remove(t.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
