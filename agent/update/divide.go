package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Divide reads an object and gives its size, its hash, and its index: the
// SHA-256 of its parts, one after the other.
func Divide(r io.Reader, part int64) (size int64, sum [32]byte, index []byte, err error) {
	h := sha256.New()
	buf := make([]byte, part)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			size += int64(n)
			h.Write(buf[:n])
			one := sha256.Sum256(buf[:n])
			index = append(index, one[:]...)
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return size, [32]byte(h.Sum(nil)), index, nil
		case err != nil:
			return size, sum, index, err
		}
	}
}

// Dir is a directory of objects and indexes, each a file whose name is its
// SHA-256: what a technician brings on a stick.
type Dir string

// Fetch reads them.
func (d Dir) Fetch(ctx context.Context, wants []Want, take func(w Want, data []byte)) error {
	for _, w := range wants {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := os.Open(filepath.Join(string(d), hex.EncodeToString(w.Object[:])))
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		data := make([]byte, w.Size)
		_, err = f.ReadAt(data, w.Offset)
		if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		take(w, data)
	}
	return nil
}
