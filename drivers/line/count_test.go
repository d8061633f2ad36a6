package line

import (
	"errors"
	"fmt"
	"testing"

	"gridgate/internal/meter"
)

func TestCount(t *testing.T) {
	t.Parallel()
	l := TCP("h:1", Options{})
	for _, err := range []error{nil, fmt.Errorf("x: %w", meter.ErrNoAnswer), meter.ErrGarbled, errors.New("refused"), nil} {
		l.Note(err)
	}
	if got := l.Count(); got != (Count{Asked: 5, Silent: 1, Damaged: 1}) {
		t.Errorf("%+v", got)
	}
}
