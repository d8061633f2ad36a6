package dlms

import (
	"bytes"
	"errors"
	"testing"

	"gridgate/dlms/axdr"
)

// TestAnswersShareTheirRoom: several values of one answer take no more memory
// than one.
func TestAnswersShareTheirRoom(t *testing.T) {
	t.Parallel()
	const n = 150_000
	nulls := append([]byte{0, byte(axdr.TagArray), 0x83, n >> 16, n >> 8 & 0xFF, n & 0xFF}, make([]byte, n)...)
	r := reader{b: bytes.Repeat(nulls, 2)}
	if v, err := parseDataResult(&r); err != nil || len(v.Items) != n {
		t.Errorf("the first: %d, %v", len(v.Items), err)
	}
	if v, err := parseDataResult(&r); !errors.Is(err, axdr.ErrRoom) || !errors.Is(err, ErrMalformed) {
		t.Errorf("the second: %d, %v", len(v.Items), err)
	}
}
