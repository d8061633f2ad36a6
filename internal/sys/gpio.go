package sys

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Output is a line that is switched: a file of sysfs that 0 and 1 are written to,
// or a line of a GPIO chip.
type Output struct {
	Path string // the file, or the chip's device
	Line int    // of a chip; -1 of a file
	Low  bool   // active is low
}

// Pulse makes the output active for that long, also when ctx ends meanwhile.
func (o Output) Pulse(ctx context.Context, hold time.Duration) (err error) {
	set, done, err := o.open()
	if err != nil {
		return fmt.Errorf("%s: %w", o.Path, err)
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := set(true); err != nil {
		return fmt.Errorf("%s: %w", o.Path, err)
	}
	timer := time.NewTimer(hold)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	if err := set(false); err != nil {
		return fmt.Errorf("%s: %w", o.Path, err)
	}
	return nil
}

func (o Output) open() (set func(active bool) error, done func() error, err error) {
	if o.Line >= 0 {
		return o.openChip()
	}
	set = func(active bool) error {
		if active == o.Low {
			return WriteSysfs(o.Path, "0")
		}
		return WriteSysfs(o.Path, "1")
	}
	return set, func() error { return nil }, nil
}

// WriteSysfs writes a value to a file that is there.
func WriteSysfs(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// The second interface of GPIO chips (linux/gpio.h, since Linux 5.10). A request is
//
//	offset    0  offsets of up to 64 lines, 32 bits each
//	        256  the consumer's name, 32 octets
//	        288  flags, 64 bits
//	        296  number of attributes, padding, 10 attributes of 24 octets
//	        560  number of lines
//	        564  size of the event buffer, padding
//	        588  the descriptor that comes back
const (
	gpioRequestSize = 592
	gpioConsumer    = 256
	gpioFlags       = 288
	gpioLines       = 560
	gpioDescriptor  = 588
	gpioValuesSize  = 16 // bits, mask

	gpioActiveLow = 1 << 1
	gpioOutput    = 1 << 3

	gpioGetLine   = 3<<30 | gpioRequestSize<<16 | 0xB4<<8 | 0x07
	gpioSetValues = 3<<30 | gpioValuesSize<<16 | 0xB4<<8 | 0x0F
)

// gpioRequest asks for one line as an output that is not active.
func gpioRequest(line int, low bool) (b [gpioRequestSize]byte) {
	flags := uint64(gpioOutput)
	if low {
		flags |= gpioActiveLow
	}
	binary.NativeEndian.PutUint32(b[:], uint32(line))
	copy(b[gpioConsumer:], "gridgate")
	binary.NativeEndian.PutUint64(b[gpioFlags:], flags)
	binary.NativeEndian.PutUint32(b[gpioLines:], 1)
	return b
}

func gpioValues(active bool) (b [gpioValuesSize]byte) {
	if active {
		binary.NativeEndian.PutUint64(b[:], 1)
	}
	binary.NativeEndian.PutUint64(b[8:], 1)
	return b
}

func (o Output) openChip() (set func(bool) error, done func() error, err error) {
	chip, err := os.OpenFile(o.Path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = chip.Close() }()
	request := gpioRequest(o.Line, o.Low)
	if err := ioctl(chip.Fd(), gpioGetLine, unsafe.Pointer(&request)); err != nil {
		return nil, nil, fmt.Errorf("line %d: %w", o.Line, err)
	}
	line := os.NewFile(uintptr(binary.NativeEndian.Uint32(request[gpioDescriptor:])), o.Path)
	set = func(active bool) error {
		values := gpioValues(active)
		return ioctl(line.Fd(), gpioSetValues, unsafe.Pointer(&values))
	}
	return set, line.Close, nil
}

func ioctl(fd, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}
