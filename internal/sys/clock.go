package sys

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Instant is one moment, by three of the kernel's clocks.
type Instant struct {
	// Wall is CLOCK_REALTIME, UTC. It is slewed and stepped.
	Wall time.Time
	// Mono is CLOCK_BOOTTIME: the time since boot. It is slewed as Wall is,
	// and never stepped.
	Mono time.Duration
	// Raw is CLOCK_MONOTONIC_RAW: the oscillator alone, which nobody slews or
	// steps. It stands still while the system is suspended.
	Raw time.Duration
	// Suspended is how long the system was suspended since boot, to some
	// microseconds.
	Suspended time.Duration
}

// Discipline is what the kernel knows of its clock (adjtimex(2)).
type Discipline struct {
	Synchronised bool          // somebody disciplines it
	MaxError     time.Duration // as that somebody said, growing by 500 ppm since
	Frequency    float64       // correction of the oscillator, seconds a second
	Slewing      time.Duration // what is left of the correction by Slew
	Leap         int           // +1, -1: a second is inserted or left out at the end of the day (UTC)
}

// Clock is the clock of this machine. The zero value is ready. Setting it
// takes CAP_SYS_TIME.
type Clock struct{}

// tries is how often the clocks are read anew when something came between.
const tries = 5

// Now reads the clocks, all within a few microseconds.
func (Clock) Now() Instant {
	var best Instant
	shortest := time.Duration(1<<63 - 1)
	for range tries {
		before := read(unix.CLOCK_MONOTONIC_RAW)
		monotonic := read(unix.CLOCK_MONOTONIC)
		wall := time.Now()
		boot := read(unix.CLOCK_BOOTTIME)
		after := read(unix.CLOCK_MONOTONIC_RAW)
		if span := after - before; span < shortest {
			shortest = span
			best = Instant{
				Wall: wall.Round(0).UTC(), Mono: boot,
				Raw: before + span/2, Suspended: max(boot-monotonic, 0),
			}
		}
		if shortest < 20*time.Microsecond {
			break
		}
	}
	return best
}

func read(clock int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0 // Linux has had these clocks since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// The modes of old adjtime(3) within adjtimex(2), and the kernel's limits.
const (
	singleShot     = unix.ADJ_OFFSET_SINGLESHOT
	singleShotRead = unix.ADJ_OFFSET_SS_READ
	mostFrequency  = 500e-6
	mostMaxError   = 16 * time.Second // the kernel takes more for unsynchronised
)

// Discipline reads what the kernel knows of its clock.
func (Clock) Discipline() (Discipline, error) {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return Discipline{}, fmt.Errorf("adjtimex: %w", err)
	}
	d := Discipline{
		Synchronised: state != unix.TIME_ERROR && tx.Status&unix.STA_UNSYNC == 0,
		MaxError:     time.Duration(tx.Maxerror) * time.Microsecond,
		Frequency:    float64(tx.Freq) / 65536e6,
	}
	switch {
	case tx.Status&unix.STA_INS != 0:
		d.Leap = 1
	case tx.Status&unix.STA_DEL != 0:
		d.Leap = -1
	}
	left := unix.Timex{Modes: singleShotRead}
	if _, err := unix.Adjtimex(&left); err == nil {
		d.Slewing = time.Duration(left.Offset) * time.Microsecond
	}
	return d, nil
}

// Step sets the wall clock by so much, at once. What a Slew has left is
// forgotten.
func (c Clock) Step(by time.Duration) error {
	if err := c.Slew(0); err != nil {
		return err
	}
	seconds, micros := by/time.Second, by%time.Second/time.Microsecond
	if micros < 0 {
		seconds, micros = seconds-1, micros+1e6
	}
	tx := unix.Timex{Modes: unix.ADJ_SETOFFSET}
	set(&tx.Time.Sec, int64(seconds))
	set(&tx.Time.Usec, int64(micros))
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("adjtimex: step by %v: %w", by, err)
	}
	return nil
}

// Slew corrects the wall clock by so much without a step, at 500 ppm. It
// replaces what another Slew has left.
func (Clock) Slew(by time.Duration) error {
	if by.Abs() > time.Minute {
		return fmt.Errorf("slew by %v: that takes more than a day", by)
	}
	tx := unix.Timex{Modes: singleShot}
	set(&tx.Offset, by.Microseconds())
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("adjtimex: slew by %v: %w", by, err)
	}
	return nil
}

// SetFrequency makes the clock run faster by so many seconds a second, at most
// 500 ppm.
func (Clock) SetFrequency(f float64) error {
	f = min(max(f, -mostFrequency), mostFrequency)
	tx := unix.Timex{Modes: unix.ADJ_FREQUENCY}
	set(&tx.Freq, int64(f*65536e6))
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("adjtimex: frequency %.1f ppm: %w", f*1e6, err)
	}
	return nil
}

// Vouch tells the kernel, and whoever asks it, how good its clock is. A
// synchronised kernel keeps the hardware clock right, where it has been built
// to. leap as Discipline.Leap has it.
func (Clock) Vouch(synchronised bool, maxError time.Duration, leap int) error {
	tx := unix.Timex{Modes: unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR}
	if !synchronised {
		tx.Status |= unix.STA_UNSYNC
	}
	switch leap {
	case 1:
		tx.Status |= unix.STA_INS
	case -1:
		tx.Status |= unix.STA_DEL
	}
	set(&tx.Maxerror, min(maxError, mostMaxError).Microseconds())
	set(&tx.Esterror, min(maxError, mostMaxError).Microseconds())
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("adjtimex: status: %w", err)
	}
	return nil
}

// set assigns to fields whose width differs from one machine to the other.
func set[T int32 | int64](to *T, v int64) { *to = T(v) }

// NotPermitted says that the process may not set the clock.
func NotPermitted(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}
