package bundle

import (
	"errors"
	"strings"
	"syscall"
)

// KernelLog gives the last lines of the kernel's log, at most so many (printk's
// /dev/kmsg, a record a read). Who is not root may often not read it: then there are
// none.
func KernelLog(path string, most int) (lines []string) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = syscall.Close(fd) }()
	var record [8 << 10]byte
	for range 1 << 15 {
		n, err := syscall.Read(fd, record[:])
		if errors.Is(err, syscall.EPIPE) {
			continue // records were overwritten
		}
		if err != nil || n <= 0 {
			break
		}
		_, text, _ := strings.Cut(string(record[:n]), ";")
		text, _, _ = strings.Cut(text, "\n") // behind it stand properties of devices
		if lines = append(lines, text); len(lines) > 2*most {
			lines = append(lines[:0], lines[len(lines)-most:]...)
		}
	}
	return lines[max(0, len(lines)-most):]
}

// mostKernel is how many lines of the kernel's log are in a bundle.
const mostKernel = 400

// Kernel gives the end of the kernel's log.
func Kernel() File {
	text := strings.Join(KernelLog("/dev/kmsg", mostKernel), "\n")
	if text == "" {
		text = "not readable by this user"
	}
	return File{"kernel.txt", text + "\n"}
}
