package sys

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// RTC is a hardware clock (rtc(4)) by the path of its device, such as
// /dev/rtc0. It is taken to run in UTC. Only one process can have it open.
type RTC string

// Read gives its time, which has whole seconds.
func (r RTC) Read() (time.Time, error) {
	f, err := os.Open(string(r))
	if err != nil {
		return time.Time{}, fmt.Errorf("hardware clock: %w", err)
	}
	defer func() { _ = f.Close() }()
	v, err := unix.IoctlGetRTCTime(int(f.Fd()))
	if err != nil {
		return time.Time{}, fmt.Errorf("hardware clock %s: %w", string(r), err)
	}
	t := time.Date(int(v.Year)+1900, time.Month(v.Mon)+1, int(v.Mday), int(v.Hour), int(v.Min), int(v.Sec), 0, time.UTC)
	if v.Mon < 0 || v.Mon > 11 || v.Mday < 1 || v.Mday > 31 || t.Day() != int(v.Mday) {
		return time.Time{}, fmt.Errorf("hardware clock %s: shows %d-%d-%d, which is no date", string(r), v.Year+1900, v.Mon+1, v.Mday)
	}
	return t, nil
}

// Set sets it to the second nearest to t.
func (r RTC) Set(t time.Time) error {
	f, err := os.Open(string(r))
	if err != nil {
		return fmt.Errorf("hardware clock: %w", err)
	}
	defer func() { _ = f.Close() }()
	t = t.UTC().Round(time.Second)
	v := unix.RTCTime{
		Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900,
	}
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &v); err != nil {
		return fmt.Errorf("hardware clock %s: %w", string(r), err)
	}
	return nil
}
