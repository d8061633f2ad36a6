package sys

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A file of sysfs is written, and never left active.
func TestPulse(t *testing.T) {
	t.Parallel()
	for _, low := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(path, []byte("-"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := Output{Path: path, Line: -1, Low: low}
		set, done, err := o.open()
		if err != nil {
			t.Fatal(err)
		}
		read := func(want string) {
			t.Helper()
			if b, err := os.ReadFile(path); err != nil || string(b) != want {
				t.Errorf("low %v: %q, %v; want %s", low, b, err, want)
			}
		}
		on, off := "1", "0"
		if low {
			on, off = off, on
		}
		if err := set(true); err != nil {
			t.Fatal(err)
		}
		read(on)
		if err := set(false); err != nil {
			t.Fatal(err)
		}
		read(off)
		if err := done(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a stop in the middle leaves no modem in its reset
		if err := o.Pulse(ctx, time.Hour); err != nil {
			t.Fatal(err)
		}
		read(off)
	}
	for _, o := range []Output{{Path: filepath.Join(t.TempDir(), "none"), Line: -1}, {Path: "/dev/gridgate-no-chip", Line: 3}, {Path: "/dev/null", Line: 3}} {
		if err := o.Pulse(t.Context(), time.Millisecond); err == nil {
			t.Errorf("%+v pulses", o)
		}
	}
}

// The structures are those of linux/gpio.h: their sizes are in the numbers of the
// calls, which are GPIO_V2_GET_LINE_IOCTL and GPIO_V2_LINE_SET_VALUES_IOCTL.
func TestRequestsOfGPIO(t *testing.T) {
	t.Parallel()
	if gpioGetLine != 0xC250B407 || gpioSetValues != 0xC010B40F {
		t.Errorf("%#x, %#x", gpioGetLine, gpioSetValues)
	}
	b := gpioRequest(17, true)
	at := func(i int) uint32 { return binary.NativeEndian.Uint32(b[i:]) }
	if at(0) != 17 || string(b[256:264]) != "gridgate" || binary.NativeEndian.Uint64(b[288:]) != 1<<3|1<<1 || at(560) != 1 || len(b) != 592 {
		t.Errorf("% x", b)
	}
	for i := range b {
		if b[i] != 0 && i != 0 && (i < 256 || i > 263) && i != 288 && i != 560 {
			t.Errorf("octet %d is %d", i, b[i])
		}
	}
	v := gpioValues(true)
	if binary.NativeEndian.Uint64(v[:]) != 1 || binary.NativeEndian.Uint64(v[8:]) != 1 {
		t.Errorf("% x", v)
	}
	if v = gpioValues(false); binary.NativeEndian.Uint64(v[:]) != 0 || binary.NativeEndian.Uint64(v[8:]) != 1 {
		t.Errorf("% x", v)
	}
}
