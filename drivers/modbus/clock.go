package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

// Clock says where a meter keeps the time.
type Clock struct {
	Function uint8 // 3 holding register, 4 input register
	Address  uint16
	Format   ClockFormat
	// LittleEndianWords says that the low word of ClockUnix comes first.
	LittleEndianWords bool
	// UTC says that it shows UTC; else it shows local time, with daylight saving.
	UTC bool
	// Writable says that the time may be written there, by function 16.
	Writable bool
}

// ClockFormat is how a time stands in its registers.
type ClockFormat uint8

// The formats.
const (
	ClockUnix   ClockFormat = iota + 1 // two registers: seconds since 1970
	ClockWords                         // six: year, month, day, hour, minute, second
	ClockBytes                         // three: year and month, day and hour, minute and second, a byte each
	ClockIEC870                        // four: as binary time 2a of IEC 60870-5-4, year first, milliseconds last
)

var clockNames = [...]string{ //nolint:gochecknoglobals // a constant table
	ClockUnix: "unix", ClockWords: "words", ClockBytes: "bytes", ClockIEC870: "iec870",
}

// ClockFormats lists the formats as model files name them.
func ClockFormats() []string { return slices.Clone(clockNames[1:]) }

// ParseClockFormat gives the format that model files call s.
func ParseClockFormat(s string) (ClockFormat, bool) {
	at := slices.Index(clockNames[:], s)
	return ClockFormat(max(at, 0)), at > 0
}

// Len is how many registers the time takes.
func (f ClockFormat) Len() uint16 {
	switch f {
	case ClockUnix:
		return 2
	case ClockWords:
		return 6
	case ClockBytes:
		return 3
	case ClockIEC870:
		return 4
	}
	return 0
}

// errClock says that registers hold no time.
var errClock = fmt.Errorf("%w: no time", meter.ErrGarbled)

// Parse reads a time from its registers' bytes, in zone where it is local. milli
// says that it has milliseconds, valid that the meter says nothing against it.
func (c *Clock) Parse(b []byte, zone *time.Location) (t time.Time, milli, valid bool, err error) {
	if len(b) != 2*int(c.Format.Len()) {
		return t, false, false, errClock
	}
	word := func(i int) int { return int(binary.BigEndian.Uint16(b[2*i:])) }
	if c.UTC || zone == nil {
		zone = time.UTC
	}
	year, month, day, hour, minute, ms := 0, 0, 0, 0, 0, 0
	valid = true
	switch c.Format {
	case ClockUnix:
		high, low := word(0), word(1)
		if c.LittleEndianWords {
			high, low = low, high
		}
		t = time.Unix(int64(high)<<16|int64(low), 0).UTC()
		if !c.UTC { // seconds of the local clock
			t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, zone).UTC()
		}
		return t, false, true, nil
	case ClockWords:
		year, month, day, hour, minute, ms = word(0), word(1), word(2), word(3), word(4), word(5)*1000
	case ClockBytes:
		year, month, day, hour, minute, ms = int(b[0]), int(b[1]), int(b[2]), int(b[3]), int(b[4]), int(b[5])*1000
	case ClockIEC870:
		year, month, day = word(0)&0x7F, int(b[2])&0x0F, int(b[3])&0x1F
		hour, minute, ms = int(b[4])&0x1F, int(b[5])&0x3F, word(3)
		milli, valid = true, b[5]&0x80 == 0
	}
	if year < 100 {
		year += 2000
	}
	t = time.Date(year, time.Month(month), day, hour, minute, ms/1000, ms%1000*int(time.Millisecond), zone)
	if month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || ms > 59999 || year < 2000 || year > 2099 || t.Day() != day {
		return time.Time{}, false, false, fmt.Errorf("%w: % X", errClock, b)
	}
	return t.UTC(), milli, valid, nil
}

