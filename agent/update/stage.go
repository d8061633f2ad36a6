package update

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/xi2/xz"
)

// Stage lays all files ready to be installed, each verified: those of the
// running slot are copied, the others unpacked. It is called when Fetch has
// returned. An error that wraps ErrDamaged is mended by another Fetch, one that
// wraps ErrBroken by none.
func (j *Job) Stage(ctx context.Context) ([]Staged, error) {
	var all []Staged
	for i := range j.files {
		f := &j.files[i]
		if err := j.stage(ctx, f, j.here[i]); err != nil {
			return nil, fmt.Errorf("firmware: %s: %w", f.Name, err)
		}
		all = append(all, Staged{Name: f.Name, Path: j.store.staged(f.Name), Size: f.Size, SHA256: f.SHA256})
	}
	// What is staged is known by its hashes: the objects have served.
	for _, o := range j.objects {
		_ = os.Remove(j.store.object(o.file.Object))
		_ = os.Remove(j.store.object(o.file.Index))
	}
	return all, nil
}

func (j *Job) stage(ctx context.Context, f *File, here bool) error {
	if ok, err := j.store.is(ctx, j.store.staged(f.Name), f.Size, f.SHA256); err != nil || ok {
		return err
	}
	if here {
		from, err := j.open(f.Name)
		if err != nil {
			return err
		}
		defer func() { _ = from.Close() }()
		return j.write(f, func(w io.Writer) error {
			_, err := io.Copy(w, io.LimitReader(reader{ctx, from}, f.Size+1))
			return err
		})
	}
	whole, err := j.store.is(ctx, j.store.object(f.Object), f.Packed, f.Object)
	if err != nil {
		return err
	}
	if !whole {
		return j.damaged(ctx, f)
	}
	from, err := os.Open(j.store.object(f.Object))
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	return j.write(f, func(w io.Writer) error { return Unpack(w, reader{ctx, from}, f.Pack, f.Size) })
}

// damaged finds out which parts of an object are, when the whole is.
func (j *Job) damaged(ctx context.Context, f *File) error {
	for _, o := range j.objects {
		if o.file.Object != f.Object {
			continue
		}
		j.have.Add(-o.have())
		err := j.store.load(ctx, o)
		if j.have.Add(o.have()); err != nil {
			return err
		}
		if o.index != nil && o.have() == f.Packed {
			return fmt.Errorf("%w: its parts make another object", ErrBroken)
		}
		return ErrDamaged
	}
	// It was staged when the job began, and is no more: begun anew it is fetched.
	o := &object{file: *f}
	if err := j.store.load(ctx, o); err != nil {
		return err
	}
	j.objects = append(j.objects, o)
	j.have.Add(o.have() - f.Packed)
	return ErrDamaged
}

// write stages a file, when it is the one that is wanted.
func (j *Job) write(f *File, fill func(w io.Writer) error) error {
	path := j.store.staged(f.Name)
	h := sha256.New()
	n := &counter{}
	err := write(path, func(w io.Writer) error { return fill(io.MultiWriter(w, h, n)) })
	if err == nil && (n.n != f.Size || [32]byte(h.Sum(nil)) != f.SHA256) {
		err = fmt.Errorf("%w: unpacked it has %d octets and the SHA-256 %x", ErrBroken, n.n, h.Sum(nil))
	}
	if err != nil {
		_ = os.Remove(path) // whatever is left is known by its hash
	}
	return err
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// Unpack writes the file that an object holds, which has size octets. An object
// that is damaged, unpacks to more or wants a dictionary of more than MaxDict
// gives an error that wraps ErrBroken, and no more octets than size are written.
func Unpack(w io.Writer, r io.Reader, how Pack, size int64) error {
	if how == PackXZ {
		z, err := xz.NewReader(r, MaxDict)
		if err != nil {
			return unpackError(err)
		}
		r = z
	}
	n, err := io.Copy(w, io.LimitReader(r, size))
	if err != nil {
		return unpackError(err)
	}
	var one [1]byte
	switch more, err := io.ReadFull(r, one[:]); {
	case more > 0:
		return fmt.Errorf("%w: it unpacks to more than %d octets", ErrBroken, size)
	case !errors.Is(err, io.EOF):
		return unpackError(err)
	case n < size:
		return fmt.Errorf("%w: it unpacks to %d octets, not %d", ErrBroken, n, size)
	}
	return nil
}

// unpackError tells what the packing is wrong by from what a disk is.
func unpackError(err error) error {
	for _, of := range []error{xz.ErrUnsupportedCheck, xz.ErrMemlimit, xz.ErrFormat, xz.ErrOptions, xz.ErrData, xz.ErrBuf, io.ErrUnexpectedEOF} {
		if errors.Is(err, of) {
			return fmt.Errorf("%w: %w", ErrBroken, err)
		}
	}
	return err
}
