package line

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Direction says who switches the driver of an RS-485 port between sending and
// listening.
type Direction uint8

// The directions.
const (
	ByAdapter  Direction = iota // the adapter by itself, or the driver as the system left it
	ByRTS                       // the kernel, RTS being high while it sends
	ByRTSOnLow                  // the kernel, RTS being low while it sends
)

// rs485 is struct serial_rs485 of linux/serial.h.
type rs485 struct {
	flags                 uint32
	beforeSend, afterSend uint32 // delays in ms
	padding               [5]uint32
}

const (
	rs485Enabled   = 1 << 0
	rs485OnSend    = 1 << 1
	rs485AfterSend = 1 << 2
)

// direct has the kernel switch the direction of a port.
func direct(file *os.File, d Direction) error {
	if d == ByAdapter {
		return nil
	}
	mode := rs485{flags: rs485Enabled | rs485OnSend}
	if d == ByRTSOnLow {
		mode.flags = rs485Enabled | rs485AfterSend
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCSRS485, uintptr(unsafe.Pointer(&mode)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if errors.Is(err, syscall.ENOTTY) || errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("the port does not switch the direction of RS-485 by itself: leave out rs485 if the adapter does (%w)", err)
	}
	return err
}
