package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gridgate/agent/status"
	"gridgate/configs"
	"gridgate/drivers"
	"gridgate/drivers/address"
	"gridgate/drivers/line"
)

// ports looks at the serial ports: those of meters, of pushes and of the modem.
func (x *exam) ports(ctx context.Context) {
	if x.Config == nil {
		return
	}
	for _, l := range x.Config.Lines() {
		if l.Serial && x.port(l.Key) {
			x.listen(ctx, l)
		}
	}
	for _, l := range x.Config.Push.Listen {
		if l.IsLine() && strings.HasPrefix(l.Line.Line, "/") {
			x.port(l.Line.Line)
		}
	}
	if p := x.Config.Modem.Port; p != "" {
		x.noModem = !x.port(p)
	}
	for _, name := range x.Config.Uplink.Interfaces {
		if strings.Contains(name, ".") || strings.Contains(name, ":") {
			continue // an address
		}
		if _, err := os.Stat(x.Root + "/sys/class/net/" + name); err != nil {
			x.add(Warn, "network", "is the modem plugged in and connected, and its name right in uplink.interfaces? ip link shows the names", "no network interface "+name)
		}
	}
}

// port looks whether a port is there, and who has it.
func (x *exam) port(path string) bool {
	const check = "port"
	device, err := filepath.EvalSymlinks(path)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(device, os.O_RDWR|noCTTY, 0); err == nil {
			_ = f.Close()
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		x.add(Fail, check, "", path+": no such port")
		return false
	case errors.Is(err, os.ErrPermission):
		x.add(Fail, check, "", path+": no permission: does the user belong to the group dialout?")
		return false
	}
	if others := x.holders(device); len(others) > 0 {
		who := strings.Join(others, ", ")
		x.add(Fail, check, "stop "+who+": of two programs on one port each takes the other's answers", path+" is open in "+who+" too")
		return false
	}
	if err != nil && !isBusy(err) {
		x.add(Fail, check, "", path+": "+err.Error())
		return false
	}
	return true
}

// holders names the programs that have a device open, but for the agent and us.
// Who has the other end of a pseudo-terminal is a simulator and needs both.
func (x *exam) holders(device string) (who []string) {
	entries, _ := os.ReadDir(x.Root + "/proc") // of another system nothing is known
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || x.Result.Report != nil && pid == x.Result.Report.PID {
			continue
		}
		dir := x.Root + "/proc/" + e.Name()
		fds, _ := os.ReadDir(dir + "/fd") // of others' processes only root sees it
		has, other := false, false
		for _, fd := range fds {
			target, _ := os.Readlink(dir + "/fd/" + fd.Name())
			has = has || target == device
			other = other || strings.HasSuffix(target, "/ptmx")
		}
		if has && !other {
			name, _ := os.ReadFile(dir + "/comm")
			who = append(who, fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(name)), pid))
		}
	}
	return who
}

// quiet is how long a line is listened to, twice, and back how long what is sent may
// take to come back.
const (
	quiet = 300 * time.Millisecond
	back  = 1500 * time.Millisecond
)

// listen listens to a line on which nobody is asked, and whether what is sent comes
// back. The agent lends the line for it.
func (x *exam) listen(ctx context.Context, l configs.Line) {
	a := l.Meters[0].Address
	if a.Scheme.IsPLC() || x.Options.Report != nil {
		return // a bridge speaks unasked; the agent has its lines itself
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if x.Result.Report != nil {
		giveBack, err := status.Borrow(ctx, x.Result.Socket, l.Key)
		if err != nil && !errors.Is(err, status.ErrUnused) {
			x.add(Warn, "line", "again in a minute: a long visit keeps the line", l.Key+" cannot be listened to: "+err.Error())
			return
		}
		if err == nil {
			defer giveBack()
		}
	}
	port := drivers.OpenLine(a, line.Options{})
	defer func() { _ = port.Close() }()
	var first, second, came []byte
	err := port.Do(ctx, settings(a), func(ctx context.Context, p line.Port) error {
		if err := p.Discard(); err != nil {
			return err
		}
		if first, second = hear(p, quiet, 1<<16), hear(p, quiet, 1<<16); len(first) > 0 && len(second) > 0 {
			return nil
		}
		if err := p.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		if _, err := p.Write(harmless(a)); err != nil {
			return err
		}
		came = hear(p, back, len(harmless(a)))
		return nil
	})
	heard := slices.Concat(first, second, came)
	alone := len(first) == len(heard) || len(second) == len(heard) // a late answer to somebody
	switch {
	case err != nil:
		x.add(Fail, "port", "", err.Error())
	case slices.Equal(heard, harmless(a)):
		x.add(Warn, "line", "the adapter's switch or jumper for echo (RE to DE), or a current loop that is wired so; gridgate passes over it", l.Key+": echo: what is sent comes back")
	case !alone:
		x.add(Fail, "line", "another master on the line, a line without bias and termination, A and B swapped, or something that sends by itself: take the devices off one by one", fmt.Sprintf("%s: noise: %d octets came though nobody was asked", l.Key, len(heard)))
	default:
		x.add(OK, "line", "", l.Key+": quiet, no echo")
	}
}

// hear gives what comes within a time, or until so much has come.
func hear(p line.Port, d time.Duration, enough int) (b []byte) {
	var chunk [256]byte
	if p.SetDeadline(time.Now().Add(d)) != nil {
		return nil
	}
	for len(b) < enough {
		n, err := p.Read(chunk[:])
		b = append(b, chunk[:n]...)
		if err != nil {
			return b
		}
	}
	return b
}

// harmless is what no meter answers: two flags of HDLC, or a frame that is too short
// to be one.
func harmless(a address.Address) []byte {
	if a.Scheme.IsHDLC() {
		return []byte{0x7E, 0x7E}
	}
	return []byte{0x00, 0x00}
}

// settings are those at which a line is spoken to first.
func settings(a address.Address) line.Settings {
	if a.SignOn > 0 {
		return line.Settings{Baud: a.SignOn, DataBits: 7, Parity: 'E', StopBits: 1}
	}
	return line.Settings{Baud: a.Baud, DataBits: a.DataBits, Parity: a.Parity, StopBits: a.StopBits}
}
