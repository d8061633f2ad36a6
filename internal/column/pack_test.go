package column

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestPack(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "a", strings.Repeat("house-001-m1", 200)} {
		b := Pack([]byte("x"), []byte(p))[1:]
		got, err := Unpack(b)
		if err != nil || !bytes.Equal(got, []byte(p)) {
			t.Errorf("%d octets: %q %v", len(p), got, err)
		}
		if len(p) > 100 && len(b) > len(p)/4 {
			t.Errorf("%d octets packed to %d", len(p), len(b))
		}
		for i := range b {
			if got, err := Unpack(b[:i]); err == nil && len(got) >= len(p) || err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("cut at %d of %d: %q %v", i, len(b), got, err)
			}
		}
	}
}
