package buffer

import (
	"testing"

	bolt "go.etcd.io/bbolt"
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
