package buffer_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"gridgate/buffer"
	"gridgate/internal/meter"
)

// shmDir is a directory in memory where there is one: crash states are many.
func shmDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "buffer")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// childThin opens a store with a quota and has it thinned, step by step.
func childThin(dir string) error {
	s, err := buffer.Open(dir, buffer.Options{BootID: "b", Quota: buffer.Quota{Lanes: [4]buffer.Limit{meter.Interval: {Bytes: 20 << 10}}}})
	if err != nil {
		return err
	}
	for range 5 {
		if err := s.Append(context.Background(), meter.Append{Rows: rowsOf(meter.Instant, 1, 1)}); err != nil {
			return err
		}
	}
	if st, err := s.Stat(); err != nil || st.Lanes[meter.Interval].Lost == 0 {
		return fmt.Errorf("nothing was thinned: %w", err)
	}
	return s.Close()
}

// childCompact makes a store smaller.
func childCompact(dir string) error {
	before, after, err := buffer.Compact(dir)
	if err == nil && after > before/2 {
		err = fmt.Errorf("from %d to %d octets", before, after)
	}
	return err
}
