package timesync

import (
	"context"
	"log/slog"
	"time"

	"gridgate/internal/sys"
)

// System is the clock of the machine; sys.Clock is one, and a test has another.
type System interface {
	Now() sys.Instant
	Discipline() (sys.Discipline, error)
	Step(by time.Duration) error
	Slew(by time.Duration) error
	SetFrequency(f float64) error
	Vouch(synchronised bool, maxError time.Duration, leap int) error
}

// Hardware is a clock that runs while the machine is off; sys.RTC is one.
type Hardware interface {
	Read() (time.Time, error)
	Set(t time.Time) error
}

// Network asks the modem's network what time it is; Modem is one.
type Network interface {
	NetworkTime(ctx context.Context) (time.Time, error)
}

// Memory keeps the last time that was known to be right over restarts.
type Memory interface {
	LastTime() time.Time // zero when there is none
	SetLastTime(t time.Time) error
}

// Sample is one exchange with a server.
type Sample struct {
	Offset     time.Duration // server minus the clock that was given
	Trip       time.Duration // round trip, without the server's own time
	Delay      time.Duration // root delay that the server states
	Dispersion time.Duration // root dispersion that the server states
	Stratum    uint8
	Leap       int    // +1 or -1 at the end of the month
	Address    string // that answered
}

// Exchange asks a server once. now is the clock to measure it against. It
// gives up when ctx ends. The errors that are decided on are *Kiss and
// ErrNotSynchronised.
type Exchange func(ctx context.Context, s Server, now func() time.Time) (Sample, error)

// Server is one NTP server.
type Server struct {
	Address string // host or host:port
	NTS     bool   // Address is of the key exchange, RFC 8915
}

func (s Server) String() string {
	if s.NTS {
		return "nts://" + s.Address
	}
	return s.Address
}

// Config is what a Clock works with. System, Boot and Log are required.
type Config struct {
	Servers    []Server
	Discipline Discipline    // Observe unless told
	MinPoll    time.Duration // the first interval, and that after trouble; 64 s unless told
	MaxPoll    time.Duration // 4 h unless told
	StepAbove  time.Duration // what is set at once, not slewed; 500 ms unless told
	MaxError   time.Duration // a holdover that may be further off ends; 1 min unless told

	System   System
	Hardware Hardware // nil: none
	Network  Network  // nil: none
	Memory   Memory   // nil: none
	Exchange Exchange // nil: over the network, by NTP and NTS
	// Boot gives the number of this boot, for stamps.
	Boot func() uint32
	// Corrected is told what time it was in this boot: at the first majority,
	// when the clock is right again after it was not, and every few hours
	// while it is. It is called by Run and does not wait for long.
	Corrected func(Correction) // nil: nobody
	// Stepped is told when the system clock was set. It is called by Run.
	Stepped func(Step) // nil: nobody
	Log     *slog.Logger
}
