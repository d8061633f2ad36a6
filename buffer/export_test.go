package buffer

import (
	"testing"

	bolt "go.etcd.io/bbolt"

	"gridgate/internal/meter"
)

// MakeNewer makes a store of the next format.
func MakeNewer(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		return putNumber(tx.Bucket([]byte(bucketMeta)), keyFormat, formatVersion+1)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// PayloadOf is the length of the chunks of rows.
func PayloadOf(rows []meter.Row) (n int) {
	for len(rows) > 0 {
		chunk, taken, err := cutChunk(nil, rows[0].Lane, 1, 1, rows)
		if err != nil {
			panic(err)
		}
		n, rows = n+len(chunk), rows[taken:]
	}
	return n
}

// WithMigration gives options of a program that knows one format more.
func WithMigration(o Options, step func() error) Options {
	o.migrations = []migration{func(*writeTx) error { return step() }}
	return o
}
