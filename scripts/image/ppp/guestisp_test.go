//go:build guest

package ppp

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
)

// Told so, this machine is something else: a modem and an operator on its
// serial port, for another emulated machine that has nothing else. What comes by TCP
// goes on to the machine that emulates.

const operatorWord = "operator=" // of the command line: PORT:PORT there,…

// operatorOf gives the ports, where the command line has them.
func operatorOf() (string, bool) {
	b, _ := os.ReadFile("/proc/cmdline")
	for w := range strings.FieldsSeq(string(b)) {
		if ports, ok := strings.CutPrefix(w, operatorWord); ok {
			return ports, true
		}
	}
	return "", false
}

func operator(ports string) error {
	if err := wired("lo", "127.0.0.1/8"); err != nil {
		return err
	}
	if err := wired("eth0", "10.0.2.15/24"); err != nil {
		return err
	}
	for p := range strings.SplitSeq(ports, ",") {
		here, there, _ := strings.Cut(p, ":")
		l, err := net.Listen("tcp", ":"+here)
		if err != nil {
			return err
		}
		go forward(l, "10.0.2.2:"+there)
	}
	for {
		if err := answer("/dev/ttyS0"); err != nil {
			return err
		}
		cmd := exec.Command("/sbin/pppd", "/dev/ttyS0", "115200", "nodetach", "local", "noauth", "noipdefault", "nodefaultroute", remote+":"+local, "lcp-echo-interval", "5", "lcp-echo-failure", "20")
		cmd.Env = []string{"PATH=/sbin", "LD_LIBRARY_PATH=/lib"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		fmt.Println("operator: pppd has ended:", cmd.Run())
	}
}

func wired(name, address string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(l, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func forward(l net.Listener, to string) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = from.Close() }()
			far, err := net.Dial("tcp", to)
			if err != nil {
				fmt.Println("operator:", err)
				return
			}
			defer func() { _ = far.Close() }()
			go func() {
				_, _ = io.Copy(far, from)
				_ = far.Close()
			}()
			_, _ = io.Copy(from, far)
		}()
	}
}

// answer takes commands until one dials.
func answer(path string) error {
	t, err := openTTY(Conf{Device: path, Baud: 115200})
	if err != nil {
		return err
	}
	defer func() { _ = t.Close() }()
	fmt.Println("operator: ready")
	var line []byte
	b := make([]byte, 1)
	for {
		if _, err := t.Read(b); err != nil {
			return err
		}
		if b[0] != '\r' {
			line = append(line, b[0])
			continue
		}
		command := clean(string(line))
		line = line[:0]
		fmt.Printf("operator: %s\n", command)
		if strings.HasPrefix(command, "ATD") {
			_, err := io.WriteString(t, "\r\nCONNECT\r\n")
			return err
		}
		if _, err := io.WriteString(t, "\r\n"+said(command)+"\r\n"); err != nil {
			return err
		}
	}
}

// said is what a modem in its network says to a command.
func said(command string) string {
	switch {
	case command == "AT+CPIN?":
		return "+CPIN: READY\r\n\r\nOK"
	case command == "AT+CEREG?":
		return "+CEREG: 0,1\r\n\r\nOK"
	case strings.HasPrefix(command, "AT+") && !strings.HasPrefix(command, "AT+CGDCONT=") && command != "AT+CMEE=1":
		return "ERROR"
	}
	return "OK"
}
