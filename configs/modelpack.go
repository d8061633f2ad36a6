//go:build ignore

// Modelpack writes models.bin from the files in models, and reference.bin from
// reference.yaml.
package main

import (
	"bytes"
	"compress/flate"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := pack(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func pack() error {
	files, err := filepath.Glob("models/*.yaml") // sorted
	if err != nil {
		return err
	}
	var plain bytes.Buffer
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		plain.WriteString(strings.TrimSuffix(filepath.Base(f), ".yaml") + "\x00")
		plain.Write(text)
		plain.WriteByte(0)
	}
	reference, err := os.ReadFile("reference.yaml")
	if err != nil {
		return err
	}
	return errors.Join(deflate("models.bin", plain.Bytes()), deflate("reference.bin", reference))
}

func deflate(file string, plain []byte) error {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		return err
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
