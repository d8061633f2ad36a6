package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervisor keeps gridgate running, feeds the watchdog, and says when a slot has
// proven itself.
type supervisor struct {
	dir   string // of the slot
	where *disk
	dog   *watchdog
	slots *slots

	deaths []time.Time
}

const (
	feedEvery = 5 * time.Second
	// provenAfter is how long it has to run well until its slot gets its tries back.
	provenAfter = 60 * time.Second
	// When it ends so often in so short a time, the machine starts again: the slot
	// may be broken, and U-Boot counts.
	tooOften = 5
	inTime   = 5 * time.Minute
)

var errStuck = errors.New("gridgate makes no progress")

// run ends when the machine has to start again.
func (s *supervisor) run(ctx context.Context, stop <-chan os.Signal) error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/run/notify", Net: "unixgram"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	give("/run/notify")
	said := make(chan string, 16)
	go listen(conn, said)
	wait := time.Second
	for {
		began := time.Now()
		for len(said) > 0 { // of the one before
			<-said
		}
		err := s.once(ctx, stop, said)
		switch {
		case err == nil: // it was told to stop
			return nil
		case errors.Is(err, errStuck):
			return err
		}
		log.Printf("gridgate ended: %v", err)
		if s.died(time.Now()) {
			return errors.New("gridgate ended too often")
		}
		if time.Since(began) > provenAfter {
			wait = time.Second
		}
		s.dog.feed()
		pause(ctx, wait)
		wait = min(2*wait, 15*time.Second)
	}
}

// died counts an end, and says whether they are too many.
func (s *supervisor) died(now time.Time) bool {
	s.deaths = append(s.deaths, now)
	for now.Sub(s.deaths[0]) > inTime {
		s.deaths = s.deaths[1:]
	}
	return len(s.deaths) >= tooOften
}

func listen(conn *net.UnixConn, said chan<- string) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		said <- string(buf[:n])
	}
}

// once runs gridgate until it ends or is stuck.
func (s *supervisor) once(ctx context.Context, stop <-chan os.Signal, said <-chan string) error {
	cmd := exec.Command(filepath.Join(s.dir, "gridgate"), "run", "-config", "/etc/gridgate/gridgate.yaml") //nolint:gosec // the slot's
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Dir = "/data/gridgate"
	asGridgate(cmd)
	cmd.Env = append(gridgateEnv(),
		"NOTIFY_SOCKET=/run/notify", fmt.Sprintf("WATCHDOG_USEC=%d", silent.Microseconds()),
		"GRIDGATE_INIT="+controlSocket, "GRIDGATE_BOARD="+s.slots.board, "GRIDGATE_SLOT="+s.slots.running, "GOTRACEBACK=single",
	)
	if s.where.memory {
		cmd.Env = append(cmd.Env, "GRIDGATE_DATA_IN_MEMORY=1")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	log.Printf("gridgate of slot %s started (%s after power on)", s.slots.running, uptime())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return s.watch(ctx, cmd.Process, stop, said, ended)
}

func (s *supervisor) watch(ctx context.Context, p *os.Process, stop <-chan os.Signal, said <-chan string, ended <-chan error) error {
	tick := time.NewTicker(feedEvery)
	defer tick.Stop()
	began := time.Now()
	var ready, heard time.Time
	for {
		select {
		case err := <-ended:
			if err == nil {
				err = errors.New("exit status 0")
			}
			return err
		case text := <-said:
			heard = time.Now()
			if strings.Contains(text, "READY=1") && ready.IsZero() {
				ready = heard
			}
		case <-tick.C:
			if stuck(time.Now(), began, ready, heard) {
				kill(p, ended)
				return errStuck
			}
			s.dog.feed()
			if !ready.IsZero() && time.Since(ready) >= provenAfter {
				s.slots.proven()
			}
			if sinceBoot() >= trialLimit && s.slots.onTrial() {
				log.Printf("slot %s is on trial, and nobody has confirmed it in %s", s.slots.running, trialLimit)
				s.end(ctx, p, ended)
				return nil
			}
		case <-stop:
			s.end(ctx, p, ended)
			return nil
		}
	}
}

func stuck(now, began, ready, heard time.Time) bool {
	if ready.IsZero() {
		return now.Sub(began) > starting
	}
	return now.Sub(heard) > silent
}

// end lets gridgate stop in order.
func (s *supervisor) end(ctx context.Context, p *os.Process, ended <-chan error) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		log.Printf("gridgate: %v", err)
	}
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	select {
	case err := <-ended:
		log.Printf("gridgate stopped: %v", err)
	case <-limit.Done():
		kill(p, ended)
	}
}

// kill ends gridgate as a power cut would.
func kill(p *os.Process, ended <-chan error) {
	if err := p.Kill(); err != nil {
		log.Printf("gridgate: %v", err)
	}
	log.Printf("gridgate was killed: %v", <-ended)
}

// writable does something while a file system may be written to.
func writable(dir string, do func() error) error {
	flags := uintptr(unix.MS_REMOUNT | unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID)
	if err := unix.Mount("", dir, "", flags|unix.MS_SYNCHRONOUS, ""); err != nil {
		return err
	}
	err := do()
	return errors.Join(err, unix.Mount("", dir, "", flags|unix.MS_RDONLY, ""))
}
