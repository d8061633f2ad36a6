package update

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
)

// TestRoom: an update that does not fit is not begun; one that fits exactly is,
// and what is there of it counts.
func TestRoom(t *testing.T) {
	t.Parallel()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files, _ := cutFiles()
	var need int64
	for _, f := range files {
		need += f.Size + f.Packed + int64(f.Parts())*32
	}
	var free int64
	s.room = func(string) (int64, int64, error) { return 1 << 40, free, nil }
	none := func(string) (io.ReadCloser, error) { return nil, fs.ErrNotExist }
	free = need + reserve - 1
	if _, err := s.Begin(t.Context(), files, none); !errors.Is(err, ErrRoom) || !strings.Contains(err.Error(), "octets free, it takes ") {
		t.Error(err)
	}
	free++
	j, err := s.Begin(t.Context(), files, none)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Fetch(t.Context(), &cutSource{}, Options{}); err != nil {
		t.Fatal(err)
	}
	free -= files[0].Packed + files[1].Packed
	if _, err := s.Begin(t.Context(), files, none); err != nil {
		t.Error(err)
	}
	if _, err := j.Stage(t.Context()); err != nil {
		t.Fatal(err)
	}
	free = reserve
	if _, err := s.Begin(t.Context(), files, none); err != nil {
		t.Error(err)
	}
}
