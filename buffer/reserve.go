package buffer

import (
	"errors"
	"fmt"
	"syscall"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// spare is what the file has of the disk beyond what is in use: in free pages,
// or behind its end. Rows may not take it: acknowledgements, and what makes
// room, can be written on a full disk.
const spare = 1 << 20

// reserve makes sure that need octets can be stored and the spare room is still
// there. What it asks the file
// system for stays the file's. A file system that cannot promise room is taken
// as it is.
func (s *Store) reserve(tx *bolt.Tx, need uint64) error {
	stats := s.db.Stats()
	free := uint64(stats.FreePageN+stats.PendingPageN) * pageSize
	need += spare
	through := tx.Size() + int64(need-min(need, free))
	if through <= s.reserved || s.opts.scratch {
		return nil
	}
	// In large steps while there is room, so that not every commit asks.
	ahead := (through + allocSize - 1) / allocSize * allocSize
	if s.allocate(ahead) == nil {
		return nil
	}
	if err := s.allocate(through); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return nil
}

// allocate has the file system promise room for the file up to an offset.
func (s *Store) allocate(through int64) error {
	err := error(syscall.EINTR)
	for errors.Is(err, syscall.EINTR) {
		err = unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, s.reserved, through-s.reserved)
	}
	if err == nil {
		s.reserved = through
	}
	return err
}
