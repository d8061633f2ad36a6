package modbus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"gridgate/drivers/line"
	"gridgate/internal/meter"
)

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestClockFormats(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 7, 16, 12, 34, 56, 0, time.UTC)
	for _, c := range []struct {
		clock Clock
		hex   string
	}{
		{Clock{Format: ClockUnix, UTC: true}, "6A58CFF0"},
		{Clock{Format: ClockUnix, UTC: true, LittleEndianWords: true}, "CFF06A58"},
		{Clock{Format: ClockUnix}, "6A58EC10"}, // two hours more
		{Clock{Format: ClockWords, UTC: true}, "07EA 0007 0010 000C 0022 0038"},
		{Clock{Format: ClockWords}, "07EA 0007 0010 000E 0022 0038"},
		{Clock{Format: ClockBytes, UTC: true}, "1A07 100C 2238"},
		{Clock{Format: ClockIEC870, UTC: true}, "001A 0790 0C22 DAC0"},
		{Clock{Format: ClockIEC870}, "001A 0790 8E22 DAC0"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got := c.clock.Append(nil, at, berlin(t), nil)
		if !bytes.Equal(got, want) {
			t.Errorf("%+v: % X, want %s", c.clock, got, c.hex)
		}
		if back, _, valid, err := c.clock.Parse(got, berlin(t)); err != nil || !valid || !back.Equal(at) {
			t.Errorf("%+v: read back as %v, %v, %v", c.clock, back, valid, err)
		}
		for n := range want {
			if _, _, _, err := c.clock.Parse(want[:n], berlin(t)); !errors.Is(err, meter.ErrGarbled) {
				t.Errorf("%+v cut to %d octets: %v", c.clock, n, err)
			}
		}
	}
	short := Clock{Format: ClockWords, UTC: true}
	if got := short.Append(nil, at, nil, []byte{0, 25}); got[0] != 0 || got[1] != 26 {
		t.Errorf("a year of two digits becomes % X", got[:2])
	}
	for _, bad := range []string{"07EA 000D 0010 000C 0022 0038", "07EA 0002 001E 000C 0022 0038", "07EA 0007 0010 0018 0022 0038", "07EA 0007 0010 000C 003C 0038", "FFFF FFFF FFFF FFFF FFFF FFFF"} {
		b, _ := hex.DecodeString(strings.ReplaceAll(bad, " ", ""))
		if at, _, _, err := short.Parse(b, nil); !errors.Is(err, meter.ErrGarbled) {
			t.Errorf("%s is read as %v", bad, at)
		}
	}
}

func FuzzClock(f *testing.F) {
	f.Add(uint8(1), []byte("\x6A\x58\xD1\x10"))
	f.Add(uint8(4), []byte("\x00\x1A\x07\x90\x0C\x22\xDA\xC0"))
	f.Fuzz(func(t *testing.T, format uint8, b []byte) {
		c := Clock{Format: ClockFormat(format), UTC: true}
		at, _, _, err := c.Parse(b, nil)
		if err != nil {
			return
		}
		again, _, _, err := c.Parse(c.Append(nil, at, nil, b), nil)
		if err != nil || !again.Equal(at) {
			t.Errorf("% X is %v, and written %v, %v", b, at, again, err)
		}
	})
}

// TestPymodbusClock compares and sets the clock of a server of other hands.
func TestPymodbusClock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind      string
		transport Transport
	}{{"tcp", TCP}, {"rtuovertcp", RTUOverTCP}, {"rtu", RTU}} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			var l *line.Line
			if c.transport == RTU {
				ours, theirs := terminals(t)
				start(t, "ready", "/usr/bin/python3", "testdata/peer.py", c.kind, theirs)
				l = serialLine(t, ours)
			} else {
				port := strings.TrimPrefix(start(t, "ready", "/usr/bin/python3", "testdata/peer.py", c.kind), "ready ")
				l = closing(t, line.TCP("127.0.0.1:"+port, line.Options{}))
			}
			for _, at := range []Clock{
				{Function: 3, Address: 0x1000, Format: ClockWords, UTC: true, Writable: true},
				{Function: 3, Address: 0x1010, Format: ClockIEC870, UTC: true, Writable: true},
			} {
				setPeer(t, l, c.transport, at)
			}
		})
	}
}

// noon is a clock that stands still.
func noon() meter.Stamp {
	return meter.Stamp{Time: time.Date(2026, 7, 16, 12, 0, 0, 0, time.UTC).UnixMilli(), Mono: 1000, Boot: 1, Bound: 10}
}

func setPeer(t *testing.T, l *line.Line, transport Transport, at Clock) {
	t.Helper()
	model, _ := sdm630()
	model.Clock = &at
	m := New(Config{ID: "m", Serial: "19451234", Unit: 7, Transport: transport, Settings: settings, Model: model, Timeout: 10 * time.Second, Now: noon}, l)
	ask1 := ask("1-0:14.7.0*255/3:2")
	ask1.Clock = true
	got, err := m.Visit(t.Context(), ask1)
	if err != nil || got.Clock == nil || got.Clock.Offset != 10*time.Second || !got.Clock.Valid || len(got.Rows) != 1 {
		t.Fatalf("%v, %+v, %v", err, got.Clock, got.Failures)
	}
	no := errors.New("no")
	ask1.SetClock = &meter.SetClock{May: func(meter.Stamp, meter.ClockOffset) error { return no }}
	if got, err = m.Visit(t.Context(), ask1); err != nil || got.ClockSet == nil || !errors.Is(got.ClockSet.Err, no) || got.ClockSet.Sent {
		t.Errorf("not let: %v, %+v", err, got.ClockSet)
	}
	ask1.SetClock = &meter.SetClock{Method: meter.ShiftTime, May: func(meter.Stamp, meter.ClockOffset) error { return nil }}
	if got, err = m.Visit(t.Context(), ask1); err != nil || got.ClockSet == nil || !errors.Is(got.ClockSet.Err, meter.ErrClockMethod) {
		t.Errorf("shifted: %v, %+v", err, got.ClockSet)
	}
	ask1.SetClock = &meter.SetClock{May: func(meter.Stamp, meter.ClockOffset) error { return nil }}
	got, err = m.Visit(t.Context(), ask1)
	if s := got.ClockSet; err != nil || s == nil || s.Err != nil || !s.Sent || s.Before.Offset != 10*time.Second || s.After == nil || s.After.Offset != 0 {
		t.Errorf("%v, %+v", err, got.ClockSet)
	}
	t.Logf("%+v", got.ClockSet)
}
