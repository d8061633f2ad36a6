package sys

import (
	"errors"
	"io/fs"
	"testing"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	u := Usage()
	if u.Anonymous <= 0 || u.Resident <= u.Anonymous || u.Available <= 0 || u.Written < 0 {
		t.Errorf("%+v", u)
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	total, free, err := Room(t.TempDir())
	if err != nil || total <= 0 || free <= 0 || free > total {
		t.Errorf("%d of %d, %v", free, total, err)
	}
	if _, _, err := Room("/nonexistent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
