package line

import (
	"fmt"
	"time"
)

// Settings is how bytes travel on a serial line. The zero value of a field is
// the usual: 9600 baud, 8 data bits, no parity, 1 stop bit. TCP lines ignore
// them. Settings compare with ==.
type Settings struct {
	Baud     int  // bits per second
	DataBits int  // 5 to 8
	Parity   byte // 'N', 'E' or 'O'
	StopBits int  // 1 or 2
}

// String gives the settings as people write them: 9600 8N1.
func (s Settings) String() string {
	s = s.filled()
	return fmt.Sprintf("%d %d%c%d", s.Baud, s.DataBits, s.Parity, s.StopBits)
}

// CharTime is how long one character is on the wire: start, data, parity and
// stop bits.
func (s Settings) CharTime() time.Duration {
	s = s.filled()
	bits := 1 + s.DataBits + s.StopBits
	if s.Parity != 'N' {
		bits++
	}
	return time.Duration(bits) * time.Second / time.Duration(s.Baud)
}

func (s Settings) filled() Settings {
	if s.Baud <= 0 {
		s.Baud = 9600
	}
	if s.DataBits == 0 {
		s.DataBits = 8
	}
	if s.Parity == 0 {
		s.Parity = 'N'
	}
	if s.StopBits == 0 {
		s.StopBits = 1
	}
	return s
}

// normal fills in what is zero and refuses what no port can do.
func (s Settings) normal() (Settings, error) {
	if s.Baud < 0 {
		return s, fmt.Errorf("baud rate %d: want a positive number", s.Baud)
	}
	s = s.filled()
	switch {
	case s.DataBits < 5 || s.DataBits > 8:
		return s, fmt.Errorf("data bits %d: want 5 to 8", s.DataBits)
	case s.Parity != 'N' && s.Parity != 'E' && s.Parity != 'O':
		return s, fmt.Errorf("parity %q: want N, E or O", s.Parity)
	case s.StopBits != 1 && s.StopBits != 2:
		return s, fmt.Errorf("stop bits %d: want 1 or 2", s.StopBits)
	}
	return s, nil
}
