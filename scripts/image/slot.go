package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// keepSlot puts a slot's files into a folder, for an update of gateways that
// have the image of before. It must not be there yet: all that is in it is packed.
func (b *build) keepSlot(files map[string]string) error {
	if b.slotDir == "" {
		return nil
	}
	if err := os.Mkdir(b.slotDir, 0o755); err != nil {
		return err
	}
	for name, path := range files {
		if err := copyFile(filepath.Join(b.slotDir, name), path); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