// Append appends the registers' bytes of a time. before is what the meter has
// there: what is no part of the time stays, and a year has as many digits.
func (c *Clock) Append(b []byte, t time.Time, zone *time.Location, before []byte) []byte {
	if c.UTC || zone == nil {
		zone = time.UTC
	}
	t = t.In(zone)
	be := binary.BigEndian
	switch c.Format {
	case ClockUnix:
		seconds := t.Round(time.Second).Unix()
		if !c.UTC {
			_, offset := t.Zone()
			seconds += int64(offset)
		}
		words := []uint16{uint16(seconds >> 16), uint16(seconds)}
		if c.LittleEndianWords {
			slices.Reverse(words)
		}
		return be.AppendUint16(be.AppendUint16(b, words[0]), words[1])
	case ClockWords:
		t = t.Round(time.Second)
		year := t.Year()
		if len(before) > 1 && be.Uint16(before) < 100 {
			year %= 100
		}
		for _, n := range []int{year, int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} {
			b = be.AppendUint16(b, uint16(n))
		}
		return b
	case ClockBytes:
		t = t.Round(time.Second)
		return append(b, byte(t.Year()%100), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
	case ClockIEC870:
		t = t.Round(time.Millisecond)
		weekday, summer := (int(t.Weekday())+6)%7+1, byte(0)
		if t.IsDST() {
			summer = 0x80
		}
		b = append(b, 0, byte(t.Year()%100), byte(t.Month()), byte(weekday<<5|t.Day()), byte(t.Hour())|summer, byte(t.Minute()))
		return be.AppendUint16(b, uint16(t.Second()*1000+t.Nanosecond()/int(time.Millisecond)))
	}
	return b
}

func (c *Clock) block() block {
	return block{function: c.Function, address: c.Address, count: c.Format.Len()}
}

// clockChannel is the name of a meter's clock in failures.
const clockChannel meter.Channel = "0-0:1.0.0*255/8:2"

// clock compares the meter's clock and puts it right, as ask says. A meter
// without one is not asked.
func (v *visit) clock(ctx context.Context, ask meter.Ask, got *meter.Got) error {
	c := v.cfg.Model.Clock
	if c == nil || !ask.Clock && ask.SetClock == nil {
		return nil
	}
	found, before, err := v.compare(ctx, c)
	if err != nil {
		return v.clockFailed(got, err)
	}
	got.Clock = &found
	if ask.SetClock == nil {
		return nil
	}
	set := &meter.ClockSet{At: v.cfg.Now(), Before: found}
	got.ClockSet = set
	switch {
	case got.Identity.Want != "" && !got.Identity.Proven:
		set.Err = errors.New("it is not proven that the meter is the configured one")
		return nil
	case !c.Writable, ask.SetClock.Method != meter.WriteTime:
		set.Err = meter.ErrClockMethod
		return nil
	}
	if set.Err = ask.SetClock.May(set.At, found); set.Err != nil {
		return nil //nolint:nilerr // it is told in Got
	}
	way := found.Uncertainty - c.resolution()
	set.Sent = true
	set.Err = v.write(ctx, c.Address, c.Append(nil, set.At.UTC().Add(way), v.cfg.TimeZone, before))
	if set.Err != nil {
		return v.clockFailed(got, set.Err)
	}
	after, _, err := v.compare(ctx, c)
	if err != nil {
		return v.clockFailed(got, err)
	}
	set.After = &after
	return nil
}

// clockFailed notes what is about the clock alone, and gives what stops the visit.
func (v *visit) clockFailed(got *meter.Got, err error) error {
	var no refusal
	if errors.As(err, &no) && !errors.Is(err, meter.ErrNoAnswer) || errors.Is(err, errClock) {
		got.Failures = append(got.Failures, meter.Failure{Channel: clockChannel, Err: err})
		return nil
	}
	return err
}

func (c *Clock) resolution() time.Duration {
	if c.Format == ClockIEC870 {
		return time.Millisecond
	}
	return time.Second
}

// compare reads the clock.
func (v *visit) compare(ctx context.Context, c *Clock) (found meter.ClockOffset, raw []byte, err error) {
	before := v.cfg.Now()
	raw, err = v.request(ctx, c.block())
	if err != nil {
		return found, nil, fmt.Errorf("clock: %w", err)
	}
	after := v.cfg.Now()
	shown, _, valid, err := c.Parse(raw, v.cfg.TimeZone)
	if err != nil {
		return found, nil, fmt.Errorf("clock: %w", err)
	}
	turn := time.Duration(after.Mono-before.Mono) * time.Millisecond
	stepped := time.Duration(after.Time-before.Time)*time.Millisecond - turn
	middle := after.UTC().Add(-turn / 2)
	if !c.UTC && v.cfg.TimeZone != nil { // it does not say which pass of an hour that comes twice
		shown = near(shown, middle, v.cfg.TimeZone)
	}
	return meter.ClockOffset{
		Offset: shown.Sub(middle), Uncertainty: turn/2 + c.resolution() + stepped.Abs(), Valid: valid, At: after,
	}, raw, nil
}

// near gives, of the two moments that a local time means where clocks are put
// back, the one that is nearer to at.
func near(t, at time.Time, zone *time.Location) time.Time {
	const wall = "02 15:04:05"
	for _, by := range []time.Duration{-time.Hour, time.Hour} {
		other := t.Add(by)
		if other.In(zone).Format(wall) == t.In(zone).Format(wall) && other.Sub(at).Abs() < t.Sub(at).Abs() {
			return other
		}
	}
	return t
}

// write writes registers. It is not repeated: what was not answered may have been
// done.
func (m *Meter) write(ctx context.Context, address uint16, values []byte) error {
	return m.line.Do(ctx, m.cfg.Settings, func(ctx context.Context, port line.Port) error {
		if m.mbap != nil {
			m.mbap.ctx, m.mbap.port = ctx, port
		} else {
			m.rtu.ctx, m.rtu.port, m.rtu.others = ctx, port, nil
		}
		if _, err := m.client.WriteMultipleRegisters(address, uint16(len(values)/2), values); err != nil {
			return fmt.Errorf("unit %d: write %d registers at 0x%04X: %w", m.cfg.Unit, len(values)/2, address, translate(err))
		}
		return nil
	})
}
