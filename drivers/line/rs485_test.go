package line

import (
	"os"
	"strings"
	"testing"
	"unsafe"
)

// TestDirection: a terminal that is no RS-485 port says what to do, and the
// kernel's structure has the kernel's size.
func TestDirection(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(rs485{}); size != 32 {
		t.Errorf("serial_rs485 has %d octets, want 32", size)
	}
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := direct(f, ByRTS); err == nil || !strings.Contains(err.Error(), "leave out rs485") {
		t.Errorf("a pseudo-terminal: %v", err)
	}
	if err := direct(f, ByAdapter); err != nil {
		t.Error(err)
	}
}
