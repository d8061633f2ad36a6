package line_test

import (
	"testing"
	"time"

	"gridgate/drivers/line"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    line.Settings
		text string
		char time.Duration
	}{
		{line.Settings{}, "9600 8N1", 1041666},
		{line.Settings{Baud: 2400, Parity: 'E'}, "2400 8E1", 11 * time.Second / 2400},
		{line.Settings{Baud: 300, DataBits: 7, Parity: 'E'}, "300 7E1", 10 * time.Second / 300},
		{line.Settings{Baud: 19200, StopBits: 2}, "19200 8N2", 11 * time.Second / 19200},
	} {
		if c.s.String() != c.text || c.s.CharTime() != c.char {
			t.Errorf("%+v: %s, %v; want %s, %v", c.s, c.s, c.s.CharTime(), c.text, c.char)
		}
	}
}
