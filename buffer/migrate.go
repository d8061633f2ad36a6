package buffer

import "fmt"

// migration brings a store from one format to the next, in a transaction.
type migration func(*writeTx) error

// migrations gives the steps: the first from format 1 to format 2, and so on.
func (s *Store) migrations() []migration {
	// Format 2 has chunks of version 2 among those of version 1. There is nothing
	// to change; the number keeps a program that knows version 1 only from taking
	// the others for damage.
	steps := []migration{func(*writeTx) error { return nil }}
	return append(steps, s.opts.migrations...)
}

func (s *Store) newestFormat() uint64 { return formatVersion + uint64(len(s.opts.migrations)) }

// migrate brings a store of an older format to the newest, all steps in one
// transaction: a power cut leaves the old format or the new one.
func (s *Store) migrate(from uint64) error {
	err := s.commit(commitAlways, func(w *writeTx) error {
		for format := from; format < s.newestFormat(); format++ {
			if err := s.migrations()[format-1](w); err != nil {
				return fmt.Errorf("format %d to %d: %w", format, format+1, err)
			}
		}
		return putNumber(w.meta, keyFormat, s.newestFormat())
	})
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}
