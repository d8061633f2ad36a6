package buffer

import (
	"bytes"
	"errors"
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

// CloseAsOlder gives a store the format that this program knows, and closes it.
func CloseAsOlder(s *Store) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		return putNumber(tx.Bucket([]byte(bucketMeta)), keyFormat, formatVersion)
	})
	return errors.Join(err, s.Close())
}

// ChunkPlace is where a chunk stands in a file.
type ChunkPlace struct{ At, Len, Rows int }

// ChunksOf gives the chunks that hang in the tree of a sound file.
func ChunksOf(file []byte) (all []ChunkPlace) {
	r := bytes.NewReader(file)
	tree := survey(r, r.Size(), nil)
	if !tree.whole {
		panic("the file is damaged")
	}
	scan(r, r.Size(), func(at int64, c chunkInfo, b []byte) {
		if tree.live(uint64(at) / pageSize) {
			all = append(all, ChunkPlace{int(at), len(b), int(c.rows)})
		}
	}, nil)
	return all
}
