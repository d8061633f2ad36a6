package main

import (
	"os/exec"
	"strings"
	"testing"
)

// An independent client reads the units of a paced line at its rate, each by its own
// number and map, and none of them at another rate.
func TestMbpollOnAPacedLine(t *testing.T) {
	t.Parallel()
	printed, _ := simulate(t, 2, "-pty", "-baud", "19200", "-units", "5,30", "-model", "eastron-sdm120,abb-b23")
	tty := printed[0][0]
	rtu := func(baud, unit string, more ...string) []string {
		return append([]string{"-m", "rtu", "-b", baud, "-P", "none", "-a", unit, "-o", "5"}, append(more, tty)...)
	}
	if got := mbpoll(t, rtu("19200", "5", "-B", "-t", "4:int", "-r", "64512", "-c", "1")...)[0xFC00]; got != 20260001 {
		t.Errorf("serial number %v", got)
	}
	if got := mbpoll(t, rtu("19200", "30", "-t", "4", "-r", "23340", "-c", "1")...)[23340]; got < 4900 || got > 5100 {
		t.Errorf("frequency %v", got)
	}
	for _, baud := range []string{"9600", "38400"} {
		args := append([]string{"-1", "-0", "-q", "-m", "rtu", "-b", baud, "-P", "none", "-a", "5", "-o", "1", "-B", "-t", "4:int", "-r", "64512", "-c", "1"}, tty)
		if out, err := exec.CommandContext(t.Context(), "mbpoll", args...).CombinedOutput(); err == nil || strings.Contains(string(out), "20260001") {
			t.Errorf("at %s: %v: %s", baud, err, out)
		}
	}
}
